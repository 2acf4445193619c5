"""SymPy symbols shared by the chapters, and `prove`, which turns an identity into an assertion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy as sp

from . import validate

L = sp.Symbol("L", integer=True, positive=True)  # depth
eta = sp.Symbol("eta", positive=True)  # learning rate
m = sp.Symbol("m", positive=True)  # a singular value of the target
s = sp.Symbol("s", positive=True)  # a singular value of one layer
alpha = sp.Symbol("alpha", positive=True)  # scale of the start
q = sp.Symbol("q", positive=True)  # learning rate times sharpness at the minimum


_MATRICES = (sp.MatrixBase, sp.MatrixExpr)


def prove(left: Any, right: Any = 0, *, assuming: Sequence[tuple] = ()) -> bool:
    """Assert that two SymPy expressions or matrices are identical, by symbolic simplification alone.

    Parameters
    ----------
    left, right : sympy.Expr, sympy.Matrix or sympy.MatrixExpr
        The two sides; `right` defaults to zero. Matrix expressions may have symbolic sizes.
    assuming : sequence of (old, new)
        Substitutions made first, for example ``[(L, 3)]`` or an equation of motion.

    Returns
    -------
    bool
        ``True``; anything else raises, so that the result may be printed or asserted.

    Raises
    ------
    TypeError
        If a side is no expression, or `assuming` no list of pairs.
    AssertionError
        If the difference does not simplify to zero; the message shows what is left. This means "not proved",
        which is not the same as "false".

    Examples
    --------
    >>> prove((s + m) ** 2, s**2 + 2 * s * m + m**2)
    True
    >>> prove(s**2, s**3)
    Traceback (most recent call last):
    ...
    AssertionError: not proved: left - right = -s**2*(s - 1)
    """
    try:
        left, right = (_expression(name, side) for name, side in (("left", left), ("right", right)))
        difference = left if right == 0 else left - right
        substitutions = [(old, new) for old, new in assuming]
        difference.subs(substitutions)
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        told = str(error) if str(error).startswith(("left: ", "right: ")) else f"left, right, assuming: {error}"
        raise TypeError(f"{told}; needs two expressions or equal matrices, and pairs to substitute") from None
    if isinstance(difference, sp.MatrixExpr):
        rest = sp.expand(difference.subs(substitutions).doit())
        if not rest.is_ZeroMatrix:
            raise AssertionError(f"not proved: left - right = {rest}")
        return True
    difference = difference.subs(substitutions) if substitutions else difference
    entries = list(difference) if isinstance(difference, sp.MatrixBase) else [difference]
    for entry in entries:
        if (rest := _simplest(entry)) != 0:
            raise AssertionError(f"not proved: left - right = {rest}")
    return True


def _simplest(entry):
    """Zero, if one of a few simplifications in turn arrives there; otherwise what is left after all of them."""
    rest = sp.sympify(entry)
    denested = lambda e: sp.expand(sp.powdenest(e, force=False))
    for simplify in (sp.expand, sp.powsimp, denested, sp.simplify, sp.factor):
        if rest == 0:
            break
        rest = simplify(rest)
    return rest


def _expression(name, side):
    """A side as a SymPy expression or matrix; words are not parsed."""
    side = side if isinstance(side, _MATRICES) or isinstance(side, str) else sp.sympify(side)
    if not isinstance(side, (sp.Expr, *_MATRICES)):
        raise TypeError(f"{name}: got {validate.short(side)}")
    return side


def network_symbols(depth: int, width: int, name: str = "w") -> list:
    """Layers ``[W_1, ..., W_L]`` of `width` x `width` SymPy matrices with real symbols ``w1_11``, ``w1_12``, ...

    Raises
    ------
    ValueError
        On a depth or width below 1.

    Examples
    --------
    >>> network_symbols(2, 1)
    [Matrix([[w1_11]]), Matrix([[w2_11]])]
    """

    depth, width = (validate.integer(n, v, least=1, most=100) for n, v in (("depth", depth), ("width", width)))
    if not isinstance(name, str):
        raise TypeError(f"name: got {name!r}, needs a word")

    def entry(layer):
        return lambda i, j: sp.Symbol(f"{name}{layer}_{i + 1}{j + 1}", real=True)

    return [sp.Matrix(width, width, entry(layer)) for layer in range(1, depth + 1)]
