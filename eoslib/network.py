r"""The deep linear network: loss, gradient, Hessian-vector product, starting points and targets.

All weights of a network are one array `W` of shape (..., L, d, d): ``W[..., 0, :, :]`` is :math:`W_1`, which acts first,
and ``W[..., -1, :, :]`` is :math:`W_L`. Leading axes are a batch. The loss is
:math:`f(W) = \tfrac12 \lVert W_L \cdots W_1 - M \rVert_F^2`.

`product`, `loss`, `gradient` and `hessian_vector_product` keep the dtype they are given (float32, float64, longdouble,
object arrays of mpmath numbers) and also take torch tensors, on any device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from . import validate

Array = Any  # a NumPy array of any floating dtype or of objects, or a torch tensor

STARTS = ("unbalanced", "balanced", "orthogonal", "gaussian")


@dataclass(frozen=True)
class Target:
    """A target matrix and its singular value decomposition ``left[:, :r] @ diag(singular_values) @ right[:, :r].T``."""

    matrix: np.ndarray  # (d, d)
    left: np.ndarray  # (d, d), orthogonal
    singular_values: np.ndarray  # (r,), as given
    right: np.ndarray  # (d, d), orthogonal


def target(
    singular_values: ArrayLike,
    width: int,
    *,
    rng: np.random.Generator | None = None,
    symmetric: bool = False,
    diagonal: bool = False,
) -> Target:
    r"""Make a :math:`d \times d` target :math:`M = U \Sigma V^\top` with given singular values and random singular vectors.

    Parameters
    ----------
    singular_values : (r,) array_like
        Positive numbers, largest first; equal ones are allowed. The other d - r singular values are zero.
    width : int
        d, at least r.
    rng : numpy.random.Generator
        Source of the orthogonal factors (Haar distributed). Not needed for a diagonal target.
    symmetric : bool
        Use V = U, which makes the target symmetric and positive semi-definite.
    diagonal : bool
        Use U = V = I.

    Raises
    ------
    ValueError
        If the values are not positive and non-increasing, the rank exceeds the width, or `rng` is missing.

    Examples
    --------
    >>> t = target((3, 2), 4, rng=np.random.default_rng(0))
    >>> np.linalg.svd(t.matrix, compute_uv=False).round(12) + 0.0
    array([3., 2., 0., 0.])
    """
    values = validate.positive("singular_values", singular_values)
    width = validate.integer("width", width, least=1)
    symmetric, diagonal = validate.flag("symmetric", symmetric), validate.flag("diagonal", diagonal)
    if values.ndim != 1 or values.size == 0 or np.any(np.diff(values) > 0):
        raise ValueError(f"singular_values: got {singular_values!r}, needs a non-empty, non-increasing list")
    validate.storable("width", (width, width))
    if values.size > width:
        raise ValueError(f"singular_values: got {values.size} of them, needs at most width = {width}")
    if diagonal:
        left = right = np.eye(width)
    else:
        validate.generator(rng, "the singular vectors of the target (or pass diagonal=True)")
        left = _orthogonal(width, rng)
        right = left if symmetric else _orthogonal(width, rng)
    r = values.size
    return Target((left[:, :r] * values) @ right[:, :r].T, left, values, right)


def initialise(
    start: str,
    *,
    depth: int,
    width: int,
    scale: ArrayLike,
    rng: np.random.Generator | None = None,
    dtype: DTypeLike = float,
) -> np.ndarray:
    r"""Make the starting weights, an array of shape (L, d, d).

    ================  ==============================================================================
    ``"balanced"``    :math:`W_\ell = \alpha I` for all :math:`\ell`
    ``"unbalanced"``  :math:`W_L = 0`, other :math:`W_\ell = \alpha I`
    ``"orthogonal"``  :math:`W_L = 0`, other :math:`W_\ell = \alpha P_\ell`, Haar orthogonal
    ``"gaussian"``    :math:`W_L = 0`, other :math:`W_\ell = \alpha H_\ell`, standard normal entries
    ================  ==============================================================================

    Parameters
    ----------
    start : str
        One of the names above (equations 3 and 7 of the paper, and its Appendix B.4).
    depth, width : int
        L and d.
    scale : float
        :math:`\alpha > 0`.
    rng : numpy.random.Generator
        Needed for ``"orthogonal"`` and ``"gaussian"``.
    dtype : dtype
        Floating dtype of the result.

    Raises
    ------
    ValueError
        On an unknown name, a depth or width below 1, a missing `rng`, or a scale that is not positive or is zero or
        infinite in `dtype`.

    Examples
    --------
    >>> initialise("unbalanced", depth=2, width=2, scale=0.1).tolist()
    [[[0.1, 0.0], [0.0, 0.1]], [[0.0, 0.0], [0.0, 0.0]]]
    """
    start = validate.choice("start", start, STARTS)
    depth = validate.integer("depth", depth, least=1)
    width = validate.integer("width", width, least=1)
    validate.storable("depth, width", (depth, width, width))
    alpha = validate.number("scale", scale, sign="> 0")
    try:
        dtype = np.dtype(dtype)
    except (TypeError, ValueError):
        dtype = np.dtype(object)
    if dtype.kind != "f":
        raise ValueError(f"dtype: got {dtype}, needs a floating dtype")
    if start in ("balanced", "unbalanced"):
        W = np.broadcast_to(np.eye(width), (depth, width, width))
    else:
        validate.generator(rng, f'the start "{start}"')
        W = np.stack(
            [
                _orthogonal(width, rng) if start == "orthogonal" else rng.standard_normal((width, width))
                for _ in range(depth)
            ]
        )
    with np.errstate(over="ignore", under="ignore"):
        W = (alpha * W).astype(dtype)
        if dtype.type(alpha) == 0 or not np.isfinite(W).all():
            raise ValueError(f"scale: got {scale!r}, which is not a positive finite number in {dtype}")
    if start != "balanced":
        W[-1] = 0
    return W


def product(W: Array) -> Array:
    r"""End-to-end matrix :math:`W_{L:1} = W_L \cdots W_1`.

    Parameters
    ----------
    W : (..., L, d, d) array

    Returns
    -------
    (..., d, d) array

    Raises
    ------
    ValueError
        On a wrong shape, entries that are not finite, or a result beyond the floating range.

    Examples
    --------
    >>> product(2 * np.broadcast_to(np.eye(2), (3, 2, 2))).tolist()
    [[8.0, 0.0], [0.0, 8.0]]
    """
    (W,) = validate.weights(W)
    with np.errstate(over="ignore", invalid="ignore"):
        return validate.representable("W", W, prefixes(layers(W))[-1])


def loss(W: Array, M: Array) -> Array:
    r"""Loss :math:`\tfrac12 \lVert W_{L:1} - M \rVert_F^2` (equation 1 of the paper).

    Parameters
    ----------
    W : (..., L, d, d) array
    M : (d, d) array

    Returns
    -------
    (...) array

    Raises
    ------
    ValueError
        On a wrong shape, entries that are not finite, or a result beyond the floating range.

    Examples
    --------
    >>> float(loss(np.ones((2, 1, 1)), np.array([[3.0]])))
    2.0
    """
    W, M = validate.weights(W, M)
    with np.errstate(over="ignore", invalid="ignore"):
        R = prefixes(layers(W))[-1] - M
        return validate.representable("W, M", W, (R * R).sum((-2, -1)) / 2)


def gradient(W: Array, M: Array) -> Array:
    r"""Gradient of the loss, layer by layer: :math:`\nabla_\ell f = W_{L:\ell+1}^\top\, (W_{L:1} - M)\, W_{\ell-1:1}^\top`.

    One forward sweep for the products :math:`W_{\ell:1}` and one backward sweep for :math:`W_{L:\ell+1}^\top R`:
    3(L - 1) matrix products.

    Parameters
    ----------
    W : (..., L, d, d) array
    M : (d, d) array

    Returns
    -------
    (..., L, d, d) array

    Raises
    ------
    ValueError
        On a wrong shape, entries that are not finite, or a result beyond the floating range.

    Examples
    --------
    >>> gradient(np.full((2, 1, 1), 2.0), np.array([[3.0]])).ravel().tolist()
    [2.0, 2.0]
    """
    W, M = validate.weights(W, M)
    parts = layers(W)
    with np.errstate(over="ignore", invalid="ignore"):
        return validate.representable("W, M", W, _stack(sweep_back(parts, P := prefixes(parts), P[-1] - M), W))


def hessian_vector_product(W: Array, M: Array, V: Array) -> Array:
    r"""Directional derivative of the gradient, :math:`\nabla^2 f(W)[V]`, by differentiating both sweeps.

    Parameters
    ----------
    W, V : (..., L, d, d) array
        The point and the direction.
    M : (d, d) array

    Returns
    -------
    (..., L, d, d) array

    Raises
    ------
    ValueError
        On a wrong shape, entries that are not finite, or a result beyond the floating range.

    Examples
    --------
    At a global minimum with one mode the Hessian is :math:`\sigma^{2-2/L}` times the matrix of ones:

    >>> W = np.full((2, 1, 1), 2.0)
    >>> hessian_vector_product(W, np.array([[4.0]]), np.ones((2, 1, 1))).ravel().tolist()
    [8.0, 8.0]
    """
    W, M, V = validate.weights(W, M, V=V)
    with np.errstate(over="ignore", invalid="ignore"):
        return validate.representable("W, M, V", W, _stack(curvature(layers(W), M, layers(V)), W))


def layers(W: Array) -> list:
    """Split (..., L, d, d) into the list ``[W_1, ..., W_L]`` of (..., d, d) views, unchecked."""
    return [W[..., i, :, :] for i in range(W.shape[-3])]


def prefixes(parts: list) -> list:
    """Products ``[W_1, W_2 W_1, ..., W_L ... W_1]`` of a list of layers, unchecked."""
    products = [parts[0]]
    for w in parts[1:]:
        products.append(w @ products[-1])
    return products


def sweep_back(parts: list, products: list, B: Array) -> list:
    """Gradients of all layers from the residual `B` and the forward products, unchecked."""
    gradients = [None] * len(parts)
    for i in range(len(parts) - 1, 0, -1):
        gradients[i] = B @ products[i - 1].mT
        B = parts[i].mT @ B
    gradients[0] = B
    return gradients


def curvature(parts: list, M: Array, direction: list) -> list:
    """Hessian-vector product for lists of layers, unchecked."""
    P, dP = [parts[0]], [direction[0]]
    for w, v in zip(parts[1:], direction[1:]):
        dP.append(v @ P[-1] + w @ dP[-1])
        P.append(w @ P[-1])
    B, dB = P[-1] - M, dP[-1]
    out = [None] * len(parts)
    for i in range(len(parts) - 1, 0, -1):
        out[i] = dB @ P[i - 1].mT + B @ dP[i - 1].mT
        B, dB = parts[i].mT @ B, direction[i].mT @ B + parts[i].mT @ dB
    out[0] = dB
    return out


def _stack(parts, like):
    if isinstance(like, np.ndarray):
        return np.stack(parts, axis=-3)
    import torch

    return torch.stack(parts, dim=-3)


def _orthogonal(width, rng):
    Q, R = np.linalg.qr(rng.standard_normal((width, width)))
    return Q * np.sign(np.diag(R))
