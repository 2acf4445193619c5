r"""The loops over time: gradient descent `descend`, and gradient flow `flow`.

Descent is :math:`W_\ell \leftarrow W_\ell - \eta \nabla_\ell f(W)` for all layers at once (equation 2 of the paper).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp

from . import network, validate

# A chunk of runs whose (n, d, d) arrays stay below this size keeps its temporaries in cache and off the page-fault path.
CHUNK_BYTES = 96 * 1024
# Products (or whole states) held back so that their singular values are taken in one batched call.
BLOCK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Run:
    """What `descend` returns. Batch axes (...) are those of the learning rates, then those of `W`; T states are recorded.

    From step ``diverged_at`` on, what was recorded of a run is ``inf``; ``weights`` is its last state with a finite loss.
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
) -> Run:
    r"""Run gradient descent and record the loss and the singular values of the end-to-end matrix.

    Runs are independent: a batch gives bit for bit what its runs give one by one.

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

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        On wrong shapes, entries that are not finite, rates that are not positive, or counts below their least value.

    Examples
    --------
    One mode, L = 2, beyond the edge: the product settles on a two-cycle around 1.

    >>> run = descend(np.full((2, 1, 1), 0.9), np.eye(1), 1.1, 2000, keep=4)
    >>> run.singular_values.ravel().round(6).tolist()
    [1.245597, 0.663494, 1.245597, 0.663494]
    """
    W, M = validate.weights(W, M, numpy_only=True)
    W = W.astype(np.result_type(W, M), copy=False)
    rates = validate.positive("learning_rate", learning_rate)
    if np.any(rates.astype(W.dtype) == 0):
        raise ValueError(f"learning_rate: got {learning_rate!r}, which is zero in {W.dtype}, the dtype of the run")
    steps = validate.integer("steps", steps, least=0)
    every = validate.integer("every", every, least=1)
    first = 0 if keep is None else max(0, steps + 1 - validate.integer("keep", keep, least=1))
    validate.storable("steps", ((steps + 1 - first) // every,))
    recorded = np.arange(-(-first // every) * every, steps + 1, every)

    singular_values = validate.flag("singular_values", singular_values)
    if observe is not None and not (isinstance(observe, dict) and all(callable(f) for f in observe.values())):
        raise ValueError(f"observe: got {validate.short(observe)}, needs a dict of functions")
    if recorded.size == 0:
        raise ValueError(f"every: got {every}, but none of the states {first} to {steps} is a multiple of it")

    batch = W.shape[:-3]
    shape = rates.shape + batch
    if 0 in shape:
        raise ValueError(f"learning_rate: got shape {rates.shape} with W of shape {W.shape}, needs at least one run")
    rates_flat = np.broadcast_to(rates.reshape(rates.shape + (1,) * len(batch)), shape).reshape(-1)
    runs_flat = np.broadcast_to(W, shape + W.shape[-3:]).reshape((-1,) + W.shape[-3:])
    chunk = max(1, CHUNK_BYTES // (W.shape[-1] ** 2 * W.dtype.itemsize))
    parts = [
        _chunk(runs_flat[i : i + chunk], M, rates_flat[i : i + chunk], steps, recorded, observe or {}, singular_values)
        for i in range(0, len(rates_flat), chunk)
    ]

    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    joined = {key: a.reshape(shape + a.shape[1:]) for key, a in joined.items()}
    return Run(
        weights=joined.pop("weights"),
        steps=recorded,
        loss=joined.pop("loss"),
        singular_values=joined.pop("singular_values", None),
        diverged=joined["diverged_at"] >= 0,
        diverged_at=joined.pop("diverged_at"),
        learning_rate=rates_flat.reshape(shape),
        observed={name: joined[f"observed {name}"] for name in observe or {}},
    )


def flow(W: np.ndarray, M: np.ndarray, times: ArrayLike, *, rtol: float = 1e-10, atol: float = 1e-12) -> np.ndarray:
    r"""Gradient flow :math:`\dot W_\ell = -\nabla_\ell f(W)`, by SciPy's eighth-order Runge-Kutta method.

    Parameters
    ----------
    W : (L, d, d) array
        Start at time 0.
    M : (d, d) array
        Target.
    times : (T,) array_like
        Non-negative, increasing.
    rtol, atol : float
        Tolerances of the integrator, per step.

    Returns
    -------
    (T, L, d, d) ndarray

    Raises
    ------
    ValueError
        On wrong shapes or times.
    RuntimeError
        If the integrator gives up, as where the weights leave the floating range.

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
    times = validate.positive("times", times, zero=True)
    rtol, atol = (validate.number(name, value, sign="> 0") for name, value in (("rtol", rtol), ("atol", atol)))
    if rtol < 2.5e-14:  # SciPy would replace it, with a warning
        raise ValueError(f"rtol: got {rtol}, needs at least 2.5e-14, a hundred roundings")
    if W.ndim != 3:
        raise ValueError(f"W: got shape {W.shape}, needs one network (L, d, d)")
    if times.ndim != 1 or times.size == 0 or np.any(np.diff(times) <= 0):
        raise ValueError(f"times: got {validate.short(times)}, needs a non-empty increasing list")

    def slope(_, w):
        parts = network.layers(w.reshape(W.shape))
        products = network.prefixes(parts)
        return -np.stack(network.sweep_back(parts, products, products[-1] - M)).ravel()

    span = (0.0, float(times[-1]) or 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        solution = solve_ivp(
            slope, span, W.ravel().astype(float), method="DOP853", t_eval=times.astype(float), rtol=rtol, atol=atol
        )
    if not solution.success:  # before the first of the times there is nothing to say how far it came
        reached = f" after time {solution.t[-1]}" if np.size(solution.t) else f" before time {times[0]}"
        raise RuntimeError(f"gradient flow stopped{reached}: {solution.message}")
    if not np.isfinite(solution.y).all():
        raise ValueError(f"rtol, atol: got {rtol}, {atol}, with which the solution was lost; needs smaller ones")
    return solution.y.T.reshape((-1,) + W.shape)


def _advance(parts, M, rates):
    """One update of a list of layers; returns the new layers and the product and residual of the old ones."""
    products = network.prefixes(parts)
    residual = products[-1] - M
    gradients = network.sweep_back(parts, products, residual)
    return [w - rates * g for w, g in zip(parts, gradients)], products[-1], residual


def _chunk(W, M, rates, steps, recorded, observe, singular_values):
    """Descend a few runs W (n, L, d, d) together, in blocks of steps; see `descend`."""
    n, depth, width, _ = W.shape
    rates = rates.astype(W.dtype)
    parts = [np.ascontiguousarray(part) for part in network.layers(W)]
    single = n == 1  # two-dimensional products skip the overhead of a batch and give the same bits
    parts = [part[0] for part in parts] if single else parts
    held = width**2 * n * W.dtype.itemsize * (depth if observe else 1)
    block = int(np.clip(BLOCK_BYTES // held, 1, 256))
    wanted = np.zeros(steps + 1, bool)
    wanted[recorded] = True
    diverged_at = np.full(n, -1)
    out = {}

    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, steps + 1, block):
            stop = min(start + block, steps + 1)
            before, states, products, losses = parts, [], [], []
            for t in range(start, stop):
                after, P, R = _advance(parts, M, rates[0] if single else rates[:, None, None])
                losses.append((R * R).sum((-2, -1)) / 2)
                if wanted[t]:
                    products.append(P)
                    states.append(parts if observe else None)
                parts = after if t < steps else parts
            losses = np.stack(losses).reshape(stop - start, n)
            failed = ~_finite(losses)
            if failed.any():
                parts, rates = _stop_diverged(diverged_at, failed, before, parts, M, rates, start)
            if products:
                chosen = np.flatnonzero(wanted[start:stop])
                dead = (diverged_at >= 0) & (start + chosen[:, None] >= diverged_at)
                record = {"loss": losses[chosen]}
                if singular_values:
                    record["singular_values"] = _singular_values(np.stack(products).reshape(-1, n, width, width), dead)
                record |= _observe(observe, states, dead, (-1, n, depth, width, width))
                for key, value in record.items():
                    mask = dead.reshape(dead.shape + (1,) * (value.ndim - 2))
                    out.setdefault(key, []).append(np.where(mask, np.inf, value).swapaxes(0, 1))

    stacked = np.stack(parts, axis=-3)
    joined = {key: np.concatenate(blocks, axis=1) for key, blocks in out.items()}
    return joined | {"weights": stacked[None] if single else stacked, "diverged_at": diverged_at}


def _stop_diverged(diverged_at, failed, before, parts, M, rates, start):
    """Set runs that failed in this block back to their last finite state, and their rate to zero."""
    single = parts[0].ndim == 2
    parts, rates = [part.copy() for part in parts], rates.copy()
    for i in np.flatnonzero(failed.any(axis=0) & (diverged_at < 0)):
        count = int(np.argmax(failed[:, i]))
        diverged_at[i] = start + count
        state = before if single else [part[i] for part in before]
        for _ in range(count - 1):
            state, _, _ = _advance(state, M, rates[i])
        for part, layer in zip(parts, state):
            part[... if single else i] = layer
        rates[i] = 0
    return parts, rates


def _singular_values(products, dead):
    """Singular values of (k, n, d, d) products, in float64 where LAPACK has no routine for the dtype."""
    P = products if products.dtype in (np.float32, np.float64) else products.astype(float)
    return np.linalg.svd(np.where(dead[..., None, None], 0, P), compute_uv=False)


def _observe(observe, states, dead, shape):
    """Values of the user's functions on the recorded states; states past divergence are shown as zeros."""
    if not observe:
        return {}
    history = np.stack([np.stack(parts, axis=-3) for parts in states]).reshape(shape)
    history = np.where(dead[..., None, None, None], 0, history)
    values = {f"observed {name}": np.asarray(function(history)) for name, function in observe.items()}
    for name, value in values.items():
        if value.shape[:2] != history.shape[:2]:
            raise ValueError(
                f"observe: the function {name.removeprefix('observed ')!r} returned shape {value.shape} for weights of "
                f"shape {history.shape}, needs {history.shape[:2]} in front"
            )
    return values


def _finite(values):
    return np.isfinite(values.astype(float) if values.dtype == object else values)
