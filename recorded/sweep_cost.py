r"""Recorded run: what one step of one run costs, in processor time, for depths 2 to 8 and widths 5 to 100.

Gradient descent from the one-zero start with many learning rates at once, as `eoslib.sweep` would do it; of the states
only the last is recorded. The time is the best of three; it belongs to the processor that the record names.

    python recorded/sweep_cost.py          # about a minute; can be interrupted and started again

`load` reads the record, `replay` computes the losses of some of its cells again. Times are not replayed: they differ.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from eoslib import descent, network, recorded, scalar, sweep

RECORD = Path(__file__).resolve().with_suffix(".npz")
VALUES, SCALE, SEED = (10.0, 6.0, 3.0), 0.1, 0
DEPTHS = (2, 3, 4, 5, 6, 7, 8)
RATES = {5: 128, 10: 128, 20: 32, 50: 8, 100: 4}  # by width: narrow ones need many to be fast
SPAN = (1.5, 2.2)  # of the rates, in units of 1/S: before and beyond the edge
STEPS, REPEATS = 200, 3
SETTINGS = {
    "values": VALUES,
    "scale": SCALE,
    "seed": SEED,
    "depths": DEPTHS,
    "rates": [[width, count] for width, count in RATES.items()],
    "span": SPAN,
    "steps": STEPS,
    "repeats": REPEATS,
}
READERS = ("load", "replay")


def measure(depth: int, width: int, repeats: int = REPEATS) -> dict:
    """Processor seconds per run and step, and the mean final loss of the runs."""
    target = network.target(VALUES, width, rng=np.random.default_rng(SEED))
    start = network.initialise("unbalanced", depth=depth, width=width, scale=SCALE)
    rates = np.linspace(*SPAN, RATES[width]) / scalar.sharpness_at_minimum(VALUES[0], depth)
    seconds = []
    for _ in range(repeats):
        began = time.thread_time()
        run = descent.descend(start, target.matrix, rates, STEPS, keep=1, singular_values=False)
        seconds.append(time.thread_time() - began)
    return {"seconds": min(seconds) / (STEPS * len(rates)), "loss": run.loss[:, -1].mean()}


def load(path=RECORD) -> dict:
    """Read the record: ``depth``, ``width``, and ``seconds`` and ``loss``, both (depths, widths)."""
    return recorded.load(path, settings=SETTINGS)


def replay(record: dict, depths=(2, 8), widths=(5, 20)) -> float:
    """Largest relative difference between losses of the record and new ones."""
    worst = 0.0
    for depth, width in ((d, w) for d in depths for w in widths):
        old = record["loss"][DEPTHS.index(depth), list(RATES).index(width)]
        worst = max(worst, abs(float(measure(depth, width, repeats=1)["loss"] / old - 1)))
    return worst


def main() -> None:
    """Measure what has not been measured, then write the record."""
    result = sweep.run(measure, {"depth": DEPTHS, "width": list(RATES)}, record=RECORD, settings=SETTINGS, n_jobs=1)
    if result.errors:
        raise RuntimeError(f"{len(result.errors)} runs failed: {result.errors[:3]}")
    recorded.save(RECORD, SETTINGS, result.seconds, result.axes | result.arrays)


if __name__ == "__main__":
    main()
