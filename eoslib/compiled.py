"""Compiled inner loops, for those who ask (``compiled=True``): numba, the extra ``fast``.

Eight runs (four without AVX-512) lie side by side in the lanes of one vector, so that every product of matrices is a
product of matrices of vectors; it is computed in tiles whose sums stay in registers, and time runs inside a group of
lanes, whose weights stay in the nearest cache. The one-mode map runs for a few vectors at a time, which never leave the registers.

Multiplication and addition are fused here, as they are not in NumPy: the two agree to rounding, not bit for bit, and
on chaotic orbits only in their statistics. A batch still gives bit for bit what its runs give one by one.
"""

from __future__ import annotations

import functools

import numba  # first: where it is missing, that is what the error shall name
import numpy as np

# isort: split
import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from . import loops

if numba.config.DISABLE_JIT:
    raise ModuleNotFoundError("NUMBA_DISABLE_JIT turns its compiler off", name="numba")

_WIDE = bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))
LANES = 8 if _WIDE else 4
CHUNK_BYTES = 256 * 1024  # of one (n, d, d) array
_TILE = (5, 4) if _WIDE else (3, 3)  # rows and columns whose sums fit the 32 or 16 vector registers
_CHAINS = 10  # vectors of the one-mode map that advance together
_LOOK = 64  # its steps between two looks at what left the floating range
_VECTOR, _WHOLE = ir.VectorType(ir.DoubleType(), LANES), ir.IntType(64)


class Loop(loops.Loop):
    """As `loops.Loop`, in float64, for groups of `LANES` runs.

    Examples
    --------
    >>> loop = Loop(np.zeros((1, 1, 1, 1)), np.ones((1, 1)), np.array([0.25]))
    >>> loop.record(seen := loop.room(3))
    >>> seen[:, 0].ravel().tolist(), loop.read().ravel().tolist()
    ([0.0, 0.25, 0.4375], [0.578125])
    """

    def __init__(self, W: np.ndarray, M: np.ndarray, rates: np.ndarray):
        n, depth, width, _ = W.shape
        groups = -(-n // LANES)
        self.shape, self.depth = (n, width, width), depth
        self.weights, self.target = np.zeros((groups, depth, width, width, LANES)), np.array(M, float, order="C")
        self.rates = np.zeros((groups, LANES))
        self.rates.reshape(-1)[:n] = rates
        self.write(W)
        self.advance = _descent(width)

    def record(self, products: np.ndarray) -> None:
        """As `loops.Loop.record`."""
        self.advance(self.weights, self.target, self.rates, len(products), products)

    def skip(self, count: int) -> bool:
        """As `loops.Loop.skip`."""
        total = self.advance(self.weights, self.target, self.rates, count, self.room(0))
        return bool(np.isfinite(total * self.copies))

    def room(self, count: int) -> np.ndarray:
        """As `loops.Loop.room`."""
        return np.empty((count,) + self.shape)

    def read(self) -> np.ndarray:
        """As `loops.Loop.read`."""
        n, width, _ = self.shape
        return np.moveaxis(self.weights, -1, 1).reshape(-1, self.depth, width, width)[:n].copy()

    def write(self, W: np.ndarray) -> None:
        """As `loops.Loop.write`."""
        for group, lanes in enumerate(np.split(W, range(LANES, len(W), LANES))):
            self.weights[group, ..., : len(lanes)] = np.moveaxis(lanes, 0, -1)

    def retire(self, runs: np.ndarray) -> None:
        """As `loops.Loop.retire`."""
        group, lane = np.divmod(np.flatnonzero(runs), LANES)
        self.weights[group, ..., lane], self.rates[group, lane] = 0, 0


@functools.cache
def _descent(width):
    """The loop over time for matrices of this width; returns a sum that is finite only if every loss is."""
    multiply = _product(width)

    @numba.njit(fastmath={"contract"})
    def subtract(a, rate, b):
        for i in range(width):
            for j in range(width):
                for lane in range(LANES):
                    a[i, j, lane] -= rate[lane] * b[i, j, lane]

    @numba.njit(fastmath={"contract"})
    def compare(product, M, residual, total):
        for i in range(width):
            for j in range(width):
                for lane in range(LANES):
                    residual[i, j, lane] = product[i, j, lane] - M[i, j]
                    total[lane] += residual[i, j, lane] * residual[i, j, lane]

    @numba.njit(fastmath={"contract"})
    def advance(W, M, rates, count, products):
        depth, total = W.shape[1], np.zeros(LANES)
        prefixes = np.empty((depth, width, width, LANES))
        residuals = np.empty((depth, width, width, LANES))
        gradient = np.empty((width, width, LANES))
        for group in range(len(W)):
            w, rate = W[group], rates[group]
            for t in range(count):
                prefixes[0] = w[0]
                for i in range(1, depth):
                    multiply(prefixes[i].ctypes.data, w[i].ctypes.data, prefixes[i - 1].ctypes.data, width, 1, width, 1)
                compare(prefixes[depth - 1], M, residuals[depth - 1], total)
                if t < len(products):
                    for lane in range(min(LANES, products.shape[1] - group * LANES)):
                        products[t, group * LANES + lane] = prefixes[depth - 1, :, :, lane]
                for i in range(depth - 1, 0, -1):
                    R = residuals[i].ctypes.data
                    multiply(gradient.ctypes.data, R, prefixes[i - 1].ctypes.data, width, 1, 1, width)
                    multiply(residuals[i - 1].ctypes.data, w[i].ctypes.data, R, 1, width, width, 1)
                    subtract(w[i], rate, gradient)
                subtract(w[0], rate, residuals[0])
        return total.sum()

    return advance


def _product(width):
    """Function ``(C, A, X, a_row, a_column, x_row, x_column)`` for C = A X; the strides say which is transposed."""

    @intrinsic
    def multiply(typing, C, A, X, a_row, a_column, x_row, x_column):
        def build(context, builder, signature, arguments):
            matrices = [builder.inttoptr(address, _VECTOR.as_pointer()) for address in arguments[:3]]
            for j, columns in _pieces(builder, width, _TILE[1]):
                for i, rows in _pieces(builder, width, _TILE[0]):
                    _tile(builder, width, matrices, arguments[3:], (i, rows), (j, columns))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 7), build

    return multiply


def _pieces(builder, width, most):
    """Loops over the first row (or column) of each tile: `width` in pieces of at most `most`, as even as possible."""
    count = -(-width // most)
    size = -(-width // count)
    full = width - count * (size - 1)  # so many pieces of this size, the others smaller by one
    for start, stop, step in ((0, full * size, size), (full * size, width, size - 1)):
        if stop > start:
            with cgutils.for_range_slice(builder, _whole(start), _whole(stop), _whole(step), inc=True) as (index, _):
                yield index, step


def _tile(builder, width, matrices, strides, first, columns):
    """The entries of C = A X in one tile, each the sum over k of A[i, k] X[k, j] in this order, held in a register."""
    (C, A, X), (a_row, a_column, x_row, x_column), (i, rows), (j, columns) = matrices, strides, first, columns
    cells = [(u, v) for u in range(rows) for v in range(columns)]
    sums = {cell: cgutils.alloca_once(builder, _VECTOR) for cell in cells}
    for place in sums.values():
        builder.store(ir.Constant(_VECTOR, [0.0] * LANES), place)

    def at(matrix, row, row_stride, column, column_stride):
        return builder.gep(matrix, [builder.add(builder.mul(row, row_stride), builder.mul(column, column_stride))])

    with cgutils.for_range(builder, _whole(width)) as loop:
        right = [
            builder.load(at(X, loop.index, x_row, builder.add(j, _whole(v)), x_column), align=8) for v in range(columns)
        ]
        for u in range(rows):
            left = builder.load(at(A, builder.add(i, _whole(u)), a_row, loop.index, a_column), align=8)
            for v in range(columns):
                term = builder.fmul(left, right[v], flags=("contract",))
                builder.store(builder.fadd(builder.load(sums[u, v]), term, flags=("contract",)), sums[u, v])
    for u, v in cells:
        target = at(C, builder.add(i, _whole(u)), _whole(width), builder.add(j, _whole(v)), _whole(1))
        builder.store(builder.load(sums[u, v]), target, align=8)


def _whole(number):
    return ir.Constant(_WHOLE, number)


def orbit(s, target, rate, depth, steps, states, diverged_at):
    """Iterate the one-mode map for arrays (n,); write the last states into `states` (keep, n), see `scalar.orbit`."""
    _orbit(depth)(s, target, rate, steps, states, diverged_at)


@functools.cache
def _orbit(depth):
    """The loop over time for this depth; where a run leaves the floating range, `diverged_at` says when."""
    iterate, block = _map(depth), _CHAINS * LANES

    @numba.njit
    def first_lost(s, target, rate, i, steps):
        for t in range(1, steps + 1):
            iterate(s.ctypes.data, target.ctypes.data, rate.ctypes.data, 1)
            if not np.isfinite(s[i]):
                return t
        return steps

    @numba.njit
    def run(s, target, rate, steps, states, diverged_at):
        first = steps + 1 - len(states)
        now, before, m, eta = np.zeros(block), np.zeros(block), np.zeros(block), np.zeros(block)
        for start in range(0, len(s), block):
            stop = min(start + block, len(s))
            count = stop - start
            now[:count], m[:count], eta[:count] = s[start:stop], target[start:stop], rate[start:stop]
            if first == 0:
                states[0, start:stop] = now[:count]
            t = 0
            while t < steps:
                before[:] = now
                # up to the first recorded state in one go, from there one by one
                some = min(_LOOK, max(first - t, 1), steps - t)
                iterate(now.ctypes.data, m.ctypes.data, eta.ctypes.data, some)
                if t + some >= first:
                    states[t + some - first, start:stop] = now[:count]
                for i in range(count):
                    if diverged_at[start + i] < 0 and not np.isfinite(now[i]):
                        diverged_at[start + i] = t + first_lost(before.copy(), m, eta, i, some)
                t += some

    return run


def _map(depth):
    """Function ``(s, target, rate, count)``: so many steps of the map for `_CHAINS` vectors, which stay in registers.

    The vectors are independent, and together they hide the latency of an operation.
    """

    @intrinsic
    def iterate(typing, s, target, rate, count):
        def build(context, builder, signature, arguments):
            places = [builder.inttoptr(address, _VECTOR.as_pointer()) for address in arguments[:3]]
            read = [
                [builder.load(builder.gep(place, [_whole(i)]), align=8) for place in places] for i in range(_CHAINS)
            ]
            states = [cgutils.alloca_once_value(builder, x) for x, _, _ in read]
            fuse = {"flags": ("contract",)}
            with cgutils.for_range(builder, arguments[3]):
                for state, (_, m, eta) in zip(states, read, strict=True):
                    x = builder.load(state)
                    lower = x
                    for _ in range(depth - 2):
                        lower = builder.fmul(lower, x)
                    gap = builder.fsub(m, builder.fmul(lower, x, **fuse), **fuse)
                    builder.store(builder.fadd(x, builder.fmul(builder.fmul(eta, lower), gap, **fuse), **fuse), state)
            for i, state in enumerate(states):
                builder.store(builder.load(state), builder.gep(places[0], [_whole(i)]), align=8)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 4), build

    return iterate
