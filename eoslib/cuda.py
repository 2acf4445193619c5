"""The inner loop of `descent.descend` on a device of torch (``device="cuda"``).

The lines of a step are those of `loops.Loop`, with torch's batched products on tensors that stay on the device; on a
CUDA device one step is captured as a graph and replayed, since at small widths launching its kernels costs more than
they do. What is recorded comes back as NumPy arrays. Results agree with NumPy's to rounding, not bit for bit. On the
CPU torch's own number of threads holds, as for every other use of torch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from . import loops, validate

CHUNK_BYTES = 2 << 30  # of one (n, d, d) array: some fifteen of them are on the device at a time
BLOCK_BYTES = 1 << 30  # of products held back for their losses and singular values
# Up to this width passes over the whole batch, one for each column, beat the device's batched product (measured on an H200:
# 3.5 times at width 5 and 20,000 runs, slower from width 10 on).
NARROW = 6


def on(device: Any) -> Callable:
    """`Loop` on this device, which must be one that torch finds here.

    Raises
    ------
    ValueError
        If it is not.

    Examples
    --------
    >>> on("abacus")
    Traceback (most recent call last):
    ...
    ValueError: device: got 'abacus', needs a device that torch finds here
    """
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, TypeError, ValueError, NotImplementedError):
        raise ValueError(f"device: got {validate.short(device)}, needs a device that torch finds here") from None
    return functools.partial(Loop, device=device)


def multiply(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    """Products of small matrices (n, d, d), column times row after column times row.

    Examples
    --------
    >>> a, out = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.empty(1, 2, 2)
    >>> multiply(a, a.mT, out)
    >>> out.tolist()
    [[[5.0, 11.0], [11.0, 25.0]]]
    """
    torch.mul(a[..., :1], b[..., :1, :], out=out)
    for k in range(1, a.shape[-1]):
        torch.addcmul(out, a[..., k : k + 1], b[..., k : k + 1, :], out=out)


class Loop(loops.Loop):
    """As `loops.Loop`, on a device; one run is a batch of one.

    Examples
    --------
    >>> loop = Loop(np.zeros((1, 1, 1, 1)), np.ones((1, 1)), np.array([0.25]), "cpu")
    >>> loop.record(seen := loop.room(3))
    >>> seen.ravel().tolist(), loop.read().ravel().tolist()
    ([0.0, 0.25, 0.4375], [0.578125])
    """

    def __init__(self, W: np.ndarray, M: np.ndarray, rates: np.ndarray, device: Any):
        self.shape = (len(W),) + M.shape
        self.weights, self.target, self.rates = (
            torch.tensor(np.array(value, W.dtype), device=device)
            for value in (W.swapaxes(0, 1), M, rates[:, None, None])
        )
        narrow = self.weights.is_cuda and M.shape[-1] <= NARROW
        self._prepare(torch, multiply if narrow else torch.bmm)
        self.total = torch.zeros((), dtype=self.weights.dtype, device=device)
        self.graph = self._capture(W) if self.weights.is_cuda else None

    def _capture(self, W):
        """One step as a graph; the first steps, on a stream of their own, let the libraries make their workspaces."""
        graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream(self.weights.device)
        with torch.cuda.device(self.weights.device):
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    self._once()
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(graph):
                self._once()
        self.write(W)
        return graph

    def _once(self):
        self.step(self.product)
        self.total += (self.residual * self.residual).sum()

    def record(self, products: torch.Tensor) -> None:
        """As `loops.Loop.record`."""
        again = self.graph.replay if self.graph else self._once
        for product in products:
            again()
            product.copy_(self.product)

    def skip(self, count: int) -> bool:
        """As `loops.Loop.skip`."""
        again = self.graph.replay if self.graph else self._once
        self.total.zero_()
        for _ in range(count):
            again()
        return bool((self.total * self.copies).isfinite())

    def room(self, count: int) -> torch.Tensor:
        """As `loops.Loop.room`."""
        return self.residual.new_empty((count,) + self.shape)

    def losses(self, products: torch.Tensor, room: torch.Tensor) -> np.ndarray:
        """As `loops.Loop.losses`."""
        torch.subtract(products, self.target, out=room)
        room.square_()[..., -1, -1] *= self.copies
        return (room.sum((-2, -1)) / 2).cpu().numpy()

    def singular_values(self, products: torch.Tensor, dead: np.ndarray) -> np.ndarray:
        """As `loops.Loop.singular_values`."""
        mask = torch.as_tensor(dead, device=products.device)[..., None, None]
        return torch.linalg.svdvals(products.masked_fill(mask, 0)).cpu().numpy()

    def read(self) -> np.ndarray:
        """As `loops.Loop.read`."""
        return self.weights.transpose(0, 1).contiguous().cpu().numpy().copy()

    def write(self, W: np.ndarray) -> None:
        """As `loops.Loop.write`."""
        self.weights.copy_(torch.tensor(np.array(W)).transpose(0, 1))

    def retire(self, runs: np.ndarray) -> None:
        """As `loops.Loop.retire`."""
        mask = torch.as_tensor(runs, device=self.weights.device)
        self.weights[:, mask], self.rates[mask] = 0, 0
