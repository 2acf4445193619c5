r"""The pair block: what a small off-diagonal perturbation does while a network oscillates along its diagonal.

Take balanced, aligned layers: in the singular bases of the target every layer is diagonal, with entry :math:`a` in mode i
and :math:`b` in mode j. To first order the entries (i, j) and (j, i) of all layers move among themselves: 2L numbers.
Write :math:`X_\ell` for entry (i, j) of layer :math:`\ell` and :math:`Y_\ell` for entry (j, i) of layer
:math:`L + 1 - \ell`. Exchanging X and Y is a symmetry, so that the Hessian splits into two L x L sectors,

.. math:: X = \pm Y: \quad H_\pm = v v^\top \pm T, \quad v_\ell = a^{L-\ell} b^{\ell-1},

with a Hankel matrix T that carries the residuals :math:`a^L - m_i` and :math:`b^L - m_j` and vanishes at the minimum.
One step of descent multiplies by :math:`I - \eta H_\pm`; over a two-cycle two such factors make the Floquet matrix whose
eigenvalues, the multipliers, decide whether the aligned oscillation survives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from eoslib import network, scalar, validate

PHASES = ("rest", "same", "opposite")
DEEPEST = 1000  # of a dense sector: its multipliers take a time that grows like L^3, one second here
WHOLE = 128  # up to this depth `threshold` takes the whole sector
ESCAPE = 1e4  # weights this many times larger than those of the problem do not come back


def pair_hessian(first: ArrayLike, second: ArrayLike, targets: ArrayLike) -> np.ndarray:
    r"""Hessian block of the entries (i, j) and (j, i) of an aligned network whose layers need not be balanced.

    With :math:`a_\ell, b_\ell` the entries of layer :math:`\ell` in the two modes and :math:`r_i, r_j` the residuals,

    .. math::

        H = \begin{pmatrix} v v^\top & C \\ C^\top & w w^\top \end{pmatrix}, \quad
        v_\ell = \prod_{k>\ell} a_k \prod_{k<\ell} b_k, \quad w_\ell = \prod_{k>\ell} b_k \prod_{k<\ell} a_k,

    .. math::

        C_{\ell n} = r_i \prod_{k>\ell} a_k \prod_{n<k<\ell} b_k \prod_{k<n} a_k \ (n < \ell), \quad
        C_{\ell n} = r_j \prod_{k<\ell} b_k \prod_{\ell<k<n} a_k \prod_{k>n} b_k \ (n > \ell).

    Parameters
    ----------
    first, second : (L,) array_like
        Diagonal entries of the layers, first layer first, in mode i and in mode j. Zeros are allowed.
    targets : (2,) array_like
        Singular values of the target in the two modes (0 for a mode that the target lacks).

    Returns
    -------
    (2L, 2L) ndarray
        Order of rows: entry (i, j) of layers 1 to L, then entry (j, i) of layers 1 to L.

    Raises
    ------
    ValueError
        If the shapes differ, L < 2, an entry is not finite, or the block is beyond the floating range.

    Examples
    --------
    At a minimum C vanishes and the block has the eigenvalue :math:`\lambda_{ij}` twice:

    >>> H = pair_hessian([2.0, 2.0], [1.0, 1.0], (4.0, 1.0))
    >>> np.linalg.eigvalsh(H).round(12)[-2:].tolist()
    [5.0, 5.0]
    """
    a, b = (validate.real(name, x) for name, x in (("first", first), ("second", second)))
    m = validate.positive("targets", targets, zero=True)
    if a.ndim != 1 or a.shape != b.shape or a.size < 2 or m.shape != (2,):
        raise ValueError(
            f"first, second, targets: got shapes {a.shape}, {b.shape}, {m.shape}, needs (L,), (L,), (2,) with L >= 2"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        (a_before, a_between, a_after), (b_before, b_between, b_after) = _products(a), _products(b)
        v, w = a_after * b_before, b_after * a_before
        C = (a.prod() - m[0]) * a_after[:, None] * b_between * a_before
        C += (b.prod() - m[1]) * b_before[:, None] * a_between.T * b_after
        H = np.block([[np.outer(v, v), C], [C.T, np.outer(w, w)]])
    return validate.representable("first, second, targets", (first, second, targets), H)


def _products(x):
    """Products of the entries before l, of those between n and l (a matrix, zero unless n < l), and of those after l."""
    before = np.cumprod([1.0, *x[:-1]])
    between = np.zeros((x.size, x.size))
    for row in range(1, x.size):
        between[row, : row - 1] = between[row - 1, : row - 1] * x[row - 1]
        between[row, row - 1] = 1.0
    return before, between, np.cumprod([1.0, *x[:0:-1]])[::-1]


def sector_hessian(first: ArrayLike, second: ArrayLike, targets: ArrayLike, depth: int, sign: int) -> np.ndarray:
    r"""Sector :math:`H_\pm = v v^\top \pm T` of the pair block of balanced layers.

    .. math::

        T_{\ell k} = \begin{cases}
        r_i\, a^{2L-\ell-k} b^{\ell+k-L-2} & \ell + k \ge L + 2, \\
        0 & \ell + k = L + 1, \\
        r_j\, b^{\ell+k-2} a^{L-\ell-k} & \ell + k \le L.
        \end{cases}

    Parameters
    ----------
    first, second : float
        Layer singular values a and b in modes i and j, not zero.
    targets : (2,) array_like
        Singular values of the target in the two modes.
    depth : int
        L, from 2 to 1000.
    sign : {1, -1}
        1: the product stays symmetric (entry (i, j) = entry (j, i)); -1: antisymmetric.

    Returns
    -------
    (L, L) ndarray

    Raises
    ------
    ValueError
        On values that are not finite and non-zero, a depth out of range, or another sign.

    Examples
    --------
    >>> sector_hessian(2.0, 1.0, (3.0, 1.0), 2, -1).tolist()
    [[4.0, 2.0], [2.0, 0.0]]
    """
    depth = validate.integer("depth", depth, least=2, most=DEEPEST)
    a, b = validate.number("first", first), validate.number("second", second)
    m = validate.positive("targets", targets, zero=True)
    if m.shape != (2,):
        raise ValueError(f"targets: got shape {m.shape}, needs two numbers")
    if a == 0 or b == 0:
        raise ValueError(
            f"first, second: got {first!r}, {second!r}, needs numbers that are not zero (pair_hessian takes zeros)"
        )
    sign = _sign(sign)
    n = np.arange(1, depth + 1)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        v = np.float64(a) ** (depth - n) * np.float64(b) ** (n - 1.0)
    a, b = np.float64(a), np.float64(b)
    k = n[:, None] + n
    late, early = k >= depth + 2, k <= depth
    T = np.zeros((depth, depth))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        T[late] = (a**depth - m[0]) * (a ** (2.0 * depth - k) * b ** (k - depth - 2.0))[late]
        T[early] = (b**depth - m[1]) * (b ** (k - 2.0) * a ** (1.0 * depth - k))[early]
        H = np.outer(v, v) + sign * T
    return validate.representable("first, second, targets, depth", (first, second, targets, depth), H)


def _sign(value, name="sign"):
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, (bool, np.timedelta64))
    if not real or value not in (1, -1):
        raise ValueError(f"{name}: got {validate.short(value)}, needs 1 or -1")
    return int(value)


def _angles(depth, sign):
    """Angles (L + 1, n) between the layers, none at the two ends, of the rotations that stay within one sector."""
    hidden = depth - 1  # rotations between layers l and l + 1, l = 1 ... L - 1
    count = (hidden + (1 if sign == 1 else 0)) // 2
    angles = np.zeros((depth + 1, count))
    for n in range(count):
        angles[n + 1, n] += 1.0
        angles[depth - 1 - n, n] += sign
    return angles


def _turns(a, b, angles):
    """Directions (L, n) in which orthogonal changes of the hidden bases by these angles move the pair block."""
    return angles[1:] * b - angles[:-1] * a


def _pair(singular_values, pair):
    m = validate.cast("singular_values", singular_values, validate.positive("singular_values", singular_values), float)
    if m.ndim != 1 or m.size < 2 or np.any(np.diff(m) > 0):
        raise ValueError(f"singular_values: got {singular_values!r}, needs at least two, largest first")
    i, j = _modes(pair)
    if not 0 <= i < j < m.size:
        raise ValueError(f"pair: got {pair!r}, needs 0 <= i < j < {m.size}, the number of singular_values")
    return float(m[i]), float(m[j])


def _modes(pair):
    """Two whole numbers."""
    pair = list(pair) if isinstance(pair, np.ndarray) and pair.ndim else pair
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(f"pair: got {validate.short(pair)}, needs two modes, counted from 0")
    return tuple(validate.integer("pair", mode, least=0) for mode in pair)


def _states(m, depth, learning_rate, phase):
    """Layer singular values ((a, a'), (b, b')) at the two points of the cycle."""
    phase = validate.choice("phase", phase, PHASES)
    one = scalar.two_cycle(m[0], depth, learning_rate)
    if phase == "rest":
        return (one.low, one.high), (m[1] ** (1 / depth),) * 2
    two = scalar.two_cycle(m[1], depth, learning_rate)
    return (one.low, one.high), (two.low, two.high) if phase == "same" else (two.high, two.low)


def _edge(singular_values, m, depth):
    """The edge :math:`2 / S` of the first of the modes, where it and S are within the floating range."""
    try:
        edge = 2 / float(scalar.sharpness_at_minimum(m[0], depth))
    except ValueError:
        edge = np.inf
    return validate.representable("singular_values", singular_values, edge)


def floquet_matrix(
    singular_values: ArrayLike,
    depth: int,
    learning_rate: float,
    sign: int,
    *,
    pair: tuple[int, int] = (0, 1),
    phase: str = "rest",
    deflate: bool = False,
) -> np.ndarray:
    r"""Two-step linearisation of one sector over the two-cycle, :math:`(I - \eta H_\pm(\rho_2))(I - \eta H_\pm(\rho_1))`.

    Parameters
    ----------
    singular_values : (r,) array_like
        Of the target, largest first, r >= 2.
    depth : int
        L, from 2 to 1000.
    learning_rate : float
        Beyond the edge of the first mode of the pair, so that its two-cycle exists.
    sign : {1, -1}
        Sector.
    pair : (int, int)
        Modes i < j, counted from 0. Mode i oscillates.
    phase : {"rest", "same", "opposite"}
        What mode j does: stays at its minimum, oscillates in step with mode i, or against it.
    deflate : bool
        Send the exact multipliers 1, which belong to rotations of the hidden bases, to 0.

    Returns
    -------
    (L, L) ndarray

    Raises
    ------
    ValueError
        On bad arguments, and where there is no two-cycle.

    Examples
    --------
    >>> floquet_matrix((1.0, 0.8), 2, 1.1, 1).shape
    (2, 2)
    """
    m, learning_rate = _pair(singular_values, pair), validate.number("learning_rate", learning_rate, sign="> 0")
    sign, deflate = _sign(sign), validate.flag("deflate", deflate)
    _edge(singular_values, m, validate.integer("depth", depth, least=2, most=DEEPEST))
    (a, a_next), (b, b_next) = _states(m, depth, learning_rate, phase)
    one, two = (
        np.eye(depth) - learning_rate * sector_hessian(x, y, m, depth, sign) for x, y in ((a, b), (a_next, b_next))
    )
    M = two @ one
    if deflate:
        angles = _angles(depth, sign)
        right, left = _turns(a, b, angles), _turns(a_next, b_next, angles)
        M = M - right @ np.linalg.solve(left.T @ right, left.T) if right.size else M
    return M


def multipliers(
    singular_values: ArrayLike,
    depth: int,
    learning_rate: ArrayLike,
    *,
    pair: tuple[int, int] = (0, 1),
    phase: str = "rest",
    sector: int | None = None,
) -> np.ndarray:
    r"""Floquet multipliers of the pair block over the two-cycle of its first mode.

    Parameters
    ----------
    singular_values : (r,) array_like
        Of the target, largest first, r >= 2.
    depth : int
        L, from 2 to 1000.
    learning_rate : float
        :math:`\eta > 2 / S` of the mode that oscillates.
    pair, phase
        See `floquet_matrix`.
    sector : {None, 1, -1}
        One sector only (L multipliers), or both (2L, the default).

    Returns
    -------
    complex ndarray
        Largest modulus first. L - 1 of the 2L are exactly 1: rotations of the hidden bases.

    Raises
    ------
    ValueError
        On bad arguments, and where there is no two-cycle (:math:`\eta S \le 2`, or past divergence).

    Examples
    --------
    L = 2 at :math:`\eta = 2/(\sigma_1 + \sigma_2)`: a pair on the unit circle, cos(angle) = (3k - 1)/(1 + k), k = 0.8.

    >>> multipliers((1.0, 0.8), 2, 2 / 1.8, sector=-1).real.round(9).tolist()
    [0.777777778, 0.777777778]
    """
    signs = (1, -1) if sector is None else (_sign(sector, "sector"),)
    found = np.concatenate(
        [
            np.linalg.eigvals(floquet_matrix(singular_values, depth, learning_rate, sign, pair=pair, phase=phase))
            for sign in signs
        ]
    ).astype(complex)
    return found[np.lexsort((-found.imag, -np.abs(found).round(12)))]


def growth_rate(
    singular_values: ArrayLike,
    depth: int,
    learning_rate: ArrayLike,
    *,
    pair: tuple[int, int] = (0, 1),
    phase: str = "rest",
) -> float:
    r"""Growth per step of the most unstable off-diagonal perturbation, :math:`\tfrac12 \ln \max |\mu|`.

    Rotations of the hidden bases (multiplier 1) are left out, so that the result is negative where the aligned cycle is stable.

    Parameters
    ----------
    singular_values, depth, learning_rate, pair, phase
        See `multipliers`.

    Returns
    -------
    float

    Examples
    --------
    >>> growth_rate((1.0, 0.9), 3, 0.72) > 0 > growth_rate((1.0, 0.9), 3, 0.71)
    True
    """
    m = _pair(singular_values, pair)
    radii = []
    for sign in (1, -1):
        M = floquet_matrix(m, depth, learning_rate, sign, phase=phase)
        (_, a), (_, b) = _states(m, depth, learning_rate, phase)
        radii.append(_radius(M, _turns(a, b, _angles(depth, sign))))
    return float(np.log(max(radii)) / 2)


def _radius(M, left):
    r"""Largest :math:`|\mu|` beside the exact ones, whose left eigenvectors span the columns `left`.

    What is orthogonal to them is an invariant subspace with all other multipliers.
    """
    rest = np.linalg.qr(left, mode="complete")[0][:, left.shape[1] :]
    return np.abs(np.linalg.eigvals(rest.T @ M @ rest)).max()


def pair_eigenvalue(singular_values: ArrayLike, depth: int, *, pair: tuple[int, int] = (0, 1)) -> float:
    r"""Eigenvalue :math:`\lambda_{ij} = \sum_{\ell=0}^{L-1} \sigma_i^{2(L-1-\ell)/L} \sigma_j^{2\ell/L}` of the Hessian at the minimum.

    Examples
    --------
    >>> pair_eigenvalue((4.0, 1.0), 2)
    5.0
    """
    depth = validate.integer("depth", depth, least=2, most=10**6)
    one, two = _pair(singular_values, pair)
    n = np.arange(depth)
    with np.errstate(over="ignore"):
        total = np.sum(one ** (2 * (depth - 1 - n) / depth) * two ** (2 * n / depth))
    return float(validate.representable("singular_values", singular_values, total))


def threshold(singular_values: ArrayLike, depth: int, *, pair: tuple[int, int] = (0, 1)) -> float:
    r"""Learning rate :math:`\eta_T` at which the two-cycle of mode i loses stability to off-diagonal perturbations with mode j.

    The smallest rate beyond the edge at which a multiplier other than the exact ones leaves the unit circle. For L = 2 it is
    :math:`2 / (\sigma_i + \sigma_j)`; for deeper networks slightly above :math:`2 / \lambda_{ij}` where the two values are near
    each other, and below it where they are far apart (L = 3, ratio 0.1). For equal singular values it is :math:`2 / S`: the cycle
    is unstable from birth.

    Parameters
    ----------
    singular_values : (r,) array_like
    depth : int
        L, from 2 to 10 000; to 1000 where the search reaches :math:`\eta S = 4`, for which `scalar.window` is needed.
    pair : (int, int)

    Returns
    -------
    float

    Raises
    ------
    ValueError
        On bad arguments, and if no multiplier leaves the unit circle on the branch of two-cycles up to its end.

    Notes
    -----
    Beyond 128 layers both sectors are restricted to sequences that are polynomials of degree below 48 in the layer. An
    eigenvector is a sum of four geometric sequences :math:`\lambda^\ell`, so that this has the multipliers of the slow ones to
    rounding. A fast one, :math:`|\lambda + 1/\lambda - 2| L^2 \gg 1`, belongs to a real multiplier just below 1,
    :math:`\mu - 1 \simeq d^2 (p + P) / (p P (\lambda + 1/\lambda - 2))`, with :math:`p, P = \rho_1/b, \rho_2/b` and
    :math:`d = P - p`. The time is linear in L. The error is a few rounding errors of :math:`\rho^L`, relative
    :math:`10^{-16} L`.

    The cycle itself is attracting within the diagonal only up to ``scalar.window(depth).period_four``; beyond, the value
    returned still says where the (unstable) cycle changes.

    Examples
    --------
    >>> round(threshold((10.0, 9.0, 6.0), 2) * 19 / 2, 9)
    1.0
    >>> round(threshold((10.0, 9.0, 6.0), 3) * pair_eigenvalue((10.0, 9.0), 3) / 2, 6)
    1.003429
    """
    m, depth = _pair(singular_values, pair), validate.integer("depth", depth, least=2, most=10_000)
    edge = _edge(singular_values, m, depth)
    if m[0] == m[1]:
        return float(edge)
    spaces = {sign: _space(depth, sign) for sign in (1, -1)}

    def rate(eta):
        (a, a_next), (b, _) = _states(m, depth, eta, "rest")
        radii = []
        for sign, (columns, angles) in spaces.items():
            after = columns
            for x in (a, a_next):
                after = after - eta * _resting_product(x, b, m[0], sign, after)
            radii.append(_radius(columns.T @ after, columns.T @ _turns(a_next, b, angles)))
        return np.log(max(radii))

    top = edge + 3 * (2 / pair_eigenvalue(m, depth) - edge)
    if top >= 2 * edge:  # no branch ends before eta S = 4
        top = min(top, (1 - 1e-9) * edge / 2 * scalar.window(depth).divergence)
    grid = edge + (top - edge) * np.linspace(1 / 60, 1.0, 30)
    previous = grid[0]
    for eta in grid[1:]:
        if rate(eta) > 0:
            return float(brentq(rate, previous, eta, xtol=1e-15 * edge, rtol=1e-14))
        previous = eta
    raise ValueError(
        f"singular_values: got {m} with depth {depth}, the pair block stays stable up to eta = {grid[-1]:.6g}"
    )


def _space(depth, sign):
    """Orthonormal columns (L, n) to which `threshold` restricts a sector, and the angles (L + 1, k) of their rotations.

    All, or of a deep network the polynomials in l of degree below n. Those of the angles that vanish at both ends have the
    parity of the sector, and n is such that the next one has a degree above n.
    """
    if depth <= WHOLE:
        return np.eye(depth), _angles(depth, sign)
    n = 47 if sign == 1 else 48
    place = np.linspace(-1, 1, depth + 1)  # of the gaps between layers; a layer is between two
    inner = (1 - place**2) * (1 if sign == 1 else place)
    return _polynomials((place[1:] + place[:-1]) / 2, np.ones(depth), n), _polynomials(place**2, inner, 23)


def _polynomials(x, start, count):
    """Orthonormal basis (len(x), count) of `start` times the polynomials in x, by Arnoldi's method."""
    basis = np.zeros((len(x), count))
    for n in range(count):
        vector = x * basis[:, n - 1] if n else start
        for _ in range(2):  # twice is enough against rounding
            vector = vector - basis @ (basis.T @ vector)
        basis[:, n] = vector / np.linalg.norm(vector)
    return basis


def _resting_product(a, b, target, sign, X):
    """Product of `sector_hessian` with the columns of X (L, n) while mode j rests, in O(L) operations for each."""
    depth = len(X)
    powers = (b / a) ** np.arange(depth)[:, None]
    v = a ** (depth - 1) * powers
    corner = np.zeros_like(X)  # row l sums over the layers from L + 2 - l on; T[early] is zero as b^L is the target
    corner[1:] = (np.cumsum((powers * X)[::-1], axis=0) / powers[::-1])[:-1]
    return v * (v.T @ X) + sign * (a**depth - target) * a ** (depth - 2) * corner


@dataclass(frozen=True)
class NearDegenerate:
    r"""Laws for :math:`\sigma_j = (1 - \delta)\,\sigma_i`, :math:`\delta \to 0`, with q = eta S of mode i."""

    excess: float  # (q_T - 2) / delta
    ratio: float  # (eta_T lambda_ij / 2 - 1) / delta
    angle: float  # (angle of the multiplier, per two steps) / sqrt(q - 2)
    growth: float  # growth per step = growth * (q - q_T)
    excess_second: float  # q_T - 2 = excess * delta + excess_second * delta^2 + ...
    ratio_second: float  # eta_T lambda_ij / 2 - 1 = ratio * delta + ratio_second * delta^2 + ...


def near_degenerate(depth: int) -> NearDegenerate:
    r"""Threshold to second order, rotation and growth to first, when the two singular values are close.

    .. math::

        q_T - 2 \simeq \frac{10 (L-1)^2 (5L-4)}{3L(7L^2-10L+2)}\,\delta, \quad
        \frac{\eta_T \lambda_{ij}}{2} - 1 \simeq \frac{(L-1)(L-2)(4L-7)}{3L(7L^2-10L+2)}\,\delta,

    .. math::

        \arg\mu \simeq 2 \sqrt{\frac{(L+1)(q-2)}{5L-4}}, \quad
        \tfrac12 \ln|\mu| \simeq \frac{3(7L^2-10L+2)}{10(L-1)(5L-4)}\,(q - q_T).

    The terms in :math:`\delta^2` of the first two are ratios of polynomials in L over :math:`L^2 (L+1) C^3`,
    :math:`C = 7L^2 - 10L + 2`.

    Parameters
    ----------
    depth : int
        L, at least 2.

    Returns
    -------
    NearDegenerate

    Examples
    --------
    For L = 2, :math:`q_T = 4/(2 - \delta) = 2 + \delta + \delta^2/2 + \dots`

    >>> law = near_degenerate(2)
    >>> law.excess, law.excess_second, law.ratio, law.ratio_second
    (1.0, 0.5, 0.0, 0.0)
    """
    L = validate.integer("depth", depth, least=2)
    common = 7 * L**2 - 10 * L + 2
    excess = (30456, -136056, 345238, -445586, 51553, 463441, -427379, 117421)  # powers of L, from the constant
    ratio = (57996, -169554, 170938, -91807, -34832, 203888, -193274, 56141)
    below = L**2 * (L + 1) * common**3
    return NearDegenerate(
        excess=10 * (L - 1) ** 2 * (5 * L - 4) / (3 * L * common),
        ratio=(L - 1) * (L - 2) * (4 * L - 7) / (3 * L * common),
        angle=2 * float(np.sqrt((L + 1) / (5 * L - 4))),
        growth=3 * common / (10 * (L - 1) * (5 * L - 4)),
        excess_second=5 * (L - 1) ** 2 * sum(c * L**k for k, c in enumerate(excess)) / (756 * below),
        ratio_second=(L - 1) * (L - 2) * sum(c * L**k for k, c in enumerate(ratio)) / (1512 * below),
    )


def lyapunov(
    W: np.ndarray, M: np.ndarray, learning_rate: ArrayLike, steps: int, *, rng: np.random.Generator
) -> np.ndarray:
    r"""Largest Lyapunov exponent per step of gradient descent on the full matrices, for a batch of runs.

    A random tangent vector V follows :math:`V \leftarrow V - \eta \nabla^2 f(W) V` along the orbit and is scaled back to
    length 1 in each step; the exponent is the mean logarithm of the scalings. Rotations of the hidden bases neither grow nor
    shrink, so that for L >= 2 the value is never far below zero.

    Parameters
    ----------
    W : (n, L, d, d) array
        Where the runs start; pass states on the attractor.
    M : (d, d) array
    learning_rate : (n,) array_like
    steps : int
    rng : numpy.random.Generator
        For the tangent vectors.

    Returns
    -------
    (n,) ndarray
        ``inf`` where the run escaped: a weight 1e4 times larger than the largest of its start, and than
        :math:`\max\lvert M \rvert^{1/L}`.

    Raises
    ------
    ValueError
        On wrong shapes or a missing generator, or where a derivative leaves the floating range.

    Examples
    --------
    At a stable minimum: the slowest direction of one number in two layers is neutral.

    >>> W, rng = np.ones((1, 2, 1, 1)), np.random.default_rng(0)
    >>> value = lyapunov(W, np.eye(1), [0.5], 200, rng=rng)
    >>> bool(abs(value[0]) < 0.02)
    True
    """
    W, M = validate.weights(W, M, numpy_only=True)
    if object in (W.dtype, M.dtype):
        raise ValueError("W, M: got an array of objects, needs a floating dtype")
    rates = validate.positive("learning_rate", learning_rate)
    steps = validate.integer("steps", steps, least=1)
    validate.generator(rng, "the tangent vectors")
    if W.ndim != 4 or rates.shape != W.shape[:1]:
        raise ValueError(f"W, learning_rate: got shapes {W.shape}, {rates.shape}, needs (n, L, d, d) and (n,)")
    V = rng.standard_normal(W.shape)
    V = V / np.sqrt((V * V).sum(axis=(1, 2, 3), keepdims=True))  # else its length counts as growth of the first step
    depth = W.shape[1]
    size, largest = np.abs(M).max() ** (1 / depth), np.abs(W).max(initial=0)
    size = size if size > 2.0**-100 * largest else largest
    power = int(np.frexp(size)[1]) - 1  # in units of 2^power products of layers stay in range
    with np.errstate(over="ignore", under="ignore"):
        W, M = np.ldexp(W, -power), np.ldexp(M, -power * depth)
        rates = np.ldexp(rates, power * (2 * depth - 2))[:, None, None, None]
    limit = ESCAPE * np.maximum(np.abs(W).max(axis=(1, 2, 3)), np.abs(M).max() ** (1 / depth))
    total, escaped = np.zeros(len(W)), np.zeros(len(W), bool)
    for _ in range(steps):
        with np.errstate(over="ignore", invalid="ignore"):  # of runs that escape
            V = V - rates * network.hessian_vector_product(W, M, V)
            W = W - rates * network.gradient(W, M)
            power = np.frexp(np.abs(V).max(axis=(1, 2, 3), keepdims=True))[1]
            unit = np.ldexp(1.0, np.minimum(power, 1023))  # in its units squares stay in range
            V = V / unit
            size = np.sqrt((V * V).sum(axis=(1, 2, 3)))
            size = np.where(size > 0, size, 1e-300)  # of a direction that one step wipes out
            total += np.log(size) + np.log(unit[:, 0, 0, 0])
            V = V / size[:, None, None, None]
        escaped |= ~(np.abs(W).max(axis=(1, 2, 3)) <= limit) | ~np.isfinite(V).all(axis=(1, 2, 3))
        W, V = (np.where(escaped[:, None, None, None], fill, x) for fill, x in ((0.0, W), (1.0, V)))
    return np.where(escaped, np.inf, total / steps)
