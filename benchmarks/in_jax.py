"""As JAX's users work: closed forms and ``lax.scan`` under ``jit``, ``vmap(grad)``, ``jax.hessian``; float64, on the processor.

A function of data returns a function without arguments, compiled once, so that compilation is not timed.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)


def _loss(W, M):
    out = W[0]
    for i in range(1, W.shape[0]):
        out = W[i] @ out
    return 0.5 * ((out - M) ** 2).sum()


def _closed_form(W, M):
    """Gradient, loss and product of layers (L, d, d): one sweep forward, one back."""
    products = [W[0]]
    for i in range(1, W.shape[0]):
        products.append(W[i] @ products[-1])
    back = residual = products[-1] - M
    gradient = [back] * W.shape[0]
    for i in range(W.shape[0] - 1, 0, -1):
        gradient[i] = back @ products[i - 1].T
        back = W[i].T @ back
    gradient[0] = back
    return jnp.stack(gradient), 0.5 * (residual**2).sum(), products[-1]


def sweep(W, M, rates, steps, keep, *, autodiff=False):
    """A sweep over rates; the function returns singular values (n, keep, d) of the last states."""
    W, M, rates = jnp.asarray(W), jnp.asarray(M), jnp.asarray(rates)

    def one(rate):
        def step(state, _):
            gradient = jax.grad(_loss)(state, M) if autodiff else _closed_form(state, M)[0]
            return state - rate * gradient, None

        def recorded(state, _):
            gradient, _, product = _closed_form(state, M)
            return state - rate * gradient, product

        state, _ = jax.lax.scan(step, W, None, length=steps + 1 - keep)
        return jax.lax.scan(recorded, state, None, length=keep)[1]

    program = jax.jit(jax.vmap(one))
    return lambda: np.linalg.svd(np.asarray(program(rates).block_until_ready()), compute_uv=False)


def trajectory(W, M, rate, steps):
    """One trajectory; the function returns losses and all singular values at each step."""
    W, M = jnp.asarray(W), jnp.asarray(M)

    def step(state, _):
        gradient, loss, product = _closed_form(state, M)
        return state - rate * gradient, (loss, jnp.linalg.svd(product, compute_uv=False))

    program = jax.jit(lambda state: jax.lax.scan(step, state, None, length=steps + 1)[1])
    return lambda: tuple(np.asarray(a) for a in jax.block_until_ready(program(W)))


def one_mode(target, depth, rates, start, steps, keep):
    """The one-mode map for many rates; the function returns the last states (n, keep)."""
    rates, begin = jnp.asarray(rates), jnp.full(len(rates), float(start))

    def step(s, _):
        lower = s ** (depth - 1)
        new = s + rates * (target - lower * s) * lower
        return new, None

    def recorded(s, _):
        return step(s, None)[0], s

    def run(s):
        s, _ = jax.lax.scan(step, s, None, length=steps + 1 - keep)
        return jax.lax.scan(recorded, s, None, length=keep)[1]

    program = jax.jit(run)
    return lambda: np.asarray(program(begin).block_until_ready()).T


def full_hessian(W, M):
    """``jax.hessian`` under ``jit``, as a matrix."""
    W, M = jnp.asarray(W), jnp.asarray(M)
    program = jax.jit(lambda w: jax.hessian(_loss)(w, M).reshape(w.size, w.size))
    return lambda: np.asarray(program(W).block_until_ready())
