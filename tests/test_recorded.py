"""Recorded runs: resumed after an interruption, written whole or not at all, known by what made them, and refused if altered."""

import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import filelock
import numpy as np
import pytest
import threadpoolctl

from eoslib import recorded

FOLDER = Path(__file__).resolve().parents[1] / "recorded"
SETTINGS = {"rates": [0.1, 0.2], "seed": 3}


@pytest.fixture(autouse=True)
def _no_lock_outlives_a_test():
    yield
    for path in list(recorded._locks):
        recorded._locks.pop(path).release()


def job(name, done, value=1.0):
    def run():
        done.append(name)
        return {"x": np.full(3, value)}

    return run


def fail(error):
    def run():
        raise error

    return run


def collect(record, jobs, settings=SETTINGS):
    return recorded.collect(record, jobs, settings=settings, progress=False)


def parts_of(record, settings=SETTINGS):
    return recorded.folder(record, settings)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# -- interruption -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("bad luck")])
def test_a_run_goes_on_where_it_stopped(tmp_path, error):
    record, done = tmp_path / "run.npz", []
    jobs = {"q2.1-seed-1": job("first", done), "b": fail(error), "c": job("third", done)}
    with pytest.raises(type(error)):
        collect(record, jobs)
    assert done == ["first"] and not record.exists()
    assert names(parts_of(record)) == ["q2.1-seed-1.npz"]
    parts = collect(record, jobs | {"b": job("second", done, 2.0)})
    assert done == ["first", "second", "third"]
    assert list(parts) == list(jobs)
    assert [part["x"].tolist() for part in parts.values()] == [[1.0] * 3, [2.0] * 3, [1.0] * 3]


SCRIPT = """
import pathlib, sys, time, numpy as np
from eoslib import recorded
def part(seed):
    time.sleep({pause})
    return {{"x": np.random.default_rng(seed).standard_normal(1000)}}
record = pathlib.Path(sys.argv[1])
parts = recorded.collect(record, {{f"p{{i}}": lambda i=i: part(i) for i in range({count})}}, settings={{"seed": 0}})
recorded.save(record, {{"seed": 0}}, 0.0, {{name: part["x"] for name, part in parts.items()}})
"""


def test_a_run_killed_at_random_moments_ends_with_the_same_record(tmp_path):
    (tmp_path / "run.py").write_text(SCRIPT.format(pause=0.05, count=30))
    (tmp_path / "whole").mkdir()
    shutil.copy(tmp_path / "run.py", tmp_path / "whole")

    def start(folder):
        return subprocess.Popen([sys.executable, folder / "run.py", folder / "run.npz"], stderr=subprocess.DEVNULL)

    def done():
        return sum(".partial" not in path.name for path in tmp_path.glob("run.parts/*/p*.npz"))

    assert start(tmp_path / "whole").wait() == 0
    rng, kills = np.random.default_rng(), 0
    for _ in range(4):
        process, before = start(tmp_path), done()
        while done() == before and process.poll() is None:
            time.sleep(0.002)  # until it has done something
        time.sleep(rng.uniform(0, 0.15))  # any moment will do
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills >= 2 and not (tmp_path / "run.npz").exists() and start(tmp_path).wait() == 0
    one, two = (recorded.load(folder / "run.npz") for folder in (tmp_path, tmp_path / "whole"))
    same = ("settings", "script", "library", "versions", "threads")
    assert {key: one["about"][key] for key in same} == {key: two["about"][key] for key in same}
    assert list(one) == list(two) and all(np.array_equal(one[f"p{i}"], two[f"p{i}"]) for i in range(30))
    assert names(tmp_path) == ["digests.json", "run.lock", "run.npz", "run.py", "whole"]


def test_the_processor_time_of_a_part_is_that_of_its_first_run(tmp_path):
    def busy():
        began = time.process_time()
        while time.process_time() - began < 0.05:
            pass
        return {"x": np.zeros(1)}

    first = collect(tmp_path / "run.npz", {"a": busy, "b": lambda: {"x": np.zeros(1)}})
    again = collect(tmp_path / "run.npz", {"a": fail(AssertionError("done again")), "b": fail(AssertionError())})
    assert 0.05 <= first["a"]["seconds"] == again["a"]["seconds"]
    assert first["b"]["seconds"] < 0.05


def test_a_part_that_was_half_written_does_not_count(tmp_path):
    record, done = tmp_path / "run.npz", []
    parts_of(record).mkdir(parents=True)
    (parts_of(record) / "a.123.partial.npz").write_bytes(b"half of it")
    collect(record, {"a": job("a", done)})
    assert done == ["a"] and names(parts_of(record)) == ["a.npz"]


def test_a_job_may_keep_its_own_state(tmp_path):
    record = tmp_path / "run.npz"
    state = parts_of(record) / "a.checkpoint"

    def half():
        state.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(record, {"a": half})
    seen = []
    collect(record, {"a": lambda: seen.append(state.read_text()) or {"x": np.zeros(1)}})
    assert seen == ["half"] and not state.exists()


# -- what parts are known by ------------------------------------------------------------------------------------------
def test_parts_of_other_settings_are_neither_used_nor_lost(tmp_path):
    record, done = tmp_path / "run.npz", []
    collect(record, {"a": job("old", done)}, {"seed": 0})
    parts = collect(record, {"a": job("new", done, 2.0)}, {"seed": 1})
    assert done == ["old", "new"] and parts["a"]["x"][0] == 2
    recorded.save(record, {"seed": 1}, 0.0, {"x": parts["a"]["x"]})
    assert collect(record, {"a": fail(AssertionError())}, {"seed": 0})["a"]["x"][0] == 1


def test_parts_of_another_script_or_library_are_not_used(tmp_path, monkeypatch):
    record = tmp_path / "run.npz"
    places = [parts_of(record)]
    for text in ("STEPS = 3\n", "STEPS = 4\n", "STEPS=4  # a comment\n"):
        (tmp_path / "run.py").write_text(text)
        places.append(parts_of(record))
    assert len(set(places)) == 3 and places[2] == places[3]
    monkeypatch.setattr(recorded, "_library", lambda: "other")
    assert parts_of(record) not in places


def test_what_a_run_loads_on_request_is_known_beforehand():
    """Else a change of it is not noticed, and the second call of a process does all parts again."""
    modules = {path.stem for path in (FOLDER.parent / "eoslib").glob("*.py")}
    assert set(recorded._ON_REQUEST) < modules
    code = """
        import sys
        from eoslib import descent, recorded, scalar
        first = recorded._library()
        assert "eoslib.compiled" not in sys.modules and "eoslib.cuda" not in sys.modules
        import eoslib.cuda, eoslib.compiled
        assert recorded._library() == first
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, cwd=FOLDER.parent)


def test_code_is_known_by_what_it_does():
    code = 'READERS = ("load",)\ndef run(x):\n    "Doc."\n    return f"{x:.1f}", x + 1\ndef load():\n    return 1\n'
    digest = recorded.code_digest(code)
    same = [code.replace('"Doc."', "'''Other.'''"), code.replace("return 1", "return 2"), "\n# new\n" + code]
    other = [
        code.replace("x + 1", "x + 2"),
        code.replace("x + 1", "x - 1"),
        code.replace(".1f", ".2f"),
        code + "y = 1\n",
    ]
    assert all(recorded.code_digest(text) == digest for text in same)
    assert len({recorded.code_digest(text) for text in other} | {digest}) == 5
    # the same number in every version of Python
    assert recorded.code_digest("x = [1, *a]\n").startswith(KNOWN)


KNOWN = "13539beda8e9"


def test_settings_that_are_no_json_are_refused_before_anything_is_done(tmp_path):
    done = []
    with pytest.raises(TypeError, match="not JSON serializable"):
        collect(tmp_path / "run.npz", {"a": job("a", done)}, {"rates": np.ones(3)})
    assert not done


# -- damage, strays, two at once --------------------------------------------------------------------------------------
@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: b"not a zip file"])
def test_a_damaged_part_is_named(tmp_path, damage):
    record, done = tmp_path / "run.npz", []
    collect(record, {"a": job("a", done), "b": job("b", done)})
    path = parts_of(record) / "b.npz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="b.npz: is damaged"):
        collect(record, {"a": job("a", done), "b": job("b", done)})
    path.unlink()
    collect(record, {"a": job("a", done), "b": job("b", done)})
    assert done == ["a", "b", "b"]


def test_a_part_with_other_numbers_is_named(tmp_path):
    record = tmp_path / "run.npz"
    collect(record, {"a": job("a", [])})
    path = parts_of(record) / "a.npz"
    with np.load(path) as file:
        arrays = dict(file)
    np.savez_compressed(path, **arrays | {"x": arrays["x"] * 1.3})
    with pytest.raises(ValueError, match="a.npz: its array x was altered"):
        collect(record, {"a": job("a", [])})


def test_a_stray_file_is_named(tmp_path):
    record = tmp_path / "run.npz"
    collect(record, {"a": job("a", [])})
    (parts_of(record) / "a-copy.npz").write_bytes(b"")
    with pytest.raises(ValueError, match="a-copy.npz: is no part of this run"):
        collect(record, {"a": job("a", [])})


def test_two_runs_at_once_are_told(tmp_path):
    (tmp_path / "run.py").write_text(SCRIPT.format(pause=60, count=2))
    process = subprocess.Popen([sys.executable, tmp_path / "run.py", tmp_path / "run.npz"], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("run.parts/*")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(RuntimeError, match="run.npz: another process is making this record"):
            collect(tmp_path / "run.npz", {"a": job("a", [])})
        assert collect(tmp_path / "other.npz", {"a": job("a", [])})
    finally:
        process.kill()
        process.wait()
    assert collect(tmp_path / "run.npz", {"a": job("a", [])})  # the lock ended with the process


# -- writing ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("when", ["writing", "replacing"])
def test_a_write_that_fails_leaves_the_old_record(tmp_path, monkeypatch, when):
    record = tmp_path / "run.npz"
    recorded.save(record, {"seed": 0}, 1.0, {"x": np.zeros(3)})
    collect(record, {"a": job("a", [])})

    def half(file, **arrays):
        file.write_bytes(b"PK half")
        raise OSError("disk full")

    def refuse(*paths):
        raise OSError("disk full")

    monkeypatch.setattr(*((np, "savez_compressed", half) if when == "writing" else (os, "replace", refuse)))
    with pytest.raises(OSError, match="disk full"):
        recorded.save(record, SETTINGS, 1.0, {"x": np.ones(3)})
    monkeypatch.undo()
    old = recorded.load(record)
    assert old["about"]["settings"] == {"seed": 0} and not old["x"].any()
    assert names(parts_of(record)) == ["a.npz"]  # nothing that was computed is lost either
    recorded.save(record, SETTINGS, 1.0, {"x": np.ones(3)})
    assert recorded.load(record)["x"].all() and names(tmp_path) == ["digests.json", "run.lock", "run.npz"]


def test_the_record_appears_in_one_step(tmp_path, monkeypatch):
    record, replace, seen = tmp_path / "run.npz", os.replace, []

    def watch(scratch, path):
        if path == record:
            with np.load(scratch) as file:  # complete before it gets its name
                seen.append((scratch.parent, record.exists(), sorted(file.files)))
        replace(scratch, path)

    monkeypatch.setattr(os, "replace", watch)
    recorded.save(record, {}, 0.0, {"x": np.zeros(2)})
    assert seen == [(tmp_path, False, ["about", "x"])]


def test_only_its_own_parts_are_removed(tmp_path):
    for name in ("one", "two"):
        collect(tmp_path / f"{name}.npz", {"a": job("a", [])})
    recorded.save(tmp_path / "one.npz", SETTINGS, 0.0, {"x": np.zeros(1)})
    assert names(tmp_path) == ["digests.json", "one.lock", "one.npz", "two.lock", "two.parts"]


def test_the_bar_fills(tmp_path, capsys):
    recorded.collect(tmp_path / "run.npz", {name: job(name, []) for name in "abc"})
    out, err = capsys.readouterr()
    assert out == "" and "0/3" in err and "3/3" in err and "run" in err


def test_a_run_without_jobs_is_done(tmp_path):
    assert collect(tmp_path / "run.npz", {}) == {}


def test_the_note_says_what_was_run_on_what(tmp_path):
    record, began = tmp_path / "run.npz", time.strftime("%Y-%m-%d", time.gmtime())
    arrays = {"x": np.arange(4, dtype=np.float32), "family/y": np.array([-np.inf, np.nan]), "t": np.array(["é"])}
    (tmp_path / "run.py").write_text("STEPS = 3\n")
    source = {"mnist": {"source": "mnist", "sha256": "af"}}
    recorded.save(record, SETTINGS, 12.345, arrays, packages=("numpy", "mpmath"), data=source, remarks={"bits": 64})
    again = recorded.load(record, settings=SETTINGS)
    about = again.pop("about")
    assert about["settings"] == SETTINGS and about["cpu_seconds"] == 12.3
    assert about["data"] == source and about["remarks"] == {"bits": 64}
    assert about["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert about["versions"]["numpy"] == np.__version__ and set(about["versions"]) == {"python", "numpy", "mpmath"}
    assert about["machine"] and about["date"] in (began, time.strftime("%Y-%m-%d", time.gmtime()))
    assert about["script"] == recorded.code_digest("STEPS = 3") and len(about["library"]) == 64
    assert "processor" in about and all(isinstance(n, int) for n in about["threads"].values())
    assert list(again) == list(arrays)
    for name, array in arrays.items():
        floating = array.dtype.kind == "f"
        assert again[name].dtype == array.dtype and np.array_equal(again[name], array, equal_nan=floating)
    with np.load(record, allow_pickle=False) as file:  # readable without this library
        assert json.loads(str(file["about"]))["settings"] == SETTINGS


def test_settings_that_cannot_be_noted_leave_the_old_record(tmp_path):
    record = tmp_path / "run.npz"
    recorded.save(record, {"seed": 0}, 1.0, {"x": np.zeros(3)})
    with pytest.raises(TypeError, match="not JSON serializable"):
        recorded.save(record, {"rates": np.ones(3)}, 1.0, {"x": np.ones(3)})
    assert recorded.load(record)["about"]["settings"] == {"seed": 0}


def test_arrays_that_could_not_be_read_back_are_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match="objects in .'y'., needs numbers"):
        collect(tmp_path / "run.npz", {"a": lambda: {"x": np.zeros(1), "y": np.array([1, None])}})
    assert not names(parts_of(tmp_path / "run.npz"))
    with pytest.raises(ValueError, match="^arrays: got {7: .* needs a dict of arrays by their names"):
        recorded.save(tmp_path / "run.npz", {}, 0.0, {7: np.zeros(1)})
    for jobs in ({7: job("a", [])}, {"a": 1}, [job("a", [])]):
        with pytest.raises(ValueError, match="^jobs: got .* needs a dict of functions by their names"):
            collect(tmp_path / "run.npz", jobs)
    with pytest.raises(ValueError, match="'about', needs other names"):
        recorded.save(tmp_path / "run.npz", {}, 0.0, {"about": np.zeros(1)})


# -- tampering --------------------------------------------------------------------------------------------------------
@pytest.fixture
def made(tmp_path):
    record = tmp_path / "run.npz"
    (tmp_path / "run.py").write_text("STEPS = 3\n")
    arrays = {"curve": np.linspace(0, 1, 50), "rotation": np.arange(6.0).reshape(2, 3), "name": np.array("text")}
    recorded.save(record, SETTINGS, 1.0, arrays)
    assert recorded.load(record, settings=SETTINGS)["rotation"].shape == (2, 3)
    return record


def rewrite(record, change, *, seal=False):
    """Change a record's arrays or note as somebody with NumPy, or with this library, would."""
    with np.load(record) as file:
        arrays = dict(file)
    note = json.loads(str(arrays.pop("about")))
    change(arrays, note)
    if seal:
        note.pop("arrays"), note.pop("checksum")
        np.savez_compressed(record, **recorded._sealed(arrays, note))
    else:
        np.savez_compressed(record, **arrays, about=np.array(json.dumps(note)))


EDITS = {
    "a curve times 1.3": (lambda a, n: a.update(curve=a["curve"] * 1.3), "its array curve was altered"),
    "the last digit of one number": (
        lambda a, n: a["rotation"].__setitem__((1, 2), np.nextafter(5, 6)),
        "its array rotation was altered",
    ),
    "another shape": (lambda a, n: a.update(rotation=a["rotation"].T.copy()), "its array rotation was altered"),
    "another dtype": (lambda a, n: a.update(curve=a["curve"].astype(">f8")), "its array curve was altered"),
    "an array less": (lambda a, n: a.pop("name"), "its array name was altered"),
    "an array more": (lambda a, n: a.update(extra=np.zeros(1)), "its array extra was altered"),
    "two arrays exchanged": (
        lambda a, n: a.update(curve=a["rotation"], rotation=a["curve"]),
        "its arrays curve, rotation were altered",
    ),
    "a setting": (lambda a, n: n["settings"].update(seed=4), "its note was altered"),
    "the date": (lambda a, n: n.update(date="2000-01-01"), "its note was altered"),
    "the run time": (lambda a, n: n.update(cpu_seconds=0.1), "its note was altered"),
    "the script's digest": (lambda a, n: n.update(script="0" * 64), "its note was altered"),
    "no checksum": (lambda a, n: n.pop("checksum"), "its note was altered"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_record_is_refused_and_the_edit_named(made, name):
    change, message = EDITS[name]
    rewrite(made, change)
    with pytest.raises(ValueError, match=f"run.npz: {message}"):
        recorded.load(made)


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_record_with_new_checksums_is_not_the_listed_one(made, name):
    rewrite(made, EDITS[name][0] if name != "no checksum" else lambda a, n: n.update(date="2000-01-01"), seal=True)
    with pytest.raises(
        ValueError, match="run.npz: is whole, but is not the record listed in digests.json: expected sha256"
    ):
        recorded.load(made)


def test_a_record_without_the_list_is_refused_until_it_is_entered(made):
    """Else who altered a record had only to remove the list."""
    made.with_name("digests.json").unlink()
    for read in (recorded.load, recorded.listed):
        with pytest.raises(ValueError, match="run.npz: there is no digests.json beside it"):
            read(made)
    recorded.enter(made)
    assert recorded.load(made, settings=SETTINGS)["curve"][-1] == 1


def test_every_flipped_byte_is_noticed(made):
    raw, rng = made.read_bytes(), np.random.default_rng(0)
    places = np.unique(np.concatenate([rng.integers(len(raw), size=150), np.arange(30), len(raw) - 1 - np.arange(30)]))
    for place in places:
        made.write_bytes(raw[:place] + bytes([raw[place] ^ (1 << rng.integers(8))]) + raw[place + 1 :])
        with pytest.raises(ValueError, match="run.npz"):
            recorded.load(made)
    made.write_bytes(raw)
    assert recorded.load(made)


@pytest.mark.parametrize("length", [0, 10, -1, -100])
def test_a_truncated_record_is_refused(made, length):
    made.write_bytes(made.read_bytes()[:length])
    with pytest.raises(ValueError, match="run.npz: is damaged"):
        recorded.load(made)


def test_a_record_of_other_settings_or_another_script_is_refused(made):
    with pytest.raises(ValueError, match="other settings: seed is 3, needs 4"):
        recorded.load(made, settings=SETTINGS | {"seed": 4})
    with pytest.raises(ValueError, match="other settings: more is not there, needs 1"):
        recorded.load(made, settings=SETTINGS | {"more": 1})
    script = made.with_suffix(".py")
    script.write_text("STEPS = 3  # the same\n")
    assert recorded.load(made)
    script.write_text("STEPS = 4\n")
    with pytest.raises(ValueError, match="made by another version of run.py"):
        recorded.load(made)


def test_the_record_of_another_run_under_this_name_is_refused(made):
    other = made.with_name("other.npz")
    recorded.save(other, SETTINGS, 1.0, {"x": np.zeros(1)})
    shutil.copy(other, made)
    with pytest.raises(ValueError, match="is not the record listed"):
        recorded.load(made)
    unlisted = made.with_name("unlisted.npz")
    shutil.copy(other, unlisted)
    with pytest.raises(ValueError, match="unlisted.npz: is whole, but is not .* expected sha256 None"):
        recorded.load(unlisted)


def test_a_record_from_before_checksums_is_adopted_with_a_remark(tmp_path):
    record = tmp_path / "run.npz"
    note = {"settings": SETTINGS, "date": "2020-01-01", "cpu_seconds": 2.0}
    np.savez_compressed(record, x=np.arange(3), about=np.array(json.dumps(note)))
    with pytest.raises(ValueError, match="never had a checksum"):
        recorded.load(record)
    recorded.adopt(record, "all of it replayed")
    again = recorded.load(record, settings=SETTINGS)
    assert again["x"].tolist() == [0, 1, 2] and again["about"]["date"] == "2020-01-01"
    assert again["about"]["remarks"]["adopted"].startswith("all of it replayed; checksums")
    with pytest.raises(ValueError, match="which has checksums"):
        recorded.adopt(record, "again")


def test_parts_collected_without_settings_go_with_the_record(tmp_path):
    recorded.collect(tmp_path / "run.npz", {"a": job("a", [])}, progress=False)
    recorded.save(tmp_path / "run.npz", SETTINGS, 0.0, {"x": np.zeros(1)})
    assert names(tmp_path) == ["digests.json", "run.lock", "run.npz"]


# -- the book's records -----------------------------------------------------------------------------------------------
def scripts():
    return sorted(path.with_suffix(".py") for path in FOLDER.glob("*.npz"))


@pytest.mark.parametrize("script", scripts(), ids=lambda path: path.stem)
def test_each_record_of_the_book_is_whole_listed_and_of_its_script(script, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    module = importlib.import_module(script.stem)
    about = recorded.load(module.RECORD)["about"]
    assert module.load() and module.RECORD.stat().st_size <= 2_000_000
    assert about["cpu_seconds"] > 0 and about["versions"]["numpy"] and about["settings"]


@pytest.mark.parametrize(
    ("figure", "record"),
    [
        ("1", "full_matrix_bifurcation"),
        ("9 (a, b)", "mild_sharpening_unet"),
        ("9 (c)", "mild_sharpening_images"),
        ("17", "relu_mnist"),
        ("19", "relu_layers"),
    ],
)
def test_the_run_time_of_a_recorded_figure_is_that_of_its_record(figure, record):
    text = (FOLDER.parent / "chapters" / "figures.md").read_text(encoding="utf8")
    amount, unit = re.search(rf"^\| {re.escape(figure)} \|.* (\d+) (min|s), recorded \|$", text, re.M).groups()
    seconds = recorded.load(FOLDER / f"{record}.npz")["about"]["cpu_seconds"]
    assert int(amount) == round(seconds / {"min": 60, "s": 1}[unit])


def test_git_ignores_what_a_run_leaves_beside_its_record():
    left = ["run.lock", "run.parts/0123/a.npz", "run.12.partial.npz", "digests.json.12.partial"]
    asked = ["git", "check-ignore", "--no-index", *(f"recorded/{name}" for name in left), "recorded/digests.json"]
    if not shutil.which("git") or not (FOLDER.parent / ".git").exists():
        pytest.skip("no git repository")
    found = subprocess.run(asked, cwd=FOLDER.parent, capture_output=True, text=True)
    assert found.stdout.split() == asked[3:-1]


def test_every_record_is_listed_and_nothing_else():
    listed = json.loads((FOLDER / "digests.json").read_text())
    there = {path.name for pattern in ("*.npz", "*.json") for path in FOLDER.glob(pattern)} - {"digests.json"}
    assert sorted(there) == sorted(listed)
    for name in listed:
        assert recorded.listed(FOLDER / name) == FOLDER / name


@pytest.fixture
def same_library(monkeypatch):
    """Parsing the whole library takes a second; here only that it does not change matters."""
    monkeypatch.setattr(recorded, "_library", lambda: "0" * 64)


# -- nothing is unpickled ---------------------------------------------------------------------------------------------
class Trap:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("read", [recorded.load, lambda record: recorded.adopt(record, "replayed")])
def test_a_record_with_a_pickle_is_refused_and_the_pickle_is_not_run(tmp_path, read):
    record, trap = tmp_path / "run.npz", tmp_path / "sprung"
    note = np.array(json.dumps({"settings": {}}))
    np.savez_compressed(record, x=np.array([Trap(trap)], dtype=object), about=note)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read(record)
    assert not trap.exists()
    with np.load(record, allow_pickle=True) as file:  # and it is a trap
        file["x"]
    assert trap.exists()


def test_a_record_that_is_not_there_is_not_called_damaged(tmp_path):
    with pytest.raises(FileNotFoundError):
        recorded.load(tmp_path / "run.npz")


# -- digests by another way -------------------------------------------------------------------------------------------
def test_the_checksums_are_those_that_the_format_says(tmp_path):
    record = tmp_path / "run.npz"
    x = np.arange(6, dtype=np.int16).reshape(2, 3)
    recorded.write(record, {"x": x.T, "y": np.zeros(0)}, {"settings": {"b": 1, "a": 2}})
    with np.load(record) as file:
        note = json.loads(str(file["about"]))
    digest = lambda data: hashlib.sha256(data).hexdigest()
    assert note["arrays"]["x"] == digest(b'["<i2", [3, 2]]' + np.array(x.T, order="C").tobytes())
    assert note["arrays"]["y"] == digest(b'["<f8", [0]]')
    checksum = note.pop("checksum")
    assert checksum == digest(json.dumps(note, sort_keys=True).encode())
    listed = json.loads((tmp_path / "digests.json").read_text())
    assert listed == {"run.npz": {"sha256": digest(record.read_bytes()), "script": None}}
    recorded.write(tmp_path / "b.npz", {}, {"settings": {}, "script": "s"})
    text = (tmp_path / "digests.json").read_text()
    again = json.loads(text)
    assert again["run.npz"] == listed["run.npz"] and again["b.npz"]["script"] == "s"  # other entries stay
    assert text == json.dumps(again, indent=1, sort_keys=True) + "\n"  # one line an entry, sorted: readable differences


def test_what_counts_as_the_same_code():
    digest = recorded.code_digest
    assert (
        digest("class A:\n    'Doc.'\n    x = 1\n")
        == digest("class A:\n    x = 1\n")
        != digest("class A:\n    x = 2\n")
    )
    assert digest("async def f():\n    'Doc.'\n    g()\n") == digest("async def f():\n    g()\n")
    assert digest("def f():\n    return\n") != digest("def g():\n    return\n")
    assert digest("'Module.'\nx = 1\n") == digest("x = 1\n") and digest("1\nx = 1\n") != digest("x = 1\n")
    assert digest("x = 'a'\n") != digest("x = 'b'\n") and digest("x = u'a'\n") == digest("x = 'a'\n")
    assert digest("def f():\n    x = 'a'\n    'b'\n") != digest("def f():\n    x = 'a'\n")
    assert digest("READERS = ['f']\ndef f(): 1\ndef g(): 1\n") == digest("READERS = ['f']\ndef f(): 2\ndef g(): 1\n")
    assert digest("READERS = ['f']\ndef f(): 1\ndef g(): 1\n") != digest("READERS = ['f']\ndef f(): 1\ndef g(): 2\n")
    assert digest("OTHERS = ['f']\ndef f(): 1\n") != digest("OTHERS = ['f']\ndef f(): 2\n")
    assert digest("") == digest("# nothing\n") == digest("'Only this.'\n")
    assert len(digest("")) == 64


def test_the_folder_of_the_parts_is_named_by_what_determines_them(same_library, tmp_path):
    record = tmp_path / "run.npz"
    place = recorded.folder(record, {"a": (1, 2)})
    assert (
        place == recorded.folder(record, {"a": [1, 2]})
        and place.parent == tmp_path / "run.parts"
        and len(place.name) == 16
    )
    assert len({place, recorded.folder(record), recorded.folder(record, {"a": [2, 1]})}) == 3
    assert recorded.folder(record) == recorded.folder(record, None)
    identity = json.dumps({"library": "0" * 64, "script": None, "settings": {"a": [1, 2]}})
    assert place.name == hashlib.sha256(identity.encode()).hexdigest()[:16]  # a later call finds what lies there


def test_a_part_that_cannot_be_written_leaves_nothing_and_lets_others_run(same_library, tmp_path, monkeypatch):
    record = tmp_path / "run.npz"

    def half(file, **arrays):
        file.write_bytes(b"PK half")
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(np, "savez_compressed", half)
        collect(record, {"a": job("a", [])})
    assert not names(parts_of(record)) and not recorded._locks
    lock = filelock.FileLock(str(tmp_path / "run.lock"))
    lock.acquire(timeout=0)  # it was released
    with pytest.raises(RuntimeError, match="run.npz: another process is making this record"):
        collect(record, {"a": job("a", [])})
    lock.release()
    collect(record, {"a": job("a", [])})
    collect(record, {"a": fail(AssertionError())})  # the same process may look again
    with pytest.raises(filelock.Timeout):
        lock.acquire(timeout=0)  # held until the record is saved
    recorded.save(record, SETTINGS, 0.0, {"x": np.zeros(1)})
    lock.acquire(timeout=0)
    lock.release()


def test_only_this_runs_files_may_lie_in_the_folder(same_library, tmp_path):
    record = tmp_path / "run.npz"
    place = parts_of(record)
    place.mkdir(parents=True)
    (place / "a.checkpoint").write_text("state")
    (place / "b.999.partial.npz").write_bytes(b"half")
    collect(record, {"a": lambda: {"x": np.zeros(1)}, "b": lambda: {"x": np.zeros(1)}})
    assert names(place) == ["a.npz", "b.npz"]
    (place / "c.checkpoint").write_text("of a part that this run does not have")
    with pytest.raises(ValueError, match="c.checkpoint: is no part of this run"):
        collect(record, {"a": job("a", []), "b": job("b", [])})


def test_a_record_says_which_array_and_what_digests(made):
    with np.load(made) as file:
        wanted = json.loads(str(file["about"]))["arrays"]["rotation"]
    rewrite(made, lambda a, n: a.update(rotation=a["rotation"] + 1))
    with pytest.raises(ValueError, match=f"its array rotation was altered: expected {wanted}, found [0-9a-f]{{64}}$"):
        recorded.load(made)


def test_what_is_read_back_and_compared(made):
    again = recorded.load(made)
    assert (
        set(again) == {"curve", "rotation", "name", "about"}
        and "arrays" not in again["about"]
        and "checksum" not in again["about"]
    )
    assert recorded.load(made, settings=json.loads(json.dumps(SETTINGS)))
    with pytest.raises(ValueError, match="other settings: rates is .0.1, 0.2., needs .0.1., seed is 3, needs 4$"):
        recorded.load(made, settings={"rates": [0.1], "seed": 4})


def test_the_time_the_bar_and_the_seconds(same_library, tmp_path, capsys):
    parts = recorded.collect(tmp_path / "run.npz", {"one": job("one", [])}, settings=SETTINGS, progress=False)
    assert capsys.readouterr().err == "" and parts["one"]["seconds"] >= 0 and set(parts["one"]) == {"x", "seconds"}
    recorded.collect(tmp_path / "two.npz", {"one": job("one", [])}, settings=SETTINGS)
    assert "one" in capsys.readouterr().err  # a bar unless told otherwise, with the part's name
    recorded.save(tmp_path / "run.npz", SETTINGS, 12.34, {"x": np.zeros(1)})
    about = recorded.load(tmp_path / "run.npz")["about"]
    assert (
        about["cpu_seconds"] == 12.3
        and about["data"] == {} == about["remarks"]
        and set(about["versions"]) == {"python", "numpy"}
    )
    assert about["script"] is None and list(about["threads"])


# -- what stands in a record, each thing by another way ---------------------------------------------------------------
def test_the_digest_of_code_is_that_of_its_tree_written_out():
    """Names and values of a node in the order of the grammar; a list or nothing at all that is empty has no place."""
    name = lambda text: ["Name", [["id", repr(text)]]]
    one = ["Constant", [["value", "1"]]]
    assign = ["Assign", [["targets", [name("x")]], ["value", one]]]
    argument = ["arguments", [["args", [["arg", [["arg", "'a'"]]]]]]]
    inner = ["Expr", [["value", ["Call", [["func", name("g")], ["args", [name("a")]]]]]]]
    define = ["FunctionDef", [["name", "'f'"], ["args", argument], ["body", [inner]]]]
    alone = ["If", [["test", name("x")], ["body", [["Expr", [["value", ["Constant", [["value", "'kept'"]]]]]]]]]]
    for text, tree in (
        ("x = 1\n", [assign]),
        ("'Doc.'\nx = 1\ndef f(a):\n    'Doc.'\n    g(a)\n", [assign, define]),
        ("if x:\n    'kept'\n", [alone]),  # a text in a block that is no definition documents nothing
        ("", []),
    ):
        wanted = hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
        assert recorded.code_digest(text) == wanted, text
    two = "READERS = other = ['f']\ndef f(): {}\n"
    assert recorded.code_digest(two.format(1)) == recorded.code_digest(two.format(2))


def test_the_library_is_the_modules_that_are_loaded_or_asked_for_later(tmp_path, monkeypatch):
    """One of ours that is not loaded counts where runs ask for it; strangers, and modules without a file, do not."""
    ours = [name for name in sys.modules if name == "eoslib" or name.startswith("eoslib.")]
    for name in ours:
        if name not in ("eoslib", "eoslib.recorded", "eoslib.validate"):
            monkeypatch.delitem(sys.modules, name)
    (tmp_path / "more.py").write_text("x = 'é'\n", encoding="utf8")
    added = SimpleNamespace(__file__=str(tmp_path / "more.py"))
    monkeypatch.setitem(sys.modules, "eoslib.more", added)
    monkeypatch.setitem(sys.modules, "eoslibrary", added)
    monkeypatch.setitem(sys.modules, "eoslib.without", SimpleNamespace(__file__=None))
    package = FOLDER.parent / "eoslib"
    paths = {f"eoslib.{name}": package / f"{name}.py" for name in ("compiled", "cuda", "validate")}
    paths |= {"eoslib": package / "__init__.py", "eoslib.more": tmp_path / "more.py"}
    digests = {name: recorded.code_digest(path.read_text(encoding="utf8")) for name, path in paths.items()}
    assert recorded._library() == hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def test_code_is_read_as_utf8_whatever_the_locale(tmp_path, monkeypatch):
    read, seen = Path.read_text, []
    monkeypatch.setattr(Path, "read_text", lambda path, *a, **k: seen.append((path.suffix, k)) or read(path, *a, **k))
    (tmp_path / "run.py").write_text("x = 'é'\n", encoding="utf8")
    assert recorded._script(tmp_path / "run.npz") == recorded.code_digest("x = 'é'\n")
    recorded._library()
    assert len(seen) > 3 and all(item == (".py", {"encoding": "utf8"}) for item in seen)


def test_a_record_is_of_the_script_that_the_run_began_with(same_library, tmp_path, monkeypatch):
    """An edit while it runs is no part of it; the run after that is of the new script."""
    record, script = tmp_path / "run.npz", tmp_path / "run.py"
    digests = {text: recorded.code_digest(text) for text in ("STEPS = 3\n", "STEPS = 4\n")}
    script.write_text("STEPS = 3\n")
    collect(record, {"a": job("a", [])})
    script.write_text("STEPS = 4\n")
    monkeypatch.setattr(recorded, "_library", lambda: "1" * 64)
    recorded.save(record, SETTINGS, 0.0, {"x": np.zeros(1)})
    with pytest.raises(ValueError, match="made by another version of run.py"):
        recorded.load(record)
    assert names(tmp_path) == ["digests.json", "run.lock", "run.npz", "run.py"]
    listed = lambda: json.loads((tmp_path / "digests.json").read_text())["run.npz"]["script"]
    assert listed() == digests["STEPS = 3\n"]
    script.write_text("STEPS = 3\n")
    assert recorded.load(record)["about"]["library"] == "0" * 64
    script.write_text("STEPS = 4\n")
    recorded.save(record, SETTINGS, 0.0, {"x": np.zeros(1)})  # without `collect`: of what is there now
    assert listed() == digests["STEPS = 4\n"] and recorded.load(record)["about"]["library"] == "1" * 64


def test_an_adopted_record_keeps_its_remarks_and_names_its_script(same_library, tmp_path):
    record, began = tmp_path / "run.npz", time.strftime("%Y-%m-%d", time.gmtime())
    (tmp_path / "run.py").write_text("STEPS = 3\n")
    note = {"settings": SETTINGS, "remarks": {"bits": 64}}
    np.savez_compressed(record, x=np.arange(3), about=np.array(json.dumps(note)))
    recorded.adopt(record, "replayed")
    about = recorded.load(record)["about"]
    assert set(about) == {"settings", "remarks", "script", "library"} and about["library"] is None
    assert about["script"] == recorded.code_digest("STEPS = 3\n") and about["remarks"]["bits"] == 64
    dates = (began, time.strftime("%Y-%m-%d", time.gmtime()))
    words = "replayed; checksums and the digest of the script were added on "
    assert about["remarks"]["adopted"] in [words + date for date in dates]


def test_five_of_many_altered_arrays_are_named_with_the_digests_of_the_first(tmp_path):
    record = tmp_path / "run.npz"
    recorded.write(record, {name: np.zeros(2) for name in "gfedcba"}, {"settings": {}})
    wanted, found = (recorded._array_digest(array) for array in (np.zeros(2), np.arange(2.0)))
    rewrite(record, lambda a, n: a.update(dict.fromkeys("abdefg", np.ones(2))) or a.update(a=np.arange(2.0)))
    with pytest.raises(ValueError, match=f"its arrays a, b, d, e, f were altered: expected {wanted}, found {found}$"):
        recorded.load(record)


def test_masked_arrays_are_refused(tmp_path):
    masked = np.ma.masked_array([1.0, 2.0], [False, True])
    with pytest.raises(ValueError, match=r"^arrays: got masked ones in \['y'\], whose masks would be lost"):
        recorded.write(tmp_path / "run.npz", {"x": np.zeros(1), "y": masked}, {"settings": {}})


def test_a_record_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: done.append(os.fstat(number).st_ino) or sync(number))
    monkeypatch.setattr(os, "replace", lambda a, b: done.append(os.stat(a).st_ino) or replace(a, b))
    recorded._write(tmp_path / "run.npz", {"x": np.zeros(1)})
    assert done == [os.stat(tmp_path / "run.npz").st_ino] * 2
    monkeypatch.setattr(os, "getpid", lambda: 7)  # a process leaves the half-written files of another alone
    (tmp_path / "run.8.partial.npz").write_bytes(b"of another")
    recorded._write(tmp_path / "run.npz", {"x": np.zeros(1)})
    assert names(tmp_path) == ["run.8.partial.npz", "run.npz"]


def test_who_finds_the_lock_taken_does_not_wait(same_library, tmp_path, monkeypatch):
    seen, acquire = [], filelock.FileLock.acquire
    monkeypatch.setattr(filelock.FileLock, "acquire", lambda lock, **k: seen.append(k) or acquire(lock, **k))
    collect(tmp_path / "run.npz", {"a": job("a", [])})
    collect(tmp_path / "run.npz", {"a": job("a", [])})  # it is held already
    assert seen == [{"timeout": 0}]
    (lock,) = recorded._locks.values()
    assert lock.is_locked
    recorded.save(tmp_path / "run.npz", SETTINGS, 0.0, {"x": np.zeros(1)})
    assert not lock.is_locked  # let go, and not by the end of its last reference


def test_the_bar_counts_parts_from_those_that_are_there(same_library, tmp_path, capsys):
    record = tmp_path / "run.npz"
    with pytest.raises(KeyboardInterrupt):
        collect(record, {"a": job("a", []), "b": fail(KeyboardInterrupt())})
    recorded.collect(record, {"a": job("a", []), "b": job("b", [])}, settings=SETTINGS)
    shown = capsys.readouterr().err
    assert "run: " in shown and "2/2" in shown and "part/s" in shown and "3/" not in shown


def test_parts_may_be_done_elsewhere_in_any_order(same_library, tmp_path):
    record, left, ended = tmp_path / "run.npz", [], []

    def through(jobs):
        left.append(list(jobs))
        try:
            for name in reversed(jobs):
                yield name, jobs[name](), 2.5
        finally:
            ended.append(True)

    jobs = {name: job(name, [], value) for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0))}
    with pytest.raises(KeyboardInterrupt):
        recorded.collect(
            record, jobs | {"b": fail(KeyboardInterrupt())}, settings=SETTINGS, progress=False, through=through
        )
    assert ended == [True] and left == [["a", "b", "c"]] and names(parts_of(record)) == ["c.npz"]
    parts = recorded.collect(record, jobs, settings=SETTINGS, progress=False, through=through)
    assert left[1:] == [["a", "b"]] and list(parts) == ["a", "b", "c"]
    assert [(part["x"][0], part["seconds"]) for part in parts.values()] == [(1, 2.5), (2, 2.5), (3, 2.5)]
    place = parts_of(record)
    notes = [recorded._read(place / f"{name}.npz", "")[1] for name in "ab"]
    assert notes == [{"part": name, "run": place.name} for name in "ab"]


def test_the_processor_is_named_as_the_system_names_it(monkeypatch):
    told = "processor\t: 0\nvendor_id\t: V\nmodel name\t: Chip: 9 at 2 GHz \nmodel name\t: second\n"
    seen = []
    monkeypatch.setattr(Path, "read_text", lambda path, **options: seen.append((str(path), options)) or told)
    assert recorded._processor() == "Chip: 9 at 2 GHz" and seen == [("/proc/cpuinfo", {"encoding": "utf8"})]
    told = "processor : 0\n"
    assert recorded._processor() == ""

    def missing(path, **options):
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(recorded.platform, "processor", lambda: "told otherwise")
    assert recorded._processor() == "told otherwise"


def test_the_threads_are_those_of_each_library(monkeypatch):
    pools = [{"internal_api": "openblas", "num_threads": 3}, {"internal_api": "openmp", "num_threads": 5}]
    monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda: pools)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(get_num_threads=lambda: 7))
    assert recorded._threads() == {"openblas": 3, "openmp": 5, "torch": 7}
    monkeypatch.delitem(sys.modules, "torch")
    assert recorded._threads() == {"openblas": 3, "openmp": 5}


def test_what_is_damaged_is_called_what_it_is_and_how_it_comes_back(same_library, tmp_path):
    record = tmp_path / "run.npz"
    collect(record, {"a": job("a", [])})
    (parts_of(record) / "a.npz").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"\); it is a part that is done again when this file is removed$"):
        collect(record, {"a": job("a", [])})
    record.write_bytes(b"half")
    with pytest.raises(ValueError, match=r"\); it is a record that its script makes again$"):
        recorded.load(record)


def test_a_part_that_stands_for_another_is_refused(same_library, tmp_path):
    record, jobs = tmp_path / "run.npz", {name: (lambda name=name: {"x": np.array([ord(name)])}) for name in "ab"}
    for seed in (1, 2):
        recorded.collect(record, jobs, settings={"seed": seed}, progress=False)
        recorded._release(record)
    one, two = (recorded.folder(record, {"seed": seed}) for seed in (1, 2))
    kept = (one / "a.npz").read_bytes()
    for other in (one / "b.npz", two / "a.npz"):  # another part of the run, and the same part of another run
        (one / "a.npz").write_bytes(other.read_bytes())
        with pytest.raises(ValueError, match=r"a\.npz: was made as .* it is a part that is done again"):
            recorded.collect(record, jobs, settings={"seed": 1}, progress=False)
    (one / "a.npz").write_bytes(kept)
    assert recorded.collect(record, jobs, settings={"seed": 1}, progress=False)["a"]["x"] == ord("a")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"flag": True, "bound": float("nan")}, "keep is null, needs none"),
        ({"flag": True, "bound": float("nan"), "keep": None, "more": None}, "more is not there, needs null"),
        ({"flag": 1, "bound": float("nan"), "keep": None}, "flag is true, needs 1"),
        ({"flag": True, "bound": 0.5, "keep": None}, "bound is NaN, needs 0.5"),
    ],
)
def test_settings_are_compared_by_kind_and_presence(same_library, tmp_path, settings, words):
    made = {"flag": True, "bound": float("nan"), "keep": None}
    recorded.save(record := tmp_path / "run.npz", made, 1.0, {"x": np.ones(2)})
    assert recorded.load(record, settings=made)["x"].tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match=f"was made with other settings: {words}$"):
        recorded.load(record, settings=settings)


@pytest.mark.parametrize("text", ["{", "[1]", '{"run.npz": 1}', '{"run.npz": {}, "other.npz": 1}'])
def test_a_damaged_list_of_digests_is_named(same_library, tmp_path, text):
    recorded.save(record := tmp_path / "run.npz", {}, 1.0, {"x": np.ones(2)})
    (tmp_path / "digests.json").write_text(text)
    with pytest.raises(ValueError, match=r"digests\.json: is "):
        recorded.load(record)


@pytest.mark.parametrize("script", ["near_degenerate_series", "transverse_certificate"])
def test_an_edited_record_of_text_is_refused(script, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    module = importlib.import_module(script)
    for name in (module.RECORD.name, "digests.json"):
        shutil.copy(FOLDER / name, tmp_path / name)
    assert module.load(tmp_path / module.RECORD.name)
    text = (tmp_path / module.RECORD.name).read_text(encoding="utf8")
    assert (edited := text.replace("7", "8", 1)) != text
    (tmp_path / module.RECORD.name).write_text(edited, encoding="utf8")
    with pytest.raises(ValueError, match="is not the record listed in digests.json"):
        module.load(tmp_path / module.RECORD.name)


def test_a_record_of_text_is_entered_with_its_script(tmp_path):
    (record := tmp_path / "run.json").write_text("{}")
    entry = lambda: json.loads((tmp_path / "digests.json").read_text())["run.json"]
    recorded.enter(record)
    digest = hashlib.sha256(b"{}").hexdigest()
    assert entry() == {"sha256": digest, "script": None}
    (tmp_path / "run.py").write_text("STEPS = 3\n")
    recorded.enter(record)
    assert entry() == {"sha256": digest, "script": recorded.code_digest("STEPS = 3\n")}
    recorded.enter(record, "another")
    assert entry() == {"sha256": digest, "script": "another"}
    assert recorded.listed(record) == record


def test_the_order_of_settings_does_not_matter(same_library, tmp_path):
    made = {"net": {"width": 3, "depth": 2}, "seed": 0}
    recorded.save(record := tmp_path / "run.npz", made, 1.0, {"x": np.ones(2)})
    turned = {"seed": 0, "net": {"depth": 2, "width": 3}}
    assert recorded.load(record, settings=turned)["about"]["settings"] == made
    assert recorded.folder(record, turned) == recorded.folder(record, made)
