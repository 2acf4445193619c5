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
