"""SymPy symbols shared by the chapters, and `prove`, which turns an identity into an assertion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy as sp

L = sp.Symbol("L", integer=True, positive=True)  # depth
eta = sp.Symbol("eta", positive=True)  # learning rate
m = sp.Symbol("m", positive=True)  # a singular value of the target
s = sp.Symbol("s", positive=True)  # a singular value of one layer
alpha = sp.Symbol("alpha", positive=True)  # scale of the start
q = sp.Symbol("q", positive=True)  # learning rate times sharpness at the minimum


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
    difference = left if isinstance(right, int) and right == 0 else left - right
    if isinstance(difference, sp.MatrixExpr):
        rest = sp.expand(difference.subs(list(assuming)).doit())
        if not rest.is_ZeroMatrix:
            raise AssertionError(f"not proved: left - right = {rest}")
        return True
    difference = difference.subs(list(assuming)) if assuming else difference
    entries = list(difference) if isinstance(difference, sp.MatrixBase) else [difference]
    for entry in entries:
        rest = sp.sympify(entry)
        for simplify in (
            sp.expand,
            sp.powsimp,
            lambda e: sp.expand(sp.powdenest(e, force=False)),
            sp.simplify,
            sp.factor,
        ):
            if rest == 0:
                break
            rest = simplify(rest)
        if rest != 0:
            raise AssertionError(f"not proved: left - right = {rest}")
    return True


def network_symbols(depth: int, width: int, name: str = "w") -> list:
    """Layers ``[W_1, ..., W_L]`` of `width` x `width` SymPy matrices with real symbols ``w1_11``, ``w1_12``, ...

    Examples
    --------
    >>> network_symbols(2, 1)
    [Matrix([[w1_11]]), Matrix([[w2_11]])]
    """

    def entry(layer):
        return lambda i, j: sp.Symbol(f"{name}{layer}_{i + 1}{j + 1}", real=True)

    return [sp.Matrix(width, width, entry(layer)) for layer in range(1, depth + 1)]
