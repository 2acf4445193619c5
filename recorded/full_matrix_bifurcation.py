r"""Recorded run: the bifurcation diagram of the paper's first figure, by full-matrix gradient descent.

A 5 x 5 target of rank 3 with singular values 10, 6, 3, three layers, the one-zero start with scale 0.01 (the paper gives
neither start nor scale for this figure), 1401 learning rates, 20 000 steps each, of which the last 48 are kept. Three
families: ``full`` (random singular vectors, float64), ``aligned`` (the same target made exactly diagonal, float64, which is
what exact arithmetic would do with the first), ``single`` (the first in float32, the paper's own precision; only when it diverged
and how far it rotated).

    python recorded/full_matrix_bifurcation.py          # about a minute; can be interrupted and started again

Every finished block is kept in ``full_matrix_bifurcation.parts/`` until all are done; then they become one ``.npz`` file.
`load` reads it, `replay` computes columns again.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from eoslib import bifurcation, descent, network

HERE = Path(__file__).resolve().parent
RECORD = HERE / "full_matrix_bifurcation.npz"
PARTS = HERE / "full_matrix_bifurcation.parts"

VALUES = (10.0, 6.0, 3.0)
WIDTH, DEPTH, SCALE, START = 5, 3, 0.01, "unbalanced"
SEED = 0  # of the singular vectors of the target
STEPS, KEEP = 20_000, 48
HEAD, HEAD_COLUMNS = 150, slice(0, None, 140)  # first steps kept for `replay`; the orbit is still leaving the saddle then
BLOCK = 150
FAMILIES = ("full", "aligned", "single")


def rates_q() -> np.ndarray:
    """Learning rates in units of the inverse sharpness, q = eta S."""
    return np.concatenate([np.linspace(1.9, 3.0, 1101), np.linspace(3.005, 4.5, 300)])


def sharpness_at_minimum() -> float:
    """S = L sigma_1^(2 - 2/L), of the balanced minimum, for the loss with its factor one half."""
    return DEPTH * VALUES[0] ** (2 - 2 / DEPTH)


def problem(family: str):
    """Start, target and the target's singular bases of one family."""
    dtype = np.float32 if family == "single" else np.float64
    if family == "aligned":
        t = network.target(VALUES, WIDTH, diagonal=True)
    else:
        t = network.target(VALUES, WIDTH, rng=np.random.default_rng(SEED))
    W = network.initialise(START, depth=DEPTH, width=WIDTH, scale=SCALE, dtype=dtype)
    return W, t.matrix.astype(dtype), (t.left, t.right)


def simulate(family: str, q) -> dict:
    """Last states of the runs of one family at the given rates: `bifurcation.network_scan`, thinned."""
    W, M, basis = problem(family)
    rates = (np.asarray(q) / sharpness_at_minimum()).astype(W.dtype)
    out = bifurcation.network_scan(W, M, rates, STEPS, KEEP, basis=basis)
    kept = {"diverged_at": out["diverged_at"].astype(np.int32), "rotation": out["rotation"].astype(np.float32)}
    if family == "full":
        kept["singular_values"] = out["singular_values"][..., : len(VALUES)].astype(np.float32)
    if family == "aligned":
        kept["mode"] = out["modes"][..., 0].astype(np.float32)
        kept["others"] = out["modes"][:, -2:, 1 : len(VALUES)].astype(np.float32)
    if family != "single":
        kept["sharpness"] = out["sharpness"].astype(np.float32)
    return kept


def heads() -> np.ndarray:
    """First singular value of the product over the first steps of every 140th run of the first family."""
    W, M, _ = problem("full")
    run = descent.descend(W, M, rates_q()[HEAD_COLUMNS] / sharpness_at_minimum(), HEAD)
    return run.singular_values[..., 0]


def load(path=RECORD) -> dict:
    """Read the record: arrays named ``<family>/<quantity>``, ``q``, ``head``, and the dictionary ``about``."""
    with np.load(path, allow_pickle=False) as file:
        record = {name: file[name] for name in file.files}
    record["about"] = json.loads(str(record["about"]))
    return record


def replay(record: dict, columns) -> dict:
    """Largest relative differences between the record and a new computation.

    ``head`` compares the first steps of the runs kept for it; ``columns`` the final states of the named columns of the first two
    families, which should be ones with a stable periodic orbit: elsewhere rounding decides the iterates.
    """
    worst = 0.0
    for family, names in (("full", ("singular_values", "sharpness")), ("aligned", ("mode", "sharpness"))):
        again = simulate(family, record["q"][columns])
        for name in names:
            old = record[f"{family}/{name}"][columns]
            worst = max(worst, float(np.max(np.abs(again[name] - old) / np.maximum(np.abs(old), 1.0))))
    return {"head": float(np.max(np.abs(heads()[:, 1:] / record["head"][:, 1:] - 1))), "columns": worst}


def main() -> None:
    """Do the blocks that have not been done, then write the record."""
    PARTS.mkdir(exist_ok=True)
    q = rates_q()
    todo = [(family, i) for family in FAMILIES for i in range(0, len(q), BLOCK)]
    for number, (family, i) in enumerate(todo):
        _progress(number, len(todo), family)
        path = PARTS / f"{family}-{i:05d}.npz"
        if not path.exists():
            began = time.process_time()
            result = simulate(family, q[i : i + BLOCK])
            _write(path, seconds=time.process_time() - began, **result)
    _progress(len(todo), len(todo), "done")
    _join(q, todo)


def _join(q, todo) -> None:
    blocks, seconds = {}, 0.0
    for family, i in todo:
        with np.load(PARTS / f"{family}-{i:05d}.npz") as part:
            seconds += float(part["seconds"])
            for name in part.files:
                if name != "seconds":
                    blocks.setdefault(f"{family}/{name}", []).append(part[name])
    note = {
        "settings": {"values": VALUES, "width": WIDTH, "depth": DEPTH, "scale": SCALE, "start": START, "seed": SEED}
        | {"steps": STEPS, "keep": KEEP, "rates": len(q)},
        "versions": {"python": platform.python_version(), "numpy": version("numpy")},
        "machine": platform.machine(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu_seconds": round(seconds, 1),
    }
    arrays = {name: np.concatenate(parts) for name, parts in blocks.items()}
    _write(RECORD, q=q, head=heads(), about=json.dumps(note), **arrays)
    for family, i in todo:
        (PARTS / f"{family}-{i:05d}.npz").unlink()
    PARTS.rmdir()


def _write(path: Path, **arrays) -> None:
    """Write an .npz file so that it is either there whole or not at all."""
    scratch = path.with_suffix(".tmp.npz")
    np.savez_compressed(scratch, **arrays)
    os.replace(scratch, path)


def _progress(done: int, total: int, label: str) -> None:
    bar = "#" * (30 * done // total)
    print(f"\r[{bar:<30}] {done}/{total} {label:<10}", end="\n" if done == total else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
