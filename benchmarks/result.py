"""What a run of the benchmarks is: its targets, whether they are met, its file, and the comparison with the recorded one."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "results"
RECORD = FOLDER / "recorded.json"
DIGESTS = FOLDER / "digests.json"
FORMAT = 1
# Ratios depend on the processor (vector width, caches) and on versions; between the ones tried by less than this. A change of the
# library that costs half its speed is a regression on any of them.
FACTOR = 2.0
LINEAR = 1.1  # largest exponent that counts as linear: fitted over a factor 32 or less, caches included
ROW_WORDS = {
    "-aligned": ", aligned start",
    "one-mode": "one-mode map",
    "ten-largest": "ten largest",
    "dense": "dense Hessian",
    "step-": "gradient step-",
    "growth-": "growth of time in ",
    "network-small": "small tanh network",
    "network-middle": "larger tanh network",
    "-below": ", below its edge",
    "-at": ", at its edge",
}
STATUS = ("measured", "not installed", "disagrees", "failed")


@dataclass(frozen=True)
class Target:
    """A bound on one measure."""

    work: str  # the row of the table of targets
    measure: str
    bound: float
    least: bool = True  # whether the measure must be at least the bound, or at most

    def words(self) -> str:
        """The row and what is measured, as figures and tables write them.

        Examples
        --------
        >>> Target("", "sweep-5-aligned/torch.func", 3.0).words()
        'sweep, d = 5, aligned start: torch.func'
        """
        row, _, measure = self.measure.partition("/")
        for old, new in ROW_WORDS.items():
            row = row.replace(old, new)
        row = re.sub(r"^(.*?)-(\d+)", lambda m: f"{m[1]}, {'L' if m[1] == 'one-mode map' else 'd'} = {m[2]}", row)
        return f"{row}: {measure}"

    def met(self, value: float) -> bool:
        """Whether `value` keeps the bound."""
        return value >= self.bound if self.least else value <= self.bound


def _targets():
    sweep = "sweep, 2000 rates, d = 5, L = 3"
    yield Target(sweep, "sweep-5/the authors", 1000)
    yield Target(sweep, "sweep-5/torch.func", 3)
    yield Target(sweep, "sweep-5/JAX, closed form", 1)
    for width in (10, 20, 50):
        yield Target("sweep at larger width", f"sweep-{width}/JAX, closed form", 1)
    mode = "one-mode map, 10⁴ rates × 10⁵ steps"
    yield Target(mode, "one-mode-3/JAX, scan", 1)
    yield Target(mode, "one-mode-3/share of the issue limit", 0.8)
    yield Target(mode, "one-mode-3/plain NumPy, seconds", 1.5, least=False)
    for width, bound in zip((5, 10, 20, 50, 100), (40, 30, 15, 8, 3.5), strict=True):
        yield Target("trajectory with all singular values", f"trajectory-{width}/the authors", bound)
    yield Target("the same from an aligned start", "trajectory-100-aligned/the authors", 150)
    yield Target("gradient step, share of the peak", "step-50/share of the peak", 1 / 2)
    yield Target("gradient step, share of the peak", "step-100/share of the peak", 1 / 1.3)
    for width, bound in zip((5, 10, 20), (60, 35, 15), strict=True):
        yield Target("sharpness at each step", f"sharpness-{width}/the authors' notebook", bound)
        yield Target("sharpness at each step", f"sharpness-{width}/error", 1e-8, least=False)
    for width, bound in zip((50, 100), (20, 50), strict=True):
        yield Target("ten largest eigenvalues", f"ten-largest-{width}/the authors' notebook", bound)
        yield Target("ten largest eigenvalues", f"ten-largest-{width}/error", 1e-10, least=False)
    yield Target("dense Hessian, d = 10", "dense-10/the authors", 300)
    yield Target("dense Hessian, d = 10", "dense-10/torch.func", 10)
    yield Target("dense Hessian, d = 10", "dense-10/JAX, jit(hessian)", 1)
    for name in ("small", "middle"):
        for where, steps in (("below", 8), ("at", 25)):
            row, work = f"network-{name}-{where}", "sharpness of a tanh network"
            yield Target(work, f"{row}/Cohen et al.", 10)
            yield Target(work, f"{row}/PyHessian's method", 2)
            yield Target(work, f"{row}/error", 5e-3, least=False)
            yield Target(work, f"{row}/gradient steps", steps, least=False)
    yield Target("memory of the sweep over its result", "memory/megabytes", 100, least=False)
    yield Target("growth", "growth-rates/exponent", LINEAR, least=False)
    yield Target("growth", "growth-steps/exponent", LINEAR, least=False)
    yield Target("growth", "growth-d/exponent", 2.4, least=False)
    yield Target("growth", "growth-L/exponent", LINEAR, least=False)


TARGETS = tuple(_targets())
NEAR = 0.1  # a miss by more than this part of the bound is no matter of rounds
# Why a target is missed, by the beginning of its measure, the first that fits; shown only where it is.
BESIDES = "besides its products a step subtracts the target and moves the layers"
POWER = "power iteration stops when a step changes its value by less than 1e-3, which bounds no error; the library's residual does"
REASONS = {
    r"network-.*/PyHessian": POWER,
    r"network": "a new Krylov space at each state, because a warm start can return another eigenvalue; its residual bounds the error",
    r"trajectory": "at small width a step is a dozen calls of NumPy and one decomposition, and the calls' own cost is what is left",
    r"step-50/": f"{BESIDES}, and products of this width are not the fastest",
    r"step": BESIDES,
    r"growth-d": "the less overhead is left, the closer the exponent comes to 3, that of the products' arithmetic",
}


def reason(target: Target, measure: dict) -> str:
    """Why `target` is missed by `measure`, as far as that is known.

    Examples
    --------
    >>> reason(Target("", "sweep-5/torch.func", 3.0), {"value": 2.9, "low": 2.8, "high": 3.1})
    'missed by less than the spread of single rounds'
    """
    near = abs(measure["value"] / target.bound - 1) < NEAR
    if near and "low" in measure and target.met(measure["high" if target.least else "low"]):
        return "missed by less than the spread of single rounds"
    return next((text for start, text in REASONS.items() if re.match(start, target.measure)), "not explained")


def measures(result: dict) -> dict[str, dict]:
    """All measures of a result by name: ``value``, and quartiles of ratios."""
    found = {name: measure for row in result["rows"] for name, measure in row["measures"].items()}
    found |= {f"{curve['id']}/exponent": {"value": curve["exponent"]} for curve in result["growth"]}
    if result["memory"]:
        found["memory/megabytes"] = {"value": result["memory"]["resident"]["over"] / 1e6}
    return found


def judge(result: dict) -> list[dict]:
    """Each target with what was measured: ``value`` and ``met``, or ``None`` for both where it was not."""
    found = measures(result)
    judged = []
    for target in TARGETS:
        value = found.get(target.measure, {}).get("value")
        judged.append({"target": target, "value": value, "met": None if value is None else target.met(value)})
    return judged


def verdicts(result: dict) -> list[dict]:
    """`judge` as plain data, which a result carries for readers of its file alone."""
    return [
        {
            "work": entry["target"].work,
            "measure": entry["target"].measure,
            "needs": "at least" if entry["target"].least else "at most",
            "bound": entry["target"].bound,
            "value": entry["value"],
            "met": entry["met"],
        }
        for entry in judge(result)
    ]


def ratios(result: dict) -> dict[str, float]:
    """The ratios to peers alone: what a regression check may compare. Times and shares of a limit are not among them."""
    return {
        f"{row['id']}/{peer}": entry["ratio"]
        for row in result["rows"]
        for peer, entry in row["peers"].items()
        if entry["status"] == "measured"
    }


def regressions(result: dict, record: dict, factor: float = FACTOR) -> list[str]:
    """Ratios that fell to less than the recorded ones over `factor`, and peers whose answers differ; empty if all is well.

    Only ratios that both have are compared; ratios that grew are no regression.

    Raises
    ------
    ValueError
        If there is nothing to compare, or `factor` is not above 1.
    """
    if not (math.isfinite(factor) and factor > 1):
        raise ValueError(f"factor: got {factor}, needs a finite number above 1")
    now, before = ratios(result), ratios(record)
    shared = sorted(set(now) & set(before))
    if not shared:
        raise ValueError("result: has no ratio in common with the record; is torch or JAX installed?")
    found = [
        f"{name}: {now[name]:.3g} times, recorded {before[name]:.3g}, a factor {before[name] / now[name]:.2g} less"
        for name in shared
        if now[name] * factor < before[name]
    ]
    for row in result["rows"]:
        for peer, entry in row["peers"].items():
            if entry["status"] == "disagrees":
                found.append(f"{row['id']}/{peer}: answers differ by {entry['error']:.1e}, allowed {entry['tolerance']:.0e}")
            elif entry["status"] == "failed":
                found.append(f"{row['id']}/{peer}: failed with {entry['reason']}")
    return found


def faults(result: dict) -> list[str]:
    """What is missing or wrong in the form of a result; empty if it is whole."""
    keys = ("format", "about", "limits", "rows", "growth", "memory", "cuda", "targets")
    found = [f"no {key}" for key in keys if key not in result]
    if found:
        return found
    if result["format"] != FORMAT:
        found.append(f"format {result['format']}, needs {FORMAT}")
    wanted = ("processor", "cores", "versions", "threads", "date", "load", "seconds", "quick", "share of the core")
    found += [f"about: no {key}" for key in wanted if key not in result["about"]]
    names = [row["id"] for row in result["rows"]]
    found += [f"{name}: twice" for name in sorted(set(names)) if names.count(name) > 1]
    for row in result["rows"]:
        found += [f"{row.get('id')}: no {key}" for key in ("title", "unit", "settings", "ours", "peers", "measures") if key not in row]
        found += _entry_faults(f"{row['id']}/ours", row["ours"])
        for peer, entry in row["peers"].items():
            if entry.get("status") not in STATUS:
                found.append(f"{row['id']}/{peer}: status {entry.get('status')}")
            elif entry["status"] == "measured":
                found += _entry_faults(f"{row['id']}/{peer}", entry)
                if not 0 <= entry["error"] <= entry["tolerance"]:
                    found.append(f"{row['id']}/{peer}: error {entry['error']} beyond {entry['tolerance']}")
                if not _close(entry["ratio"], entry["seconds"] / row["ours"]["seconds"]):
                    found.append(f"{row['id']}/{peer}: ratio {entry['ratio']} is not that of the times")
    if result["targets"] != verdicts(result):
        found.append("targets: are not those of its measures")
    for curve in result["growth"]:
        if len(curve["x"]) != len(curve["seconds"]) or len(curve["x"]) < 3 or not min(curve["seconds"]) > 0:
            found.append(f"{curve['id']}: needs three positive times or more, one for each size")
    return found


def _entry_faults(name, entry):
    times = [entry.get(key, float("nan")) for key in ("low", "seconds", "high")]
    if not (times[0] <= times[1] <= times[2] and times[0] > 0 and math.isfinite(times[2])):
        return [f"{name}: times {times}"]
    return [] if entry.get("rounds", 0) >= 3 else [f"{name}: fewer than three rounds"]


def _close(a, b):
    return abs(a / b - 1) < 1e-9  # a few roundings


def write(path: Path, result: dict) -> None:
    """Write a result with its verdicts, in one step, and enter its digest beside it.

    Raises
    ------
    ValueError
        If the result is not whole.
    """
    result = result | {"targets": verdicts(result)}
    if wrong := faults(result):
        raise ValueError(f"{path}: is not a whole result: {'; '.join(wrong[:5])}")
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    listing = path.with_name(DIGESTS.name)
    listed = json.loads(listing.read_text(encoding="utf8")) if listing.exists() else {}
    listed[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    _replace(listing, json.dumps(listed, indent=1, sort_keys=True) + "\n")


def read(path: Path = RECORD, *, listed: bool = True) -> dict:
    """Read a result.

    Raises
    ------
    ValueError
        If it is not whole, or, with `listed`, not the one in the list of digests beside it.
    """
    text = path.read_bytes()
    listing = path.with_name(DIGESTS.name)
    expected = json.loads(listing.read_text(encoding="utf8")).get(path.name) if listing.exists() else None
    if listed and (found := hashlib.sha256(text).hexdigest()) != expected:
        raise ValueError(f"{path}: was altered or never listed in {listing.name}: expected sha256 {expected}, found {found}")
    result = json.loads(text)
    if wrong := faults(result):
        raise ValueError(f"{path}: is not a whole result: {'; '.join(wrong[:5])}")
    return result


def _replace(path, text):
    scratch = path.with_name(f"{path.name}.{os.getpid()}.partial")
    scratch.write_text(text, encoding="utf8", newline="\n")
    os.replace(scratch, path)
