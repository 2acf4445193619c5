r"""Recorded run: when do the singular vectors of a three-layer network start to move, and what sets the clock?

From the paper's one-zero start the products of an exactly diagonal target stay diagonal for ever. With a target that
has been rotated and rounded, the (1, 2) entry of the product *in the exact singular basis of the rounded target* starts
at rounding level. This script follows that entry through full-matrix gradient descent in float32, float64, the 80-bit
extended format, and mpmath with 30 and 50 digits, and in three controls: an exactly diagonal target, a rate below the
transverse threshold, and a diagonal target with an explicit perturbation of known size in one entry. (In the last, the
off-diagonal entries carry their own relative precision, so that float64 follows a perturbation of 1e-50 faithfully.)

    python recorded/rounding_seeded_onset.py            # about one minute; can be interrupted and started again
    python recorded/rounding_seeded_onset.py --list     # what would be run

Every finished run is kept in a folder of ``rounding_seeded_onset.parts/`` until all are done; then they become one ``.npz`` file.
`load` reads it, `replay` computes the first steps of one run again.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import mpmath
import numpy as np

from eoslib import network, recorded

RECORD = Path(__file__).resolve().with_suffix(".npz")
DEPTH = 3
THRESHOLD = 1e-2  # amplitude that counts as onset; the first singular value is 10
AFTER = 800  # steps followed after onset
EVERY = 20  # steps between records; even, so that all lie in the same phase of a two-cycle
LEAST_DECADES = 1.5  # a growth rate is fitted only to a stretch at least this long
REFERENCE_DIGITS = 80  # of the random rotation, and of every measurement
DIGITS = {"float32": 7.2, "float64": 16.0, "longdouble": 19.3, "mp30": 30.0, "mp50": 50.0}
READERS = ("Record", "load", "replay")


@dataclass(frozen=True)
class Setting:
    """One run. `perturbation` is added to entry (1, 2) of the first layer; it is used with diagonal targets only."""

    family: str  # "small", "paper", "figure-18", "diagonal", "diagonal-wide" or "seeded"
    precision: str  # a key of DIGITS
    q: float  # learning rate times L s_1^(2 - 2/L)
    seed: int  # of the rotation; -1 for a diagonal target
    values: tuple = (10, 9, 6)
    width: int = 3
    scale: float = 0.01
    perturbation: float = 0.0
    steps: int = 60_000  # at most

    @property
    def key(self) -> str:
        """Name of the run: unique, and a file name."""
        start = f"-delta{self.perturbation:g}" if self.perturbation else ""
        return f"{self.family}-{self.precision}-q{self.q:g}-seed{self.seed}{start}"


def settings() -> list[Setting]:
    """All runs of the record, in order."""
    runs = []
    for q, precision in [(q, p) for q in (2.16, 2.2, 2.25, 2.28) for p in DIGITS]:
        seeds = 5 if not precision.startswith("mp") else 2 if q > 2.16 else 1
        runs += [Setting("small", precision, q, seed) for seed in range(seeds)]
    runs += [Setting("small", p, 2.1, 0, steps=6000) for p in DIGITS]
    for q, p in [(q, p) for q in (2.1, 2.2, 2.28, 2.3) for p in ("float32", "float64")]:
        cap = 6000 if q < 2.14 else 60_000
        runs += [Setting("paper", p, q, seed, width=50, steps=cap) for seed in range(2)]
        runs += [Setting("figure-18", p, q, 0, values=(10, 9, 8), width=50, scale=0.1, steps=cap)]
    for q, p in [(q, p) for q in (2.2, 2.28) for p in ("float32", "float64")]:
        runs += [Setting("diagonal", p, q, -1, steps=20_000)]
    runs += [Setting("diagonal-wide", "float64", 2.28, -1, width=50, steps=20_000)]
    for q, delta in [(q, d) for q in (2.1, 2.2, 2.25, 2.28) for d in (1e-6, 1e-12, 1e-18, 1e-24, 1e-30, 1e-50)]:
        runs += [Setting("seeded", "float64", q, -1, perturbation=delta, steps=6000 if q < 2.14 else 60_000)]
    return runs


def note() -> dict:
    """Everything that determines the record."""
    common = {"depth": DEPTH, "threshold": THRESHOLD, "after": AFTER, "every": EVERY, "decades": LEAST_DECADES}
    return common | {"runs": [vars(setting) for setting in settings()]}


def learning_rate(setting: Setting) -> mpmath.mpf:
    """The rate q / (L s_1^(2 - 2/L)), with all reference digits."""
    exponent = mpmath.mpf(2) - mpmath.mpf(2) / DEPTH
    return mpmath.mpf(str(setting.q)) / (DEPTH * mpmath.mpf(setting.values[0]) ** exponent)


def to_precision(matrix, precision: str):
    """Round an array of mpmath numbers (object dtype) to a precision."""
    if precision.startswith("mp"):
        with mpmath.workdps(int(DIGITS[precision])):
            return np.vectorize(lambda x: +x, otypes=[object])(matrix)
    if precision == "longdouble":
        text = np.vectorize(lambda x: mpmath.nstr(x, 25), otypes=[object])(matrix)
        return np.array([np.longdouble(x) for x in text.ravel()]).reshape(text.shape)
    return matrix.astype(float).astype(precision)


def to_reference(array):
    """The exact value of a floating-point or mpmath array, as mpmath numbers (object dtype)."""

    def exact(x):
        if isinstance(x, mpmath.mpf):
            return x
        high = float(x)
        return mpmath.mpf(high) + mpmath.mpf(float(x - type(x)(high)))

    return np.vectorize(exact, otypes=[object])(array)


def make_target(setting: Setting):
    """Target in the run's precision, and the two singular bases of that rounded target: ``(M, U, V)``.

    For width 3 the bases carry 80 digits; for larger widths they are LAPACK's, in float64.
    """
    d = setting.width
    if setting.seed < 0:
        exact = np.array([[mpmath.mpf(0)] * d for _ in range(d)], dtype=object)
        exact[range(len(setting.values)), range(len(setting.values))] = [mpmath.mpf(x) for x in setting.values]
        identity = np.eye(d)
        return to_precision(exact, setting.precision), identity, identity
    rng = np.random.default_rng(setting.seed)
    if d > 3:
        M = network.target(setting.values, d, rng=rng).matrix.astype(setting.precision)
        U, _, Vt = np.linalg.svd(M.astype(float))
        return M, U, Vt.T
    with mpmath.workdps(REFERENCE_DIGITS):
        U, V = (_orthogonal(rng, d) for _ in range(2))
        M = to_precision((U * np.array(setting.values, dtype=object)) @ V.T, setting.precision)
        u, _, vt = mpmath.svd_r(mpmath.matrix(to_reference(M).tolist()))
        return M, _object(u), _object(vt).T


def simulate(setting: Setting, *, limit: int | None = None):
    """Descend and measure; returns a dictionary of arrays.

    Parameters
    ----------
    setting : Setting
    limit : int, optional
        Stop after this many steps (for `replay`).
    Returns
    -------
    dict
        ``step`` (T,), ``log10_amplitude`` (T,) of the norm of entries (1, 2), (2, 1) of ``U.T @ product @ V`` and
        ``diagonal`` (T, 3), the absolute values of its first three diagonal entries; ``diverged``, whether the run
        stopped because a number overflowed.
    """
    M, U, V = make_target(setting)
    context = mpmath.workdps(int(DIGITS[setting.precision]) if setting.precision.startswith("mp") else REFERENCE_DIGITS)
    with context, np.errstate(over="ignore", invalid="ignore"):
        W, rate = _start(setting)
        steps, amplitudes, diagonals, onset, diverged = [], [], [], None, False
        for t in range((limit if limit is not None else setting.steps) + 1):
            products = network.prefixes(W)
            if t % EVERY == 0:
                amplitude, diagonal = _measure(products[-1], U, V)
                if not all(map(math.isfinite, diagonal)):
                    diverged = True
                    break
                steps.append(t), amplitudes.append(amplitude), diagonals.append(diagonal)
                onset = t if onset is None and amplitude > math.log10(THRESHOLD) else onset
                if onset is not None and t >= onset + AFTER:
                    break
            gradients = network.sweep_back(W, products, products[-1] - M)
            W = [w - rate * g for w, g in zip(W, gradients)]
    curves = {"step": np.array(steps), "log10_amplitude": np.array(amplitudes), "diagonal": np.array(diagonals)}
    return curves | {"diverged": diverged}


def fit(setting: Setting, step, log10_amplitude) -> dict:
    """Onset step and growth rate per step of a curve made by `simulate`.

    Onset is where the curve first crosses `THRESHOLD`, interpolated in the logarithm; ``nan`` if it never does. The
    rate is the least-squares slope of the natural logarithm over the last stretch below a tenth of the threshold and
    above 1000 units of rounding (a tenth of the seeded size, for a seeded run), once the three modes have settled;
    ``nan`` where that stretch is shorter than `LEAST_DECADES`, as in float32.
    """
    above = np.flatnonzero(log10_amplitude > math.log10(THRESHOLD))
    if above.size == 0 or above[0] == 0:
        return {"onset": math.nan, "rate": math.nan}
    i = above[0]
    low, high = log10_amplitude[i - 1], log10_amplitude[i]
    onset = step[i - 1] + (step[i] - step[i - 1]) * (math.log10(THRESHOLD) - low) / (high - low)
    floor = math.log10(setting.perturbation) - 1 if setting.perturbation else 3.0 - DIGITS[setting.precision]
    settled = 100 + 5 / setting.scale
    outside = np.flatnonzero((log10_amplitude[:i] <= floor) | (step[:i] <= settled))
    window = np.arange(outside[-1] + 1 if outside.size else 0, i)
    window = window[log10_amplitude[window] < math.log10(THRESHOLD) - 1]
    if window.size < 6 or log10_amplitude[window[-1]] - log10_amplitude[window[0]] < LEAST_DECADES:
        return {"onset": onset, "rate": math.nan}
    return {"onset": onset, "rate": np.polyfit(step[window], log10_amplitude[window], 1)[0] * math.log(10)}


@dataclass(frozen=True)
class Record:
    """One run of the record."""

    setting: Setting
    step: np.ndarray  # (T,)
    log10_amplitude: np.ndarray  # (T,), -inf where the amplitude is exactly zero
    head: np.ndarray  # (n, 3), diagonal of the product in the singular basis at the first n recorded steps
    onset: float  # step, nan if never
    rate: float  # natural logarithm per step, nan if it could not be fitted
    seconds: float  # processor time
    diverged: bool  # whether the run overflowed after onset; the curve then ends there


def load(path=RECORD) -> dict[str, Record]:
    """Read the record: a dictionary from the runs' keys, in the order of `settings`, to `Record`."""
    file = recorded.load(path, settings=note())
    return {
        entry["key"]: Record(
            setting=Setting(**{**entry["setting"], "values": tuple(entry["setting"]["values"])}),
            step=np.arange(entry["records"]) * EVERY,
            log10_amplitude=file[f"amplitude/{entry['key']}"].astype(float),
            head=file[f"head/{entry['key']}"],
            **{name: math.nan if entry[name] is None else entry[name] for name in ("onset", "rate", "seconds")},
            diverged=entry["diverged"],
        )
        for entry in json.loads(str(file["index"]))
    }


def replay(record: Record, *, records: int | None = None) -> dict:
    """Compute the first `records` recorded states of a run again (default: as many as ``record.head`` holds).

    Returns
    -------
    dict
        ``diagonal_error``, the largest relative difference in the diagonal; ``amplitude_error``, the largest difference
        in ``log10_amplitude`` (meaningful for mpmath and seeded runs, which no rounding of the machine touches; in
        float32, float64 and longdouble the early amplitude *is* rounding error and may differ between machines);
        ``units``, the diagonal error in units of the run's own rounding.
    """
    n = len(record.head) if records is None else min(records, len(record.head))
    again = simulate(record.setting, limit=(n - 1) * EVERY)
    size = np.maximum(np.abs(record.head[:n]), record.setting.scale**DEPTH)
    diagonal_error = float((np.abs(again["diagonal"] - record.head[:n]) / size).max())
    old, new = record.log10_amplitude[:n], again["log10_amplitude"]
    both = np.isfinite(old) | np.isfinite(new)
    amplitude_error = float(np.abs(old[both] - new[both]).max()) if both.any() else 0.0
    units = diagonal_error / max(10.0 ** -DIGITS[record.setting.precision], 2.0**-53)
    return {"diagonal_error": diagonal_error, "amplitude_error": amplitude_error, "units": units}


def main(arguments) -> None:
    """Do the runs that have not been done, then write the record."""
    runs = settings()
    if "--list" in arguments:
        print("\n".join(s.key for s in runs))
        return
    parts = recorded.collect(RECORD, {s.key: partial(simulate, s) for s in runs}, settings=note())
    index, arrays = [], {}
    for setting in runs:
        part = parts[setting.key]
        numbers = fit(setting, part["step"], part["log10_amplitude"])
        entry = {"key": setting.key, "setting": vars(setting), "records": len(part["step"])}
        entry |= {"seconds": round(float(part["seconds"]), 2), "diverged": bool(part["diverged"])}
        entry |= {name: None if math.isnan(value) else float(f"{value:.8g}") for name, value in numbers.items()}
        index.append(entry)
        arrays[f"amplitude/{setting.key}"] = part["log10_amplitude"].astype(np.float32)
        arrays[f"head/{setting.key}"] = part["diagonal"][:26]
    arrays["index"] = np.array(json.dumps(index))
    seconds = sum(entry["seconds"] for entry in index)
    remarks = {"longdouble_bits": int(np.finfo(np.longdouble).nmant + 1)}
    recorded.save(RECORD, note(), seconds, arrays, packages=("numpy", "mpmath"), remarks=remarks)


def _start(setting: Setting):
    """The layers ``[W_1, ..., W_L]`` of the one-zero start, and the learning rate, in the run's precision."""
    number = {"float32": np.float32, "float64": np.float64, "longdouble": np.longdouble}.get(setting.precision)
    alpha, rate = mpmath.mpf(str(setting.scale)), learning_rate(setting)
    span = range(setting.width)
    identity = np.array([[mpmath.mpf(i == j) for j in span] for i in span], dtype=object)
    scales = [alpha] * (DEPTH - 1) + [mpmath.mpf(0)]
    W = [to_precision(scale * identity, setting.precision) for scale in scales]
    W[0][0, 1] += type(W[0][0, 1])(setting.perturbation) if setting.perturbation else 0
    rate = +rate if number is None else to_precision(np.array([rate], dtype=object), setting.precision)[0]
    return W, rate


def _measure(product, U, V):
    """Base-10 logarithm of the (1, 2) amplitude, and the first three diagonal entries, of ``U.T @ product @ V``."""
    if U.dtype == object:
        with mpmath.workdps(REFERENCE_DIGITS):
            A = U.T @ to_reference(product) @ V
            amplitude = mpmath.sqrt(A[0, 1] ** 2 + A[1, 0] ** 2)
            log = float(mpmath.log10(amplitude)) if amplitude else -math.inf
    else:
        A = U.T @ product.astype(float) @ V
        amplitude = math.hypot(A[0, 1], A[1, 0])
        log = math.log10(amplitude) if amplitude else -math.inf
    return log, [float(abs(A[i, i])) for i in range(3)]


def _orthogonal(rng, width):
    gaussian = mpmath.matrix(rng.standard_normal((width, width)).tolist())
    return _object(mpmath.qr(gaussian)[0])


def _object(matrix):
    return np.array(matrix.tolist(), dtype=object)


if __name__ == "__main__":
    main(sys.argv[1:])
