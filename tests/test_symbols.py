"""`prove` accepts identities and rejects what is not one, also where the two sides agree at many points."""

import pytest
import sympy as sp

from eoslib.symbols import L, alpha, m, network_symbols, prove, s

n = sp.Symbol("n", integer=True, positive=True)
A, B = sp.MatrixSymbol("A", n, n), sp.MatrixSymbol("B", n, n)

TRUE = [
    ((s**L) ** 2, s ** (2 * L)),
    (sp.cosh(s) ** 2 - sp.sinh(s) ** 2, 1),
    (sp.Matrix([[1, s], [0, 1]]) ** 2, sp.Matrix([[1, 2 * s], [0, 1]])),
    ((A * B).T, B.T * A.T),
    (m ** (2 - 2 / L) * m ** (2 / L), m**2),
]
FALSE = [
    (s**L, s ** (L + 1)),
    (sp.sin(sp.pi * L) + s, 2 * s),
    (sp.Matrix([[1, s]]), sp.Matrix([[1, -s]])),
    ((A * B).T, A.T * B.T),
    (sp.sqrt((s - alpha) ** 2), s - alpha),
    (s + sp.Rational(1, 10**12), s),
]


@pytest.mark.parametrize("left, right", TRUE)
def test_identities_pass(left, right):
    assert prove(left, right)


@pytest.mark.parametrize("left, right", FALSE)
def test_what_is_no_identity_fails(left, right):
    with pytest.raises(AssertionError, match="not proved"):
        prove(left, right)


def test_assumptions_are_substituted():
    assert prove(L * s, 3 * s, assuming=[(L, 3)])
    with pytest.raises(AssertionError):
        prove(L * s, 3 * s)
    assert prove(A * B, B, assuming=[(A, sp.Identity(n))])
    with pytest.raises(AssertionError):
        prove(A * B, B)


def test_real_symbols_of_unknown_sign_are_not_taken_for_positive():
    x = sp.Symbol("x", real=True)
    with pytest.raises(AssertionError):
        prove(sp.sqrt(x**2), x)


def test_symbols_of_a_network():
    parts = network_symbols(3, 2)
    assert (
        len(parts) == 3 and parts[2][0, 1].name == "w3_12" and parts[0].free_symbols.isdisjoint(parts[1].free_symbols)
    )
