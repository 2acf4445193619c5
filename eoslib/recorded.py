"""Recorded runs: long computations done part by part, resumed after an interruption, and written whole or not at all.

A script in ``recorded/`` names its settings and its parts, hands them to `collect`, and writes one ``.npz`` file with
`save`. What was finished is known by the settings, the script and the library that made it, never by its name alone. A
record carries checksums of its arrays and of its note, and the folder's ``digests.json`` those of the records, so that
`load` can refuse one that was altered and say what is wrong with it.

Two things are told apart by digest. *Parts* are known by settings, script and library: a change of any of them,
comments and layout aside, begins a run anew. A finished *record* is known by its bytes, its settings and its script;
the library's digest is noted in it and not enforced, because most changes of the library change no number, and a replay
(each record's chapter does one) shows whether this one did. The library's digest covers the modules of `eoslib` that
the process has loaded, and those that runs load on request, this one aside; neither digest covers other packages, whose versions the note has, or the
processor, which it names.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Generator, Sequence
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from . import validate

DIGESTS = "digests.json"
_ON_REQUEST = ("compiled", "cuda")  # modules that are loaded when a run asks for them, in its midst
_locks: dict = {}  # by record: the lock, held from `collect` to `save`
_runs: dict = {}  # by record: where the parts of this process's run lie, and what code it began with


def collect(
    record: Path,
    jobs: dict,
    *,
    settings: dict | None = None,
    progress: bool = True,
    through: Callable[[dict], Generator] | None = None,
) -> dict:
    """Do the jobs whose results are not there yet and return the results of all.

    Finished parts lie in `folder` until `save`. Those of other settings, or of another script or library, lie beside
    them and are neither used nor touched. From here to `save` no other process can run the same record: this one holds
    ``<record>.lock``, an empty file that stays behind, for who removed it could take it from under a process that waits
    for it. It means nothing when no process runs, and git ignores those of ``recorded/``.

    Parameters
    ----------
    record : Path
        The file that the run will end in.
    jobs : dict of str to callable
        Name of each part, and a function without arguments that returns a dict of arrays.
    settings : dict, optional
        Everything that determines the result, JSON-serialisable, seeds included.
    progress : bool
        Whether a bar is shown on stderr.
    through : generator function, optional
        Does the jobs that are left, as `sweep.run` does with many processes: takes a dict of them and yields the name,
        the arrays and the seconds of each as it is finished, in any order. By default they are done here, one after
        another.

    Returns
    -------
    dict of str to dict
        In the order of `jobs`, the arrays of each part, and under ``seconds`` the processor time it took.

    Raises
    ------
    RuntimeError
        If another process is at the same record.
    ValueError
        If a part's file is damaged or was made as another part or by another run, or the folder holds a file that is none
        of the run's; the message names it. If `jobs` is no dict of functions by their names.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     jobs = {"a": lambda: {"x": np.arange(3)}}
    ...     parts = collect(Path(place) / "run.npz", jobs, settings={"n": 3}, progress=False)
    >>> parts["a"]["x"]
    array([0, 1, 2])
    """
    jobs = validate.functions("jobs", jobs)
    _acquire(record)
    try:
        place = folder(record, settings)
        place.mkdir(parents=True, exist_ok=True)
        _runs[Path(record).resolve()] = place, {"script": _script(record), "library": _library()}
        _refuse_strays(place, jobs)
        paths = {name: place / f"{name}.npz" for name in jobs}
        results = {name: _part(path) for name, path in paths.items() if path.exists()}
        left = {name: job for name, job in jobs.items() if name not in results}
        with _bar(record.stem, len(jobs), progress) as bar:
            bar.update(len(results))
            with contextlib.closing((through or partial(_one_by_one, bar))(left)) as finished:
                for name, arrays, seconds in finished:
                    _write(paths[name], _sealed(arrays | {"seconds": np.array(seconds)}, _place(paths[name])))
                    (place / f"{name}.checkpoint").unlink(missing_ok=True)
                    results[name] = _part(paths[name])
                    bar.update()
        return {name: results[name] for name in jobs}
    except BaseException:
        _release(record)
        raise


def _one_by_one(bar, jobs):
    for name, job in jobs.items():
        bar.set_postfix_str(name)
        began = time.process_time()
        arrays = job()
        yield name, arrays, time.process_time() - began


def _part(path):
    what = "a part that is done again when this file is removed"
    arrays, note = _read(path, what)
    if note != _place(path):
        raise ValueError(f"{path}: was made as {note}, needs {_place(path)}; it is {what}")
    return arrays


def _place(path):
    """Which part of which run (`folder`) a file is by its path; in its note, so that none stands for another."""
    return {"part": path.stem, "run": path.parent.name}


def folder(record: Path, settings: dict | None = None) -> Path:
    """Where `collect` keeps the parts of a run with these settings, this script and this library.

    A job may keep its own state there in ``<part>.checkpoint``, which goes when the part is done.
    """
    identity = {"settings": _plain(settings), "script": _script(record), "library": _library()}
    return record.with_suffix(".parts") / _digest(identity)[:16]


def save(
    record: Path,
    settings: dict,
    seconds: float,
    arrays: dict,
    *,
    packages: Sequence[str] = ("numpy",),
    data: dict | None = None,
    remarks: dict | None = None,
) -> None:
    """Write the record with a note of how it was made, enter its digest in ``digests.json``, and remove its parts.

    Parameters
    ----------
    record : Path
        Target file, replaced in one step.
    settings : dict
        What `collect` was given.
    seconds : float
        Processor time of all parts.
    arrays : dict of str to array
    packages : sequence of str
        Distributions whose versions are noted.
    data : dict, optional
        Source and checksum of each data set that was used.
    remarks : dict, optional
        What else a reader of the record should know, such as properties of the machine that matter.
    """
    now = folder(record, settings), {"script": _script(record), "library": _library()}
    place, code = _runs.get(Path(record).resolve(), now)
    note = {
        "settings": _plain(settings),
        "data": _plain(data or {}),
        "remarks": _plain(remarks or {}),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        **code,
        "machine": platform.machine(),
        "processor": _processor(),
        "threads": _threads(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu_seconds": round(float(seconds), 1),
    }
    write(record, arrays, note)
    _runs.pop(Path(record).resolve(), None)
    if place.exists():
        for path in place.iterdir():
            path.unlink()
        place.rmdir()
    with contextlib.suppress(OSError):  # parts of other settings stay
        place.parent.rmdir()
    _release(record)


def write(record: Path, arrays: dict, note: dict) -> None:
    """Write a record with a given note, and its digest: what `save` does when it has made the note."""
    _write(record, _sealed(arrays, note))
    enter(record, note.get("script"))


def enter(record: Path, script: str | None = None) -> None:
    """Enter the digest of a record of any format, and of the script that made it, in ``digests.json`` beside it.

    Parameters
    ----------
    record : Path
        A file that is there.
    script : str, optional
        Digest of the script; by default that of the script beside the record.
    """
    entries = _listed(record) or {}
    entries[record.name] = {"sha256": _file_digest(record), "script": _script(record) if script is None else script}
    scratch = record.with_name(f"{DIGESTS}.{os.getpid()}.partial")
    scratch.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n", encoding="utf8")
    os.replace(scratch, record.with_name(DIGESTS))


def adopt(record: Path, remark: str) -> None:
    """Give a record that was written without checksums those of its present state, and its note a remark that says so.

    Do this after a replay of the record, and say in the remark what was replayed.

    Raises
    ------
    ValueError
        If the record has checksums already.
    """
    with record.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    note = json.loads(str(arrays.pop("about")))
    if "checksum" in note:
        raise ValueError(f"record: got {record}, which has checksums, needs one that has none")
    added = f"{remark}; checksums and the digest of the script were added on {time.strftime('%Y-%m-%d', time.gmtime())}"
    note |= {"script": _script(record), "library": None, "remarks": note.get("remarks", {}) | {"adopted": added}}
    write(record, arrays, note)


def load(record: Path, *, settings: dict | None = None) -> dict:
    """Read a record: its arrays, and under ``about`` the dictionary that `save` noted.

    Refused are a file that cannot be read, arrays or a note that are not those that were written, a record that is not
    the one listed in the ``digests.json`` beside it, or without that list, one of other `settings`, and one of another script. A change of the library
    alone is not refused: it is for the replay of a record to show whether it matters.

    Raises
    ------
    ValueError
        For each of these reasons; the message says which.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     save(path := Path(place) / "run.npz", {"seed": 0}, 1.5, {"x": np.arange(2)})
    ...     again = load(path)
    >>> again["x"], again["about"]["settings"], again["about"]["cpu_seconds"]
    (array([0, 1]), {'seed': 0}, 1.5)
    """
    arrays, note = _read(record, "a record that its script makes again")
    listed(record)
    if settings is not None and (differ := _differences(_plain(settings), note["settings"])):
        raise ValueError(f"{record}: was made with other settings: {differ}")
    if (script := _script(record)) is not None and script != note.get("script"):
        raise ValueError(f"{record}: was made by another version of {record.with_suffix('.py').name}; run that script")
    return arrays | {"about": note}


def listed(record: Path) -> Path:
    """Return the path of a record of any format if its bytes are those in the ``digests.json`` beside it.

    `save` writes both, so that a record without the list was moved, or the list was taken away; `enter` makes one for a
    record that is trusted.

    Raises
    ------
    ValueError
        If the list is not there or damaged, or lacks the record, or has another digest of it.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     _ = (path := Path(place) / "run.json").write_text("{}")
    ...     enter(path)
    ...     _ = listed(path).write_text("[]")
    ...     listed(path)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: ...run.json: is whole, but is not the record listed in digests.json: ...
    """
    entries = _listed(record)
    if entries is None:
        raise ValueError(f"{record}: there is no {DIGESTS} beside it that lists it; bring it too, or trust it and `enter` it")
    entry = entries.get(record.name, {})
    if (found := _file_digest(record)) != entry.get("sha256"):
        raise ValueError(
            f"{record}: is whole, but is not the record listed in {DIGESTS}: "
            f"expected sha256 {entry.get('sha256')}, found {found}"
        )
    return record


def code_digest(text: str) -> str:
    """Digest of what Python code does: comments, docstrings and layout do not count.

    Nor do functions that are named in a module variable ``READERS``, which only read what others made.

    Examples
    --------
    >>> code_digest("x = 1") == code_digest("x  =  1  # one") != code_digest("x = 2")
    True
    """
    tree = ast.parse(text)
    readers = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "READERS":
            readers = set(ast.literal_eval(node.value))
    body = [node for node in tree.body if getattr(node, "name", None) not in readers]
    return _digest(_shape(_without_docstring(body)))


def _shape(value):
    """A syntax tree as nested lists that are the same in each version of Python."""
    if isinstance(value, list):
        return [_shape(item) for item in value]
    if not isinstance(value, ast.AST):
        return repr(value)
    fields = []
    for name, child in ast.iter_fields(value):
        if name == "body" and isinstance(value, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            child = _without_docstring(child)
        if child is not None and child != [] and name not in ("ctx", "kind", "type_comment"):
            fields.append([name, _shape(child)])
    return [type(value).__name__, fields]


def _without_docstring(body):
    first = body[0] if body else None
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return body[1:] if documented and isinstance(first.value.value, str) else body


def _script(record):
    path = record.with_suffix(".py")
    return code_digest(path.read_text(encoding="utf8")) if path.exists() else None


def _library():
    """Digest of the modules of this library that are loaded, or will be on request, this one aside."""
    root = __name__.rpartition(".")[0]
    paths = {f"{root}.{name}": Path(__file__).with_name(f"{name}.py") for name in _ON_REQUEST}
    for name, module in sys.modules.items():
        if (name == root or name.startswith(f"{root}.")) and name != __name__ and getattr(module, "__file__", None):
            paths[name] = Path(module.__file__)
    return _digest({name: _known_digest(path.read_text(encoding="utf8")) for name, path in paths.items()})


_known_digest = lru_cache(maxsize=None)(code_digest)  # a module's text is parsed once in a process


def _digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _array_digest(array):
    array = np.ascontiguousarray(array)
    head = json.dumps([array.dtype.str, list(array.shape)]).encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()


def _file_digest(path):
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _plain(value):
    """What JSON makes of a value: tuples are lists, keys are text."""
    return json.loads(json.dumps(value))


def _differences(wanted, found):
    text = [{key: json.dumps(value, sort_keys=True) for key, value in side.items()} for side in (wanted, found)]
    keys = sorted(key for key in set(wanted) | set(found) if text[0].get(key) != text[1].get(key))
    return ", ".join(f"{key} is {text[1].get(key, 'not there')}, needs {text[0].get(key, 'none')}" for key in keys)


def _sealed(arrays, note):
    """The arrays with a note that holds a checksum of each and one of itself."""
    validate.named("arrays", arrays, "arrays")
    if masked := [name for name, array in arrays.items() if isinstance(array, np.ma.MaskedArray)]:
        raise ValueError(f"arrays: got masked ones in {masked}, whose masks would be lost; needs plain ones")
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    if objects := [name for name, array in arrays.items() if array.dtype.hasobject]:
        raise ValueError(f"arrays: got Python objects in {objects}, needs numbers or text, which can be read back")
    if "about" in arrays:
        raise ValueError("arrays: got one named 'about', needs other names: that is the note's")
    note = note | {"arrays": {name: _array_digest(array) for name, array in arrays.items()}}
    return arrays | {"about": np.array(json.dumps(note | {"checksum": _digest(note)}))}


def _read(path, what):
    """Arrays and note of a sealed file, each checked."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        note = json.loads(str(arrays.pop("about")))
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged archive raises whatever its first wrong byte leads to
        raise ValueError(f"{path}: is damaged ({error}); it is {what}") from error
    if "checksum" not in note:
        raise ValueError(f"{path}: its note was altered or never had a checksum; after a replay, `adopt` gives it one")
    checksum = note.pop("checksum")
    if checksum != _digest(note):
        raise ValueError(f"{path}: its note was altered: expected checksum {checksum}, found {_digest(note)}")
    wanted, found = note.pop("arrays"), {name: _array_digest(array) for name, array in arrays.items()}
    if altered := sorted(name for name in set(wanted) | set(found) if wanted.get(name) != found.get(name)):
        name = altered[0]
        raise ValueError(
            f"{path}: its array{'s' if len(altered) > 1 else ''} {', '.join(altered[:5])} "
            f"{'were' if len(altered) > 1 else 'was'} altered: expected {wanted.get(name)}, found {found.get(name)}"
        )
    return arrays, note


def _write(path, sealed):
    scratch = path.with_suffix(f".{os.getpid()}.partial.npz")
    try:
        np.savez_compressed(scratch, **sealed)
        with scratch.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _listed(record):
    path = record.with_name(DIGESTS)
    if not path.exists():
        return None
    try:
        listed = json.loads(path.read_text(encoding="utf8"))
    except ValueError as error:
        raise ValueError(f"{path}: is damaged ({error}); git has the last good one") from error
    if not isinstance(listed, dict) or not all(isinstance(entry, dict) for entry in listed.values()):
        raise ValueError(f"{path}: is no list of records by their names; git has the last good one")
    return listed


def _refuse_strays(place, jobs):
    wanted = {f"{name}.npz" for name in jobs} | {f"{name}.checkpoint" for name in jobs}
    for path in sorted(place.iterdir()):
        if ".partial" in path.name:  # half-written by a run that was killed: this process has the lock
            path.unlink()
        elif path.name not in wanted:
            raise ValueError(f"{path}: is no part of this run; needs a folder with its own parts alone")


def _acquire(record):
    """Hold the lock beside the record; it ends with the process, however that ends."""
    from filelock import FileLock, Timeout

    path = str(Path(record).resolve().with_suffix(".lock"))
    lock = _locks.setdefault(path, FileLock(path))
    if lock.is_locked:
        return
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RuntimeError(f"{record}: another process is making this record; wait for it or stop it") from error


def _release(record):
    if lock := _locks.pop(str(Path(record).resolve().with_suffix(".lock")), None):
        lock.release()


def _bar(label, total, shown):
    from tqdm import tqdm

    return tqdm(total=total, desc=label, unit="part", disable=not shown)


def _processor():
    """The processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _threads():
    """Threads of each numerical library that is loaded."""
    from threadpoolctl import threadpool_info

    counts = {info["internal_api"]: info["num_threads"] for info in threadpool_info()}
    if "torch" in sys.modules:
        counts["torch"] = sys.modules["torch"].get_num_threads()
    return counts
