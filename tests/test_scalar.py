"""The one-mode map against the full matrices, against direct orbits and against polynomial roots."""

import importlib.util
import sys

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eoslib
from eoslib import bifurcation, hessian, network, scalar

depths = st.integers(2, 8)
targets = st.floats(-3, 3).map(lambda x: 10.0**x)
beyond = st.floats(-6, 0.3).map(lambda x: 2 + 10.0**x)  # q from just past the edge to 3.995, before any divergence
far_beyond = st.floats(-6, 1).map(lambda x: 2 + 10.0**x)  # to 12
examples = settings(derandomize=True, deadline=None, max_examples=40)


def rate(q, target, depth):
    return q / (depth * target ** (2 - 2 / depth))


def settle(q, depth, steps=9000):
    """Points (64, len(q)) that orbits visit after a long time."""
    u, seen = np.full(len(q), 0.7), []
    for index in range(steps + 64):
        u = u + q / depth * (1 - u**depth) * u ** (depth - 1)
        if index >= steps:
            seen.append(u)
    return np.array(seen)


@examples
@given(depth=depths, target=targets, q=st.floats(0.1, 3.0), u=st.floats(0.2, 1.3), seed=st.integers(0, 99))
def test_step_is_what_the_matrices_do(depth, target, q, u, seed):
    rng = np.random.default_rng(seed)
    turns = [np.linalg.qr(rng.standard_normal((3, 3)))[0] for _ in range(depth + 1)]
    size = target ** (1 / depth)
    M = target * np.outer(turns[depth][:, 0], turns[0][:, 0])
    W = np.array([u * size * np.outer(turns[k + 1][:, 0], turns[k][:, 0]) for k in range(depth)])
    W = W - rate(q, target, depth) * network.gradient(W, M)
    expected = scalar.step(u * size, target, depth, rate(q, target, depth))
    got = np.array([turns[k + 1][:, 0] @ W[k] @ turns[k][:, 0] for k in range(depth)])
    # about 2 * depth products of numbers of order target, each rounded once; the step itself is at most a few sizes
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13 * size * max(1, q))


@examples
@given(depth=depths, target=targets, q=beyond)
def test_two_cycle_maps_onto_itself_inside_its_intervals(depth, target, q):
    eta = rate(q, target, depth)
    c = scalar.two_cycle(target, depth, eta)
    np.testing.assert_allclose(scalar.step(c.low, target, depth, eta), c.high, rtol=2e-14)
    np.testing.assert_allclose(scalar.step(c.high, target, depth, eta), c.low, rtol=2e-14 * q, atol=2e-14 * c.high * q)
    assert c.low**depth < target < c.high**depth <= 4 / 3 * target * (1 + 1e-14)


@examples
@given(depth=depths, q=far_beyond)
def test_the_branch_is_a_cycle_past_divergence_too(depth, q):
    t = scalar.branch_parameter(q, depth)
    _, low, high = scalar.branch(t, depth)
    np.testing.assert_allclose(scalar.step(low, 1.0, depth, q / depth), high, rtol=2e-14)
    np.testing.assert_allclose(scalar.step(high, 1.0, depth, q / depth), low, rtol=2e-14 * q, atol=2e-14 * q)
    assert low**depth < 1 < high**depth <= 4 / 3 * (1 + 1e-14)
    slopes = scalar.slope(low, 1.0, depth, q / depth) * scalar.slope(high, 1.0, depth, q / depth)
    np.testing.assert_allclose(scalar.branch_multiplier(t, depth), slopes, rtol=1e-11, atol=1e-11 * q**2)


@pytest.mark.parametrize("depth", range(2, 9))
def test_past_divergence_there_is_no_answer(depth):
    limit = scalar.window(depth).divergence
    assert scalar.two_cycle(1.0, depth, (limit - 1e-6) / depth).multiplier < -1
    for call in (scalar.two_cycle, scalar.sharpness_on_cycle, scalar.lyapunov):
        with pytest.raises(ValueError, match=r"^learning_rate: got .* past divergence; .* needs eta S < \d"):
            call(1.0, depth, np.array([2.2, limit + 1e-6]) / depth)


@pytest.mark.parametrize("depth", [2, 3, 4, 5, 8, 16, 64])
def test_divergence_comes_later_for_deeper_networks(depth):
    # two_cycle looks for it only from q = 4 on
    assert scalar.window(depth).divergence >= 4 - 1e-12


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
@pytest.mark.parametrize("q", [2.02, 2.4, 3.0, 5.0])
def test_two_cycle_is_the_only_positive_one(depth, q):
    # F(F(u)) - u as a polynomial, all its roots by an eigenvalue routine: 0, the minimum, the cycle, and none besides
    u = np.polynomial.Polynomial([0, 1])
    image = u + q / depth * (1 - u**depth) * u ** (depth - 1)
    again = image + q / depth * (1 - image**depth) * image ** (depth - 1)
    roots = (again - u).roots()
    real = roots.real[(abs(roots.imag) < 1e-7) & (roots.real > 1e-3)]
    positive = np.unique(real[image(real) > 1e-3].round(6))
    _, low, high = scalar.branch(scalar.branch_parameter(q, depth), depth)
    np.testing.assert_allclose(positive, [low, 1.0, high], atol=2e-6)


@pytest.mark.parametrize("depth", range(2, 9))
def test_no_positive_two_cycle_up_to_the_edge(depth):
    u = np.linspace(0.05, 0.999, 5001)
    for q in (0.5, 1.5, 1.99):
        image = scalar.step(u, 1.0, depth, q / depth)
        assert np.all(scalar.step(image, 1.0, depth, q / depth) > u)


@examples
@given(depth=depths, q=beyond)
def test_multiplier_is_the_two_step_slope(depth, q):
    c = scalar.two_cycle(1.0, depth, q / depth)
    slopes = scalar.slope(c.low, 1.0, depth, q / depth) * scalar.slope(c.high, 1.0, depth, q / depth)
    np.testing.assert_allclose(c.multiplier, slopes, rtol=1e-11, atol=1e-11 * q**2)
    h = 1e-6  # central difference: truncation h^2 times a third derivative, rounding 1e-16 / h
    ends = scalar.step(np.array([c.low - h, c.low + h]), 1.0, depth, q / depth)
    ends = scalar.step(ends, 1.0, depth, q / depth)
    scale = 1 + abs(c.multiplier)
    np.testing.assert_allclose((ends[1] - ends[0]) / (2 * h), c.multiplier, atol=1e-5 * scale * depth**2)


@examples
@given(depth=depths, t=st.floats(-7, 0.3).map(lambda x: 10.0**x))
def test_branch_parameter_inverts_the_branch(depth, t):
    q, low, high = scalar.branch(t, depth)
    np.testing.assert_allclose(np.log(high / low), 2 * t, rtol=1e-12, atol=1e-15)
    # q - 2 is of order t^2, so that one rounding of q costs 1e-16 / t^2 in t, relative
    np.testing.assert_allclose(scalar.branch_parameter(q, depth), t, rtol=1e-14 + 4e-16 / t**2, atol=3e-8)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(depth=st.integers(2, 1000), share=st.floats(-8, 2).map(lambda x: 10.0**x))
def test_branch_and_multiplier_against_fifty_digits(depth, share):
    t = share / depth
    with mpmath.workdps(50):
        z, half = mpmath.exp(2 * mpmath.mpf(t)), mpmath.mpf(t)
        low, high = (mpmath.cosh((2 * depth - 1) * half), mpmath.cosh((depth - 1) * half))
        q = (
            2
            * depth
            * mpmath.sinh(half)
            * low
            / mpmath.sinh(depth * half)
            * (low / high) ** (1 - mpmath.mpf(2) / depth)
        )
        chain = (z**depth - 1) / (z - 1)
        slopes = (
            1 + (depth - 1) * (z - 1) - depth * (1 + z ** (1 - depth)) / chain,
            1 - (depth - 1) * (1 - 1 / z) - depth * z ** (depth - 1) * (1 + z ** (depth - 1)) / chain,
        )
    # logarithms of up to 200 are rounded before the exponential is taken
    assert scalar.branch(t, depth)[0] == pytest.approx(float(q), rel=1e-13, abs=0)
    # differences of numbers up to the larger of both slopes
    expected = float(slopes[0] * slopes[1])
    assert abs(scalar.branch_multiplier(t, depth) - expected) < 1e-12 * (1 + abs(expected))


def test_branch_parameter_settles_for_every_size_of_q():
    q = np.r_[2, 2 + np.logspace(-15, 2, 400), 1e10, 1e100, 1e300]
    for depth in (2, 3, 8, 100, 10**6):
        t = scalar.branch_parameter(q, depth)
        np.testing.assert_allclose(scalar.branch(t, depth)[0], q, rtol=1e-12)


def test_two_layers_have_a_closed_form():
    for q in (2.01, 2.3, 3.9):
        c = scalar.two_cycle(7.0, 2, q / 14)
        np.testing.assert_allclose([c.low * c.high, c.low**2 + c.high**2], [14 / q, 7 + 14 / q], rtol=1e-13)
    w = scalar.window(2)
    np.testing.assert_allclose(
        [w.period_two, w.period_four, w.sign_change, w.divergence],
        [2, 2 * (np.sqrt(5) - 1), 3 * np.sqrt(3) - 2, 4],
        rtol=1e-13,
    )


@pytest.mark.parametrize("depth", range(2, 9))
def test_windows_are_where_orbits_change_their_period(depth):
    w = scalar.window(depth)
    ends = [w.period_two, w.period_four, w.period_eight, w.chaos, w.sign_change, w.divergence]
    assert ends == sorted(ends)
    for edge, period in ((w.period_two, 1), (w.period_four, 2), (w.period_eight, 4)):
        # just off an edge nearby orbits come closer by 0.3 % a step or more, and exp(-0.003 * 9000) is 2e-12
        below, above = settle(edge + np.array([-3e-3, 3e-3]), depth).T
        assert abs(below[period:] - below[:-period]).max() < 1e-8
        assert abs(above[period:] - above[:-period]).max() > 1e-3
        assert abs(above[2 * period :] - above[: -2 * period]).max() < 1e-8


@pytest.mark.parametrize("depth", range(2, 9))
def test_doublings_reach_chaos_at_the_universal_ratio(depth):
    left = scalar.window(depth).chaos - np.array(scalar._superstable(depth, 10))
    # Feigenbaum's constant 4.669201609; an error of 1e-11 in the limit would change the last ratio by 1e-4
    np.testing.assert_allclose(left[-4:-1] / left[-3:], 4.669201609, atol=1e-4)


@pytest.mark.parametrize("depth", range(2, 9))
def test_sign_change_and_divergence_are_where_orbits_do_so(depth):
    w = scalar.window(depth)
    starts = np.linspace(0.05, 1.0, 400)  # at or below the minimum, so that the first step stays positive

    def extremes(q):
        u, least, most = starts, starts, starts
        for _ in range(400):
            u = np.clip(scalar.step(u, 1.0, depth, q / depth), -50, 50)
            least, most = np.minimum(least, u), np.maximum(most, abs(u))
        return least.min(), most.max()

    assert extremes(w.sign_change - 0.02)[0] > 0 > extremes(w.sign_change + 0.02)[0]
    assert extremes(w.divergence - 0.02)[1] < 3
    assert extremes(w.divergence + 0.02)[1] == 50


@pytest.mark.parametrize("depth", range(2, 9))
def test_laws_near_onset(depth):
    delta = 1e-5
    c = scalar.two_cycle(1.0, depth, (2 + delta) / depth)
    law = np.sqrt(3 * delta / ((depth - 1) * (5 * depth - 4)))
    # the next term of either law is of relative order delta, with a constant below 2 for these depths
    np.testing.assert_allclose(c.high - c.low, law, rtol=3 * delta)
    np.testing.assert_allclose(c.multiplier, 1 - 4 * delta, atol=3 * delta**2)


@examples
@given(depth=st.integers(2, 5), target=targets, q=st.floats(2.02, 2.48), ratio=st.floats(0.05, 0.95))
def test_sharpness_on_cycle_is_that_of_the_matrices(depth, target, q, ratio):
    eta = rate(q, target, depth)
    c, s = scalar.two_cycle(target, depth, eta), scalar.sharpness_on_cycle(target, depth, eta)
    M = np.diag([target, ratio * target])
    for layer, closed in ((c.low, s.at_low), (c.high, s.at_high)):
        W = np.array([np.diag([layer, (ratio * target) ** (1 / depth)])] * depth)
        direction = np.zeros_like(W)
        direction[:, 0, 0] = depth**-0.5
        curvature = np.sum(direction * network.hessian_vector_product(W, M, direction))
        np.testing.assert_allclose(curvature, closed, rtol=1e-11)
    np.testing.assert_allclose(np.linalg.eigvalsh(hessian.dense(W, M))[-1], s.at_high, rtol=1e-11)
    assert s.at_low < 2 / eta < s.at_high
    np.testing.assert_allclose([s.mean, s.swing], [(s.at_low + s.at_high) / 2, s.at_high - s.at_low])


def test_lyapunov_exponent_of_known_orbits():
    c = scalar.two_cycle(1.0, 3, 2.3 / 3)
    np.testing.assert_allclose(scalar.lyapunov(1.0, 3, 2.3 / 3), np.log(abs(c.multiplier)) / 2, atol=1e-9)
    exponents = scalar.lyapunov(1.0, 2, np.array([2.2, 2.9]) / 2, steps=20000)
    assert exponents[0] < -0.3 and exponents[1] > 0.2


def test_arrays_and_floats_agree_and_float32_stays():
    rates = np.array([2.1, 2.5, 4.5]) / 4
    many = scalar.two_cycle(1.0, 4, rates)
    for k, eta in enumerate(rates):
        one = scalar.two_cycle(1.0, 4, eta)
        assert isinstance(one.low, float)
        np.testing.assert_allclose([many.low[k], many.high[k]], [one.low, one.high], rtol=1e-15)
    assert scalar.step(np.float32([0.5, 0.6]), 1.0, 3, 0.7).dtype == np.float32


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: scalar.step(1.0, 1.0, 1, 0.1), "depth"),
        (lambda: scalar.step(1.0, 1.0, 2.5, 0.1), "depth"),
        (lambda: scalar.step(np.nan, 1.0, 2, 0.1), "s"),
        (lambda: scalar.slope(1.0, -1.0, 2, 0.1), "target"),
        (lambda: scalar.two_cycle(0.0, 2, 0.1), "target"),
        (lambda: scalar.two_cycle(1.0, 2, -0.1), "learning_rate"),
        (lambda: scalar.two_cycle(1.0, 2, np.inf), "learning_rate"),
        (lambda: scalar.two_cycle(1.0, 2, 1.0), "learning_rate"),  # exactly at the edge
        (lambda: scalar.two_cycle(1.0, 2, np.array([0.9, 1.2])), "learning_rate"),
        (lambda: scalar.two_cycle(1.0, 2, 2.0), "learning_rate"),  # q = 4, where orbits diverge
        (lambda: scalar.sharpness_on_cycle(1.0, 2, 0.9), "learning_rate"),
        (lambda: scalar.branch(-0.1, 2), "t"),
        (lambda: scalar.branch(400.0, 3), "t"),
        (lambda: scalar.branch(0.2, 2000), "t"),
        (lambda: scalar.branch_multiplier(np.nan, 3), "t"),
        (lambda: scalar.branch_multiplier(-0.1, 3), "t"),
        (lambda: scalar.branch_multiplier(0.2, 2000), "t"),
        (lambda: scalar.step(1e200, 1.0, 3, 0.1), "s"),
        (lambda: scalar.slope(np.array([1.0, -1e200]), 1.0, 3, 0.1), "s"),
        (lambda: scalar.sharpness_at_minimum(1e250, 3), "target"),
        (lambda: scalar.relative_rate(1e200, 2, 1e200), "learning_rate"),
        (lambda: scalar.window(1001), "depth"),
        (lambda: scalar.branch_parameter(1.9, 2), "q"),
        (lambda: scalar.window(1), "depth"),
        (lambda: scalar.lyapunov(1.0, 2, 2.0), "learning_rate"),  # likewise
        (lambda: scalar.lyapunov(1.0, 2, 1.2, start=9.0), "start"),
        (lambda: scalar.lyapunov(1.0, 2, 1.2, start=np.array([0.7, 9.0, 0.8])), "start"),
        (lambda: scalar.lyapunov(1.0, 2, 1.2, steps=0), "steps"),
    ],
)
def test_bad_input_is_named(call, name):
    with pytest.raises(ValueError, match=rf"^{name}: got"):
        call()


@pytest.mark.parametrize("depth", [2, 3, 4, 7])
def test_an_orbit_is_its_steps(depth):
    rates = np.linspace(0.4, 2.2, 7) / depth  # up to q = 2.2, all attracted to the minimum or to a two-cycle
    starts = np.array([[0.7], [0.9]])
    run = scalar.orbit(starts, 1.0, depth, rates, 150)
    s = np.broadcast_to(starts, (2, 7))
    for state in np.moveaxis(run.states, -1, 0):
        if depth <= 3:  # a square is the same product in both
            assert np.array_equal(state, s)
        np.testing.assert_allclose(state, s, rtol=1e-12)  # 150 steps, each some roundings, which do not grow
        s = scalar.step(s, 1.0, depth, rates)
    assert run.states.shape == (2, 7, 151) and not run.diverged.any() and np.all(run.diverged_at == -1)


@pytest.mark.parametrize("compiled", [False, True])
def test_orbits_do_not_depend_on_their_company(compiled):
    if compiled:
        pytest.importorskip("numba")
    rates = np.linspace(0.1, 6, 9001) / 3  # one part and a bit; chaos and divergence among them
    together = scalar.orbit(0.6, 1.0, 3, rates, 300, keep=3, compiled=compiled)
    assert together.steps.tolist() == [298, 299, 300] and 0.05 < together.diverged.mean() < 0.9
    for i in (0, 255, 256, 4100, 8191, 8192, 9000):
        alone = scalar.orbit(0.6, 1.0, 3, rates[i], 300, compiled=compiled)
        assert np.array_equal(together.states[i], alone.states[-3:]), i
        assert together.diverged_at[i] == alone.diverged_at


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("depth", [2, 3, 6])
def test_orbits_that_leave_are_reported_at_their_step(depth, compiled):
    if compiled:
        pytest.importorskip("numba")
    limit = scalar.window(depth).divergence
    rates = limit * np.array([0.5, 1.05, 1.5, 3.0, 40.0]) / depth
    run = scalar.orbit(0.8, 1.0, depth, rates, 400, compiled=compiled)
    assert run.diverged.tolist()[0] is False and run.diverged[2:].all()
    for rate, states, at in zip(rates, run.states, run.diverged_at):
        assert np.all(np.isfinite(states[: at if at >= 0 else None])) and (at < 0 or np.all(np.isinf(states[at:])))
        if at >= 0:
            with pytest.raises(ValueError, match="^s: "):
                scalar.step(states[at - 1], 1.0, depth, rate)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_compiled_orbits_are_the_plain_ones(depth):
    """On attracting cycles to rounding; where chaotic, in the mean, the ends and the exponent's sign."""
    pytest.importorskip("numba")
    w = scalar.window(depth)
    calm = np.linspace(0.3, (w.period_four + w.period_eight) / 2, 60) / depth
    calm = calm[np.abs(calm * depth - 2) > 0.05]  # at the edge itself convergence is slow
    calm = calm[np.abs(calm * depth - w.period_four) > 0.02]
    plain, fast = (scalar.orbit(0.7, 1.0, depth, calm, 3000, keep=4, compiled=c).states for c in (False, True))
    np.testing.assert_allclose(fast, plain, rtol=1e-12)
    rate = (w.chaos + 0.8 * (w.sign_change - w.chaos)) / depth
    while scalar.lyapunov(1.0, depth, rate) < 0.1:  # not a periodic window
        rate += 1e-3
    a, b = (scalar.orbit(0.7, 1.0, depth, [rate], 60_000, keep=40_000, compiled=c).states[0] for c in (False, True))
    assert np.abs(a - b).max() > 0.1
    means = np.stack([a, b]).reshape(2, 200, 200).mean(axis=2)
    assert abs(means[0].mean() - means[1].mean()) < 4 * np.sqrt(means.var(axis=1).sum() / 200)
    np.testing.assert_allclose([b.min(), b.max()], [a.min(), a.max()], atol=0.01)  # the ends are sampled


@pytest.mark.parametrize(("value", "word"), [(1e-60, "zero"), (1e60, "infinite")])
@pytest.mark.parametrize("name", ["s", "target", "learning_rate"])
def test_what_the_dtype_of_the_result_has_not_is_refused(name, value, word):
    """A rate of 1e-60 is zero in float32: an orbit with it would stand still without a word."""
    arguments = {"s": np.float32([0.5]), "target": np.float32(1.0), "learning_rate": np.float32(0.1)} | {name: value}
    for call in (scalar.step, scalar.slope, lambda **k: scalar.orbit(steps=5, **k)):
        with pytest.raises(
            ValueError, match=rf"^{name}: got {value:.0e}, which is {word} in float32".replace("+", r"\+")
        ):
            call(depth=3, **arguments)
    wide = arguments | {"s": np.float64(arguments["s"])}
    if name != "s" and value < 1:
        small = scalar.step(depth=2, **(wide | {"target": value, "learning_rate": 1.0}))  # 0.5 + (m - 0.25) 0.5
        assert small == 0.375


def test_the_sharpness_of_a_tiny_target_is_no_zero():
    """1e-300^(4/3) is below the range of floats, 1e-36^(4/3) below that of float32."""
    for target in (1e-300, [1.0, 1e-300], np.float32(1e-36)):
        with pytest.raises(ValueError, match="^target: got .* the sharpness is within the range"):
            scalar.sharpness_at_minimum(target, 3)
        with pytest.raises(ValueError, match="^target: got .* the sharpness is within the range"):
            scalar.relative_rate(target, 3, 1.0)
    with pytest.raises(ValueError, match="^learning_rate: got 1e-200, .* eta S is within the range"):
        scalar.relative_rate(1e-200, 2, 1e-200)
    assert scalar.sharpness_at_minimum(1e-300, 2) == 2e-300 and scalar.relative_rate(1e-300, 2, 1e299) == 0.2


WIDE = pytest.mark.skipif(np.finfo(np.longdouble).max == np.finfo(float).max, reason="long double is double here")


@WIDE
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda tiny, rate: scalar.two_cycle(tiny, 2, 1.1 / tiny), "^target: got .*, which is zero in float64"),
        (lambda tiny, rate: scalar.lyapunov(tiny, 2, 1.1 / tiny), "^target: got .*, which is zero in float64"),
        (lambda tiny, rate: scalar.lyapunov(1.0, 2, tiny), "^target, learning_rate: got .*, which is zero in float64"),
        (lambda tiny, rate: scalar.branch(tiny, 2), "^t: got .*, which is zero in float64"),
        (lambda tiny, rate: scalar.branch_multiplier(tiny, 2), "^t: got .*, which is zero in float64"),
        (lambda tiny, rate: scalar.branch_parameter(1 / tiny, 2), "^q: got .*, which is infinite in float64"),
        # S = 3 * 1e400 at a target of 1e300
        (
            lambda tiny, rate: scalar.sharpness_on_cycle(np.longdouble(1e300), 3, rate),
            "^learning_rate: got .*, which is zero",
        ),
    ],
)
def test_long_doubles_out_of_the_range_of_floats_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(np.longdouble("1e-4000"), np.longdouble("7.3e-401"))


def test_a_start_that_is_lost_in_units_of_the_minimum_is_refused():
    """The minimum is at 1e150; a start at 1e-300 would be exactly at the saddle, and stay there."""
    with pytest.raises(ValueError, match="^start: got 1e-300, which is zero in units of the minimum"):
        scalar.lyapunov(1e300, 2, 1.1e-300, start=1e-300)
    with pytest.raises(ValueError, match=r"^start: got \[1e-300, 1e\+150\], which is zero in units"):
        scalar.lyapunov(1e300, 2, [1.1e-300, 1.1e-300], start=[1e-300, 1e150])
    with pytest.raises(ValueError, match=r"^start: got 1e\+200, needs a value whose orbit stays bounded"):
        scalar.lyapunov(1e-300, 2, 1.1e300, start=1e200)
    with pytest.raises(ValueError, match=r"^start: got 1e\+200, needs a value whose orbit stays bounded"):
        scalar.lyapunov(1.0, 2, 1.1, start=1e200)
    with pytest.raises(ValueError, match="^start: got a value that is not finite"):
        scalar.lyapunov(1.0, 2, 1.1, start=np.nan)
    # a start at the saddle itself is what it is: the slope there is 1 + q / 2 for two layers
    assert scalar.lyapunov(1.0, 2, 1.1, start=0.0, steps=3, transient=0) == pytest.approx(np.log(2.1), rel=1e-14, abs=0)


def test_orbits_keep_their_dtype():
    assert scalar.orbit(np.float32([0.5, 0.6]), 1.0, 3, 0.7, 5).states.dtype == np.float32
    assert scalar.orbit(np.longdouble(0.5), 1.0, 3, 0.7, 5).states.dtype == np.longdouble
    assert scalar.orbit(1, 2, 3, 0.1, 0).states.tolist() == [1.0]
    with pytest.raises(ValueError, match="^compiled: "):
        scalar.orbit(np.float32([0.5, 0.6]), 1.0, 3, 0.7, 5, compiled=True)
    with pytest.raises(ValueError, match="^s, target, learning_rate: .*broadcast"):
        scalar.orbit([0.5, 0.6], 1.0, 3, [0.7, 0.8, 0.9], 5)


def test_one_unbounded_orbit_among_several_is_an_error():
    """Two layers: from 1.6 at q = 3.9 an orbit leaves, from 0.7 it stays."""
    rates = [0.4, 1.95]
    assert np.isfinite(scalar.lyapunov(1.0, 2, rates, steps=50)).all()
    for start in ([0.7, 5.0], [5.0, 0.7]):
        with pytest.raises(ValueError, match="^start: got .*, needs a value whose orbit stays bounded"):
            scalar.lyapunov(1.0, 2, rates, steps=50, start=start)
    for bad in ([0.4, 2.0], [2.0, 0.4]):  # q = 4 is past divergence
        with pytest.raises(ValueError, match="^learning_rate: got .* past divergence"):
            scalar.lyapunov(1.0, 2, bad, steps=50)
        with pytest.raises(ValueError, match="^learning_rate: got"):
            scalar.two_cycle(1.0, 2, [1.1, bad[0]] if bad[0] == 2.0 else [bad[0], 1.1])


def test_exponents_by_hand():
    # at the minimum the slope is 1 - q in every step, and the first steps do not count
    assert scalar.lyapunov(1.0, 2, 0.75, steps=7, transient=0, start=1.0) == pytest.approx(
        np.log(0.5), rel=1e-13, abs=0
    )
    # L = 3, m = 8: S = 3 * 16, so that q = 2.4 at rate 0.05
    assert scalar.lyapunov(8.0, 3, 0.05, steps=1, transient=0, start=2.0) == pytest.approx(
        np.log(1.4), rel=1e-12, abs=0
    )
    s, slopes = 0.7, []
    for _ in range(13):
        slopes.append(scalar.slope(s, 1.0, 2, 1.3))
        s = scalar.step(s, 1.0, 2, 1.3)
    for transient in (0, 3):
        found = scalar.lyapunov(1.0, 2, 1.3, steps=10, transient=transient)
        assert found == pytest.approx(np.mean(np.log(np.abs(slopes[transient : transient + 10]))), rel=1e-10, abs=0)
    units = scalar.lyapunov(8.0, 3, 2.6 / 48, steps=500, start=1.5)  # in units of the minimum, 8^(1/3) = 2
    assert units == pytest.approx(scalar.lyapunov(1.0, 3, 2.6 / 3, steps=500, start=0.75), rel=1e-9, abs=0)


def test_an_orbit_that_leaves_is_alone_with_it():
    run = scalar.orbit([0.9, 3.0, 0.5, np.float64(1e200)], 1.0, 3, 0.9, 40)
    assert run.diverged.tolist() == [False, True, False, True] and run.diverged_at[[0, 2]].tolist() == [-1, -1]
    for i in range(4):
        alone = scalar.orbit([0.9, 3.0, 0.5, 1e200][i], 1.0, 3, 0.9, 40)
        assert np.array_equal(run.states[i], alone.states) and run.diverged_at[i] == alone.diverged_at
    at = run.diverged_at[1]
    assert at > 0 and np.isfinite(run.states[1, :at]).all() and np.isinf(run.states[1, at:]).all()
    assert run.diverged_at[3] == 1 and run.states[3, 0] == 1e200 and np.isinf(run.states[3, 1:]).all()


@pytest.mark.parametrize("depth", [2, 3])
def test_the_cascade_and_its_end_in_thirty_digits(depth):
    """Superstable rates against Newton's method in thirty digits, in other coordinates; their limit to ten digits."""
    found, exact = scalar._superstable(depth, 10), bifurcation.cascade(depth, 10)
    assert len(found) == len(exact) == 11
    # a root of a function whose rounding of 1e-16 grows with the slope of 2^n steps as fast as the function itself does
    np.testing.assert_allclose(found, np.array(exact, dtype=float), rtol=1e-13)
    # the gaps after the tenth doubling, 1e-8, are a geometric series to one part in a thousand or better
    assert scalar.window(depth).chaos == pytest.approx(float(bifurcation.accumulation(exact)), rel=1e-11, abs=0)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_the_eight_cycle_is_born_where_the_four_cycle_has_the_multiplier_minus_one(depth):
    q = scalar.window(depth).period_eight
    orbit = scalar.orbit(0.7, 1.0, depth, (q - 1e-3) / depth, 2000, keep=4).states

    def equations(u, q):
        multiplier, start = 1, u
        for _ in range(4):
            multiplier *= 1 + q / depth * ((depth - 1) * u ** (depth - 2) - (2 * depth - 1) * u ** (2 * depth - 2))
            u = u + q / depth * (1 - u**depth) * u ** (depth - 1)
        return u - start, multiplier + 1

    with mpmath.workdps(30):
        exact = mpmath.findroot(equations, (mpmath.mpf(orbit[0]), mpmath.mpf(q) - 5e-4))[1]
    assert q == pytest.approx(float(exact), rel=1e-12, abs=0)  # roots known to 1e-14, and roundings of a dozen steps


def test_pieces_of_the_branch_in_fifty_digits():
    """Values and derivatives near zero, on both sides of the seam at 1, and far out; each is a few roundings."""
    for y in (1e-9, 1e-3, 0.3, 0.999, 1.0, 1.001, 5.0, 300.0):
        with mpmath.workdps(50):
            x = mpmath.mpf(y)
            cosh, ratio = mpmath.log(mpmath.cosh(x)), mpmath.log(mpmath.sinh(x) / x)
            slope = mpmath.coth(x) - 1 / x
        assert scalar._log_cosh(y) == pytest.approx(float(cosh), rel=2e-15, abs=0)
        found, rise = scalar._log_sinh_ratio(y)
        assert found == pytest.approx(float(ratio), rel=2e-15, abs=0) and rise == pytest.approx(
            float(slope), rel=2e-15, abs=0
        )
    for depth in (2, 3, 7):
        for t in (1e-6, 0.05, 0.7):
            with mpmath.workdps(40):
                log_q = lambda x, L=depth: (
                    mpmath.log(L * mpmath.sinh(x) / mpmath.sinh(L * x) * mpmath.cosh((2 * L - 1) * x))
                    + (1 - mpmath.mpf(2) / L) * mpmath.log(mpmath.cosh((2 * L - 1) * x) / mpmath.cosh((L - 1) * x))
                )
                value, slope = log_q(mpmath.mpf(t)), mpmath.diff(log_q, mpmath.mpf(t))
            found, rise = scalar._log_edge_ratio(t, depth)
            # sums of terms up to some thirty times as large
            assert found == pytest.approx(float(value), rel=2e-14, abs=0) and rise == pytest.approx(
                float(slope), rel=2e-14, abs=0
            )


def test_how_many_states_are_kept():
    whole = scalar.orbit(0.7, 1.0, 3, 0.5, 5)
    assert whole.steps.tolist() == [0, 1, 2, 3, 4, 5] and whole.states[0] == 0.7
    for keep, first in ((1, 5), (2, 4), (6, 0), (100, 0)):
        run = scalar.orbit(0.7, 1.0, 3, 0.5, 5, keep=keep)
        assert run.steps.tolist() == list(range(first, 6)) and np.array_equal(run.states, whole.states[first:])
    start = scalar.orbit(0.7, 1.0, 3, 0.5, 0)
    assert start.states.tolist() == [0.7] and start.diverged_at == -1 and not start.diverged
    for least, arguments in ((0, {"steps": -1}), (1, {"steps": 5, "keep": 0})):
        name, value = list(arguments.items())[-1]
        with pytest.raises(ValueError, match=f"^{name}: got {value}, needs an integer >= {least}$"):
            scalar.orbit(0.7, 1.0, 3, 0.5, **arguments)


def test_depths_at_the_ends(monkeypatch):
    calls = (
        lambda depth: scalar.step(1.0, 1.0, depth, 0.1),
        lambda depth: scalar.slope(1.0, 1.0, depth, 0.1),
        lambda depth: scalar.sharpness_at_minimum(1.0, depth),
        lambda depth: scalar.relative_rate(1.0, depth, 0.1),
        lambda depth: scalar.branch(0.1, depth),
        lambda depth: scalar.branch_multiplier(0.1, depth),
        lambda depth: scalar.branch_parameter(2.1, depth),
        lambda depth: scalar.two_cycle(1.0, depth, 2.1),
        lambda depth: scalar.sharpness_on_cycle(1.0, depth, 2.1),
        lambda depth: scalar.lyapunov(1.0, depth, 0.1, steps=1, transient=0),
        lambda depth: scalar.window(depth),
    )
    for call in calls:
        with pytest.raises(ValueError, match="^depth: got 1, needs an integer >= 2$"):
            call(1)
    for depth in (1, 1001):
        with pytest.raises(ValueError, match=f"^depth: got {depth}, needs an integer from 2 to 1000$"):
            scalar.orbit(1.0, 1.0, depth, 0.1, 1)
    assert scalar.orbit(1.0, 1.0, 1000, 1e-4, 1).states.tolist() == [1.0, 1.0]
    monkeypatch.setattr(scalar, "_window", lambda depth: depth)  # seconds for so deep a network
    assert scalar.window(1000) == 1000
    with pytest.raises(ValueError, match="^depth: got 1001, needs at most 1000 for the thresholds"):
        scalar.window(1001)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: scalar.step(1e200, 1.0, 3, 0.1), "^s: got 1e.200, .* the step is within"),
        (lambda: scalar.step(1e-200, 1e300, 3, 1e300), "^s: got 1e-200, .* the step is within"),  # infinity times zero
        (lambda: scalar.slope(1e200, 1.0, 3, 0.1), "^s: got 1e.200, .* the slope is within"),
        (lambda: scalar.slope(1e-200, 1.7e308, 4, 1.0), "^s: got 1e-200, .* the slope is within"),
        (lambda: scalar.sharpness_at_minimum(1e250, 3), "^target: got 1e.250, .* the sharpness is within"),
        (lambda: scalar.relative_rate(1e200, 2, 1e200), "^learning_rate: got 1e.200, .* eta S is within"),
        (lambda: scalar.branch(400.0, 3), r"^t: got 400.0, .* q\(t\) is within"),
        (lambda: scalar.branch(1e308, 5), r"^t: got 1e.308, .* q\(t\) is within"),
        (lambda: scalar.branch_multiplier(400.0, 3), "^t: got 400.0, .* the multiplier is within"),
        (lambda: scalar.branch_multiplier(1e308, 5), "^t: got 1e.308, .* the multiplier is within"),
        (lambda: scalar.two_cycle(1.0, 2, 2.0), "a two-cycle amid bounded orbits at depth 2 needs eta S < 4$"),
        (lambda: scalar.lyapunov(1.0, 2, 2.0), "eta S = 4 .* a bounded orbit at depth 2 needs eta S < 4$"),
        (lambda: scalar.lyapunov(1.0, 2, 1.1, steps=0), "^steps: got 0, needs an integer >= 1$"),
        (lambda: scalar.lyapunov(1.0, 2, 1.1, transient=-1), "^transient: got -1, needs an integer >= 0$"),
    ],
)
def test_refusals_say_what_is_out_of_range(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_branch_of_narrow_floats_is_computed_as_floats():
    t, q = np.float32([0.0, 0.3]), np.float32([2.0, 2.5])
    assert np.array_equal(scalar.branch(t, 5), scalar.branch(t.astype(float), 5))
    assert np.array_equal(scalar.branch_multiplier(t, 5), scalar.branch_multiplier(t.astype(float), 5))
    assert np.array_equal(scalar.branch_parameter(q, 5), scalar.branch_parameter(q.astype(float), 5))
    assert scalar.branch_parameter(q, 5)[0] == 0.0


def test_compiled_orbits_say_what_is_missing(monkeypatch):
    monkeypatch.delattr(eoslib, "compiled", raising=False)
    monkeypatch.delitem(sys.modules, "eoslib.compiled", raising=False)
    for lacking in (["numba"], ["numba", "llvmlite"]):  # who has not the one has not the other
        with monkeypatch.context() as without:
            for name in lacking:
                without.setitem(sys.modules, name, None)
            with pytest.raises(ValueError, match="^compiled: got True, needs the package numba: "):
                scalar.orbit(0.7, 1.0, 3, 0.5, 5, compiled=True)
    if importlib.util.find_spec("numba"):
        with monkeypatch.context() as off:
            off.setattr(importlib.import_module("numba").config, "DISABLE_JIT", 1)
            with pytest.raises(ValueError, match="needs the package numba: NUMBA_DISABLE_JIT"):
                scalar.orbit(0.7, 1.0, 3, 0.5, 5, compiled=True)
    monkeypatch.setitem(sys.modules, "eoslib.compiled", None)  # another fault is not taken for that one
    with pytest.raises(ModuleNotFoundError, match="eoslib.compiled"):
        scalar.orbit(0.7, 1.0, 3, 0.5, 5, compiled=True)


@pytest.mark.parametrize("compiled", [False, True])
def test_each_orbit_is_found_lost_at_its_own_step(compiled):
    """Two layers just past divergence: orbits leave at all steps around the 64th, where the loop looks."""
    if compiled:
        pytest.importorskip("numba")
    rates = 2 + np.logspace(-6, -1, 1500)
    s, first = np.full(rates.size, 0.7), np.full(rates.size, -1)
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(1, 151):
            s = s + rates * (1.0 - s * s) * s
            first[(first < 0) & ~np.isfinite(s)] = k
    run = scalar.orbit(0.7, 1.0, 2, rates, 150, compiled=compiled)
    if not compiled:  # bit for bit; compiled products are fused
        assert np.array_equal(run.diverged_at, first) and {63, 64, 65, 128, 129, -1} <= set(first.tolist())
    for i in range(0, rates.size, 50):
        at = run.diverged_at[i]
        assert np.all(run.states[i, at:] == np.inf) if at >= 0 else np.all(np.isfinite(run.states[i]))
        if at >= 0:  # also where that is the last step
            last = scalar.orbit(0.7, 1.0, 2, rates[i], at, compiled=compiled)
            before = scalar.orbit(0.7, 1.0, 2, rates[i], at - 1, compiled=compiled)
            assert last.diverged and last.diverged_at == at and not before.diverged
            for more in (0, 1, 2):  # and one or two before the last, with no state kept on the way
                late = scalar.orbit(0.7, 1.0, 2, rates[i], at + more, keep=1, compiled=compiled)
                assert late.diverged_at == at
    assert np.all(run.states[:, 0] == 0.7)


def test_a_state_that_is_no_number_is_infinite():
    """Infinity times zero: the first step of a tiny layer under a huge rate and target."""
    run = scalar.orbit(1e-200, 1e300, 3, 1e300, 2)
    assert run.states.tolist() == [1e-200, np.inf, np.inf] and run.diverged_at == 1
    low = scalar.orbit(1e120, 1.0, 3, 1.0, 1)  # to minus infinity
    assert low.states.tolist() == [1e120, np.inf]


def test_more_states_than_memory_are_refused():
    with pytest.raises(ValueError, match=r"^keep: got an array of shape \(8589934593, 2\), needs one of at most 2\^32"):
        scalar.orbit([0.5, 0.6], 1.0, 3, 0.1, 2**33)


@pytest.mark.parametrize("q", [2 + 1e-9, 2.001, 2.1, 2.5, 30.0])
@pytest.mark.parametrize("depth", [2, 3, 8, 100])
def test_the_branch_is_inverted_in_a_few_steps_of_newtons_method(monkeypatch, depth, q):
    """Halving the bracket alone takes about fifty; the roundings of the last digits ask for none."""
    calls, ratio = [], scalar._log_edge_ratio
    monkeypatch.setattr(scalar, "_log_edge_ratio", lambda t, depth: calls.append(t) or ratio(t, depth))
    t = scalar.branch_parameter(q, depth)
    assert len(calls) <= 9
    with mpmath.workdps(40):
        L = mpmath.mpf(depth)
        power = 1 - 2 / L

        def log_ratio(t):
            sinhs = mpmath.log(mpmath.sinh(t) * L / mpmath.sinh(L * t))
            cosh = mpmath.log(mpmath.cosh((2 * L - 1) * t)) * (1 + power) - mpmath.log(mpmath.cosh((L - 1) * t)) * power
            return sinhs + cosh - mpmath.log(mpmath.mpf(q) / 2)

        exact = mpmath.findroot(log_ratio, t)
        # a few roundings of the logarithm, halved; close to the edge that of q itself, which both have
        assert abs(t / exact - 1) < 2e-15


def test_the_first_zero_of_several():
    assert scalar._first_zero(np.sin, 1.0, 20.0) == pytest.approx(np.pi, rel=1e-13, abs=0)
    assert scalar._first_zero(lambda x: x - 1e-3, 0.0, 1.0, pieces=10) == pytest.approx(1e-3, rel=1e-10, abs=0)
    assert scalar._first_zero(lambda x: x - 0.5, 0.0, 1.0, pieces=2) == 0.5  # at a point of the grid
    assert scalar._first_zero(lambda x: 0.999 - x, 0.0, 1.0, pieces=1) == pytest.approx(0.999, rel=1e-13, abs=0)
    with pytest.raises(RuntimeError, match="^no sign change between 0.0 and 1.0$"):
        scalar._first_zero(lambda x: x + 1, 0.0, 1.0)


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_depths_that_are_short_integers(kind):
    assert scalar.sharpness_on_cycle(1.0, kind(100), 0.021) == scalar.sharpness_on_cycle(1.0, 100, 0.021)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: scalar.step([0.1, 0.2], [1, 2, 3], 2, 0.1), r"^s, target, learning_rate: got shapes \(2,\), \(3,\), \(\)"),
        (lambda: scalar.two_cycle([1.0, 2.0], 2, [1.1, 1.1, 1.1]), "^learning_rate, target: got shapes"),
        (lambda: scalar.lyapunov(1, 2, [1.1, 1.2], start=[0.1, 0.2, 0.3]), "^start, target, learning_rate: got shapes"),
    ],
)
def test_shapes_that_do_not_broadcast_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
