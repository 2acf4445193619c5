"""What the numbers were measured on, and how fast that machine can be: products of matrices, and vector instructions."""

from __future__ import annotations

import os
import platform
import time
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from eoslib import recorded

from . import clock

PACKAGES = ("numpy", "scipy", "torch", "jax", "jaxlib", "numba", "curvlinops-for-pytorch", "pyhessian", "threadpoolctl")
SIZES = (5, 10, 20, 50, 100)
LARGE = 1000  # a size at which the product runs at its peak
BLOCK, CHAINS = 2048, (8, 10, 12)  # numbers in the inner loop, multiply-adds on each: loads and stores hardly count then


def facts(core: int | None) -> dict:
    """Machine, versions, threads and load, as the record keeps them."""
    variables = ("OPENBLAS_CORETYPE", "MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY", "XLA_FLAGS")
    return {
        "processor": recorded._processor() or platform.machine(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "core": core,
        "versions": {"python": platform.python_version()} | {name: found for name in PACKAGES if (found := _version(name))},
        "threads": threads(),
        "environment": {name: os.environ[name] for name in variables if name in os.environ},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def threads() -> dict:
    """Threads of each numerical library that is loaded."""
    try:
        import_module("threadpoolctl")
    except ImportError:
        return {name: os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    return recorded._threads()


def load() -> float:
    """Processes that want to run, averaged over the last minute; NaN where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else float("nan")


def _version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def limits(*, rounds: int, budget: float) -> dict:
    """Rates of this core: `gemm` in flop/s by size, and `issue`, multiply-adds per second on vectors of float64."""
    rng = np.random.default_rng(0)
    work = {}
    for n in (*SIZES, LARGE):
        a, b, out = rng.standard_normal((n, n)), rng.standard_normal((n, n)), np.empty((n, n))
        work[str(n)] = lambda a=a, b=b, out=out: np.dot(a, b, out=out)
    for run in work.values():
        run()
    seconds = clock.interleave(work, rounds=rounds, budget=budget)
    gemm = {n: 2 * int(n) ** 3 / float(np.median(s)) for n, s in seconds.items()}
    return {"gemm": gemm, "issue": _issue(rounds, budget / 2, gemm)}


def _issue(rounds, budget, gemm):
    """Multiply-adds per second: of a compiled chain of them or of the fastest product, whichever shows more."""
    try:
        runs = {count: _chain(count) for count in CHAINS}
    except ImportError:
        return {"rate": max(gemm.values()) / 2, "how": "estimated: half the flop rate of a large matrix product; numba is absent"}
    state, passes = np.linspace(0.5, 1.0, BLOCK), 2000
    work = {count: lambda run=run: run(state, 0.999, 0.0005, passes) for count, run in runs.items()}
    for run in work.values():
        run()
    seconds = clock.interleave(work, rounds=rounds, budget=budget)
    rates = {count: passes * BLOCK * count / float(np.median(s)) for count, s in seconds.items()}
    best, product = max(rates, key=rates.get), max(gemm.values()) / 2
    if product > rates[best]:  # a compiler that prefers narrower vectors than the processor has
        return {"rate": product, "how": "half the flop rate of the fastest matrix product, which exceeds every compiled chain"}
    how = f"measured: {best} dependent multiply-adds on each of {BLOCK} numbers, compiled by numba, the fastest of {CHAINS}"
    return {"rate": rates[best], "how": how}


def _chain(count):
    """A function that does `count` multiply-adds on each number of a vector, `passes` times."""
    from numba import njit

    lines = "\n".join("            x = x * a + b" for _ in range(count))
    space: dict = {}
    source = f"def chain(v, a, b, passes):\n    for _ in range(passes):\n        for i in range(v.size):\n            x = v[i]\n{lines}\n"
    exec(source + "            v[i] = x\n", space)  # straight-line code: a loop of fixed length is not unrolled reliably
    return njit(fastmath={"contract"})(space["chain"])  # fused, and nothing reordered or folded
