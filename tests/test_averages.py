"""Averages in closed form, third derivatives, the complementarity problem, and the flow against its definition."""

import numpy as np
import pytest

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
