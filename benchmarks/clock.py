"""Interleaved timing: A B C A B C ..., medians and quartiles; and the comparison of answers that goes before it.

Times are processor time of the whole process, all its threads, on the one core that it has: on an idle core that is the time on the
wall, and what else runs there is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Candidate:
    """One way to do a piece of work."""

    run: Callable[[], object]  # what is timed
    work: float  # units of work in one call: steps, evaluations, rates times steps
    answer: Callable[[object], np.ndarray]  # of what `run` returned: the numbers that all candidates must share
    tolerance: float = 1e-9  # of the answer, relative to the largest number in ours
    precision: str = "float64"
    note: str = ""  # what was timed instead of the whole, if it was
    part: Callable[[np.ndarray], np.ndarray] = field(default=lambda ours: ours)  # of our answer, what is compared


def error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference, relative to the largest number in `ours`; infinite where shapes or finiteness differ.

    Examples
    --------
    >>> error(np.array([4.0, 2.0]), np.array([4.0, 1.0]))
    0.25
    """
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    if ours.shape != theirs.shape or not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return float("inf")
    return float(np.abs(ours - theirs).max() / np.abs(ours).max())


def interleave(work: dict[str, Callable[[], object]], *, rounds: int, budget: float, slice_seconds: float = 0.01) -> dict:
    """Seconds per call of each function, one number a round, in rounds that call each of them once in turn.

    A function that is shorter than `slice_seconds` is called several times in a row. Rounds end when `budget` seconds are
    over, but not before the third. Each function must have been called before: warm-up and compilation are not timed.
    """
    repeats = {name: max(1, round(slice_seconds / max(_time(run, 1), 1e-7))) for name, run in work.items()}
    seconds: dict[str, list[float]] = {name: [] for name in work}
    began = time.process_time()
    for done in range(rounds):
        if done >= LEAST_ROUNDS and time.process_time() - began > budget:
            break
        for name, run in work.items():
            seconds[name].append(_time(run, repeats[name]))
    return {name: np.array(values) for name, values in seconds.items()}


def _time(run, repeats):
    began = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - began) / repeats


def summary(seconds: np.ndarray, work: float) -> dict:
    """Median and quartiles of the time per unit of work, and the number of rounds."""
    low, middle, high = np.quantile(seconds / work, (0.25, 0.5, 0.75))
    return {"seconds": float(middle), "low": float(low), "high": float(high), "rounds": int(seconds.size)}


def ratio(theirs: np.ndarray, ours: np.ndarray, their_work: float, our_work: float) -> dict:
    """How many times faster ours is per unit of work: ratio of medians, and quartiles of the ratios of single rounds.

    Examples
    --------
    Twice the time for half the work:

    >>> ratio(np.array([2.0, 2.0]), np.array([1.0, 1.0]), 1.0, 2.0)["ratio"]
    4.0
    """
    scale = our_work / their_work
    n = min(theirs.size, ours.size)
    low, high = np.quantile(theirs[:n] / ours[:n] * scale, (0.25, 0.75))
    return {"ratio": float(np.median(theirs) / np.median(ours) * scale), "ratio_low": float(low), "ratio_high": float(high)}


def compare(
    ours: Candidate,
    peers: dict[str, Callable[[], Candidate]],
    *,
    rounds: int,
    budget: float,
    beside: dict[str, Callable[[], object]] | None = None,
) -> dict:
    """Time `ours` beside the peers that are there and give the same answer.

    Parameters
    ----------
    ours : Candidate
    peers : dict of str to callable
        Each makes its Candidate, and raises ImportError if its package is not there.
    rounds, budget
        As `interleave`.
    beside : dict of str to callable, optional
        Other work to time in the same rounds, such as what a cost is counted in.

    Returns
    -------
    dict
        ``ours`` (median, quartiles), ``peers``: for each its status, time, ratio, and the error of its answer, and ``beside``.
    """
    answer = np.asarray(ours.answer(ours.run()), float)
    if not np.isfinite(answer).all():
        raise ValueError("ours: gave numbers that are not finite, needs work that can be compared")
    report, timed = {}, {"ours": ours}
    for name, make in peers.items():
        try:
            peer = make()
            found = error(peer.part(answer), peer.answer(peer.run()))
        except ImportError as reason:
            report[name] = {"status": "not installed", "reason": str(reason)}
            continue
        except Exception as reason:  # another version of a peer's package must not cost the other rows
            report[name] = {"status": "failed", "reason": f"{type(reason).__name__}: {reason}"[:300]}
            continue
        report[name] = {"error": found, "tolerance": peer.tolerance, "precision": peer.precision, "note": peer.note}
        report[name]["status"] = "measured" if found <= peer.tolerance else "disagrees"
        if found <= peer.tolerance:
            timed[name] = peer
    beside = beside or {}
    for run in beside.values():
        run()
    seconds = interleave({name: c.run for name, c in timed.items()} | beside, rounds=rounds, budget=budget)
    for name, peer in timed.items():
        if name != "ours":
            report[name] |= summary(seconds[name], peer.work)
            report[name] |= ratio(seconds[name], seconds["ours"], peer.work, ours.work)
    own = summary(seconds["ours"], ours.work) | {"note": ours.note}
    return {"ours": own, "peers": report, "beside": {name: summary(seconds[name], 1.0) for name in beside}}
