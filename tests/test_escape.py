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
        low, end = mp.mpf(0), mp.asinh(m ** (mp.mpf(1) / depth) / alpha) + 1
        for _ in range(120):  # the product increases
            middle = (low + end) / 2
            low, end = (middle, end) if product(middle) < fraction * m else (low, middle)
        speed = lambda u: 1 / ((m - product(u)) * (alpha * mp.cosh(u)) ** (depth - 2))
        return float(mp.quad(speed, mp.linspace(0, end, 9)))


@pytest.mark.parametrize("depth", [2, 3, 4, 7])
@pytest.mark.parametrize(("m", "alpha"), [(1.0, 0.1), (3.0, 0.3), (0.2, 1e-3), (8.0, 1.05)])
def test_time_to_reach_is_the_integral(depth, m, alpha):
    for fraction in (0.3, 0.9):
        assert np.isclose(
            escape.time_to_reach(fraction, m, depth, alpha), by_mpmath(fraction, m, depth, alpha), rtol=1e-8
        )


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_escape_time_is_the_limit_of_small_scales(depth):
    for m in (1.0, 2.5):
        errors = []
        for alpha in (1e-2, 1e-3):
            exact = escape.time_to_reach(0.5, m, depth, alpha)
            errors.append(abs(escape.escape_time(m, depth, alpha) - exact) * m ** (2 - 2 / depth))
        # L = 2: an error of order alpha^2 log; else a constant of order one beside alpha^(2 - L)
        assert errors[1] < 1e-3 if depth == 2 else max(errors) < 2
    both = [
        escape.escape_time(np.array([1.0, 2.5]), depth, [[0.1], [0.01]], start=s) for s in ("unbalanced", "balanced")
    ]
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
    assert np.array_equal(
        escape.leave_saddle(1.0, 2, 0.3, 0.1), network.initialise("unbalanced", depth=2, width=1, scale=0.3)
    )


def test_leave_saddle_in_numbers_worked_out_by_hand():
    # 1 / ((L - 2) eta m remaining) = 1 / (2 * 0.5 * 0.25 * 16) = 1/4, whose root of order L - 2 = 2 is 1/2;
    # m^(1/4) / 2 = 0.3536 caps it
    assert np.isclose(escape.leave_saddle(0.25, 4, 0.01, 0.5, remaining=16)[0, 0, 0], 0.25**0.25 / 2, rtol=1e-14)
    # remaining 64 gives 1/4, below the cap
    W = escape.leave_saddle(0.25, 4, 0.15, 0.5, remaining=64)
    assert W.shape == (4, 1, 1) and np.allclose(W[:-1], 0.25, rtol=1e-14)
    assert np.isclose(W[-1, 0, 0], 0.2, rtol=1e-14)  # 0.25^2 - 0.15^2 = 0.2^2
    # the number left when none is given: 1 / (2 * 0.5 * 0.25 * 1000) = 0.004, whose root is 0.06324...
    assert np.isclose(escape.leave_saddle(0.25, 4, 0.01, 0.5)[0, 0, 0], np.sqrt(0.004), rtol=1e-14)
    assert np.all(
        escape.leave_saddle(1.0, 3, 1e-3, 0.1, remaining=1) == escape.leave_saddle(1.0, 3, 1e-3, 0.1, remaining=2)
    )  # capped


def test_escape_time_in_closed_form():
    """The table of the docstring with numbers: Gamma(1/2) = sqrt(pi), Gamma(1) = 1, Gamma(3/2) = sqrt(pi) / 2."""
    for start, m, depth, alpha, expected in (
        ("unbalanced", 2.0, 2, 0.1, np.log(800.0) / 4),
        ("balanced", 2.0, 2, 0.1, np.log(200.0) / 4),
        ("unbalanced", 2.0, 3, 0.1, np.pi / 2 * 10 / 2),
        ("balanced", 2.0, 3, 0.1, 10 / 2),
        ("unbalanced", 2.0, 5, 0.1, np.pi / 4 * 1000 / 2),  # sqrt(pi) / 2 * Gamma(3/2) / Gamma(2)
        ("balanced", 2.0, 5, 0.1, 1000 / 3 / 2),
    ):
        assert np.isclose(escape.escape_time(m, depth, alpha, start=start), expected, rtol=1e-13)
    assert np.isclose(escape.escape_time(2.0, 3, 0.1), np.pi / 2 * 10 / 2, rtol=1e-13)  # unbalanced by default
    several = escape.escape_time([1.0, 2.0], 4, 0.1)
    assert np.allclose(several, [100.0, 50.0], rtol=1e-13)


@pytest.mark.parametrize("fraction", [1e-9, 1e-3, 0.999])
@pytest.mark.parametrize(("m", "depth", "alpha"), [(1.0, 2, 1e-6), (1.0, 3, 0.999), (1e6, 4, 1e-2)])
def test_time_to_reach_any_share(fraction, m, depth, alpha):
    expected = by_mpmath(fraction, m, depth, alpha)
    assert np.isclose(escape.time_to_reach(fraction, m, depth, alpha), expected, rtol=1e-8)  # the docstring: about 1e-9


@pytest.mark.parametrize("fraction", [0.5, 0.999, 1 - 1e-6])
@pytest.mark.parametrize(("m", "alpha"), [(1.0, 0.9), (1.0, 1e-3), (3.0, 0.3)])
def test_two_layers_in_elementary_functions(fraction, m, alpha):
    """dv / (2 m - alpha^2 sinh v) from 0 to v, sinh v = 2 fraction m / alpha^2, by the substitution w = tanh(v / 2)."""
    with mp.workdps(40):
        c, s = 2 * mp.mpf(m), mp.mpf(alpha) ** 2
        root, end = mp.sqrt(c * c + s * s), mp.tanh(mp.asinh(2 * mp.mpf(fraction) * m / s) / 2)
        expected = float(2 / root * (mp.atanh((s + c * end) / root) - mp.atanh(s / root)))
    assert escape.time_to_reach(fraction, m, 2, alpha) == pytest.approx(expected, rel=1e-9, abs=0)  # as documented


def test_time_to_reach_close_to_the_docstrings_precision():
    found = escape.time_to_reach(0.5, 1.0, 3, 1e-4)
    assert abs(found / by_mpmath(0.5, 1.0, 3, 1e-4) - 1) < 1e-9


def test_an_integral_that_is_not_known_is_an_error(monkeypatch):
    monkeypatch.setattr(escape, "quad", lambda *a, **k: (1.0, 1e-7))
    with pytest.raises(ArithmeticError, match="known to 1.0e-07 only, beside 1.0e.00"):
        escape.time_to_reach(0.5, 1.0, 3, 0.1)
    monkeypatch.setattr(escape, "quad", lambda *a, **k: (1e3, 1e-6))
    assert escape.time_to_reach(0.5, 1.0, 2, 0.1) == pytest.approx(8e3)  # eight parts, each known to 1e-9


def test_limits_of_the_arguments():
    assert escape.escape_time(1.0, 10**6, 1 - 1e-9) > 0 and escape.leave_saddle(
        1.0, 2, 0.1, 0.1, remaining=1
    ).shape == (2, 1, 1)
    for call, words in (
        (lambda: escape.escape_time(1.0, 10**6 + 1, 0.1), "^depth: got 1000001, needs an integer from 2 to 1000000$"),
        (lambda: escape.escape_time(1.0, 1, 0.1), "^depth: got 1, needs an integer from 2"),
        (lambda: escape.escape_time(1.0, 200, 0.01), "^scale, depth: got .0.01, 200., needs numbers whose result"),
        (lambda: escape.time_to_reach(0.5, 1.0, 200, 0.01), "^scale, depth: got"),
        (lambda: escape.escape_time(16.0, 4, 2.0), "^scale: got 2.0 with target 16.0, needs less than"),
        (lambda: escape.escape_time(16.0, 4, [0.1, 2.0]), "^scale: got"),
        (
            lambda: escape.escape_time([1.0, 2.0], 4, [0.1, 0.2, 0.3]),
            "^scale: got shape .3,., needs one that broadcasts",
        ),
        (lambda: escape.time_to_reach(1.0, 1.0, 3, 0.1), "^fraction: got 1.0"),
        (lambda: escape.time_to_reach(1.5, 1.0, 3, 0.1), "^fraction: got 1.5"),
        (lambda: escape.time_to_reach(0.0, 1.0, 3, 0.1), "^fraction: got 0.0"),
        (lambda: escape.time_to_reach(0.5, [1.0], 3, 0.1), "^target: got shape"),
        (lambda: escape.time_to_reach(0.5, 1.0, 3, [0.1]), "^scale: got shape"),
        (lambda: escape.leave_saddle(1.0, 3, 0.1, 0.1, remaining=0), "^remaining: got 0"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    assert escape.escape_time(16.0, 4, 1.999) > 0  # above one, but below 16^(1/4)
    # in units of the target the scale is 1e-3 and the time 1e444; the law of small scales is exact to (1e-3)^148 here
    deep = escape.time_to_reach(0.5, 1e300, 150, 0.1)
    assert deep == pytest.approx(escape.escape_time(1e300, 150, 0.1), rel=1e-9, abs=0)


@pytest.mark.skipif(np.finfo(np.longdouble).max == np.finfo(float).max, reason="long double is double here")
def test_long_doubles_out_of_the_range_of_floats():
    tiny = np.longdouble("1e-4000")
    for target, scale, name in ((tiny, tiny, "target"), (1.0, tiny, "scale")):
        for call in (lambda *a: escape.time_to_reach(0.5, *a), lambda *a: escape.leave_saddle(*a, 0.1)):
            with pytest.raises(ValueError, match=f"^{name}: got .*, which is zero in float64"):
                call(target, 3, scale)


def test_single_numbers_are_plain_ones():
    """Zero-dimensional arrays are numbers; a mode's own shape is not squeezed."""
    assert escape.time_to_reach(0.5, np.array(1.0), 3, np.float32(0.5)) == escape.time_to_reach(0.5, 1.0, 3, 0.5)
    assert escape.leave_saddle(np.array(1.0), 3, np.array(0.1), np.array(0.1)).shape == (3, 1, 1)
    assert escape.escape_time([[1.0]], 3, 0.1).shape == (1, 1)


def test_a_share_known_only_roughly_is_an_error_in_each_part(monkeypatch):
    """The error of each of the eight parts is held against what has been summed so far."""
    parts = iter([(1.0, 0.0), (1e-3, 0.99e-8)] + [(0.0, 0.0)] * 6)
    monkeypatch.setattr(escape, "quad", lambda *a, **k: next(parts))
    assert escape.time_to_reach(0.5, 1.0, 2, 0.1) > 0
    parts = iter([(1.0, 0.0), (1e-3, 1.01e-8)])
    with pytest.raises(ArithmeticError, match="known to 1.0e-08 only"):
        escape.time_to_reach(0.5, 1.0, 2, 0.1)
    parts = iter([(1.0, np.nan)])
    with pytest.raises(ArithmeticError, match="known to nan only"):
        escape.time_to_reach(0.5, 1.0, 2, 0.1)


@pytest.mark.parametrize(
    ("fraction", "target", "scale"),
    [(0.5, 1e300, 1e-300), (0.5, 1e30, 1e-300), (1e-300, 2.0, 0.1), (1e-30, 1.0, 1e-3)],
)
def test_time_to_reach_at_the_ends_of_the_floating_range(fraction, target, scale):
    # two layers: t = (1/m) int du / (1 - c sinh 2u) up to sinh 2U = f/c, c = a^2/(2m); rational in z = exp 2u
    with mp.workdps(2000):
        m, a, f = mp.mpf(target), mp.mpf(scale), mp.mpf(fraction)
        c = a * a / (2 * m)
        U = mp.asinh(f / c) / 2
        root = mp.sqrt(1 + c * c)  # 1 - c (z - 1/z)/2 = -(c/2z) (z - z1)(z - z2), z1 z2 = -1
        z1, z2 = (1 + root) / c, -c / (1 + root)
        F = lambda z: -(mp.log(abs(z - z1)) - mp.log(abs(z - z2))) / (c * (z1 - z2))
        exact = (F(mp.exp(2 * U)) - F(mp.mpf(1))) / m if fraction > 1e-20 else U / m
    found = escape.time_to_reach(fraction, target, 2, scale)
    assert found == pytest.approx(float(exact), rel=1e-9, abs=0)  # the error that the integral is known to


def test_the_last_layer_keeps_its_digits_where_squares_leave_the_range():
    W = escape.leave_saddle(1.0, 3, 1e-250, 1e200).ravel()
    np.testing.assert_allclose(W, 1e-203, rtol=1e-12)  # 1/(rate remaining), and x = y beside so small a scale
    with pytest.raises(ValueError, match="^fraction: got 5e-324"):
        escape.time_to_reach(5e-324, 2.0, 3, 1.0)
