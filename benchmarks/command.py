"""Command line: measure, or compare a result with the recorded one.

    python -m benchmarks [--quick] [--out FOLDER] [--remark TEXT]     # writes FOLDER/latest.json
    python -m benchmarks check [--result FILE] [--record FILE]        # fails if a ratio fell
    python -m benchmarks adopt [--result FILE] [--device FILE]        # makes a result the recorded one; the device's rows
                                                                      # may come from a result of another machine
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from pathlib import Path

from . import curvature, device, growth, linear, machine, result

FULL = {
    "rounds": 7,
    "budget": 5.0,  # seconds of a row after warm-up, if three rounds fit
    "sweep": {5: (2000, 250), 10: (1000, 100), 20: (300, 100), 50: (60, 60)},  # width: rates, steps
    "one mode": (10_000, 20_000),
    "trajectory": {5: 600, 10: 600, 20: 500, 50: 250, 100: 100},  # width: steps
    "step": {50: 600, 100: 200},
    "sharpness": (5, 10, 20, 50),
    "states": 128,
    "ten largest": (50, 100),
    "dense": (5, 10),
    "network": {"small": (1000, 64, 64, 100, 350), "middle": (1000, 100, 200, 40, 200)},  # samples, widths, steps
    "growth": {
        "d": (40, 56, 80, 112, 160),
        "steps at d": 40,
        "L": (2, 3, 5, 9, 17),
        "rates": (64, 128, 256, 512, 1024, 2048),
        "steps at rates": 100,
        "steps": (250, 500, 1000, 2000, 4000),
    },
    "memory": (2000, 1000, 200),  # rates, steps, recorded
    "cuda": {5: (2000, 500), 50: (200, 200), 100: (64, 100)},
}
QUICK = FULL | {
    "rounds": 3,
    "budget": 1.0,
    "sweep": {5: (2000, 100), 10: (500, 50), 20: (100, 50)},
    "one mode": (10_000, 1_000),
    "trajectory": {5: 300, 10: 300, 20: 200, 50: 80, 100: 30},
    "step": {50: 300, 100: 100},
    "sharpness": (5, 10, 20),
    "states": 64,
    "network": {"small": (1000, 64, 64, 100, 350)},
    "growth": FULL["growth"] | {"steps at d": 10, "rates": (64, 256, 1024), "steps": (250, 500, 1000), "L": (2, 3, 5, 9)},
    "memory": (2000, 400, 200),
    "cuda": {5: (2000, 200)},
}
GROUPS = (
    linear.sweeps,
    linear.one_mode,
    linear.trajectories,
    linear.steps,
    curvature.sharpness,
    curvature.largest,
    curvature.dense,
    curvature.networks,
)


def measure(size: dict, *, quick: bool, core: int | None, say=print) -> dict:
    """Everything, in about five minutes, or one with ``quick``."""
    began, cpu, load = time.perf_counter(), time.process_time(), machine.load()
    _one_thread()
    limits = machine.limits(rounds=size["rounds"], budget=size["budget"])
    rows = []
    for group in GROUPS:
        try:
            for row in group(size, limits):
                rows.append(row)
                say(f"{time.perf_counter() - began:5.0f} s  {_line(row)}", flush=True)
        except ImportError as reason:  # rows on torch networks need torch on our side too
            say(f"{group.__name__}: left out, {reason}", flush=True)
    curves = growth.curves(size)
    for curve in curves:
        say(f"{time.perf_counter() - began:5.0f} s  {curve['id']}: exponent {curve['exponent']:.2f}", flush=True)
    share = (time.process_time() - cpu) / (time.perf_counter() - began)
    memory = growth.memory(size)
    about = machine.facts(core) | {
        "load": [load, machine.load()],
        "quick": quick,
        "share of the core": round(share, 3),  # the rest went to other processes
        "seconds": round(time.perf_counter() - began, 1),
    }
    return {
        "format": result.FORMAT,
        "about": about,
        "limits": limits,
        "rows": rows,
        "growth": curves,
        "memory": memory,
        "cuda": device.cuda(size),
    }


def _one_thread():
    """The variables are enough for what is loaded from now on; what was loaded already is told here."""
    with contextlib.suppress(ImportError):
        from threadpoolctl import threadpool_limits

        threadpool_limits(1)
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(1)


def _line(row):
    peers = [
        f"{name} {entry['ratio']:.3g}x" if entry["status"] == "measured" else f"{name} {entry['status']}"
        for name, entry in row["peers"].items()
    ]
    return f"{row['id']}: {row['ours']['seconds'] * 1e6:.3g} us; {', '.join(peers)}"


def report(found: dict, say=print) -> None:
    """The targets, one a line."""
    for entry in result.judge(found):
        target, value = entry["target"], entry["value"]
        verdict = {True: "met", False: "NOT MET", None: "not measured"}[entry["met"]]
        shown = "-" if value is None else f"{value:.3g}"
        say(f"{verdict:13s} {target.measure:45s} {shown:>9s}  {'>=' if target.least else '<='} {target.bound:.3g}")


def main(arguments=None, core: int | None = None) -> int:
    """Run the command line on `core`, where the process is pinned to one; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("command", nargs="?", choices=("run", "check", "adopt"), default="run")
    parser.add_argument("--quick", action="store_true", help="a minute, fewer rounds and sizes")
    parser.add_argument("--rounds", type=int, help="at most so many rounds and about as many seconds for each row")
    parser.add_argument("--out", type=Path, default=result.FOLDER, help="folder for latest.json")
    parser.add_argument("--remark", default="", help="a sentence that the record carries")
    parser.add_argument("--result", type=Path, default=result.FOLDER / "latest.json")
    parser.add_argument("--device", type=Path, help="with adopt: a result whose device rows are taken")
    parser.add_argument("--record", type=Path, default=result.RECORD)
    parser.add_argument("--factor", type=float, default=result.FACTOR)
    options = parser.parse_args(arguments)
    if options.rounds is not None and options.rounds < 3:
        parser.error(f"--rounds: got {options.rounds}, needs at least 3, so that there are quartiles")
    if options.command == "run":
        size = QUICK if options.quick else FULL
        size |= {"rounds": options.rounds, "budget": options.rounds} if options.rounds else {}
        found = measure(size, quick=options.quick, core=core)
        found["about"]["remark"] = options.remark
        result.write(options.out / "latest.json", found)
        report(found)
        return 0
    if options.command == "adopt":
        found = json.loads(options.result.read_text(encoding="utf8"))  # it may come from another machine, alone
        if found["about"]["quick"]:
            parser.error(f"--result: {options.result} is a quick one, needs a full one")
        if options.device:
            other = json.loads(options.device.read_text(encoding="utf8"))
            if other["cuda"]["status"] != "measured":
                parser.error(f"--device: {options.device} has no device rows")
            found["cuda"] = other["cuda"] | {"about": other["about"]}
        result.write(options.record, found)
        return 0
    wrong = result.regressions(result.read(options.result, listed=False), result.read(options.record), options.factor)
    for line in wrong:
        print(line)
    print(f"{len(wrong)} regressions beyond a factor {options.factor:g}")
    return 1 if wrong else 0
