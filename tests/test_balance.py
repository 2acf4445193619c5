"""Gaps and the flow's sharpness, against mpmath, gradient flow, dense Hessians and plain descent."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from eoslib import balance, descent, hessian, network

FEW = settings(derandomize=True, deadline=None, max_examples=25)
depths = st.integers(2, 8)
scales = st.floats(-3, 2).map(lambda e: 10.0**e)
targets = st.floats(-4, 4).map(lambda e: 10.0**e)


def sharpness_by_bisection(alpha, m, depth):
    """Psi with 40 digits: bisection on y in y^{2L} - alpha^2 y^{2L-2} = m^2, then m^2 (1/x^2 + (L-1)/y^2)."""
    with mp.workdps(40):
        alpha, m = mp.mpf(alpha), mp.mpf(m)
        low, high = alpha, alpha + m ** (mp.mpf(1) / depth) + 1
        for _ in range(160):
            y = (low + high) / 2
            low, high = (low, y) if y ** (depth - 1) * mp.sqrt(y * y - alpha * alpha) > m else (y, high)
        x = m / y ** (depth - 1)
        return float(m**2 * (1 / x**2 + (depth - 1) / y**2))


@FEW
@given(scales, targets, depths)
def test_flow_sharpness_is_that_of_forty_digits(alpha, m, depth):
    # Newton stops within a rounding of v, which enters Psi with power at most L - 1: a few 1e-15.
    assert_allclose(balance.flow_sharpness(alpha, m, depth), sharpness_by_bisection(alpha, m, depth), rtol=1e-13)


@FEW
@given(scales, targets, depths)
def test_flow_limit_is_on_both_curves(alpha, m, depth):
    end = balance.flow_limit(alpha, m, depth)
    assert_allclose(end.last * end.others ** (depth - 1), m, rtol=1e-13)
    # the difference cancels for small alpha
    assert_allclose(end.others**2 - end.last**2, alpha**2, rtol=1e-9, atol=1e-14 * end.others**2)
    assert_allclose(end.ratio, (end.last / end.others) ** 2, rtol=1e-12)


@FEW
@given(scales, targets, depths, st.floats(0.1, 10))
def test_flow_sharpness_scales(alpha, m, depth, kappa):
    scaled = balance.flow_sharpness(kappa * alpha, kappa**depth * m, depth)
    assert_allclose(scaled, kappa ** (2 * depth - 2) * balance.flow_sharpness(alpha, m, depth), rtol=1e-11)


def test_flow_sharpness_is_that_of_a_dense_hessian_after_gradient_flow():
    for depth, alpha in [(2, 1.0), (3, 0.4), (4, 1.3)]:
        W = network.initialise("unbalanced", depth=depth, width=2, scale=alpha)
        end = descent.flow(W, np.diag([1.5, 0.7]), [80.0])[-1]
        top = np.linalg.eigvalsh(hessian.dense(end, np.diag([1.5, 0.7])))[-1]
        assert_allclose(top, balance.flow_sharpness(alpha, 1.5, depth), rtol=1e-7)  # the flow's accuracy


def test_flow_sharpness_broadcasts_and_grows_with_scale_and_target():
    table = balance.flow_sharpness(np.linspace(0.1, 3, 7)[:, None], [0.5, 1.0, 2.0], 3)
    assert table.shape == (7, 3)
    assert np.all(np.diff(table, axis=0) > 0) and np.all(np.diff(table, axis=1) > 0)


@FEW
@given(st.floats(0.05, 5), targets, depths)
def test_slope_and_growth_are_derivatives(relative, m, depth):
    alpha = relative * m ** (1 / depth)
    h = 1e-5 * alpha
    up, down = (np.log(balance.flow_sharpness(alpha + s * h, m, depth)) for s in (1, -1))
    log_slope = (up - down) / (2 * h)  # truncation about 1e-10 relative, rounding 1e-16 / 1e-5 absolute times alpha
    assert_allclose(balance.growth(alpha, m, depth) * alpha**4, log_slope * alpha, rtol=1e-6, atol=1e-9)
    slope = balance.sharpness_slope(alpha, m, depth)
    assert slope > 0
    assert_allclose(slope / balance.flow_sharpness(alpha, m, depth) * alpha, log_slope * alpha, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("depth", range(3, 9))
def test_critical_scale_is_the_paper_s_and_a_maximum(depth):
    k = depth * (depth - 2)
    printed = 2.5 ** (1 / depth) / (k**-0.5 * (1 + 1 / k) ** ((depth - 1) / 2)) ** (1 / depth)
    top = balance.critical_scale(2.5, depth)
    assert_allclose(top, printed, rtol=1e-14)
    highest = balance.growth(top, 2.5, depth)
    assert_allclose(highest * 2.5 ** (4 / depth) / 2, balance.growth_constant(depth), rtol=1e-12)
    assert np.all(balance.growth(top * np.array([0.9, 1.1]), 2.5, depth) < balance.growth(top, 2.5, depth))
    bracket = k**-0.5 * (1 + 1 / k) ** ((depth - 1) / 2)
    printed_g = (1 / depth - 1 / depth**2) * bracket ** (4 / depth) / (1 / k + 1 / depth) ** 2
    assert_allclose(balance.growth_constant(depth), printed_g, rtol=1e-13)


@FEW
@given(st.floats(0.001, 2.82), targets, depths)
def test_bounds_are_ordered_and_the_exact_one_is_exact(q, m, depth):
    rate = q / (depth * m ** (2 - 2 / depth))
    forms = ("printed", "simple", "integral", "exact")
    printed, simple, integral, exact = (balance.scale_bound(rate, m, depth, form=form) for form in forms)
    assert printed < simple < integral < exact
    assert_allclose(rate * balance.flow_sharpness(exact, m, depth), balance.EDGE, rtol=1e-11)


@FEW
@given(depths, st.integers(0, 2**31))
def test_gap_factors_are_those_of_descent(depth, seed):
    rng = np.random.default_rng(seed)
    values, target, rate = rng.uniform(0.2, 1.4, (depth, 3)), rng.uniform(0.5, 2, 3), rng.uniform(0.01, 0.2)
    W = np.stack([np.diag(v) for v in values])
    after = descent.descend(W, np.diag(target), rate, 1, singular_values=False).weights
    assert_allclose(
        balance.gaps(np.diagonal(after, axis1=1, axis2=2)),
        balance.gap_factors(values, target, rate) * balance.gaps(values),
        rtol=0,
        atol=1e-14 * 1.4 ** (2 * depth),  # roundings of products of up to L numbers below 1.4, squared
    )


def test_gap_factors_take_a_layer_at_zero():
    factors = balance.gap_factors([[0.5], [0.5], [0.0]], [2.0], 0.1)
    assert_allclose(factors, [[1 - (0.1 * 2 * 0.5) ** 2]] * 2, rtol=1e-15)


@pytest.mark.parametrize("depth", range(2, 9))
def test_overshoot_ceiling_is_above_every_sample(depth):
    """Sampled steps across the minimum, over all modes that the bound admits, stay below the certified ceiling."""
    rng = np.random.default_rng(depth)
    q1 = 2 * np.sqrt(2) * np.exp(-rng.exponential(0.5, 40_000))
    ratio = np.where(rng.random(q1.size) < 0.5, 1.0, 10 ** -rng.uniform(0, 4, q1.size))  # m_i / m_1
    m, eta = ratio, q1 / depth
    alpha = balance.scale_bound(eta, 1.0, depth) * np.sqrt(rng.random(q1.size))
    end = balance.flow_limit(alpha, m, depth)
    x = rng.random(q1.size) * end.last
    y = np.hypot(x, alpha)
    turn = eta * (m - x * y ** (depth - 1)) * y ** (depth - 2)
    x, y = x + turn * y, y + turn * x
    product = x * y ** (depth - 1)
    pull = np.where(product > m, eta * (product - m) * product / np.minimum(x, y) ** 2, 0.0)
    ceiling = balance.overshoot_ceiling(depth)
    assert pull.max() <= ceiling < 1
    assert pull.max() > 0.8 * balance.overshoot_ceiling(depth, pieces=1200)  # and it is not a vacuous bound
    assert balance.overshoot_ceiling(depth, pieces=1200) < ceiling


@pytest.mark.parametrize("depth", [2, 3, 8])
def test_overshoot_ceiling_is_rounded_outward(depth):
    """The same box corners with 40 digits give a smaller value, and by no more than the roundings."""
    n, worst = depth - 1, mp.mpf(0)
    with mp.workdps(40):
        s = [mp.mpf(float(v)) for v in np.linspace(balance._quiet_root(depth), 1.0, 13)]
        w = [mp.mpf(float(v)) for v in np.linspace(0.0, 1.0, 13)]
        for low, high in pairwise(s):
            ratios = [mp.mpf(k) / 100 for k in range(1, 101)]  # (m_i / m_1)^{4/L}, by brute force
            d2 = ((1 - high**depth) / high) ** 2
            best = min(mp.mpf(1), n / (depth * d2)) if d2 else mp.mpf(1)
            rate = mp.sqrt(8) * best ** (mp.mpf(n) / 2) * mp.exp(-depth * d2 * best / 2)
            assert rate >= mp.sqrt(8) * max(r ** (mp.mpf(n) / 2) * mp.exp(-depth * d2 * r / 2) for r in ratios)
            c = rate / (depth * low**n)
            for left, right in pairwise(w):
                u_low, u_high = mp.sqrt(1 - high**depth * (1 - left**2)), mp.sqrt(1 - low**depth * (1 - right**2))
                rest = 1 - left * u_low**n
                W, U = right + c * rest * u_high**n, u_high + c * high**depth * rest * right * u_high ** (n - 1)
                worst = max(worst, c * U**n * (U**n - 1 / W))
                worst = max(worst, c * high**depth * W * (W - 1 / U)) if depth == 2 else worst
        excess = float(balance.overshoot_ceiling(depth, pieces=12) - worst)
    assert 0 <= excess < 1e-11  # about 50 roundings of 2e-16, times L - 1 for the powers


def test_powers_enclose_the_exact_ones():
    base = np.random.default_rng(0).uniform(0.1, 2, 200)
    for exponent in range(1, 8):
        below, above = balance._power(base, exponent, balance._down), balance._power(base, exponent, balance._up)
        for b, low, high in zip(base.tolist(), below.tolist(), above.tolist()):
            exact = Fraction(b) ** exponent
            assert Fraction(low) <= exact <= Fraction(high) and (exponent == 1 or low < high)
            assert exponent == 1 or exact - Fraction(low) > 0 < Fraction(high) - exact


@pytest.mark.parametrize("depth", [2, 3, 5, 8])
def test_largest_rate_is_an_upper_bound_and_tight(depth):
    """Against the maximum over all ratios of targets, by brute force on a fine grid."""
    r = np.linspace(1e-4, 1, 20_001)
    for root in np.linspace(balance._quiet_root(depth), 1, 40):
        d2 = ((1 - root**depth) / root) ** 2
        best = 2 * np.sqrt(2) * np.max(r ** ((depth - 1) / 2) * np.exp(-depth * d2 * r / 2))
        # a grid step of 5e-5 beside a smooth maximum costs its square, about (5e-5 / 0.1)^2
        assert best * (1 - 1e-14) <= balance._largest_rate(root, depth) <= best * (1 + 1e-6)


def test_every_minimum_below_the_first_box_is_quiet():
    """eta Psi < 1 for every mode that the bound admits with T below the first box, by sampling."""
    rng = np.random.default_rng(1)
    for depth in range(2, 9):
        eta = 2 * np.sqrt(2) * 10 ** -rng.uniform(0, 3, 20_000) / depth
        m = 10 ** -rng.uniform(0, 3, eta.size)
        alpha = balance.scale_bound(eta, 1.0, depth)
        end = balance.flow_limit(alpha, m, depth)
        small = end.ratio ** (1 / depth) < balance._quiet_root(depth)
        assert small.sum() > 100 and np.max((eta * end.sharpness)[small]) < 1


def test_least_factor_bounds_a_run_from_below():
    rate, values = 2.7 / 20, np.array([10.0, 3.0])
    alpha = float(balance.scale_bound(rate, 10.0, 2))
    W = network.initialise("unbalanced", depth=2, width=2, scale=alpha)
    diagonals = {"v": lambda w: np.diagonal(w, axis1=-2, axis2=-1)}
    v = descent.descend(W, np.diag(values), rate, 200, observe=diagonals).observed["v"]
    factors = balance.gap_factors(v, values, rate).min((0, 1))
    floor = balance.least_factor(alpha, rate, values, 2)
    assert np.all(factors >= floor) and factors[0] < -0.5 and floor[0] > -1


def test_frozen_fraction_in_the_limits():
    small = balance.frozen_fraction(1e-4, 1.0, 5, 0.5 / 5)
    assert_allclose(small, np.exp(-0.5 / (2 * 4 * 3)), rtol=1e-6)
    one, two = (np.log(balance.frozen_fraction(a, 1.0, 2, 0.5 / 2)) for a in (1e-3, 1e-4))
    assert_allclose(one - two, 0.25 * np.log(10), rtol=1e-6)  # a power alpha^{q/2} of the scale


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: balance.flow_sharpness(0.0, 1.0, 3), "scale: got 0.0, needs finite numbers > 0"),
        (lambda: balance.flow_sharpness(-0.1, 1.0, 3), "scale: got -0.1"),
        (lambda: balance.flow_sharpness(0.1, 0.0, 3), "target: got 0.0"),
        (lambda: balance.flow_sharpness(0.1, 1.0, 1), "depth: got 1, needs an integer >= 2"),
        (lambda: balance.flow_sharpness(np.nan, 1.0, 3), "scale: got a value that is not finite"),
        (lambda: balance.critical_scale(1.0, 2), "no maximum exists"),
        (lambda: balance.scale_bound(1.0, 10.0, 3), "needs eta S < 2 sqrt 2"),
        (lambda: balance.scale_bound(0.01, 1.0, 3, form="tight"), "form: got 'tight'"),
        (lambda: balance.least_factor(5.0, 0.03, [10.0], 3), "scale: got 5.0, above"),
        (lambda: balance.least_factor(0.1, 1.0, [10.0], 3), "needs eta S < 2 sqrt 2"),
        (lambda: balance.frozen_fraction(0.1, 1.0, 3, 0.7), "a mode converges only where eta Psi < 2"),
        (lambda: balance.frozen_fraction(0.1, 1.0, 3, -0.7), "learning_rate: got -0.7"),
        (lambda: balance.cycle_factor(0.0), "ratio: got 0.0"),
        (lambda: balance.gaps([[1.0, 2.0]]), "needs (..., L, r) with L >= 2 layers"),
        (lambda: balance.gap_factors([[1.0], [2.0]], [1.0, 2.0], 0.1), "target: got shape (2,)"),
        (lambda: balance.gap_factors([[1.0], [2.0]], [1.0], 0.0), "learning_rate: got 0.0"),
        (lambda: balance.overshoot_ceiling(1), "depth: got 1"),
        (lambda: balance.overshoot_ceiling(3, pieces=2), "pieces: got 2"),
    ],
)
def test_bad_input_says_which_assumption_fails(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
