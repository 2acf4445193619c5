r"""The diagonal linear network: L vectors whose entrywise product is fitted to a sparse target.

Weights are one array `s` of shape (..., L, d): ``s[..., l, i]`` is coordinate i of layer l. The loss is
:math:`\tfrac12\lVert s_1\odot\dots\odot s_L - s_\star\rVert^2`, a sum over coordinates, so that each coordinate is a
one-mode network of its own; gradient descent moves coordinate i without looking at the others. In particular this is
what the full matrices do as long as all of them stay diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from . import bifurcation, scalar, validate


@dataclass(frozen=True)
class Run:
    """What `descend` returns. Batch axes (...) are those of the learning rates, then those of the start."""

    weights: np.ndarray  # (..., L, d), the final state
    steps: np.ndarray  # (T,), which steps were recorded; 0 is the start
    coordinates: np.ndarray  # (..., T, d), the end-to-end vector
    loss: np.ndarray  # (..., T)
    diverged: np.ndarray  # (...), bool: some recorded loss, or the final state, is not finite


def initialise(start: str, *, depth: int, width: int, scale: ArrayLike) -> np.ndarray:
    r"""Make the starting weights: all :math:`\alpha` (``"balanced"``), or the last layer zero (``"unbalanced"``).

    Parameters
    ----------
    start : {"balanced", "unbalanced"}
    depth, width : int
        L and d.
    scale : float
        :math:`\alpha > 0`.

    Returns
    -------
    (L, d) ndarray

    Raises
    ------
    ValueError
        On another name, a depth or width below 1, or a scale that is not positive.

    Examples
    --------
    >>> initialise("unbalanced", depth=2, width=3, scale=0.5).tolist()
    [[0.5, 0.5, 0.5], [0.0, 0.0, 0.0]]
    """
    start = validate.choice("start", start, ("balanced", "unbalanced"))
    shape = validate.integer("depth", depth, least=1), validate.integer("width", width, least=1)
    validate.storable("depth, width", shape)
    s = np.full(shape, validate.number("scale", scale, sign="> 0"))
    if start == "unbalanced":
        s[-1] = 0
    return s


def gradient(s: ArrayLike, target: ArrayLike) -> np.ndarray:
    r"""Gradient of the loss: entry (l, i) is :math:`(\prod_k s_{k,i} - s_{\star,i}) \prod_{k\ne l} s_{k,i}`.

    Parameters
    ----------
    s : (..., L, d) array
    target : (d,) array

    Returns
    -------
    (..., L, d) ndarray

    Examples
    --------
    >>> gradient(np.array([[2.0, 1.0], [3.0, 1.0]]), np.array([5.0, 1.0])).tolist()
    [[3.0, 0.0], [2.0, 0.0]]
    """
    s, target = _checked(s, target)
    with np.errstate(over="ignore", invalid="ignore"):
        vector, others = _products(s)
        return validate.representable("s", s, (vector - target) * others)


def descend(s: ArrayLike, target: ArrayLike, learning_rate: ArrayLike, steps: int, *, keep: int | None = None) -> Run:
    r"""Run gradient descent on all layers at once and record the end-to-end vector and the loss.

    Parameters
    ----------
    s : (..., L, d) array
        Start, one network or a batch.
    target : (d,) array
        Target; entries may be zero or negative.
    learning_rate : float or array
        :math:`\eta > 0`. An array gives one run per rate, with its axes in front of the batch axes of `s`.
    steps : int
        Number of updates; states 0 to `steps` exist.
    keep : int, optional
        Record only the last `keep` states.

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        On wrong shapes, entries that are not finite, rates that are not positive, or a negative number of steps.

    Examples
    --------
    Beyond 2/4 the first coordinate alternates and the second, whose edge is at 2/2, converges.

    >>> run = descend(np.full((2, 2), 0.5), np.array([2.0, 1.0]), 0.55, 4000, keep=3)
    >>> run.coordinates.round(4).tolist()
    [[2.4912, 1.0], [1.327, 1.0], [2.4912, 1.0]]
    """
    s, target = _checked(s, target)
    rates = validate.positive("learning_rate", learning_rate)
    steps = validate.integer("steps", steps, least=0)
    first = 0 if keep is None else max(0, steps + 1 - validate.integer("keep", keep, least=1))
    dtype, shape = np.result_type(s, rates), rates.shape + s.shape[:-2]
    rates = np.broadcast_to(rates.reshape(rates.shape + (1,) * s.ndim), shape + (1, 1))
    s = np.broadcast_to(s, shape + s.shape[-2:]).astype(dtype)
    record = []
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(steps + 1):
            vector, others = _products(s)
            if t >= first:
                record.append(vector[..., 0, :])
            if t < steps:
                s = s - rates * (vector - target) * others
        coordinates = np.stack(record, axis=-2)
        finite = np.isfinite(coordinates).all(-1)
        coordinates = np.where(finite[..., None], coordinates, np.inf)
        loss = ((coordinates - target) ** 2).sum(-1) / 2
    diverged = ~(np.isfinite(loss).all(-1) & np.isfinite(s).all((-2, -1)))
    s = np.where(np.isnan(s), np.inf, s)
    return Run(s, np.arange(first, steps + 1), coordinates, loss, diverged)


def hessian_blocks(s: ArrayLike, target: ArrayLike) -> np.ndarray:
    r"""The L x L diagonal blocks of the Hessian, one per coordinate; all other entries are zero.

    .. math:: H^{(i)}_{lm} = \prod_{k\ne l}s_{k,i}\prod_{k\ne m}s_{k,i}
              + (1-\delta_{lm})\Bigl(\prod_k s_{k,i}-s_{\star,i}\Bigr)\prod_{k\ne l,m}s_{k,i}

    Parameters
    ----------
    s : (..., L, d) array
        L at most 1000: pairs of layers are taken one by one.
    target : (d,) array

    Returns
    -------
    (..., d, L, L) ndarray

    Notes
    -----
    The diagonal entries are squares, which equation (54) of the paper leaves out.

    Examples
    --------
    >>> hessian_blocks(np.array([[2.0], [3.0]]), np.array([6.0])).tolist()
    [[[9.0, 6.0], [6.0, 4.0]]]
    """
    s, target = _checked(s, target)
    if s.shape[-2] > 1000:
        raise ValueError(f"s: got {s.shape[-2]} layers, needs at most 1000")
    with np.errstate(over="ignore", invalid="ignore"):
        return validate.representable("s", s, _blocks(s, target))


def _blocks(s, target):
    """See `hessian_blocks`."""
    depth = s.shape[-2]
    vector, others = _products(s)
    H = np.moveaxis(others[..., :, None, :] * others[..., None, :, :], -1, -3)
    residual = vector[..., 0, :] - target
    for a in range(depth):
        for b in range(a):
            rest = np.delete(s, (a, b), axis=-2).prod(-2)
            H[..., a, b] += residual * rest
            H[..., b, a] += residual * rest
    return H


def spectrum_at_minimum(
    singular_values: ArrayLike, *, depth: int, width: int, scale: ArrayLike, init: str = "unbalanced"
) -> tuple[np.ndarray, np.ndarray]:
    r"""Eigenvalues of the Hessian at a balanced minimum, and how often each occurs.

    Each of the r non-zero coordinates has the block :math:`s_{\star,i}^{2-2/L}\,\mathbf 1\mathbf 1^\top`: once
    :math:`L s_{\star,i}^{2-2/L}`, and L - 1 times zero. A coordinate whose target is zero keeps the layer values of the
    one-zero start, :math:`(\alpha,\dots,\alpha,0)`: once :math:`\alpha^{2L-2}`, and L - 1 times zero. From the balanced
    start it goes to zero in all layers, where the block vanishes.

    Parameters
    ----------
    singular_values : (r,) array_like
        The non-zero target coordinates, positive, largest first.
    depth, width : int
        L >= 2 and d >= r.
    scale : float
        :math:`\alpha > 0`.
    init : {"unbalanced", "balanced"}
        Which start the minimum was reached from.

    Returns
    -------
    values : (n,) ndarray
        Those of the r non-zero coordinates, then :math:`\alpha^{2L-2}` (one-zero start, d > r), then 0.
    multiplicities : (n,) ndarray of int
        They sum to L d.

    Raises
    ------
    ValueError
        On values that are not positive, a width below their number, a depth below 2 or an unknown start.

    Notes
    -----
    Corrects the spectrum printed in the paper's proof of Theorem 3.

    Examples
    --------
    >>> values, multiplicities = spectrum_at_minimum((8.0, 1.0), depth=3, width=4, scale=0.1)
    >>> values.round(6).tolist(), multiplicities.tolist()
    ([48.0, 3.0, 0.0001, 0.0], [1, 1, 2, 8])
    """
    values = _targets(singular_values)
    depth = validate.integer("depth", depth, least=2)
    width = validate.integer("width", width, least=1)
    if width < values.size:
        raise ValueError(f"width: got {width}, needs at least {values.size}, the number of singular_values")
    alpha = validate.number("scale", scale, sign="> 0")
    init = validate.choice("init", init, ("balanced", "unbalanced"))
    with np.errstate(over="ignore"):
        top = validate.representable("singular_values", singular_values, depth * values ** (2 - 2 / depth))
        kept = validate.representable("scale", scale, np.float64(alpha) ** (2 * depth - 2))
    edges, counts = [top], [np.ones(values.size, int)]
    inactive = width - values.size if init == "unbalanced" else 0
    if inactive:
        edges.append([kept])
        counts.append([inactive])
    edges.append([0.0])
    counts.append([depth * width - values.size - inactive])
    return np.concatenate(edges), np.concatenate(counts)


@dataclass(frozen=True)
class Multipliers:
    """Two-step multipliers of every coordinate; between -1 and 1 is stable, exactly 1 is a direction that is kept."""

    along: np.ndarray  # (d,), all layers of the coordinate moved together
    across: np.ndarray  # (d,), layers moved against each other; L - 1 directions


def multipliers(singular_values: ArrayLike, depth: int, learning_rate: ArrayLike) -> Multipliers:
    r"""Two-step multipliers of the diagonal network on its two-cycle.

    A coordinate with :math:`q_i=\eta L s_{\star,i}^{2-2/L} > 2` is taken on its two-cycle, with
    :math:`z=\rho_2/\rho_1`: along as in `scalar.two_cycle`, across :math:`(2-z)(2-1/z) = 5-2(z+1/z)`. One with
    :math:`q_i\le 2` is taken at its balanced minimum: along :math:`(1-q_i)^2`, across 1, because an imbalance between
    layers is kept there.

    Parameters
    ----------
    singular_values : (d,) array_like
        Positive target coordinates.
    depth : int
        L >= 2.
    learning_rate : float

    Returns
    -------
    Multipliers

    Raises
    ------
    ValueError
        On values or rates that are not positive, or a depth below 2.

    Examples
    --------
    >>> found = multipliers((2.0, 1.0), 2, 0.55)
    >>> found.along.round(6).tolist(), found.across.round(6).tolist()
    ([0.18, 0.01], [0.8, 1.0])
    """
    rate = validate.number("learning_rate", learning_rate, sign="> 0")
    depth = validate.integer("depth", depth, least=2)
    values = _targets(singular_values)
    try:
        q = np.atleast_1d(scalar.relative_rate(values, depth, rate))
        t = scalar.branch_parameter(np.maximum(q, 2.0), depth)
        along = np.where(q > 2, scalar.branch_multiplier(t, depth), (1 - q) ** 2)
    except ValueError as error:  # it names what these functions were given
        got = f"singular_values, learning_rate: got {validate.short(singular_values)}, {validate.short(learning_rate)}"
        raise ValueError(f"{got}: {error}") from None
    z = np.exp(2 * t)
    return Multipliers(along, np.where(q > 2, (2 - z) * (2 - 1 / z), 1.0))


def together(depth: int) -> float:
    r"""Smallest :math:`s_{\star,i}/s_{\star,1}` at which coordinates 1 and i can both be on attracting two-cycles.

    .. math:: \Bigl(\frac{2}{q_4(L)}\Bigr)^{L/(2L-2)}

    with :math:`q_4` = ``scalar.window(depth).period_four``. The ratio itself is excluded.

    Examples
    --------
    Half the golden ratio for two layers:

    >>> round(together(2), 9)
    0.809016994
    """
    depth = validate.integer("depth", depth, least=2)
    return float((2 / scalar.window(depth).period_four) ** (depth / (2 * depth - 2)))


def most_together(singular_values: ArrayLike, depth: int) -> int:
    r"""Largest number of coordinates that can be on attracting two-cycles at one learning rate.

    They are those within one factor: :math:`s_{\star,i} \ge s_{\star,j} > s_{\star,i}(2/q_4)^{L/(2L-2)}` for some i. Where
    i is not the largest coordinate, the larger ones have left their two-cycle by then.

    Parameters
    ----------
    singular_values : (r,) array_like
        Positive target coordinates, in any order.
    depth : int
        L >= 2.

    Raises
    ------
    ValueError
        On values that are not positive, or a depth below 2.

    Examples
    --------
    The paper's Figure 5, and a target whose first coordinate is alone:

    >>> most_together((10, 9, 6), 3), most_together((10, 6, 5.9, 5.8), 3)
    (2, 3)
    """
    values = _targets(singular_values)
    ratio = together(depth)
    return max(int(((ratio * top < values) & (values <= top)).sum()) for top in values)


def periods(values: ArrayLike, *, largest: int = 16, tolerance: float = 1e-7) -> np.ndarray:
    """Smallest period, at most `largest`, with which each coordinate repeats; 0 where there is none.

    Parameters
    ----------
    values : (..., T, d) array
        Consecutive states, at least ``2 * largest`` of them.
    tolerance : float
        Largest difference, relative to the largest value of the coordinate, that counts as equal.

    Returns
    -------
    (..., d) ndarray of int

    Raises
    ------
    ValueError
        If there are too few states, or values that are not numbers.

    Examples
    --------
    >>> periods(np.array([[0.0, 1.0], [1.0, 1.0]] * 32)).tolist()
    [2, 1]
    """
    largest = validate.integer("largest", largest, least=1)
    tolerance = validate.number("tolerance", tolerance, sign="> 0")
    need = "needs real numbers (infinite where a run diverged)"
    states = validate.plain("values", values, need=need)
    if states.dtype.kind not in "iuf" or np.isnan(states).any():
        raise ValueError(f"values: got {validate.short(values)}, {need}")
    if states.ndim < 2 or states.shape[-2] < 2 * largest:
        raise ValueError(f"values: got shape {states.shape}, needs (..., T, d), T at least 2 * largest = {2 * largest}")
    states = np.moveaxis(states, -2, -1)
    rows = states.reshape(-1, states.shape[-1])
    return bifurcation.period(rows, longest=largest, tolerance=tolerance).reshape(states.shape[:-1])


def _targets(singular_values):
    values = validate.positive("singular_values", singular_values)
    values = np.atleast_1d(validate.cast("singular_values", singular_values, values, float))
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"singular_values: got shape {values.shape}, needs a list of at least one number")
    return values


def _checked(s, target):
    s, target = validate.real("s", s), validate.real("target", target)
    if s.ndim < 2 or 0 in s.shape[-2:]:
        raise ValueError(f"s: got shape {s.shape}, needs (..., L, d) with L >= 1 and d >= 1")
    if target.shape != s.shape[-1:]:
        raise ValueError(f"target: got shape {target.shape}, needs {s.shape[-1:]} to match s")
    dtype = np.result_type(s, target)  # that of the result: no product is lost in a narrower one
    return s.astype(dtype, copy=False), target.astype(dtype, copy=False)


def _products(s):
    """Products of all layers, (..., 1, d), and of all but one, (..., L, d), without a division."""
    before, after = np.ones_like(s), np.ones_like(s)
    for i in range(1, s.shape[-2]):
        before[..., i, :] = before[..., i - 1, :] * s[..., i - 1, :]
        after[..., -1 - i, :] = after[..., -i, :] * s[..., -i, :]
    others = before * after
    return others[..., :1, :] * s[..., :1, :], others
