r"""The one-mode map: what gradient descent does to a single balanced singular value.

When all ``L`` layers of a deep linear network carry the same singular value ``s`` in one mode and the target has the
singular value ``m`` there, gradient descent with learning rate ``eta`` moves every layer by the same amount,

.. math:: s \leftarrow s + \eta\,(m - s^L)\,s^{L-1}.

In units ``u = s / m^(1/L)`` only the depth and ``q = eta S`` are left, where ``S = L m^(2 - 2/L)`` is the sharpness of
the balanced minimum: ``u <- u + (q/L)(1 - u^L) u^(L-1)``, with slope ``1 - q`` at the minimum ``u = 1``.

Apart from the checks of arguments, and the compiled loop on request, this module imports nothing from the library, so
that it can serve as an independent witness of what the full matrices do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from eoslib import validate

# Feigenbaum's constant: it only says where to look for the next superstable cycle of a cascade.
_FEIGENBAUM = 4.669
# No depth diverges before this q = eta S (two layers do so here, deeper networks later), so that `window` can wait.
_LEAST_DIVERGENCE = 4.0


# Deepest network that `window` and `orbit` take: their cost grows with the depth, to about three seconds for `window`.
_DEEPEST = 1000
# Orbits that are iterated together (their arrays stay in cache), and steps between two looks at which have left.
_PART, _LOOK = 8192, 64


def _plain(array):
    """Return a Python float for a zero-dimensional float64 array and the array itself otherwise."""
    array = np.asarray(array)
    return float(array) if array.ndim == 0 and array.dtype == np.float64 else array


def _checked(check, name, value):
    """Check `value`, but leave a Python number a Python number, so that it does not widen a float32 array."""
    array = check(name, value)
    return value if isinstance(value, (int, float)) else array


def _in_one_dtype(s, target, learning_rate):
    """Check the numbers of a step and return them in the dtype of its result; none may be lost there."""
    given = {
        "target": _checked(validate.positive, "target", target),
        "learning_rate": _checked(validate.positive, "learning_rate", learning_rate),
        "s": _checked(validate.real, "s", s),
    }
    validate.together(s=given["s"], target=given["target"], learning_rate=given["learning_rate"])
    dtype = np.result_type(*given.values())
    dtype = np.dtype(float) if dtype.kind != "f" else dtype
    target, learning_rate, s = (validate.cast(name, x, x, dtype) for name, x in given.items())
    return s, target, learning_rate


def _finite(array, name, value, what, *, positive=False):
    """Return the array unless a number in it overflowed or, of positive ones, became zero."""
    if not np.all(np.isfinite(array)) or (positive and np.any(array == 0)):
        raise ValueError(
            f"{name}: got {value}, needs numbers for which {what} is within the range of its floats, at this depth"
        )
    return _plain(array)


def step(s: ArrayLike, target: ArrayLike, depth: int, learning_rate: ArrayLike) -> np.ndarray:
    r"""One step of gradient descent for one balanced mode.

    .. math:: s + \eta\,(m - s^L)\,s^{L-1}

    There is no factor ``L`` in front of the bracket: each layer receives its own gradient, once.

    Parameters
    ----------
    s : float or array
        Singular value carried by each layer (any sign); broadcasts with `target` and `learning_rate`.
    target : float or array
        Singular value ``m > 0`` of the target.
    depth : int
        Number of layers ``L``, at least 2.
    learning_rate : float or array
        Learning rate ``eta > 0``.

    Returns
    -------
    float or array
        The layer's singular value after the step.

    Raises
    ------
    ValueError
        If an argument is not finite, `target` or `learning_rate` is not positive, `depth` is below 2, `s` is so large that
        the step overflows, or a number is zero or infinite in the dtype of the result: in float32 a rate of 1e-60 is zero.

    Notes
    -----
    Corrects the two-step update in the paper's proof of Theorem 1, which has ``eta L`` in place of ``eta``.

    Examples
    --------
    >>> step(1.0, 2.0, 3, 0.1)  # 1 + 0.1 (2 - 1) 1
    1.1
    >>> step(2.0, 16.0, 4, 0.1)  # the minimum stays where it is
    2.0
    """
    depth = validate.integer("depth", depth, least=2)
    s, target, learning_rate = _in_one_dtype(s, target, learning_rate)
    with np.errstate(over="ignore", invalid="ignore"):
        lower = s ** (depth - 1)
        new = s + learning_rate * (target - lower * s) * lower
    return _finite(new, "s", s, "the step")


@dataclass(frozen=True)
class Orbit:
    """What `orbit` returns. From step ``diverged_at`` on, the states of an orbit are ``inf``."""

    states: np.ndarray  # (..., T), the last T of them
    steps: np.ndarray  # (T,), their numbers; 0 is the start
    diverged: np.ndarray  # (...), bool
    diverged_at: np.ndarray  # (...), int: first step whose state is not finite, -1 where there is none


def orbit(
    s: ArrayLike,
    target: ArrayLike,
    depth: int,
    learning_rate: ArrayLike,
    steps: int,
    *,
    keep: int | None = None,
    compiled: bool = False,
) -> Orbit:
    r"""Iterate the one-mode map of `step` for many starts, targets or learning rates at once.

    Parameters
    ----------
    s, target, learning_rate : float or array
        As in `step`; they broadcast, one orbit per entry.
    depth : int
        Number of layers ``L``, 2 to 1000: a step costs L + 3 operations.
    steps : int
        Number of steps; states 0 to `steps` exist.
    keep : int, optional
        Return only the last `keep` states.
    compiled : bool
        Use the kernel of `eoslib.compiled` (numba, the extra ``fast``; float64 only), compiled on first use in about a
        second for each depth. It fuses multiplication and addition, so that it agrees with the plain loop to rounding
        where orbits attract, and in its statistics where they are chaotic.

    Returns
    -------
    Orbit

    Raises
    ------
    ValueError
        As `step`, for a count below its least value, or if numba is missing for `compiled`. An orbit that leaves the
        floating range is no error: it is reported.

    Notes
    -----
    Powers are products here and a library's function in `step`, which for depth 4 and more differs in the last digit.

    Examples
    --------
    The two-cycle of two layers beyond the edge, and an orbit that leaves:

    >>> run = orbit(0.9, 1.0, 2, [1.1, 2.5], 1000, keep=2)
    >>> run.states.round(6).tolist(), run.diverged.tolist()
    ([[1.116063, 0.814552], [inf, inf]], [False, True])
    """
    depth = validate.integer("depth", depth, least=2, most=_DEEPEST)
    given = _in_one_dtype(s, target, learning_rate)
    steps = validate.integer("steps", steps, least=0)
    keep = steps + 1 if keep is None else min(validate.integer("keep", keep, least=1), steps + 1)
    dtype, shape = given[0].dtype, np.broadcast_shapes(*(x.shape for x in given))
    validate.storable("keep", (keep,) + shape)
    run = _compiled(compiled, dtype) if validate.flag("compiled", compiled) else _orbits
    flat = [np.broadcast_to(x, shape).reshape(-1) for x in given]
    states, diverged_at = np.empty((keep, flat[0].size), dtype), np.full(flat[0].size, -1)
    with np.errstate(over="ignore", invalid="ignore"):
        run(*flat, depth, steps, states, diverged_at)
    numbers = np.arange(steps + 1 - keep, steps + 1)
    states[(diverged_at >= 0) & (numbers[:, None] >= diverged_at)] = np.inf
    diverged_at = diverged_at.reshape(shape)
    return Orbit(np.moveaxis(states.reshape((keep,) + shape), 0, -1), numbers, diverged_at >= 0, diverged_at)


def _compiled(compiled, dtype):
    """The compiled loop, for those who have numba."""
    if dtype != np.float64:
        raise ValueError(f"compiled: got {compiled!r} for orbits in {dtype}, needs float64")
    try:
        from eoslib import compiled as module
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        raise ValueError(f"compiled: got {compiled!r}, needs the package numba: {error}") from None
    return module.orbit


def _orbits(s, target, rate, depth, steps, states, diverged_at):
    """Iterate flat arrays, in parts that stay in cache; the last states go to `states` (keep, n)."""
    first = steps + 1 - len(states)
    for start in range(0, s.size, _PART):
        part = slice(start, start + _PART)
        now, m, eta = s[part].copy(), target[part], rate[part]
        lower, bracket = np.empty_like(now), np.empty_like(now)
        if first == 0:
            states[0, part] = now
        for t in range(0, steps, _LOOK):
            before, stop = now.copy(), min(t + _LOOK, steps)
            for k in range(t + 1, stop + 1):
                _move(now, m, eta, depth, lower, bracket)
                if k >= first:
                    states[k - first, part] = now
            lost = ~np.isfinite(now) & (diverged_at[part] < 0)
            for k in range(t + 1, stop + 1 if lost.any() else 0):
                _move(before, m, eta, depth, lower, bracket)
                found = lost & ~np.isfinite(before)
                diverged_at[part][found], lost = k, lost & ~found


def _move(s, target, rate, depth, lower, bracket):
    """One step of the map, in place; the last two are room."""
    np.copyto(lower, s)
    for _ in range(depth - 2):
        np.multiply(lower, s, out=lower)
    np.multiply(lower, s, out=bracket)
    np.subtract(target, bracket, out=bracket)
    np.multiply(rate, bracket, out=bracket)
    np.multiply(bracket, lower, out=bracket)
    np.add(s, bracket, out=s)


def slope(s: ArrayLike, target: ArrayLike, depth: int, learning_rate: ArrayLike) -> np.ndarray:
    r"""Derivative of `step` with respect to ``s``: :math:`1 + \eta\,[(L-1)m s^{L-2} - (2L-1)s^{2L-2}]`.

    One minus this, over the learning rate, is the curvature of the loss along the direction in which all layers move.

    Raises
    ------
    ValueError
        As `step`.

    Examples
    --------
    >>> slope(1.0, 1.0, 5, 0.5)  # at the minimum 1 - eta S
    -1.5
    """
    depth = validate.integer("depth", depth, least=2)
    s, target, learning_rate = _in_one_dtype(s, target, learning_rate)
    with np.errstate(over="ignore", invalid="ignore"):
        lower = s ** (depth - 2)
        slopes = 1 + learning_rate * lower * ((depth - 1) * target - (2 * depth - 1) * lower * s * s)
    return _finite(slopes, "s", s, "the slope")


def sharpness_at_minimum(target: ArrayLike, depth: int) -> np.ndarray:
    r"""Sharpness of the balanced minimum, :math:`S = L\,m^{2-2/L}`.

    Raises
    ------
    ValueError
        If `target` is not finite and positive, `depth` is below 2, or the sharpness is infinite or zero in the dtype of
        the target.

    Examples
    --------
    >>> round(sharpness_at_minimum(8.0, 3), 12)  # 3 * 8^(4/3)
    48.0
    """
    depth = validate.integer("depth", depth, least=2)
    with np.errstate(over="ignore"):
        sharpness = depth * validate.positive("target", target) ** (2 - 2 / depth)
    return _finite(sharpness, "target", target, "the sharpness", positive=True)


def relative_rate(target: ArrayLike, depth: int, learning_rate: ArrayLike) -> np.ndarray:
    r"""Learning rate in units of the inverse sharpness, :math:`q = \eta S = \eta L\,m^{2-2/L}`; the edge is ``q = 2``.

    Raises
    ------
    ValueError
        As `sharpness_at_minimum`, if `learning_rate` is not finite and positive, or if q is infinite or zero.

    Examples
    --------
    >>> relative_rate(9.0, 2, 0.125)  # 0.125 * 2 * 9
    2.25
    """
    rate, sharpness = validate.positive("learning_rate", learning_rate), sharpness_at_minimum(target, depth)
    validate.together(learning_rate=rate, target=sharpness)
    with np.errstate(over="ignore"):
        q = rate * sharpness
    return _finite(q, "learning_rate", learning_rate, "eta S", positive=True)


def _log_cosh(y):
    """log cosh y for y >= 0, without loss of digits near zero and without overflow."""
    near = np.minimum(y, 1.0)
    return np.where(y < 1, np.log1p(2 * np.sinh(near / 2) ** 2), y + np.log1p(np.exp(-2 * y)) - np.log(2))


def _nested(y2, divisors):
    """1 + y2/d_1 (1 + y2/d_2 (1 + ...))."""
    value = 1.0
    for divisor in reversed(divisors):
        value = 1 + y2 / divisor * value
    return value


# y below 1: what is left out is below 1e-17
_SINH = [2 * k * (2 * k + 1) for k in range(1, 9)]  # sinh y = y (1 + y^2/6 (1 + y^2/20 (...)))
_TURN = [2 * k * (2 * k + 3) for k in range(1, 9)]  # y cosh y - sinh y = y^3/3 (1 + y^2/10 (1 + y^2/28 (...)))


def _log_sinh_ratio(y):
    """Value and derivative of log(sinh(y)/y) for y >= 0, without loss of digits near zero and without overflow."""
    near, far = np.minimum(y, 1.0), np.maximum(y, 1.0)
    square = near * near
    small = (
        np.log1p(square / 6 * _nested(square, _SINH[1:])),
        near / 3 * _nested(square, _TURN) / _nested(square, _SINH),
    )
    large = far + np.log1p(-np.exp(-2 * far)) - np.log(2 * far), 1 / np.tanh(far) - 1 / far
    return tuple(np.where(y < 1, a, b) for a, b in zip(small, large))


def _log_edge_ratio(t, depth):
    """Value and derivative of log(q / 2) along the branch, without loss of digits near ``t = 0``."""
    (above, above_rise), (below, below_rise) = _log_sinh_ratio(t), _log_sinh_ratio(depth * t)
    outer, inner, power = 2 * depth - 1, depth - 1, 1 - 2 / depth
    value = above - below + (1 + power) * _log_cosh(outer * t) - power * _log_cosh(inner * t)
    rise = (
        (1 + power) * outer * np.tanh(outer * t) - power * inner * np.tanh(inner * t) + above_rise - depth * below_rise
    )
    return value, rise


def branch(t: ArrayLike, depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""The two-cycle as an explicit function of :math:`t = \tfrac12\ln(\rho_2/\rho_1)`, in units of ``m^(1/L)``.

    .. math::
        q(t) &= 2L\,\frac{\sinh t\,\cosh((2L-1)t)}{\sinh Lt}
               \left[\frac{\cosh((2L-1)t)}{\cosh((L-1)t)}\right]^{1-2/L}, \\
        u_{1,2}^L &= e^{\mp Lt}\,\frac{\cosh((L-1)t)}{\cosh((2L-1)t)} .

    Parameters
    ----------
    t : float or array
        Half the logarithm of the ratio of the two layer values, not negative.
    depth : int
        Number of layers, at least 2.

    Returns
    -------
    q, low, high : float or array
        ``q = eta S`` at which this cycle exists, and its two layer values in units of ``m^(1/L)``.

    Raises
    ------
    ValueError
        If `t` is negative or not finite, or so large that q, which grows like ``L exp((2L-2)t)``, overflows.

    Examples
    --------
    >>> branch(0.0, 3)  # the branch leaves the minimum at q = 2
    (2.0, 1.0, 1.0)
    """
    depth = validate.integer("depth", depth, least=2)
    t = validate.cast("t", t, validate.positive("t", t, zero=True), float)
    with np.errstate(over="ignore", invalid="ignore"):
        q = _finite(2 * np.exp(_log_edge_ratio(t, depth)[0]), "t", t, "q(t)")
    mean = (_log_cosh((depth - 1) * t) - _log_cosh((2 * depth - 1) * t)) / depth
    return _plain(q), _plain(np.exp(mean - t)), _plain(np.exp(mean + t))


def _branch_slopes(t, depth):
    """Slopes of the map at the low and the high point of the cycle with parameter ``t``."""
    down = np.exp(-2 * (depth - 1) * t)
    # with z = exp(2t): L (1 + z^(L-1)) / (1 + z + ... + z^(L-1)) = 2 cosh((L-1)t) (sinh(t)/t) / (sinh(Lt)/(Lt))
    weight = 2 * np.exp(_log_cosh((depth - 1) * t) + _log_sinh_ratio(t)[0] - _log_sinh_ratio(depth * t)[0])
    at_low = 1 + (depth - 1) * np.expm1(2 * t) - weight * down
    at_high = 1 + (depth - 1) * np.expm1(-2 * t) - weight / down
    return at_low, at_high


def branch_multiplier(t: ArrayLike, depth: int) -> np.ndarray:
    r"""Two-step multiplier :math:`F'(\rho_1)F'(\rho_2)` of the cycle with :math:`\rho_2/\rho_1 = e^{2t}`.

    The cycle attracts where it lies strictly between -1 and 1. Along the branch it falls from 1 to minus infinity.

    Raises
    ------
    ValueError
        If `t` is negative or not finite, or so large that the multiplier overflows.

    Examples
    --------
    >>> branch_multiplier(0.0, 5)  # at the edge the two-step slope is (1 - 2)^2
    1.0
    """
    depth = validate.integer("depth", depth, least=2)
    t = validate.cast("t", t, validate.positive("t", t, zero=True), float)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        at_low, at_high = _branch_slopes(t, depth)
        multiplier = at_low * at_high
    return _finite(multiplier, "t", t, "the multiplier")


def branch_parameter(q: ArrayLike, depth: int) -> np.ndarray:
    r"""Invert the branch: ``t >= 0`` with ``q(t) = q``, to rounding, for one ``q`` or an array of them.

    ``q(t)`` increases strictly from 2 to infinity, so the answer is unique.

    Raises
    ------
    ValueError
        If some ``q`` is below 2 or not finite (there is no positive two-cycle).
    RuntimeError
        If Newton's method does not settle (not known to happen).

    Examples
    --------
    >>> round(branch_parameter(branch(0.25, 4)[0], 4), 14)
    0.25
    """
    depth = validate.integer("depth", depth, least=2)
    q = validate.cast("q", q, validate.positive("q", q), float)
    if np.any(q < 2):
        raise ValueError(f"q: got {q}, needs eta S >= 2 for a positive two-cycle")
    goal = np.log1p((q - 2) / 2)
    # log(q/2) starts like curvature t^2 / 2 and ends like 2 (L-1) t; Newton with a bracket, from the first of these
    curvature = 4 / 3 * (depth - 1) * (5 * depth - 4)
    t = np.sqrt(2 * goal / curvature)
    low, high = np.zeros_like(goal), t + goal / (depth - 1)
    for _ in range(80):
        value, rise = _log_edge_ratio(t, depth)
        low, high = np.where(value < goal, t, low), np.where(value < goal, high, t)
        newton = t - (value - goal) / np.where(rise > 0, rise, 1)
        inside = (newton > low) & (newton < high)
        new = np.where(inside, newton, (low + high) / 2)
        move, t = np.abs(new - t), new
        # a move of Newton's method leaves half its square, or less; one by halving is the error itself
        lost = move > np.where(inside, 1e-8, 4e-16) * t
        if not np.any(lost):
            return _plain(t)
    raise RuntimeError(f"branch_parameter: no convergence for q = {q[lost] if q.ndim else q}")


def _reject_past_divergence(q, depth, learning_rate, what):
    """Raise where the largest value that the map reaches escapes to infinity."""
    if not np.any(q >= _LEAST_DIVERGENCE):
        return
    limit = window(depth).divergence
    if np.any(q >= limit):
        raise ValueError(
            f"learning_rate: got {learning_rate!r}, so eta S = {np.max(q):.6g} with this target, which is past divergence; "
            f"{what} at depth {depth} needs eta S < {limit:.6g}"
        )


@dataclass(frozen=True)
class TwoCycle:
    """The positive two-cycle of the one-mode map (floats, or arrays where the learning rate was an array)."""

    low: float  # rho_1, layer singular value below m^(1/L)
    high: float  # rho_2, layer singular value above m^(1/L)
    multiplier: float  # slope of the two-step map; the cycle attracts where it is inside (-1, 1)
    t: float  # half the logarithm of high/low
    q: float  # eta S


def two_cycle(target: float, depth: int, learning_rate: float) -> TwoCycle:
    r"""The one positive two-cycle of the one-mode map, from its explicit branch.

    Parameters
    ----------
    target : float or array
        Singular value ``m > 0`` of the target.
    depth : int
        Number of layers ``L``, at least 2.
    learning_rate : float or array
        Learning rate ``eta`` with ``2 < eta S < window(depth).divergence``.

    Returns
    -------
    TwoCycle
        ``.low < m^(1/L) < .high``, ``.multiplier``, ``.t`` and ``.q``. It attracts only below
        ``window(depth).period_four``; from there on this is a repelling cycle, which training does not reach.

    Raises
    ------
    ValueError
        If ``eta S <= 2`` (there is none) or past divergence, or an argument is not finite or not positive, or `depth`
        is below 2.

    Notes
    -----
    A repelling cycle exists past divergence too, for every ``eta S``: ``branch(branch_parameter(q, depth), depth)``.

    Corrects the paper's Theorem 1. Relative error of ``.low`` and ``.high``: a few 1e-16 for given ``q``. Close to the
    edge their difference is about ``m^(1/L) sqrt(3(q-2)/((L-1)(5L-4)))``, where the rounding of ``q`` dominates.

    Examples
    --------
    For two layers the product of the two values is ``1/eta`` and the sum of their squares ``m + 1/eta``:

    >>> c = two_cycle(9.0, 2, 0.125)
    >>> round(c.low * c.high, 12), round(c.low ** 2 + c.high ** 2, 12)
    (8.0, 17.0)
    """
    q = np.asarray(relative_rate(target, depth, learning_rate))
    if np.any(q <= 2):
        raise ValueError(
            f"learning_rate: got {learning_rate!r}, so eta S = {q} with this target, a positive two-cycle needs eta S > 2"
        )
    _reject_past_divergence(q, depth, learning_rate, "a two-cycle amid bounded orbits")
    t = branch_parameter(q, depth)
    _, low, high = branch(t, depth)
    size = validate.cast("target", target, target, float) ** (1 / depth)
    return TwoCycle(
        low=_plain(size * low), high=_plain(size * high), multiplier=branch_multiplier(t, depth), t=t, q=_plain(q)
    )


@dataclass(frozen=True)
class CycleSharpness:
    """Curvature of the loss at the two points of the cycle, along the direction in which all layers move together."""

    at_low: float  # with every layer at rho_1
    at_high: float  # with every layer at rho_2

    @property
    def mean(self):
        """Mean over the two steps of the cycle."""
        return (self.at_low + self.at_high) / 2

    @property
    def swing(self):
        """High minus low."""
        return self.at_high - self.at_low


def sharpness_on_cycle(target: float, depth: int, learning_rate: float) -> CycleSharpness:
    r"""Curvature along the cycling mode at the two points of the two-cycle.

    With :math:`z = \rho_2/\rho_1` and :math:`Z = 1 + z + \dots + z^{L-1}`,

    .. math::
        \eta\lambda(\rho_1) &= L\,\frac{1 + z^{1-L}}{Z} - (L-1)(z-1), \\
        \eta\lambda(\rho_2) &= L\,\frac{z^{L-1}(1 + z^{L-1})}{Z} + (L-1)\Bigl(1-\frac1z\Bigr).

    At ``rho_2`` this is the sharpness of a network in which no other mode is steeper; at ``rho_1`` the sharpness is
    set by whichever block of the Hessian is steepest there, often that of another mode.

    Raises
    ------
    ValueError
        As `two_cycle`.

    Examples
    --------
    >>> c = sharpness_on_cycle(1.0, 2, 1.1)
    >>> c.at_low < 2 / 1.1 < c.at_high
    True
    """
    depth, cycle = validate.integer("depth", depth, least=2), two_cycle(target, depth, learning_rate)
    at_low, at_high = _branch_slopes(cycle.t, depth)
    rate = validate.cast("learning_rate", learning_rate, learning_rate, float)
    return CycleSharpness(at_low=_plain((1 - at_low) / rate), at_high=_plain((1 - at_high) / rate))


def _power(u, n):
    """u ** n by multiplication only (same result on floats and arrays)."""
    out = 1.0
    for _ in range(n):
        out = out * u
    return out


def _advance(u, q, depth):
    """One step of the scaled map and its slope at ``u`` (no checks: for loops)."""
    low = _power(u, depth - 2)
    top = low * u * u
    return u + q / depth * (1 - top) * low * u, 1 + q / depth * low * (depth - 1 - (2 * depth - 1) * top)


def _critical_point(q, depth):
    """For ``q >= 1``: the ``u`` in (0, 1] where the slope of the map vanishes; beyond, the map falls."""
    start = ((depth - 1) / (2 * depth - 1)) ** (1 / depth)  # the slope is 1 here, decreases from here on, 1 - q at 1
    return brentq(lambda u: _advance(u, q, depth)[1], start, 1.0, xtol=1e-15, rtol=1e-15)


def _image(q, depth, times):
    """The critical point after so many steps."""
    u = _critical_point(q, depth)
    for _ in range(times):
        u = _advance(u, q, depth)[0]
    return u


def _return_gap(q, depth, period):
    """F^period(u_c) - u_c at the critical point: zero where a cycle of this period is superstable."""
    return _image(q, depth, period) - _critical_point(q, depth)


def _superstable(depth, doublings):
    """q at which the cycles of period 1, 2, 4, ... of the first cascade pass through the critical point."""
    t = brentq(lambda x: branch_multiplier(x, depth), 1e-6, 2 / depth, xtol=1e-15)
    rates = [1.0, branch(t, depth)[0]]  # slope 1 - q = 0 at q = 1; then from the explicit branch
    for n in range(2, doublings + 1):
        gap = (rates[-1] - rates[-2]) / _FEIGENBAUM
        left, right = rates[-1] + 0.6 * gap, rates[-1] + 1.5 * gap
        rates.append(brentq(_return_gap, left, right, args=(depth, 2**n), xtol=1e-15, rtol=1e-15))
    return rates


def _cycle_through(q, depth, period, start):
    """A point of a cycle of the given period near ``start``, by Newton's method, and the multiplier of the cycle."""
    for _ in range(40):
        u, multiplier = start, 1.0
        for _ in range(period):
            u, factor = _advance(u, q, depth)
            multiplier *= factor
        move = (u - start) / (1 - multiplier)
        start = start + move
        if abs(move) < 1e-14:  # a few roundings of a number near 1
            return start, multiplier
    raise RuntimeError(f"no cycle of period {period} found near {start} at q = {q}")


def _period_eight(depth, superstable):
    """q at which the four-cycle born from the two-cycle reaches the multiplier -1."""
    left, right = superstable[2], superstable[3]  # the multiplier is 0 at the left end and below -1 at the right end
    centre = _critical_point(left, depth)

    def excess(q):
        u = centre
        for part in np.linspace(left, q, 9)[1:]:  # follow the cycle in small moves of q
            u, multiplier = _cycle_through(part, depth, 4, u)
        return multiplier + 1

    return brentq(excess, left + 1e-9, right, xtol=1e-14)


def _first_zero(function, start, stop, pieces=400):
    """First sign change of ``function`` on a grid, refined by brentq."""
    grid = np.linspace(start, stop, pieces + 1)
    last = function(grid[0])
    for left, right in pairwise(grid):
        value = function(right)
        if last * value <= 0:
            return brentq(function, left, right, xtol=1e-14)
        last = value
    raise RuntimeError(f"no sign change between {start} and {stop}")


@dataclass(frozen=True)
class Window:
    """Learning rates, as ``q = eta S``, at which the one-mode map of one depth changes its behaviour."""

    depth: int
    period_two: float  # the minimum loses stability, the two-cycle is born: 2
    period_four: float  # the two-cycle loses stability (multiplier -1), a four-cycle is born
    period_eight: float  # the four-cycle loses stability
    chaos: float  # accumulation point of the period doublings
    sign_change: float  # from here on an orbit that starts positive can become negative
    divergence: float  # from here on the largest value reached escapes to infinity


@cache
def _window(depth):
    rates = _superstable(depth, 10)
    steps = np.diff(rates)
    ratio = steps[-2] / steps[-1]
    chaos = rates[-1] + steps[-1] / (ratio - 1)  # what is left is close to a geometric series; error about 1e-12
    t_four = brentq(lambda x: branch_multiplier(x, depth) + 1, 1e-6, 2 / depth, xtol=1e-15)
    sign_change = _first_zero(lambda q: _image(q, depth, 2), chaos, 8 * chaos)
    outer = _first_zero(lambda q: _image(q, depth, 3) - _image(q, depth, 1), sign_change * (1 + 1e-6), 4 * sign_change)
    return Window(
        depth=depth,
        period_two=branch(0.0, depth)[0],
        period_four=branch(t_four, depth)[0],
        period_eight=_period_eight(depth, rates),
        chaos=float(chaos),
        sign_change=float(sign_change),
        divergence=float(outer),
    )


def window(depth: int) -> Window:
    """Learning rates (as ``q = eta S``) that bound the regimes of the one-mode map; computed once per depth.

    Parameters
    ----------
    depth : int
        Number of layers, 2 to 1000.

    Returns
    -------
    Window
        ``.period_two .period_four .period_eight .chaos .sign_change .divergence``, each to about 10 digits.

    Raises
    ------
    ValueError
        If `depth` is not a whole number from 2 to 1000 (the time grows with the depth, to a few seconds).

    Notes
    -----
    ``sign_change`` is where the critical point lands on zero after two steps; ``divergence`` is where its first image
    reaches the outer two-cycle of mixed sign, beyond which the steps grow without bound. For odd depth 3 or more a
    layer value that is slightly negative is drawn to the saddle at zero.

    Examples
    --------
    For two layers the ends are known in closed form: 2(sqrt 5 - 1), 3 sqrt 3 - 2 and 4.

    >>> w = window(2)
    >>> round(w.period_four, 9), round(w.sign_change, 9), round(w.divergence, 9)
    (2.472135955, 3.196152423, 4.0)
    """
    depth = validate.integer("depth", depth, least=2)
    if depth > _DEEPEST:
        raise ValueError(f"depth: got {depth}, needs at most {_DEEPEST} for the thresholds beyond the two-cycle")
    return _window(depth)


def _start(start, size, q):
    """The first layer value in units of the minimum; one that is zero there would stay at the saddle."""
    values = validate.real("start", start)
    validate.together(start=values, target=size, learning_rate=q)
    with np.errstate(over="ignore"):
        u = values / size
    if np.any((u == 0) & (values != 0)):
        raise ValueError(f"start: got {validate.short(start)}, which is zero in units of the minimum")
    return u


def lyapunov(
    target: ArrayLike,
    depth: int,
    learning_rate: ArrayLike,
    *,
    steps: int = 4000,
    transient: int = 1000,
    start: ArrayLike | None = None,
) -> np.ndarray:
    r"""Lyapunov exponent of the one-mode map, :math:`\lim \tfrac1T\sum\ln|F'(s_t)|`, per step.

    Negative on attracting cycles, positive where nearby orbits separate.

    Parameters
    ----------
    target, depth, learning_rate
        As in `step`; `target` and `learning_rate` broadcast, one exponent per entry.
    steps, transient : int
        Steps averaged over, and steps thrown away before.
    start : float or array, optional
        First layer value; 0.7 ``m^(1/L)`` by default.

    Returns
    -------
    float or array
        Natural logarithm per step. Statistical error about ``1/sqrt(steps)`` where the orbit is chaotic.

    Raises
    ------
    ValueError
        If a rate lies at or beyond ``window(depth).divergence``, where orbits are unbounded, or an argument is out of
        range.

    Examples
    --------
    On a fixed point it is the logarithm of the slope, here ``1 - q = -1/2``:

    >>> round(lyapunov(1.0, 2, 0.75), 6) == round(float(np.log(0.5)), 6)
    True
    """
    depth = validate.integer("depth", depth, least=2)
    q = relative_rate(target, depth, learning_rate)
    q = validate.cast("target, learning_rate", (target, learning_rate), q, float)
    _reject_past_divergence(q, depth, learning_rate, "a bounded orbit")
    steps, transient = validate.integer("steps", steps, least=1), validate.integer("transient", transient, least=0)
    size = validate.cast("target", target, target, float) ** (1 / depth)
    u = np.full(q.shape, 0.7) if start is None else _start(start, size, q) + np.zeros(q.shape)
    total = np.zeros(q.shape)
    for index in range(transient + steps):
        with np.errstate(over="ignore", invalid="ignore"):  # an orbit that leaves is reported below
            u, factor = _advance(u, q, depth)
        if index >= transient:
            total = total + np.log(np.maximum(np.abs(factor), 1e-300))
        if not np.all(np.abs(u) < 1e3):
            raise ValueError(f"start: got {start!r}, needs a value whose orbit stays bounded")
    return _plain(total / steps)
