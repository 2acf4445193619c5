"""Alignment measures against constructions whose answer is known, and their behaviour on bad input."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_less

from eoslib import alignment, descent, network


def orthogonal(d, rng):
    return np.linalg.qr(rng.standard_normal((d, d)))[0]


def aligned(singular, target, rng):
    """Layers with given singular values (L, d), aligned with `target` through random inner frames."""
    depth, d = singular.shape
    Q = np.stack([orthogonal(d, rng) for _ in range(depth - 1)])
    ends = np.concatenate([target.right[None], Q, target.left[None]])
    return (ends[1:] * singular[:, None, :]) @ ends[:-1].mT, Q


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_aligned_network_is_seen_as_aligned_by_every_measure(depth):
    rng = np.random.default_rng(depth)
    d = 6
    t = network.target((5, 3, 2), d, rng=rng)
    W, Q = aligned(np.linspace(2, 0.5, d) * rng.uniform(1, 1.2, (depth, 1)), t, rng)
    # rounding of some 1e-15 over gaps of at least 0.3 between singular values, a few dozen times
    assert alignment.subspace_distance(W, 3).max() < 1e-12
    assert alignment.commutator(W).max() < 1e-12
    assert alignment.off_diagonal(alignment.coordinates(W, t.left, t.right, Q)).max() < 1e-13
    assert alignment.angles(network.product(W), t.right, 3).max() < 1e-12


def test_every_measure_sees_a_rotation_of_known_size():
    rng = np.random.default_rng(0)
    t = network.target((5, 3), 4, rng=rng)
    W, Q = aligned(np.tile([2.0, 1.5, 1.0, 0.5], (3, 1)), t, rng)
    angle = 1e-3
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    W[1] = W[1] @ Q[0] @ turn @ Q[0].T  # turn the input vectors of layer 2 in the plane of modes 1 and 2
    expected = np.sqrt(2 * (np.sin(angle) ** 2 + (1 - np.cos(angle)) ** 2))
    assert_allclose(alignment.subspace_distance(W, 2), [expected, 0], atol=1e-13)
    # [diag(4, 2.25), R diag(4, 2.25) R^T] has two entries of size (4 - 2.25)^2 sin(2 angle) / 2
    assert_allclose(alignment.commutator(W), [np.sqrt(2) * 1.75**2 * np.sin(2 * angle) / 2, 0], atol=1e-13)
    # turned entries: (2 - 1.5) sin is wrong, the larger of 2 sin and 1.5 sin is right
    assert_allclose(
        alignment.off_diagonal(alignment.coordinates(W, t.left, t.right, Q)), [0, 2 * np.sin(angle), 0], atol=1e-13
    )


def test_printed_distance_depends_on_signs_and_ours_does_not():
    W = np.stack([np.diag([3.0, 2.0]), np.diag([-3.0, 2.0])])
    assert alignment.subspace_distance(W, 2) == 0
    # whatever LAPACK does with signs, the four choices give 0, 2, 2 or 2 sqrt 2
    assert np.abs(alignment.subspace_distance(W, 2, signed=True) - np.array([0, 2, np.sqrt(8)])).min() < 1e-15


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_orthogonal_start_is_the_identity_start_in_other_frames(depth):
    rng = np.random.default_rng(depth)
    d, alpha = 5, 0.1
    t = network.target((4, 3), d, rng=rng)
    W = network.initialise("orthogonal", depth=depth, width=d, scale=alpha, rng=rng)
    R = alignment.frames(W)
    plain = network.initialise("unbalanced", depth=depth, width=d, scale=alpha)
    assert_allclose(alignment.rotate(W, R), plain, atol=1e-15)
    rate = 1.0 / (depth * 4 ** (2 - 2 / depth))
    a, b = descent.descend(W, t.matrix, rate, 500), descent.descend(plain, t.matrix, rate, 500)
    # below the edge, rounding errors of about 1e-16 a step are damped or carried along: 500 steps stay below 1e-12
    assert_allclose(alignment.rotate(a.weights, R), b.weights, atol=1e-12)
    assert_allclose(a.loss, b.loss, atol=1e-11)


def test_velocity_of_singular_vectors_is_the_finite_difference():
    rng = np.random.default_rng(3)
    W, dW, h = rng.standard_normal((5, 4)), rng.standard_normal((5, 4)), 1e-5
    (U, _, _), (dU, ds, dV) = alignment.singular_vector_velocity(W, dW)

    def at(shift):
        u, x, v = np.linalg.svd(W + shift * dW, full_matrices=False)
        flip = np.sign((u * U).sum(0))
        return u * flip, x, v.T * flip

    (u1, s1, v1), (u0, s0, v0) = at(h), at(-h)
    # central difference: h^2 = 1e-10 times third derivatives (gaps of order 1), and 1e-16 / h of rounding
    assert_allclose((u1 - u0) / (2 * h), dU, atol=1e-7)
    assert_allclose((v1 - v0) / (2 * h), dV, atol=1e-7)
    assert_allclose((s1 - s0) / (2 * h), ds, atol=1e-8)


def test_velocity_of_a_thin_matrix_that_keeps_its_rank():
    rng = np.random.default_rng(4)
    A, B, dA, dB = (rng.standard_normal((6, 2)) for _ in range(4))
    W, dW = A @ B.T, dA @ B.T + A @ dB.T
    (U, s, V), (dU, ds, dV) = alignment.singular_vector_velocity(W, dW)
    assert U.shape == V.shape == (6, 2)
    assert_allclose((dU * s) @ V.T + (U * ds) @ V.T + (U * s) @ dV.T, dW, atol=1e-13)
    assert_allclose(dU.T @ U + U.T @ dU, 0, atol=1e-13)
    assert_allclose(dV.T @ V + V.T @ dV, 0, atol=1e-13)


def test_imbalance_moves_at_second_order_only():
    rng = np.random.default_rng(5)
    M, W, rate = rng.standard_normal((4, 4)), rng.standard_normal((3, 4, 4)) / 2, 0.01
    G = network.gradient(W, M)
    step = alignment.imbalance(W - rate * G) - alignment.imbalance(W)
    assert_allclose(step, rate**2 * (G[1:].mT @ G[1:] - G[:-1] @ G[:-1].mT), atol=1e-14)
    W1 = descent.flow(W, M, [1.0])[0]
    assert np.abs(W1 - W).max() > 0.05
    # the integrator's relative tolerance is 1e-10 a step
    assert_allclose(alignment.imbalance(W1), alignment.imbalance(W), atol=1e-8)


def test_first_order_distance_has_a_second_order_error():
    rng = np.random.default_rng(6)
    d = 5
    t = network.target((3, 2), d, rng=rng)
    W, _ = aligned(np.tile([2.0, 1.5, 0.3, 0.2, 0.1], (3, 1)), t, rng)
    bend = rng.standard_normal(W.shape)
    errors = []
    for size in (1e-3, 1e-4):
        X = W + size * bend
        found, first = (
            alignment.subspace_distance(X, 2),
            alignment.distance_from_imbalance(X, alignment.imbalance(X), 2),
        )
        errors.append(np.abs(found / first - 1))
    assert_array_less(errors[1], 1e-2)
    assert_array_less(errors[1], errors[0] / 3)  # the relative error falls in proportion to the bend


def test_one_mode_is_lost_at_second_order():
    """With one leading vector only the loss to the others remains: 1 - cos(a) for an angle a."""
    a = 0.01
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    W = np.stack([np.diag([2.0, 1.0]), np.diag([2.0, 1.0]) @ turn.T])
    first = alignment.distance_from_imbalance(W, alignment.imbalance(W), 1)
    assert_allclose(alignment.subspace_distance(W, 1), 1 - np.cos(a), rtol=1e-9)
    assert_allclose(first, a**2 / 2, rtol=1e-3)  # next order: a^2 = 1e-4, times a number of order 1


def test_angles_count_what_leaves_the_leading_vectors():
    a = 0.3
    turn = np.eye(3)
    turn[::2, ::2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]  # mode 1 leans towards mode 3
    P = np.diag([3.0, 2.0, 1.0]) @ turn.T
    for by in ("mode", "order"):
        assert_allclose(alignment.angles(P, np.eye(3), 2, by=by), [a, 0], atol=1e-14)


def test_batches_give_what_single_networks_give():
    rng = np.random.default_rng(7)
    W = rng.standard_normal((2, 3, 4, 5, 5))
    left, right = orthogonal(5, rng), orthogonal(5, rng)
    for f in (
        lambda w: alignment.subspace_distance(w, 2),
        alignment.commutator,
        alignment.imbalance,
        lambda w: alignment.off_diagonal(alignment.coordinates(w, left, right)),
        lambda w: alignment.angles(network.product(w), right, 3),
        lambda w: alignment.angles(network.product(w), right, 3, by="order"),
    ):
        assert_allclose(f(W)[1, 2], f(W[1, 2]), atol=1e-12)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: alignment.subspace_distance(np.ones((1, 2, 2)), 1), "needs at least 2"),
        (lambda: alignment.subspace_distance(np.ones((2, 2, 2)), 3), "rank: got 3"),
        (lambda: alignment.angles(np.eye(2), np.eye(3), 1), "vectors: got shape"),
        (lambda: alignment.angles(np.eye(2), np.eye(2), 1, by="size"), "by: got 'size'"),
        (
            lambda: alignment.coordinates(np.ones((2, 2, 2)), np.eye(2), np.eye(2), np.ones((2, 2, 2))),
            "frames: got shape",
        ),
        (lambda: alignment.frames(np.ones((2, 2, 2))), "layer 1"),
        (lambda: alignment.frames(np.ones((1, 2, 2, 2))), "one network"),
        (lambda: alignment.distance_from_imbalance(np.stack([np.eye(2)] * 2), np.zeros((1, 2, 2)), 1), "coinciding"),
        (
            lambda: alignment.distance_from_imbalance(np.stack([np.diag([2.0, 1])] * 2), np.zeros((2, 2)), 1),
            "C: got shape",
        ),
        (lambda: alignment.singular_vector_velocity(np.eye(2), np.eye(2)), "coinciding"),
        (lambda: alignment.singular_vector_velocity(np.zeros((2, 2)), np.eye(2)), "zero matrix"),
        (lambda: alignment.singular_vector_velocity(np.diag([1.0, 0.0]), np.eye(2)), "raise the rank"),
        (lambda: alignment.singular_vector_velocity(np.eye(2), np.eye(3)), "velocity: got shape"),
    ],
)
def test_bad_input_is_named(call, word):
    with pytest.raises(ValueError, match=word):
        call()


@pytest.mark.parametrize("size", [1e-200, 1e-120, 1.0, 1e120])
def test_small_and_large_layers_have_the_same_vectors(size):
    rng = np.random.default_rng(3)
    W = rng.standard_normal((2, 3, 3))
    W[1] = W[0] + 1e-4 * rng.standard_normal((3, 3))
    C = alignment.imbalance(W)
    plain = alignment.distance_from_imbalance(W, C, 2)
    if size > 1e-150:  # the imbalance, a square, must itself be in range
        scaled = alignment.distance_from_imbalance(size * W, size * (size * C), 2)
        np.testing.assert_allclose(scaled, plain, rtol=1e-12)
    np.testing.assert_allclose(alignment.subspace_distance(size * W, 2), alignment.subspace_distance(W, 2), atol=1e-14)
    velocity = rng.standard_normal((3, 3))
    (_, s, _), (dU, ds, _) = alignment.singular_vector_velocity(size * W[0], size * velocity)
    (_, s1, _), (dU1, ds1, _) = alignment.singular_vector_velocity(W[0], velocity)
    np.testing.assert_allclose(s / size, s1, rtol=1e-14)
    np.testing.assert_allclose(ds / size, ds1, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(np.abs(dU), np.abs(dU1), rtol=1e-10, atol=1e-12)


def test_commutator_of_small_layers_is_no_zero():
    shear = np.array([[1.0, 1.0], [0.0, 1.0]])
    W = 1e-60 * np.stack([shear, np.diag([2.0, 1.0])])
    np.testing.assert_allclose(alignment.commutator(W), 1e-240 * alignment.commutator(1e60 * W), rtol=1e-12)
    with pytest.raises(ValueError, match="W: got"):
        alignment.commutator(1e160 * W)


def test_frames_take_float32_and_small_scales():
    rng = np.random.default_rng(0)
    W = network.initialise("orthogonal", depth=3, width=20, scale=0.1, rng=rng)
    exact = alignment.frames(W)
    np.testing.assert_allclose(alignment.frames(W.astype(np.float32)), exact, atol=1e-5)  # 20 roundings of 1e-7
    np.testing.assert_allclose(alignment.frames(1e-200 * W), exact, atol=1e-13)
    for shape in (np.float64, np.float32):
        with pytest.raises(ValueError, match="layer 1 is not"):
            alignment.frames((W + 1e-3).astype(shape))
    with pytest.raises(ValueError, match="R: got a matrix that is not orthogonal"):
        alignment.rotate(W, 1.001 * exact)
    with pytest.raises(ValueError, match="left: got a matrix that is not orthogonal"):
        alignment.coordinates(W, 2 * np.eye(20), np.eye(20))


def test_lists_are_taken():
    W = [[[2.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.003, 1.0]]]
    C = alignment.imbalance(W)
    assert np.allclose(alignment.subspace_distance(W, 2), alignment.distance_from_imbalance(W, C, 2), rtol=1e-2)


QUARTER = np.array([[0.0, -1.0], [1.0, 0.0]])


def test_distance_in_numbers_worked_out_by_hand():
    W = np.stack([np.diag([2.0, 1.0]), np.diag([2.0, 1.0]) @ QUARTER])
    # the inner vectors are e1, e2 and e2, e1: an overlap of zero for one vector, a permutation for two
    assert_allclose(alignment.subspace_distance(W, 1), [1.0])
    assert_allclose(alignment.subspace_distance(W, 2), [2.0])
    three = np.stack([np.diag([3.0, 2.0, 1.0]), np.diag([3.0, 1.0, 2.0]), np.diag([3.0, 2.0, 1.0])])
    assert_allclose(alignment.subspace_distance(three, 1), [0, 0], atol=1e-15)
    assert_allclose(alignment.subspace_distance(three, 2), [1, 1])  # e2 against e3: one entry of the identity is lost
    assert_allclose(alignment.subspace_distance(three, 3), [2, 2])  # a transposition of two
    flipped = np.stack([np.eye(2), np.diag([-3.0, 2.0])])
    assert alignment.subspace_distance(flipped, 2) == 0 == alignment.subspace_distance(flipped, 2, signed=False)
    plain = np.linalg.svd(flipped)
    own = np.linalg.norm(plain[2][1, :2] @ plain[0][0, :, :2] - np.eye(2))
    assert alignment.subspace_distance(flipped, 2, signed=True) == own
    assert own > 1 or alignment.subspace_distance(flipped[:, ::-1, ::-1], 2, signed=True) > 1  # the flag does something


def test_angles_by_mode_is_what_is_meant_by_default():
    P = np.diag([1.0, 2.0, 0.1])
    assert_allclose(alignment.angles(P, np.eye(3), 2), [0, 0], atol=1e-15)
    assert_allclose(alignment.angles(P, np.eye(3), 2, by="order"), [np.pi / 2] * 2)
    assert_allclose(alignment.angles(P, np.eye(3), 1), [np.pi / 2])  # the leading vector is e2
    tiny = np.eye(2) + 1e-12 * QUARTER  # an arc cosine would see nothing
    assert_allclose(alignment.angles(np.diag([2.0, 1.0]), np.linalg.qr(tiny)[0], 2), [1e-12] * 2, rtol=1e-3)
    assert alignment.angles(np.ones((4, 1, 1)), np.eye(1), 1).shape == (4, 1)


def test_coordinates_in_given_and_in_default_frames():
    rng = np.random.default_rng(1)
    W, left, right = rng.standard_normal((2, 3, 4, 4)), orthogonal(4, rng), orthogonal(4, rng)
    inner = np.stack([orthogonal(4, rng), orthogonal(4, rng)])
    found = alignment.coordinates(W, left, right, inner)
    for n in range(2):
        assert_allclose(found[n, 0], inner[0].T @ W[n, 0] @ right, atol=1e-14)
        assert_allclose(found[n, 1], inner[1].T @ W[n, 1] @ inner[0], atol=1e-14)
        assert_allclose(found[n, 2], left.T @ W[n, 2] @ inner[1], atol=1e-14)
    assert_allclose(alignment.coordinates(W, left, right)[1, 1], right.T @ W[1, 1] @ right, atol=1e-14)
    assert_allclose(alignment.coordinates(W[0, :1], left, right), [left.T @ W[0, 0] @ right], atol=1e-14)  # one layer


def test_off_diagonal_of_stacks():
    D = np.zeros((2, 3, 3))
    D[0, 0, 2], D[1, 2, 1], D[1, 1, 1] = -4.0, 3.0, 100.0
    assert alignment.off_diagonal(D).tolist() == [4.0, 3.0]
    assert alignment.off_diagonal([[7.0]]) == 0.0


def test_imbalance_by_hand():
    W = np.array([[[1.0, 2.0], [0.0, 1.0]], [[1.0, 0.0], [3.0, 1.0]]])
    # W2^T W2 = [[10, 3], [3, 1]], W1 W1^T = [[5, 2], [2, 1]]
    assert alignment.imbalance(W).tolist() == [[[5.0, 1.0], [1.0, 0.0]]]
    # [[5, 2], [2, 1]] [[10, 3], [3, 1]] = [[56, 17], [23, 7]]; less its transpose: 6 off the diagonal, twice
    assert_allclose(alignment.commutator(W), [6 * np.sqrt(2)], rtol=1e-14)
    batch = np.stack([W, 2 * W])
    assert_allclose(alignment.commutator(batch)[:, 0], [6 * np.sqrt(2), 96 * np.sqrt(2)], rtol=1e-14)
    assert alignment.commutator(np.zeros((2, 3, 2, 2))).tolist() == [[0.0, 0.0]] * 2


def test_lean_by_hand():
    """Gaps 9 - 4 = 5, 9 - 1 = 8, 4 - 1 = 3, imbalances 0.05, 0.16, 0.03: leans 0.01, 0.02, 0.01."""
    W = np.stack([np.diag([3.0, 2.0, 1.0])] * 2)
    C = np.array([[[0.0, 0.05, 0.16], [0.05, 0.0, 0.03], [0.16, 0.03, 0.0]]])
    lost = (0.01**2 + 0.02**2) / 2, (0.01**2 + 0.01**2) / 2, (0.02**2 + 0.01**2) / 2
    for rank, leans in ((1, 0), (2, 2 * 0.01**2), (3, 2 * (0.01**2 + 0.02**2 + 0.01**2))):
        expected = np.sqrt(leans + sum(x**2 for x in lost[:rank]))
        assert_allclose(alignment.distance_from_imbalance(W, C, rank), [expected], rtol=1e-12)
        assert_allclose(alignment.distance_from_imbalance(1e-3 * W, 1e-6 * C, rank), [expected], rtol=1e-12)
    both = alignment.distance_from_imbalance(np.stack([W, 2 * W]), np.stack([C, 4 * C]), 2)
    assert both.shape == (2, 1)
    assert_allclose(both, np.full((2, 1), alignment.distance_from_imbalance(W, C, 2)), rtol=1e-13)
    repeated = np.stack([np.diag([3.0, 1.0, 1.0])] * 2)  # those that are not leading may coincide
    assert_allclose(alignment.distance_from_imbalance(repeated, 0 * C, 1), [0.0])
    with pytest.raises(ValueError, match="^W: got coinciding singular values"):
        alignment.distance_from_imbalance(repeated, C, 2)
    for size in (1.0, 1e-5, 1e5):  # what coincides is judged beside the largest square: 1e-12 of it
        near = size * np.stack([np.diag([1.0, 1 - 1e-13])] * 2)
        with pytest.raises(ValueError, match="^W: got coinciding"):
            alignment.distance_from_imbalance(near, np.zeros((1, 2, 2)), 1)
        apart = size * np.stack([np.diag([1.0, 1 - 1e-11])] * 2)
        assert alignment.distance_from_imbalance(apart, np.zeros((1, 2, 2)), 1) == 0
    with pytest.raises(ValueError, match="^W: got coinciding"):
        alignment.distance_from_imbalance(np.zeros((2, 2, 2)), np.zeros((1, 2, 2)), 1)


def test_velocity_judges_rank_and_coincidence_relative_to_size():
    turn = QUARTER
    for size in (1e-6, 1.0, 1e6):
        (_, s, _), _ = alignment.singular_vector_velocity(size * np.diag([1.0, 1e-11]), np.zeros((2, 2)))
        assert s.shape == (2,)
        (U, s, V), (dU, ds, dV) = alignment.singular_vector_velocity(size * np.diag([1.0, 1e-13]), np.diag([3.0, 0.0]))
        assert s.tolist() == [size] and ds.tolist() == [3.0] and U.shape == V.shape == (2, 1)
        with pytest.raises(ValueError, match="^W: got coinciding"):
            alignment.singular_vector_velocity(size * np.diag([1.0, 1 - 1e-13]), turn)
        alignment.singular_vector_velocity(size * np.diag([1.0, 1 - 1e-11]), turn)
        with pytest.raises(ValueError, match=r"^velocity: would raise the rank of W above 1, needs"):
            alignment.singular_vector_velocity(np.diag([1.0, 0.0]), size * np.diag([1.0, 1e-8]))
        alignment.singular_vector_velocity(np.diag([1.0, 0.0]), size * np.diag([1.0, 1e-10]))
    # a wide matrix, by hand: W = (2, 0), velocity (0, 1): the right vector turns at speed 1 / 2
    (U, s, V), (dU, ds, dV) = alignment.singular_vector_velocity([[2.0, 0.0]], [[0.0, 1.0]])
    assert ds.tolist() == [0.0] and dU.tolist() == [[0.0]] and np.abs(dV).ravel().tolist() == [0.0, 0.5]
    # a square one: X = [[0, 1], [0, 0]], gaps 3: dU = (X S + S X^T) / 3 has 1/3, dV = (S X + X^T S) / 3 has 2/3
    _, (dU, ds, dV) = alignment.singular_vector_velocity(np.diag([2.0, 1.0]), [[0.0, 1.0], [0.0, 0.0]])
    assert_allclose(np.abs(dU), [[0, 1 / 3], [1 / 3, 0]], atol=1e-15)
    assert_allclose(np.abs(dV), [[0, 2 / 3], [2 / 3, 0]], atol=1e-15)


def test_frames_multiply_from_the_left():
    rng = np.random.default_rng(2)
    P = [orthogonal(3, rng) for _ in range(3)]
    R = alignment.frames(np.stack([0.3 * P[0], 2.0 * P[1], 5.0 * P[2], np.ones((3, 3))]))
    assert_allclose(R, [P[0], P[1] @ P[0], P[2] @ P[1] @ P[0]], atol=1e-14)
    batch = rng.standard_normal((2, 4, 3, 3))
    turned = alignment.rotate(batch, R)
    assert_allclose(turned[1, 0], R[0].T @ batch[1, 0], atol=1e-14)
    assert_allclose(turned[0, 2], R[2].T @ batch[0, 2] @ R[1], atol=1e-14)
    assert_allclose(turned[0, 3], batch[0, 3] @ R[2], atol=1e-14)
    with pytest.raises(ValueError, match="^W: layer 2 is not a positive multiple"):
        alignment.frames(np.stack([np.eye(2), np.zeros((2, 2)), np.eye(2)]))


def test_what_counts_as_orthogonal():
    """Within 1e-10 in float64; 100 roundings a row, 2.4e-5 for two, in float32."""
    W = np.ones((2, 2, 2))
    for size, dtype, good in (
        (2e-11, float, True),
        (2e-10, float, False),
        (1e-5, np.float32, True),
        (1e-4, np.float32, False),
    ):
        R = np.array([[[1 + size, 0.0], [0.0, 1.0]]], dtype=dtype)
        if good:
            alignment.rotate(W, R)
        else:
            with pytest.raises(ValueError, match="^R: got a matrix that is not orthogonal"):
                alignment.rotate(W, R)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: alignment.angles(np.ones(2), np.eye(2), 1), r"^P: got shape \(2,\)"),
        (lambda: alignment.angles(np.ones((2, 3)), np.eye(2), 1), r"^P: got shape \(2, 3\)"),
        (lambda: alignment.angles(np.ones((2, 2, 3)), np.eye(2), 1), r"^P: got shape \(2, 2, 3\)"),
        (lambda: alignment.angles(np.ones((0, 0)), np.ones((0, 0)), 1), r"^P: got shape \(0, 0\)"),
        (lambda: alignment.angles(np.eye(2), np.ones((2, 2)), 1), "^vectors: got a matrix that is not orthogonal"),
        (lambda: alignment.angles(np.eye(2), np.eye(2), 3), "^rank: got 3, needs at most d = 2"),
        (lambda: alignment.angles(np.eye(2), np.eye(2), 0), "^rank: got 0, needs an integer >= 1"),
        (lambda: alignment.off_diagonal(np.ones(3)), r"^D: got shape \(3,\)"),
        (lambda: alignment.off_diagonal(np.ones((3, 3, 2))), r"^D: got shape \(3, 3, 2\)"),
        (lambda: alignment.off_diagonal(np.ones((3, 0, 0))), r"^D: got shape \(3, 0, 0\)"),
        (
            lambda: alignment.coordinates(np.ones((2, 2, 2)), np.eye(3), np.eye(2)),
            r"^left: got shape \(3, 3\), needs \(2, 2\)",
        ),
        (
            lambda: alignment.coordinates(np.ones((2, 2, 2)), np.eye(2), np.eye(3)),
            r"^right: got shape \(3, 3\), needs \(2, 2\)",
        ),
        (
            lambda: alignment.coordinates(np.ones((2, 2, 2)), np.eye(2), 2 * np.eye(2)),
            "^right: got a matrix that is not",
        ),
        (
            lambda: alignment.coordinates(np.ones((2, 2, 2)), np.eye(2), np.eye(2), np.ones((1, 2, 2))),
            "^frames: got a matrix",
        ),
        (
            lambda: alignment.coordinates(np.full((1, 2, 2), 1.5e308), _TILT, _TILT),
            "^W: got .* needs numbers whose result",
        ),
        (lambda: alignment.imbalance(np.full((2, 2, 2), 1e200)), "^W: got .* needs numbers whose result"),
        (lambda: alignment.imbalance(np.ones((1, 2, 2))), "^W: got 1 layer, needs at least 2"),
        (
            lambda: alignment.distance_from_imbalance(np.ones((2, 2, 2)), np.ones((1, 2, 3)), 1),
            r"^C: got shape \(1, 2, 3\)",
        ),
        (lambda: alignment.singular_vector_velocity(np.ones(2), np.ones(2)), r"^W: got shape \(2,\)"),
        (lambda: alignment.singular_vector_velocity(np.ones((0, 2)), np.ones((0, 2))), r"^W: got shape \(0, 2\)"),
        (
            lambda: alignment.rotate(np.ones((3, 2, 2)), np.eye(2)[None]),
            r"^R: got shape \(1, 2, 2\), needs \(2, 2, 2\)",
        ),
        (lambda: alignment.frames(np.ones((2, 2, 2, 2))), r"^W: got shape \(2, 2, 2, 2\), needs one network"),
    ],
)
def test_refusals_name_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()


_TILT = np.array([[1.0, -1.0], [1.0, 1.0]]) / np.sqrt(2)


def test_torch_is_refused_by_name():
    torch = pytest.importorskip("torch")
    for call in (alignment.imbalance, lambda W: alignment.coordinates(W, np.eye(2), np.eye(2))):
        with pytest.raises(ValueError, match="^W: got a torch tensor, needs a NumPy array"):
            call(torch.ones(2, 2, 2))


def test_empty_batches_have_empty_answers():
    for shape in ((0, 2, 2), (3, 0, 2, 2)):
        assert alignment.angles(np.ones(shape), np.eye(2), 1).shape == (*shape[:-2], 1)
        assert alignment.off_diagonal(np.ones(shape)).shape == shape[:-2]
    one = np.diag([2.0, 3.0])[None]
    assert np.array_equal(alignment.coordinates(one, np.eye(2), np.eye(2), np.zeros((0, 2, 2))), one)  # no inner frame


def test_each_column_finds_its_own_vector():
    """Singular values 2, 1, 3 of the unit vectors: the order is a cycle, which is not its own inverse."""
    assert_allclose(alignment.angles(np.diag([2.0, 1.0, 3.0]), np.eye(3), 3), [0, 0, 0], atol=1e-15)


def test_long_floats_and_short_ones():
    rng = np.random.default_rng(9)
    W = rng.standard_normal((2, 2, 3, 3))
    for measure in (lambda w: alignment.subspace_distance(w, 3), alignment.commutator):
        assert_allclose(measure(W.astype(np.longdouble)), measure(W), rtol=1e-12)
    assert alignment.frames(np.stack([np.eye(2)] * 2).astype(np.float32)).dtype == np.float32
    assert np.array_equal(alignment.frames(1e-200 * np.stack([np.eye(2)] * 2)), np.eye(2)[None])
    huge = 1e160 * np.stack([np.diag([2.0, 1.0])] * 2)
    assert alignment.distance_from_imbalance(huge, np.zeros((1, 2, 2)), 1) == 0
    with pytest.raises(ValueError, match="^R: got a matrix that is not orthogonal"):
        alignment.rotate(W[0], 1e200 * np.eye(3)[None])


def test_sizes_of_a_batch_do_not_mix():
    shear = np.array([[1.0, 1.0], [0.0, 1.0]])
    W = np.stack([shear, np.diag([2.0, 1.0])])
    both = alignment.commutator(np.stack([1e-60 * W, W]))
    assert_allclose(both[0], 1e-240 * both[1], rtol=1e-12)


def test_rank_and_coincidence_of_matrices_that_are_not_diagonal():
    """Singular values up to 4 beside entries up to 1: the bounds are relative to the values, not to the entries."""
    u, v = np.ones(4) / 2, np.array([1.0, -1.0, 1.0, -1.0]) / 2
    rank_two = lambda s, t: s * np.outer(u, u) + t * np.outer(v, v)
    zero = np.zeros((4, 4))
    for small, count in ((2e-12, 1), (8e-12, 2)):  # beside 4e-12
        assert len(alignment.singular_vector_velocity(rank_two(4, small), zero)[0][1]) == count
    W = rank_two(2, 2 - 2e-12)  # largest entry 1, squares up to 4: their gap of 8e-12 is above 4e-12
    with pytest.raises(ValueError, match="^W: got coinciding"):
        alignment.singular_vector_velocity(rank_two(2, 2 - 0.5e-12), zero)
    assert len(alignment.singular_vector_velocity(W, zero)[0][1]) == 2
    near = np.stack([np.diag([1.0, 1 - 1e-13, 1e-3])] * 2)
    with pytest.raises(ValueError, match="^W: got coinciding"):
        alignment.distance_from_imbalance(near, np.zeros((1, 3, 3)), 1)


def test_the_prediction_for_each_layer_and_network_does_not_depend_on_the_others():
    W = np.stack([np.diag([2.0, 1.0]), np.array([[2.0, 0.0], [0.003, 1.0]]), np.diag([2.0, 1.0])])
    alone = alignment.distance_from_imbalance(W, alignment.imbalance(W), 2)
    batch = np.stack([W, 1e-140 * W, 1e140 * W])
    found = alignment.distance_from_imbalance(batch, alignment.imbalance(batch), 2)
    np.testing.assert_allclose(found, np.stack([alone] * 3), rtol=1e-9)
    small = np.stack([np.diag([2e-7, 1e-7]), np.diag([3.0, 1.0])])  # its singular values differ by a factor of two
    assert alignment.distance_from_imbalance(small, np.zeros((1, 2, 2)), 2).tolist() == [0.0]


@pytest.mark.parametrize("dtype", [np.float16, np.longdouble])
def test_dtypes_that_lapack_has_not(dtype):
    M, turn = np.diag([2.0, 1.0]), np.array([[0.0, -1.0], [1.0, 0.0]])
    np.testing.assert_allclose(alignment.angles(M.astype(dtype), np.eye(2), 2), 0)
    (_, s, _), (_, ds, _) = alignment.singular_vector_velocity(M.astype(dtype), turn.astype(dtype))
    assert s.tolist() == [2.0, 1.0] and ds.tolist() == [0.0, 0.0]


def test_a_velocity_beyond_the_range_is_named():
    with pytest.raises(ValueError, match="^velocity: "):
        alignment.singular_vector_velocity(np.diag([2e-300, 1e-300]), np.full((2, 2), 1e10))


@pytest.mark.filterwarnings("error")
def test_predictions_beyond_the_range_are_named():
    near = np.diag([1.0, 1 - 1e-11])  # quotients by gaps of 2e-11
    for call, name in (
        (lambda: alignment.distance_from_imbalance(np.stack([near] * 2), np.full((1, 2, 2), 1e300), 2), "C"),
        (lambda: alignment.distance_from_imbalance(np.stack([near] * 2), np.full((1, 2, 2), 1.7e308), 1), "C"),
        (lambda: alignment.singular_vector_velocity(near, np.full((2, 2), 1e300)), "velocity"),
        (lambda: alignment.singular_vector_velocity(np.full((2, 2), 1.7e308), np.ones((2, 2))), "W"),
    ):
        with pytest.raises(ValueError, match=f"^{name}: got .* whose result is within the floating range"):
            call()


@pytest.mark.filterwarnings("error")
def test_the_prediction_for_tiny_layers_and_huge_imbalances():
    W, turn = np.stack([np.diag([2.0, 1.0])] * 2), np.sqrt(0.5) * np.array([[1.0, -1.0], [1.0, 1.0]])
    assert alignment.distance_from_imbalance(1e-170 * W, np.zeros((1, 2, 2)), 2).tolist() == [0.0]
    for start, C in (
        (1e-100 * W, np.full((1, 2, 2), 1e200)),  # beyond the range in units of W
        (turn @ W, np.full((1, 2, 2), 1.7e308)),  # infinity less infinity in the frames of W
    ):
        with pytest.raises(ValueError, match="^C: got .* whose result is within the floating range"):
            alignment.distance_from_imbalance(start, C, 2)


def test_one_layer_with_coinciding_singular_values_is_enough():
    W = np.stack([np.eye(2), np.diag([2.0, 1.0]), np.diag([2.0, 1.0])])
    for start in (W, W[[1, 0, 2]], np.stack([W, W[[1, 2, 1]]])):
        with pytest.raises(ValueError, match="^W: got coinciding"):
            alignment.distance_from_imbalance(start, np.zeros((2, 2, 2)), 2)
    assert not alignment.distance_from_imbalance(W[[1, 2, 0]], np.zeros((2, 2, 2)), 2).any()  # the last one may


def test_squares_that_differ_by_a_millionth_of_a_millionth_coincide():
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    with pytest.raises(ValueError, match="^W: got coinciding"):
        alignment.singular_vector_velocity(np.diag([1.0, 1 - 4e-13]), turn)
    (_, s, _), _ = alignment.singular_vector_velocity(np.diag([1.0, 1 - 7e-13]), turn)
    assert_allclose(s, 1, rtol=1e-12)


@pytest.mark.skipif(np.finfo(np.longdouble).max == np.finfo(float).max, reason="long double is double here")
def test_long_doubles_beyond_the_range_are_named():
    far, one = np.diag([2.0, 1.0]) * np.longdouble("1e400"), np.eye(2)
    for call, name in (
        (lambda: alignment.angles(far, one, 1), "P"),
        (lambda: alignment.singular_vector_velocity(far, one), "W"),
        (lambda: alignment.singular_vector_velocity(one, far), "velocity"),
        (lambda: alignment.distance_from_imbalance(np.stack([far] * 2), np.zeros((1, 2, 2)), 1), "W"),
    ):
        with pytest.raises(ValueError, match=f"^{name}: got entries beyond the range of float64"):
            call()
