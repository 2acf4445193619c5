"""The library's side of each row, by its public functions; what a version of it does not have yet is done the long way."""

from __future__ import annotations

import inspect

import numpy as np

from eoslib import alignment, descent, hessian, network, scalar


def takes(function, argument):
    """Whether a public function has this keyword."""
    return argument in inspect.signature(function).parameters


def compiled(function):
    """The keyword for a compiled loop, where the function has it and numba is there."""
    if not takes(function, "compiled"):
        return {}
    try:
        import numba  # noqa: F401
    except ImportError:
        return {}
    return {"compiled": True}


def reduction(function):
    """The keyword for the reduction to an invariant subspace, where the function has it."""
    return {"reduce": True} if takes(function, "reduce") else {}


def spectrum(W, M, k):
    """The k largest eigenvalues with their multiplicities of aligned networks, by a reduction, else by their closed form."""
    if hasattr(hessian, "spectrum_reduced"):
        values, multiplicities = hessian.spectrum_reduced(W, M)
        several = [np.repeat(v[:k], np.minimum(m[:k], k))[:k] for v, m in zip(values, multiplicities, strict=True)]
        return np.array(several)
    left, values, right = np.linalg.svd(M)
    inside = alignment.coordinates(W, left, right.T)
    if alignment.off_diagonal(inside).max() > 1e-9 * np.abs(inside).max():
        raise ValueError("W: got layers that are not aligned with M, needs those of an aligned start")
    rank = int((values > 1e-12 * values[0]).sum())
    return hessian.spectrum_aligned(np.diagonal(inside, axis1=-2, axis2=-1), values[:rank])[..., :k]


def orbit(target, depth, rates, start, steps, keep, *, fast=True):
    """The one-mode map for many rates: the last `keep` states (n, keep)."""
    if not hasattr(scalar, "orbit"):
        return _plain_orbit(target, depth, rates, start, steps, keep)
    options = compiled(scalar.orbit) if fast else {}
    return scalar.orbit(start, target, depth, rates, steps, keep=keep, **options).states


def _plain_orbit(target, depth, rates, start, steps, keep):
    s, kept = np.full(len(rates), float(start)), []
    for t in range(steps + 1):
        if t > steps - keep:
            kept.append(s)
        s = scalar.step(s, target, depth, rates)
    return np.stack(kept, axis=1)


def edge_states(width, count, *, values=(10.0, 9.0, 6.0), depth=3, rate=1.01, scale=0.01):
    """Target and `count` states in a row of a run whose largest singular value oscillates just beyond its edge."""
    rng = np.random.default_rng(0)
    M = network.target(values, width, rng=rng, symmetric=False).matrix
    W = network.initialise("unbalanced", depth=depth, width=width, scale=scale)
    eta = rate * 2 / scalar.sharpness_at_minimum(values[0], depth)
    steps = 1200
    run = descent.descend(W, M, eta, steps - count + 1, singular_values=False, keep=1)
    states = [run.weights]
    for _ in range(count - 1):
        states.append(states[-1] - eta * network.gradient(states[-1], M))
    return M, np.stack(states)
