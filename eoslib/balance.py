r"""Gaps between layers, :math:`\sigma_L^2 - \sigma_\ell^2`, and the sharpness :math:`\Psi(\alpha)` of the flow's end.

One mode of an aligned network is L numbers, one for each layer. From the paper's unbalanced start the last one, x,
begins at 0 and the other L - 1 begin at :math:`\alpha` and stay equal, y. Gradient flow keeps
:math:`y^2 - x^2 = \alpha^2` and ends where :math:`x y^{L-1} = m`; with the ratio :math:`T = x^2/y^2` of that end point

.. math::

    \frac{\alpha^2}{m^{2/L}} = (1 - T)\,T^{-1/L}, \qquad
    \frac{\Psi(\alpha)}{L\,m^{2-2/L}} = \frac{1 + (L-1)T}{L\,T^{(L-1)/L}} .

This module uses no other module's dynamics, so that it can witness against them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from mpmath import iv
from numpy.typing import ArrayLike
from scipy.special import hyp2f1

from . import validate

EDGE = 2 * np.sqrt(2)  # the paper's ceiling for eta times sharpness
BOUNDS = ("exact", "integral", "simple", "printed")


@dataclass(frozen=True)
class FlowLimit:
    """Where gradient flow from the unbalanced start of one mode ends (floats, or arrays of the broadcast shape)."""

    last: np.ndarray  # x, the layer that started at zero
    others: np.ndarray  # y, each of the other L - 1 layers
    ratio: np.ndarray  # T = x^2 / y^2, between 0 and 1
    sharpness: np.ndarray  # Psi, largest eigenvalue of the Hessian there


def gaps(values: ArrayLike) -> np.ndarray:
    r"""Gaps :math:`\sigma_L^2 - \sigma_\ell^2` between the last layer and each other one.

    Parameters
    ----------
    values : (..., L, r) array_like
        Layer values: axis -2 runs over layers, axis -1 over modes (or over sorted singular values).

    Returns
    -------
    (..., L - 1, r) ndarray

    Raises
    ------
    ValueError
        With fewer than two layers or entries that are not finite.

    Examples
    --------
    >>> gaps([[3.0], [1.0], [2.0]]).ravel().tolist()
    [-5.0, 3.0]
    """
    values = _layers(values)
    return values[..., -1:, :] ** 2 - values[..., :-1, :] ** 2


def gap_factors(values: ArrayLike, target: ArrayLike, learning_rate: ArrayLike) -> np.ndarray:
    r"""Exact factor :math:`1 - \eta^2 (\pi - m)^2 p_\ell^2` by which one step multiplies each gap of `gaps`.

    :math:`\pi` is the product of all layers of the mode and :math:`p_\ell` that of all layers but the last and the
    l-th, taken without division, so that a layer at zero is allowed.

    Parameters
    ----------
    values : (..., L, r) array_like
        Layer values of each mode.
    target : (r,) array_like
        Target values m >= 0.
    learning_rate : float or array
        :math:`\eta > 0`, broadcast against the (..., L - 1, r) result.

    Returns
    -------
    (..., L - 1, r) ndarray

    Raises
    ------
    ValueError
        On fewer than two layers, a negative target or a learning rate that is not positive.

    Examples
    --------
    Two layers, eta = 1/m: the first step removes the whole gap.

    >>> gap_factors([[3.0], [0.0]], [2.0], 0.5).ravel().tolist()
    [0.0]
    """
    values = _layers(values)
    target = validate.positive("target", target, zero=True)
    rate = validate.positive("learning_rate", learning_rate)
    if target.shape != values.shape[-1:]:
        raise ValueError(f"target: got shape {target.shape}, needs {values.shape[-1:]}, one value for each mode")
    others = values[..., :-1, :]
    rest = np.stack([np.prod(np.delete(others, layer, axis=-2), axis=-2) for layer in range(others.shape[-2])], axis=-2)
    residual = np.prod(values, axis=-2, keepdims=True) - target
    return 1 - (rate * residual * rest) ** 2


def flow_limit(scale: ArrayLike, target: ArrayLike, depth: int) -> FlowLimit:
    r"""End of gradient flow from :math:`x = 0`, :math:`y = \alpha`.

    There :math:`x y^{L-1} = m` and :math:`y^2 - x^2 = \alpha^2`.

    Solves :math:`v^{L-1}(v - d) = 1` for :math:`v = y^2/m^{2/L}`, :math:`d = \alpha^2/m^{2/L}`, by Newton's method from
    :math:`v = 1 + d`, where the left side is convex and at least 1, so that it converges from above for every
    :math:`d > 0`.

    Parameters
    ----------
    scale : float or array
        :math:`\alpha > 0`.
    target : float or array
        m > 0.
    depth : int
        L, at least 2.

    Returns
    -------
    FlowLimit

    Raises
    ------
    ValueError
        If `scale` or `target` is not positive (from :math:`\alpha = 0` the flow never leaves the saddle, with m = 0 the
        minimum is not isolated in this family), or if `depth` is below 2.

    Examples
    --------
    Two layers with alpha^2 = 3/2 and m = 1: x^2 = 1/2 and y^2 = 2.

    >>> end = flow_limit(1.5 ** 0.5, 1.0, 2)
    >>> round(float(end.last**2), 12), round(float(end.others**2), 12), round(float(end.sharpness), 12)
    (0.5, 2.0, 2.5)
    """
    scale, target, depth = _problem(scale, target, depth)
    size = target ** (1 / depth)
    d = (scale / size) ** 2
    v = 1 + d
    for _ in range(60):
        # step = (v^{L-1}(v - d) - 1) / (derivative), divided through by v^{L-2} to stay in range
        step = (v * (v - d) - v ** (2.0 - depth)) / (depth * v - (depth - 1) * d)
        v = v - step
        if np.all(np.abs(step) <= 4e-16 * v):
            break
    ratio = v ** -float(depth)
    relative = v ** (depth - 1) * (1 + (depth - 1) * ratio) / depth
    sharpness = relative * depth * size ** (2 * depth - 2)
    return FlowLimit(size * v ** (-(depth - 1) / 2), size * np.sqrt(v), ratio, sharpness)


def flow_sharpness(scale: ArrayLike, target: ArrayLike, depth: int) -> np.ndarray:
    r"""Sharpness :math:`\Psi(\alpha)` of the minimum that gradient flow reaches (paper: Definition 3 and Lemma 5).

    .. math::

        \Psi = m^2 \Bigl(\frac{1}{x^2} + \frac{L-1}{y^2}\Bigr)
        = L\,m^{2-2/L} \cdot \frac{1 + (L-1)T}{L\,T^{(L-1)/L}}, \qquad T = \frac{x^2}{y^2} .

    The last factor is the arithmetic over the geometric mean of :math:`1/\sigma_\ell^2`.

    Parameters
    ----------
    scale : float or array
        :math:`\alpha > 0`.
    target : float or array
        m > 0.
    depth : int
        L, at least 2.

    Returns
    -------
    ndarray
        Of the broadcast shape.

    Raises
    ------
    ValueError
        As `flow_limit`.

    Examples
    --------
    For two layers Psi is the square root of alpha^4 + 4 m^2:

    >>> round(float(flow_sharpness(2.0, 3.0, 2)), 12)
    7.211102550928
    """
    return flow_limit(scale, target, depth).sharpness


def sharpness_slope(scale: ArrayLike, target: ArrayLike, depth: int) -> np.ndarray:
    r"""Derivative :math:`G(\alpha) = \Psi'(\alpha)`, always positive.

    .. math:: G(\alpha) = \frac{2(L-1)}{\alpha}\, \Psi(\alpha) \Bigl(\frac{1-T}{1+(L-1)T}\Bigr)^2

    Parameters and errors as `flow_sharpness`. Equals the paper's G(alpha), which is printed as a difference.

    Examples
    --------
    >>> step = 1e-5
    >>> numeric = (flow_sharpness(1 + step, 1.0, 3) - flow_sharpness(1 - step, 1.0, 3)) / (2 * step)
    >>> round(float(numeric - sharpness_slope(1.0, 1.0, 3)), 8)
    0.0
    """
    end = flow_limit(scale, target, depth)
    return 2 * (depth - 1) / np.asarray(scale, dtype=float) * end.sharpness * _contrast(end.ratio, depth) ** 2


def growth(scale: ArrayLike, target: ArrayLike, depth: int) -> np.ndarray:
    r"""The paper's :math:`P(\alpha) = \frac{d \ln \Psi}{d\alpha}\,\alpha^{-3} = \frac{2(L-1)}{(y^2 + (L-1)x^2)^2}`.

    Parameters and errors as `flow_sharpness`.

    Examples
    --------
    As alpha goes to 0 it tends to 2(L - 1)/L^2 (for m = 1):

    >>> round(float(growth(1e-4, 1.0, 3)), 6)
    0.444444
    """
    end = flow_limit(scale, target, depth)
    return 2 * (depth - 1) / (end.others**2 + (depth - 1) * end.last**2) ** 2


def critical_scale(target: ArrayLike, depth: int) -> np.ndarray:
    r"""Where `growth` has its one maximum: :math:`\alpha_{crit} = m^{1/L} \sqrt{L(L-2)}\,(L-1)^{-(L-1)/L}`.

    There :math:`T = (L-1)^{-2}`.

    Raises
    ------
    ValueError
        For `depth` below 3 (with two layers `growth` only decreases) or a target that is not positive.

    Examples
    --------
    >>> round(float(critical_scale(1.0, 3)), 6)
    1.091124
    >>> critical_scale(1.0, 2)
    Traceback (most recent call last):
    ...
    ValueError: depth: got 2, needs an integer >= 3: with two layers P(alpha) only decreases, so that no maximum exists
    """
    try:
        depth = validate.integer("depth", depth, least=3)
    except ValueError as error:
        raise ValueError(f"{error}: with two layers P(alpha) only decreases, so that no maximum exists") from None
    target = validate.positive("target", target)
    return target ** (1 / depth) * np.sqrt(depth * (depth - 2)) * (depth - 1) ** (-(depth - 1) / depth)


def growth_constant(depth: int) -> float:
    r"""The paper's :math:`g(L) = \tfrac12 m^{4/L} \max_\alpha P(\alpha)`, which is :math:`(L-1)^{3-4/L}/L^2 \le L`.

    Examples
    --------
    >>> growth_constant(2), round(growth_constant(3), 6)
    (0.25, 0.352756)
    """
    depth = validate.integer("depth", depth, least=2)
    return (depth - 1) ** (3 - 4 / depth) / depth**2


def scale_bound(learning_rate: ArrayLike, target: ArrayLike, depth: int, *, form: str = "simple") -> np.ndarray:
    r"""Largest :math:`\alpha` that a bound allows, so that :math:`\eta \Psi(\alpha) \le 2\sqrt2`.

    With :math:`\Lambda = \ln\bigl(2\sqrt2/(\eta L m^{2-2/L})\bigr)`, :math:`\alpha^4/m^{4/L}` may be

    ==============  ==================================================================================
    ``"exact"``     the solution of :math:`\eta \Psi(\alpha) = 2\sqrt2` itself, no estimate
    ``"integral"``  :math:`2\Lambda / g(L)`, the paper's route without its last estimates
    ``"simple"``    :math:`2\Lambda / L`, the form for which `overshoot_ceiling` gives positivity
    ``"printed"``   :math:`\Lambda / (L^2\, 2^{(2L-3)/L})`, as in the paper's Lemma 2
    ==============  ==================================================================================

    Parameters
    ----------
    learning_rate : float or array
    target : float or array
        m > 0, the largest singular value of the target.
    depth : int
        L, at least 2.
    form : str

    Raises
    ------
    ValueError
        If :math:`\eta L m^{2-2/L} \ge 2\sqrt2`: then the logarithm is not positive and no scale is allowed.

    Examples
    --------
    Two layers, m = 1, eta = 1: Psi = sqrt(alpha^4 + 4) = 2 sqrt 2 at alpha = sqrt 2.

    >>> [round(float(scale_bound(1.0, 1.0, 2, form=form)), 4) for form in ("exact", "integral", "simple", "printed")]
    [1.4142, 1.2904, 0.7673, 0.4975]
    """
    if form not in BOUNDS:
        raise ValueError(f"form: got {form!r}, needs one of {', '.join(BOUNDS)}")
    rate = validate.positive("learning_rate", learning_rate)
    _, target, depth = _problem(1.0, target, depth)
    relative = rate * depth * target ** (2 - 2 / depth)
    if np.any(relative >= EDGE):
        raise ValueError(
            f"learning_rate: got {learning_rate!r}, which is eta S = {np.max(relative):.6g}; the bound on the scale "
            "needs eta S < 2 sqrt 2 = 2.82843, else its logarithm is not positive"
        )
    room = np.log(EDGE / relative)
    if form == "exact":
        return target ** (1 / depth) * _exact_scale(room, depth)
    constant = {
        "integral": growth_constant(depth) / 2,
        "simple": depth / 2,
        "printed": depth**2 * 2 ** ((2 * depth - 3) / depth),
    }[form]
    return target ** (1 / depth) * (room / constant) ** 0.25


def least_factor(scale: ArrayLike, learning_rate: ArrayLike, singular_values: ArrayLike, depth: int) -> np.ndarray:
    r"""Least factor that any step can apply to the gap of each mode, if the corrected balancing lemma applies.

    While :math:`\pi \le m` a step multiplies the gap by at least :math:`1 - k^2/(4(L-1))` with
    :math:`k = \eta\Psi_i(\alpha)`, while :math:`\pi > m` (which needs k > 1) by at least :math:`1 - Q^2` with the Q
    of `overshoot_ceiling`, and never by more than 1. Where the result is positive the gap keeps its sign, which is
    always so for :math:`L \ge 3`.

    Parameters
    ----------
    scale, learning_rate : float
    singular_values : (r,) array_like
        Positive.
    depth : int
        L, at least 2.

    Returns
    -------
    (r,) ndarray
        Above -1, and above 0 for :math:`L \ge 3`.

    Raises
    ------
    ValueError
        If an assumption of the lemma fails: :math:`\eta S < 2\sqrt2`, or :math:`\alpha` at most
        ``scale_bound(..., form="simple")`` for the largest singular value.

    Examples
    --------
    >>> least_factor(0.01, 0.03, [10.0, 9.0], 3).round(3).tolist()
    [0.53, 0.645]
    >>> least_factor(3.0, 0.03, [10.0, 9.0], 3)
    Traceback (most recent call last):
    ...
    ValueError: scale: got 3.0, above 1.526, the balancing lemma's bound for eta = 0.03, largest value 10 and L = 3
    """
    values = np.atleast_1d(validate.positive("singular_values", singular_values))
    alpha, rate = float(validate.positive("scale", scale)), float(validate.positive("learning_rate", learning_rate))
    bound = float(scale_bound(rate, values.max(), depth, form="simple"))
    if alpha > bound:
        raise ValueError(
            f"scale: got {scale!r}, above {bound:.6g}, the balancing lemma's bound for eta = {rate:.6g}, "
            f"largest value {values.max():.6g} and L = {depth}"
        )
    k = rate * flow_sharpness(alpha, values, depth)
    return 1 - np.maximum(k**2 / (4 * (depth - 1)), np.where(k > 1, overshoot_ceiling(depth), 0.0) ** 2)


def cycle_factor(ratio: ArrayLike) -> np.ndarray:
    r"""Factor :math:`5 - 2(z + 1/z)` of a vanishing gap over one period of a two-cycle, :math:`z = \rho_2/\rho_1`.

    Its size is below 1 for :math:`1 < z < (3 + \sqrt5)/2`.

    Raises
    ------
    ValueError
        If `ratio` is not positive.

    Examples
    --------
    >>> float(cycle_factor(2.0)), float(cycle_factor(1.0))
    (0.0, 1.0)
    """
    z = validate.positive("ratio", ratio)
    return 5 - 2 * (z + 1 / z)


def frozen_fraction(scale: ArrayLike, target: ArrayLike, depth: int, learning_rate: ArrayLike) -> np.ndarray:
    r"""Part of its first gap that a converging mode keeps for ever, to first order in :math:`\eta`.

    .. math::

        \frac{\delta_\infty}{\alpha^2}
        \approx \exp\Bigl(-\eta \int_0^{x} (m - x y^{L-1})\, y^{L-3}\, dx\Bigr), \qquad y^2 = x^2 + \alpha^2,

    the sum of the logarithms of `gap_factors` along gradient flow. For :math:`L \ge 3` and :math:`\alpha \to 0` it is
    :math:`e^{-q/(2(L-1)(L-2))}` with :math:`q = \eta L m^{2-2/L}`; for two layers it is a power of :math:`\alpha`.

    Raises
    ------
    ValueError
        If :math:`\eta \Psi(\alpha) \ge 2`: then the flow's minimum is unstable and the mode need not converge; or as
        `flow_limit`.

    Examples
    --------
    >>> round(float(frozen_fraction(1e-3, 1.0, 3, 0.1)), 4), round(float(np.exp(-0.3 / 4)), 4)
    (0.9277, 0.9277)
    """
    end = flow_limit(scale, target, depth)
    alpha, rate = np.asarray(scale, dtype=float), validate.positive("learning_rate", learning_rate)
    if np.any(rate * end.sharpness >= 2):
        raise ValueError(
            f"learning_rate: got {learning_rate!r}, which is eta Psi = {np.max(rate * end.sharpness):.6g}; "
            "a mode converges only where eta Psi < 2"
        )
    if depth == 2:
        first = np.arcsinh(end.last / alpha)
    else:
        first = end.last * alpha ** (depth - 3) * hyp2f1(0.5, (3 - depth) / 2, 1.5, -((end.last / alpha) ** 2))
    second = (end.others ** (2 * depth - 2) - alpha ** (2 * depth - 2)) / (2 * depth - 2)
    return np.exp(-rate * (target * first - second))


def overshoot_ceiling(depth: int, *, pieces: int = 400) -> float:
    r"""Upper bound, by interval arithmetic, on how far a layer is pulled back after a step across the minimum.

    A step from :math:`x y^{L-1} \le m` may land at :math:`x' y'^{L-1} > m`; the next step keeps both layers positive
    if and only if :math:`Q = \eta (\pi' - m) \pi' / \min(x', y')^2 < 1`. Scaled by the flow's end point, with
    :math:`U = y'/y_\infty`, :math:`W = x'/x_\infty`, :math:`q = \eta L m^{2-2/L}` and :math:`w = x/x_\infty`,

    .. math::

        Q = c\,U^{L-1}\bigl(U^{L-1} - 1/W\bigr), \quad c = \frac{q}{L\,T^{(L-1)/L}}, \quad
        W = w + c(1-p)u^{L-1}, \quad U = u + cT(1-p)w u^{L-2}

    where :math:`u^2 = 1 - T(1 - w^2)` and :math:`p = w u^{L-1}`. All modes of all targets that satisfy the
    ``"simple"`` bound of `scale_bound` are covered by the two numbers (s, w), with :math:`T = s^L`: q is at most a
    function of s. Each factor is monotone in each variable, so that its value at one corner bounds it over a box.

    Every operation is rounded outward. The boxes need only sums, products, quotients and square roots, which IEEE
    arithmetic rounds correctly, so that the next floating-point number up or down is a bound; the exponential in q
    comes from mpmath's intervals. For s below the first box :math:`\eta\Psi < 1` (an interval too), and then no step
    crosses the minimum.

    Parameters
    ----------
    depth : int
        L, at least 2.
    pieces : int
        Boxes per axis.

    Returns
    -------
    float
        A proven upper bound of Q; positivity holds where it is below 1.

    Raises
    ------
    ValueError
        If `depth` is below 2, or `pieces` below 10.

    Examples
    --------
    >>> overshoot_ceiling(3) < 0.5
    True
    """
    return _overshoot_ceiling(validate.integer("depth", depth, least=2), validate.integer("pieces", pieces, least=10))


@lru_cache(maxsize=64)
def _overshoot_ceiling(depth, pieces):
    n = depth - 1
    s, w = np.linspace(_quiet_root(depth), 1.0, pieces + 1), np.linspace(0.0, 1.0, pieces + 1)
    largest = np.array([_largest_rate(root, depth) for root in s[1:]])[:, None]
    left, right = w[None, :-1], w[None, 1:]
    low, high = _power(s[:-1, None], depth, _down), _power(s[1:, None], depth, _up)
    c = _up(largest / _down(depth * _power(s[:-1, None], n, _down)))
    u_low = np.sqrt(np.maximum(_down(1 - _up(high * _up(1 - _down(left * left)))), 0))
    u_low = np.maximum(_down(u_low), 0)
    u_high = _up(np.sqrt(_up(1 - _down(low * _down(1 - _up(right * right))))))
    rest = _up(1 - _down(left * _power(u_low, n, _down)))
    W = _up(right + _up(c * _up(rest * _power(u_high, n, _up))))
    U = _up(u_high + _up(_up(_up(c * high) * _up(rest * right)) * _power(u_high, n - 1, _up)))
    U_power = _power(U, n, _up)
    pull = _up(_up(c * U_power) * np.maximum(_up(U_power - _down(1 / W)), 0))
    if depth == 2:  # the gap may have changed sign, so that the other layer may be the smaller one
        pull = np.maximum(pull, _up(_up(_up(c * high) * W) * np.maximum(_up(W - _down(1 / U)), 0)))
    return float(pull.max())


def _contrast(ratio, depth):
    return (1 - ratio) / (1 + (depth - 1) * ratio)


def _exact_scale(room, depth):
    """Solve log(Psi/Psi_0) = room for alpha (target 1); convex in tau = -log T, Newton from the right."""
    n = depth - 1
    tau = (room + np.log(depth)) * depth / n
    for _ in range(100):
        weight = n * np.exp(-tau)
        excess = np.log1p(weight) - np.log(depth) + tau * n / depth - room
        step = excess / (n / depth - weight / (1 + weight))
        tau = tau - step
        if np.all(np.abs(step) <= 1e-14 * tau):
            break
    return np.sqrt(-np.expm1(-tau)) * np.exp(tau / (2 * depth))


def _up(value):
    return np.nextafter(value, np.inf)


def _down(value):
    return np.nextafter(value, -np.inf)


def _power(base, exponent, outward):
    """Integer power of a positive number, rounded outward after each product."""
    result = base if exponent else np.ones_like(base)
    for _ in range(exponent - 1):
        result = outward(result * base)
    return result


def _largest_rate(root, depth):
    """Upper bound of eta S_i of a mode whose flow ends at T = root^L, under the "simple" bound; grows with T.

    With r = (m_i / m_1)^{4/L} it is 2 sqrt 2 times the maximum of r^{(L-1)/2} exp(-L d^2 r / 2) over 0 < r <= 1.
    """
    n, s = depth - 1, iv.mpf(float(root))
    d2 = ((1 - s**depth) / s) ** 2
    if d2.b < (iv.mpf(n) / depth).a:  # the maximum is at r = 1
        rate = iv.sqrt(8) * iv.exp(-depth * d2 / 2)
    else:  # the maximum over all r > 0, an upper bound in any case
        rate = iv.sqrt(8) * iv.sqrt((n / (depth * iv.exp(1) * d2)) ** n)
    return float(_up(float(rate.b)))


def _quiet_root(depth):
    """An s below which eta Psi < 1, from eta Psi = const (1 + (L-1)T)/(1-T)^(L-1), which grows with T = s^L."""
    n, low, high = depth - 1, 0.0, 1.0
    size = iv.sqrt(8) / depth * iv.sqrt((iv.mpf(n) / (depth * iv.exp(1))) ** n)
    for _ in range(20):
        middle = (low + high) / 2
        s = iv.mpf(middle)
        T = s**depth
        quiet = ((1 - T) / s) ** 2 > iv.mpf(n) / depth and size * (1 + n * T) / (1 - T) ** n < 1  # certain or not true
        low, high = (middle, high) if quiet else (low, middle)
    return low


def _layers(values):
    values = validate.real("values", values)
    if values.ndim < 2 or values.shape[-2] < 2:
        raise ValueError(f"values: got shape {values.shape}, needs (..., L, r) with L >= 2 layers")
    return values


def _problem(scale, target, depth):
    scale, target = validate.positive("scale", scale), validate.positive("target", target)
    return scale, target, validate.integer("depth", depth, least=2)
