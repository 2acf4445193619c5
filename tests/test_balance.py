"""Gaps and the flow's sharpness, against mpmath, gradient flow, dense Hessians and plain descent."""

from __future__ import annotations


import warnings

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.integrate import quad

from eoslib import balance, descent, enclose, hessian, network

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
@given(st.floats(-8, 0.3).map(lambda e: 10.0**e), st.integers(9, 300))
def test_flow_sharpness_of_very_deep_networks(alpha, depth):
    # an error of 2e-16 in log(y) enters log(Psi) times 2(L - 1), at most 600
    assert_allclose(balance.flow_sharpness(alpha, 1.0, depth), sharpness_by_bisection(alpha, 1.0, depth), rtol=1e-12)


def test_flow_limit_at_the_ends_of_the_floating_range():
    for scale in (1e-300, 1e-170, 1e-30):  # alpha^2 below the range, or below the last digit
        end = balance.flow_limit(scale, 2.0, 3)
        assert_allclose([end.ratio, end.sharpness], [1.0, 3 * 2.0 ** (4 / 3)], rtol=1e-14)
    end = balance.flow_limit(1e100, 1.0, 2)
    assert_allclose([end.others, end.last], [1e100, 1e-100], rtol=1e-13)
    assert balance.flow_sharpness(np.float32(0.5), 1.0, 3) == balance.flow_sharpness(0.5, 1.0, 3)


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


def test_exact_bound_close_to_the_ceiling_and_far_from_it():
    """Small room: alpha^4 = 2 L^2 room / (L - 1); cancellation leaves 1e-15 L beside tau, about the root of room."""
    for depth in (2, 3, 30, 400):
        for room in (1e-12, 1e-6):
            found = balance.scale_bound(balance.EDGE * (1 - room) / depth, 1.0, depth, form="exact") ** 4
            assert_allclose(found, room * 2 * depth**2 / (depth - 1), rtol=5 * np.sqrt(room) * np.sqrt(depth) + 1e-3)
        far = balance.scale_bound(1e-3 / depth, 1.0, depth, form="exact")
        assert_allclose(1e-3 / depth * balance.flow_sharpness(far, 1.0, depth), balance.EDGE, rtol=1e-11)


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


def pull_of_a_step(n, theta, w, k):
    """Q of both layers after a step that starts at w, in plain numbers scaled by the flow's end; 0 if none crosses."""
    T, c = theta / n, k / (1 + theta)
    u = np.sqrt(1 - T * (1 - w**2))
    turn = c * (1 - w * u**n) * u ** (n - 1)  # x -> x + turn u, y -> y + T turn w
    W, U = w + turn * u, u + T * turn * w
    product = W * U**n
    crosses = product > 1
    return [np.where(crosses, c * (product - 1) * product * t / v**2, 0.0) for v, t in ((W, 1.0), (U, T))]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 40, 1000])
def test_pull_is_above_every_sample(n):
    rng = np.random.default_rng(n)
    iv = enclose.arithmetic(53)
    largest = 0.0
    for _ in range(60):
        theta = np.sort(0.5 + (min(n, 8) - 0.5) * rng.random() + np.array([0.0, 0.02 * rng.random()]))
        w = np.sort(rng.random() + 0.02 * rng.random(2)).clip(0, 1)
        high = balance.pull(iv, iv.mpf(1) / n, iv.mpf(theta.tolist()), iv.mpf(w.tolist()))
        wide = balance.pull(iv, iv.mpf([0, 1 / n]), iv.mpf(theta.tolist()), iv.mpf(w.tolist()))
        at = rng.uniform(theta[0], min(theta[1], n), 200), rng.uniform(*w, 200)
        last, other = pull_of_a_step(n, *at, balance.EDGE * np.sqrt(rng.random(200)))
        assert last.max() <= enclose.ends(high)[1] <= enclose.ends(wide)[1] + 1e-12
        if n == 1:
            bound = balance.pull_of_others(iv, iv.mpf(theta.tolist()), iv.mpf(w.tolist()))
            assert other.max() <= enclose.ends(bound)[1]
        largest = max(largest, enclose.ends(high)[1] - last.max() if last.max() > 0.1 else 0)
    assert largest < 0.35  # the enclosure is no vacuous bound: a few widths of 0.02, times slopes of a few


def test_positivity_is_certified_with_the_precision_asked_for():
    first, again = (balance.certify_positivity(bits=bits) for bits in (24, 53))
    for name in ("deeper", "two", "others"):
        assert first[name].high < 1 and again[name].high < 1
        assert (first[name].bits, again[name].bits) == (24, 53) and first[name] != again[name]
    with pytest.raises(ArithmeticError, match="not shown to be less than 1"):  # and it is false for small T
        enclose.below(balance.pull, (0.0, 0.5), (0.05, 0.1), (0.0, 1.0), bound=1.0, most=2000)
    assert max(pull_of_a_step(2, 0.1, np.linspace(0, 1, 99), 2.82)[0]) > 1.2


@pytest.mark.parametrize("depth", [2, 3, 5, 9, 30])
def test_contracts_covers_the_bounds_on_the_scale(depth):
    """Scales up to the "simple" bound satisfy the lemma's condition, for the smaller modes too."""
    rng = np.random.default_rng(depth)
    q = 2 * np.sqrt(2) * np.exp(-rng.exponential(0.5, 5000))
    ratio = np.where(rng.random(q.size) < 0.5, 1.0, 10 ** -rng.uniform(0, 6, q.size))
    alpha = balance.scale_bound(q / depth, 1.0, depth) * (1 - 1e-12)
    assert balance.contracts(alpha, q / depth, ratio, depth).all()
    assert not balance.contracts(10.0, 2.0 / depth, 1.0, depth)
    assert not balance.contracts(1e-3, 2.83 / depth, 1.0, depth) and balance.contracts(1e-3, 2.82 / depth, 1.0, depth)
    flat = 0.49 / (depth - 1)  # T of a flow that ends just below (L - 1) T = 1/2
    scale = np.sqrt((1 - flat) * flat ** (-1 / depth))
    rates = np.array([1.99, 2.01]) / balance.flow_sharpness(scale, 1.0, depth)
    assert balance.contracts(scale, rates, 1.0, depth).tolist() == [True, False]


@pytest.mark.parametrize("depth", [2, 3, 4, 7])
def test_layers_stay_positive_where_contracts_says_so(depth):
    rng = np.random.default_rng(depth)
    T = np.where(rng.random(20_000) < 0.5, rng.random(20_000), 10 ** -rng.uniform(0, 6, 20_000))
    k = np.where(rng.random(T.size) < 0.5, 2.0, 2.828) * rng.random(T.size) ** 0.3
    scale = np.sqrt((1 - T) * T ** (-1 / depth))
    rate = k / balance.flow_sharpness(scale, 1.0, depth)
    known = balance.contracts(scale, rate, 1.0, depth)
    x, y, positive, least = np.zeros_like(T), scale.copy(), np.ones(T.size, bool), np.ones(T.size)
    for _ in range(200):
        turn = rate * (1 - x * y ** (depth - 1)) * y ** (depth - 2)
        least = np.where(positive, np.minimum(least, 1 - turn**2), least)
        x, y = x + turn * y, y + turn * x
        positive &= (x > 0) & (y > 0)
        x, y = (np.where(positive, v, 0.5) for v in (x, y))  # runs that have left are of no further interest
    assert positive[known].all() and not positive[~known].all()
    floor = balance.least_factor(scale[known], rate[known], 1.0, depth)
    assert np.all(least[known] >= floor - 1e-12)


def test_least_factor_bounds_a_run_from_below():
    rate, values = 2.7 / 20, np.array([10.0, 3.0])
    alpha = float(balance.scale_bound(rate, 10.0, 2))
    W = network.initialise("unbalanced", depth=2, width=2, scale=alpha)
    diagonals = {"v": lambda w: np.diagonal(w, axis1=-2, axis2=-1)}
    v = descent.descend(W, np.diag(values), rate, 200, observe=diagonals).observed["v"]
    factors = balance.gap_factors(v, values, rate).min((0, 1))
    floor = balance.least_factor(alpha, rate, values, 2)
    assert np.all(factors >= floor) and factors[0] < -0.5 and floor[0] > -1


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_bounds_are_the_formulas(depth):
    m, q = 3.0, 1.7
    rate, room = q / (depth * m ** (2 - 2 / depth)), np.log(2 * np.sqrt(2) / q)
    g = (depth - 1) ** (3 - 4 / depth) / depth**2
    share = {"integral": 2 / g, "simple": 2 / depth, "printed": 1 / (depth**2 * 2 ** ((2 * depth - 3) / depth))}
    for form, factor in share.items():
        found = balance.scale_bound(rate, m, depth, form=form)
        assert_allclose(found**4, room * factor * m ** (4 / depth), rtol=1e-13)


def test_least_factor_is_zero_from_k_equal_one():
    for depth in (2, 4):
        for k, expected in ((0.9, 1 - 0.81 / (4 * depth - 4)), (1.1, 0.0), (1.4, 0.0)):
            rate = k / balance.flow_sharpness(0.3, 1.0, depth)
            assert_allclose(balance.least_factor(0.3, rate, 1.0, depth), expected, atol=1e-14)


@pytest.mark.parametrize("z", [1.1, 1.7, 2.5])
def test_cycle_factor_is_that_of_two_steps(z):
    """On equal layers that go from 1 to z and back a small gap is multiplied as the steps say, for three layers."""
    turn = np.array([z - 1, 1 / z - 1])  # eta (m - pi) y^(L - 2), on the way up and back
    with mp.workdps(60):
        x, y = mp.mpf(1) - mp.mpf(10) ** -20, mp.mpf(1)
        gap = y * y - x * x
        for step in turn:
            x, y = x + mp.mpf(step) * y, y + mp.mpf(step) * x
        assert_allclose(float((y * y - x * x) / gap), balance.cycle_factor(z), rtol=1e-12)


@pytest.mark.parametrize("depth", [2, 3, 4, 7])
@pytest.mark.parametrize("alpha", [0.05, 0.6])
def test_frozen_fraction_is_the_integral(depth, alpha):
    m, rate = 2.5, 0.02
    end = balance.flow_limit(alpha, m, depth)
    inside = lambda x: (m - x * np.hypot(x, alpha) ** (depth - 1)) * np.hypot(x, alpha) ** (depth - 3.0)
    integral = quad(inside, 0, end.last, epsrel=1e-11)[0]
    assert_allclose(np.log(balance.frozen_fraction(alpha, m, depth, rate)), -rate * integral, rtol=1e-8)


def test_frozen_fraction_in_the_limits():
    small = balance.frozen_fraction(1e-4, 1.0, 5, 0.5 / 5)
    assert_allclose(small, np.exp(-0.5 / (2 * 4 * 3)), rtol=1e-6)
    # two layers, T = 1 to the last digit: arsinh(1 / alpha) = ln(2 / alpha), less 1/2
    assert_allclose(np.log(balance.frozen_fraction(1e-12, 1.0, 2, 0.25)), -0.25 * (np.log(2e12) - 0.5), rtol=1e-12)
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
        (lambda: balance.least_factor(5.0, 0.03, [10.0], 3), "scale: got 5.0, which the balancing lemma does not"),
        (lambda: balance.flow_sharpness(1e200, 1.0, 9), "the flow's end is beyond the floating range"),
        (lambda: balance.gaps([[1e200], [1.0]]), "values: got [[1e+200], [1.0]], needs numbers whose result is within"),
        (
            lambda: balance.gap_factors([[1.0, 1.0], [2.0, 1.0]], [1.0, 1.0], np.ones(3)),
            "learning_rate: got shape (3,)",
        ),
        (
            lambda: balance.flow_sharpness([1.0, 2.0], [1.0, 2.0, 3.0], 3),
            "scale, target: got shapes (2,), (3,), needs ones that broadcast",
        ),
        (lambda: balance.frozen_fraction(0.1, 1.0, 3, 0.7), "a mode converges only where eta Psi < 2"),
        (lambda: balance.frozen_fraction(0.1, 1.0, 3, -0.7), "learning_rate: got -0.7"),
        (lambda: balance.cycle_factor(0.0), "ratio: got 0.0"),
        (lambda: balance.gaps([[1.0, 2.0]]), "needs (..., L, r) with L >= 2 layers"),
        (lambda: balance.gap_factors([[1.0], [2.0]], [1.0, 2.0], 0.1), "target: got shape (2,)"),
        (lambda: balance.gap_factors([[1.0], [2.0]], [1.0], 0.0), "learning_rate: got 0.0"),
        (lambda: balance.certify_positivity(bits=3), "bits: got 3"),
    ],
)
def test_bad_input_says_which_assumption_fails(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 40])
def test_pull_of_a_point_is_the_step_itself(n):
    """Where the box is a point the enclosure is the exact Q at eta Psi = 2 sqrt 2, but for rounding."""
    rng, iv = np.random.default_rng(n), enclose.arithmetic(53)
    crossing = 0
    for theta, w in zip(rng.uniform(0.05, min(n, 8), 300), rng.uniform(0, 1, 300)):
        last, other = pull_of_a_step(n, theta, w, np.sqrt(8))
        low, high = enclose.ends(balance.pull(iv, iv.mpf(1) / n, iv.mpf(theta), iv.mpf(w)))
        assert low == 0 and high == pytest.approx(float(last), rel=1e-10, abs=1e-12)
        crossing += last > 0
        if n == 1 and last > 0:  # of two layers the other is bounded wherever the step crosses
            found = enclose.ends(balance.pull_of_others(iv, iv.mpf(theta), iv.mpf(w)))
            assert found[0] == 0 and found[1] == pytest.approx(float(other), rel=1e-12, abs=0)
    assert crossing > 50


def test_pull_of_infinitely_many_layers_is_the_limit():
    iv = enclose.arithmetic(53)
    for theta, w in ((0.6, 0.5), (2.0, 0.1), (2.0, 0.3), (5.0, 0.6), (7.9, 0.8)):
        limit = enclose.ends(balance.pull(iv, iv.mpf(0), iv.mpf(theta), iv.mpf(w)))[1]
        n = 10**7  # the next term is of order 1 / n, times powers of theta
        assert limit == pytest.approx(float(pull_of_a_step(n, theta, w, np.sqrt(8))[0]), rel=1e-4, abs=1e-6)


def test_pull_of_a_small_box_is_tight_and_of_a_large_one_no_smaller():
    rng, iv = np.random.default_rng(3), enclose.arithmetic(53)
    for n in (2, 5):
        for theta, w in zip(rng.uniform(0.5, n - 1e-3, 100), rng.uniform(0, 0.999, 100)):
            small = enclose.ends(balance.pull(iv, iv.mpf(1) / n, iv.mpf([theta, theta + 1e-6]), iv.mpf([w, w + 1e-6])))[
                1
            ]
            at = float(pull_of_a_step(n, theta, w, np.sqrt(8))[0])
            jump_to_zero = pull_of_a_step(n, theta, w + 1e-3, np.sqrt(8))[0] == 0 != at or at == 0
            assert small >= at * (1 - 1e-12) and (jump_to_zero or small <= at + 1e-3)
            sides = [iv.mpf(1) / n, iv.mpf([theta, min(theta + 0.2, n)]), iv.mpf([w, min(w + 0.1, 1)])]
            assert enclose.ends(balance.pull(iv, *sides))[1] >= small * (1 - 1e-12) or theta + 1e-6 > n or w + 1e-6 > 1
    # a box that reaches beyond T = 1 is enclosed up to there
    beyond = enclose.ends(balance.pull(iv, iv.mpf(1), iv.mpf([0.9, 3.0]), iv.mpf([0.7, 0.8])))[1]
    assert beyond >= max(pull_of_a_step(1, theta, 0.7, np.sqrt(8))[0] for theta in (0.9, 0.95, 0.999)) > 0.5
    # no T above one: such a box is empty
    for theta in ([1.01, 1.02], [1.01, 2.0], [2.5, 3.0]):
        for w in ([0.2, 0.3], [0.5, 0.6], [0.7, 0.8]):
            assert enclose.ends(balance.pull(iv, iv.mpf(1), iv.mpf(theta), iv.mpf(w))) == (0, 0)
    # T = 1 is no such box; there the other layer ends at zero, and at w = 0 begins there
    at_one = enclose.ends(balance.pull(iv, iv.mpf(1), iv.mpf(1), iv.mpf(0.7)))[1]
    assert at_one == pytest.approx(float(pull_of_a_step(1, 1.0, 0.7, np.sqrt(8))[0]), rel=1e-10) and at_one > 0.6
    assert 0 <= enclose.ends(balance.pull(iv, iv.mpf(1), iv.mpf(1), iv.mpf(0)))[1] < 2
    straddles = 0
    for n in range(2, 60):  # rounding may leave T on either side of one, and a power of a negative number
        x = iv.mpf(1) / n
        for theta in (float(n), np.nextafter(n, 2 * n)):
            straddles += (x.a * iv.mpf(theta)).a <= 1 < (x.a * iv.mpf(theta)).b
            assert 0 <= enclose.ends(balance.pull(iv, x, iv.mpf(theta), iv.mpf(0)))[1] < np.inf
    assert straddles > 0
    # a box beyond T = 1 none of whose steps crosses; and one for two layers, whose other layer ends below zero there
    assert enclose.ends(balance.pull(iv, iv.mpf(1), iv.mpf([0.9, 3.0]), iv.mpf([0, 0.05]))) == (0, 0)
    others = enclose.ends(balance.pull_of_others(iv, iv.mpf([0.9, 1.2]), iv.mpf([0.2, 0.9])))[1]
    assert others >= max(pull_of_a_step(1, 0.9, w, np.sqrt(8))[1] for w in (0.3, 0.5, 0.7)) > 0
    assert enclose.ends(balance.pull(iv, iv.mpf(1), iv.mpf([0.9, 2.0]), iv.mpf([0.5, 0.6])))[1] > 0


def test_the_certificate_covers_the_rectangle_it_names(monkeypatch):
    asked = []
    monkeypatch.setattr(
        enclose, "below", lambda f, *sides, bound, bits: asked.append((f, sides, bound, bits)) or "shown"
    )
    assert balance.certify_positivity() == {"deeper": "shown", "two": "shown", "others": "shown"}
    deeper, two, others = asked
    assert deeper[1:] == ((((0.5, 8.0), (0.0, 1.0))), 1.0, 53)
    assert two[1:] == others[1:] == (((0.5, 1.0), (0.0, 1.0)), 1.0, 53) and others[0] is balance.pull_of_others
    iv = enclose.arithmetic(53)
    for n in (2, 4, 1000):  # the first holds every depth from three layers on, the second two layers
        at = (iv.mpf(0.7), iv.mpf(0.5))
        assert enclose.ends(deeper[0](iv, *at))[1] >= float(pull_of_a_step(n, 0.7, 0.5, np.sqrt(8))[0]) > 0
    assert enclose.ends(two[0](iv, *at))[1] == pytest.approx(float(pull_of_a_step(1, 0.7, 0.5, np.sqrt(8))[0]))
    monkeypatch.setattr(balance, "pull", lambda iv, x, *_: enclose.ends(x))
    assert (deeper[0](iv, *at), two[0](iv, *at)) == ((0.0, 0.5), (1.0, 1.0))  # 1 / (L - 1)


def test_conditions_at_their_borders():
    """Two layers: T = 1/2 at alpha^2 = (1/2) 2^(1/2), and Psi = sqrt(alpha^4 + 4)."""
    alpha = np.sqrt(0.5 * np.sqrt(2))
    psi = np.sqrt(4.5)
    assert balance.contracts(alpha * (1 - 1e-9), 2.8 / psi, 1.0, 2) and not balance.contracts(
        alpha * (1 + 1e-9), 2.8 / psi, 1.0, 2
    )
    assert balance.contracts(alpha * 2, 1.99 / np.sqrt(16 * alpha**4 + 4), 1.0, 2)
    assert not balance.contracts(alpha * 2, 2.01 / np.sqrt(16 * alpha**4 + 4), 1.0, 2)
    scales = np.linspace(1, 3, 41)  # T below 0.4; of these rates some are exactly 2 / Psi, where the lemma still holds
    k = (rates := 2 / balance.flow_sharpness(scales, 1.0, 2)) * balance.flow_sharpness(scales, 1.0, 2)
    assert np.any(k == 2) and np.array_equal(balance.contracts(scales, rates, 1.0, 2), k <= 2)
    tiny = 1e-170  # Psi = 2 to the last digit
    assert balance.contracts(tiny, 1.0, 1.0, 2) and not balance.contracts(tiny, balance.EDGE / 2, 1.0, 2)
    assert not balance.contracts(1.0, 1e308, 1e10, 2)  # eta Psi beyond the floating range
    assert_allclose(
        balance.least_factor(tiny, [0.49, 0.51, 1.2], 1.0, 2),
        [1 - 0.98**2 / 4, min(1 - 1.02**2 / 4, 0), 1 - 2.4**2 / 4],
    )
    assert balance.least_factor(tiny, 0.5, 1.0, 2) == 0.75  # k = 1 does not cross
    with pytest.raises(ValueError, match="a mode converges only where eta Psi < 2"):
        balance.frozen_fraction(tiny, 1.0, 2, 1.0)
    assert 0 <= balance.frozen_fraction(1e-3, 1.0, 3, 0.6) < 1


def test_gap_factors_of_a_batch_are_those_of_its_members():
    rng = np.random.default_rng(0)
    values, target, rate = rng.uniform(0.2, 1.4, (2, 4, 3)), rng.uniform(0.5, 2, 3), rng.uniform(0.01, 0.2, (2, 3, 3))
    both = balance.gap_factors(values, target, rate)
    assert both.shape == (2, 3, 3)
    assert_allclose(both, [balance.gap_factors(*x) for x in zip(values, [target] * 2, rate)], rtol=1e-15)
    assert balance.gap_factors(np.ones((2, 1)), [0.0], 0.1) == 0.99  # a target of zero


def test_numbers_worked_out_by_hand():
    # the product of the others is 2, the residual 2 * 3 * 4 - 25 = -1 and so on
    assert_allclose(balance.gap_factors([[2.0], [3.0], [4.0]], [25.0], 0.1), [[1 - 0.09], [1 - 0.04]])
    assert balance.gaps([[[1.0, 2.0], [3.0, 4.0]]]).tolist() == [[[8.0, 12.0]]]
    both = balance.gap_factors(np.ones((2, 3, 2)), [3.0, 2.0], [[[0.1]], [[0.5]]])
    assert_allclose(both, [[[0.96, 0.99]] * 2, [[0.0, 0.75]] * 2], atol=1e-15)
    # alpha = m^(1/L) sqrt(L (L - 2)) / (L - 1)^((L - 1) / L): m = 8, L = 3
    assert_allclose(balance.critical_scale([8.0, 1.0], 3), np.array([2, 1]) * np.sqrt(3) / 2 ** (2 / 3), rtol=1e-14)
    assert balance.growth_constant(2) == 0.25 and balance.growth_constant(4) == pytest.approx(9 / 16, rel=1e-14, abs=0)
    # two layers: P = 2 / (x^2 + y^2)^2 = 2 / (alpha^4 + 4 m^2), Psi' = 2 alpha^3 / Psi
    assert_allclose(balance.growth(1.5, 2.0, 2), 2 / (1.5**4 + 16), rtol=1e-13)
    assert_allclose(
        balance.sharpness_slope([1.5, 2], 2.0, 2), 2 * np.array([1.5, 2]) ** 3 / np.sqrt([1.5**4 + 16, 32]), rtol=1e-13
    )
    short = np.float32(0.3)  # of which the slope is no float32
    assert balance.sharpness_slope(short, 1.0, 3) == balance.sharpness_slope(float(short), 1.0, 3)
    assert balance.cycle_factor([1.0, 2.0, 4.0]).tolist() == [1.0, 0.0, -3.5]
    # two layers, alpha^2 = 3/2, m = 1: x^2 = 1/2, arsinh(x / alpha) = arsinh(1 / sqrt 3) = ln 3 / 2,
    # and (y^2 - alpha^2) / 2 = 1/4
    assert_allclose(
        balance.frozen_fraction(np.sqrt(1.5), 1.0, 2, 0.1), np.exp(-0.1 * (np.log(3) / 2 - 0.25)), rtol=1e-12
    )


@pytest.mark.parametrize("depth", [2, 3, 50])
def test_small_and_large_scales_join(depth):
    """Either side of where the gap is taken for its logarithm, exp(-80): T = 1 - alpha^2 to leading order."""
    scales = np.exp([-39.9, -40.0, -40.1, -20.0, -5.0])
    end = balance.flow_limit(scales, 1.0, depth)
    # y^2 = 1 + alpha^2 / L and x^2 = 1 - (L - 1) alpha^2 / L, next terms of order alpha^4
    assert_allclose(end.others**2 - 1, scales**2 / depth, rtol=scales[-1] ** 2 * 3, atol=4e-16)
    assert_allclose(1 - end.last**2, scales**2 * (depth - 1) / depth, rtol=scales[-1] ** 2 * 3, atol=4e-16)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: balance.flow_limit(1e200, 1.0, 9), r"^scale, target: got 1e\+200, 1.0: the flow's end is beyond"),
        (
            lambda: balance.flow_limit(1e150, 1e-200, 2),
            r"^scale, target: got 1e\+150, 1e-200: the flow's end is beyond",
        ),
        (lambda: balance.contracts(1e200, 1.0, 1.0, 9), r"^scale, singular_values: got 1e\+200, 1.0: the flow's end"),
        (
            lambda: balance.contracts([1.0, 2.0], [1.0] * 3, 1.0, 3),
            r"^scale, learning_rate, singular_values: got shapes \(2,\), \(3,\), \(\)",
        ),
        (lambda: balance.gap_factors([[1e200], [1e200]], [1.0], 1.0), "^values, target, learning_rate: got"),
        (lambda: balance.gap_factors([[1.0], [2.0]], [-1.0], 0.1), "^target: got"),
        (lambda: balance.gaps([[1e308], [-1e308]]), "^values: got .*within the floating range"),  # infinity times zero
        (
            lambda: balance.gap_factors([[0.0], [1e200], [1e200], [1.0]], [0.0], 0.1),
            "^values, target, learning_rate: got",
        ),
        (lambda: balance.flow_limit(1e160, 1.0, 2), "the flow's end is beyond"),  # x = 1e-160, y = 1e160, Psi = 1e320
        (lambda: balance.flow_limit([1.0, 1e160], 1.0, 2), "the flow's end is beyond"),
        (lambda: balance.gaps([1.0, 2.0]), r"^values: got shape \(2,\)"),
        (
            lambda: balance.scale_bound(balance.EDGE / 2 * (1 + 1e-12), 1.0, 2),
            "^learning_rate, target, depth: got .* eta S = 2.82843; the bound",
        ),
        (lambda: balance.scale_bound(1e300, 1e300, 2), "eta S = beyond floats"),
        (lambda: balance.scale_bound([1.0, 100.0], 1.0, 2), "eta S = 200;"),
        (lambda: balance.critical_scale(0.0, 3), "^target: got 0.0"),
        (lambda: balance.growth_constant(1), "^depth: got 1, needs an integer >= 2"),
        (lambda: balance.scale_bound(0.1, 1.0, 1), "^depth: got 1, needs an integer >= 2"),
        (lambda: balance.scale_bound(0.1, 1.0, 1, form="exact"), "^depth: got 1, needs an integer >= 2"),
        (lambda: balance.least_factor([0.01, 5.0], 0.03, 10.0, 3), r"^scale: got \[0.01, 5.0\], which"),
        (lambda: balance.contracts(0.1, 0.1, 1.0, 1), "^depth: got 1, needs an integer >= 2"),
        (lambda: balance.frozen_fraction(0.1, 1.0, 1, 0.1), "^depth: got 1, needs an integer >= 2"),
        (
            lambda: balance.frozen_fraction(0.1, 1.0, 3, [0.1, 0.9]),
            "^learning_rate, scale, target, depth: got .* eta Psi = 2.7",
        ),
        (
            lambda: balance.least_factor(5.0, 0.03, [10.0], 3),
            "^scale: got 5.0, which .* learning_rate 0.03, singular_values .10.0. and depth 3",
        ),
    ],
)
def test_refusals_name_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("alpha", [1e-100, 1e-20, 1e-9, 1e-6, 1e-3])
@pytest.mark.parametrize("depth", [2, 3, 200])
def test_slope_of_the_sharpness_keeps_its_digits_at_small_scales(alpha, depth):
    # as alpha goes to 0: T = 1 - alpha^2, y = 1 and Psi = L, up to a relative L alpha^2
    expected = 2 * (depth - 1) * alpha**3 / depth
    found, more = balance.sharpness_slope(alpha, 1.0, depth), 2 * depth * alpha**2
    assert found == pytest.approx(expected, rel=more + 1e-13, abs=0)


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_short_integers_do_not_overflow(kind):
    for function in (balance.sharpness_slope, balance.growth, balance.flow_sharpness):
        assert function(1.0, 1.0, kind(120)) == function(1.0, 1.0, 120)


def test_what_overflows_is_named_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for call, words in (
            (lambda: balance.cycle_factor(5e-324), "^ratio: "),
            (lambda: balance.growth(1e-200, 1e-300, 3), "^scale, target: .* the flow's end is beyond"),
            (lambda: balance.growth(1e-100, 1e-160, 2), "^scale, target: got .* needs numbers whose result"),
            (lambda: balance.growth(1e-170, 1e-318, 2), "^scale, target: got .* needs numbers whose result"),
            # Psi is alpha^308 = 10^307.3, and its slope 308 / alpha times that
            (lambda: balance.sharpness_slope(9.95, 1.0, 155), "^scale, target: got .* needs numbers whose result"),
            (lambda: balance.frozen_fraction(0.5, 1.0, 3, 1.7e308), "^learning_rate, scale, target, depth: "),
            (lambda: balance.flow_limit(np.longdouble("1e-400"), 1.0, 3), "^scale: |which is zero"),
        ):
            with pytest.raises(ValueError, match=words):
                call()


def test_slope_of_the_sharpness_where_the_cube_of_the_share_is_zero():
    # y = m^(1/3), and G = 4/3 alpha^3 up to a relative (alpha/y)^2; (alpha/y)^3 is 1e-330
    assert balance.sharpness_slope(1e-60, 1e150, 3) == pytest.approx(4 / 3 * 1e-180, rel=1e-12, abs=0)
    # two layers: Psi^2 = alpha^4 + 4 m^2, so that Psi' = 2 alpha^3 / Psi; rounding of logarithms of size 400
    for alpha, m in ((1e-60, 1e150), (1e60, 1e-150), (1e75, 1e150), (1e100, 1e150)):
        expected = 2 * alpha * (alpha / mp.sqrt(mp.mpf(alpha) ** 4 + 4 * mp.mpf(m) ** 2)) * alpha
        assert balance.sharpness_slope(alpha, m, 2) == pytest.approx(float(expected), rel=1e-12, abs=0)
