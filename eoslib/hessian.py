r"""The Hessian of the loss: dense, its largest eigenvalues (the sharpness), and whole spectra in closed form.

Parameters are ordered layer by layer, each layer row-major, as ``W.ravel()`` orders them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from . import network, validate

# Below this many parameters LAPACK on the dense matrix is as fast as any iteration, and exact.
DENSE_LIMIT = 64
# Krylov bases of one chunk of networks together stay near this size, that of a second-level cache.
KRYLOV_BYTES = 2 * 1024 * 1024
# Blocks after which the iteration gives up (and LAPACK takes over where the matrix is small).
KRYLOV_LIMIT = 300


def dense(W: np.ndarray, M: np.ndarray) -> np.ndarray:
    r"""Hessian of the loss as a matrix.

    With :math:`A_\ell = W_{L:\ell+1}`, :math:`B_\ell = W_{\ell-1:1}` and :math:`R = W_{L:1} - M`, the block of layers
    :math:`k \ge \ell` is :math:`A_k^\top A_\ell \otimes B_k B_\ell^\top` plus, for :math:`k > \ell`, the entries
    :math:`(A_k^\top R B_\ell^\top)_{ps} (W_{k-1:\ell+1})_{qr}` at row (p, q) of layer k and column (r, s) of layer l.

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
        On wrong shapes, entries that are not finite, or a Hessian beyond the floating range.

    Examples
    --------
    Two scalar layers, f = (ab - 1)^2 / 2 at a = 3, b = 2: second derivatives b^2, 2ab - 1, a^2.

    >>> dense(np.array([[[3.0]], [[2.0]]]), np.eye(1)).tolist()
    [[4.0, 11.0], [11.0, 9.0]]
    """
    W, M = validate.weights(W, M, numpy_only=True)
    with np.errstate(over="ignore", invalid="ignore"):
        return validate.representable("W", W, _dense(W, M))


def _dense(W, M):
    """See `dense`."""
    parts = network.layers(W)
    depth, d = len(parts), W.shape[-1]
    eye = np.broadcast_to(np.eye(d, dtype=W.dtype), parts[0].shape)
    B = [eye] + network.prefixes(parts)
    A = [eye]
    for part in parts[:0:-1]:
        A.insert(0, A[0] @ part)
    R = B[-1] - M
    H = np.empty(W.shape[:-3] + (depth, d, d, depth, d, d), np.result_type(W, M))
    for low in range(depth):
        between = eye
        for high in range(low, depth):
            block = np.einsum("...pr,...qs->...pqrs", A[high].mT @ A[low], B[high] @ B[low].mT)
            if high > low:
                between = between if high == low + 1 else parts[high - 1] @ between
                block += np.einsum("...ps,...qr->...pqrs", A[high].mT @ R @ B[low].mT, between)
            H[..., high, :, :, low, :, :] = block
            H[..., low, :, :, high, :, :] = np.moveaxis(block, (-4, -3), (-2, -1))
    return H.reshape(W.shape[:-3] + (depth * d * d,) * 2)


def sharpness(
    W: np.ndarray, M: np.ndarray, *, k: int = 1, smallest: bool = False, tolerance: float = 1e-8
) -> np.ndarray:
    r"""Largest eigenvalue of the Hessian, or the `k` largest with their multiplicities.

    Small problems are solved by LAPACK. Otherwise a block Krylov space is built from a fixed random block of k vectors
    (so that a k-fold eigenvalue is found k times), with every new block orthogonalised twice against all earlier ones,
    until each Ritz pair has :math:`\lVert Hy - \theta y \rVert \le \text{tolerance} \cdot \max|\theta|`, which bounds the
    distance from :math:`\theta` to an eigenvalue. There is no warm start: along an oscillating trajectory the leading
    eigenvector changes its symmetry class, and a warm start then returns another eigenvalue without a sign of it.

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
    size = int(np.prod(W.shape[-3:]))
    k = validate.integer("k", k, least=1)
    if k > size:
        raise ValueError(f"k: got {k}, needs at most the number of parameters, {size}")
    tolerance = validate.number("tolerance", tolerance, sign=">= 0")
    sign = -1.0 if validate.flag("smallest", smallest) else 1.0
    flat, M = np.asarray(W, float).reshape((-1,) + W.shape[-3:]), np.asarray(M, float)
    with np.errstate(over="ignore", invalid="ignore"):
        probe = network.curvature(network.layers(flat), M, network.layers(np.ones_like(flat)))
    if not all(np.isfinite(part).all() for part in probe):
        raise ValueError("W: got entries so large that the Hessian overflows")
    if size <= max(DENSE_LIMIT, 4 * k):
        values = _eigenvalues(sign * dense(flat, M), k)
    else:
        chunk = max(1, KRYLOV_BYTES // (size * 8 * 2 * max(24, 6 * k)))
        chunks = [flat[i : i + chunk] for i in range(0, len(flat), chunk)]
        values = np.concatenate([_krylov(c, M, k, sign, tolerance) for c in chunks] or [np.empty((0, k))])
    values = sign * values.reshape(W.shape[:-3] + (k,))
    return values[..., 0] if k == 1 else values


def _krylov(W, M, k, sign, tolerance):
    """The k largest eigenvalues of sign * Hessian for networks W (n, L, d, d); see `sharpness`."""
    n, depth, d, _ = W.shape
    size = depth * d * d
    parts = [part[:, None] for part in network.layers(W)]
    unit = None  # the size of each Hessian, so that squares of its entries stay in range
    limit = min(size // k, KRYLOV_LIMIT)
    check = min(limit, 12)  # the next size at which the residual is looked at
    basis, image = np.empty((2, n, check * k, size))  # orthonormal rows, and sign * Hessian times each
    block = np.random.default_rng(20260101).standard_normal((1, k, size))
    for count in range(1, limit + 1):
        done, new = (count - 1) * k, count * k
        if new > basis.shape[1]:
            basis, image = (
                np.concatenate([a, np.empty((n, min(check, limit) * k - done, size))], axis=1) for a in (basis, image)
            )
        basis[:, done:new] = block = _orthonormal_to(basis[:, :done], block)
        with np.errstate(over="ignore", invalid="ignore"):
            out = network.curvature(parts, M, network.layers(block.reshape(-1, k, depth, d, d)))
        block = sign * np.stack(out, axis=-3).reshape(n, k, size)
        if unit is None:
            unit = np.abs(block).max(axis=(-2, -1), keepdims=True)
            unit = np.where(unit > 0, unit, 1.0)
        image[:, done:new] = block = validate.representable("W", W, block) / unit
        if count == check:
            check = min(limit, count + max(4, count // 3))
            Q, HQ = basis[:, :new], image[:, :new]
            T = HQ @ Q.mT
            theta, Y = np.linalg.eigh((T + T.mT) / 2)
            theta, Y = theta[:, : -k - 1 : -1], Y[..., : -k - 1 : -1].mT
            residual = np.linalg.norm(Y @ HQ - theta[..., None] * (Y @ Q), axis=-1).max(axis=-1)
            if np.all(residual <= tolerance * np.abs(theta).max(axis=-1)):
                return theta * unit[..., 0]
    if size <= 3000:
        return _eigenvalues(sign * dense(W, M), k)
    raise RuntimeError(
        f"sharpness: relative residual {residual.max():.1e} after {limit} Krylov blocks, needs {tolerance:.1e}"
    )


def _eigenvalues(H, k):
    """The k largest eigenvalues of symmetric matrices (n, size, size), which may be as small or large as floats go."""
    unit = np.abs(H).max(axis=(-2, -1), keepdims=True)
    unit = np.where(unit > 0, unit, 1.0)
    return np.linalg.eigvalsh(H / unit)[:, : -k - 1 : -1] * unit[..., 0]


def _orthonormal_to(basis, block):
    """Rows that are orthonormal, orthogonal to the rows of `basis`, and span what `block` adds to it.

    Where the Krylov space is exhausted `block` adds nothing but rounding errors; repeated projection then turns these, or
    random rows in their place, into further directions. A fixed number of passes is not enough for that.
    """
    k = block.shape[-2]
    for attempt in range(20):
        block = block - (block @ basis.mT) @ basis
        norm = np.linalg.norm(block, axis=-1, keepdims=True)
        if attempt and (norm < 1e-8).any():  # nothing is left of a row that had norm one
            fresh = np.random.default_rng(attempt).standard_normal(block.shape)
            block = np.where(norm < 1e-8, fresh / np.linalg.norm(fresh, axis=-1, keepdims=True), block)
        block = np.linalg.qr(block.mT)[0].mT if k > 1 else block / np.where(norm > 0, norm, 1)
        overlap = np.abs(block @ basis.mT).max(initial=0)
        if overlap < 1e-13 and np.abs(block @ block.mT - np.eye(k)).max() < 1e-13:
            return block
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
    rest = width - sigma.size
    squares = sigma ** (2 / depth)
    first, second = np.triu_indices(sigma.size)
    modes = _sum_of_powers(squares[first], squares[second], depth)
    left = _sum_of_powers(squares, 0.0 if init == "balanced" else float(alpha) ** 2, depth)
    right = _sum_of_powers(squares, 0.0, depth)
    both = 1.0 if depth == 1 else 0.0 if init == "balanced" else float(alpha) ** (2 * depth - 2)
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
        :math:`s_{\ell, i}` in the order of the modes, of either sign; leading axes are a batch.
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
    depth, width = s.shape[-2:]
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
            # reversing all residuals reverses this coupling, a change of signs of the (j, i) coordinates: only D feels it
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
    flat = s.shape[:-2] + (-1,)
    return np.sort(np.concatenate([selves.reshape(flat), pairs.reshape(flat)], axis=-1), axis=-1)[..., ::-1]


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
