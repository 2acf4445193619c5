r"""Recorded run: the bifurcation diagram of the paper's first figure, by full-matrix gradient descent.

A 5 x 5 target of rank 3 with singular values 10, 6, 3, three layers, the one-zero start with scale 0.01 (the paper gives
neither start nor scale for this figure), 1401 learning rates, 20 000 steps each, of which the last 48 are kept. Three
families: ``full`` (random singular vectors, float64), ``aligned`` (the same target made exactly diagonal, float64, which is
what exact arithmetic would do with the first), ``single`` (the first in float32; only when it diverged and how far
it rotated).

    python recorded/full_matrix_bifurcation.py          # about a minute; can be interrupted and started again

It is a sweep (`eoslib.sweep`) over families and learning rates, in blocks of rates: under ``joblib.parallel_config`` a
call of `main` is done by many processes, or by a cluster, and the numbers are the same. Every finished block is kept in
a folder of ``full_matrix_bifurcation.parts/`` until all are done; then they become one ``.npz`` file. `load` reads it,
`replay` computes columns again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eoslib import bifurcation, descent, network, recorded, sweep

RECORD = Path(__file__).resolve().with_suffix(".npz")
VALUES = (10.0, 6.0, 3.0)
WIDTH, DEPTH, SCALE, START = 5, 3, 0.01, "unbalanced"
SEED = 0  # of the singular vectors of the target
SPANS = ((1.9, 3.0, 1101), (3.005, 4.5, 300))  # first, last and number of learning rates, in units of 1/S
STEPS, KEEP = 20_000, 48
HEAD, HEAD_COLUMNS = (
    150,
    slice(0, None, 140),
)  # first steps kept for `replay`; the orbit is still leaving the saddle then
BLOCK = 150
ALWAYS = ("diverged_at", "rotation")
KEPT = {  # of each family
    "full": (*ALWAYS, "singular_values", "sharpness"),
    "aligned": (*ALWAYS, "mode", "others", "sharpness"),
    "single": ALWAYS,
}
FAMILIES = tuple(KEPT)
SETTINGS = {
    "values": VALUES,
    "width": WIDTH,
    "depth": DEPTH,
    "scale": SCALE,
    "start": START,
    "seed": SEED,
    "rates": SPANS,
    "steps": STEPS,
    "keep": KEEP,
    "head": HEAD,
    "families": FAMILIES,
}
READERS = ("load", "replay")


def rates_q() -> np.ndarray:
    """Learning rates in units of the inverse sharpness, q = eta S."""
    return np.concatenate([np.linspace(*span) for span in SPANS])


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
    return {
        "diverged_at": out["diverged_at"].astype(np.int32),
        "rotation": out["rotation"].astype(np.float32),
        "singular_values": out["singular_values"][..., : len(VALUES)].astype(np.float32),
        "mode": out["modes"][..., 0].astype(np.float32),
        "others": out["modes"][:, -2:, 1 : len(VALUES)].astype(np.float32),
        "sharpness": out["sharpness"].astype(np.float32),
    }


def heads() -> np.ndarray:
    """First singular value of the product over the first steps of every 140th run of the first family."""
    W, M, _ = problem("full")
    run = descent.descend(W, M, rates_q()[HEAD_COLUMNS] / sharpness_at_minimum(), HEAD)
    return run.singular_values[..., 0]


def load(path=RECORD) -> dict:
    """Read the record: arrays named ``<family>/<quantity>``, ``q``, ``head``, and the dictionary ``about``."""
    return recorded.load(path, settings=SETTINGS)


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
    grid = {"family": FAMILIES, "q": rates_q()}
    result = sweep.run(simulate, grid, batch="q", block=BLOCK, record=RECORD, settings=SETTINGS)
    if result.errors:
        raise RuntimeError(f"{len(result.errors)} runs failed: {result.errors[:3]}")
    arrays = {"q": grid["q"], "head": heads()}
    for family, names in KEPT.items():
        found = sweep.select(result, family=family).arrays
        arrays |= {f"{family}/{name}": found[name] for name in names}
    recorded.save(RECORD, SETTINGS, result.seconds, arrays)


if __name__ == "__main__":
    main()
