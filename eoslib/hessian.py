r"""The Hessian of the loss: dense, its largest eigenvalues (the sharpness), and whole spectra by formula or reduction.

Parameters are ordered layer by layer, each layer row-major, as ``W.ravel()`` orders them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import lapack

from . import network, validate

# Products of the dense Hessian are added in slabs of this size, so that they stay in the cache.
SCRATCH_BYTES = 256 * 1024
# Below this many parameters (four times as many for one or two networks) LAPACK on the dense matrix is as fast as any
# iteration, and exact.
DENSE_LIMIT = 32
# Krylov bases of one chunk of networks together stay near this size, that of a last-level cache.
KRYLOV_BYTES = 8 * 1024 * 1024
# Steps after which the iteration of single vectors hands over to that of blocks, and blocks after which that gives up
# (and LAPACK takes over where the matrix is small).
LANCZOS_LIMIT = 96
KRYLOV_LIMIT = 300


def dense(W: np.ndarray, M: np.ndarray) -> np.ndarray:
    r"""Hessian of the loss as a matrix.

    With :math:`A_\ell = W_{L:\ell+1}`, :math:`B_\ell = W_{\ell-1:1}` and :math:`R = W_{L:1} - M`, its entry at row
    (p, q) of layer k and column (r, s) of layer l is

    .. math:: (A_k^\top A_\ell)_{pr} (B_k B_\ell^\top)_{qs} + (E_{k\ell})_{ps} (E_{\ell k})_{rq},

    where :math:`E_{k\ell}` is :math:`A_k^\top R B_\ell^\top` for :math:`k > \ell`, the transpose of
    :math:`W_{\ell-1:k+1}` for :math:`k < \ell`, and zero for :math:`k = \ell`.

    Parameters
    ----------
    W : (..., L, d, d) array
    M : (d, d) array

    Returns
    -------
    (..., L d^2, L d^2) ndarray
        Symmetric.

    Raises
    ------
    ValueError
        On wrong shapes, entries that are not finite, a Hessian beyond the floating range, or one with more than 2^32
        entries.

    Examples
    --------
    Two scalar layers, f = (ab - 1)^2 / 2 at a = 3, b = 2: second derivatives b^2, 2ab - 1, a^2.

    >>> dense(np.array([[[3.0]], [[2.0]]]), np.eye(1)).tolist()
    [[4.0, 11.0], [11.0, 9.0]]
    """
    W, M = validate.weights(W, M, numpy_only=True)
    validate.storable("W", W.shape[:-3] + 2 * (math.prod(W.shape[-3:]),))
    with np.errstate(over="ignore", invalid="ignore"):
        return validate.representable("W", W, _dense(W, M))


def _dense(W, M):
    """See `dense`."""
    batch, (depth, d) = W.shape[:-3], W.shape[-3:-1]
    size = depth * d * d
    AA, BB, E = (a.reshape((-1,) + a.shape[-4:]) for a in _factors(W, M))
    H = np.empty((len(E), depth, d, d, size), E.dtype)
    rows = max(1, SCRATCH_BYTES // (H.itemsize * d * size))  # p, then layers, then networks taken together
    layers, group = max(1, rows // d), max(1, rows // (d * depth))
    # each factor stretched to whole rows (l, r, s), so that the products below run along them
    factors = np.empty((4, min(group, len(E)), depth, d, depth, d, d), E.dtype)
    for i in range(0, len(E), group):
        some = slice(i, i + group)
        stretched = factors[:, : len(E[some])]
        stretched[0], stretched[1] = AA[some, ..., None], BB[some, ..., None, :]
        stretched[2], stretched[3] = E[some, ..., None, :], _square(E[some]).mT.reshape(E[some].shape)[..., None]
        first, second, third, fourth = stretched.reshape(stretched.shape[:4] + (size,))
        for k in range(0, depth, layers):
            for p in range(0, d, rows):
                here, there = np.s_[:, k : k + layers, p : p + rows, None], np.s_[:, k : k + layers, None]
                block = H[some, k : k + layers, p : p + rows]
                np.multiply(first[here], second[there], out=block)
                block += third[here] * fourth[there]
    return H.reshape(batch + (size, size))


def _factors(W, M):
    """The products A_k^T A_l, B_k B_l^T and E of `dense`, each (..., L, d, L, d)."""
    batch, (depth, d) = W.shape[:-3], W.shape[-3:-1]
    joint, dtype = batch + (depth, d, depth, d), np.result_type(W, M)
    above, below = np.empty((2,) + W.shape, dtype)  # A_l^T and B_l
    above[..., -1, :, :] = below[..., 0, :, :] = np.eye(d)
    E = np.zeros(joint, dtype)
    between = np.zeros(batch + (depth, d, depth * d), dtype)  # W_{k-1:l+1} at (k, l) for k > l
    for k in range(1, depth):
        layer = W[..., k - 1, :, :]
        np.matmul(layer, below[..., k - 1, :, :], out=below[..., k, :, :])
        np.matmul(W[..., -k, :, :].mT, above[..., -k, :, :], out=above[..., -k - 1, :, :])
        np.matmul(layer, between[..., k - 1, :, :], out=between[..., k, :, :])
        between[..., k, :, (k - 1) * d : k * d] = np.eye(d)
    residual = W[..., -1, :, :] @ below[..., -1, :, :] - M
    above, below = (a.reshape(batch + (depth * d, d)) for a in (above, below))
    edges = (above @ residual @ below.mT).reshape(joint)
    E = _square(between.reshape(joint)).mT.reshape(joint).copy()
    for k in range(1, depth):
        E[..., k, :, :k, :] = edges[..., k, :, :k, :]
    # BLAS makes a matrix times its own transpose exactly symmetric, and all that is built from it
    return (above @ above.mT).reshape(joint), (below @ below.mT).reshape(joint), E


def _square(a):
    """An array (..., L, d, L, d) as a matrix (..., L d, L d)."""
    size = a.shape[-1] * a.shape[-2]
    return a.reshape(a.shape[:-4] + (size, size))


def sharpness(
    W: np.ndarray, M: np.ndarray, *, k: int = 1, smallest: bool = False, tolerance: float = 1e-10
) -> np.ndarray:
    r"""Largest eigenvalue of the Hessian, or the `k` largest with their multiplicities.

    Small problems are solved by LAPACK. Otherwise Krylov spaces are built for many networks at once from fixed random
    vectors, until each Ritz pair has :math:`\lVert Hy - \theta y \rVert \le \text{tolerance} \cdot \max|\theta|`,
    computed from y itself. That bounds the distance from :math:`\theta` to an eigenvalue; eigenvalues that are closer
    to each other than this are not told apart. One eigenvalue is sought by Lanczos' three-term recurrence, which loses
    orthogonality only to Ritz vectors that have converged (Paige 1971), and stops at the first. Several are sought by
    blocks of k vectors, so that a k-fold eigenvalue is found k times, each made orthogonal to all earlier ones as often
    as it takes; so is one that the recurrence did not reach. There is no warm start: along an oscillating trajectory
    the leading eigenvector changes its symmetry class, and a warm start then returns another eigenvalue without a sign
    of it. For runs of wide networks from the starts of the paper `spectrum_reduced` is faster, and gives all of them.

    Parameters
    ----------
    W : (..., L, d, d) array
    M : (d, d) array
    k : int
        How many eigenvalues, at most L d^2.
    smallest : bool
        Give the k smallest (most negative) instead, in increasing order.
    tolerance : float
        Bound on the relative residual.

    Returns
    -------
    (...) array for k = 1, (..., k) array otherwise
        Sorted, largest first (smallest first with ``smallest=True``).

    Raises
    ------
    ValueError
        On wrong shapes, entries that are not finite, or k out of range.
    RuntimeError
        If the residual bound is not reached; nothing is returned then.

    Examples
    --------
    Balanced minimum with one mode: :math:`L \sigma^{2-2/L}`.

    >>> float(sharpness(np.full((3, 1, 1), 2.0), np.array([[8.0]])).round(9))
    48.0
    """
    W, M = validate.weights(W, M, numpy_only=True)
    size = math.prod(W.shape[-3:])
    k = validate.integer("k", k, least=1)
    if k > size:
        raise ValueError(f"k: got {k}, needs at most the number of parameters, {size}")
    tolerance = validate.number("tolerance", tolerance, sign=">= 0")
    sign = -1.0 if validate.flag("smallest", smallest) else 1.0
    flat, M = validate.double("W", W).reshape((-1,) + W.shape[-3:]), validate.double("M", M)
    with np.errstate(over="ignore", invalid="ignore"):
        values = sign * _largest(flat, M, k, sign, tolerance).reshape(W.shape[:-3] + (k,))
    return values[..., 0] if k == 1 else values


def _largest(W, M, k, sign, tolerance):
    """The (n, k) largest eigenvalues of sign * Hessian for networks W (n, L, d, d); see `sharpness`."""
    size = math.prod(W.shape[1:])
    if size <= max(DENSE_LIMIT * (4 if len(W) <= 2 else 1), 4 * k):
        values = _in_chunks(_eigenvalues, size**2, W, M, k, sign)
    elif k > 1:
        values = _in_chunks(_block_krylov, size * max(24, 12 * k), W, M, k, sign, tolerance)
    else:
        values = _in_chunks(_lanczos, 24 * size, W, M, k, sign, tolerance)
        rest = np.isnan(values[:, 0])
        values[rest] = _in_chunks(_block_krylov, 24 * size, W[rest], M, k, sign, tolerance)
    return values


def _in_chunks(solve, numbers, W, M, k, *options):
    """The (n, k) values of `solve` for networks W (n, L, d, d), of which each needs room for so many numbers."""
    chunk = max(1, KRYLOV_BYTES // (8 * numbers))
    parts = [solve(W[i : i + chunk], M, k, *options) for i in range(0, len(W), chunk)]
    return np.concatenate(parts or [np.empty((0, k))])


def _curvature(W, M):
    """The Hessian-vector product as a map of directions (n, k, L, d, d); what depends on W (n, L, d, d) is kept."""
    parts = [part[:, None] for part in network.layers(W)]
    P = network.prefixes(parts)
    B = [P[-1] - M]
    for part in parts[:0:-1]:
        B.insert(0, part.mT @ B[0])

    def apply(V):
        directions = network.layers(V)
        dP = [directions[0]]
        for part, product, direction in zip(parts[1:], P, directions[1:]):
            dP.append(direction @ product)
            dP[-1] += part @ dP[-2]
        out, dB = np.empty(V.shape), dP[-1]
        for i in range(len(parts) - 1, 0, -1):
            layer = np.matmul(dB, P[i - 1].mT, out=out[..., i, :, :])
            layer += B[i] @ dP[i - 1].mT
            dB = parts[i].mT @ dB
            dB += directions[i].mT @ B[i]
        out[..., 0, :, :] = dB
        return out

    return apply


def _lanczos(W, M, _, sign, tolerance):
    """Largest eigenvalue of sign * Hessian for networks W (n, L, d, d), NaN where it was not found; see `sharpness`."""
    n, depth, d, _ = W.shape
    size, shape = depth * d * d, (-1, 1, depth, d, d)
    result, active = np.full((n, 1), np.nan), np.arange(n)
    apply, unit = _curvature(W, M), None
    alpha, beta, Q = np.zeros((n, 24)), np.zeros((n, 24)), np.empty((n, 24, size))
    start = np.random.default_rng(20260101).standard_normal(size)
    Q[:, 0] = start / np.linalg.norm(start)
    check = min(10, LANCZOS_LIMIT)  # the next size at which the residual is looked at
    for count in range(1, LANCZOS_LIMIT + 1):
        v = apply(Q[:, count - 1].reshape(shape)).reshape(-1, size)
        unit = _unit(v) if unit is None else unit
        _divide(v, unit)
        alpha[:, count - 1] = np.vecdot(Q[:, count - 1], v)
        last = min(count, 2)
        along = np.stack([beta[:, count - 2], alpha[:, count - 1]], axis=-1)[:, None, -last:]
        v -= (along @ Q[:, count - last : count])[:, 0]
        beta[:, count - 1] = np.sqrt(np.vecdot(v, v))
        if count == check:
            few = slice(None, None, 1 + len(active) // 8)  # their residuals tell when to look at all
            missing = _top_pairs(alpha[few, :count], beta[few, :count], sign)[2] / max(tolerance, 1e-16)
            if np.median(missing) <= 1 or count == LANCZOS_LIMIT:
                theta, y, residual = _top_pairs(alpha[:, :count], beta[:, :count], sign)
                missing = residual / max(tolerance, 1e-16)
                ready = missing <= 0.5
                most = 4 * ready.sum() >= len(active) and missing.max() > 1e3  # else all are ready soon
                if ready.all() or most or count == LANCZOS_LIMIT:
                    x = y[:, None] @ Q[:, :count]
                    image = _divide(apply(x.reshape(shape)).reshape(-1, size), unit)
                    residual = np.linalg.norm(image - (sign * theta)[:, None] * x[:, 0], axis=-1)
                    length = np.linalg.norm(x[:, 0], axis=-1)
                    found = ready & (length > 0.5) & (_relative(residual, theta) <= tolerance * length)
                    result[active[found]] = theta[found, None] * unit[found]
                    if ready.all() or count == LANCZOS_LIMIT:
                        break
                    W, active, unit, alpha, beta, Q, v, missing = (
                        a[~ready] for a in (W, active, unit, alpha, beta, Q, v, missing)
                    )
                    apply = _curvature(W, M)
            check = min(LANCZOS_LIMIT, count + int(np.log10(np.clip(np.median(missing), 10, 1e8))))
        if count == Q.shape[1]:
            alpha, beta = (np.concatenate([a, np.zeros_like(a)], axis=1) for a in (alpha, beta))
            Q = np.concatenate([Q, np.empty_like(Q)], axis=1)
        norm = beta[:, count - 1, None]
        np.divide(v, np.where(norm > 0, norm, 1), out=Q[:, count])
    return result


def _top_pairs(alpha, beta, sign):
    """Largest eigenvalue of sign * T, its eigenvector and relative residual, for the matrices T of Lanczos.

    `alpha` (n, m) is the diagonal, `beta` (n, m) what is beside it and, last, the norm of the remainder. Where LAPACK
    fails the eigenvalue is NaN and the residual infinite.
    """
    n, size = alpha.shape
    theta, y = np.full(n, np.nan), np.full((n, size), np.nan)
    for i in range(n):
        _, values, vectors, info = lapack.dstemr(sign * alpha[i], sign * beta[i], 2, 0.0, 0.0, size, size)
        if info == 0:
            theta[i], y[i] = values[0], vectors[:, 0]
    return theta, y, np.nan_to_num(_relative(beta[:, -1] * np.abs(y[:, -1]), theta), nan=np.inf)


def _unit(image):
    """The size of each Hessian, by one image of it, where squares of its entries would leave the range; else one."""
    unit = np.abs(image).max(axis=tuple(range(1, image.ndim)), keepdims=True)
    if not np.isfinite(unit).all():
        raise ValueError("W: got entries so large that the Hessian overflows")
    return np.where((unit > 1e100) | (unit > 0) & (unit < 1e-100), unit, 1.0)


def _divide(image, unit):
    """Divide an image in place, which most often is by ones."""
    if np.any(unit != 1):
        image /= unit
    return image


def _relative(residual, theta):
    """A residual beside the eigenvalues it belongs to; zero for both is zero."""
    return residual / np.maximum(np.abs(theta), np.finfo(float).tiny)


def _block_krylov(W, M, k, sign, tolerance):
    """The k largest eigenvalues of sign * Hessian for networks W (n, L, d, d); see `sharpness`."""
    n, depth, d, _ = W.shape
    size = depth * d * d
    apply, unit = _curvature(W, M), None
    limit = min(size // k, KRYLOV_LIMIT)
    check = min(limit, 10)  # the next size at which the residual is looked at
    basis, T = np.empty((n, check * k, size)), np.zeros((n, check * k, check * k))
    block = np.random.default_rng(20260101).standard_normal((1, k, size)).repeat(n, axis=0)
    for count in range(1, limit + 1):
        done, new = (count - 1) * k, count * k
        basis[:, done:new] = block = _orthonormal_to(basis[:, :done], block)
        block = apply(block.reshape(n, k, depth, d, d)).reshape(n, k, size)
        unit = _unit(block) if unit is None else unit
        block = sign * _divide(block, unit)
        T[:, done:new, :new] = block @ basis[:, :new].mT
        block -= T[:, done:new, :new] @ basis[:, :new]
        if count == check:
            theta, Y = np.linalg.eigh(T[:, :new, :new], UPLO="L")
            theta, Y = theta[:, : -k - 1 : -1], Y[..., : -k - 1 : -1].mT
            largest = np.abs(theta).max(axis=-1, keepdims=True)
            relative = _relative(np.linalg.norm(Y[..., -k:] @ block, axis=-1), largest).max()
            if relative <= tolerance:
                X = Y @ basis[:, :new]
                image = sign * _divide(apply(X.reshape(n, k, depth, d, d)).reshape(n, k, size), unit)
                relative = _relative(np.linalg.norm(image - theta[..., None] * X, axis=-1), largest).max()
                if relative <= tolerance:
                    return theta * unit[..., 0]
            decades = np.log10(max(relative, 1e-16) / max(tolerance, 1e-16))
            check = min(limit, count + int(np.clip(decades, 2, max(4, count // 3))))
            grown = np.empty((n, check * k, size)), np.zeros((n, check * k, check * k))
            grown[0][:, :new], grown[1][:, :new, :new] = basis, T
            basis, T = grown
    if size <= 3000:
        return _eigenvalues(W, M, k, sign)
    raise RuntimeError(
        f"sharpness: relative residual {relative:.1e} after {limit} Krylov blocks, needs {tolerance:.1e}"
    )


def _eigenvalues(W, M, k, sign):
    """The k largest eigenvalues of sign * Hessian for networks W (n, L, d, d), by LAPACK."""
    H = _dense(W, M)
    unit = _unit(H)
    values = np.linalg.eigvalsh(_divide(H, unit)) * unit[..., 0]
    return (values[:, ::-1] if sign > 0 else -values)[:, :k]


def _orthonormal_to(basis, block):
    """Rows that are orthonormal, orthogonal to the rows of `basis`, and span what `block` adds to it.

    Where the Krylov space is exhausted `block` adds nothing but rounding errors; repeated projection then turns these,
    or random rows in their place, into further directions. A fixed number of passes is not enough for that.
    """
    k = block.shape[-2]
    for attempt in range(20):
        norm = np.linalg.norm(block, axis=-1, keepdims=True)
        if attempt and (norm < 1e-8).any():  # nothing is left of a row that had norm one
            fresh = np.random.default_rng(attempt).standard_normal(block.shape)
            block = np.where(norm < 1e-8, fresh / np.linalg.norm(fresh, axis=-1, keepdims=True), block)
        block = np.linalg.qr(block.mT)[0].mT if k > 1 else block / np.where(norm > 0, norm, 1)
        overlap = block @ basis.mT
        if np.abs(overlap).max(initial=0) < 1e-13 and np.abs(block @ block.mT - np.eye(k)).max() < 1e-13:
            return block
        block = block - overlap @ basis
    raise RuntimeError("sharpness: the Krylov basis could not be made orthogonal")


def spectrum_at_minimum(
    singular_values: ArrayLike, *, depth: int, width: int, scale: ArrayLike, init: str = "unbalanced"
) -> tuple[np.ndarray, np.ndarray]:
    r"""Eigenvalues of the Hessian at the strictly balanced global minimum that a start leads to, with multiplicities.

    Modes i of the target have the value :math:`\sigma_i^{1/L}` in every layer. The d - r other modes have
    :math:`\alpha` in layers 1 to L - 1 and 0 in layer L for a start with :math:`W_L = 0`, and 0 everywhere for the
    balanced start, whose residual decays to zero. With
    :math:`\lambda(a, b) = \sum_{k=0}^{L-1} a^{2(L-1-k)} b^{2k}` the eigenvalues are

    =======================================================  ===========================  ====================
    eigenvalue                                               start with :math:`W_L = 0`   ``"balanced"``
    =======================================================  ===========================  ====================
    :math:`L \sigma_i^{2-2/L}`                               1                            1
    :math:`\lambda(\sigma_i^{1/L}, \sigma_j^{1/L}), i < j`   2                            2
    :math:`\lambda(\sigma_i^{1/L}, \alpha)`                  d - r                        0
    :math:`\sigma_i^{2-2/L}`                                 d - r                        2 (d - r)
    :math:`\alpha^{2L-2}`                                    (d - r)^2                    0
    0                                                        (L - 1) d^2                  (L-1) d^2 + (d-r)^2
    =======================================================  ===========================  ====================

    (for L >= 2; with one layer the Hessian is the identity). Equal singular values are allowed, and eigenvalues that
    coincide are merged.

    Parameters
    ----------
    singular_values : (r,) array_like
        Positive, in any order.
    depth, width : int
        L and d, with r <= d.
    scale : float
        :math:`\alpha > 0`; it does not matter for the balanced start.
    init : {"unbalanced", "orthogonal", "balanced"}
        The orthogonal start is the unbalanced one in rotated coordinates and has the same spectrum.

    Returns
    -------
    values : (n,) ndarray
        Distinct eigenvalues, largest first.
    multiplicities : (n,) ndarray of int
        They add up to L d^2.

    Raises
    ------
    ValueError
        If a number is not positive, the rank exceeds the width, or the start has no aligned minimum of this kind.

    Notes
    -----
    Corrects Lemma 1 of the paper. A run from :math:`W_L = 0` ends with layers that differ by
    :math:`O(\alpha^2)`, and so do its eigenvalues; :func:`spectrum_aligned` takes the layers as they are.

    Examples
    --------
    >>> values, multiplicities = spectrum_at_minimum((4, 1), depth=2, width=3, scale=0.5)
    >>> values.tolist(), multiplicities.tolist()
    ([8.0, 5.0, 4.25, 4.0, 2.0, 1.25, 1.0, 0.25, 0.0], [1, 2, 1, 1, 1, 1, 1, 1, 9])
    """
    sigma = validate.positive("singular_values", singular_values)
    depth = validate.integer("depth", depth, least=1, most=100_000)  # sums of so many powers
    width = validate.integer("width", width, least=1, most=10**6)  # so that multiplicities are exact
    alpha = validate.number("scale", scale, sign="> 0")
    if sigma.ndim != 1 or not 1 <= sigma.size <= width:
        raise ValueError(f"singular_values: got shape {sigma.shape}, needs 1 to width = {width} numbers")
    if not isinstance(init, str) or init not in ("unbalanced", "orthogonal", "balanced"):
        raise ValueError(
            f'init: got {validate.short(init)}, needs "unbalanced", "orthogonal" or "balanced": '
            "from other starts the layers do not align, or align at values that have no closed form"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        return _spectrum_at_minimum(sigma.astype(float), depth, width, alpha, init)


def _spectrum_at_minimum(sigma, depth, width, alpha, init):
    """See `spectrum_at_minimum`."""
    rest, alpha = width - sigma.size, np.float64(alpha)  # whose powers overflow to infinity
    squares = sigma ** (2 / depth)
    first, second = np.triu_indices(sigma.size)
    modes = _sum_of_powers(squares[first], squares[second], depth)
    left = _sum_of_powers(squares, 0.0 if init == "balanced" else alpha**2, depth)
    right = _sum_of_powers(squares, 0.0, depth)
    both = 1.0 if depth == 1 else 0.0 if init == "balanced" else alpha ** (2 * depth - 2)
    values = np.concatenate([modes, left, right, [both, 0.0]])
    counts = [np.where(first == second, 1, 2), np.full(2 * sigma.size, rest), [rest**2, (depth - 1) * width**2]]
    validate.representable("singular_values, scale", (sigma, alpha), values)
    values, where = np.unique(values, return_inverse=True)
    multiplicities = np.bincount(where, weights=np.concatenate(counts)).astype(int)
    present = multiplicities > 0
    return values[present][::-1], multiplicities[present][::-1]


def spectrum_aligned(layer_singular_values: ArrayLike, target_singular_values: ArrayLike) -> np.ndarray:
    r"""All eigenvalues of the Hessian of an aligned network, at a minimum or anywhere else.

    Layers are :math:`W_\ell = Q_{\ell+1}\, \mathrm{diag}(s_\ell)\, Q_\ell^\top` and the target is
    :math:`Q_{L+1}\, \mathrm{diag}(\sigma)\, Q_1^\top` with orthogonal :math:`Q_\ell`, on which the spectrum does not
    depend. In these coordinates the Hessian couples the entries (i, i) of all layers with each other, and (i, j) with
    (i, j) and (j, i): d blocks L x L and d(d-1)/2 blocks 2L x 2L.

    Parameters
    ----------
    layer_singular_values : (..., L, d) array_like
        :math:`s_{\ell, i}` in the order of the modes, of either sign; L at most 1000; leading axes are a batch.
    target_singular_values : (r,) array_like
        :math:`\sigma_i`; for r < d the others are zero.

    Returns
    -------
    (..., L d^2) ndarray
        Largest first. The error is that of LAPACK on the blocks, about 1e-15 of the largest modulus.

    Raises
    ------
    ValueError
        On entries that are not finite or shapes that do not match.

    Examples
    --------
    Away from the minimum there is negative curvature. At the origin of a two-layer network it is that of
    :math:`-\mathrm{tr}(M^\top W_2 W_1)`:

    >>> spectrum_aligned(np.zeros((2, 2)), (3, 1)).tolist()
    [3.0, 3.0, 1.0, 1.0, -1.0, -1.0, -3.0, -3.0]
    """
    s = validate.real("layer_singular_values", layer_singular_values)
    target = validate.real("target_singular_values", target_singular_values)
    if s.ndim < 2 or 0 in s.shape[-2:]:
        raise ValueError(f"layer_singular_values: got shape {s.shape}, needs (..., L, d) with L >= 1 and d >= 1")
    width = s.shape[-1]
    if s.shape[-2] > 1000:  # pairs of layers are taken one by one
        raise ValueError(f"layer_singular_values: got {s.shape[-2]} layers, needs at most 1000")
    s, target = validate.double("layer_singular_values", s), validate.double("target_singular_values", target)
    if target.ndim != 1 or target.size > width:
        raise ValueError(f"target_singular_values: got shape {target.shape}, needs at most d = {width} numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        return validate.representable("layer_singular_values", s, _spectrum_aligned(s, target))


def _spectrum_aligned(s, target):
    """See `spectrum_aligned`."""
    depth, width = s.shape[-2:]
    below, above, between = _products_of_layers(s)
    residual = s.prod(axis=-2) - np.pad(target, (0, width - target.size))
    i, j = np.triu_indices(width, 1)
    ij, ji = below[..., j] * above[..., i], below[..., i] * above[..., j]  # (..., L, pairs), and the same for (j, i)
    H = np.empty(s.shape[:-2] + (2, depth, 2, depth, i.size))
    H[..., 0, :, 0, :, :] = ij[..., :, None, :] * ij[..., None, :, :]
    H[..., 1, :, 1, :, :] = ji[..., :, None, :] * ji[..., None, :, :]
    for low in range(depth):
        H[..., 0, low, 1, low, :] = 0
        for high in range(low + 1, depth):
            # reversing all residuals reverses this, a change of signs of the (j, i) coordinates: only D feels it
            edge = residual * above[..., high, :] * below[..., low, :]
            middle = between[low, high]
            H[..., 0, high, 1, low, :] = edge[..., i] * middle[..., j]
            H[..., 0, low, 1, high, :] = edge[..., j] * middle[..., i]
    H[..., 1, :, 0, :, :] = np.swapaxes(H[..., 0, :, 1, :, :], -3, -2)
    validate.representable("layer_singular_values", s, H)
    pairs = np.linalg.eigvalsh(np.moveaxis(H.reshape(s.shape[:-2] + (2 * depth, 2 * depth, i.size)), -1, -3))
    own = below * above
    D = own[..., :, None, :] * own[..., None, :, :]
    for low in range(depth):
        for high in range(low + 1, depth):
            D[..., high, low, :] += residual * above[..., high, :] * below[..., low, :] * between[low, high]
            D[..., low, high, :] = D[..., high, low, :]
    validate.representable("layer_singular_values", s, D)
    selves = np.linalg.eigvalsh(np.moveaxis(D, -1, -3))
    found = [x.reshape(s.shape[:-2] + (x.shape[-2] * x.shape[-1],)) for x in (selves, pairs)]
    return np.sort(np.concatenate(found, axis=-1))[..., ::-1]


def spectrum_reduced(W: np.ndarray, M: np.ndarray, *, tolerance: float = 1e-10) -> tuple[np.ndarray, np.ndarray]:
    r"""All eigenvalues of the Hessian, with multiplicities, of wide networks that are small ones beside multiples of 1.

    Runs from the starts of the paper keep the form
    :math:`W_\ell = Q_\ell\, \mathrm{diag}(w_\ell, c_\ell I_{d-k})\, Q_{\ell-1}^\top` with orthogonal :math:`Q_\ell`,
    layers :math:`w_\ell` of width k, and a target :math:`Q_L\, \mathrm{diag}(m, 0)\, Q_0^\top`: with k = r, the rank of
    the target, from :math:`W_L = 0` or for a symmetric positive semi-definite target, and otherwise with k the rank of
    :math:`(U_r, V_r)`, at most 2 r, from layers :math:`\alpha I`. The Hessian then commutes with rotations of the other
    d - k directions, and each of its eigenvalues is one of a network of width k + 2:

    ============================================  =========  =======================
    entries (i, j) of the layers                  number     multiplicity
    ============================================  =========  =======================
    i and j up to k                               L k^2      1
    one of them beyond k                          2 L k      d - k
    both beyond k, and different                  2 L        (d - k) (d - k - 1) / 2
    both beyond k, and equal                      L          d - k
    ============================================  =========  =======================

    The subspaces are those of the singular vectors of M, followed through the layers. The form is checked.

    Parameters
    ----------
    W : (..., L, d, d) array
        One network or more of one run.
    M : (d, d) array
    tolerance : float
        How far a layer may be from the form, relative to the norm of the largest layer.

    Returns
    -------
    values : (..., n) ndarray
        Largest first. Eigenvalues that coincide are not merged.
    multiplicities : (..., n) ndarray of int
        They add up to L d^2.

    Raises
    ------
    ValueError
        On wrong shapes, entries that are not finite, or layers that are not of the form.

    Notes
    -----
    Layers of norm at most :math:`\omega` that are at most :math:`\delta` from the form, with a residual of norm
    :math:`\rho`, move an eigenvalue by at most
    :math:`(L-1)\,[3L\,\omega^{2L-3} + (L-2)\,\omega^{L-3}\rho]\,\delta` and terms of order :math:`\delta^2`.

    Examples
    --------
    The origin of two layers of width 100 and one mode, where the Hessian is that of :math:`-3\,(W_2 W_1)_{11}`:

    >>> M = np.zeros((100, 100))
    >>> M[0, 0] = 3.0
    >>> values, multiplicities = spectrum_reduced(np.zeros((2, 100, 100)), M)
    >>> [int(multiplicities[values == x].sum()) for x in (3, 0, -3)]
    [100, 19800, 100]
    """
    W, M = validate.weights(W, M, numpy_only=True)
    tolerance = validate.number("tolerance", tolerance, sign=">= 0")
    batch, (depth, d) = W.shape[:-3], W.shape[-3:-1]
    W, M = validate.double("W", W), validate.double("M", M)
    small, target, deviation = _reduce(W.reshape((-1, depth, d, d)), M, tolerance)
    if np.any(deviation > tolerance):
        raise ValueError(
            f"W: got layers that are {deviation.max():.1e} of the largest away from small ones beside a multiple of "
            f"the identity, needs at most {tolerance:.1e}"
        )
    k = small.shape[-1] - 2
    numbers = np.array([depth * k**2, 2 * depth * k, 2 * depth, depth])
    others = d - k
    multiplicities = np.repeat([1, others, others * (others - 1) // 2, others], numbers)
    with np.errstate(over="ignore", invalid="ignore"):
        values = _in_chunks(_eigenvalues_by_block, (depth * (k + 2) ** 2) ** 2, small, target, numbers.sum())
    values, multiplicities = values[:, multiplicities > 0], multiplicities[multiplicities > 0]
    order = np.argsort(-values, axis=-1)
    values = np.take_along_axis(values, order, axis=-1)
    return values.reshape(batch + values.shape[1:]), multiplicities[order].reshape(batch + values.shape[1:])


def _reduce(W, M, tolerance):
    """Networks of width k + 2 for W (n, L, d, d), their target, and how far each is from that form."""
    left, s, right = np.linalg.svd(M)
    rank = max(1, np.sum(s > len(s) * np.finfo(float).eps * s[0]))
    first, last = right[:rank].T, left[:, :rank]
    frames = [first]
    for layer in network.layers(W)[:-1]:
        frames.append(np.linalg.qr(layer @ frames[-1])[0])
    found = _restrict(W, M, frames + [last])
    if np.any(found[2] > tolerance):
        both, s, _ = np.linalg.svd(np.concatenate([first, last], axis=1), full_matrices=False)
        other = _restrict(W, M, [both[:, s > 1e-12]] * (W.shape[1] + 1))
        found = min(found, other, key=lambda one: one[2].max())
    return found


def _restrict(W, M, frames):
    """See `_reduce`; `frames` are orthonormal bases of the L + 1 subspaces, (n, d, k), or (d, k) if common to all."""
    n, depth, d, _ = W.shape
    k = frames[0].shape[-1]
    peak = np.abs(W).max(axis=(-3, -2, -1))  # so that squares stay in range
    peak = np.where(peak > 0, peak, 1.0)[:, None, None]
    small, scale, deviations = np.zeros((n, depth, k + 2, k + 2)), np.zeros(n), []
    for i, layer in enumerate(network.layers(W)):
        before, after, layer = frames[i], frames[i + 1], layer / peak
        image = layer @ before
        inside = after.mT @ image
        rest = layer - after @ inside @ before.mT
        leak = _norm(image - after @ inside) + _norm(after.mT @ layer - inside @ before.mT)
        # rest should be c times a partial isometry: its singular values differ from c by less than these differ over c
        c = _norm(rest) / np.sqrt(max(d - k, 1))
        square = (c**2)[:, None, None] * (np.eye(d) - before @ before.mT)
        uneven = _norm(rest.mT @ rest - square) / np.where(c > 0, c, 1)
        c = np.where(_norm(rest) <= uneven, 0.0, c)
        deviations.append(leak + np.where(c > 0, uneven, _norm(rest)))
        small[:, i, :k, :k] = inside
        small[:, i, k, k] = small[:, i, k + 1, k + 1] = c  # of either sign: that is a choice of Q
        scale = np.maximum(scale, np.maximum(np.linalg.norm(inside, 2, axis=(-2, -1)), c))
    target = np.zeros((k + 2, k + 2))
    target[:k, :k] = frames[-1].mT @ M @ frames[0]
    return small * peak[..., None], target, np.max(deviations, axis=0) / np.where(scale > 0, scale, 1)


def _norm(a):
    """Frobenius norms of matrices (..., d, d)."""
    return np.sqrt(np.einsum("...ij,...ij->...", a, a))


def _eigenvalues_by_block(W, M, _):
    """Eigenvalues of the Hessian of networks (n, L, k + 2, k + 2), block by block; see `spectrum_reduced`."""
    depth, width = W.shape[1:3]
    k, at = width - 2, np.arange(depth * width**2).reshape(depth, width, width)
    inner, mixed = at[:, :k, :k].ravel(), np.concatenate([at[:, :k, k].ravel(), at[:, k, :k].ravel()])
    outer, equal = np.concatenate([at[:, k, k + 1], at[:, k + 1, k]]), at[:, k, k]
    H = _dense(W, M)
    unit = _unit(H)
    _divide(H, unit)
    values = [np.linalg.eigvalsh(H[:, some[:, None], some]) for some in (inner, mixed, outer, equal)]
    return np.concatenate(values, axis=-1) * unit[:, 0]


def _sum_of_powers(a, b, depth):
    """Sum over k = 0 .. depth - 1 of a^(depth-1-k) b^k, without the cancellation of (a^L - b^L) / (a - b)."""
    total = np.ones_like(a)
    power = 1.0
    for _ in range(depth - 1):
        power = power * b
        total = total * a + power
    return total


def _products_of_layers(s):
    """Products of the layers below each layer, above it (both shaped like `s`), and between each two (a dict)."""
    depth = s.shape[-2]
    one = np.ones_like(s[..., :1, :])
    below = np.concatenate([one, np.cumprod(s[..., :-1, :], axis=-2)], axis=-2)
    above = np.concatenate([np.cumprod(s[..., :0:-1, :], axis=-2)[..., ::-1, :], one], axis=-2)
    between = {
        (low, high): s[..., low + 1 : high, :].prod(axis=-2) for low in range(depth) for high in range(low + 1, depth)
    }
    return below, above, between
