r"""Rigorous enclosures: the values of a function on whole boxes, by interval arithmetic of a stated precision.

One convention for every certificate of the book: it says what was enclosed, on how many boxes, with which precision
(`Enclosure`), and nothing of it depends on a global setting. `mpmath.iv` has one precision for the whole process, so that
a cached bound silently keeps the first one; here each call makes an arithmetic of its own, and a number keeps the
precision of the arithmetic that made it.

mpmath rounds each endpoint outward. The arb of python-flint would be faster; but its precision is global too, and where
it is installed SymPy computes with its numbers, in every chapter. The certificates here are small.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from mpmath.ctx_iv import MPIntervalContext
from mpmath.libmp import round_ceiling, round_floor, to_float

from . import validate


@dataclass(frozen=True)
class Enclosure:
    """Bounds that hold on a whole box, and how they were found."""

    low: float  # rounded down
    high: float  # rounded up
    boxes: int  # pieces into which the box was cut
    bits: int  # precision of each operation

    def __str__(self) -> str:
        return f"[{self.low:.6g}, {self.high:.6g}] on {self.boxes} boxes, {self.bits} bits"


def arithmetic(bits: int) -> MPIntervalContext:
    """Return an interval arithmetic of its own: ``.mpf([a, b])``, ``.exp``, ``.log``, ``.sqrt``, ... round outward.

    Parameters
    ----------
    bits : int
        Precision, at least 16.

    Returns
    -------
    mpmath.ctx_iv.MPIntervalContext
        A new one at each call; numbers made with it compute with its precision, whatever ``mpmath.iv.prec`` is.

    Raises
    ------
    ValueError
        If `bits` is not an integer of at least 16.

    Examples
    --------
    >>> fine, coarse = arithmetic(100), arithmetic(20)
    >>> third = fine.mpf(1) / 3
    >>> bool((coarse.mpf(1) / 3).delta > 2**60 * third.delta > 0)
    True
    """
    context = MPIntervalContext()
    context.prec = validate.integer("bits", bits, least=16, most=10**6)
    return context


def ends(interval: Any) -> tuple[float, float]:
    """Return an interval's endpoints as floats, rounded down and up.

    Raises
    ------
    ValueError
        If `interval` is no interval of an `arithmetic`.

    Examples
    --------
    >>> low, high = ends(arithmetic(200).mpf(1) / 10)
    >>> low < high and high - low < 2e-17
    True
    """
    if not isinstance(getattr(interval, "_mpi_", None), tuple):
        raise ValueError(f"interval: got {validate.short(interval)}, needs one of `arithmetic`")
    low, high = interval._mpi_
    return to_float(low, rnd=round_floor), to_float(high, rnd=round_ceiling)


def over(
    function: Callable, *sides: tuple[float, float], pieces: int | Sequence[int] = 100, bits: int = 64
) -> Enclosure:
    r"""Enclose the values of a function on a box, by cutting the box and enclosing them on each piece.

    Parameters
    ----------
    function : callable
        Called as ``function(context, x, y, ...)`` with the arithmetic and one interval per side; returns an interval.
    *sides : (float, float)
        Ends of the box in each variable; floats are taken as they are, longer numbers are rounded outward to floats.
    pieces : int or sequence of int
        Pieces of equal width per side.
    bits : int
        Precision of each operation, at least 16.

    Returns
    -------
    Enclosure
        ``.low`` and ``.high`` bound the function on the whole box; ``.boxes`` is the number of pieces.

    Raises
    ------
    ValueError
        If there is no side, a side is not an increasing pair of finite numbers, or `pieces` or `bits` is out of range.
    ArithmeticError
        If the enclosure on some piece is not finite, as by a division by an interval that holds zero.

    Examples
    --------
    On [0, 1] the function x(1 - x) has the range [0, 1/4]; intervals know nothing of the two factors' connection, so
    that each piece adds its width.

    >>> found = over(lambda iv, x: x * (1 - x), (0.0, 1.0), pieces=1000)
    >>> found.low <= 0 and 0.25 <= found.high < 0.251
    True
    >>> print(found)
    [0, 0.2505] on 1000 boxes, 64 bits
    """
    context = arithmetic(bits)
    if not sides:
        raise ValueError("sides: got none, needs at least one pair of numbers")
    validate.function("function", function)
    several = isinstance(pieces, (list, tuple)) or isinstance(pieces, np.ndarray) and pieces.ndim > 0
    counts = list(pieces) if several else [pieces] * len(sides)
    if len(counts) != len(sides):
        raise ValueError(f"pieces: got {len(counts)} of them, needs one number, or one for each of {len(sides)} sides")
    cuts = [_cut(context, side, validate.integer("pieces", n, least=1, most=10**7)) for side, n in zip(sides, counts)]
    lows, highs = [], []
    for piece in product(*cuts):
        low, high = ends(context.convert(function(context, *piece)))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ArithmeticError(f"function: its values on {', '.join(map(str, piece))} are not enclosed: more pieces?")
        lows.append(low)
        highs.append(high)
    return Enclosure(low=min(lows), high=max(highs), boxes=len(lows), bits=context.prec)


def below(
    function: Callable, *sides: tuple[float, float], bound: float, bits: int = 64, most: int = 100_000
) -> Enclosure:
    r"""Prove that a function is less than `bound` on a box, halving pieces until each of them shows it.

    A piece that does not show it is cut across the side that is longest in comparison with the whole box.

    Parameters
    ----------
    function : callable
        As in `over`.
    *sides : (float, float)
        Ends of the box in each variable.
    bound : float
        What every value must be less than.
    bits : int
        Precision of each operation, at least 16.
    most : int
        Pieces after which to give up.

    Returns
    -------
    Enclosure
        ``.high < bound``; ``.boxes`` is the number of pieces of the final cut.

    Raises
    ------
    ValueError
        On sides, a bound or numbers that `over` would not take.
    ArithmeticError
        If more than `most` pieces would be needed, as where the statement is false.

    Examples
    --------
    >>> print(below(lambda iv, x: x * (1 - x), (0.0, 1.0), bound=0.26))
    [0, 0.259766] on 18 boxes, 64 bits
    >>> below(lambda iv, x: x * (1 - x), (0.0, 1.0), bound=0.25, most=1000)
    Traceback (most recent call last):
    ...
    ArithmeticError: function: not shown to be less than 0.25 on 1000 boxes
    """
    context = arithmetic(bits)
    if not sides:
        raise ValueError("sides: got none, needs at least one pair of numbers")
    validate.function("function", function)
    limit, most = validate.number("bound", bound), validate.integer("most", most, least=1)
    whole = [tuple(ends(_cut(context, side, 1)[0])) for side in sides]
    waiting, done, least, largest = [whole], 0, np.inf, -np.inf
    while waiting:
        piece = waiting.pop()
        low, high = ends(context.convert(function(context, *(context.mpf(list(side)) for side in piece))))
        if high < limit and np.isfinite(low):
            done, least, largest = done + 1, min(least, low), max(largest, high)
            continue
        halves = _halves(piece, whole)
        if done + len(waiting) + 2 > most or not halves:
            raise ArithmeticError(f"function: not shown to be less than {limit:g} on {most} boxes")
        waiting += halves
    return Enclosure(low=least, high=largest, boxes=done, bits=context.prec)


def _halves(piece, whole):
    """The piece cut across the side that is longest beside the whole's; none if no float lies between its ends."""
    widths = [(b - a) / (end - start) for (a, b), (start, end) in zip(piece, whole)]
    longest = int(np.argmax(widths))
    a, b = piece[longest]
    middle = a + (b - a) / 2
    if not a < middle < b:
        return []
    return [[*piece[:longest], half, *piece[longest + 1 :]] for half in ((a, middle), (middle, b))]


def _cut(context, side, pieces):
    """Intervals that cover the side; neighbours share the float between them."""
    ends_given = validate.real("sides", side)
    if ends_given.shape != (2,) or not ends_given[0] < ends_given[1]:
        raise ValueError(f"sides: got {side!r}, needs pairs (low, high) with low < high")
    low, high = (_outward(end, number, way) for end, number, way in zip(side, ends_given, (-np.inf, np.inf)))
    if not np.isfinite(high - low):
        raise ValueError(f"sides: got {side!r}, needs pairs whose width is within the floating range")
    marks = np.linspace(low, high, pieces + 1)
    return [context.mpf([float(a), float(b)]) for a, b in zip(marks, marks[1:])]


def _outward(end, number, way):
    """The end of a side as a float that does not lie inside of it."""
    try:
        exact = operator.index(end)
    except TypeError:  # no integer
        exact = number
    with np.errstate(over="ignore"):
        rounded = float(number)
    inside = rounded > exact if way < 0 else rounded < exact
    return float(np.nextafter(rounded, way)) if inside else rounded
