"""The torus of two layers: the exact normal form against simulation of the whole network."""

import dataclasses
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import sympy as sp

from eoslib import descent, network, scalar, torus, transverse

FIELD, UNKNOWN = sp.field("a", sp.QQ)
RATIONALS = (FIELD.one + FIELD.one) / 3
UNKNOWN_OF_FLOATS = sp.field("a", sp.RR)[1]


def simulate(ratio, excess, steps, keep):
    """Products and first layers over the last steps (keep, 2, 2), on the invariant set, started near the predicted torus."""
    eta, D = 2 / (1 + ratio) * (1 + excess), np.diag([1.0, -1.0])
    start = 1.3 * torus.law(ratio).amplitude * excess**0.25
    one = np.array([[scalar.two_cycle(1.0, 2, eta).low, start], [0.0, np.sqrt(ratio)]])
    run = descent.descend(
        np.stack([one, D @ one.T @ D]),
        np.diag([1.0, ratio]),
        eta,
        steps,
        keep=keep,
        singular_values=False,
        observe={"P": network.product, "W": lambda W: W[..., 0, :, :].copy()},
    )
    return run.observed["P"], run.observed["W"]


@pytest.mark.parametrize("a", [Fraction(2, 3), Fraction(7, 10), Fraction(9, 10), Fraction(99, 100)])
def test_normal_form_is_the_closed_form(a):
    n, *found = torus.quintic(a)
    assert tuple(found) == torus.closed_form(n)


@pytest.mark.parametrize("ratio", [0.65, 0.8, 0.93])
def test_amplitude_and_turning_against_simulation(ratio):
    law, sizes, turns = torus.law(ratio), [], []
    for excess in (4e-4, 1e-4):
        P, W = simulate(ratio, excess, 40_000, 4096)
        sizes.append(np.sqrt((P[:, 0, 1] ** 2).mean()) / (law.amplitude * excess**0.25))
        points = W[::2] if W[0, 0, 0] < W[1, 0, 0] else W[1::2]
        turn = np.unwrap(np.arctan2(points[:, 1, 0], points[:, 0, 1]))
        angle = abs(np.polyfit(np.arange(len(turn)), turn, 1)[0])
        turns.append((angle - law.angle) / (law.turning * excess))
    # corrections go like sqrt(excess) and halve from one rate to the next (up to 11 and 18 %); extrapolated they go, and terms
    # of order excess times some ten, and averages over 4096 steps, are left
    assert abs(2 * sizes[1] - sizes[0] - 1) < 5e-3 and abs(2 * turns[1] - turns[0] - 1) < 1e-2
    assert abs(sizes[1] - 1) < 0.6 * abs(sizes[0] - 1)


def test_linear_turning_is_the_derivative_of_the_multiplier():
    for ratio in (0.3, 0.7, 0.95):
        h, law, eta = 1e-5, torus.law(ratio), 2 / (1 + ratio)
        angles = [
            np.abs(np.angle(transverse.multipliers((1.0, ratio), 2, eta * (1 + s * h), sector=-1))).max()
            for s in (-1, 1)
        ]
        # central difference: h^2 = 1e-10 times a third derivative, and rounding 1e-15 / h
        assert abs((angles[1] - angles[0]) / (2 * h) - law.linear_turning) < 1e-5
        assert abs(np.mean(angles) - law.angle) < 1e-8


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.3, float("nan")])
def test_a_ratio_outside_is_refused(ratio):
    with pytest.raises(ValueError, match="ratio"):
        torus.law(ratio)


@pytest.mark.parametrize(
    "wrong",
    [0.7, 1, True, Fraction(1), Fraction(-2, 3), Fraction(1, 2), Fraction(618, 1000), sp.sqrt(2) / 2, mpmath.mpf("0.7")]
    + ["0.7", None, np.float64(0.7), sp.Symbol("a"), FIELD.one * 2 / 3, RATIONALS, UNKNOWN_OF_FLOATS, np.ones(2)],
)
def test_what_has_no_exact_zero_or_no_cycle_is_refused(wrong):
    with pytest.raises(ValueError, match="^a: got .* needs a Fraction below 1 with 3 - a.2 - 1/a.2 > 0"):
        torus.quintic(wrong)


def test_exact_numbers_of_any_kind_are_taken():
    wanted = torus.quintic(Fraction(619, 1000))  # just above the least
    assert torus.quintic(sp.Rational(619, 1000)) == wanted and wanted[0] > 0


def test_the_unknown_of_a_field_is_taken(monkeypatch):
    """With it `quintic` takes half a minute: here it is only let in."""
    monkeypatch.setattr(torus, "_Model", dict(zip([UNKNOWN], [])).__getitem__)
    with pytest.raises(KeyError):
        torus.quintic(UNKNOWN)
    n = 3 - UNKNOWN**2 - 1 / UNKNOWN**2
    for part, exact in zip(torus.closed_form(n), torus.closed_form(Fraction(3) - Fraction(9, 16) - Fraction(16, 9))):
        assert part.as_expr().subs("a", sp.Rational(3, 4)) == sp.Rational(exact.numerator, exact.denominator)


@pytest.mark.parametrize(
    "wrong",
    [0, 1, True, 0.0, 1.0, -0.5, 1.5, np.nan, np.inf, 0.5 + 0j, "0.5", None, sp.I / 2, sp.nan, sp.zoo, sp.Integer(1)]
    + [np.array(0.5), np.ones(2) / 2, [0.5], mpmath.mpf(1), FIELD.one, FIELD.one / 2, sp.MatrixSymbol("n", 2, 2), 10**400],
)
def test_what_is_no_number_between_zero_and_one_is_refused(wrong):
    with pytest.raises(ValueError, match="^n: got .* needs one number strictly between 0 and 1"):
        torus.closed_form(wrong)


def test_the_closed_form_of_numbers_and_expressions():
    exact = torus.closed_form(Fraction(1, 2))
    unknown = sp.Symbol("n")
    assert [part.subs(unknown, sp.Rational(1, 2)) for part in torus.closed_form(unknown)] == [
        sp.Rational(part.numerator, part.denominator) for part in exact
    ]
    kinds = [0.5, np.float64(0.5), np.longdouble(0.5), mpmath.mpf("0.5"), sp.Rational(1, 2), np.float32(0.5), np.float16(0.5)]
    for n in kinds:
        found = torus.closed_form(n)
        assert [float(part) for part in found] == pytest.approx([float(part) for part in exact], rel=1e-14)
        assert isinstance(found[0], float if isinstance(n, (np.float16, np.float32)) else (type(n), sp.Rational))
    root = torus.closed_form(sp.sqrt(2) / 2)
    assert [float(part) for part in root] == pytest.approx(torus.closed_form(2**-0.5), rel=1e-12)


def test_closed_form_by_hand():
    """At n = 1/2: the denominator is -1/2 (3/4 - 3/2 + 1)(9/8 - 59/4 + 71/2 - 25) = -1/8 * -25/8."""
    n = Fraction(1, 2)
    below = Fraction(25, 64)
    real = sum(c * n**k for k, c in zip(range(7, -1, -1), (48, -629, 3107, -7527, 9804, -7125, 2761, -455)))
    imaginary = sum(
        c * n**k for k, c in zip(range(8, -1, -1), (192, -2588, 13360, -34402, 48753, -40320, 19162, -4722, 405))
    )
    assert torus.closed_form(n) == (8 * real / below, 4 * imaginary / below)


@pytest.mark.parametrize("ratio", [0.2, 0.9])
def test_law_is_the_normal_form_in_numbers(ratio):
    law, n = torus.law(ratio), 2 * ratio / (1 + ratio)
    real, imaginary = torus.closed_form(n)
    # r^4 = (3 - n) / |G| epsilon; the phases have the sizes r (1 + n)^(1/2) (5 - n)^(1/4), in units of the mean singular value
    size = (3 - n) / -real
    assert law.amplitude == pytest.approx(
        (1 + ratio) / 2 * size**0.25 * (1 + n) ** 0.5 * (5 - n) ** 0.25, rel=1e-14, abs=0
    )
    assert np.cos(law.angle) == pytest.approx(2 * n - 1, rel=1e-12, abs=0)
    assert law.turning - law.linear_turning == pytest.approx(imaginary * size / np.sin(law.angle), rel=1e-10, abs=0)


def test_a_map_that_does_not_turn_is_refused(monkeypatch):
    """It does not happen; it is seen if one step is taken for two, or if the second of the two turning entries is wrong."""
    two = torus._Model.two
    for wrong in (
        lambda self, w, order: self.step(w, order),
        lambda self, w, order: [torus._scale(self.number(1 + (k == 2)), x) for k, x in enumerate(two(self, w, order))],
    ):
        monkeypatch.setattr(torus._Model, "two", wrong)
        with pytest.raises(ArithmeticError, match="the linear part is not a turn"):
            torus.quintic(Fraction(2, 3))


def test_a_third_order_coefficient_is_refused(monkeypatch):
    """It does not happen either; the fifth order is solved as if there were none."""
    monkeypatch.setattr(torus, "_along_and_against", lambda model, moved, key: (model.one, model.number(0)))
    with pytest.raises(ArithmeticError, match="the third-order coefficient is not zero"):
        torus.quintic(Fraction(2, 3))


def test_products_of_polynomials_by_hand():
    P = {(0, 0): 2, (1, 0): 3, (0, 1): 5}
    assert torus._times(P, {(0, 0): 7, (1, 1): 11}, 2) == {(0, 0): 14, (1, 0): 21, (0, 1): 35, (1, 1): 22}
    assert torus._times(P, P, 2) == {(0, 0): 4, (1, 0): 12, (0, 1): 20, (2, 0): 9, (1, 1): 30, (0, 2): 25}
    assert torus._times({(2, 1): 1}, {(0, 3): 1}, 5) == {} and torus._times({(2, 1): 1}, {(0, 2): 1}, 5) == {(2, 3): 1}


@pytest.mark.parametrize("ratio", [1e-300, 1e-16, 1e-12, 1e-6, 0.5, 0.9, 1 - 1e-6, 1 - 1e-12, 1 - 2**-53])
def test_the_law_keeps_its_digits_at_both_ends(ratio):
    with mpmath.workdps(400):  # 1 - n is lost in floats near one, and 2 n - 1 + 1 near zero
        k = mpmath.mpf(ratio)
        n = 2 * k / (1 + k)
        real, imaginary = torus.closed_form(n)
        size, sin = (3 - n) / -real, 2 * mpmath.sqrt(n * (1 - n))
        trace = 2 * n * n + 2 * n * (2 - n) - n - 3 * (2 - n)
        linear = -(trace / 2 - (3 - n) * (2 * n - 1)) / sin
        amplitude = (1 + k) / 2 * (size * (5 - n)) ** 0.25 * mpmath.sqrt(1 + n)
        exact = amplitude, mpmath.acos(2 * n - 1), linear + imaginary / sin * size, linear
        for found, wanted in zip(dataclasses.astuple(torus.law(ratio)), exact):
            assert abs(found / wanted - 1) < 1e-13  # a few dozen roundings, the polynomials' condition is below 100
