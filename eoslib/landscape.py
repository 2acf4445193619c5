r"""Two landscapes over the plane: the Hölder table, and the scalar network :math:`(x^4 - 0.8)^2 + (y^4 - 1)^2`.

Points are arrays of shape (..., 2); leading axes are a batch. Values, gradients and Hessians are written out by hand, so
that they can be held against computer algebra. The Hölder table is minus an absolute value: its *ridges* are the lines
where that value vanishes, and they cut the plane into *cells*, each with one minimum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from . import validate

NEWTON_STEPS = 60


@dataclass(frozen=True)
class Run:
    """What `descend` returns for a batch (...) of starts and T steps; all states are kept."""

    points: np.ndarray  # (..., T + 1, 2)
    rates: np.ndarray  # (T,), the learning rate of each step
    diverged: np.ndarray  # (...), bool: some state is not finite or further out than `limit`


def holder(points: ArrayLike, *, usual: bool = False) -> np.ndarray:
    r"""Value of the Hölder table.

    As the paper prints it :math:`-|\sin x \cos y\, e^{1 - r/\pi}|`, and as it is usually defined, with
    :math:`|1 - r/\pi|` in the exponent; :math:`r = \sqrt{x^2 + y^2}`. The two are equal for :math:`r \le \pi`.

    Parameters
    ----------
    points : (..., 2) array
    usual : bool
        Take the usual definition.

    Returns
    -------
    (...) ndarray

    Raises
    ------
    ValueError
        If `points` is not numeric, not finite, or has another last axis, or where the usual table overflows.

    Examples
    --------
    >>> round(float(holder([8.05502, 9.66459], usual=True)), 4)  # one of four global minima
    -19.2085
    >>> round(float(holder([8.05502, 9.66459])), 4)  # as printed, the table is almost flat there
    -0.0472
    """
    usual = validate.flag("usual", usual)
    x, y, r = _polar(points)
    return -np.abs(np.sin(x) * np.cos(y)) * _envelope(r, usual)


def holder_gradient(points: ArrayLike, *, usual: bool = False) -> np.ndarray:
    r"""Gradient of `holder` off its ridges: with :math:`f = -e^{w}`, :math:`\nabla f = f\,\nabla w`.

    On a ridge and, in the usual table, on the circle :math:`r = \pi`, where there is no gradient, the value is the limit
    from one side; at the origin it is NaN.

    Returns
    -------
    (..., 2) ndarray

    Raises
    ------
    ValueError
        As `holder`.

    Examples
    --------
    At the deepest minimum of the printed table:

    >>> holder_gradient([np.arctan(np.pi), 0.0]).round(12).tolist()
    [0.0, 0.0]
    """
    usual = validate.flag("usual", usual)
    x, y, r = _polar(points)
    outer, slope = _envelope(r, usual), _slope(r, usual)
    sin, cos = np.sin(x) * np.cos(y), np.cos(x) * np.cos(y)
    sign = np.where(sin < 0, 1.0, -1.0) * outer
    across = np.sin(x) * np.sin(y)
    with np.errstate(invalid="ignore"):
        return np.stack([sign * (cos + sin * slope * x / r), sign * (-across + sin * slope * y / r)], axis=-1)


def holder_hessian(points: ArrayLike, *, usual: bool = False) -> np.ndarray:
    r"""Hessian of `holder` off its ridges, :math:`\nabla^2 f = f\,(\nabla^2 w + \nabla w \nabla w^\top)`, in products of
    sines and cosines, so that it has no pole at a ridge.

    Returns
    -------
    (..., 2, 2) ndarray

    Raises
    ------
    ValueError
        As `holder`.

    Examples
    --------
    >>> H = holder_hessian([np.arctan(np.pi), 0.0])
    >>> np.linalg.eigvalsh(H).round(4).tolist()
    [1.9086, 2.1699]
    """
    usual = validate.flag("usual", usual)
    x, y, r = _polar(points)
    k = _slope(r, usual)
    sx, cx, sy, cy = np.sin(x), np.cos(x), np.sin(y), np.cos(y)
    sign = np.where(sx * cy < 0, 1.0, -1.0) * _envelope(r, usual)
    g = sx * cy
    with np.errstate(invalid="ignore"):
        u, v, steep = x / r, y / r, k * (g / r)  # near the origin g / r is in range where 1 / r is not
    a, b = k * u, k * v  # gradient of the exponent; its second derivatives are k / r times products of u and v
    xx = steep * v * v + g * (a * a - 1) + 2 * cx * cy * a
    yy = steep * u * u + g * (b * b - 1) - 2 * sx * sy * b
    xy = -steep * u * v + g * a * b + cx * cy * b - sx * sy * a - cx * sy
    return np.stack([np.stack([sign * xx, sign * xy], -1), np.stack([sign * xy, sign * yy], -1)], -2)


def cell(points: ArrayLike) -> np.ndarray:
    r"""The cell of the Hölder table that a point lies in: :math:`(\lfloor x/\pi\rfloor, \lfloor y/\pi + \tfrac12\rfloor)`.

    Raises
    ------
    ValueError
        As `holder`, or for a point beyond 1e15.

    Examples
    --------
    >>> cell([[1.3, 0.0], [-1.3, 3.0]]).tolist()
    [[0, 0], [-1, 1]]
    """
    points = validate.double("points", _points(points))
    if np.any(np.abs(points) > 1e15):  # whose neighbouring floats may be in other cells
        raise ValueError(f"points: got {validate.short(points)}, needs numbers up to 1e15 in size")
    return np.floor(points / np.pi + np.array([0.0, 0.5])).astype(int)


def cell_minimum(cells: ArrayLike, *, usual: bool = False) -> np.ndarray:
    r"""The minimum inside each cell of the Hölder table, by Newton's method from the cell's middle.

    Parameters
    ----------
    cells : (..., 2) integer array
        As `cell` returns them.
    usual : bool
        Take the usual definition.

    Returns
    -------
    (..., 2) ndarray

    Raises
    ------
    ValueError
        If `cells` are not pairs of integers, or the iteration leaves a cell or does not reach a point with positive
        curvature and a gradient below 1e-12 of the table's depth.

    Examples
    --------
    >>> cell_minimum([[0, 0], [2, 3]], usual=True).round(4).tolist()
    [[1.2626, 0.0], [8.055, 9.6646]]
    """
    usual = validate.flag("usual", usual)
    cells = validate.plain("cells", cells, need="needs (..., 2) integers")
    if cells.dtype.kind not in "iu" or cells.ndim == 0 or cells.shape[-1] != 2:
        raise ValueError(f"cells: got shape {cells.shape} of {cells.dtype}, needs (..., 2) integers")
    if np.any(np.abs(cells.astype(float)) > 400):  # where the table is e^560 deep, or e^-560
        raise ValueError(f"cells: got {validate.short(cells)}, needs integers up to 400 in size")
    point = np.pi * (cells + np.array([0.5, 0.0]))
    for _ in range(NEWTON_STEPS):
        g, H = holder_gradient(point, usual=usual), holder_hessian(point, usual=usual)
        point = point - np.linalg.solve(H, g[..., None])[..., 0]
    small = np.abs(holder_gradient(point, usual=usual)).max(-1) < -1e-12 * holder(point, usual=usual)
    bowl = np.linalg.eigvalsh(holder_hessian(point, usual=usual))[..., 0] > 0
    found = small & bowl & np.all(cell(point) == cells, axis=-1)
    if not np.all(found):
        bad = cells[~found]
        raise ValueError(f"cells: got {bad.reshape(-1, 2)[:3].tolist()}, needs cells with a smooth minimum inside")
    return point


def scalar_network(points: ArrayLike, *, targets: ArrayLike = (0.8, 1.0), depth: int = 4) -> np.ndarray:
    r"""Value of :math:`\sum_i (x_i^L - m_i)^2`, the paper's equation (6) by default; note that there is no ½.

    Examples
    --------
    >>> float(scalar_network([0.0, 2.0]))
    225.64
    """
    points, targets, depth = _network(points, targets, depth)
    with np.errstate(over="ignore", invalid="ignore"):
        return _in_range(points, ((points**depth - targets) ** 2).sum(-1))


def scalar_network_gradient(points: ArrayLike, *, targets: ArrayLike = (0.8, 1.0), depth: int = 4) -> np.ndarray:
    r"""Gradient of `scalar_network`, :math:`2L(x_i^L - m_i)x_i^{L-1}`.

    Examples
    --------
    >>> scalar_network_gradient([1.0, 2.0], targets=(2.0, 1.0)).tolist()
    [-8.0, 960.0]
    """
    points, targets, depth = _network(points, targets, depth)
    with np.errstate(over="ignore", invalid="ignore"):
        return _in_range(points, 2 * depth * (points**depth - targets) * points ** (depth - 1))


def scalar_network_hessian(points: ArrayLike, *, targets: ArrayLike = (0.8, 1.0), depth: int = 4) -> np.ndarray:
    r"""Hessian of `scalar_network`: diagonal, with entries :math:`2L x_i^{L-2}[(2L-1)x_i^L - (L-1)m_i]`.

    Examples
    --------
    >>> scalar_network_hessian([1.0, 1.0], targets=(2.0, 1.0)).tolist()
    [[8.0, 0.0], [0.0, 32.0]]
    """
    points, targets, depth = _network(points, targets, depth)
    with np.errstate(over="ignore", invalid="ignore"):
        lower = points ** (depth - 2)
        entries = 2 * depth * lower * ((2 * depth - 1) * lower * points**2 - (depth - 1) * targets)
    return _in_range(points, entries)[..., None] * np.eye(2)


def descend(gradient: Callable, start: ArrayLike, rates: ArrayLike, *, limit: float = 1e3) -> Run:
    r"""Run gradient descent on a plane with a learning rate of its own for each step.

    Parameters
    ----------
    gradient : callable
        Takes (..., 2) points and returns their gradients.
    start : (..., 2) array
        One start or a batch.
    rates : (T,) array
        Learning rate of each step, positive.
    limit : float
        A run that leaves the square of this half width has diverged; it stays where it was then.

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        On a wrong shape, entries that are not finite, or rates that are not positive; and what `gradient` raises: that of
        a `scalar_network` does where it overflows, so that for 52 layers or more `limit` has to be smaller.

    Examples
    --------
    >>> run = descend(lambda p: p, [[1.0, 2.0]], np.full(3, 0.5))
    >>> run.points[0].tolist()
    [[1.0, 2.0], [0.5, 1.0], [0.25, 0.5], [0.125, 0.25]]
    """
    point, limit = validate.double("start", _points(start, "start")), validate.number("limit", limit, sign="> 0")
    validate.function("gradient", gradient)
    rates = validate.positive("rates", rates)
    if rates.ndim != 1:
        raise ValueError(f"rates: got shape {rates.shape}, needs one rate for each step")
    points, alive = [point], np.ones(point.shape[:-1], bool)
    for rate in rates:
        with np.errstate(over="ignore", invalid="ignore"):
            moved = point - rate * gradient(point)
        alive = alive & np.all(np.abs(moved) <= limit, axis=-1)  # NaN counts as outside
        point = np.where(alive[..., None], moved, point)
        points.append(point)
    return Run(np.stack(points, axis=-2), rates, ~alive)


def downward_share(gradients: ArrayLike, hessians: ArrayLike) -> np.ndarray:
    r"""Share of the squared gradient, and so of a gradient step, that lies along directions of negative curvature.

    .. math:: \sum_{\kappa_i < 0} (g \cdot u_i)^2 / \lVert g\rVert^2

    Parameters
    ----------
    gradients : (..., n) array
    hessians : (..., n, n) array

    Returns
    -------
    (...) ndarray
        Between 0 and 1; NaN where the gradient vanishes.

    Raises
    ------
    ValueError
        If the shapes do not belong together.

    Examples
    --------
    >>> float(downward_share([3.0, 4.0], np.diag([1.0, -2.0])))
    0.64
    """
    g, H = validate.real("gradients", gradients), validate.real("hessians", hessians)
    if g.ndim == 0 or H.shape != (*g.shape, g.shape[-1]):
        raise ValueError(f"hessians: got shape {H.shape}, needs gradients' {g.shape} and its last axis once more")
    size = np.abs(g).max(axis=-1, initial=0, keepdims=True)  # so that squares stay in range
    g, H = validate.double("gradients", g / np.where(size > 0, size, 1)), validate.double("hessians", H)
    values, vectors = np.linalg.eigh(H)
    parts = (np.swapaxes(vectors, -1, -2) @ g[..., None])[..., 0] ** 2
    with np.errstate(invalid="ignore"):
        return (parts * (values < 0)).sum(-1) / parts.sum(-1)


def chord_hessian(hessian: Callable, one: ArrayLike, two: ArrayLike, *, nodes: int = 24) -> np.ndarray:
    r"""Mean Hessian along a chord, :math:`\bar H = \int_0^1 \nabla^2 f(a + t(b - a))\,dt`, by Gauss and Legendre.

    If :math:`a` and :math:`b` are the two phases of a two-cycle of gradient descent with rate :math:`\eta`, then
    :math:`\bar H (b - a) = \tfrac2\eta (b - a)`.

    Parameters
    ----------
    hessian : callable
        Takes (..., n) points and returns (..., n, n); must be smooth on the chord.
    one, two : (n,) array
        The ends.
    nodes : int
        Number of points of the rule, at most 1000; exact for polynomials of degree ``2 nodes - 1``.

    Returns
    -------
    (n, n) ndarray

    Examples
    --------
    >>> ends = np.array([0.0]), np.array([3.0])
    >>> chord_hessian(lambda p: p[..., None] ** 2, *ends).round(12).tolist()
    [[3.0]]
    """
    validate.function("hessian", hessian)
    one, two = validate.real("one", one), validate.real("two", two)
    if one.ndim != 1 or one.shape != two.shape:
        raise ValueError(f"two: got shape {two.shape}, needs one vector like the first, {one.shape}")
    places, weights = np.polynomial.legendre.leggauss(validate.integer("nodes", nodes, least=1, most=1000))
    with np.errstate(over="ignore", invalid="ignore"):
        points = validate.representable("one, two", (one, two), one + (places[:, None] + 1) / 2 * (two - one))
        values = validate.real("hessian", hessian(points), need="needs a function whose values are finite")
    if values.shape != points.shape + (one.size,):
        raise ValueError(f"hessian: got shape {values.shape} from it, needs {points.shape + (one.size,)}")
    return np.tensordot(weights / 2, values, axes=1)


def _points(points, name="points"):
    points = validate.real(name, points)
    if points.ndim == 0 or points.shape[-1] != 2:
        raise ValueError(f"{name}: got shape {points.shape}, needs (..., 2)")
    return points


def _polar(points):
    points = _points(points)
    x, y = points[..., 0], points[..., 1]
    with np.errstate(over="ignore"):
        return x, y, np.hypot(x, y)


def _in_range(points, values):
    return validate.representable("points, targets, depth", points, values)


def _envelope(r, usual):
    with np.errstate(over="ignore"):
        found = np.exp(np.abs(1 - r / np.pi) if usual else 1 - r / np.pi)
    return validate.representable("points", r, found)


def _slope(r, usual):
    """Derivative of the exponent by r."""
    return np.where(r > np.pi, 1.0, -1.0) / np.pi if usual else np.full_like(r, -1 / np.pi)


def _network(points, targets, depth):
    targets = validate.positive("targets", targets)
    if targets.shape != (2,):
        raise ValueError(f"targets: got shape {targets.shape}, needs two numbers")
    return _points(points), targets, validate.integer("depth", depth, least=2)
