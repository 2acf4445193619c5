r"""Gaps between layers, :math:`\sigma_L^2 - \sigma_\ell^2`, and the sharpness :math:`\Psi(\alpha)` of the flow's end.

One mode of an aligned network is L numbers, one for each layer. From the paper's unbalanced start the last one, x,
begins at 0 and the other L - 1 begin at :math:`\alpha` and stay equal, y. Gradient flow keeps
:math:`y^2 - x^2 = \alpha^2` and ends where :math:`x y^{L-1} = m`; with the ratio :math:`T = x^2/y^2` of that end point

.. math::

    \frac{\alpha^2}{m^{2/L}} = (1 - T)\,T^{-1/L}, \qquad
    \frac{\Psi(\alpha)}{L\,m^{2-2/L}} = \frac{1 + (L-1)T}{L\,T^{(L-1)/L}} .

No other module's dynamics are used, so that this one can witness against them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import hyp2f1, lambertw

from . import enclose, validate

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
        With fewer than two layers, entries that are not finite, or squares beyond the floating range.

    Examples
    --------
    >>> gaps([[3.0], [1.0], [2.0]]).ravel().tolist()
    [-5.0, 3.0]
    """
    layers = _layers(values)
    last, others = layers[..., -1:, :], layers[..., :-1, :]
    with np.errstate(over="ignore", invalid="ignore"):
        found = (last - others) * (last + others)
    return validate.representable("values", values, found)


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
    layers = _layers(values)
    target = validate.positive("target", target, zero=True)
    rate = validate.positive("learning_rate", learning_rate)
    if target.shape != layers.shape[-1:]:
        raise ValueError(f"target: got shape {target.shape}, needs {layers.shape[-1:]}, one value for each mode")
    others = layers[..., :-1, :]
    with np.errstate(over="ignore", invalid="ignore"):
        rest = [np.prod(np.delete(others, layer, axis=-2), axis=-2) for layer in range(others.shape[-2])]
        residual = np.prod(layers, axis=-2, keepdims=True) - target
        try:
            factors = 1 - (rate * residual * np.stack(rest, axis=-2)) ** 2
        except ValueError:
            need = f"needs a shape that broadcasts with {(*layers.shape[:-2], layers.shape[-2] - 1, layers.shape[-1])}"
            raise ValueError(f"learning_rate: got shape {rate.shape}, {need}") from None
    return validate.representable("values, target, learning_rate", (values, target, learning_rate), factors)


def flow_limit(scale: ArrayLike, target: ArrayLike, depth: int) -> FlowLimit:
    r"""End of gradient flow from :math:`x = 0`, :math:`y = \alpha`.

    There :math:`x y^{L-1} = m` and :math:`y^2 - x^2 = \alpha^2`.

    With :math:`\tau = -\ln T` this is :math:`\ln(1 - e^{-\tau}) + \tau/L = \ln(\alpha^2/m^{2/L})`. The left side increases
    and is concave, so that Newton's method from a point below the root rises to it, at every depth.

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
    >>> [round(float(x), 12) for x in (end.last**2, end.others**2, end.sharpness)]
    [0.5, 2.0, 2.5]
    """
    depth = validate.integer("depth", depth, least=2)
    alpha, m = _together(scale=scale, target=target)
    return _flow_limit(alpha, m, depth, f"scale, target: got {scale!r}, {target!r}")


def _flow_limit(alpha, m, depth, got):
    """See `flow_limit`."""
    log_size = np.log(m) / depth
    tau = _log_ratio(2 * (np.log(alpha) - log_size), depth)
    log_y = log_size + tau / (2 * depth)
    with np.errstate(over="ignore"):
        log_sharpness = np.log1p((depth - 1) * np.exp(-tau)) + (2 * depth - 2) * log_y
        ends = [np.exp(log_y - tau / 2), np.exp(log_y), np.exp(-tau), np.exp(log_sharpness)]
    for end in ends[:2] + ends[3:]:
        if not np.all((end > 0) & np.isfinite(end)):
            raise ValueError(f"{got}: the flow's end is beyond the floating range")
    return FlowLimit(*(np.asarray(end)[()] for end in ends))


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
    >>> rise = flow_sharpness(1 + step, 1.0, 3) - flow_sharpness(1 - step, 1.0, 3)
    >>> round(float(rise / (2 * step) - sharpness_slope(1.0, 1.0, 3)), 8)
    0.0
    """
    depth, end = validate.integer("depth", depth, least=2), flow_limit(scale, target, depth)
    (alpha,) = _together(scale=scale)
    share = alpha / end.others  # whose square is 1 - T, without the cancellation
    with np.errstate(over="ignore"):
        below = 1 + (depth - 1) * end.ratio
        slope = 2 * (depth - 1) / below * share * (end.sharpness / end.others) * share * share / below
    return validate.representable("scale, target", (scale, target), slope)


def growth(scale: ArrayLike, target: ArrayLike, depth: int) -> np.ndarray:
    r"""The paper's :math:`P(\alpha) = \frac{d \ln \Psi}{d\alpha}\,\alpha^{-3} = \frac{2(L-1)}{(y^2 + (L-1)x^2)^2}`.

    Parameters and errors as `flow_sharpness`.

    Examples
    --------
    As alpha goes to 0 it tends to 2(L - 1)/L^2 (for m = 1):

    >>> round(float(growth(1e-4, 1.0, 3)), 6)
    0.444444
    """
    depth, end = validate.integer("depth", depth, least=2), flow_limit(scale, target, depth)
    with np.errstate(over="ignore", divide="ignore"):
        inverse = 1 / (end.others * end.others * (1 + (depth - 1) * end.ratio))
        found = 2 * (depth - 1) * inverse * inverse
    return validate.representable("scale, target", (scale, target), found)


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
    >>> critical_scale(1.0, 2)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: depth: got 2, needs an integer >= 3: with two layers P(alpha) only decreases...
    """
    try:
        depth = validate.integer("depth", depth, least=3)
    except ValueError as error:
        raise ValueError(f"{error}: with two layers P(alpha) only decreases, so that no maximum exists") from None
    target = validate.positive("target", target)
    return target ** (1 / depth) * np.sqrt(float(depth) * (depth - 2)) * (depth - 1) ** (-(depth - 1) / depth)


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
    ``"simple"``    :math:`2\Lambda / L`, since :math:`g(L) \le L`; below it `contracts` holds for every mode
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

    >>> forms = "exact", "integral", "simple", "printed"
    >>> [round(float(scale_bound(1.0, 1.0, 2, form=form)), 4) for form in forms]
    [1.4142, 1.2904, 0.7673, 0.4975]
    """
    form = validate.choice("form", form, BOUNDS)
    depth = validate.integer("depth", depth, least=2)
    rate, m = _together(learning_rate=learning_rate, target=target)
    room = np.log(EDGE) - np.log(rate) - np.log(depth) - (2 - 2 / depth) * np.log(m)
    if np.any(room <= 0):
        worst = -np.min(room) + np.log(EDGE)
        reached = f"{np.exp(worst):.6g}" if worst < 700 else "beyond floats"
        raise ValueError(
            f"learning_rate, target, depth: got {validate.short(learning_rate)}, {validate.short(target)}, {depth}, "
            f"which is eta S = {reached}; the bound on the scale needs eta S < 2 sqrt 2 = 2.82843, else its logarithm is not positive"
        )
    if form == "exact":
        return m ** (1 / depth) * _exact_scale(room, depth)
    constant = {
        "integral": growth_constant(depth) / 2,
        "simple": depth / 2,
        "printed": depth**2 * 2 ** ((2 * depth - 3) / depth),
    }[form]
    return m ** (1 / depth) * (room / constant) ** 0.25


def contracts(
    scale: ArrayLike, learning_rate: ArrayLike, singular_values: ArrayLike, depth: int
) -> np.ndarray:
    r"""Whether the corrected balancing lemma applies to a mode, so that its gap never grows and its layers stay positive.

    With :math:`k = \eta\Psi(\alpha)` and the ratio T of `flow_limit` the lemma asks for

    .. math:: k \le 2 \qquad\text{or}\qquad k < 2\sqrt2 \ \text{ and }\ (L - 1)\,T \ge \tfrac12 .

    Parameters
    ----------
    scale, learning_rate, singular_values : float or array
        Positive; broadcast against one another.
    depth : int
        L, at least 2.

    Returns
    -------
    ndarray of bool

    Raises
    ------
    ValueError
        On numbers that are not positive or a depth below 2.

    Examples
    --------
    The paper's run with three layers at eta S = 2.14, and a large start:

    >>> contracts([0.5, 5.0], 0.0332, 10.0, 3).tolist()
    [True, False]
    """
    depth = validate.integer("depth", depth, least=2)
    alpha, rate, m = _together(scale=scale, learning_rate=learning_rate, singular_values=singular_values)
    end = _flow_limit(alpha, m, depth, f"scale, singular_values: got {scale!r}, {singular_values!r}")
    with np.errstate(over="ignore"):
        k = rate * end.sharpness
    return (k <= 2) | ((k < EDGE) & ((depth - 1) * end.ratio >= 0.5))


def least_factor(
    scale: ArrayLike, learning_rate: ArrayLike, singular_values: ArrayLike, depth: int
) -> np.ndarray:
    r"""Least factor that any step can apply to the gap of a mode to which the corrected balancing lemma applies.

    While :math:`\pi \le m` a step multiplies the gap by at least :math:`1 - k^2/(4(L-1))` with
    :math:`k = \eta\Psi(\alpha)`, while :math:`\pi > m` (which needs k > 1) by more than 0; and never by more than 1.

    Parameters
    ----------
    scale, learning_rate, singular_values : float or array
        Positive; broadcast against one another.
    depth : int
        L, at least 2.

    Returns
    -------
    ndarray
        At least 0 for :math:`L \ge 3`, above -1 for two layers.

    Raises
    ------
    ValueError
        Where `contracts` does not hold.

    Examples
    --------
    >>> least_factor(0.01, 0.02, [10.0, 9.0, 0.1], 3).round(3).tolist()
    [0.0, 0.0, 1.0]
    >>> least_factor(1.0, 0.1, [10.0, 4.0], 2).round(3).tolist()
    [-0.003, 0.838]
    """
    if not np.all(contracts(scale, learning_rate, singular_values, depth)):
        raise ValueError(
            f"scale: got {validate.short(scale)}, which the balancing lemma does not allow for learning_rate "
            f"{validate.short(learning_rate)}, singular_values {validate.short(singular_values)} and depth {depth}: "
            "it needs eta Psi <= 2, or eta Psi < 2 sqrt 2 and (L - 1) T >= 1/2"
        )
    k = np.asarray(learning_rate) * flow_sharpness(scale, singular_values, depth)
    below = 1 - k**2 / (4 * (depth - 1))
    return np.where(k > 1, np.minimum(below, 0.0), below)


def pull(iv: Any, x: Any, theta: Any, w: Any) -> Any:
    r"""Enclose how far the step after a crossing pulls the last layer back, for every :math:`\eta\Psi < 2\sqrt2`.

    A step from :math:`\pi \le m` may land at :math:`\pi' > m`; the next step keeps that layer positive if and only if
    :math:`Q = \eta(\pi' - m)\pi'/x'^2 < 1`. Scaled by the flow's end point, with n = L - 1,
    :math:`\theta = nT`, :math:`c = \eta\Psi/(1 + \theta)`, :math:`w = x/x_\infty`, :math:`u^2 = 1 - T(1 - w^2)`,
    :math:`v = u^n`,

    .. math:: Q = c\,V (V - 1/W), \quad W = w + c(1 - wv)v, \quad V = v\,\Bigl(1 + \frac{T w (W-w)}{u^2}\Bigr)^n .

    Powers enter as :math:`(1 \pm x z)^{1/x}` with x = 1/n, which falls in x, so that one box covers many depths; x = 0
    stands for infinitely many layers. V is at most its value :math:`(1 + T(W^2 - 1))^{n/2}` on the flow's curve.

    Parameters
    ----------
    iv : interval arithmetic
        Of `eoslib.enclose`.
    x, theta, w : intervals
        x and w in [0, 1], theta > 0; only the part with :math:`T = x\theta \le 1` counts.

    Returns
    -------
    interval
        From 0 to an upper bound of Q; 0 where no step crosses.
    """
    if (x.a * theta.a).a > 1:
        return iv.mpf(0)
    power = lambda z, x: iv.exp(iv.log(1 + x * z) / x) if x.a > 0 else iv.exp(z)
    c = iv.sqrt(8) / (1 + theta.a)
    high = iv.sqrt(power(-theta.a * (1 - w.b**2), x.a)) if (x.a * theta.a * (1 - w.b**2)).b < 1 else iv.mpf(1)
    if (2 * w.a * high).b <= 1:
        gain = high * (1 - w.a * high)
    else:
        fall = theta.b * (1 - w.a**2)
        low = iv.sqrt(power(-fall, x.b)) if (x.b * fall).b < 1 else iv.mpf(0)
        gain = low * (1 - w.a * low) if (2 * w.a * low).a >= 1 else 1 / (4 * w.a)
    jump = (c * gain).b
    W = (w.b + jump).b
    if W.b <= 1:  # the next point lies short of the target
        return iv.mpf(0)
    V = iv.sqrt(power(theta.b * (W**2 - 1), x.a))
    T = x.b * theta.b
    floor = 1 - T * (1 - w.a**2)
    if floor.a > 0:
        other = high * power(theta.b * w.b * jump / floor, x.a)
        V = V if V.b <= other.b else other
    return iv.mpf([0, max((c * V * (V - 1 / W)).b, 0)])


def pull_of_others(iv: Any, theta: Any, w: Any) -> Any:
    r"""As `pull`, for the other of two layers: :math:`Q = cTW(W - 1/U)` with :math:`T = \theta`.

    For L = 2 the gap may have changed its sign, so that the other layer may be the smaller one.
    """
    c = iv.sqrt(8) / (1 + theta.a)
    high, low = iv.sqrt(1 - theta.a * (1 - w.b**2)), 1 - theta.b * (1 - w.a**2)
    low = iv.sqrt(low) if low.a > 0 else iv.mpf(0)
    W = w.b + c * high * (1 - w.a * low)
    U = high + c * theta.b * w.b * (1 - w.a * low)
    return iv.mpf([0, max((c * theta.b * W * (W - 1 / U)).b, 0)])


def certify_positivity(*, bits: int = 53) -> dict[str, enclose.Enclosure]:
    r"""Prove :math:`Q < 1` for :math:`\eta\Psi < 2\sqrt2` and :math:`\tfrac12 \le (L-1)T \le 8`, at every depth.

    Cuts the rectangle of theta and w of `pull`: once with x = 1/(L - 1) anywhere in [0, 1/2], once with x = 1, where the
    other layer is enclosed too.

    Parameters
    ----------
    bits : int
        Precision of each operation, from 16 to 1000; with 1000 it takes three times as long as with 53.

    Returns
    -------
    dict of str to Enclosure
        ``"deeper"`` (L >= 3), ``"two"`` (L = 2), ``"others"`` (L = 2, the other layer).

    Raises
    ------
    ArithmeticError
        If the proof does not succeed, as with too small a precision.

    Examples
    --------
    >>> all(found.high < 1 for found in certify_positivity().values())
    True
    """
    bits = validate.integer("bits", bits, least=16, most=1000)
    deeper = lambda iv, theta, w: pull(iv, iv.mpf([0, 0.5]), theta, w)
    return {
        "deeper": enclose.below(deeper, (0.5, 8.0), (0.0, 1.0), bound=1.0, bits=bits),
        "two": enclose.below(lambda iv, *at: pull(iv, iv.mpf(1), *at), (0.5, 1.0), (0.0, 1.0), bound=1.0, bits=bits),
        "others": enclose.below(pull_of_others, (0.5, 1.0), (0.0, 1.0), bound=1.0, bits=bits),
    }


def cycle_factor(ratio: ArrayLike) -> np.ndarray:
    r"""Factor :math:`5 - 2(z + 1/z)` of a vanishing gap over one period of a two-cycle, :math:`z = \rho_2/\rho_1`.

    Its size is below 1 for :math:`1 < z < (3 + \sqrt5)/2`.

    Raises
    ------
    ValueError
        If `ratio` is not positive, or the factor overflows.

    Examples
    --------
    >>> float(cycle_factor(2.0)), float(cycle_factor(1.0))
    (0.0, 1.0)
    """
    z = validate.positive("ratio", ratio)
    with np.errstate(over="ignore"):
        return validate.representable("ratio", ratio, 5 - 2 * (z + 1 / z))


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
    depth = validate.integer("depth", depth, least=2)
    end = flow_limit(scale, target, depth)
    alpha, m, rate = _together(scale=scale, target=target, learning_rate=learning_rate)
    with np.errstate(over="ignore"):
        k = rate * end.sharpness
    if np.any(k >= 2):
        raise ValueError(
            f"learning_rate, scale, target, depth: got {validate.short(learning_rate)}, {validate.short(scale)}, "
            f"{validate.short(target)}, {depth}, which is "
            f"eta Psi = {np.max(k):.6g}; a mode converges only where eta Psi < 2"
        )
    if depth == 2:
        first = np.arcsinh(end.last / alpha)
    else:  # a hypergeometric function of a number below one, where its first form has one as large as alpha^-2
        first = end.last * end.others ** (depth - 3) * hyp2f1(1.0, (3 - depth) / 2, 1.5, end.ratio)
    second = (end.others ** (2 * depth - 2) - alpha ** (2 * depth - 2)) / (2 * depth - 2)
    return np.exp(-rate * (m * first - second))


def _log_ratio(log_gap, depth):
    """Solve log(1 - exp(-tau)) + tau / L = log_gap, from below."""
    small = np.exp(np.minimum(log_gap, -80.0))  # there tau is the gap itself, to all digits
    tiny, log_gap = log_gap < -80, np.maximum(log_gap, -80.0)
    with np.errstate(over="ignore"):
        start = depth * lambertw(np.minimum(np.exp(log_gap), 1e300) / depth).real  # log(1 - exp(-tau)) <= log(tau)

    def step(tau):
        return (log_gap - np.log(-np.expm1(-tau)) - tau / depth) / (np.exp(-tau) / -np.expm1(-tau) + 1 / depth)

    return np.where(tiny, small, _newton(step, np.maximum(start, depth * log_gap), f"flow limit, depth {depth}"))


def _exact_scale(room, depth):
    """Solve log(Psi/Psi_0) = room for alpha (target 1); convex in tau = -log T, Newton from the right."""
    n = depth - 1

    def step(tau):
        weight = n * np.exp(-tau)
        excess = np.log1p(n * np.expm1(-tau) / depth) + tau * n / depth - room
        return -excess / (n / depth - weight / (1 + weight))

    cancelled = 1e-15 * depth  # what is left of a small tau
    tau = _newton(step, (room + np.log(depth)) * depth / n, f"scale bound, depth {depth}", cancelled)
    return np.sqrt(-np.expm1(-tau)) * np.exp(tau / (2 * depth))


def _newton(step, tau, name, absolute=0.0):
    """Repeat a Newton step until it is below 1e-14 of each number, or below `absolute`."""
    for _ in range(200):
        change = step(tau)
        tau = tau + change
        if np.all(np.abs(change) <= 1e-14 * tau + absolute):
            return tau
    raise ArithmeticError(f"{name}: Newton's method has not converged")


def _layers(values):
    values = validate.real("values", values)
    if values.ndim < 2 or values.shape[-2] < 2:
        raise ValueError(f"values: got shape {values.shape}, needs (..., L, r) with L >= 2 layers")
    return values


def _together(**numbers):
    """Positive numbers by name, as float64 arrays whose shapes broadcast."""
    arrays = {
        name: validate.cast(name, value, validate.positive(name, value), float) for name, value in numbers.items()
    }
    validate.together(**arrays)
    return tuple(arrays.values())
