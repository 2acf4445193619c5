"""Recorded runs: resumed after an interruption, written whole or not at all, with a bar and a note of what was run."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from eoslib import recorded


def job(name, done, value=1.0):
    def run():
        done.append(name)
        return {"x": np.full(3, value)}

    return run


def fail(error):
    def run():
        raise error

    return run


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("bad luck")])
def test_a_run_goes_on_where_it_stopped(tmp_path, error):
    record, done = tmp_path / "run.npz", []
    jobs = {"q2.1-seed-1": job("first", done), "b": fail(error), "c": job("third", done)}
    with pytest.raises(type(error)):
        recorded.collect(record, jobs)
    assert done == ["first"] and not record.exists()
    assert [path.name for path in (tmp_path / "run.parts").iterdir()] == ["q2.1-seed-1.npz"]
    parts = recorded.collect(record, jobs | {"b": job("second", done, 2.0)})
    assert done == ["first", "second", "third"]
    assert list(parts) == list(jobs)
    assert [part["x"].tolist() for part in parts.values()] == [[1.0] * 3, [2.0] * 3, [1.0] * 3]


def test_a_run_survives_a_kill_that_nothing_can_catch(tmp_path):
    record, done = tmp_path / "run.npz", []
    script = (
        "import os, signal, sys, pathlib, numpy as np\n"
        "from eoslib import recorded\n"
        "jobs = {'a': lambda: {'x': np.arange(2)}, 'b': lambda: os.kill(os.getpid(), signal.SIGKILL)}\n"
        "recorded.collect(pathlib.Path(sys.argv[1]), jobs)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(record)], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    parts = recorded.collect(record, {"a": job("a", done), "b": job("b", done)})
    assert done == ["b"] and parts["a"]["x"].tolist() == [0, 1]


def test_the_processor_time_of_a_part_is_that_of_its_first_run(tmp_path):
    def busy():
        began = time.process_time()
        while time.process_time() - began < 0.05:
            pass
        return {"x": np.zeros(1)}

    first = recorded.collect(tmp_path / "run.npz", {"a": busy, "b": lambda: {"x": np.zeros(1)}})
    again = recorded.collect(tmp_path / "run.npz", {"a": fail(AssertionError("done again"))})
    assert 0.05 <= first["a"]["seconds"] == again["a"]["seconds"]
    assert first["b"]["seconds"] < 0.05


def test_a_part_that_was_half_written_does_not_count(tmp_path):
    record, done = tmp_path / "run.npz", []
    (tmp_path / "run.parts").mkdir()
    (tmp_path / "run.parts" / "a.partial.npz").write_bytes(b"half of it")
    recorded.collect(record, {"a": job("a", done)})
    assert done == ["a"]
    recorded.save(record, {}, 0.0, {"x": np.zeros(1)})
    assert list(tmp_path.iterdir()) == [record]


@pytest.mark.parametrize("when", ["writing", "replacing"])
def test_a_write_that_fails_leaves_the_old_record(tmp_path, monkeypatch, when):
    record = tmp_path / "run.npz"
    recorded.save(record, {"seed": 0}, 1.0, {"x": np.zeros(3)})
    recorded.collect(record, {"a": job("a", [])})

    def half(file, **arrays):
        file.write_bytes(b"PK half")
        raise OSError("disk full")

    def refuse(*paths):
        raise OSError("disk full")

    monkeypatch.setattr(*((np, "savez_compressed", half) if when == "writing" else (os, "replace", refuse)))
    with pytest.raises(OSError, match="disk full"):
        recorded.save(record, {"seed": 1}, 1.0, {"x": np.ones(3)})
    monkeypatch.undo()
    old = recorded.load(record)
    assert old["about"]["settings"] == {"seed": 0} and not old["x"].any()
    assert (tmp_path / "run.parts" / "a.npz").exists()  # nothing that was computed is lost either
    recorded.save(record, {"seed": 1}, 1.0, {"x": np.ones(3)})
    assert recorded.load(record)["x"].all() and list(tmp_path.iterdir()) == [record]


def test_the_record_appears_in_one_step(tmp_path, monkeypatch):
    record, replace, seen = tmp_path / "run.npz", os.replace, []

    def watch(scratch, path):
        with np.load(scratch) as file:  # complete before it gets its name
            seen.append((scratch.parent, record.exists(), sorted(file.files)))
        replace(scratch, path)

    monkeypatch.setattr(os, "replace", watch)
    recorded.save(record, {}, 0.0, {"x": np.zeros(2)})
    assert seen == [(tmp_path, False, ["about", "x"])]


def test_only_its_own_parts_are_removed(tmp_path):
    for name in ("one", "two"):
        recorded.collect(tmp_path / f"{name}.npz", {"a": job("a", [])})
    recorded.save(tmp_path / "one.npz", {}, 0.0, {"x": np.zeros(1)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.npz", "two.parts"]
    assert (tmp_path / "two.parts" / "a.npz").exists()


def test_the_bar_fills(tmp_path, capsys):
    recorded.collect(tmp_path / "run.npz", {name: job(name, []) for name in "abc"})
    out, err = capsys.readouterr()
    assert out == "" and err.endswith("\n") and err.count("\n") == 1
    frames = err.strip().split("\r")
    assert [frame.count("#") for frame in frames] == [0, 10, 20, 30]
    assert all(frame.index("]") == 31 for frame in frames)
    assert [frame.split("]")[1].split() for frame in frames] == [
        ["0/3", "a"],
        ["1/3", "b"],
        ["2/3", "c"],
        ["3/3", "done"],
    ]


def test_a_run_without_jobs_is_done(tmp_path, capsys):
    assert recorded.collect(tmp_path / "run.npz", {}) == {}
    assert "0/0 done" in capsys.readouterr().err


def test_the_note_says_what_was_run_on_what(tmp_path):
    record, began = tmp_path / "run.npz", time.strftime("%Y-%m-%d", time.gmtime())
    settings = {"rates": [0.1, 0.2], "seed": 3, "start": "unbalanced"}
    arrays = {"x": np.arange(4, dtype=np.float32), "family/y": np.array([-np.inf, np.nan])}
    recorded.save(record, settings, 12.345, arrays, packages=("numpy", "mpmath"))
    again = recorded.load(record)
    about = again.pop("about")
    assert about["settings"] == settings and about["cpu_seconds"] == 12.3
    assert about["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert about["versions"]["numpy"] == np.__version__ and set(about["versions"]) == {"python", "numpy", "mpmath"}
    assert about["machine"] and about["date"] in (began, time.strftime("%Y-%m-%d", time.gmtime()))
    assert list(again) == list(arrays)
    for name, array in arrays.items():
        assert again[name].dtype == array.dtype and np.array_equal(again[name], array, equal_nan=True)
    with np.load(record, allow_pickle=False) as file:  # readable without this library
        assert json.loads(str(file["about"])) == about


def test_settings_that_cannot_be_noted_leave_the_old_record(tmp_path):
    record = tmp_path / "run.npz"
    recorded.save(record, {"seed": 0}, 1.0, {"x": np.zeros(3)})
    with pytest.raises(TypeError, match="not JSON serializable"):
        recorded.save(record, {"rates": np.ones(3)}, 1.0, {"x": np.ones(3)})
    assert recorded.load(record)["about"]["settings"] == {"seed": 0}


def test_arrays_that_could_not_be_read_back_are_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match="objects in .'y'., needs numbers"):
        recorded.collect(tmp_path / "run.npz", {"a": lambda: {"x": np.zeros(1), "y": np.array([1, None])}})
    assert not list((tmp_path / "run.parts").iterdir())
