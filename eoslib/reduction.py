r"""Gradient descent in the subspace that it never leaves: matrices of the target's rank in place of the full width.

Let every layer of the start be a multiple of an orthogonal matrix, :math:`W_\ell = \alpha_\ell O_\ell`, at most one of
them zero, and :math:`M = U\Sigma V^\top` of rank r. Then there are subspaces :math:`S_0, \dots, S_L` of dimension k such
that each layer maps :math:`S_{\ell-1}` into :math:`S_\ell` and its complement into the complement, at every step and for
every learning rate: k = r where a layer is zero (:math:`S_0` is the row space of M, :math:`S_L` its column space, the
others are their images), and otherwise k = 2r, with :math:`S_0 = V + (O_L\cdots O_1)^\top U`. On the complements the
target is zero and a layer stays a multiple :math:`a_\ell O_\ell`, so that one number stands for all d - k directions.

The starts "balanced", "unbalanced" and "orthogonal" of `network.initialise` are of this kind, "gaussian" is not.
`descent.descend` takes this way with ``reduce=True``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from . import validate


@dataclass(frozen=True)
class Reduction:
    """A network of width k + 1 whose descent is that of the full one; the last row and column are the complement.

    Where k = d there is no complement and the width is d.
    """

    weights: np.ndarray  # (..., L, k + 1, k + 1)
    target: np.ndarray  # (k + 1, k + 1), diagonal, the singular values of M first
    copies: int  # so often does the last diagonal entry occur in the full network: d - k, or 1 where k = d
    still: bool  # the complement never moves, and its product is zero, since a layer is zero there
    frames: np.ndarray  # (..., L + 1, d, k), orthonormal bases of the subspaces
    outside: np.ndarray  # (..., L, d, d), the layers on the complements, each divided by its factor
    departure: float  # by how much, relatively, W and M miss the form; what is neglected

    def expand(self, weights: np.ndarray) -> np.ndarray:
        """The full layers (..., L, d, d) for reduced ones, as of a later state; more batch axes may stand in front."""
        k = self.frames.shape[-1]
        inside = self.frames[..., 1:, :, :] @ weights[..., :k, :k] @ self.frames[..., :-1, :, :].mT
        return inside + (weights[..., k:, k:] * self.outside if weights.shape[-1] > k else 0)


def reduce(W: np.ndarray, M: np.ndarray, *, tolerance: float = 1e-12) -> Reduction:
    r"""Find the invariant subspaces and write the start in orthonormal bases of them.

    Parameters
    ----------
    W : (..., L, d, d) array
        Starting weights, float64.
    M : (d, d) array
        Target, not zero.
    tolerance : float
        Most that :math:`W_\ell^\top W_\ell/\alpha_\ell^2 - I` may have as an entry; singular values of M below `tolerance`
        times the largest count as zero.

    Returns
    -------
    Reduction
        ``.weights .target .copies .still .frames .outside .departure`` and ``.expand(weights)``.

    Raises
    ------
    ValueError
        If a layer is no multiple of an orthogonal matrix, more than one is zero, or the target is zero.

    Notes
    -----
    In exact arithmetic, and for a start exactly of this form, nothing is lost. What is neglected is ``.departure``, some
    roundings for the starts of `network.initialise`; like the roundings of the full run it grows or shrinks with what
    descent does to perturbations. Between modes they grow beyond :math:`2/\lambda_{12}`, in this network as in the full
    one: there the two agree in their statistics, not in their iterates. Beyond :math:`\eta = 2L/\lambda_1` the full run
    leaves the subspace by its roundings, which the reduced one cannot.

    Examples
    --------
    >>> W = np.stack([np.eye(100) / 10, np.zeros((100, 100))])
    >>> small = reduce(W, np.diag([3.0, 2.0] + 98 * [0.0]))
    >>> small.weights.shape, small.target.diagonal().tolist(), small.copies
    ((2, 3, 3), [3.0, 2.0, 0.0], 98)
    """
    W, M = validate.weights(W, M, numpy_only=True)
    tolerance = validate.number("tolerance", tolerance, sign="> 0")
    if tolerance >= 0.5:
        raise ValueError(f"tolerance: got {tolerance}, needs a number below 0.5")
    if W.dtype != np.float64 or M.dtype != np.float64:
        raise ValueError(f"W, M: got {W.dtype} and {M.dtype}, needs float64")
    left, values, right = np.linalg.svd(M)
    rank, d = int(np.sum(values > tolerance * values[0])), len(M)
    if rank == 0:
        raise ValueError("M: got zero, needs a target with a direction")
    unit = np.ldexp(1.0, np.frexp(np.abs(W).max(axis=(-2, -1), keepdims=True))[1] - 1)  # so that squares stay in range
    turns = W / unit
    norm = np.sqrt((turns * turns).sum((-2, -1), keepdims=True) / d)
    turns, scale = turns / np.where(norm > 0, norm, 1), (norm * unit)[..., 0, 0]  # the factors, (..., L)
    miss = np.abs(turns.mT @ turns - (scale > 0)[..., None, None] * np.eye(d)).max(initial=0)
    if miss > tolerance:
        raise ValueError(
            f"W: got layers that miss a multiple of an orthogonal matrix by {miss:.1e}, needs at most {tolerance}"
        )
    zeros = (scale == 0).sum(axis=-1)
    if np.any(zeros > 1):
        raise ValueError("W: got a start with two zero layers, where nothing moves; needs at most one")
    still = bool(np.all(zeros == 1))
    k = rank if still else min(2 * rank, d)
    frames = np.empty(W.shape[:-3] + (W.shape[-3] + 1, d, k))
    for index in np.ndindex(W.shape[:-3]):
        frames[index] = _frames(turns[index], left, right.T, rank, k)
    inside = frames[..., 1:, :, :].mT @ W @ frames[..., :-1, :, :]
    outside = turns - frames[..., 1:, :, :] @ (frames[..., 1:, :, :].mT @ turns)
    size = min(k + 1, d)
    weights, target = np.zeros(W.shape[:-2] + (size, size)), np.zeros((size, size))
    weights[..., :k, :k], target[range(rank), range(rank)] = inside, values[:rank]
    if size > k:
        weights[..., k, k] = scale
    departure = float(max(miss, (values[rank] / values[0]) if rank < d else 0))
    return Reduction(weights, target, max(d - k, 1), still, frames, outside, departure)


def _frames(turns, left, right, rank, k):
    """Bases (L + 1, d, k) of the subspaces for orthogonal or zero layers (L, d, d)."""
    zero = [i for i, turn in enumerate(turns) if not turn.any()]
    if zero:
        first, last = right[:, :k], left[:, :k]
    else:
        ahead = functools.reduce(lambda a, b: b @ a, turns)
        first = _complete(right[:, :rank], ahead.T @ left[:, :rank], k)
        image = ahead @ first  # the last basis spans this, and begins with the left singular vectors
        last = image @ _complete(image.T @ left[:, :rank], np.eye(k), k)
    split = zero[0] if zero else len(turns) - 1
    forward, backward = [first], [last]
    for turn in turns[:split]:
        forward.append(turn @ forward[-1])
    for turn in turns[:split:-1]:
        backward.append(turn.T @ backward[-1])
    return np.stack(forward + backward[::-1])


def _complete(columns, more, k):
    """k orthonormal columns that begin with these and whose span contains the others, as far as k allows."""
    Q, R = np.linalg.qr(np.concatenate([columns, more], axis=1))
    signs = np.sign(np.diag(R)[: columns.shape[1]])
    return np.concatenate([Q[:, : columns.shape[1]] * signs, Q[:, columns.shape[1] : k]], axis=1)
