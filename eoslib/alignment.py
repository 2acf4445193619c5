r"""Alignment of singular vectors: do neighbouring layers share theirs, and does the network share the target's?

A network is *aligned* with :math:`M = U_\star \Sigma_\star V_\star^\top` if there are orthogonal frames
:math:`Q_1 = V_\star, Q_2, \ldots, Q_L, Q_{L+1} = U_\star` in which every layer is diagonal,
:math:`W_\ell = Q_{\ell+1} D_\ell Q_\ell^\top`. The entries of :math:`D_\ell` may have either sign and any order.

`subspace_distance` and `angles` take singular vectors from LAPACK, which are arbitrary where singular values coincide or
vanish; `off_diagonal`, `commutator` and `imbalance` need no decomposition of the layers.
"""

from __future__ import annotations

import numpy as np

from . import validate


def subspace_distance(W: np.ndarray, rank: int, *, signed: bool = False) -> np.ndarray:
    r"""Distance of the leading singular vectors of neighbouring layers (equation 11 of the paper).

    :math:`\lVert U_{\ell-1,r}^\top V_{\ell,r} - I_r \rVert_F` for :math:`\ell = 2, \ldots, L`. A singular vector is defined
    up to its sign, and each layer's signs are LAPACK's own; by default the smallest value over all signs is taken.

    Parameters
    ----------
    W : (..., L, d, d) array
        L at least 2.
    rank : int
        r, at most d.
    signed : bool
        Keep LAPACK's signs, as the printed formula does: each pair of opposite sign then adds 4 to the square.

    Returns
    -------
    (..., L - 1) ndarray

    Raises
    ------
    ValueError
        On a wrong shape, a single layer, or a rank above d.

    Examples
    --------
    >>> W = np.stack([np.diag([2.0, 1.0]), np.diag([3.0, 1.0])])
    >>> subspace_distance(W, 2).tolist()
    [0.0]
    """
    W = _for_lapack(W)
    rank, signed = _rank(rank, W), validate.flag("signed", signed)
    U, _, Vt = np.linalg.svd(W)
    overlap = Vt[..., 1:, :rank, :] @ U[..., :-1, :, :rank]
    if not signed:
        overlap = overlap * _signs(np.diagonal(overlap, axis1=-2, axis2=-1))[..., None, :]
    return np.linalg.norm(overlap - np.eye(rank), axis=(-2, -1))


def angles(P: np.ndarray, vectors: np.ndarray, rank: int, *, by: str = "mode") -> np.ndarray:
    r"""Angles between the right singular vectors of a matrix and given ones, in radians, 0 to :math:`\pi/2`.

    The angle comes from the part of the vector outside the given direction, so it is accurate down to rounding
    (an arc cosine would not be, below :math:`10^{-8}`).

    Parameters
    ----------
    P : (..., d, d) array
        Pass the transpose for left singular vectors.
    vectors : (d, d) array
        Orthonormal columns to compare with.
    rank : int
        How many columns.
    by : {"mode", "order"}
        "order" pairs the i-th largest singular value with column i; "mode" pairs column i with the closest of the
        `rank` leading singular vectors.

    Returns
    -------
    (..., rank) ndarray

    Raises
    ------
    ValueError
        On a wrong shape, rank, or an unknown `by`, or if `vectors` are not orthonormal.

    Examples
    --------
    Two modes, the second of which is now the larger:

    >>> P = np.diag([1.0, 2.0])
    >>> angles(P, np.eye(2), 2).tolist(), np.degrees(angles(P, np.eye(2), 2, by="order")).tolist()
    ([0.0, 0.0], [90.0, 90.0])
    """
    P = validate.real("P", P)
    vectors = validate.real("vectors", vectors)
    if P.ndim < 2 or P.shape[-1] != P.shape[-2] or P.shape[-1] == 0:
        raise ValueError(f"P: got shape {P.shape}, needs (..., d, d) with d >= 1")
    if vectors.shape != P.shape[-2:]:
        raise ValueError(f"vectors: got shape {vectors.shape}, needs {P.shape[-2:]} to match P")
    by = validate.choice("by", by, ("mode", "order"))
    _orthogonal("vectors", vectors)
    rank, P = _rank(rank, P), _lapack("P", P)
    found = np.linalg.svd(P)[2][..., :rank, :] @ vectors  # row i: singular vector i in the given basis
    if by == "mode":
        best = np.abs(found[..., :rank]).argmax(axis=-2)  # (..., rank): which row is closest to column i
        found = np.take_along_axis(found, best[..., None], axis=-2)
    along = np.abs(np.diagonal(found, axis1=-2, axis2=-1))
    outside = np.where(np.eye(rank, P.shape[-1], dtype=bool), 0, found)
    return np.arctan2(np.linalg.norm(outside, axis=-1), along)


def coordinates(W: np.ndarray, left: np.ndarray, right: np.ndarray, frames: np.ndarray | None = None) -> np.ndarray:
    r"""Weights in the target's basis: :math:`Q_{\ell+1}^\top W_\ell Q_\ell` with :math:`Q_1 = V_\star`, :math:`Q_{L+1} = U_\star`.

    Parameters
    ----------
    W : (..., L, d, d) array
    left, right : (d, d) array
        :math:`U_\star` and :math:`V_\star`.
    frames : (L - 1, d, d) array, optional
        :math:`Q_2, \ldots, Q_L`; all equal to `right` if left out, which suits the starts made of identities.

    Returns
    -------
    (..., L, d, d) ndarray

    Raises
    ------
    ValueError
        On a wrong shape, or if a frame is not an orthogonal matrix.

    Examples
    --------
    >>> U = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> coordinates(np.stack([np.eye(2), U]), U, np.eye(2))[1].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    (W,) = validate.weights(W, numpy_only=True)
    depth, d = W.shape[-3], W.shape[-1]
    ends = [validate.real(name, Q) for name, Q in (("right", right), ("left", left))]
    for name, Q in zip(("right", "left"), ends):
        if Q.shape != (d, d):
            raise ValueError(f"{name}: got shape {Q.shape}, needs {(d, d)} to match W")
        _orthogonal(name, Q)
    inner = np.broadcast_to(ends[0], (depth - 1, d, d)) if frames is None else validate.real("frames", frames)
    if inner.shape != (depth - 1, d, d):
        raise ValueError(f"frames: got shape {inner.shape}, needs {(depth - 1, d, d)} to match W")
    if frames is not None:
        _orthogonal("frames", inner)
    Q = np.concatenate([ends[0][None], inner, ends[1][None]])
    with np.errstate(over="ignore", invalid="ignore"):
        return validate.representable("W", W, Q[1:].mT @ W @ Q[:-1])


def off_diagonal(D: np.ndarray) -> np.ndarray:
    """Largest absolute off-diagonal entry of each matrix of a stack.

    Parameters
    ----------
    D : (..., d, d) array

    Returns
    -------
    (...) ndarray

    Raises
    ------
    ValueError
        If `D` is not a stack of square matrices.

    Examples
    --------
    >>> float(off_diagonal(np.array([[5.0, -2.0], [1.0, 7.0]])))
    2.0
    """
    D = validate.real("D", D)
    if D.ndim < 2 or D.shape[-1] != D.shape[-2] or D.shape[-1] == 0:
        raise ValueError(f"D: got shape {D.shape}, needs (..., d, d) with d >= 1")
    return np.abs(np.where(np.eye(D.shape[-1], dtype=bool), 0, D)).max(axis=(-2, -1))


def commutator(W: np.ndarray) -> np.ndarray:
    r"""Misalignment of neighbouring layers, :math:`\lVert [W_\ell W_\ell^\top, W_{\ell+1}^\top W_{\ell+1}] \rVert_F`.

    Zero if and only if the two layers have a common choice of inner singular vectors; it asks for no decomposition, so
    repeated and zero singular values do no harm.

    Parameters
    ----------
    W : (..., L, d, d) array
        L at least 2.

    Returns
    -------
    (..., L - 1) ndarray

    Raises
    ------
    ValueError
        On a wrong shape or a single layer.

    Examples
    --------
    >>> shear = np.array([[1.0, 1.0], [0.0, 1.0]])
    >>> commutator(np.stack([np.eye(2), shear])).tolist()
    [0.0]
    >>> commutator(np.stack([shear, np.diag([2.0, 1.0])])).round(4).tolist()
    [4.2426]
    """
    W = _for_lapack(W)
    out, into = W[..., :-1, :, :], W[..., 1:, :, :]
    with np.errstate(over="ignore", invalid="ignore"):
        A, B = out @ out.mT, into.mT @ into
        return validate.representable("W", W, _norm(A @ B - B @ A))


def imbalance(W: np.ndarray) -> np.ndarray:
    r"""Imbalance matrices :math:`C_\ell = W_{\ell+1}^\top W_{\ell+1} - W_\ell W_\ell^\top`, conserved by gradient flow.

    Under gradient descent :math:`C_\ell` changes by exactly :math:`\eta^2 (G_{\ell+1}^\top G_{\ell+1} - G_\ell G_\ell^\top)`.

    Parameters
    ----------
    W : (..., L, d, d) array
        L at least 2.

    Returns
    -------
    (..., L - 1, d, d) array

    Raises
    ------
    ValueError
        On a wrong shape or a single layer.

    Examples
    --------
    >>> imbalance(np.array([[[2.0]], [[3.0]]])).ravel().tolist()
    [5.0]
    """
    W = _several(W)
    out, into = W[..., :-1, :, :], W[..., 1:, :, :]
    with np.errstate(over="ignore", invalid="ignore"):
        return validate.representable("W", W, into.mT @ into - out @ out.mT)


def distance_from_imbalance(W: np.ndarray, C: np.ndarray, rank: int) -> np.ndarray:
    r"""First-order prediction of `subspace_distance` from the imbalance.

    Since :math:`W_{\ell+1}^\top W_{\ell+1} = W_\ell W_\ell^\top + C_\ell`, vector j of the next layer leans towards vector i of
    this one by :math:`u_i^\top C_\ell u_j / (s_j^2 - s_i^2)`, with :math:`u_i, s_i` those of :math:`W_\ell`. The overlaps
    of the leading r vectors with one another and their loss to the others (second order) give the distance.

    Parameters
    ----------
    W : (..., L, d, d) array
        L at least 2.
    C : (..., L - 1, d, d) array
        Imbalance, of these weights or (under gradient flow) of the start; the prediction is first order in it.
    rank : int
        r, at most d; the r leading singular values of each layer must differ from all others.

    Returns
    -------
    (..., L - 1) ndarray

    Raises
    ------
    ValueError
        On a wrong shape of W or C, if the leading singular values of a layer coincide, or if C is so large that the
        prediction overflows.

    Examples
    --------
    >>> W = np.stack([np.diag([2.0, 1.0]), np.array([[2.0, 0.0], [0.003, 1.0]])])
    >>> distance_from_imbalance(W, imbalance(W), 2).round(6).tolist()
    [0.001414]
    >>> subspace_distance(W, 2).round(6).tolist()
    [0.001414]
    """
    W, C = _for_lapack(W), validate.real("C", C)
    rank = _rank(rank, W)
    if C.shape[-3:] != (W.shape[-3] - 1, *W.shape[-2:]):
        raise ValueError(f"C: got shape {C.shape}, needs (..., {W.shape[-3] - 1}, {W.shape[-2]}, {W.shape[-1]}) for W")
    earlier = W[..., :-1, :, :]
    size = np.abs(earlier).max(axis=(-2, -1), keepdims=True)  # the squares of small or large layers stay in range
    size = np.where(size > 0, size, 1)
    with np.errstate(over="ignore"):
        C = validate.representable("C", C, C / size / size)
    U, s, _ = np.linalg.svd(earlier / size)
    s2 = s * s
    gaps = s2[..., None, :rank] - s2[..., :, None]  # (..., d, rank): s_j^2 - s_i^2
    own = np.eye(W.shape[-1], rank, dtype=bool)
    _distinct("W", np.where(own, np.inf, np.abs(gaps)), s2)
    with np.errstate(over="ignore", invalid="ignore"):
        lean = np.where(own, 0, (U.mT @ C @ U[..., :rank]) / np.where(own, 1, gaps))
        inside = lean[..., :rank, :]
        lost = (lean * lean).sum(axis=-2) / 2
        found = np.sqrt((inside**2).sum(axis=(-2, -1)) + (lost**2).sum(axis=-1))
    return validate.representable("C", C, found)


def singular_vector_velocity(W: np.ndarray, velocity: np.ndarray) -> tuple[tuple, tuple]:
    r"""Time derivatives of a compact singular value decomposition (equations 21 to 23 of the paper, corrected).

    With :math:`X = U^\top \dot W V` and :math:`H_{ij} = 1/(s_j^2 - s_i^2)`, zero on the diagonal,

    .. math::
        \dot U &= U\,(H \odot (X S + S X^\top)) + (I_d - U U^\top)\, \dot W V S^{-1}, \\
        \dot V &= V\,(H \odot (S X + X^\top S)) + (I_d - V V^\top)\, \dot W^\top U S^{-1}, \qquad
        \dot S = I \odot X.

    Parameters
    ----------
    W : (m, n) array
        One matrix; its rank is the number of singular values above :math:`10^{-12}` times the largest.
    velocity : (m, n) array
        :math:`\dot W`.

    Returns
    -------
    tuple
        ``(U, s, V)`` and ``(dU, ds, dV)``, each of shapes (m, r), (r,), (n, r).

    Raises
    ------
    ValueError
        If W is zero, if two of its positive singular values coincide, or if `velocity` would raise its rank:
        then the singular vectors have no derivative; or if `velocity` is beyond the floating range in units of W.

    Examples
    --------
    >>> velocity = np.array([[1.0, 3.0], [0.0, 5.0]])
    >>> _, (dU, ds, dV) = singular_vector_velocity(np.diag([2.0, 1.0]), velocity)
    >>> ds.tolist(), abs(dU).round(6).tolist()
    ([1.0, 5.0], [[0.0, 1.0], [1.0, 0.0]])
    """
    W, velocity = validate.real("W", W), validate.real("velocity", velocity)
    if W.ndim != 2 or 0 in W.shape:
        raise ValueError(f"W: got shape {W.shape}, needs (m, n) with m, n >= 1")
    if velocity.shape != W.shape:
        raise ValueError(f"velocity: got shape {velocity.shape}, needs {W.shape} to match W")
    W, velocity = _lapack("W", W), _lapack("velocity", velocity)
    size = np.abs(W).max(initial=0)
    if size == 0:
        raise ValueError("W: got the zero matrix, whose singular vectors are arbitrary; needs positive rank")
    U, s, Vt = np.linalg.svd(W / size, full_matrices=False)
    r = int((s > 1e-12 * s[0]).sum())
    U, s, V = U[:, :r], s[:r], Vt[:r].T
    gaps = s[None, :] ** 2 - s[:, None] ** 2
    _distinct("W", np.where(np.eye(r, dtype=bool), np.inf, np.abs(gaps)), s**2)
    outside_left, outside_right = np.eye(len(U)) - U @ U.T, np.eye(len(V)) - V @ V.T
    with np.errstate(over="ignore", invalid="ignore"):
        # a common factor changes neither vectors nor their derivatives
        velocity = validate.representable("velocity", velocity, velocity / size)
        if np.abs(outside_left @ velocity @ outside_right).max() > 1e-9 * np.abs(velocity).max():
            raise ValueError(f"velocity: would raise the rank of W above {r}, needs one that keeps it")
        H = np.where(np.eye(r, dtype=bool), 0, 1 / np.where(np.eye(r, dtype=bool), 1, gaps))
        X = U.T @ velocity @ V
        dU = U @ (H * (X * s + (X * s).T)) + outside_left @ velocity @ V / s
        dV = V @ (H * (s[:, None] * X + (s[:, None] * X).T)) + outside_right @ velocity.T @ U / s
        derivatives = [validate.representable("velocity", velocity, x) for x in (dU, np.diag(X) * size, dV)]
        return (U, validate.representable("W", W, s * size), V), tuple(derivatives)


def frames(W: np.ndarray) -> np.ndarray:
    r"""Orthogonal frames :math:`R_\ell = P_\ell \cdots P_1` of layers that are positive multiples of orthogonal matrices.

    In these frames the start :math:`W_\ell = \alpha P_\ell`, :math:`\ell < L` (equation 7 of the paper) is the start
    :math:`W_\ell = \alpha I`: see `rotate`. The last layer is not looked at.

    Parameters
    ----------
    W : (L, d, d) array

    Returns
    -------
    (L - 1, d, d) ndarray
        :math:`R_1, \ldots, R_{L-1}`.

    Raises
    ------
    ValueError
        On a wrong shape, or if a layer before the last is not a positive multiple of an orthogonal matrix.

    Examples
    --------
    >>> turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    >>> frames(np.stack([0.1 * turn, 0.1 * turn, 0 * turn]))[1].tolist()
    [[-1.0, 0.0], [0.0, -1.0]]
    """
    W = _for_lapack(W)
    if W.ndim != 3:
        raise ValueError(f"W: got shape {W.shape}, needs one network (L, d, d)")
    R, found = np.eye(W.shape[-1], dtype=W.dtype), []
    for number, layer in enumerate(W[:-1], start=1):
        layer = layer / (np.abs(layer).max() or 1.0)
        scale = (np.linalg.norm(layer) / np.sqrt(W.shape[-1])).astype(W.dtype)
        if scale == 0 or not _is_orthogonal(layer / scale, W.dtype):
            raise ValueError(f"W: layer {number} is not a positive multiple of an orthogonal matrix, needs one")
        R = layer / scale @ R
        found.append(R)
    return np.stack(found)


def rotate(W: np.ndarray, R: np.ndarray) -> np.ndarray:
    r"""Change of frames between layers: :math:`W_\ell \mapsto R_\ell^\top W_\ell R_{\ell-1}`, with :math:`R_0 = R_L = I`.

    The product, the loss and the gradient descent dynamics do not notice it.

    Parameters
    ----------
    W : (..., L, d, d) array
    R : (L - 1, d, d) array
        Orthogonal :math:`R_1, \ldots, R_{L-1}`.

    Returns
    -------
    (..., L, d, d) array

    Raises
    ------
    ValueError
        On a wrong shape, or if R is not orthogonal.

    Examples
    --------
    >>> W = np.stack([np.array([[0.0, -1.0], [1.0, 0.0]]), np.zeros((2, 2))])
    >>> rotate(W, frames(W))[0].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    W, R = _several(W), validate.real("R", R)
    depth, d = W.shape[-3], W.shape[-1]
    if R.shape != (depth - 1, d, d):
        raise ValueError(f"R: got shape {R.shape}, needs {(depth - 1, d, d)} to match W")
    _orthogonal("R", R)
    return coordinates(W, np.eye(d), np.eye(d), R)


def _several(W):
    (W,) = validate.weights(W, numpy_only=True)
    if W.shape[-3] < 2:
        raise ValueError(f"W: got {W.shape[-3]} layer, needs at least 2")
    return W


def _for_lapack(W):
    """Two layers or more, in a dtype that LAPACK has."""
    return _lapack("W", _several(W))


def _lapack(name, array):
    """In a dtype that LAPACK has."""
    return array if array.dtype in (np.float32, np.float64) else validate.double(name, array)


def _norm(matrices):
    """Frobenius norms whose squares do not leave the floating range."""
    size = np.abs(matrices).max(axis=(-2, -1), initial=0, keepdims=True)
    scaled = matrices / np.where((size > 0) & np.isfinite(size), size, 1)
    return np.linalg.norm(scaled, axis=(-2, -1)) * size[..., 0, 0]


def _is_orthogonal(Q, dtype):
    """Whether matrices are orthogonal: to 1e-10 in float64, to a hundred roundings a row in shorter floats."""
    allowed = max(1e-10, 100 * Q.shape[-1] * float(np.finfo(dtype).eps))
    return np.abs(Q.mT @ Q - np.eye(Q.shape[-1])).max(initial=0) <= allowed


def _orthogonal(name, Q):
    if np.abs(Q).max(initial=0) > 2 or not _is_orthogonal(Q, Q.dtype):  # no square of a huge entry
        raise ValueError(f"{name}: got a matrix that is not orthogonal, needs orthonormal columns")


def _rank(rank, matrix):
    rank = validate.integer("rank", rank, least=1)
    if rank > matrix.shape[-1]:
        raise ValueError(f"rank: got {rank}, needs at most d = {matrix.shape[-1]}")
    return rank


def _signs(x):
    return np.where(x < 0, -1.0, 1.0)


def _distinct(name, gaps, squares):
    if np.any(gaps.min(axis=(-2, -1)) <= 1e-12 * squares.max(axis=-1)):
        raise ValueError(
            f"{name}: got coinciding singular values, needs distinct ones: their singular vectors are arbitrary"
        )
