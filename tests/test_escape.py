"""Time at the first saddle: against mpmath's integral, flow of whole matrices, and plain descent."""

import mpmath as mp
import numpy as np
import pytest

from eoslib import descent, escape, network


def by_mpmath(fraction, m, depth, alpha):
    """The integral over the product p itself, by 30 digits: dt = dp / (p' (m - p)) along a^2 - b^2 = alpha^2."""
    with mp.workdps(30):
        m, alpha = mp.mpf(m), mp.mpf(alpha)
        product = lambda u: alpha**depth * mp.cosh(u) ** (depth - 1) * mp.sinh(u)
        end = mp.findroot(lambda u: mp.log(product(u) / m) - mp.log(fraction), mp.asinh(m ** (mp.mpf(1) / depth) / alpha))
        speed = lambda u: 1 / ((m - product(u)) * (alpha * mp.cosh(u)) ** (depth - 2))
        return float(mp.quad(speed, mp.linspace(0, end, 9)))


@pytest.mark.parametrize("depth", [2, 3, 4, 7])
@pytest.mark.parametrize(("m", "alpha"), [(1.0, 0.1), (3.0, 0.3), (0.2, 1e-3), (8.0, 1.05)])
def test_time_to_reach_is_the_integral(depth, m, alpha):
    for fraction in (0.3, 0.9):
        assert np.isclose(escape.time_to_reach(fraction, m, depth, alpha), by_mpmath(fraction, m, depth, alpha), rtol=1e-8)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_escape_time_is_the_limit_of_small_scales(depth):
    for m in (1.0, 2.5):
        errors = []
        for alpha in (1e-2, 1e-3):
            exact = escape.time_to_reach(0.5, m, depth, alpha)
            errors.append(abs(escape.escape_time(m, depth, alpha) - exact) * m ** (2 - 2 / depth))
        # L = 2: an error of order alpha^2 log; else a constant of order one beside alpha^(2 - L)
        assert errors[1] < 1e-3 if depth == 2 else max(errors) < 2
    both = [escape.escape_time(np.array([1.0, 2.5]), depth, [[0.1], [0.01]], start=s) for s in ("unbalanced", "balanced")]
    assert both[0].shape == both[1].shape == (2, 2) and np.all(both[0] > both[1])


@pytest.mark.parametrize("depth", [3, 4])
def test_balanced_escape_time_is_that_of_flow(depth):
    for m, alpha in ((1.0, 0.02), (2.5, 0.05)):
        W = network.initialise("balanced", depth=depth, width=1, scale=alpha)
        half = escape.escape_time(m, depth, alpha, start="balanced")
        times = half * np.linspace(0.5, 1.5, 400)
        products = np.prod(descent.flow(W, np.array([[m]]), times)[:, :, 0, 0], axis=1)
        reached = np.interp(m / 2, products, times)
        assert np.isclose(reached, half, rtol=0.003 + 3 * alpha ** (depth - 2))  # the grid; the next term


@pytest.mark.parametrize(("depth", "m"), [(3, 1.0), (4, 2.5), (6, 0.5)])
@pytest.mark.parametrize("remaining", [100, 400, 1600])
def test_leave_saddle_leaves_about_that_many_steps(depth, m, remaining):
    alpha, rate = 1e-3, 0.2 / (depth * m ** (2 - 2 / depth))
    W = escape.leave_saddle(m, depth, alpha, rate, remaining=remaining)
    assert np.allclose(W[0] ** 2 - W[-1] ** 2, alpha**2, rtol=1e-6)  # it is on the flow line
    run = descent.descend(W, np.array([[m]]), rate, 2 * remaining + 200)
    steps = np.argmax(run.singular_values[:, 0] > m / 2)
    assert abs(steps - remaining) < depth / 0.2  # the unit of time of the escape itself, 1 / (eta m^(2 - 2/L))


def test_leave_saddle_returns_the_start_where_that_is_nearer():
    W = escape.leave_saddle(1.0, 3, 0.3, 0.1, remaining=10**6)
    assert np.array_equal(W, network.initialise("unbalanced", depth=3, width=1, scale=0.3))
    assert np.array_equal(escape.leave_saddle(1.0, 2, 0.3, 0.1), network.initialise("unbalanced", depth=2, width=1, scale=0.3))
