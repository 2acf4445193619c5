r"""The loops over time: gradient descent `descend`, and gradient flow `flow`.

Descent is :math:`W_\ell \leftarrow W_\ell - \eta \nabla_\ell f(W)` for all layers at once (equation 2 of the paper).
"""

from __future__ import annotations

import functools
import importlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import DOP853, solve_ivp

from . import loops, network, reduction, validate

# A chunk of runs whose (n, d, d) arrays stay below this size keeps its temporaries in cache and off the page-fault path.
CHUNK_BYTES = 96 * 1024
# Products (or whole states) held back so that their singular values are taken in one batched call.
BLOCK_BYTES = 8 * 1024 * 1024
# Evaluations of the gradient after which `flow` gives up: a minute for small networks.
MOST_SLOPES = 1_000_000
# Most steps between two looks at whether a run diverges, where nothing is recorded.
MOST_STEPS = 4096


@dataclass(frozen=True)
class Run:
    """What `descend` returns. Batch axes (...) are those of the learning rates, then those of `W`; T states are recorded.

    From step ``diverged_at`` on, what was recorded of a run is ``inf``; ``weights`` is its last state
    with a finite loss, or the start where it has none.
    """

    weights: np.ndarray  # (..., L, d, d), the final state
    steps: np.ndarray  # (T,), which steps were recorded; 0 is the start
    loss: np.ndarray  # (..., T)
    singular_values: np.ndarray | None  # (..., T, d) of the end-to-end matrix, largest first
    diverged: np.ndarray  # (...), bool
    diverged_at: np.ndarray  # (...), int: first step whose loss is not finite, -1 where there is none
    learning_rate: np.ndarray  # (...)
    observed: dict = field(default_factory=dict)  # name -> (..., T, *shape)


def descend(
    W: np.ndarray,
    M: np.ndarray,
    learning_rate: ArrayLike,
    steps: int,
    *,
    keep: int | None = None,
    every: int = 1,
    observe: dict[str, Callable] | None = None,
    singular_values: bool = True,
    reduce: bool = False,
    compiled: bool = False,
    device: Any = None,
) -> Run:
    r"""Run gradient descent and record the loss and the singular values of the end-to-end matrix.

    Runs are independent: a batch gives bit for bit what its runs give one by one (on the CPU; a device may choose another
    algorithm for another number of runs). NumPy computes on one thread meanwhile (`loops.one_thread`). Neither numba nor
    torch is used unless asked for by `compiled` or `device`: with them results agree to rounding, and beyond
    :math:`2/\lambda_{12}`, where rounding between the modes grows, only in their statistics.

    Parameters
    ----------
    W : (..., L, d, d) array
        Starting weights, one network or a batch. The run has the wider of the dtypes of `W` and `M`; singular values of
        longdouble and object arrays are taken in float64.
    M : (d, d) array
        Target.
    learning_rate : float or array
        :math:`\eta > 0`. An array gives one run per rate, with its axes in front of the batch axes of `W`.
    steps : int
        Number of updates; states 0 to `steps` exist.
    keep : int, optional
        Record only the last `keep` states.
    every : int
        Record only states whose number is a multiple of `every`.
    observe : dict of str to callable, optional
        Further records. Each function gets weights of shape (k, n, L, d, d), for k states of n runs, and returns an
        array of shape (k, n, ...). (n counts the runs of one chunk.)
    singular_values : bool
        Pass ``False`` to leave them out; they are most of the cost for d >= 50.
    reduce : bool
        Run in the subspace that descent does not leave (`reduction.reduce`, which says from which starts): the same
        record of the full network, from a run of width r + 1 or 2r + 1 for a target of rank r. `observe` sees the full
        weights, expanded, of one start. The loss that decides on divergence is that of the full network: it counts each
        of the d - 2r equal singular values.
    compiled : bool
        Use the kernels of `eoslib.compiled` (numba, the extra ``fast``; float64 only), which are faster for batches, and
        the more so the smaller d is. They are compiled on first use, in about a second for each width.
    device : str or torch.device, optional
        Run on this device of torch, as ``"cuda"`` (float32 or float64; see `eoslib.cuda`).

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        On wrong shapes, entries that are not finite, rates that are not positive, or counts below their least value; if
        numba is missing for `compiled`, torch does not find `device`, or the start cannot be reduced.

    Examples
    --------
    One mode, L = 2, beyond the edge: the product settles on a two-cycle around 1.

    >>> run = descend(np.full((2, 1, 1), 0.9), np.eye(1), 1.1, 2000, keep=4)
    >>> run.singular_values.ravel().round(6).tolist()
    [1.245597, 0.663494, 1.245597, 0.663494]

    Two modes in width 100, L = 2, eta = 2.1 / S: the first cycles between 25/21 and 16/21.

    >>> W = np.stack([np.eye(100) / 2, np.zeros((100, 100))])
    >>> run = descend(W, np.diag(np.r_[1.0, 0.5, np.zeros(98)]), 1.05, 4000, keep=2, reduce=True)
    >>> run.singular_values[:, :3].round(4).tolist(), run.weights.shape
    ([[1.1905, 0.5, 0.0], [0.7619, 0.5, 0.0]], (2, 100, 100))
    """
    arguments = learning_rate, steps, keep, every, observe, singular_values
    if validate.flag("reduce", reduce):
        return _reduced(W, M, *arguments, compiled, device)
    return _run(*_plan(W, M, *arguments), compiled, device)


def _run(W, M, rates, plan, compiled, device):
    """`descend` with checked arguments."""
    batch, layers = W.shape[:-3], W.shape[-3:]
    shape = rates.shape + batch
    if 0 in shape:
        raise ValueError(f"learning_rate: got shape {rates.shape} with W of shape {W.shape}, needs at least one run")
    rates = np.broadcast_to(rates.reshape(rates.shape + (1,) * len(batch)), shape).reshape(-1)
    runs = np.broadcast_to(W, shape + layers).reshape((-1,) + layers)
    out = {"weights": np.empty(runs.shape, runs.dtype), "diverged_at": np.empty(len(runs), int)}
    make, chunk, block = _engine(validate.flag("compiled", compiled), device, runs, plan)
    for i in range(0, len(runs), chunk):
        part = slice(i, i + chunk)
        loop = make(runs[part], M, rates[part].astype(W.dtype))
        loop.copies = plan.copies
        with loops.one_thread(), np.errstate(over="ignore", invalid="ignore"):
            _chunk(loop, plan, block, part, out)
    out = {name: value.reshape(shape + value.shape[1:]) for name, value in out.items()}
    return Run(
        weights=out["weights"],
        steps=plan.recorded,
        loss=out["loss"],
        singular_values=out.get("singular_values"),
        diverged=out["diverged_at"] >= 0,
        diverged_at=out["diverged_at"],
        learning_rate=rates.reshape(shape).copy(),  # not the caller's array
        observed={name: out[f"observed {name}"] for name in plan.observe},
    )


def _reduced(W, M, learning_rate, steps, keep, every, observe, singular_values, compiled, device):
    """`descend` with ``reduce=True``: the small run, and what the full network would have recorded."""
    small = reduction.reduce(W, M)
    watch = validate.functions("observe", observe)
    if watch and small.frames.ndim > 3:
        raise ValueError("observe: got functions for a batch of starts with reduce=True, needs one start (L, d, d)")
    expanded = {name: functools.partial(_expanded, f, small) for name, f in watch.items()}
    alone = small.copies > 1 and not small.still  # the complement moves: its singular value occurs `copies` times
    if alone:
        name = "".join(watch) + "of the complement"  # longer than any of the caller's
        expanded[name] = lambda w: np.abs(np.prod(w[..., -1, -1], axis=-1))
    arguments = learning_rate, steps, keep, every, expanded, singular_values
    *start, plan = _plan(small.weights, small.target, *arguments)
    run = _run(*start, replace(plan, copies=small.copies), compiled, device)
    p = run.observed.pop(name) if alone else np.zeros(())
    values = run.singular_values
    if values is not None:
        more = np.broadcast_to(p[..., None], values.shape[:-1] + (len(M) - values.shape[-1],))
        more = np.where(np.isinf(run.loss)[..., None], np.inf, more)
        values = -np.sort(-np.concatenate([values, more], axis=-1), axis=-1)
    return replace(run, weights=small.expand(run.weights), singular_values=values)


class _Relative(DOP853):
    """The method of `flow`, whose absolute tolerance is relative to the largest weight of the moment."""

    def __init__(self, *arguments, share, **options):
        super().__init__(*arguments, **options)
        self.share = share

    def _step_impl(self):
        self.atol = self.share * (np.abs(self.y).max() or 1.0)
        return super()._step_impl()


def flow(
    W: np.ndarray, M: np.ndarray, times: ArrayLike, *, rtol: float = 1e-10, atol: float | None = None
) -> np.ndarray:
    r"""Gradient flow :math:`\dot W_\ell = -\nabla_\ell f(W)`, by SciPy's eighth-order Runge-Kutta method.

    Parameters
    ----------
    W : (L, d, d) array
        Start at time 0.
    M : (d, d) array
        Target.
    times : (T,) array_like
        Non-negative, increasing.
    rtol : float
        Tolerance of the integrator, per step, relative to each weight.
    atol : float, optional
        The same in units of the weights, which holds for those near zero. By default it is 1e-12 of the largest weight at
        that step, so that flow is the same in all units; weights far below the largest are known to that.

    Returns
    -------
    (T, L, d, d) ndarray

    Raises
    ------
    ValueError
        On wrong shapes or times, or a start that is lost beside the target, below 1e-289 of :math:`\max\lvert M\rvert^{1/L}`.
    RuntimeError
        If the integrator gives up, as where the weights leave the floating range, or after a million evaluations of the
        gradient: an explicit method takes about two for each unit of time times sharpness, also at rest.

    Examples
    --------
    The difference of squares of two layers is conserved:

    >>> a, b = flow(np.array([[[2.0]], [[1.0]]]), np.eye(1), [1.0])[0].ravel()
    >>> round(float(a**2 - b**2), 8)
    3.0
    """
    W, M = validate.weights(W, M, numpy_only=True)
    if W.dtype == object or M.dtype == object:
        raise ValueError("W, M: got an array of objects, needs a floating dtype")
    times = validate.cast("times", times, validate.positive("times", times, zero=True), float)
    rtol = validate.number("rtol", rtol, sign="> 0")
    atol = None if atol is None else validate.number("atol", atol, sign="> 0")
    if rtol < 2.5e-14:  # SciPy would replace it, with a warning
        raise ValueError(f"rtol: got {rtol}, needs at least 2.5e-14, a hundred roundings")
    if W.ndim != 3:
        raise ValueError(f"W: got shape {W.shape}, needs one network (L, d, d)")
    if times.ndim != 1 or times.size == 0 or np.any(np.diff(times) <= 0):
        raise ValueError(f"times: got {validate.short(times)}, needs a non-empty increasing list")

    start, M, depth = validate.double("W", W).ravel(), validate.double("M", M), len(W)
    # in units of 2^power, and times in those of the gradient, neither products nor squares leave the floating range
    power = int(np.frexp(max(np.abs(start).max(), np.abs(M).max() ** (1 / depth)))[1]) - 1
    with np.errstate(over="ignore", under="ignore"):
        w0, M = np.ldexp(start, -power), np.ldexp(M, -power * depth)
        clock, place = np.unique(np.ldexp(times, power * (2 * depth - 2)), return_inverse=True)
    if start.any() and not np.abs(w0).max() > 2.0**-960:
        raise ValueError("W: got weights that are lost beside the target, needs larger ones, or zero")
    calls = itertools.count(1)

    def slope(time, w):
        if next(calls) > MOST_SLOPES:
            time = np.ldexp(time, -power * (2 * depth - 2))
            raise RuntimeError(f"gradient flow stopped after time {time}: {MOST_SLOPES} evaluations of the gradient")
        parts = network.layers(w.reshape(W.shape))
        products = network.prefixes(parts)
        return -np.stack(network.sweep_back(parts, products, products[-1] - M)).ravel()

    if clock[-1] > 1e150:
        raise RuntimeError(f"gradient flow stopped before time {times[0]}: the last is 1e150 times that of the gradient")
    span = (0.0, float(clock[-1]) or 1.0)
    method = {"method": _Relative, "share": 1e-12, "atol": 1e-12 * (np.abs(w0).max() or 1.0)}
    if atol is not None:
        method = {"method": DOP853, "atol": float(np.ldexp(atol, -power))}
    with np.errstate(over="ignore", invalid="ignore"):
        solution = solve_ivp(slope, span, w0, t_eval=clock, rtol=rtol, **method)
    if not solution.success:  # before the first of the times there is nothing to say how far it came
        count = np.size(solution.t)
        reached = f" after time {times[np.flatnonzero(place == count - 1)[-1]]}" if count else f" before time {times[0]}"
        raise RuntimeError(f"gradient flow stopped{reached}: {solution.message}")
    if not np.isfinite(solution.y).all():
        raise ValueError(f"rtol, atol: got {rtol}, {atol}, with which the solution was lost; needs smaller ones")
    return np.ldexp(solution.y.T[place], power).reshape((-1,) + W.shape)


def _expanded(function, small, w):
    """A user's function on the full weights of reduced ones (k, n, L, ...), as many states at a time as fit a block."""
    k, n, depth = w.shape[:3]
    some = max(1, BLOCK_BYTES // (depth * small.frames.shape[-2] ** 2 * w.itemsize))
    pieces = np.split(w.reshape((1, -1) + w.shape[2:]), range(some, k * n, some), axis=1)
    values = [np.asarray(function(small.expand(piece))) for piece in pieces]
    if any(value.shape[:2] != piece.shape[:2] for value, piece in zip(values, pieces)):
        return values[0]  # refused where it is looked at
    values = np.concatenate(values, axis=1)
    return values.reshape((k, n) + values.shape[2:])


@dataclass(frozen=True)
class _Plan:
    """What a run records."""

    steps: int
    recorded: np.ndarray  # numbers of the recorded states
    observe: dict
    singular_values: bool
    copies: int = 1  # see `loops.Loop`


def _plan(W, M, learning_rate, steps, keep, every, observe, singular_values):
    """The arguments of `descend`, checked."""
    W, M = validate.weights(W, M, numpy_only=True)
    W = W.astype(np.result_type(W, M), copy=False)
    rates = validate.positive("learning_rate", learning_rate)
    validate.cast("learning_rate", learning_rate, rates, W.dtype)
    steps = validate.integer("steps", steps, least=0)
    every = validate.integer("every", every, least=1)
    first = 0 if keep is None else max(0, steps + 1 - validate.integer("keep", keep, least=1))
    validate.storable("steps", ((steps + 1 - first) // every,))
    recorded = np.arange(-(-first // every) * every, steps + 1, every)
    singular_values = validate.flag("singular_values", singular_values)
    if recorded.size == 0:
        raise ValueError(f"every: got {every}, but none of the states {first} to {steps} is a multiple of it")
    return W, M, rates, _Plan(steps, recorded, validate.functions("observe", observe), singular_values)


def _engine(compiled, device, runs, plan):
    """What makes a loop for some runs, how many runs it takes at a time, and how many steps between two looks at it."""
    make, chunk_bytes, block_bytes, least = loops.Loop, CHUNK_BYTES, BLOCK_BYTES, 1
    if compiled:
        module = _optional("compiled", compiled, "numba", runs.dtype, (np.float64,))
        make, chunk_bytes, least = module.Loop, module.CHUNK_BYTES, module.LANES
    if device is not None:
        if compiled:
            raise ValueError(f"device: got {validate.short(device)} and compiled=True, needs one or the other")
        module = _optional("device", device, "torch", runs.dtype, (np.float32, np.float64))
        make, chunk_bytes, block_bytes = module.on(device), module.CHUNK_BYTES, module.BLOCK_BYTES
    one = runs.shape[-1] ** 2 * runs.dtype.itemsize
    chunk = max(least, chunk_bytes // one)
    held = one * min(chunk, len(runs)) * (runs.shape[1] if plan.observe else 1)
    return make, chunk, min(int(np.clip(block_bytes // held, 1, 256)), plan.steps + 1)


def _optional(name, value, package, dtype, dtypes):
    """Import the module of a faster loop, which needs a package and a dtype."""
    if dtype not in dtypes:
        needs = " or ".join(np.dtype(wanted).name for wanted in dtypes)
        raise ValueError(f"{name}: got {validate.short(value)} for a run in {dtype}, needs {needs}")
    try:
        return importlib.import_module("eoslib." + {"numba": "compiled", "torch": "cuda"}[package])
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ValueError(f"{name}: got {validate.short(value)}, needs the package {package}: {error}") from None


def _chunk(loop, plan, block, runs, out):
    """Descend the runs of one chunk together, in blocks of steps, and put what is recorded of them into `out`."""
    before, at = loop.read(), 0  # a state to walk again from, and its number
    final, diverged_at = before.copy(), np.full(len(before), -1)
    products, room = loop.room(block), loop.room(block)
    start, careful, stride = 0, 0, block
    while start <= plan.steps:
        free = _free(plan, start)
        if start >= careful and free >= block:  # nothing to record for a while: only see that it stays finite
            count = min(free, stride)
            whole = loop.skip(count - 1)
            end = loop.read()
            if whole & loop.skip(1):
                before, at, start, stride = end, start + count - 1, start + count, min(2 * stride, MOST_STEPS)
                continue
            loop.write(before)  # some loss may have left the floating range: again, with a look at each
            loop.skip(start - at)
            careful, stride = start + count, block
        count = min(block, plan.steps + 1 - start)
        states = slice(*np.searchsorted(plan.recorded, (start, start + count)))
        chosen = plan.recorded[states] - start
        history, end = _walk(loop, products[:count], chosen if plan.observe else ())
        losses = loop.losses(products[:count], room[:count])
        failed = ~_finite(losses) & (diverged_at < 0)
        new = failed.any(axis=0)
        if new.any():
            diverged_at = np.where(new, start + failed.argmax(axis=0), diverged_at)
            _set_back(loop, before, at, final, np.where(new, diverged_at, -1))
            end[new] = 0
        dead = (diverged_at >= 0) & (start + chosen[:, None] >= diverged_at)
        for name, value in _record(loop, plan, products[:count], losses, history, chosen, dead):
            _put(out, name, runs, states, value, dead, plan.recorded.size)
        before, at, start = end, start + count - 1, start + count
    alive = diverged_at < 0
    final[alive] = before[alive]
    out["weights"][runs], out["diverged_at"][runs] = final, diverged_at


def _free(plan, start):
    """Number of states from `start` on that come before the next recorded one."""
    upcoming = np.searchsorted(plan.recorded, start)
    return (plan.recorded[upcoming] if upcoming < plan.recorded.size else plan.steps + 1) - start


def _record(loop, plan, products, losses, history, chosen, dead):
    """Names and values (k, n, ...) of what is recorded of the chosen states of a block."""
    if chosen.size:
        yield "loss", losses[chosen]
        if plan.singular_values:
            kept = products if chosen.size == len(products) else products[chosen]
            yield "singular_values", loop.singular_values(kept, dead)
        yield from _observe(plan.observe, history, dead).items()


def _walk(loop, products, chosen):
    """Advance through the states of a block; return those that are `chosen`, and the last one, before its update."""
    history, t, last = [], 0, len(products) - 1
    for stop in chosen:
        loop.record(products[t:stop])
        history.append(loop.read())
        t = stop
    loop.record(products[t:last])
    end = loop.read()
    loop.record(products[last:])
    return history, end


def _set_back(loop, before, at, final, diverged_at):
    """Put the last state with a finite loss of the runs that diverge (where not -1) into `final`; rest them at zero.

    Of a run that has none, `final` holds the start already.
    """
    now = loop.read()
    loop.write(before)
    for step in np.unique(diverged_at[diverged_at > 0]):
        loop.skip(step - 1 - at)
        final[diverged_at == step], at = loop.read()[diverged_at == step], step - 1
    loop.write(now)
    loop.retire(diverged_at >= 0)


def _observe(observe, history, dead):
    """Values of the user's functions on the recorded states; states past divergence are shown as zeros."""
    if not observe:
        return {}
    history = np.stack(history)
    history[dead] = 0
    values = {f"observed {name}": np.asarray(function(history)) for name, function in observe.items()}
    for name, value in values.items():
        if value.shape[:2] != history.shape[:2]:
            raise ValueError(
                f"observe: the function {name.removeprefix('observed ')!r} returned shape {value.shape} for weights of "
                f"shape {history.shape}, needs {history.shape[:2]} in front"
            )
    return values


def _put(out, name, runs, states, value, dead, count):
    """Write the values (k, n, ...) of k states of one chunk into their places in ``out[name]``."""
    value = np.where(dead.reshape(dead.shape + (1,) * (value.ndim - 2)), np.inf, value).swapaxes(0, 1)
    if name not in out:
        out[name] = np.empty((len(out["diverged_at"]), count) + value.shape[2:], value.dtype)
    if out[name].shape[2:] != value.shape[2:]:
        raise ValueError(f"observe: the function {name.removeprefix('observed ')!r} changed the shape of its values")
    out[name] = out[name].astype(np.result_type(out[name], value), copy=False)
    out[name][runs, states] = value


def _finite(values):
    return np.isfinite(values.astype(float) if values.dtype == object else values)
