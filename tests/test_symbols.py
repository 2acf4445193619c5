"""`prove` accepts identities and rejects what is not one, also where the two sides agree at many points."""

import pytest
import sympy as sp

from eoslib import symbols
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


def test_one_side_is_compared_with_zero():
    x = sp.Symbol("x")
    assert prove((x + 1) ** 2 - x**2 - 2 * x - 1) and prove(sp.zeros(2, 2)) and prove(sp.ZeroMatrix(n, n))
    for side in (x, sp.Integer(1), sp.eye(2), A):
        with pytest.raises(AssertionError, match="^not proved: left - right = "):
            prove(side)
    with pytest.raises(AssertionError, match="^not proved: left - right = x$"):
        prove(x, assuming=[(s, 2)])
    assert prove(x, assuming=[(x, 0)]) and prove(A, assuming=[(A, sp.ZeroMatrix(n, n))])


def test_every_entry_of_a_matrix_counts():
    x = sp.Symbol("x")
    one = sp.Matrix([[1, x], [x**2, (x + 1) ** 2]])
    assert prove(one, sp.Matrix([[1, x], [x**2, x**2 + 2 * x + 1]]))
    for k in range(4):
        other = one.copy()
        other[k] += 1
        with pytest.raises(AssertionError):
            prove(one, other)


@pytest.mark.parametrize(
    "left, right",
    [
        (sp.sin(s) ** 2 + sp.cos(s) ** 2 - 1, 0),  # needs simplify
        ((s**2 - m**2) / (s - m), s + m),
        ((s**L * m**L), (s * m) ** L),
        (sp.sqrt(s**2 * m), s * sp.sqrt(m)),
        (sp.exp(L * sp.log(s)), s**L),
        (sp.gamma(L + 1), L * sp.gamma(L)),
    ],
)
def test_each_way_of_simplifying_is_tried(left, right):
    assert prove(left, right) and prove(right, left)
    with pytest.raises(AssertionError):
        prove(left, right + 1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: prove("s", 0), "^left: got 's'; needs two expressions"),
        (lambda: prove(0, "s"), "^right: got 's'; needs two expressions"),
        (lambda: prove(s, 0, assuming=[s]), "^left, right, assuming: .*pairs to substitute"),
        (lambda: prove(s, 0, assuming=3), "^left, right, assuming: "),
        (lambda: prove(sp.eye(2), sp.eye(3)), "^left, right, assuming: "),
        (lambda: prove(sp.eye(2), 1), "^left, right, assuming: "),
        (lambda: prove(sp.true, 0), "^left: got True"),
        (lambda: network_symbols(1, 1, name=3), "^name: got 3, needs a word"),
    ],
)
def test_what_is_no_expression_is_named(call, words):
    with pytest.raises(TypeError, match=words):
        call()


def test_symbols_are_what_their_names_say():
    two = network_symbols(2, 3, name="v")
    assert [matrix.shape for matrix in two] == [(3, 3)] * 2 and two[1][2, 0] == sp.Symbol("v2_31", real=True)
    assert network_symbols(1, 1)[0][0].is_real and network_symbols(100, 1)[99][0].name == "w100_11"
    assert network_symbols(1, 100)[0].shape == (100, 100)
    for bad, word in (
        ((0, 1), "depth: got 0"),
        ((1, 0), "width: got 0"),
        ((101, 1), "depth: got 101"),
        ((1, 101), "width: got 101"),
    ):
        with pytest.raises(ValueError, match=f"^{word}, needs an integer from 1 to 100$"):
            network_symbols(*bad)
    names = {name: getattr(symbols, name) for name in ("L", "m", "s", "alpha", "eta", "q")}
    assert all(symbol.name == name and symbol.is_positive for name, symbol in names.items()) and names["L"].is_integer
    assert not any(symbol.is_integer for name, symbol in names.items() if name != "L")


@pytest.mark.parametrize("right", [-1, 0, 1])
def test_plain_numbers_are_sides(right):
    assert prove(sp.Integer(right), right) and prove(right, sp.Integer(right))
    with pytest.raises(AssertionError, match="^not proved: left - right = 1$"):
        prove(right + 1, right)
