"""How time grows with width, depth, rates and steps, and what a sweep holds in memory over its result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np

from eoslib import descent, network

from . import clock
from .linear import DEPTH, VALUES, edge_rate, problem, scale


def exponent(x: np.ndarray, seconds: np.ndarray) -> float:
    """Slope of log(seconds) over log(x), by least squares.

    Examples
    --------
    >>> round(exponent(np.array([1.0, 2.0, 4.0]), np.array([3.0, 12.0, 48.0])), 12)
    2.0
    """
    return float(np.polyfit(np.log(x), np.log(seconds), 1)[0])


def curves(size: dict) -> list[dict]:
    """Times of the library by width, depth, number of rates and number of steps, each with its exponent and range."""
    return [_widths(size, False), _widths(size, True), _depths(size), _rates(size), _steps(size)]


def _curve(name, title, symbol, x, work, size, per=1.0):
    """Time each call of `work` in interleaved rounds; `x` is what grows."""
    for run in work:
        run()
    seconds = clock.interleave(dict(enumerate(work)), rounds=size["rounds"], budget=size["budget"])
    medians = [float(np.median(seconds[i]) / per) for i in range(len(work))]
    return {
        "id": name,
        "title": title,
        "symbol": symbol,
        "x": [int(v) for v in x],
        "seconds": medians,
        "exponent": exponent(np.array(x, float), np.array(medians)),
    }


def _widths(size, values):
    widths, steps, work = size["growth"]["d"], size["growth"]["steps at d"], []
    for width in widths:
        W, M = problem(width, "gaussian")
        work.append(lambda W=W, M=M: descent.descend(W, M, edge_rate(0.95), steps, singular_values=values))
    name, what = ("d-values", "a step with all singular values") if values else ("d", "a step")
    return _curve(f"growth-{name}", f"{what}, L = {DEPTH}", "d", widths, work, size, per=steps)


def _depths(size):
    depths, width, steps, work = size["growth"]["L"], 50, size["growth"]["steps at d"], []
    M = network.target(VALUES, width, rng=np.random.default_rng(0), symmetric=False).matrix
    for depth in depths:
        W = network.initialise("gaussian", depth=depth, width=width, scale=scale(width), rng=np.random.default_rng(1))
        work.append(lambda W=W: descent.descend(W, M, 1e-3, steps, singular_values=False))
    x = [depth - 1 for depth in depths]
    return _curve("growth-L", f"a step, d = {width}", "L - 1", x, work, size, per=steps)


def _rates(size):
    counts, steps = size["growth"]["rates"], size["growth"]["steps at rates"]
    W, M = problem(5, "gaussian")
    work = [
        lambda n=n: descent.descend(W, M, np.linspace(edge_rate(0.6), edge_rate(1.2), n), steps, keep=4) for n in counts
    ]
    return _curve("growth-rates", f"a sweep of {steps} steps, d = 5", "rates", counts, work, size)


def _steps(size):
    W, M = problem(5, "gaussian")
    rates = np.linspace(edge_rate(0.6), edge_rate(1.2), 64)
    counts = size["growth"]["steps"]
    work = [lambda n=n: descent.descend(W, M, rates, n, keep=4) for n in counts]
    return _curve("growth-steps", f"a sweep of {len(rates)} rates, d = 5", "steps", counts, work, size)


def memory(size: dict) -> dict:
    """Peak memory of a sweep over its result, in bytes, each measured in a process of its own.

    ``resident`` is the rise of the peak of resident memory, ``traced`` that of what Python and NumPy allocated.
    """
    found = {}
    for how in ("resident", "traced"):
        command = [sys.executable, "-m", "benchmarks.growth", how, json.dumps(size["memory"])]
        root = Path(__file__).resolve().parent.parent
        place = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=os.environ | {"PYTHONPATH": place})
        if done.returncode:
            raise RuntimeError(f"memory: the child process ended with {done.returncode}: {done.stderr[-500:]}")
        found[how] = json.loads(done.stdout)
    count, steps, keep = size["memory"]
    return found | {"settings": {"d": 5, "L": DEPTH, "rates": count, "steps": steps, "recorded": keep}}


def _sweep_alone(how, count, steps, keep):
    """One sweep in this process; bytes over its result."""
    W, M = problem(5, "gaussian")
    rates = np.linspace(edge_rate(0.6), edge_rate(1.2), count)
    descent.descend(W, M, rates[:64], 8)  # what the first call loads and compiles is no part of a sweep
    if how == "traced":
        tracemalloc.start()
        run = descent.descend(W, M, rates, steps, keep=keep)
        peak = tracemalloc.get_traced_memory()[1]
    else:
        before = _resident(reset=True)
        run = descent.descend(W, M, rates, steps, keep=keep)
        peak = _resident() - before
    result = sum(a.nbytes for a in vars(run).values() if isinstance(a, np.ndarray))
    return {"peak": peak, "result": result, "over": peak - result}


def _resident(reset=False):
    """Peak of resident memory in bytes; with `reset` the peak starts anew where the system can do that."""
    if reset:
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            pass
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    print(json.dumps(_sweep_alone(sys.argv[1], *json.loads(sys.argv[2]))))
