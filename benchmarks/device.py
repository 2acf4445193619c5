"""The sweep on a CUDA device through the library's own path, where both are there."""

from __future__ import annotations

import time

import numpy as np

from eoslib import descent

from . import ours
from .clock import error, summary
from .linear import DEPTH, edge_rate, problem


def cuda(size: dict) -> dict:
    """Sweeps on the device beside the same on one core: ``status`` and rows, or why nothing was measured."""
    try:
        import torch
    except ImportError:
        return {"status": "not measured", "reason": "torch is not installed"}
    if not torch.cuda.is_available():
        return {"status": "not measured", "reason": "no CUDA device"}
    if not ours.takes(descent.descend, "device"):
        return {"status": "not measured", "reason": "descent.descend has no device argument"}
    rows = [sweep(width, *amount, size["rounds"], "cuda") for width, amount in size["cuda"].items()]
    return {"status": "measured", "device": torch.cuda.get_device_name(), "rows": rows}


def sweep(width: int, count: int, steps: int, rounds: int, device: str) -> dict:
    """One sweep on `device` and on a core, in turn, by the wall clock; `error` of the singular values below the edge."""
    import torch

    W, M = problem(width, "gaussian")
    rates, keep = np.linspace(edge_rate(0.6), edge_rate(1.2), count), max(1, steps // 50)

    def run(**options):
        found = descent.descend(W, M, rates, steps, keep=keep, **options)
        if device == "cuda":
            torch.cuda.synchronize()
        return found.singular_values[: count // 2]

    options: dict[str, dict] = {"core": {}, "device": {"device": device}}
    answers = {name: run(**option) for name, option in options.items()}
    seconds: dict[str, list[float]] = {name: [] for name in options}
    for _ in range(max(3, rounds // 2)):
        for name, option in options.items():
            began = time.perf_counter()
            run(**option)
            seconds[name].append(time.perf_counter() - began)
    report = {name: summary(np.array(values), count * steps) for name, values in seconds.items()}
    report["ratio"] = report["core"]["seconds"] / report["device"]["seconds"]
    settings = {"d": width, "L": DEPTH, "rates": count, "steps": steps, "start": "gaussian"}
    return report | {"id": f"cuda-sweep-{width}", "settings": settings, "error": error(*answers.values())}
