"""The exact records: what their scripts say is what they hold, and the root counter against SymPy's."""

import json
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import sympy as sp

from eoslib import balance

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "recorded"))
import near_degenerate_series as series
import transverse_certificate as certificate


@pytest.mark.parametrize("interval", [(0, 1), (Fraction(1, 3), 5), (-4, Fraction(-1, 7))])
def test_count_agrees_with_sympy(interval):
    x = sp.Symbol("x")
    roots = [Fraction(k, 7) for k in (-9, -5, 1, 2, 3, 20, 33)]
    poly = sp.Poly(sp.prod([7 * x - 7 * sp.Rational(r.numerator, r.denominator) for r in roots]) * (x**2 + x + 5), x)
    expected = sum(interval[0] < r < interval[1] for r in roots)
    assert certificate.count([int(c) for c in poly.all_coeffs()], *interval) == expected


def test_the_precision_of_the_proof_has_a_bound_that_is_said():
    with pytest.raises(ValueError, match="^bits: got 1001, needs an integer from 16 to 1000"):
        balance.certify_positivity(bits=1001)
    with pytest.raises(ValueError, match="^bits: got 15, needs an integer from 16 to 1000"):
        balance.certify_positivity(bits=15)
    assert {found.bits for found in balance.certify_positivity(bits=1000).values()} == {1000}


def test_count_sees_close_pairs_and_none():
    close = [10**6, -2 * 10**6, 10**6 - 1]  # roots 1 -+ 1/1000
    assert certificate.count(close, Fraction(1, 2), 2) == 2
    assert certificate.count([10**6, -2 * 10**6, 10**6 + 1], 0, 3) == 0  # none: 1 -+ i/1000


@pytest.mark.parametrize("depth", [3, 4])
def test_factors_are_those_of_the_library(depth):
    import numpy as np

    from eoslib import scalar, transverse

    eta = 2.2 / depth
    cycle = scalar.two_cycle(1.0, depth, eta)
    z, c = cycle.high / cycle.low, 0.9 ** (1 / depth) / cycle.low
    for sign in (1, -1):
        ours = [np.array(certificate.factor(depth, sign, z, c, phase), dtype=float) for phase in (0, 1)]
        # the library's matrix in the scaling a^(-l) of rows, which a similarity removes: compare traces of powers
        whole = transverse.floquet_matrix((1.0, 0.9), depth, eta, sign)
        for power in (1, 2, 3):
            mine = np.trace(np.linalg.matrix_power(ours[1] @ ours[0], power))
            assert abs(mine - np.trace(np.linalg.matrix_power(whole, power))) < 1e-10


def test_the_record_says_that_nothing_is_critical():
    record = certificate.load()
    for depth in ("3", "4"):
        for sign, zeros in (("1", 0), ("-1", 1)):
            for name in ("minus", "pair"):
                part = record[depth][sign][name]
                assert all(w["roots"] == 0 for w in part["critical"].values())
                assert part["zeros"] == (zeros if name == "pair" else 0)
        assert all(w["roots"] == 0 for w in record[depth]["threshold"].values())


@pytest.mark.parametrize("depth", [2, sp.Rational(7, 2), 9])
def test_second_order_series_replayed(depth):
    rho, d2 = series.load()
    assert series.series(depth) == (rho.subs(series.L, depth), d2.subs(series.L, depth))


def test_series_record_names_its_versions():
    assert {"versions", "machine", "date", "cpu_seconds"} <= set(json.loads(series.RECORD.read_text()))
