"""Recorded runs: long computations done part by part, resumed after an interruption, and written whole or not at all.

A script in ``recorded/`` names its parts, hands them to `collect`, and writes one ``.npz`` file with `save`.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np


def collect(record: Path, jobs: dict) -> dict:
    """Do the jobs whose results are not there yet, with a progress bar, and return the results of all.

    Parameters
    ----------
    record : Path
        The file that the run will end in. Finished parts lie in the folder ``<record's stem>.parts`` beside it until `save`.
    jobs : dict of str to callable
        Name of each part, and a function without arguments that returns a dict of arrays. A finished part is known by its
        name alone: name it by all its settings, or remove the folder after a change of the script.

    Returns
    -------
    dict of str to dict
        The arrays of each part, and under ``seconds`` the processor time it took.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     parts = collect(Path(folder) / "run.npz", {"a": lambda: {"x": np.arange(3)}})
    >>> parts["a"]["x"]
    array([0, 1, 2])
    """
    folder = _folder(record)
    folder.mkdir(exist_ok=True)
    for number, (name, job) in enumerate(jobs.items()):
        _progress(number, len(jobs), name)
        if not (path := folder / f"{name}.npz").exists():
            began = time.process_time()
            arrays = job()
            _write(path, arrays | {"seconds": np.array(time.process_time() - began)})
    _progress(len(jobs), len(jobs), "done")
    results = {}
    for name in jobs:
        with np.load(folder / f"{name}.npz", allow_pickle=False) as part:
            results[name] = {key: part[key] for key in part.files}
    return results


def save(record: Path, settings: dict, seconds: float, arrays: dict, *, packages: Sequence[str] = ("numpy",)) -> None:
    """Write the record with a note of its settings, versions, machine, date and run time, and remove its parts.

    Parameters
    ----------
    record : Path
        Target file, replaced in one step.
    settings : dict
        Everything that determines the result, JSON-serialisable, seeds included.
    seconds : float
        Processor time of all parts.
    arrays : dict of str to array
    packages : sequence of str
        Distributions whose versions are noted.
    """
    note = {
        "settings": settings,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "machine": platform.machine(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu_seconds": round(float(seconds), 1),
    }
    _write(record, arrays | {"about": np.array(json.dumps(note))})
    folder = _folder(record)
    if folder.exists():
        for path in folder.glob("*.npz"):
            path.unlink()
        folder.rmdir()


def load(record: Path) -> dict:
    """Read a record: its arrays, and under ``about`` the dictionary that `save` noted.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(path := Path(folder) / "run.npz", {"seed": 0}, 1.5, {"x": np.arange(2)})
    ...     again = load(path)
    >>> again["x"], again["about"]["settings"], again["about"]["cpu_seconds"]
    (array([0, 1]), {'seed': 0}, 1.5)
    """
    with np.load(record, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return arrays | {"about": json.loads(str(arrays["about"]))}


def _folder(record):
    return record.with_suffix(".parts")


def _write(path, arrays):
    if objects := [name for name, array in arrays.items() if np.asarray(array).dtype.hasobject]:
        raise ValueError(f"arrays: got Python objects in {objects}, needs numbers or text, which can be read back")
    scratch = path.with_suffix(".partial.npz")
    np.savez_compressed(scratch, **arrays)
    os.replace(scratch, path)


def _progress(done, total, label):
    bar = "#" * (30 * done // max(total, 1))
    print(f"\r[{bar:<30}] {done}/{total} {label:<40}", end="\n" if done == total else "", file=sys.stderr, flush=True)
