"""The inner loop of `descent.descend`: steps of gradient descent in place, many runs at once, on one thread.

A `Loop` holds the weights of n runs and every buffer that a step needs, so that a step allocates no matrix: 3(L - 1)
products, one subtraction for the residual, one multiplication and one subtraction for all layers together.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

_FIRST = threading.Lock()  # held by the caller that limits the threads


@functools.cache
def _pools():
    """The thread pools of the numerical libraries, or None without threadpoolctl."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController().select(user_api="blas")


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold NumPy's matrix products to one thread meanwhile, and give the caller's count back.

    Matrices of a few hundred rows are slower on two threads than on one, and twice as slow where another process
    computes. Where several Python threads are inside, the first to come in limits and restores. Without the package
    threadpoolctl (extra ``data``) nothing is changed: set ``OPENBLAS_NUM_THREADS=1``.

    Examples
    --------
    >>> with one_thread():
    ...     print(np.eye(2) @ np.ones(2))
    [1. 1.]
    """
    if _pools() is None or not _FIRST.acquire(blocking=False):
        yield
        return
    try:
        with _pools().limit(limits=1):
            yield
    finally:
        _FIRST.release()


class Loop:
    """Weights of n runs, advanced in place; nothing is checked.

    One run is held as (L, d, d): two-dimensional products skip the overhead of a batch and give the same bits.
    Several are held as (L, n, d, d), each layer contiguous.

    Parameters
    ----------
    W : (n, L, d, d) array
        Start; copied.
    M : (d, d) array
        Target.
    rates : (n,) array
        Learning rates, of the dtype of `W`.

    Attributes
    ----------
    copies : int
        How often the last diagonal entry of the end-to-end matrix occurs in the network that this one stands for, and
        its square in the loss (`reduction.Reduction`); set after the loop is made.

    Examples
    --------
    One layer of one number: each step goes a quarter of the way to the target.

    >>> loop = Loop(np.zeros((1, 1, 1, 1)), np.ones((1, 1)), np.array([0.25]))
    >>> loop.record(seen := loop.room(3))
    >>> seen.ravel().tolist(), loop.read().ravel().tolist()
    ([0.0, 0.25, 0.4375], [0.578125])
    """

    copies = 1

    def __init__(self, W: np.ndarray, M: np.ndarray, rates: np.ndarray):
        n, _, width, _ = W.shape
        self.shape = (n, width, width)
        single = n == 1
        self.weights = self._array(W[0] if single else W.swapaxes(0, 1))
        self.rates = rates[0] if single else self._array(rates[:, None, None])
        self.target = self._array(M)
        blas = single and W.dtype in (np.float32, np.float64)
        self._prepare(np, np.dot if blas else np.matmul)

    @staticmethod
    def _array(value):
        return np.array(value, order="C")

    def _prepare(self, xp, dot):
        """List the products of a step, with the arrays they go from and to."""
        depth, empty = len(self.weights), xp.empty_like
        self.gradients, self.residual, self.product = (
            empty(self.weights),
            empty(self.weights[0]),
            empty(self.weights[0]),
        )
        layers, gradients, residual = list(self.weights), list(self.gradients), self.residual
        prefixes = [layers[0]] + [empty(layers[0]) for _ in range(depth - 2)]
        self.forward = list(zip(layers[1:], prefixes, prefixes[1:]))  # all but the last
        self.last = (layers[-1], prefixes[-1]) if depth > 1 else None
        self.backward, B = [], residual
        for i in range(depth - 1, 0, -1):
            self.backward.append((B, prefixes[i - 1].mT, gradients[i]))
            above, B = B, gradients[0] if i == 1 else empty(residual)
            self.backward.append((layers[i].mT, above, B))
        self.xp, self.dot = xp, dot

    def step(self, product) -> None:
        """Write the end-to-end matrix of the state into `product`, then update the state."""
        xp, dot = self.xp, self.dot
        for a, b, c in self.forward:
            dot(a, b, out=c)
        if self.last:
            dot(*self.last, out=product)
        else:
            product[...] = self.weights[0]
        xp.subtract(product, self.target, out=self.residual)
        for a, b, c in self.backward:
            dot(a, b, out=c)
        if not self.last:
            self.gradients[0] = self.residual
        xp.multiply(self.rates, self.gradients, out=self.gradients)
        xp.subtract(self.weights, self.gradients, out=self.weights)

    def record(self, products) -> None:
        """Advance by as many steps as `products` has rows, writing the end-to-end matrix of each state into it."""
        for product in products:
            self.step(product)

    def skip(self, count: int) -> bool:
        """Advance by `count` steps; true only if every loss on the way is finite."""
        total, residual = 0.0, self.residual.reshape(-1)
        for _ in range(count):
            self.step(self.product)
            total = total + np.vdot(residual, residual)  # what is not finite stays so
        return bool(np.isfinite(float(total * self.copies)))  # no loss is larger

    def room(self, count: int):
        """Room for the end-to-end matrices of `count` states."""
        return np.empty((count,) + self.residual.shape, self.residual.dtype)

    def losses(self, products, room) -> np.ndarray:
        """Losses (k, n) of k states, by way of `room`, an array like `products`."""
        np.subtract(products, self.target, out=room)
        np.multiply(room, room, out=room)
        room[..., -1, -1] *= self.copies
        return (room.sum((-2, -1)) / 2).reshape(len(room), self.shape[0])

    def singular_values(self, products, dead: np.ndarray) -> np.ndarray:
        """Singular values (k, n, d) of k states, in float64 where LAPACK has no routine for the dtype; zero for the dead."""
        P = products if products.dtype in (np.float32, np.float64) else products.astype(float)
        P = P.reshape((-1,) + self.shape)
        return np.linalg.svd(np.where(dead[..., None, None], 0, P) if dead.any() else P, compute_uv=False)

    def read(self) -> np.ndarray:
        """A copy of the weights, (n, L, d, d)."""
        return np.array(self.weights[None] if self.weights.ndim == 3 else self.weights.swapaxes(0, 1), order="C")

    def write(self, W: np.ndarray) -> None:
        """Set the weights, (n, L, d, d)."""
        self.weights[...] = W[0] if self.weights.ndim == 3 else W.swapaxes(0, 1)

    def retire(self, runs: np.ndarray) -> None:
        """Rest the runs of this mask at zero, with the rate zero."""
        if self.weights.ndim > 3:
            self.weights[:, runs], self.rates[runs] = 0, 0
        elif runs.any():
            self.weights[...], self.rates = 0, 0 * self.rates
