r"""How long one mode stays at the first saddle, in closed form; it decides which depths can be simulated.

One mode of an aligned network with target value m: layers 1 to L - 1 have the value a, layer L has b, and gradient flow
is :math:`\dot a = (m - a^{L-1}b)\, a^{L-2} b`, :math:`\dot b = (m - a^{L-1}b)\, a^{L-1}`. It conserves
:math:`a^2 - b^2`, so that :math:`a = \alpha\cosh u`, :math:`b = \alpha\sinh u` from the start with :math:`W_L = 0`.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import gammaln

from . import validate

_LOG_TWO = float(np.log(2))


def escape_time(target: ArrayLike, depth: int, scale: ArrayLike, *, start: str = "unbalanced") -> np.ndarray:
    r"""Flow time from the start to half the target, to leading order in a small scale.

    ============  ==============================================================================  ===============================
    start         L >= 3                                                                          L = 2
    ============  ==============================================================================  ===============================
    unbalanced    :math:`\frac{\sqrt\pi\,\Gamma(L/2-1)}{2\,\Gamma((L-1)/2)}\,\alpha^{2-L}/m`      :math:`\ln(4m/\alpha^2)/(2m)`
    balanced      :math:`\alpha^{2-L}/((L-2)\,m)`                                                 :math:`\ln(m/\alpha^2)/(2m)`
    ============  ==============================================================================  ===============================

    For L >= 3 the next term is a constant of order :math:`m^{2/L-2}`, independent of the scale; see :func:`time_to_reach`
    for the exact time. Gradient descent with rate :math:`\eta` needs at least about this time divided by
    :math:`\eta` steps, and for L >= 3 little more.

    Parameters
    ----------
    target : float or array
        m > 0, the mode's singular value in the target.
    depth : int
        L >= 2.
    scale : float or array
        :math:`0 < \alpha < m^{1/L}`.
    start : {"unbalanced", "balanced"}
        Last layer zero, or all layers equal.

    Returns
    -------
    float or ndarray

    Raises
    ------
    ValueError
        If a number is out of range: at :math:`\alpha \ge m^{1/L}` there is no saddle to leave.

    Examples
    --------
    >>> round(float(escape_time(0.5, 4, 0.01)), 6)  # alpha^-2 / m
    20000.0
    """
    m, depth, alpha = _checked(target, depth, scale, start)
    with np.errstate(over="ignore"):
        if depth == 2:
            time = (np.log((4 if start == "unbalanced" else 1) * m) - 2 * np.log(alpha)) / (2 * m)
        elif start == "balanced":
            time = alpha ** (2.0 - depth) / ((depth - 2) * m)
        else:
            constant = np.sqrt(np.pi) / 2 * np.exp(gammaln(depth / 2 - 1) - gammaln((depth - 1) / 2))
            time = constant * alpha ** (2.0 - depth) / m
        return validate.representable("scale, depth", (scale, depth), time)


def time_to_reach(fraction: ArrayLike, target: ArrayLike, depth: int, scale: ArrayLike) -> np.ndarray:
    r"""Exact flow time from :math:`W_L = 0` until the product of the layers is `fraction` of the target.

    The integral :math:`\int_0^{u} du \,/\, [(m - \alpha^L \cosh^{L-1}u \sinh u)\, \alpha^{L-2}\cosh^{L-2}u]` up to the u
    at which :math:`\alpha^L\cosh^{L-1}u\,\sinh u` is the product wanted.

    Parameters
    ----------
    fraction : float
        Between 0 and 1, both excluded.
    target, depth, scale
        As in :func:`escape_time`.

    Returns
    -------
    float
        Relative error about 1e-9, or 1e-16 / (1 - fraction) where that is more.

    Raises
    ------
    ValueError
        If a number is out of range.
    ArithmeticError
        If the share is so close to one that the integral is not known to 1e-8.

    Examples
    --------
    Two layers, where the integral is elementary; the small-scale law is off by less than the scale squared.

    >>> bool(abs(time_to_reach(0.5, 1.0, 2, 0.01) - escape_time(1.0, 2, 0.01)) < 1e-4)
    True
    """
    m, depth, alpha = _checked(target, depth, scale, "unbalanced", single=True)
    share = validate.number("fraction", fraction)
    if not 0 < share < 1:
        raise ValueError(f"fraction: got {validate.short(fraction)}, needs a number between 0 and 1")
    log_relative = np.log(alpha) - np.log(m) / depth  # in units of the target

    def log_product(u):
        log_sinh = u + np.log(-np.expm1(-2 * u))
        return depth * log_relative + (depth - 1) * np.logaddexp(u, -u) + log_sinh - depth * _LOG_TWO

    if not log_product(1e-300) < np.log(share):
        raise ValueError(f"fraction: got {share}, needs one that the flow reaches after more than 1e-300 of its course")
    most = 2 * _LOG_TWO - log_relative + 1
    end = brentq(lambda u: log_product(u) - np.log(share), 1e-300, most, xtol=1e-320, rtol=1e-14, maxiter=10_000)
    total = 0.0
    for low, high in pairwise(np.linspace(0.0, end, 9)):
        cosh = lambda u, n: np.exp(n * (np.logaddexp(u, -u) - _LOG_TWO))  # its power n, in range where cosh is not
        rate = lambda u: cosh(u, 2.0 - depth) / -np.expm1(log_product(u))  # quad never takes an end
        value, error = quad(rate, low, high, epsabs=0, epsrel=1e-10, full_output=1)[:2]
        if not error <= 1e-8 * (total + value):
            raise ArithmeticError(f"time to reach: the integral is known to {error:.1e} only, beside {total + value:.1e}")
        total += value
    with np.errstate(over="ignore"):  # the factors may leave the floating range where the time does not
        time = np.exp(np.log(total) - (depth - 2) * np.log(alpha) - np.log(m))
    return validate.representable("scale, depth", (scale, depth), time)


def leave_saddle(
    target: ArrayLike, depth: int, scale: ArrayLike, learning_rate: ArrayLike, *, remaining: int = 1000
) -> np.ndarray:
    r"""Weights on the flow line of the start :math:`W_L = 0`, about `remaining` steps of gradient descent before the escape.

    Near the saddle gradient descent follows the flow line :math:`a^2 - b^2 = \alpha^2`: a step multiplies the gap
    :math:`a^2 - b^2` by :math:`1 - \eta^2 (m - a^{L-1}b)^2 a^{2L-4}`. Starting at a point of the line therefore leaves out steps
    that change the gap by a relative :math:`O(1 / ((L-2)^2\,\text{remaining}))` in all, and changes nothing else.

    Parameters
    ----------
    target, depth, scale
        As in :func:`escape_time`.
    learning_rate : float
        :math:`\eta > 0`.
    remaining : int
        How many steps to leave. If the start itself is nearer than that, the start is returned.

    Returns
    -------
    (L, 1, 1) ndarray
        A network of width one.

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> W = leave_saddle(0.5, 6, 0.01, 1.0)
    >>> round(float(W[0, 0, 0] ** 2 - W[-1, 0, 0] ** 2), 12)  # the scale squared
    0.0001
    """
    m, depth, alpha = _checked(target, depth, scale, "unbalanced", single=True)
    rate = validate.number("learning_rate", learning_rate, sign="> 0")
    remaining = validate.integer("remaining", remaining, least=1)
    a = alpha
    if depth > 2:
        log_near = -(np.log(depth - 2) + np.log(rate) + np.log(m) + np.log(remaining)) / (depth - 2)
        a = max(a, np.exp(min(log_near, np.log(m) / depth - _LOG_TWO)))
    W = np.full((depth, 1, 1), a)
    W[-1] = np.sqrt(a - alpha) * np.sqrt(a + alpha)
    return W


def _checked(target, depth, scale, start, single=False):
    m = validate.positive("target", target)
    depth = validate.integer("depth", depth, least=2, most=10**6)
    alpha = validate.positive("scale", scale)
    start = validate.choice("start", start, ("unbalanced", "balanced"))
    if single and (m.ndim or alpha.ndim):
        raise ValueError(f"{'target' if m.ndim else 'scale'}: got shape {m.shape or alpha.shape}, needs one number")
    try:
        small = alpha < m ** (1 / depth)
    except ValueError:
        raise ValueError(f"scale: got shape {alpha.shape}, needs one that broadcasts with target's {m.shape}") from None
    if not np.all(small):
        raise ValueError(
            f"scale: got {validate.short(scale)} with target {validate.short(target)}, needs less than "
            "target ** (1 / depth), else there is no saddle to leave"
        )
    return (validate.number("target", target), depth, validate.number("scale", scale)) if single else (m, depth, alpha)
