"""Averages in closed form, third derivatives, the complementarity problem, and the flow against its definition."""

import warnings

import numpy as np
import pytest
import torch

from eoslib import averages, hessian, network, scalar


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_averages_are_those_of_a_long_orbit(depth):
    rate = 2.2 / scalar.sharpness_at_minimum(5.0, depth)
    s = 0.95 * 5.0 ** (1 / depth)
    for _ in range(4000):
        s = scalar.step(s, 5.0, depth, rate)
    orbit = [s, scalar.step(s, 5.0, depth, rate)]
    found = averages.on_cycle(5.0, depth, rate)
    curvature = [(1 - scalar.slope(x, 5.0, depth, rate)) / rate for x in (*orbit, np.mean(orbit))]
    np.testing.assert_allclose(
        [found.mean, found.variance, found.loss, found.mean_sharpness, found.sharpness_at_mean],
        [
            np.mean(orbit),
            np.var(orbit),
            np.mean([(x**depth - 5) ** 2 / 2 for x in orbit]),
            np.mean(curvature[:2]),
            curvature[2],
        ],
        rtol=1e-10,  # rounding of an attracting orbit
    )


def test_third_derivative_is_the_derivative_of_the_hessian():
    rng = np.random.default_rng(0)
    W, U, V, D = rng.standard_normal((4, 3, 2, 2))
    M = rng.standard_normal((2, 2))
    h = 1e-5
    differences = [U.ravel() @ hessian.dense(W + x * D, M) @ V.ravel() for x in (h, -h)]
    expected = (differences[0] - differences[1]) / (2 * h)
    # central difference: h^2 = 1e-10 times fifth derivatives of order 10, rounding 1e-15/h
    assert abs(np.sum(D * averages.third_derivative(W, M, U, V)) - expected) < 1e-7
    np.testing.assert_allclose(averages.third_derivative(W, M, U, V), averages.third_derivative(W, M, V, U), rtol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_complementarity_conditions_hold(seed):
    rng = np.random.default_rng(seed)
    k = 1 + seed % 3
    slopes = rng.standard_normal((k, k, 8))
    slopes = slopes + slopes.swapaxes(0, 1)
    B = np.einsum("ijn,kln->ijkl", slopes, slopes)
    A = rng.standard_normal((k, k))
    A = A + A.T
    X = averages.complementarity(A, B)
    rest = A + np.einsum("ijkl,kl->ij", B, X)
    # the stopping rule bounds the step by 1e-13; conditioning of random problems a few 1e4
    assert np.linalg.eigvalsh(X)[0] > -1e-12 and np.linalg.eigvalsh(rest)[0] > -1e-7
    assert abs(np.sum(X * rest)) < 1e-7


def test_flow_below_the_edge_is_gradient_flow_and_above_it_keeps_the_edge():
    W = np.array([np.diag([0.8, 0.6])] * 2)
    M = np.diag([1.0, 0.5])
    slow = averages.central_flow(W, M, 0.1, 50, substeps=8)
    by_hand = W
    for _ in range(400):
        by_hand = by_hand - 0.1 / 8 * network.gradient(by_hand, M)
    np.testing.assert_allclose(slow.weights, by_hand, rtol=1e-12)
    assert not slow.observed["variance"].any() and np.array_equal(slow.observed["predicted_loss"], slow.loss)
    fast = averages.central_flow(W, M, 1.03, 80, every=20)
    assert fast.steps.tolist() == [0, 20, 40, 60, 80] and fast.observed["path"].shape == (5, 2, 2, 2)
    assert abs(fast.observed["sharpness"][-1] * 1.03 - 2) < 1e-9 and fast.observed["variance"][-1] > 0
    sigma = fast.observed["covariance"][-1]
    H = hessian.dense(fast.weights, M)
    assert abs(np.trace(H @ sigma) - 2 / 1.03 * np.trace(sigma)) < 1e-9  # it lives in the eigenspace of 2/eta


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: averages.on_cycle(1.0, 2, 0.9), "learning_rate"),
        (lambda: averages.central_rest(1.0, 2, 1.0), "learning_rate"),
        (lambda: averages.central_rest(1.0, 2, 5.0), "learning_rate"),
        (lambda: averages.central_flow(np.zeros((2, 2, 2, 2)), np.eye(2), 0.1, 3), "W"),
        (lambda: averages.central_flow(np.zeros((2, 2, 2)), np.eye(2), 0.1, 3, substeps=0), "substeps"),
        (lambda: averages.third_derivative(np.zeros((2, 2, 2)), np.eye(2), np.zeros((2, 2, 2)), np.zeros(3)), "V"),
    ],
)
def test_bad_input_is_named(make, word):
    with pytest.raises(ValueError, match=f"^{word}"):
        make()


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_rest_point_balances_the_two_forces(depth):
    rate = 2.2 / scalar.sharpness_at_minimum(3.0, depth)
    rest = averages.central_rest(3.0, depth, rate)
    W, M = np.full((depth, 1, 1), rest.mean), np.array([[3.0]])
    u = np.full_like(W, depth**-0.5)
    trace = depth * rest.variance  # variance along the unit vector
    force = network.gradient(W, M) + trace / 2 * averages.third_derivative(W, M, u, u)
    np.testing.assert_allclose(force, 0, atol=1e-12)
    np.testing.assert_allclose(rest.loss, network.loss(W, M) + trace / rate, rtol=1e-12)
    np.testing.assert_allclose(rest.sharpness_at_mean, 2 / rate, rtol=1e-12)
    run = averages.central_flow(0.97 * W, M, rate, 150, every=150)
    np.testing.assert_allclose(run.observed["variance"][-1], trace, rtol=1e-6)


def test_two_layers_in_closed_form():
    """Beyond 1/m the two values of the cycle have squares that sum to m + 1/eta and a product of 1/eta."""
    m, rate = 4.0, 0.28
    found = averages.on_cycle(m, 2, rate)
    squares, product = m + 1 / rate, 1 / rate
    assert found.mean == pytest.approx(np.sqrt(squares + 2 * product) / 2, rel=1e-12, abs=0)
    assert found.variance == pytest.approx((squares - 2 * product) / 4, rel=1e-10, abs=0)
    # (s^2 - m)^2 summed: sum of fourth powers - 2 m sum of squares + 2 m^2
    fourth = squares**2 - 2 * product**2
    assert found.loss == pytest.approx((fourth - 2 * m * squares + 2 * m * m) / 4, rel=1e-10, abs=0)
    assert found.mean_sharpness == pytest.approx(3 * squares / 2 - m, rel=1e-12, abs=0)
    assert found.sharpness_at_mean == pytest.approx(3 * found.mean**2 - m, rel=1e-12, abs=0)
    rest = averages.central_rest(m, 2, rate)
    where = (m + 2 / rate) / 3
    # phi = (s^2 - m)^2 / 2: the variance is -2 phi' / phi''' = -2 * 2 s (s^2 - m) / (12 s)
    assert (rest.mean, rest.variance) == pytest.approx((np.sqrt(where), (m - where) / 3), rel=1e-12, abs=0)
    assert rest.loss == pytest.approx((where - m) ** 2 / 2 + 2 * rest.variance / rate, rel=1e-12, abs=0)
    assert rest.sharpness_at_mean == pytest.approx(2 / rate, rel=1e-12, abs=0) and np.isnan(rest.mean_sharpness)
    scaled = averages.central_rest(1e-60, 3, 2.2 / 3 * 1e80)
    plain = averages.central_rest(1.0, 3, 2.2 / 3)
    assert (scaled.mean, scaled.variance) == pytest.approx(
        (plain.mean * 1e-20, plain.variance * 1e-40), rel=1e-9, abs=0
    )


def test_rest_between_the_edge_and_four_times_the_depth():
    for depth in (2, 3, 5):
        limit = 4 * depth * 2 ** (1 - 2 / depth)  # where the curvature at half the target is 2 / eta
        for q in (2 * (1 + 1e-9), limit * (1 - 1e-6)):
            rest = averages.central_rest(1.0, depth, q / depth)
            assert 0.5 ** (1 / depth) < rest.mean < 1 and rest.variance > 0
        with pytest.raises(ValueError, match="the edge is met below half the target"):
            averages.central_rest(1.0, depth, limit / depth * (1 + 1e-6))
        with pytest.raises(ValueError, match="^learning_rate, target, depth: got .*, so eta S = 2.0, needs eta S > 2"):
            averages.central_rest(1.0, depth, 2 / depth)
    assert averages.central_rest(1.0, 2, 1 + 1e-9).variance == pytest.approx(
        2e-9 / 9, rel=1e-5, abs=0
    )  # (m - s^2) / 3, s^2 = (1 + 2 / eta) / 3


def test_third_derivatives_by_hand():
    """f = (a b - 1)^2 / 2: f_aab = 2 b, f_abb = 2 a, f_aaa = f_bbb = 0, for a batch of values."""
    W = np.array([[2.0, 3.0], [-1.0, 0.5]])[..., None, None]
    a, b = np.broadcast_to([1.0, 0.0], (2, 2)), np.broadcast_to([0.0, 1.0], (2, 2))
    form = lambda U, V: averages.third_derivative(W, [[1.0]], U[..., None, None], V[..., None, None])[..., 0, 0]
    assert form(a, a).tolist() == [[0.0, 6.0], [0.0, 1.0]]
    assert form(a, b).tolist() == form(b, a).tolist() == [[6.0, 4.0], [1.0, -2.0]]
    assert form(b, b).tolist() == [[4.0, 0.0], [-2.0, 0.0]]


def test_complementarity_by_hand():
    one = np.array([[[[4.0]]]])
    assert averages.complementarity([[2.0]], one).tolist() == [[0.0]] and averages.complementarity(
        [[-2.0]], one
    ).tolist() == [[0.5]]
    assert averages.complementarity([[0.0]], 0 * one).tolist() == [[0.0]]  # any X would do: the least
    I = np.eye(2)
    identity = (np.einsum("ik,jl->ijkl", I, I) + np.einsum("il,jk->ijkl", I, I)) / 2
    # B = identity: X is the positive part of -A
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    for values, kept in (((-3.0, 2.0), (3.0, 0.0)), ((-3.0, -1.0), (3.0, 1.0)), ((3.0, 1.0), (0.0, 0.0))):
        A = turn @ np.diag(values) @ turn.T
        np.testing.assert_allclose(averages.complementarity(A, identity), turn @ np.diag(kept) @ turn.T, atol=1e-11)
    A = np.diag([-2.0, -4.0])
    for size in (1e-6, 1.0, 1e6):  # badly scaled operators and matrices
        np.testing.assert_allclose(
            averages.complementarity(size * A, 2 * identity), size * np.diag([1.0, 2.0]), rtol=1e-9, atol=1e-11 * size
        )
        np.testing.assert_allclose(
            averages.complementarity(A, size * identity), np.diag([2.0, 4.0]) / size, rtol=1e-9, atol=1e-11 / size
        )
    coarse, fine = (
        averages.complementarity(turn @ np.diag([-3.0, 2.0]) @ turn.T + A, _two(), tolerance=t) for t in (1e-2, 1e-13)
    )
    assert 1e-12 < np.abs(coarse - fine).max() < 1
    with pytest.raises(RuntimeError, match="^complementarity: no solution within 20000 iterations"):
        averages.complementarity(A, 1e-30 * _rank_one())


def test_an_operator_that_is_zero_has_the_least_solution_or_none():
    for k in (1, 2):
        zero = np.zeros((k,) * 4)
        assert (
            not averages.complementarity(np.eye(k), zero).any()
            and not averages.complementarity(0 * np.eye(k), zero).any()
        )
        with pytest.raises(RuntimeError, match="^complementarity: no solution"):
            averages.complementarity(-np.eye(k), zero)


def test_complementarity_of_a_badly_conditioned_operator():
    """Of condition 1e4: without momentum, or with one that is never restarted, 20000 iterations do not suffice."""
    one, two, three = np.diag([1.0, 0.0]), np.diag([0.0, 1.0]), np.array([[0.0, 1.0], [1.0, 0.0]]) / 2**0.5
    B = sum(size * np.einsum("ij,kl->ijkl", e, e) for size, e in ((1.0, one), (1e-4, two), (1e-2, three)))
    X = np.array([[1.0, 0.3], [0.3, 1.0]])
    found = averages.complementarity(-np.einsum("ijkl,kl->ij", B, X), B)
    np.testing.assert_allclose(found, X, rtol=1e-8)  # a last move of 1e-13 times the condition, and as much again


def test_complementarity_knows_no_units_and_no_small_asymmetry():
    A = np.array([[-3.0, 1.0], [1.0, -2.0]])
    for tolerance in (1e-2, 1e-13):
        plain = averages.complementarity(A, _two(), tolerance=tolerance)
        for c in (2.0**-60, 2.0**60):  # powers of two change no digit
            assert np.array_equal(averages.complementarity(c * A, _two(), tolerance=tolerance), c * plain)
            assert np.array_equal(averages.complementarity(A, c * _two(), tolerance=tolerance), plain / c)
    I = np.eye(2)
    identity = (np.einsum("ik,jl->ijkl", I, I) + np.einsum("il,jk->ijkl", I, I)) / 2
    # an asymmetry of rounding is taken for one, and the symmetric part is solved
    tilted = averages.complementarity(-np.array([[2.0, 1e-9], [0.0, 1.0]]), identity)
    np.testing.assert_allclose(tilted, [[2.0, 5e-10], [5e-10, 1.0]], rtol=0, atol=1e-11)
    assert np.array_equal(averages.complementarity(0 * A, identity), 0 * A)


def test_torch_is_refused():
    W, M = torch.ones((2, 1, 1), dtype=torch.float64), torch.eye(1, dtype=torch.float64)
    for call in (lambda: averages.third_derivative(W, M, W, W), lambda: averages.central_flow(W, M, 0.1, 1)):
        with pytest.raises(ValueError, match="^W: got a torch tensor, needs a NumPy array$"):
            call()


def _two():
    """A strongly positive operator whose sizes differ by a hundred."""
    rng = np.random.default_rng(5)
    slopes = rng.standard_normal((2, 2, 6)) * np.geomspace(1, 10, 6)
    slopes = slopes + slopes.swapaxes(0, 1)
    return np.einsum("ijn,kln->ijkl", slopes, slopes)


def _rank_one():
    """Sees only the first entry, so that nothing holds the second back."""
    B = np.zeros((2, 2, 2, 2))
    B[0, 0, 0, 0] = 1.0
    return B


def test_flow_records_what_is_asked_for():
    W, M = np.array([np.diag([2, 1])] * 2), np.diag([5.0, 1.0])  # whole numbers
    default, four = (
        averages.central_flow(W, M, 0.05, 3),
        averages.central_flow(W.astype(float), M, 0.05, 3, substeps=4, every=1),
    )
    assert np.array_equal(default.weights, four.weights) and default.steps.tolist() == [0, 1, 2, 3]
    assert not np.array_equal(default.weights, averages.central_flow(W, M, 0.05, 3, substeps=5).weights)
    still = averages.central_flow(W, M, 0.05, 0)
    assert still.steps.tolist() == [0] and np.array_equal(still.weights, W) and still.loss.tolist() == [0.5]
    assert still.observed["sharpness"][0] == pytest.approx(hessian.sharpness(W.astype(float), M), rel=1e-6, abs=0)
    path = default.observed["path"]
    assert path.shape == (4, 2, 2, 2) and np.array_equal(path[0], W) and np.array_equal(path[-1], default.weights)
    np.testing.assert_allclose(default.loss, network.loss(path, M), rtol=1e-14)
    np.testing.assert_allclose(
        default.singular_values, np.linalg.svd(network.product(path), compute_uv=False), rtol=1e-14
    )
    assert (
        default.observed["covariance"].shape == (4, 8, 8)
        and not default.diverged
        and default.diverged_at == -1
        and default.learning_rate == 0.05
    )
    third = averages.central_flow(W, M, 0.05, 7, every=3)
    assert third.steps.tolist() == [0, 3, 6] and third.loss.shape == (3,)
    longer = averages.central_flow(W, M, 0.05, 6)
    np.testing.assert_allclose(third.loss[2], longer.loss[6], rtol=1e-13)


def test_flow_at_the_edge_moves_by_gradient_and_force():
    """Beyond the edge the loss that the flow predicts is larger than its own by tr(Sigma) / eta."""
    W, M, rate = np.array([np.diag([1.0, 0.9])] * 2), np.diag([1.0, 0.9]), 1.2
    run = averages.central_flow(0.97 * W, M, rate, 60)
    sharp, variance = run.observed["sharpness"], run.observed["variance"]
    assert np.all(sharp[1:] < 2 / rate * 1.02) and np.all(variance >= 0) and variance[-1] > 0
    np.testing.assert_allclose(run.observed["predicted_loss"], run.loss + variance / rate, rtol=1e-13)
    np.testing.assert_allclose(variance, np.trace(run.observed["covariance"], axis1=1, axis2=2), rtol=1e-13)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: averages.on_cycle([1.0], 2, 1.1), "^target: got"),
        (lambda: averages.on_cycle(1.0, 1, 1.1), "^depth: got 1, needs an integer >= 2"),
        (lambda: averages.on_cycle(1.0, 2, -1.0), "^learning_rate: got -1.0, needs one finite real number > 0$"),
        (lambda: averages.central_rest(1.0, 2, 0.0), "^learning_rate: got 0.0, needs one finite real number > 0$"),
        (lambda: averages.central_rest(0.0, 2, 1.1), "^target: got 0.0, needs one finite real number > 0$"),
        (lambda: averages.on_cycle(-1.0, 2, 1.1), "^target: got -1.0, needs one finite real number > 0$"),
        (
            lambda: averages.third_derivative(np.ones((2, 1, 1)), [[1.0]], np.ones((3, 1, 1)), np.ones((2, 1, 1))),
            r"^U: got shape \(3, 1, 1\)",
        ),
        (
            lambda: averages.third_derivative(*(np.full((3, 1, 1), 1e200), [[1.0]], *[np.full((3, 1, 1), 1e200)] * 2)),
            "^W, M, U, V: got",
        ),
        (
            lambda: averages.complementarity([[1.0, 0.0], [1e-3, 1.0]], np.zeros((2,) * 4)),
            "^A: got .* needs a symmetric matrix",
        ),
        (lambda: averages.complementarity(np.ones((2, 3)), np.zeros((2,) * 4)), "^A: got .* needs a symmetric matrix"),
        (lambda: averages.complementarity(np.ones(2), np.zeros((2,) * 4)), "^A: got .* needs a symmetric matrix"),
        (lambda: averages.complementarity(np.ones((0, 0)), np.zeros((0,) * 4)), "^A: got .* needs a symmetric matrix"),
        (
            lambda: averages.complementarity(np.eye(2), np.zeros((2, 2, 2))),
            r"^B: got shape \(2, 2, 2\), needs \(2, 2, 2, 2\)",
        ),
        (lambda: averages.complementarity(np.eye(2), np.zeros((2,) * 4), tolerance=0.0), "^tolerance: got 0.0"),
        (
            lambda: averages.central_flow(np.ones((1, 2, 1, 1)), [[1.0]], 0.1, 1),
            r"^W: got shape \(1, 2, 1, 1\), needs one network",
        ),
        (lambda: averages.central_flow(np.ones((2, 1, 1)), [[1.0]], 0.0, 1), "^learning_rate: got 0.0"),
        (lambda: averages.central_flow(np.ones((2, 1, 1)), [[1.0]], 0.1, -1), "^steps: got -1, needs an integer >= 0"),
        (
            lambda: averages.central_flow(np.ones((2, 1, 1)), [[1.0]], 0.1, 1, substeps=0),
            "^substeps: got 0, needs an integer >= 1",
        ),
        (
            lambda: averages.central_flow(np.ones((2, 1, 1)), [[1.0]], 0.1, 1, every=0),
            "^every: got 0, needs an integer >= 1",
        ),
        (
            lambda: averages.central_flow(np.full((3, 1, 1), 1e60), [[1.0]], 1e-8, 9),
            "^learning_rate, W, M: got 1e-08, with which the flow leaves",
        ),
    ],
)
def test_refusals_name_the_argument(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("factor", [1e-300, 1e-200, 1e-40, 1e40, 1e200, 1e290])
def test_third_derivative_is_linear_in_both_directions_at_every_scale(factor):
    rng = np.random.default_rng(5)
    W, U, V = rng.standard_normal((3, 3, 2, 2))
    M = np.eye(2)
    plain = averages.third_derivative(W, M, U, V)
    # a product with the factor rounds once, and so do the products of it
    np.testing.assert_allclose(averages.third_derivative(W, M, U, factor * V) / factor, plain, rtol=1e-12)
    np.testing.assert_allclose(averages.third_derivative(W, M, factor * U, V) / factor, plain, rtol=1e-12)


@pytest.mark.parametrize("size", [1e-60, 1e-20, 1.0, 1e20, 1e60])
def test_third_derivative_in_other_units(size):
    rng = np.random.default_rng(6)
    W, U, V = rng.standard_normal((3, 3, 2, 2))
    # f(c W; c^3 M) = c^6 f(W; M) for three layers: the third derivative goes like c^3 for directions of size one
    found = averages.third_derivative(size * W, size**3 * np.eye(2), U, V)
    np.testing.assert_allclose(found / size**3, averages.third_derivative(W, np.eye(2), U, V), rtol=1e-11)


@pytest.mark.parametrize("factor", [1e-300, 1e-160, 1e-20, 1e20, 1e160, 1e300])
def test_complementarity_in_other_units(factor):
    A, B = np.array([[-3.0, 0.2], [0.2, 1.0]]), np.einsum("ik,jl->ijkl", np.eye(2), np.eye(2))
    plain = averages.complementarity(A, B)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(averages.complementarity(factor * A, B) / factor, plain, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(averages.complementarity(A, factor * B) * factor, plain, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: averages.complementarity([[-3.0]], [[[[-2.0]]]]), "^B: .* needs a positive semidefinite one"),
        (lambda: averages.complementarity([[-1.0]], [[[[1.0]]]], tolerance=1.0), "^tolerance: got 1.0"),
        (lambda: averages.complementarity([[-3e300]], [[[[2e-300]]]]), "^A, B: "),
        (lambda: averages.on_cycle(1e200, 2, 1.1e-200), "^target: "),
        (lambda: averages.central_rest(1e200, 2, 1.1e-200), "^target: "),
    ],
)
def test_what_is_no_operator_or_overflows_is_named(call, words):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=words):
            call()


def test_complementarity_at_the_ends_of_the_floating_range():
    tiny, I = 5e-324, np.eye(2)
    assert averages.complementarity([[-2 * tiny]], [[[[3 * tiny]]]])[0, 0] == pytest.approx(2 / 3, rel=1e-15, abs=0)
    operator = np.einsum("ik,jl->ijkl", I, I) + np.einsum("ij,kl->ijkl", I, I)
    # X + tr(X) I = 2 I has the solution 2 I / 3; here both sides are near the largest float
    found = averages.complementarity(-2 * 2.0**1022 * I, 2.0**1022 * operator)
    np.testing.assert_allclose(found, 2 / 3 * I, rtol=1e-11, atol=1e-12)  # the iteration ends at moves of 1e-13
    # half of that operator, at a size whose products with the solution are beyond the range
    found = averages.complementarity(-1.5 * 2.0**1023 * I, 2.0**1020 * operator)
    np.testing.assert_allclose(found, 4 * I, rtol=1e-11, atol=1e-11)


WIDE = pytest.mark.skipif(np.finfo(np.longdouble).max == np.finfo(float).max, reason="long double is double here")


@WIDE
@pytest.mark.parametrize("name", ["W", "M", "U", "V"])
def test_numbers_beyond_float64_are_named(name):
    given = {"W": np.ones((2, 1, 1)), "M": np.ones((1, 1)), "U": np.ones((2, 1, 1)), "V": np.ones((2, 1, 1))}
    given[name] = np.longdouble("1e400") * given[name]
    with pytest.raises(ValueError, match=f"^{name}: got entries beyond the range of float64"):
        averages.third_derivative(*given.values())
    if name in "WM":
        with pytest.raises(ValueError, match=f"^{name}: got entries beyond the range of float64"):
            averages.central_flow(given["W"], given["M"], 0.1, 1)


@pytest.mark.parametrize("depth", [1, 2, 4, 5])
def test_third_derivative_at_every_depth(depth):
    rng = np.random.default_rng(depth)
    W, U, V, D = rng.integers(-2, 3, (4, depth, 2, 2)) / 4
    M = rng.integers(-2, 3, (2, 2)) / 4

    def loss(p, q, r):  # the polynomial in three directions, at whole numbers: in binary fractions without rounding
        return network.loss(W + p * U + q * V + r * D, M)

    # the coefficient of p q r in a polynomial of degree 2 L in each: differences at 2 L + 1 points, weighed
    points = np.arange(-depth, depth + 1) / 4
    slope = np.linalg.inv(np.vander(points, increasing=True))[1]
    expected = sum(
        x * y * z * loss(p, q, r)
        for x, p in zip(slope, points)
        for y, q in zip(slope, points)
        for z, r in zip(slope, points)
        if x * y * z
    )
    found = np.sum(D * averages.third_derivative(W, M, U, V))
    # the weights sum to about 10 a direction at most, and the losses are below 10
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-10) and (abs(expected) > 1e-3 or depth == 1)


def test_complementarity_of_operators_that_are_symmetric_only_on_symmetric_matrices():
    I = np.eye(2)
    identity = (np.einsum("ik,jl->ijkl", I, I) + np.einsum("il,jk->ijkl", I, I)) / 2
    turn, kept, other = np.array([[0.0, 1.0], [-1.0, 0.0]]), np.diag([1.0, -1.0]), np.array([[0.0, 1.0], [1.0, 0.0]])
    A = np.array([[-3.0, 0.2], [0.2, -1.0]])
    for B in (
        identity + np.einsum("ij,kl->ijkl", kept, turn) / 2,  # which takes symmetric matrices where `identity` does
        identity + np.einsum("ij,kl->ijkl", turn, kept) / 2,  # and this one but for an antisymmetric part
    ):
        np.testing.assert_allclose(averages.complementarity(A, B), -A, rtol=1e-11)
    crossed = np.einsum("ij,kl->ijkl", kept, other) - np.einsum("ij,kl->ijkl", other, kept)
    for B in (identity + crossed / 4, identity - 2 * np.einsum("ij,kl->ijkl", kept, kept) / 2):
        with pytest.raises(ValueError, match="^B: .* needs a positive semidefinite one"):
            averages.complementarity(A, B)


def test_complementarity_takes_rounding_for_none():
    one, two = np.diag([1.0, 0.0]), np.diag([0.0, 1.0])
    form = lambda size: 0.75 * np.einsum("ij,kl->ijkl", one, one) - size * np.einsum("ij,kl->ijkl", two, two)
    assert not averages.complementarity(np.eye(2), form(0.7e-9)).any()
    with pytest.raises(ValueError, match="^B: got an operator that is 1.4e-09 from it"):
        averages.complementarity(np.eye(2), form(1.4e-9))


def test_no_operator_and_a_matrix_of_both_signs():
    with pytest.raises(RuntimeError, match="^complementarity: no solution where B is zero"):
        averages.complementarity(np.diag([-1.0, 1.0]), np.zeros((2,) * 4))


def test_complementarity_of_a_solution_far_larger_than_the_matrix():
    """The weakest direction has the largest part: its rounding is measured by the solution, not by the matrix."""
    one, two, three = np.diag([1.0, 0.0]), np.diag([0.0, 1.0]), np.array([[0.0, 1.0], [1.0, 0.0]]) / 2**0.5
    B = sum(size * np.einsum("ij,kl->ijkl", e, e) for size, e in ((1.0, one), (1e-3, two), (1e-3, three)))
    X = np.array([[1e-3, 1e-2], [1e-2, 1.0]])
    found = averages.complementarity(-np.einsum("ijkl,kl->ij", B, X), B)
    np.testing.assert_allclose(found, X, rtol=0, atol=1e-9)  # a last move of 1e-13 times the condition, and as much again


def test_a_flow_that_leaves_with_both_signs_gives_no_warning():
    W = 1e85 * np.random.default_rng(0).standard_normal((2, 2, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="^learning_rate, W, M: got 1e-08"):
            averages.central_flow(W, np.eye(2), 1e-8, 1)


def test_a_flow_at_rest_off_the_edge_tells_of_steps_too_long():
    """As the docstring of `central_flow` says: with a pair at the edge, half a unit of time is too long."""
    M, rate = np.diag([1.0, 0.9]), 1.07
    mean = averages.central_rest(1.0, 2, rate).mean
    start = np.array([np.diag([mean - 0.002, np.sqrt(0.9)])] * 2)
    runs = [averages.central_flow(start, M, rate, 120, substeps=k, every=120) for k in (2, 4)]
    off = [abs(rate * run.observed["sharpness"][-1] - 2) for run in runs]
    assert off[0] > 1e-3 and off[1] < 1e-9 and all(run.observed["variance"][-1] > 0 for run in runs)
