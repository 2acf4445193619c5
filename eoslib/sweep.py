r"""Sweeps: one function at every point of a grid of learning rates, seeds, depths, or whatever else has a name.

Along one axis, usually that of the learning rates, the function may take a block of values at once: small matrices are
much cheaper in a batch. Blocks go through joblib, so that ``joblib.parallel_config`` decides where they are done: in
this process, in the processes of one machine, or on a dask cluster. The result depends neither on that nor on the
length of a block, as long as the function's does not: `descent.descend` gives each run of a batch the bits that it has
alone, and every block is done with one BLAS thread.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import json
import sys
import textwrap
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import recorded, validate


@dataclass(frozen=True)
class Sweep:
    """What `run` returns. The first axes (...) of each array are those of the grid, in its order."""

    axes: dict[str, np.ndarray]  # name -> (n,), the values along that axis
    arrays: dict[str, np.ndarray]  # name -> (..., *shape); where runs failed, a masked array, masked there
    failed: np.ndarray  # (...), bool
    errors: tuple  # of (point, text) for each failed run, in the grid's order; a point is {name: value}
    seconds: float  # processor time of all blocks, whichever process did them


def run(
    function: Callable[..., dict],
    grid: dict,
    *,
    batch: str | None = None,
    block: int = 128,
    record: Path | str | None = None,
    settings: dict | None = None,
    n_jobs: int | None = None,
    progress: bool = True,
) -> Sweep:
    """Call a function at every point of a grid and return what it gave, labelled.

    A run that raises is one failed run: the others of its block are done without it. With a `record`, finished blocks
    are kept as `recorded.collect` keeps parts: the same call goes on after an interruption and tries the failed runs
    again; one of other settings begins anew.

    Parameters
    ----------
    function : callable
        Called with one value of each axis, by name; returns a dict of arrays or numbers, of the same names and shapes
        at every point. To reach other processes it must be picklable with what it refers to, and keep what is large on
        disk.
    grid : dict of str to sequence
        Name and values of each axis: numbers, words or flags, no two alike.
    batch : str, optional
        The axis of which the function gets a block, an array (n,); what it returns then has n in front.
    block : int
        Values in a block, at most.
    record : path, optional
        Name of an ``.npz`` file; the blocks lie in a folder beside it until `recorded.save` has written that file, or
        for good.
    settings : dict, optional
        What else determines the result, JSON-serialisable: with a `record` also the arguments that a
        ``functools.partial`` binds and the variables that the function takes from around it. With the grid, the block,
        the source of the function, the record's script and the library it is what finished blocks are known by.
    n_jobs : int, optional
        Processes, as joblib counts them (-1: as many as there are cores), and no more than there are blocks to do. By default it is for ``joblib.parallel_config`` to say, and 1 without it. A plain loop, without joblib, for
        1.
    progress : bool
        Whether stderr shows a bar, and at the end how many runs failed.

    Returns
    -------
    Sweep

    Raises
    ------
    ValueError
        If an argument is none of these, or a kept block is damaged.
    RuntimeError
        If another process is at the same record.

    Examples
    --------
    >>> def inverse(x, power):
    ...     if 0 in x:
    ...         raise ZeroDivisionError("0 has no inverse")
    ...     return {"y": x ** -power}
    >>> result = run(inverse, {"power": [1, 2], "x": [0.0, 2.0, 4.0]}, batch="x", progress=False)
    >>> result.arrays["y"].tolist()
    [[None, 0.5, 0.25], [None, 0.25, 0.0625]]
    >>> result.errors[1]
    ({'power': 2, 'x': 0.0}, 'ZeroDivisionError: 0 has no inverse')
    """
    if not callable(function):
        raise ValueError(f"function: got {validate.short(function)}, needs a function that returns a dict of arrays")
    axes = _axes(grid)
    if batch is not None and (not isinstance(batch, str) or batch not in axes):
        raise ValueError(f"batch: got {validate.short(batch)}, needs None or one of {', '.join(axes)}")
    block = validate.integer("block", block, least=1)
    record, settings = _record(record), _settings(settings)
    if n_jobs is not None and validate.integer("n_jobs", n_jobs, least=-10_000, most=10_000) == 0:
        raise ValueError("n_jobs: got 0, needs a number of processes, or -1 for all cores")
    progress = validate.flag("progress", progress)

    places = {f"{number:07d}": place for number, place in enumerate(_blocks(axes, batch, block))}
    jobs = {}
    for name, (index, chosen) in places.items():
        point = {axis: axes[axis][i].item() for axis, i in index.items()}
        jobs[name] = functools.partial(_do, function, point, batch, None if batch is None else axes[batch][chosen])
    stream = functools.partial(_stream, n_jobs)
    if record is None:
        parts = _collect(jobs, stream, progress)
    else:
        identity = {name: [values.dtype.str, values.tolist()] for name, values in axes.items()}
        identity = {"grid": identity, "batch": batch, "block": block, "function": _code(function), "settings": settings}
        folder = recorded.folder(record, identity)
        parts = recorded.collect(record, jobs, settings=identity, progress=progress, through=stream)
        for name in (name for name, part in parts.items() if any(part["errors"])):  # memory may suffice next time
            (folder / f"{name}.npz").unlink()
    result = _gather(axes, batch, [(*places[name], parts[name]) for name in jobs])
    if progress and result.errors:
        point, text = result.errors[0]
        print(f"{len(result.errors)} of {result.failed.size} runs failed; the first, {point}: {text}", file=sys.stderr)
    return result


def select(result: Sweep, **labels: Any) -> Sweep:
    """The part of a sweep with the given values of the named axes, and without those axes.

    Raises
    ------
    ValueError
        If there is no such axis, or no such value on it; values are compared exactly.

    Examples
    --------
    >>> grid = {"depth": [2, 3], "seed": [0, 1, 2]}
    >>> result = run(lambda depth, seed: {"x": 10 * depth + seed}, grid, progress=False)
    >>> select(result, depth=3).arrays["x"].tolist()
    [30, 31, 32]
    """
    if not isinstance(result, Sweep):
        raise ValueError(f"result: got {validate.short(result)}, needs a Sweep, as `run` returns it")
    if unknown := [name for name in labels if name not in result.axes]:
        raise ValueError(f"{unknown[0]}: got an axis that the sweep has not, needs one of {', '.join(result.axes)}")
    place = []
    for name, values in result.axes.items():
        if name not in labels:
            place.append(slice(None))
            continue
        checks = {"U": lambda n, v: v if isinstance(v, str) else "", "b": validate.flag, "i": _whole, "u": _whole}
        wanted = checks.get(values.dtype.kind, validate.number)(name, labels[name])
        if not (found := np.flatnonzero(values == wanted)).size:
            raise ValueError(f"{name}: got {labels[name]!r}, needs one of the sweep's: {validate.short(values)}")
        place.append(int(found[0]))
    kept = {name: result.axes[name][i].item() for name, i in zip(result.axes, place) if isinstance(i, int)}
    errors = [(point, text) for point, text in result.errors if all(point[name] == kept[name] for name in kept)]
    return Sweep(
        axes={name: values for name, values in result.axes.items() if name not in kept},
        arrays={name: array[tuple(place)] for name, array in result.arrays.items()},
        failed=result.failed[tuple(place)],
        errors=tuple(({n: v for n, v in point.items() if n not in kept}, text) for point, text in errors),
        seconds=result.seconds,
    )


# -- one block --------------------------------------------------------------------------------------------------------
def _do(function, point, batch, values) -> dict:
    """Do a block. Returns ``sizes`` and ``errors`` of its pieces, and the arrays of piece i as ``i/name``."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # of this process, or of OpenMP in this thread of the caller's
        pieces = _pieces(function, point, batch, values)
    sizes, texts = [size for size, _, _ in pieces], [text for _, _, text in pieces]
    arrays = {f"{i}/{name}": array for i, (_, held, _) in enumerate(pieces) for name, array in held.items()}
    return {"sizes": np.array(sizes), "errors": np.array(texts)} | arrays


def _pieces(function, point, batch, values):
    """Size, arrays and error of each piece of a block: one, unless a run raises, which halving singles out."""
    count = 1 if batch is None else len(values)
    try:
        returned = function(**point, **({} if batch is None else {batch: values.copy()}))  # it may write into them
    except Exception as error:
        if count == 1:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            return [(1, {}, text[:500])]
        parts = values[: count // 2], values[count // 2 :]
        return [piece for part in parts for piece in _pieces(function, point, batch, part)]
    try:
        return [(count, _checked(returned, None if batch is None else count), "")]
    except TypeError as error:  # what the function returns is wrong for each run of the block
        return [(count, {}, str(error))]


def _checked(returned, count):
    """What a function returned, as arrays with the runs in front."""
    if not isinstance(returned, dict) or not all(isinstance(name, str) for name in returned):
        raise TypeError(f"returned {validate.short(returned)}, needs a dict of arrays")
    arrays = {}
    for name, value in returned.items():
        try:
            array = np.array(value)  # a copy: the function may use its memory again
        except ValueError:  # ragged
            array = np.asarray(None)
        if array.dtype.kind not in "biufcU" or isinstance(value, np.ma.MaskedArray):
            raise TypeError(f"returned {validate.short(value)} as {name!r}, needs an array of numbers or text")
        if count is not None and array.shape[:1] != (count,):
            raise TypeError(f"returned {name!r} of shape {array.shape} for {count} runs, needs {count} in front")
        arrays[name] = array[None] if count is None else array
    return arrays


# -- all blocks -------------------------------------------------------------------------------------------------------
def _stream(n_jobs, jobs) -> Generator:
    """Name, arrays and seconds of each job as it is finished."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # here too: OpenBLAS may take the number from the main thread alone
        if n_jobs == 1:
            yield from (_timed(name, job) for name, job in jobs.items())
            return
        from joblib import Parallel, delayed, effective_n_jobs

        n_jobs = max(1, min(effective_n_jobs(n_jobs), len(jobs)))  # joblib starts as many as it is told
        parallel = Parallel(n_jobs=n_jobs, return_as="generator_unordered")
        with contextlib.closing(parallel(delayed(_timed)(name, job) for name, job in jobs.items())) as finished:
            yield from finished


def _timed(name, job):
    began = time.thread_time()  # with one BLAS thread this is all of it, also where threads share a process
    arrays = job()
    return name, arrays, time.thread_time() - began


def _collect(jobs, stream, progress):
    """What `recorded.collect` does, but kept in memory alone."""
    from tqdm import tqdm

    finished = tqdm(stream(jobs), total=len(jobs), desc="sweep", unit="block", disable=not progress)
    return {name: arrays | {"seconds": np.array(seconds)} for name, arrays, seconds in finished}


def _blocks(axes, batch, block):
    """Index of each point off the batch axis, with the slices of that axis."""
    others = [name for name in axes if name != batch]
    length = 1 if batch is None else axes[batch].size
    for place in itertools.product(*(range(axes[name].size) for name in others)):
        for start in range(0, length, block):
            yield dict(zip(others, place)), slice(start, min(start + block, length))


def _gather(axes, batch, parts):
    """Put blocks, given as (index, slice, part), in their places."""
    shape = tuple(values.size for values in axes.values())
    texts, pieces, wanted = np.full(shape, "", dtype=object), [], None
    for index, chosen, part in parts:
        start = chosen.start
        for i, (size, text) in enumerate(zip(part["sizes"].tolist(), part["errors"].tolist())):
            place = tuple(slice(start, start + size) if name == batch else index[name] for name in axes)
            start += size
            arrays = {name.partition("/")[2]: a for name, a in part.items() if name.startswith(f"{i}/")}
            form = {name: (a.shape[1:], a.dtype.kind == "U") for name, a in arrays.items()}
            wanted = form if wanted is None and not text else wanted
            if not text and form != wanted:
                text = f"returned {_described(form)}, needs {_described(wanted)} as the first run that did not fail"
            texts[place] = text
            if not text:
                pieces.append((place, arrays if batch else {name: a[0] for name, a in arrays.items()}))
    failed = texts != ""
    at = np.argwhere(failed).tolist()
    points = [{name: values[i].item() for (name, values), i in zip(axes.items(), place)} for place in at]
    return Sweep(
        axes=axes,
        arrays={name: _joined(name, tail, pieces, failed) for name, (tail, _) in (wanted or {}).items()},
        failed=failed,
        errors=tuple(zip(points, texts[failed].tolist())),
        seconds=sum(float(part["seconds"]) for _, _, part in parts),
    )


def _joined(name, tail, pieces, failed):
    """One array of all runs, of a dtype that holds what each returned."""
    array = np.zeros(failed.shape + tail, np.result_type(*{arrays[name].dtype for _, arrays in pieces}))
    if array.dtype.kind in "fc":  # under the mask, for functions that overlook masks, as `numpy.ptp` does
        array[failed] = np.nan
    for place, arrays in pieces:
        array[place] = arrays[name]
    if not failed.any():
        return array
    mask = np.broadcast_to(failed.reshape(failed.shape + (1,) * len(tail)), array.shape)
    return np.ma.masked_array(array, mask.copy())


def _described(form):
    words = [f"{name!r} of shape {tail}{' (text)' if text else ''}" for name, (tail, text) in form.items()]
    return ", ".join(words) or "nothing"


# -- arguments --------------------------------------------------------------------------------------------------------
def _axes(grid):
    """The axes of a grid as arrays."""
    if not isinstance(grid, dict) or not grid or not all(isinstance(name, str) and name for name in grid):
        raise ValueError(f"grid: got {validate.short(grid)}, needs a dict of at least one name with its values")
    axes = {}
    for name, given in grid.items():
        try:
            values = np.array(given)
        except ValueError:  # ragged
            values = np.array(None)
        listed = not isinstance(given, np.ma.MaskedArray) and values.ndim == 1 and values.size > 0
        words = values.dtype.kind == "U" and all(isinstance(value, str) for value in given)
        numbers = values.dtype.kind in "biuf" and np.isfinite(values).all()
        if not listed or not (words or numbers) or np.unique(values).size < values.size:
            raise ValueError(
                f"grid: got {validate.short(given)} as {name!r}, needs finite numbers, words or flags, no two alike"
            )
        axes[name] = values
    return axes


def _whole(name, label):
    """A number, as an integer where it is one: seeds beyond 2^53 are not told apart as floats."""
    number = validate.number(name, label)
    return int(label) if number.is_integer() else number


def _record(record):
    if record is None:
        return None
    if not isinstance(record, str | Path) or Path(record).suffix != ".npz":
        raise ValueError(f"record: got {validate.short(record)}, needs the path of an .npz file")
    return Path(record)


def _settings(settings):
    try:
        json.dumps(settings)
    except (TypeError, ValueError):
        settings = ()
    if settings is not None and not isinstance(settings, dict):
        raise ValueError("settings: got what JSON cannot hold, or no dict; needs a dict of numbers, words and lists")
    return settings or {}


def _code(function):
    """Digest of a function's source; a change of it begins a recorded sweep anew."""
    inner = function
    while isinstance(inner, functools.partial):  # what it binds is for the settings to say
        inner = inner.func
    try:
        if getattr(inner, "__name__", "") == "<lambda>":
            raise TypeError("the source of a lambda is its line, which may hold another")
        return recorded.code_digest(textwrap.dedent(inspect.getsource(inner)))
    except (OSError, TypeError, SyntaxError) as error:
        raise ValueError(
            f"function: got {validate.short(function)}, whose source cannot be read ({error}), "
            f"needs with a record one made with `def` in a file or a notebook, so that finished blocks of another are known"
        ) from error
