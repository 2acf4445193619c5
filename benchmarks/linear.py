"""Rows on gradient descent of deep linear networks: sweeps, the one-mode map, trajectories, single steps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from eoslib import descent, network, scalar

from . import ours
from .clock import Candidate, compare

DEPTH = 3
VALUES = (10.0, 6.0, 3.0)  # the target of the paper's bifurcation diagram
FLOAT32 = 5e-3  # rounding of 1e-7 a step, amplified while the modes leave the saddle


def scale(width):
    """Size of a start: layers of Gaussian numbers have a norm of about 0.6, whatever the width."""
    return 0.3 / width**0.5


def problem(width, start):
    """Target matrix and starting weights of a row; ``"gaussian"`` has no invariant subspace to reduce to."""
    M = network.target(VALUES, width, rng=np.random.default_rng(0), symmetric=False).matrix
    rng = np.random.default_rng(1)
    return network.initialise(start, depth=DEPTH, width=width, scale=scale(width), rng=rng), M


def edge_rate(factor):
    """A learning rate in units of 2 / S."""
    return factor * 2 / scalar.sharpness_at_minimum(VALUES[0], DEPTH)


def row(name, title, unit, settings, report, **measures):
    """A row of the result: what was done, times, peers, and measures beside the ratios."""
    found = {f"{name}/{peer}": _ratio(entry) for peer, entry in report["peers"].items() if "ratio" in entry}
    found |= {f"{name}/{key}": {"value": float(value)} for key, value in measures.items()}
    return {"id": name, "title": title, "unit": unit, "settings": settings, **report, "measures": found}


def _ratio(entry):
    return {"value": entry["ratio"], "low": entry["ratio_low"], "high": entry["ratio_high"]}


def sweeps(size: dict, limits: dict) -> Iterator[dict]:
    """Many learning rates at once, singular values of the last states; the whole matrices, and the reduction."""
    for width, (count, steps) in size["sweep"].items():
        yield _sweep(width, count, steps, "gaussian", size)
    width, (count, steps) = next(iter(size["sweep"].items()))
    yield _sweep(width, count, steps, "unbalanced", size)


def _sweep(width, count, steps, start, size):
    W, M = problem(width, start)
    rates = np.linspace(edge_rate(0.6), edge_rate(1.2), count)
    keep, some = max(1, steps // 50), count // 2  # rates below the edge, where answers are not amplified rounding
    calm = slice(0, some)

    def authors():
        from . import authors

        few = [int(i) for i in np.linspace(0, some - 1, 2)]
        return Candidate(
            lambda: np.stack([authors.train(W, M, rates[i], steps)[2] for i in few]),
            len(few) * steps,
            lambda last: last,
            FLOAT32,
            "float32",
            f"{len(few)} of {count} rates, in proportion",
            lambda answer: answer[few, -1],
        )

    def functional():
        from . import others

        return Candidate(lambda: others.sweep(W, M, rates, steps, keep), count * steps, lambda s: s[calm], 1e-8)

    def in_jax(autodiff):
        from . import in_jax

        return Candidate(
            in_jax.sweep(W, M, rates, steps, keep, autodiff=autodiff), count * steps, lambda s: s[calm], 1e-8
        )

    peers = {"the authors": authors, "torch.func": functional, "JAX, closed form": lambda: in_jax(False)}
    if width == 5:
        peers["JAX, vmap(grad)"] = lambda: in_jax(True)
    def candidate(**options):
        run = lambda: descent.descend(W, M, rates, steps, keep=keep, **options)  # noqa: E731
        return Candidate(run, count * steps, lambda run: run.singular_values[calm], note=", ".join(options))

    fast = ours.compiled(descent.descend) | (ours.reduction(descent.descend) if start == "unbalanced" else {})
    mine = candidate(**fast)
    if fast:
        peers["plain NumPy"] = candidate
    settings = {"d": width, "L": DEPTH, "rates": count, "steps": steps, "recorded": keep, "start": start}
    report = compare(mine, peers, rounds=size["rounds"], budget=size["budget"])
    name, how = (f"sweep-{width}", "whole matrices") if start == "gaussian" else (f"sweep-{width}-aligned", "aligned start")
    return row(name, f"Sweep over learning rates, d = {width}, {how}", "rate and step", settings, report)


def one_mode(size: dict, limits: dict) -> Iterator[dict]:
    """The one-mode map for many rates: compiled where the library can, and its plain NumPy path."""
    count, steps = size["one mode"]
    target, keep = VALUES[0], 8
    rates, start = np.linspace(edge_rate(0.6), edge_rate(1.2), count), 1.0
    for depth in (3, 5):
        scaled = rates * scalar.sharpness_at_minimum(target, 3) / scalar.sharpness_at_minimum(target, depth)
        yield _one_mode(target, depth, scaled, start, steps, keep, size, limits)


def _one_mode(target, depth, rates, start, steps, keep, size, limits):
    count = len(rates)
    calm = slice(0, int(0.6 * count))

    def authors():
        from . import authors

        few, short = [0, count // 4], 100
        return Candidate(
            lambda: np.array([authors.one_mode(target, depth, rates[i], start, short)[-1] for i in few]),
            len(few) * short,
            lambda ends: ends,
            note=f"{len(few)} of {count} rates and {short} of {steps} steps, in proportion",
            part=lambda answer: np.array([_orbit(target, depth, rates[i], start, short) for i in few]),
        )

    def in_jax():
        from . import in_jax

        run = in_jax.one_mode(target, depth, rates, start, steps, keep)
        return Candidate(run, count * steps, lambda orbit: orbit[calm])

    def plain():
        run = lambda: ours.orbit(target, depth, rates, start, steps, keep, fast=False)  # noqa: E731
        return Candidate(run, count * steps, lambda orbit: orbit[calm], note="the library's own path without compilation")

    mine = Candidate(
        lambda: ours.orbit(target, depth, rates, start, steps, keep), count * steps, lambda orbit: orbit[calm]
    )
    peers = {"the authors": authors, "JAX, scan": in_jax, "plain NumPy": plain}
    report = compare(mine, peers, rounds=size["rounds"], budget=size["budget"])
    limit = (depth + 1) / limits["issue"]["rate"]
    measures = {"share of the issue limit": limit / report["ours"]["seconds"]}
    if "seconds" in report["peers"]["plain NumPy"]:
        measures["plain NumPy, seconds"] = report["peers"]["plain NumPy"]["seconds"] * 1e9
    settings = {"L": depth, "rates": count, "steps": steps, "recorded": keep, "start": start}
    return row(f"one-mode-{depth}", f"One-mode map, L = {depth}", "rate and step", settings, report, **measures)


def _orbit(target, depth, rate, start, steps):
    for _ in range(steps):
        start = scalar.step(start, target, depth, rate)
    return start


def trajectories(size: dict, limits: dict) -> Iterator[dict]:
    """One run, loss and all singular values at each step; the whole matrices, and at the largest width the reduction."""
    for width, steps in size["trajectory"].items():
        yield _trajectory(width, steps, "gaussian", size)
    yield _trajectory(width, steps, "unbalanced", size)


def _trajectory(width, steps, start, size):
    W, M = problem(width, start)
    rate = edge_rate(0.95)
    aligned = start == "unbalanced"
    reduced = ours.reduction(descent.descend) if aligned else {}
    own = 10 * steps if aligned else steps  # what a reduction costs once is seen as in a run of ordinary length

    def authors():
        from . import authors

        run = lambda: authors.train(W, M, rate, steps)  # noqa: E731
        losses = lambda answer: answer[1:, 0]  # noqa: E731
        return Candidate(run, steps, lambda out: out[0], FLOAT32, "float32", "layers' values instead of the product's", losses)

    def notebook():
        from . import authors

        run = lambda: authors.train_in_a_notebook(W, M, rate, steps)  # noqa: E731
        return Candidate(run, steps, lambda out: np.column_stack(out), FLOAT32, "float32")

    def in_jax():
        from . import in_jax

        return Candidate(in_jax.trajectory(W, M, rate, steps), steps, lambda out: np.column_stack(out), 1e-8)

    peers = {"the authors": authors, "the authors' notebook": notebook, "JAX, scan and svd": in_jax}
    mine = Candidate(
        lambda: descent.descend(W, M, rate, own, **reduced),
        own,
        lambda run: np.column_stack((run.loss, run.singular_values))[: steps + 1],
        note=", ".join(reduced),
    )
    report = compare(mine, peers, rounds=size["rounds"], budget=size["budget"])
    settings = {"d": width, "L": DEPTH, "steps": own, "steps of peers": steps, "start": start}
    name, how = (f"trajectory-{width}", "") if start == "gaussian" else (f"trajectory-{width}-aligned", ", aligned start")
    return row(name, f"Trajectory with all singular values, d = {width}{how}", "step", settings, report)


def steps(size: dict, limits: dict) -> Iterator[dict]:
    """The gradient step alone, as a share of the fastest matrix product of this core."""
    for width, count in size["step"].items():
        W, M = problem(width, "gaussian")
        rate, steps = edge_rate(0.95), count

        def in_jax(W=W, M=M, rate=rate, steps=steps):
            from . import in_jax

            run = in_jax.sweep(W, M, np.array([rate]), steps, 1)
            return Candidate(run, steps, lambda s: s[0, -1], 1e-8)

        mine = Candidate(
            lambda W=W, M=M, rate=rate, steps=steps: descent.descend(W, M, rate, steps, singular_values=False),
            steps,
            lambda run: np.linalg.svd(network.product(run.weights), compute_uv=False),
        )
        report = compare(mine, {"JAX, closed form": in_jax}, rounds=size["rounds"], budget=size["budget"])
        flops = 6 * (DEPTH - 1) * width**3
        rate_of_ours = flops / report["ours"]["seconds"]
        measures = {
            "share of the peak": rate_of_ours / max(limits["gemm"].values()),
            "share of products of this size": rate_of_ours / limits["gemm"][str(width)],
        }
        settings = {"d": width, "L": DEPTH, "steps": steps, "flops": flops}
        yield row(f"step-{width}", f"Gradient step and loss, d = {width}", "step", settings, report, **measures)
