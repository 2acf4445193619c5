r"""The route to chaos: how the long-run behaviour of descent changes with the learning rate.

The one-mode map in units of its minimum is :math:`f(u) = u + \tfrac qL (1 - u^L)\,u^{L-1}`, with :math:`q = \eta S`. It has one
positive critical point c. Measured in units of c, with the *overshoot* :math:`r = f(c)/c` in place of q, everything is a
polynomial: with :math:`D = (2L-1)r - 2(L-1)` and :math:`E = (L-1)r - (L-2)`,

.. math:: w \mapsto w + \tfrac1L w^{L-1}(D - E\,w^L),\qquad q = D\,(D/E)^{1-2/L},\qquad c^L = E/D,

and the critical point is w = 1. So every rate at which the critical orbit closes, hits the minimum or hits zero is a root of a
polynomial in r.

Where `scalar` has the same quantity (`scalar.window`: chaos, sign change, divergence; `scalar.lyapunov`), this is on purpose a
second route that shares no code with it: other coordinates, extended precision, the outer cycle in closed form. Likewise
`pair_step`, vectorised over an orbit, is written out apart from `transverse.sector_hessian`. The tests compare them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
import sympy as sp
from numpy.typing import ArrayLike
from scipy.optimize import brentq, fsolve

from . import descent, hessian, network, validate

# Beyond this layer value (in units of the minimum) no orbit of depth >= 2 comes back.
FAR = 3.0


# ---------------------------------------------------------------------------------------------------------------------
# The map in units of its critical point
# ---------------------------------------------------------------------------------------------------------------------
def rate(overshoot: Any, depth: int) -> Any:
    r"""Learning rate ``q = eta S`` whose map has the overshoot r: :math:`q = D\,(D/E)^{1-2/L}`, increasing from q(1) = 1.

    Takes floats, arrays and mpmath numbers.

    Raises
    ------
    ValueError
        If `depth` is below 2, or an overshoot is not a finite number of at least 1, or so large that q overflows.

    Examples
    --------
    Depth 2: q = 3r - 2, so the orbit of the critical point escapes (q = 4) when it doubles.

    >>> float(rate(2.0, 2))
    4.0
    """
    depth = validate.integer("depth", depth, least=2)
    r = _numbers("overshoot", overshoot, least=1)
    power = 1 - mpmath.mpf(2) / depth if isinstance(overshoot, mpmath.mpf) else 1 - 2 / depth
    with np.errstate(over="ignore", invalid="ignore"):
        D, E = _coefficients(r, depth)
        q = D * (D / E) ** power
    return validate.representable("overshoot", overshoot, q) if isinstance(q, float | np.ndarray) else q


def overshoot(q: float, depth: int) -> float:
    """Inverse of `rate`: the overshoot of the map at one learning rate q >= 1.

    Examples
    --------
    >>> round(overshoot(4.0, 2), 12)
    2.0
    """
    q, depth = validate.number("q", q), validate.integer("depth", depth, least=2)
    if q < 1:
        raise ValueError(f"q: got {q}, needs at least 1, where the critical point is the minimum")
    if q > 1e300 / depth:
        raise ValueError(f"q: got {q} at depth {depth}, needs at most 1e300 / depth")
    return brentq(lambda r: rate(r, depth) - q, 1.0, 1.0 + q, xtol=1e-15, rtol=1e-15)


def critical_orbit(overshoot: Any, depth: int, steps: int) -> list:
    """First `steps` images of the critical point, in its own units: ``[r, w_2, ..., w_steps]``.

    Takes floats, arrays, mpmath and SymPy numbers.

    Raises
    ------
    ValueError
        If `overshoot` is not finite and real, `depth` or `steps` is out of range, or the orbit overflows.

    Examples
    --------
    Depth 2 at q = 4: 1 -> 2 -> -2 -> 2, the outer two-cycle.

    >>> critical_orbit(2, 2, 3)
    [2.0, -2.0, 2.0]
    """
    depth = validate.integer("depth", depth, least=2)
    r, orbit, w = _numbers("overshoot", overshoot), [], 1
    for k in range(validate.integer("steps", steps, least=1)):
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                D, E = _coefficients(r, depth)
                w = w + w ** (depth - 1) * (D - E * w**depth) / depth
            finite = not isinstance(w, float | np.ndarray) or np.all(np.isfinite(w))
        except OverflowError:  # plain floats say so in powers only
            finite = False
        if not finite:
            raise ValueError(f"overshoot, depth: got {overshoot!r}, {depth}, whose orbit overflows at step {k + 1}")
        orbit.append(w)
    return orbit


def _numbers(name, value, *, least=-np.inf):
    """Check numbers, but leave mpmath's and SymPy's what they are."""
    need = "needs finite real numbers" + (f" >= {least}" if least > -np.inf else "")
    if isinstance(value, mpmath.mpf):
        if not (mpmath.isfinite(value) and value >= least):
            raise ValueError(f"{name}: got {value}, {need}")
        return value
    if isinstance(value, sp.Expr):
        if not (value.is_real and value.is_finite and (value >= least) is sp.true):
            raise ValueError(f"{name}: got {value}, {need}")
        return value
    array = validate.cast(name, value, validate.real(name, value, need=need), float)
    if np.any(array < least):
        raise ValueError(f"{name}: got {value!r}, {need}")
    return float(array) if array.ndim == 0 else array


def _ladder(rates, least):
    """Check an increasing or decreasing sequence of plain or mpmath numbers."""
    try:
        rates = [_numbers("rates", x) for x in rates]
    except TypeError:
        raise ValueError(f"rates: got {rates!r}, needs a sequence of numbers") from None
    if len(rates) < least:
        raise ValueError(f"rates: got {len(rates)} of them, needs at least {least}")
    if any(np.ndim(x) for x in rates) or any(a == b for a, b in zip(rates, rates[1:])):
        raise ValueError(f"rates: got {rates}, needs single numbers, neighbours different")
    return rates


def _coefficients(r, depth):
    return (2 * depth - 1) * r - 2 * (depth - 1), (depth - 1) * r - (depth - 2)


def _return(r, depth, period):
    """Value of w_period - 1 and its derivative with respect to r."""
    D, E = _coefficients(r, depth)
    dD, dE = 2 * depth - 1, depth - 1
    w, dw = 1, 0
    for _ in range(period):
        low = w ** (depth - 1)
        top = low * w
        slope = 1 + w ** (depth - 2) * (dE * D - dD * E * top) / depth
        w, dw = w + low * (D - E * top) / depth, slope * dw + low * (dD - dE * top) / depth
    return w - 1, dw


# ---------------------------------------------------------------------------------------------------------------------
# Superstable cycles and Feigenbaum's constant
# ---------------------------------------------------------------------------------------------------------------------
def superstable(depth: int, period: int, near: float, *, digits: int = 30) -> Any:
    r"""Overshoot at which the critical point lies on a cycle of the given period, by Newton's method from `near`.

    Parameters
    ----------
    depth, period : int
    near : float or mpf
        First guess of the overshoot.
    digits : int
        Decimal digits carried (mpmath), at least 15. Newton's last move is below ``10^(4 - digits)``.

    Returns
    -------
    mpf
        Overshoot r; ``rate(r, depth)`` is the learning rate.

    Raises
    ------
    ValueError
        If `depth` is below 2, `period` below 1, `digits` below 15, or `near` is not a finite number.
    RuntimeError
        If Newton's method does not settle, or settles on a cycle of a smaller period.

    Examples
    --------
    Depth 2, period 2: r is the square root of 2.

    >>> mpmath.nstr(superstable(2, 2, 1.4), 12)
    '1.41421356237'
    """
    depth, period = validate.integer("depth", depth, least=2), validate.integer("period", period, least=1)
    digits, near = validate.integer("digits", digits, least=15, most=10_000), _numbers("near", near)
    if not isinstance(near, mpmath.mpf | sp.Expr):
        near = validate.number("near", near)
    if not near >= 1:
        raise ValueError(f"near: got {near}, needs at least 1, the minimum")
    with mpmath.workdps(digits):
        r = mpmath.mpf(near)
        small = mpmath.mpf(10) ** (4 - digits)
        for _ in range(60):
            value, slope = _return(r, depth, period)
            move = value / slope
            r -= move
            if abs(move) < small:
                break
        else:
            raise RuntimeError(f"no superstable cycle of period {period} near overshoot {near}")
        orbit = critical_orbit(r, depth, period)
        if any(abs(w - 1) < mpmath.sqrt(mpmath.eps) for w in orbit[:-1]):
            raise RuntimeError(f"the cycle near overshoot {near} has a period smaller than {period}")
        return r


def cascade(depth: int, doublings: int, *, digits: int = 30) -> list:
    r"""Learning rates q at which the cycles of period 1, 2, 4, ..., 2^doublings are superstable, as mpmath numbers.

    Each guess is extrapolated with the last ratio of gaps; nothing about the limit is put in.

    Raises
    ------
    ValueError
        If `depth` is below 2 or beyond a million, `doublings` below 1, or `digits` below 15.
    RuntimeError
        As `superstable`.

    Examples
    --------
    >>> [mpmath.nstr(q, 7) for q in cascade(2, 2)]
    ['1.0', '2.242641', '2.525979']
    """
    doublings = validate.integer("doublings", doublings, least=1)
    depth = validate.integer("depth", depth, least=2, most=1_000_000)
    digits = validate.integer("digits", digits, least=15)
    with mpmath.workdps(digits):
        limit = zero_hit(depth)
        second = brentq(lambda r: critical_orbit(r, depth, 2)[-1] - 1, 1 + 0.01 / depth, limit)
        roots = [mpmath.mpf(1), superstable(depth, 2, second, digits=digits)]
        ratio = 4.4
        for n in range(2, doublings + 1):
            guess = roots[-1] + (roots[-1] - roots[-2]) / ratio
            roots.append(superstable(depth, 2**n, guess, digits=digits))
            ratio = (roots[-2] - roots[-3]) / (roots[-1] - roots[-2])
        return [rate(r, depth) for r in roots]


def feigenbaum(rates: Sequence) -> list:
    r"""Ratios of successive gaps, :math:`\delta_n = (q_n - q_{n-1})/(q_{n+1} - q_n)`; they tend to 4.6692016...

    Raises
    ------
    ValueError
        If there are fewer than three rates, one is not a finite number, two neighbours are equal, or a gap or a ratio
        overflows.

    Examples
    --------
    >>> feigenbaum([0.0, 4.0, 5.0])
    [4.0]
    """
    rates = _ladder(rates, 3)
    gaps = _finite(rates, [b - a for a, b in zip(rates, rates[1:])])
    return _finite(rates, [a / b for a, b in zip(gaps, gaps[1:])])


def _finite(rates, found):
    """Return a list of plain or mpmath numbers if none has overflowed."""
    if not all(x - x == 0 for x in found):
        raise ValueError(f"rates: got {validate.short(rates)}, needs numbers whose gaps and ratios are within range")
    return found


def accumulation(rates: Sequence) -> Any:
    """Limit of a cascade by extrapolating its last three members as a geometric series.

    Raises
    ------
    ValueError
        As `feigenbaum`, or if the last two gaps are equal or grow, so that there is no limit.

    Examples
    --------
    >>> accumulation([0.0, 1.0, 1.5])
    2.0
    """
    rates = _ladder(rates, 3)
    ratio = feigenbaum(rates[-3:])[0]
    if not abs(ratio) > 1:
        raise ValueError(f"rates: got gaps that do not shrink (last ratio {float(ratio):.6g}), needs a convergent cascade")
    return _finite(rates, [rates[-1] + (rates[-1] - rates[-2]) / (ratio - 1)])[0]


# ---------------------------------------------------------------------------------------------------------------------
# Landmarks past the accumulation point
# ---------------------------------------------------------------------------------------------------------------------
def zero_hit(depth: int) -> float:
    r"""Overshoot at which the critical orbit hits zero: :math:`r^{L-2}[(L-1)r^{L+1} - (L-2)r^L - (2L-1)r + 2(L-1)] = L`.

    Examples
    --------
    >>> round(zero_hit(2) ** 2, 12)
    3.0
    """
    return _outer_root(validate.integer("depth", depth, least=2), 1)


def _outer_root(depth, multiple):
    """Root r > 1 of the polynomial of `zero_hit` with `multiple` times L on the right (2: the orbit hits -f(c))."""

    def excess(r):
        D, E = _coefficients(r, depth)
        return r ** (depth - 2) * (E * r**depth - D) - multiple * depth

    # at r = 1 + s/L the left side grows like exp(2s) (1 + s), so that a root has s below log L + 4
    return brentq(excess, 1.0, 1 + (4 + np.log(depth)) / depth, xtol=1e-15, rtol=1e-15)


def _outer_odd(depth):
    r"""Overshoot, for odd depth, at which f(c) lies on the outer cycle P, -kP.

    The cycle is explicit in k: :math:`P^L = (1+k^{L-1})/(1-k^{2L-1})` and :math:`q = L(1+k)/[P^{L-2}(P^L-1)]`.
    """

    def cycle(k):
        """P in units of the minimum, and log q; P^L - 1 is too small for a difference in deep networks."""
        log_excess = (depth - 1) * np.log(k) + np.log1p(k**depth) - np.log1p(-(k ** (2 * depth - 1)))
        log_power = np.log1p(np.exp(log_excess))
        return np.exp(log_power / depth), np.log(depth * (1 + k)) - (1 - 2 / depth) * log_power - log_excess

    def excess(k):
        outer, log_q = cycle(k)
        r = overshoot(np.exp(log_q), depth)
        return r * _critical_point(r, depth) - outer

    # q falls with k; divergence lies beyond the edge q = 2, and far below q = 100 at every depth up to 10^6
    edge, far = (brentq(lambda k, q=q: cycle(k)[1] - np.log(q), 0.01, 1 - 1e-12) for q in (2, 100))
    return overshoot(np.exp(cycle(brentq(excess, far, edge, xtol=1e-15, rtol=1e-15))[1]), depth)


@dataclass(frozen=True)
class Landmarks:
    """Learning rates q = eta S of one depth past the period doublings."""

    depth: int
    band_merging: float  # two chaotic bands become one: the third image of c is the minimum
    period_three: float  # a three-cycle is born in a tangent bifurcation
    period_three_superstable: float
    period_six: float  # the three-cycle loses stability
    period_three_end: float  # interior crisis: its three chaotic bands meet the unstable three-cycle
    sign_change: float  # second image of c is zero; beyond, positive orbits become negative
    divergence: float  # first image of c lies on the outer cycle of mixed sign; beyond, it escapes to infinity


def landmarks(depth: int) -> Landmarks:
    """Landmarks of the one-mode map of one depth, each a root of a polynomial, or of two (the three-cycle; divergence at odd depth).

    Raises
    ------
    ValueError
        If `depth` is below 2 or beyond 10 000.

    Examples
    --------
    >>> m = landmarks(2)
    >>> round(m.sign_change - (3 * 3**0.5 - 2), 9), round(m.divergence, 9)
    (0.0, 4.0)
    """
    depth = validate.integer("depth", depth, least=2, most=10_000)
    zero = zero_hit(depth)
    second = brentq(lambda r: critical_orbit(r, depth, 2)[-1] - 1, 1 + 0.01 / depth, zero)

    def merging(r):
        D, E = _coefficients(r, depth)
        return critical_orbit(r, depth, 3)[-1] - (D / E) ** (1 / depth)

    merge = brentq(merging, second, zero, xtol=1e-15)
    three = brentq(lambda r: critical_orbit(r, depth, 3)[-1] - 1, merge, zero, xtol=1e-15)
    outer = _outer_root(depth, 2) if depth % 2 == 0 else _outer_odd(depth)
    born, doubled, end = _window(depth, three, 3)
    numbers = {"band_merging": merge, "period_three_superstable": three, "sign_change": zero, "divergence": outer}
    numbers = {name: float(rate(r, depth)) for name, r in numbers.items()}
    return Landmarks(depth, period_three=born, period_six=doubled, period_three_end=end, **numbers)


def _window(depth, r, period):
    """Rates q at which the window around a superstable overshoot r opens, first doubles and ends in a crisis.

    Near the critical point the return map is z^2 + k in suitable units: k = 1/4, -3/4 and -2 give first guesses.
    """
    q, c = float(rate(r, depth)), _critical_point(r, depth)
    curvature, drift = _second_slope(c, q, depth, period), _drift(q, depth, period)
    unit = 1 / (2 * curvature * drift)

    def condition(multiplier):
        def equations(x):
            u, slope = _iterate(x[0], x[1], depth, period)
            return u - x[0], slope - multiplier

        return equations

    def solve(multiplier, guess):
        found, _, _, message = fsolve(condition(multiplier), guess, xtol=1e-13, full_output=True)
        # MINPACK may fail for the last digits that the tolerance asks for; the residual says whether they matter
        if np.abs(condition(multiplier)(found)).max() > 1e-10:
            raise RuntimeError(f"depth {depth}: no cycle of period {period} with multiplier {multiplier}: {message}")
        return found[1]

    born = solve(1.0, (c + 1 / curvature, q + unit))
    doubled = solve(-1.0, (c - 1 / curvature, q - 3 * unit))

    def crisis(x):
        start = _critical_point(overshoot(x, depth), depth)
        return _iterate(start, x, depth, 3 * period)[0] - _iterate(start, x, depth, 2 * period)[0]

    return float(born), float(doubled), brentq(crisis, q - 6.5 * unit, q - 9.5 * unit, xtol=1e-13)


def _critical_point(r, depth):
    D, E = _coefficients(r, depth)
    return (E / D) ** (1 / depth)


def _iterate(u, q, depth, times):
    """``times`` steps of the map in u, and the slope of the composition."""
    slope = 1.0
    for _ in range(times):
        low = u ** (depth - 2)
        slope *= 1 + q / depth * low * (depth - 1 - (2 * depth - 1) * low * u * u)
        u = u + q / depth * (1 - low * u * u) * low * u
    return u, slope


def _second_slope(c, q, depth, period):
    h = 1e-5 / depth  # the map bends over a distance of one over the depth
    return (_iterate(c + h, q, depth, period)[1] - _iterate(c - h, q, depth, period)[1]) / (2 * h)


def _drift(q, depth, period, h=1e-6):
    def gap(x):
        c = _critical_point(overshoot(x, depth), depth)
        return _iterate(c, x, depth, period)[0] - c

    return (gap(q + h) - gap(q - h)) / (2 * h)


# ---------------------------------------------------------------------------------------------------------------------
# Scans over the learning rate
# ---------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Scan:
    """Long-run orbits of the one-mode map, one row per learning rate."""

    q: np.ndarray  # (n,)
    orbits: np.ndarray  # (n, keep), layer value in units of the minimum; inf once an orbit has left for infinity
    lyapunov: np.ndarray  # (n,), natural logarithm per step
    balance: np.ndarray  # (n,), mean of ln|2 - g|, g the growth factor of the layer value: rate at which gaps change
    fate: np.ndarray  # (n,), "bounded", "saddle" (odd depth: below zero and drawn to it) or "diverged"


def scan(depth: int, q: ArrayLike, *, steps: int = 3000, keep: int = 200, start: float = 0.7) -> Scan:
    r"""Follow the one-mode map for many learning rates at once.

    Parameters
    ----------
    depth : int
    q : (n,) array_like
        Learning rates :math:`q = \eta S > 0`.
    steps, keep : int
        Steps made in all, and how many of the last are kept; the exponents are means over all but the first third.
    start : float
        First layer value in units of the minimum; from small ones deep networks take long to leave the saddle. Below
        ``landmarks(depth).sign_change`` at most one positive cycle attracts, whatever the start.

    Returns
    -------
    Scan

    Raises
    ------
    ValueError
        If a number is not positive, `start` is beyond 3, or `keep` exceeds `steps`.

    Examples
    --------
    >>> s = scan(2, [1.5, 2.2, 5.0], steps=2000, keep=2)
    >>> s.orbits[0].round(6).tolist(), s.fate.tolist()
    ([1.0, 1.0], ['bounded', 'bounded', 'diverged'])
    >>> round(float(s.lyapunov[0] - np.log(0.5)), 6)
    0.0
    """
    depth = validate.integer("depth", depth, least=2, most=10_000)
    q = np.atleast_1d(validate.cast("q", q, validate.positive("q", q), float))
    steps, keep = validate.integer("steps", steps, least=3), validate.integer("keep", keep, least=1)
    if q.ndim != 1:
        raise ValueError(f"q: got shape {q.shape}, needs one number or a list")
    start = validate.number("start", start, sign="> 0")
    if keep > steps or not start < FAR:
        raise ValueError(f"keep, start: got {keep}, {start}, needs keep <= steps = {steps} and 0 < start < {FAR}")
    u, gone = np.full(q.shape, float(start)), np.zeros(q.shape, bool)
    sums, orbits, counted = np.zeros((2,) + q.shape), np.empty(q.shape + (keep,)), 0
    with np.errstate(over="ignore"):  # powers of up to 3 in deep networks
        for t in range(steps):
            low = math.prod([u] * (depth - 2))
            top = low * u * u
            growth = 1 + q / depth * (1 - top) * low
            if t >= steps // 3:
                slope = 1 + q / depth * low * (depth - 1 - (2 * depth - 1) * top)
                sums += np.log(np.maximum(np.abs([slope, 2 - growth]), 1e-300))
                counted += 1
            u = growth * u
            gone |= np.abs(u) > FAR
            u[gone] = FAR
            if t >= steps - keep:
                orbits[:, t - steps + keep] = np.where(gone, np.inf, u)
        captured = (depth % 2 == 1) & (u < 0) & (q / depth * (1 + np.abs(u) ** depth) * np.abs(u) ** (depth - 2) < 1)
    fate = np.where(gone, "diverged", np.where(captured, "saddle", "bounded"))
    lyapunov, balance = np.where(gone, np.inf, sums / counted)
    return Scan(q=q, orbits=orbits, lyapunov=lyapunov, balance=balance, fate=fate)


def period(orbits: ArrayLike, *, longest: int = 16, tolerance: float = 1e-6) -> np.ndarray:
    """Smallest period of each orbit, 0 where none up to `longest` fits or the orbit has not settled.

    An orbit has the period p if states p apart are the same, to `tolerance` times the orbit's largest value, and if over
    the whole record such states drift by at most a thousandth of what tells p from every smaller period. The second
    condition keeps an orbit that is still creeping to rest in smaller and smaller swings from being called a cycle.

    Parameters
    ----------
    orbits : (n, T) array_like
        Consecutive states, ``T >= 2 * longest``; rows with infinities have no period.
    longest : int
        Longest period looked for.
    tolerance : float
        Relative to the largest value of the orbit.

    Returns
    -------
    (n,) ndarray of int

    Raises
    ------
    ValueError
        If `orbits` is not real or has another shape, or `longest` or `tolerance` is not positive.

    Notes
    -----
    Swings that shrink by less than a thousandth over the record are not told from a cycle: keep more states.

    Examples
    --------
    >>> states = [[1.0, 2.0, 1.0, 2.0], [3.0, 3.0, 3.0, 3.0], [1.0, 2.0, 4.0, 8.0]]
    >>> period(np.array(states), longest=2).tolist()
    [2, 1, 0]

    Just before the edge the swings shrink by a thousandth a step, too slowly for a difference of neighbours to show:

    >>> period(scan(2, [1.999], steps=3000, keep=48).orbits).tolist()
    [0]
    """
    states = validate.plain("orbits", orbits, need="needs real numbers")
    if states.dtype.kind not in "iuf":
        raise ValueError(f"orbits: got {validate.short(orbits)}, needs real numbers")
    orbits = states
    longest = validate.integer("longest", longest, least=1)
    tolerance = validate.number("tolerance", tolerance, sign="> 0")
    if orbits.ndim != 2 or orbits.shape[1] < 2 * longest:
        raise ValueError(
            f"orbits: got shape {orbits.shape}, needs (n, T) with T >= 2 * longest = {2 * longest}"
        )
    finite = np.isfinite(orbits).all(axis=1)
    safe = np.where(finite[:, None], orbits, 0.0).astype(np.result_type(orbits, float))
    size, telling = np.abs(safe).max(axis=1), np.full(len(safe), np.inf)
    answer = np.zeros(len(safe), dtype=int)
    for p in range(1, longest + 1):
        spread = np.max([np.ptp(safe[:, k::p], axis=1) for k in range(p)], axis=0)
        step = np.abs(safe[:, p:] - safe[:, :-p]).max(axis=1)
        fits = (step <= tolerance * size) & (spread <= 1e-3 * telling)
        answer = np.where((answer == 0) & finite & fits, p, answer)
        telling = np.minimum(telling, spread)
    return answer


def pair_step(u: ArrayLike, q: ArrayLike, ratio: ArrayLike, depth: int) -> np.ndarray:
    r"""One step of descent for a small rotation between the oscillating mode and a second mode at rest.

    With mode 1 at layer value u and mode j at rest at :math:`b = (\sigma_j/\sigma_1)^{1/L}`, perturb entry (1, j) of layer l by
    :math:`x_l` and entry (j, 1) by :math:`\pm x_{L+1-l}`. One step multiplies x by :math:`I - \tfrac qL A_\pm(u)`,

    .. math:: A_\pm = v v^\top \pm (u^L - 1)\,N,\quad v_l = u^{L-l} b^{l-1},\quad N_{l,L+1-k} = u^{L-l+k-1} b^{l-1-k}\ (k < l).

    Parameters
    ----------
    u, q : (n,) array_like
        Layer values of mode 1 in units of its minimum, and learning rates; they broadcast.
    ratio : float
        :math:`\sigma_j/\sigma_1`, between 0 and 1.
    depth : int

    Returns
    -------
    (2, n, L, L) ndarray
        The two sectors, + then -.

    Raises
    ------
    ValueError
        If `ratio` is not a number between 0 and 1, `u` is not finite, `q` is not positive, or they do not broadcast to
        one dimension.

    Examples
    --------
    At the minimum of a two-layer network the eigenvalue is 1 - (q/2)(1 + ratio), beside a neutral one; the block is
    symmetric:

    >>> np.linalg.eigvalsh(pair_step([1.0], [2.0], 0.25, 2)[0, 0]).round(9).tolist()
    [-0.25, 1.0]
    """
    depth, ratio = validate.integer("depth", depth, least=2, most=1000), _ratio(ratio)
    u = np.atleast_1d(validate.cast("u", u, validate.real("u", u), float))
    q = np.atleast_1d(validate.cast("q", q, validate.positive("q", q), float))
    if u.ndim != 1 or q.ndim != 1 or 1 not in (u.size, q.size) and u.size != q.size:
        raise ValueError(f"u, q: got shapes {u.shape}, {q.shape}, needs one dimension, and the same length or one")
    with np.errstate(over="ignore", invalid="ignore"):
        found = _pair_step(*np.broadcast_arrays(u, q), ratio, depth)
    return validate.representable("u, q", (u, q), found)


def _row(name, array):
    """A row of at least one number; one number is a row of one."""
    row = np.atleast_1d(array)
    if row.ndim != 1 or row.size == 0:
        raise ValueError(f"{name}: got shape {array.shape}, needs a row of at least one number")
    return row


def _ratio(value):
    ratio = validate.cast("ratio", value, validate.real("ratio", value), float)
    if ratio.ndim or not 0 < ratio < 1:
        raise ValueError(f"ratio: got {value!r}, needs a number between 0 and 1")
    return float(ratio)


def _pair_step(u, q, ratio, depth):
    """`pair_step` without checks."""
    b, layer = ratio ** (1 / depth), np.arange(depth)
    power = u[:, None] ** np.arange(depth + 1)
    v = power[:, depth - 1 - layer] * b**layer
    A = v[:, :, None] * v[:, None, :]
    N = np.zeros_like(A)
    for i in range(depth):
        for k in range(i):
            N[:, i, depth - 1 - k] = power[:, depth - 1 - i + k] * b ** (i - 1 - k)
    N *= (power[:, depth] - 1)[:, None, None]
    return np.eye(depth) - (q / depth)[:, None, None] * np.stack([A + N, A - N])


def pair_exponent(
    depth: int, q: ArrayLike, ratio: ArrayLike, *, steps: int = 6000, transient: int = 1000, seed: int = 0
) -> np.ndarray:
    """Growth rate per step of a small rotation between the oscillating mode and a second mode at rest; see `pair_step`.

    The rotations that leave the network unchanged give the exponent 0; so the larger of the two sectors' exponents is
    zero as long as the aligned orbit is stable, and positive once it is not.

    Parameters
    ----------
    depth : int
    q : (n,) array_like
        Learning rates at which the one-mode orbit is bounded.
    ratio : float
        As in `pair_step`.
    steps, transient : int
        Steps averaged over, and thrown away before.
    seed : int
        Of the first perturbation.

    Returns
    -------
    (n,) ndarray

    Raises
    ------
    ValueError
        If `ratio` is not between 0 and 1, another argument is out of range, or an orbit leaves for infinity.

    Examples
    --------
    Below the edge nothing grows; the exponent is that of the neutral rotations.

    >>> bool(abs(pair_exponent(3, [1.5], 0.6)[0]) < 1e-3)
    True
    """
    depth = validate.integer("depth", depth, least=2, most=1000)
    q = _row("q", validate.cast("q", q, validate.positive("q", q), float))
    ratio, steps = _ratio(ratio), validate.integer("steps", steps, least=1)
    transient, seed = validate.integer("transient", transient, least=0), validate.integer("seed", seed, least=0)
    x = np.random.default_rng(seed).standard_normal((2, q.size, depth, 1))
    u, total = np.full(q.shape, 0.7), np.zeros((2, q.size))
    for t in range(transient + steps):
        with np.errstate(over="ignore", invalid="ignore"):  # an orbit that leaves is reported below
            x = _pair_step(u, q, ratio, depth) @ x
            size = np.maximum(np.linalg.norm(x, axis=(2, 3)), 1e-300)
            x /= size[:, :, None, None]
            total += np.log(size) if t >= transient else 0.0
            u = _iterate(u, q, depth, 1)[0]
        if not np.all(np.abs(u) <= FAR):
            raise ValueError("q: got rates at which the one-mode orbit leaves for infinity")
    return total.max(axis=0) / steps


def pair_limit(depth: int, q: float, orbit: np.ndarray) -> float:
    r"""Largest :math:`\sigma_2/\sigma_1` for which a cycle of the one-mode map survives rotation of the two singular vectors.

    Parameters
    ----------
    depth : int
    q : float
        Learning rate.
    orbit : (period,) array_like
        The cycle, in units of the minimum.

    Returns
    -------
    float
        The ratio at which a multiplier of the pair block over the cycle leaves the unit disc, to about 1e-6.

    Raises
    ------
    ValueError
        If `q` is not positive, `orbit` is no row of finite numbers, or no ratio between 0.001 and 1 - 1e-6 separates
        survival from loss.

    Examples
    --------
    Depth 2, the fixed point u = 1 at q = 2.5: it survives while 1 + ratio < 4/q.

    >>> round(pair_limit(2, 2.5, [1.0]), 5)
    0.6
    """
    depth = validate.integer("depth", depth, least=2, most=1000)
    orbit = _row("orbit", validate.cast("orbit", orbit, validate.real("orbit", orbit), float))
    rates = np.full(orbit.shape, validate.number("q", q, sign="> 0"))
    if np.any(np.abs(orbit) > FAR):
        raise ValueError(f"orbit: got {validate.short(orbit)}, needs layer values in units of the minimum, at most {FAR}")

    def excess(ratio):
        with np.errstate(over="ignore", invalid="ignore"):
            blocks = _pair_step(orbit, rates, ratio, depth)
            total = blocks[:, 0]
            for i in range(1, orbit.size):
                total = blocks[:, i] @ total
        validate.representable("q, orbit", (q, orbit), total)
        return np.abs(np.linalg.eigvals(total)).max() - 1 - 1e-6

    if not excess(1e-3) < 0 < excess(1 - 1e-6):
        raise ValueError(f"orbit: got {orbit}, which at q = {q} no ratio of singular values makes unstable or stable")
    return brentq(excess, 1e-3, 1 - 1e-6, xtol=1e-9)


def network_scan(
    W: np.ndarray, M: np.ndarray, learning_rates: ArrayLike, steps: int, keep: int, *, basis: tuple | None = None
) -> dict:
    """Full-matrix gradient descent for many learning rates: the last `keep` states of each.

    Parameters
    ----------
    W : (L, d, d) array
    M : (d, d) array
    learning_rates : (n,) array_like
    steps, keep : int
    basis : tuple of two (d, d) arrays, optional
        Left and right singular vectors of the target, orthogonal to 1e-6; by default those of LAPACK.

    Returns
    -------
    dict
        ``singular_values`` (n, keep, d), sorted; ``modes`` (n, keep, d), the diagonal of the product in the target's basis, signed;
        ``rotation`` (n,), largest entry off that diagonal; ``sharpness`` (n, keep); ``diverged_at`` (n,), -1 if never.

    Raises
    ------
    ValueError
        As `descent.descend`, or if `basis` is not a pair of orthogonal matrices of the target's size.

    Examples
    --------
    >>> out = network_scan(np.full((2, 1, 1), 0.9), np.eye(1), [0.5], 200, 2)
    >>> out["modes"].round(6).ravel().tolist(), out["sharpness"].round(6).ravel().tolist()
    ([1.0, 1.0], [2.0, 2.0])
    """
    W, M = validate.weights(W, M, numpy_only=True)
    if W.ndim != 3:
        raise ValueError(f"W: got shape {W.shape}, needs one network (L, d, d)")
    left, right = _basis(validate.double("M", M), basis)
    watch = {
        "product": lambda w: left.T @ network.product(w) @ right,
        "sharpness": lambda w: hessian.sharpness(w, M),
    }
    rates = _row("learning_rates", validate.positive("learning_rates", learning_rates))
    validate.cast("learning_rates", learning_rates, rates, W.dtype)
    keep = validate.integer("keep", keep, least=1)
    run = descent.descend(W, M, rates, steps, keep=keep, observe=watch)
    product = run.observed["product"]
    modes = np.diagonal(product, axis1=-2, axis2=-1)
    off = np.where(np.eye(len(M), dtype=bool), 0.0, np.abs(product))
    rotation = np.where(run.diverged, np.inf, off.max(axis=(1, 2, 3)))
    return {
        "singular_values": run.singular_values,
        "modes": modes,
        "rotation": rotation,
        "sharpness": run.observed["sharpness"],
        "diverged_at": run.diverged_at,
    }


def _basis(M, basis):
    """Singular vectors to read the product in."""
    if basis is None:
        left, _, right = np.linalg.svd(M)
        return left, right.T
    if not isinstance(basis, tuple | list) or len(basis) != 2:
        raise ValueError(f"basis: got {type(basis).__name__}, needs a pair of orthogonal matrices")
    left, right = (validate.real("basis", side) for side in basis)
    for side in (left, right):
        if side.shape != M.shape or np.abs(side.T @ side - np.eye(len(side))).max() > 1e-6:
            raise ValueError(f"basis: got a matrix of shape {side.shape}, needs orthogonal ones of shape {M.shape}")
    return left, right
