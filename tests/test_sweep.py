"""Sweeps: the same bits however split and wherever run; failed runs alone fail; nothing finished is done again."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import inspect
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path

import joblib
import numpy as np
import pytest
import threadpoolctl

from eoslib import bifurcation, descent, network, recorded, sweep

ROOT = Path(__file__).resolve().parents[1]
# two layers at rest; three at rest, on two-cycles, in chaos with singular vectors that turn, and diverging
GRID = {"depth": [2, 3], "rate": np.linspace(0.02, 0.06, 23), "seed": [0, 1]}


@pytest.fixture(autouse=True)
def _no_lock_outlives_a_test():
    yield
    for path in list(recorded._locks):
        recorded._locks.pop(path).release()


def scan(rate, depth, seed, steps=600):
    """The last states of some runs: small, and chaotic at the larger rates."""
    target = network.target((10.0, 9.0, 6.0), 4, rng=np.random.default_rng(seed))
    start = network.initialise("unbalanced", depth=depth, width=4, scale=0.3)
    out = descent.descend(start, target.matrix, rate, steps, keep=4, observe={"product": network.product})
    return {"product": out.observed["product"], "loss": out.loss, "diverged_at": out.diverged_at}


def square(x, y=0.0):
    return {"square": x**2, "sum": x + y}


def run(function, grid, **options):
    return sweep.run(function, grid, **{"progress": False} | options)


def assert_same(one, two):
    """Bit for bit, masks and labels included."""
    assert list(one.axes) == list(two.axes) and one.errors == two.errors
    assert sorted(one.arrays) == sorted(two.arrays) and np.array_equal(one.failed, two.failed)
    for name, array in one.arrays.items():
        other = two.arrays[name]
        assert type(array) is type(other) and array.dtype == other.dtype and array.shape == other.shape
        assert np.ma.getdata(array).tobytes() == np.ma.getdata(other).tobytes()


@pytest.fixture(scope="module")
def whole():
    return run(scan, GRID, batch="rate", n_jobs=1)


# -- labels and splits ------------------------------------------------------------------------------------------------
def test_each_entry_is_the_run_at_its_point(whole):
    assert whole.arrays["product"].shape == (2, 23, 2, 4, 4, 4) and not whole.failed.any() and whole.errors == ()
    for i, j, k in [(0, 0, 1), (1, 11, 0), (1, 22, 1)]:
        alone = scan(GRID["rate"][[j]], GRID["depth"][i], GRID["seed"][k])
        for name, value in alone.items():
            np.testing.assert_array_equal(whole.arrays[name][i, j, k], value[0])
    late = whole.arrays["diverged_at"]
    # which of the chaotic runs escape is a matter of rounding, that some do and some do not is not
    assert (late >= 0).any() and (np.ptp(whole.arrays["loss"][late == -1], axis=-1) > 1).any()


@pytest.mark.parametrize("block", [1, 7, 23, 1000])
def test_the_length_of_a_block_changes_no_bit(whole, block):
    assert_same(whole, run(scan, GRID, batch="rate", block=block, n_jobs=1))


@pytest.mark.parametrize("order", [("rate", "depth", "seed"), ("seed", "rate", "depth"), ("seed", "depth", "rate")])
def test_the_order_of_the_axes_is_that_of_the_arrays(whole, order):
    turned = run(scan, {name: GRID[name] for name in order}, batch="rate", block=5, n_jobs=1)
    back = [order.index(name) for name in GRID]
    for name, array in whole.arrays.items():
        rest = range(3, array.ndim)
        np.testing.assert_array_equal(turned.arrays[name].transpose(*back, *rest), array)


def test_one_point_at_a_time():
    result = run(square, {"x": [1, 2, 3], "y": [0.5]})
    assert result.arrays["square"].tolist() == [[1], [4], [9]] and result.arrays["square"].dtype == int
    assert result.arrays["sum"].tolist() == [[1.5], [2.5], [3.5]]


def test_words_and_flags_are_values_and_results():
    grid = {"start": ["ab", "xyz"], "flip": [True, False]}
    result = run(lambda start, flip: {"word": start[::-1] if flip else start}, grid)
    assert result.arrays["word"].tolist() == [["ba", "ab"], ["zyx", "xyz"]]
    assert sweep.select(result, start="xyz", flip=True).arrays["word"] == "zyx"


def test_a_dtype_that_holds_all_results():
    result = run(lambda n: {"x": 1 if n else 0.5}, {"n": [0, 1]})
    assert result.arrays["x"].tolist() == [0.5, 1.0]


def test_a_function_may_write_into_its_block_and_use_its_memory_again():
    """Labels, halves of a block that fails and blocks that are done stay what they were."""
    room = np.empty(4)

    def doubles(x):
        x *= 2
        if np.any(x == 14):
            raise ArithmeticError("seven")
        room[: len(x)] = x
        return {"y": room[: len(x)]}

    grid = {"x": np.arange(1.0, 12.0)}
    result = run(doubles, grid, batch="x", block=4, n_jobs=1)
    assert result.axes["x"].tolist() == grid["x"].tolist()
    assert [point for point, _ in result.errors] == [{"x": 7.0}]
    assert result.arrays["y"].tolist() == [None if x == 7 else 2 * x for x in grid["x"].tolist()]


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_seeds_beyond_the_range_of_float64_are_told_apart(dtype):
    seeds = np.array([2**60, 2**60 + 1], dtype)
    result = run(lambda seed: {"last": seed % 2}, {"seed": seeds})
    for label in (2**60 + 1, seeds[1]):
        assert sweep.select(result, seed=label).arrays["last"] == 1
    for label in (2**60 + 2, 0.5):
        with pytest.raises(ValueError, match="^seed: "):
            sweep.select(result, seed=label)
    assert sweep.select(run(lambda n: {"n": n}, {"n": [2, 3]}), n=3.0).arrays["n"] == 3


# -- processes --------------------------------------------------------------------------------------------------------
def with_pid(rate, depth, seed):
    counts = [info["num_threads"] for info in threadpoolctl.threadpool_info()]
    mine = {"pid": np.full(len(rate), os.getpid()), "threads": np.full(len(rate), max(counts))}
    return scan(rate, depth, seed) | mine


@pytest.mark.parametrize("backend", ["loky", "threading", "sequential"])
def test_processes_and_threads_give_the_same_bits(whole, backend):
    jobs = {} if backend == "sequential" else {"n_jobs": 2}
    with threadpoolctl.threadpool_limits(2), joblib.parallel_config(backend=backend, **jobs):
        result = run(with_pid, GRID, batch="rate", block=9)
        assert max(info["num_threads"] for info in threadpoolctl.threadpool_info()) == 2  # as it was
    pids, threads = result.arrays.pop("pid"), result.arrays.pop("threads")
    assert_same(whole, result)
    assert (os.getpid() not in pids) == (backend == "loky") and np.all(threads == 1)


def test_n_jobs_is_a_number_of_processes(whole):
    result = run(with_pid, GRID, batch="rate", block=3, n_jobs=2)
    assert os.getpid() not in result.arrays.pop("pid") and result.arrays.pop("threads").max() == 1
    assert_same(whole, result)
    assert whole.seconds > 0 and 0.2 < result.seconds / whole.seconds < 20  # processor time, wherever it was spent


def logged(place, pause, x):
    """A run that leaves word of itself, in a test's process, a worker's, or the script's below."""
    import os
    import time

    import numpy as np

    def log(word):
        with open(f"{place}/log", "a") as file:
            file.write(f"{word} {os.getpid()} {int(x[0])}\n")

    log("begin")
    time.sleep(pause)
    log("end")
    return {"y": x / 3.0, "noise": [np.random.default_rng(int(v)).standard_normal(3) for v in x]}


def log_of(place):
    """Lines of the log, as (word, process, first value)."""
    path = place / "log"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(word, int(pid), int(x)) for word, pid, x in map(str.split, lines)]


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_worker_of_a_dask_cluster_is_killed_and_nothing_is_missing(tmp_path):
    distributed = pytest.importorskip("dask.distributed", reason="the extra `cluster`")
    function = functools.partial(logged, str(tmp_path), 0.05)
    grid, killed = {"x": np.arange(120.0)}, []

    def at_work(pid):
        mine = [line for line in log_of(tmp_path) if line[1] == pid]
        return bool(mine) and mine[-1][0] == "begin"

    def kill_one(pids):
        wait_for(lambda: sum(word == "end" for word, _, _ in log_of(tmp_path)) >= 6)
        while not killed:
            wait_for(lambda: any(map(at_work, pids)))
            for pid in filter(at_work, pids):
                os.kill(pid, signal.SIGSTOP)
                if at_work(pid):  # still, and held there
                    os.kill(pid, signal.SIGKILL)
                    killed.extend([pid, log_of(tmp_path)])
                    return
                os.kill(pid, signal.SIGCONT)

    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": 50}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        pids = sorted(client.run(os.getpid).values())
        assert len(set(pids)) == 2 and os.getpid() not in pids
        thread = threading.Thread(target=kill_one, args=(pids,))
        thread.start()
        try:
            with joblib.parallel_config(backend="dask"):
                result = run(function, grid, batch="x", block=4, record=tmp_path / "run.npz")
                chaotic = run(scan, GRID, batch="rate", block=5)
                failing = run(fails_at_seven, {"x": np.arange(20)}, batch="x", block=6)
        finally:
            thread.join()
    assert_same(result, run(functools.partial(logged, str(tmp_path), 0.0), grid, batch="x", block=17))
    assert_same(chaotic, run(scan, GRID, batch="rate", n_jobs=1))
    assert_same(failing, run(fails_at_seven, {"x": np.arange(20)}, batch="x", block=20))
    victim, log = killed
    assert 6 <= len({x for word, _, x in log if word == "end"}) < 30  # in mid-sweep
    begun = Counter(x for word, pid, x in log_of(tmp_path) if word == "begin" and pid != os.getpid())
    lost = [x for _, pid, x in log if pid == victim][-1]
    assert len(begun) == 30 and begun[lost] == 2  # what the killed process was at was done again


# -- failures ---------------------------------------------------------------------------------------------------------
def fails_at_seven(x):
    if np.any(x == 7):
        raise ArithmeticError("seven\nis not done")
    return {"square": x**2}


@pytest.mark.parametrize("options", [{"n_jobs": 1}, {"block": 3}, {"block": 5, "n_jobs": 2}])
def test_a_run_that_raises_fails_alone(options):
    result = run(fails_at_seven, {"x": np.arange(20)}, batch="x", **options)
    assert np.flatnonzero(result.failed).tolist() == [7]
    assert result.errors == (({"x": 7}, "ArithmeticError: seven is not done"),)
    square = result.arrays["square"]
    assert square.mask.tolist() == result.failed.tolist() and square.compressed().tolist() == [
        x**2 for x in range(20) if x != 7
    ]


def test_a_failed_run_reaches_no_calculation_unnoticed():
    result = run(fails_at_seven, {"x": np.arange(6, 9)}, batch="x")
    assert result.arrays["square"].sum() == 36 + 64
    with pytest.raises(ValueError, match="masked"):
        bifurcation.rate(result.arrays["square"], 3)
    real = run(fails_at_seven, {"x": np.arange(6.0, 9.0)}, batch="x").arrays["square"]
    assert real.sum() == 36 + 64 and np.isnan(real.data).tolist() == [False, True, False]  # np.ptp overlooks masks


def test_the_failed_run_of_a_long_block_is_found_by_halving():
    seen = []

    def watched(x):
        seen.append(len(x))
        return fails_at_seven(x)

    run(watched, {"x": np.arange(64)}, batch="x", block=64, n_jobs=1)
    assert sorted(seen, reverse=True) == [64, 32, 32, 16, 16, 8, 8, 4, 4, 2, 2, 1, 1]


def test_a_block_has_128_values_unless_told_otherwise():
    seen = []
    run(lambda x: seen.append(len(x)) or {"y": x}, {"x": np.arange(130)}, batch="x", n_jobs=1)
    assert seen == [128, 2]


def test_a_long_error_is_cut():
    def fails(x):
        raise ValueError("a  b" * 200)

    (_, text), = run(fails, {"x": [1.0]}).errors
    assert text == ("ValueError: " + "a b" * 200)[:500]


@pytest.mark.parametrize("n_jobs", [0, 10_001, -10_001, 1.5, True])
def test_a_number_of_processes_is_one(n_jobs):
    with joblib.parallel_config(backend="sequential"), pytest.raises(ValueError, match="^n_jobs: got "):
        run(square, {"x": [1.0]}, n_jobs=n_jobs)  # were the number taken, no process would be started


def test_words_where_the_first_run_gave_numbers_are_a_failure():
    result = run(lambda n: {"x": "a" if n else 1.0}, {"n": [0, 1]})
    assert result.failed.tolist() == [False, True] and result.arrays["x"][0] == 1.0
    assert result.errors[0][1].startswith("returned 'x' of shape () (text), needs 'x' of shape () as the first run")


def test_what_is_no_function_and_no_axis_is_named():
    with pytest.raises(ValueError, match="^function: got 3, needs a function that returns a dict of arrays"):
        run(3, {"x": [1.0]})
    result = run(square, {"x": [1.0, 2.0]})
    with pytest.raises(ValueError, match="^depth: got an axis that the sweep has not, needs one of x$"):
        sweep.select(result, depth=1.0)


def test_labels_of_failed_runs():
    def picky(depth, x):
        if depth == 3:
            raise ValueError(f"depth {depth}, x {x}")
        return {"y": np.array([depth * x, 1.0])}

    result = run(picky, {"x": [0.5, 1.5], "depth": [2, 3, 4]})
    assert result.errors == tuple(({"x": x, "depth": 3}, f"ValueError: depth 3, x {x}") for x in (0.5, 1.5))
    assert result.arrays["y"].mask.all(axis=2).tolist() == result.failed.tolist() == [[False, True, False]] * 2
    part = sweep.select(result, depth=3, x=1.5)
    assert part.failed and part.errors == (({}, "ValueError: depth 3, x 1.5"),)
    assert sweep.select(result, depth=4).errors == () and not sweep.select(result, depth=4).failed.any()


def test_all_runs_may_fail():
    result = run(lambda x: 1 / 0, {"x": [1.0, 2.0]})
    assert result.failed.all() and result.arrays == {} and len(result.errors) == 2


RETURNS = {
    "a number": (lambda x: 1.0, "returned 1.0, needs a dict of arrays"),
    "a list": (lambda x: [x], "needs a dict of arrays"),
    "objects": (lambda x: {"y": [None] * len(x)}, "as 'y', needs an array of numbers or text"),
    "a ragged list": (lambda x: {"y": [[1], [1, 2]]}, "as 'y', needs an array of numbers or text"),
    "a mask": (lambda x: {"y": np.ma.masked_array(x, x > 1)}, "as 'y', needs an array of numbers or text"),
    "one value for all": (lambda x: {"y": 1.0}, r"'y' of shape () for 3 runs, needs 3 in front"),
    "the wrong number": (lambda x: {"y": x[:2]}, r"'y' of shape (2,) for 3 runs, needs 3 in front"),
}


@pytest.mark.parametrize("name", RETURNS)
def test_what_cannot_be_a_result_is_said(name):
    function, words = RETURNS[name]
    result = run(function, {"x": [1.0, 2.0, 3.0]}, batch="x")
    assert result.failed.all() and all(words in text for _, text in result.errors)


@pytest.mark.parametrize("block", [1, 2, 6])
def test_a_run_unlike_the_first_fails_whatever_the_block(block):
    def grows(n, x):
        return {"y": np.zeros((len(x), n))} if n < 5 else {"y": np.zeros((len(x), 2)), "z": x}

    result = run(grows, {"n": [2, 3, 5], "x": np.arange(6.0)}, batch="x", block=block)
    assert result.failed.all(axis=1).tolist() == [False, True, True] and result.arrays["y"].shape == (3, 6, 2)
    texts = {point["n"]: text for point, text in result.errors}
    assert texts[3] == "returned 'y' of shape (3,), needs 'y' of shape (2,) as the first run that did not fail"
    assert texts[5].startswith("returned 'y' of shape (2,), 'z' of shape (), needs 'y' of shape (2,)")


def test_the_bar_fills_and_failures_are_told(capsys):
    sweep.run(fails_at_seven, {"x": np.arange(20)}, batch="x", block=4)
    out, err = capsys.readouterr()
    assert out == "" and "0/5" in err and "5/5" in err and "sweep" in err
    assert re.search(r"\d(block/s|s/block)\b", err)
    assert "1 of 20 runs failed; the first, {'x': 7}: ArithmeticError: seven is not done" in err
    run(fails_at_seven, {"x": np.arange(20)}, batch="x")
    assert capsys.readouterr() == ("", "")


def test_a_recorded_sweep_is_silent_where_asked(tmp_path, capfd):
    for progress in (True, False):
        sweep.run(square, {"x": [1.0, 2.0]}, record=tmp_path / f"{progress}.npz", n_jobs=1, progress=progress)
        out, err = capfd.readouterr()
        assert out == "" and bool(err) == progress


def test_of_several_failures_the_first_is_told(capsys):
    sweep.run(lambda x: 1 / (x - x) if x > 1 else {"y": x}, {"x": [1, 2, 3]}, n_jobs=1)
    assert "2 of 3 runs failed; the first, {'x': 2}: ZeroDivisionError" in capsys.readouterr().err


def test_a_point_off_a_batch_is_done_once():
    seen = []
    run(lambda x: seen.append(x) or {"y": x}, {"x": [1, 2, 3]}, block=1, n_jobs=1)
    assert seen == [1, 2, 3]


def test_one_process_needs_no_joblib(monkeypatch):
    monkeypatch.setattr(joblib, "Parallel", None)
    assert run(square, {"x": [1.0, 2.0]}, n_jobs=1).arrays["square"].tolist() == [1, 4]
    with pytest.raises(TypeError):
        run(square, {"x": [1.0]}, n_jobs=2)


@pytest.mark.parametrize(("asked", "told"), [(10_000, 3), (3, 3), (2, 2), (-1, 3), (-62, 3), (-63, 2), (-10_000, 1), (None, 3)])
def test_no_more_workers_are_started_than_there_are_blocks(monkeypatch, asked, told):
    """Three blocks on a machine of 64 cores: what joblib is told, which starts that many."""
    started = []

    class Parallel:
        def __init__(self, n_jobs, return_as):
            started.append(n_jobs)

        def __call__(self, calls):
            return (function(*arguments) for function, arguments, _ in calls)

    monkeypatch.setattr(joblib, "Parallel", Parallel)
    monkeypatch.setattr(joblib, "effective_n_jobs", lambda n: 64 if n is None else n if n > 0 else max(1, 65 + n))
    assert run(square, {"x": [1.0, 2.0, 3.0]}, n_jobs=asked).arrays["square"].tolist() == [1, 4, 9]
    assert started == [told]


def test_the_number_of_workers_is_that_of_the_callers_configuration(monkeypatch):
    started, parallel = [], joblib.Parallel
    monkeypatch.setattr(joblib, "Parallel", lambda n_jobs, **options: started.append(n_jobs) or parallel(n_jobs, **options))
    for count in (1, 2, 7):
        with joblib.parallel_config(backend="threading", n_jobs=count):
            run(square, {"x": [1.0, 2.0, 3.0]})
    run(square, {"x": [1.0, 2.0, 3.0]})
    assert started == [1, 2, 3, 1]


def test_processes_are_asked_for_down_to_the_limit():
    with joblib.parallel_config(backend="sequential"):
        assert run(square, {"x": [3.0]}, n_jobs=-10_000).arrays["square"].tolist() == [9]


def test_a_block_and_a_stream_hold_one_thread_each():
    def threads(**point):
        return {"threads": max(info["num_threads"] for info in threadpoolctl.threadpool_info())}

    with threadpoolctl.threadpool_limits(2):
        assert threads()["threads"] == 2
        assert sweep._do(threads, {}, None, None)["0/threads"].tolist() == [1]
        ((_, found, _),) = sweep._stream(1, {"a": threads})
        assert found == {"threads": 1}
        assert threads()["threads"] == 2


def test_every_name_that_is_returned_is_a_word():
    result = run(lambda x: {"y": x, 2: x}, {"x": [1.0]})
    assert result.failed.all() and "needs a dict of arrays" in result.errors[0][1]


@pytest.mark.parametrize("grid", [{"x": [1.0], 2: [1.0]}, {"x": ["a", 1]}, {"x": []}, {"x": [1.0, 2.0, 1.0]}, {"x": ["a", "a"]}])
def test_a_grid_of_other_names_mixed_values_or_twins_is_refused(grid):
    with pytest.raises(ValueError, match="^grid: got "):
        run(lambda **point: {"y": 1.0}, grid, n_jobs=1)


def test_half_a_seed_is_no_seed():
    result = run(lambda seed: {"y": seed}, {"seed": [0, 1]}, n_jobs=1)
    with pytest.raises(ValueError, match="^seed: got 0.5, needs one of the sweep's"):
        sweep.select(result, seed=0.5)


def test_selected_axes_are_gone_from_the_sweep():
    result = run(lambda depth, x: {"y": depth * x}, {"depth": [2, 3], "x": [0.5, 1.5]})
    part = sweep.select(result, depth=3)
    assert list(part.axes) == ["x"] and part.axes["x"].tolist() == [0.5, 1.5]
    assert part.arrays["y"].tolist() == [1.5, 4.5]


# -- interruption -----------------------------------------------------------------------------------------------------
def parts_of(place):
    return sorted(path for path in place.glob("run.parts/*/*.npz") if ".partial" not in path.name)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_an_interrupted_sweep_goes_on(tmp_path, n_jobs):
    calls = []

    def interrupted(x):
        calls.append(int(x[0]))
        if x[0] == 6 and len(calls) < 5:
            raise KeyboardInterrupt
        return {"y": x}

    options = {"batch": "x", "block": 3, "record": tmp_path / "run.npz"}
    with pytest.raises(KeyboardInterrupt):
        run(interrupted, {"x": np.arange(12.0)}, n_jobs=1, **options)
    assert calls == [0, 3, 6] and len(parts_of(tmp_path)) == 2
    calls += [0, 0]
    result = run(interrupted, {"x": np.arange(12.0)}, n_jobs=n_jobs, **options)
    assert result.arrays["y"].tolist() == list(range(12))
    assert calls[5:] == ([6, 9] if n_jobs == 1 else [])  # other processes have a list of their own
    assert_same(result, run(interrupted, {"x": np.arange(12.0)}, n_jobs=1, **options))
    assert len(calls) == (7 if n_jobs == 1 else 5)


SCRIPT = inspect.getsource(logged) + textwrap.dedent("""
    import functools, sys
    from eoslib import sweep
    def main():
        function, grid = functools.partial(logged, sys.argv[1], 0.04), {"x": [float(i) for i in range(60)]}
        sweep.run(function, grid, batch="x", block=2, record=sys.argv[1] + "/run.npz", n_jobs=2)
    if __name__ == "__main__":
        main()
""")


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_was_killed_loses_nothing_that_was_finished(tmp_path, kill):
    (tmp_path / "run.py").write_text(SCRIPT)

    def start():
        with (tmp_path / "stderr").open("w") as stream:
            command = [sys.executable, tmp_path / "run.py", tmp_path]
            heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a job in the background ignores it
            return subprocess.Popen(command, stderr=stream, start_new_session=True, preexec_fn=heed)

    process = start()
    wait_for(lambda: len(parts_of(tmp_path)) >= 5 or process.poll() is not None)
    process.send_signal(kill)
    assert process.wait() != 0
    finished = {int(path.stem) for path in parts_of(tmp_path)}
    assert 5 <= len(finished) < 30
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # joblib's processes, which would wait for work for minutes
    before = len(log_of(tmp_path))
    assert start().wait() == 0, (tmp_path / "stderr").read_text()
    begun = Counter(x // 2 for word, _, x in log_of(tmp_path)[before:] if word == "begin")
    assert begun == dict.fromkeys(set(range(30)) - finished, 1)
    assert len(parts_of(tmp_path)) == 30


def test_what_finished_blocks_are_known_by(tmp_path):
    calls = []

    def function(x):
        calls.append(1)
        return {"y": x}

    def other(x):
        calls.append(1)
        return {"y": x + 1}

    def count(function=function, grid=None, **options):
        calls.clear()
        grid = grid or {"x": [1.0, 2.0]}
        run(function, grid, record=tmp_path / "run.npz", **{"n_jobs": 1, "settings": {"width": 3}} | options)
        return len(calls)

    assert count() == 2 and count() == 0 and count(n_jobs=None) == 0
    assert count(settings={"width": 4}) == 2 and count(settings={"width": 4}) == 0
    assert count(other) == 2 and count(grid={"x": [1.0, 2.5]}) == 2 and count(grid={"x": np.float32([1, 2])}) == 2
    assert count(batch="x") == 1 and count(batch="x", block=1) == 2
    assert count() == 0  # the first are still there


def test_a_failed_run_is_tried_again(tmp_path):
    (tmp_path / "broken").write_text("")

    def needs_disk(x):
        if x == 2 and (tmp_path / "broken").exists():
            raise OSError("disk full")
        return {"y": x}

    options = {"record": tmp_path / "run.npz", "n_jobs": 1}
    first = run(needs_disk, {"x": [1.0, 2.0, 3.0]}, **options)
    assert first.failed.tolist() == [False, True, False] and len(parts_of(tmp_path)) == 2
    (tmp_path / "broken").unlink()
    second = run(needs_disk, {"x": [1.0, 2.0, 3.0]}, **options)
    assert second.errors == () and second.arrays["y"].tolist() == [1, 2, 3]


def test_a_block_in_which_one_run_failed_is_done_again(tmp_path):
    calls = []

    def fails_once(x):
        calls.append(len(x))
        return fails_at_seven(x) if len(calls) < 6 else {"square": x**2}

    options = {"batch": "x", "block": 4, "record": tmp_path / "run.npz", "n_jobs": 1}
    first = run(fails_once, {"x": np.arange(4, 12)}, **options)
    assert np.flatnonzero(first.failed).tolist() == [3] and len(parts_of(tmp_path)) == 1
    second = run(fails_once, {"x": np.arange(4, 12)}, **options)
    assert second.errors == () and second.arrays["square"].tolist() == [x * x for x in range(4, 12)]
    assert calls[-1] == 4  # its block, whole


def test_a_function_with_bound_arguments_may_be_recorded(tmp_path):
    bound = functools.partial(functools.partial(square), y=2.0)
    for _ in range(2):
        result = run(bound, {"x": [1.0, 2.0]}, record=tmp_path / "run.npz", n_jobs=1)
        assert result.arrays["sum"].tolist() == [3, 4]


def test_blocks_are_known_by_the_whole_call(monkeypatch, tmp_path):
    told, right = [], recorded.collect
    monkeypatch.setattr(recorded, "collect", lambda *a, **k: told.append(k["settings"]) or right(*a, **k))
    options = {"batch": None, "block": 3, "settings": {"a": 1}, "n_jobs": 1}
    run(square, {"x": [1.0], "y": np.float32([2])}, record=tmp_path / "run.npz", **options)
    grid = {"x": ["<f8", [1.0]], "y": ["<f4", [2.0]]}
    code = recorded.code_digest(inspect.getsource(square))
    assert told == [{"grid": grid, "batch": None, "block": 3, "function": code, "settings": {"a": 1}}]


def test_a_function_without_source_is_refused_a_record(tmp_path):
    space = {}
    exec("def hidden(x):\n    return {'y': x}", space)
    assert run(space["hidden"], {"x": [1.0]}).arrays["y"] == 1
    with pytest.raises(ValueError, match="function: got .*hidden.*, whose source cannot be read"):
        run(space["hidden"], {"x": [1.0]}, record=tmp_path / "run.npz")
    for function in (lambda x: {"y": x}), (lambda x: {"y": 2 * x}):  # one source for two functions
        with pytest.raises(ValueError, match="function: got .*the source of a lambda is its line"):
            run(function, {"x": [1.0]}, record=tmp_path / "run.npz")


def test_masked_results_are_not_saved_without_their_mask(tmp_path):
    result = run(fails_at_seven, {"x": np.arange(20)}, batch="x")
    with pytest.raises(ValueError, match="arrays: got masked ones in .'square'."):
        recorded.save(tmp_path / "run.npz", {}, 0.0, result.arrays)


# -- the book's record ------------------------------------------------------------------------------------------------
def test_the_bifurcation_record_is_made_by_a_sweep_however_it_is_split(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("bifurcation_run", ROOT / "recorded" / "full_matrix_bifurcation.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SPANS", ((1.9, 3.0, 11), (3.1, 4.5, 4)))
    monkeypatch.setattr(module, "HEAD_COLUMNS", slice(0, None, 5))
    monkeypatch.setattr(module, "STEPS", 400)
    monkeypatch.setattr(module, "KEEP", 4)
    records = {}
    for block, backend in [(6, "sequential"), (6, "threading"), (150, "sequential")]:
        monkeypatch.setattr(module, "BLOCK", block)
        monkeypatch.setattr(module, "RECORD", tmp_path / f"{backend}{block}.npz")
        with joblib.parallel_config(backend=backend, n_jobs=2 if backend == "threading" else 1):
            module.main()
        records[block, backend] = recorded.load(module.RECORD)
        records[block, backend].pop("about")
    one, spread, whole = records.values()
    assert list(one) == list(whole) and one["full/diverged_at"].shape == (15,)
    assert all(one[name].tobytes() == spread[name].tobytes() for name in one)
    for name, array in one.items():
        if name.endswith("sharpness"):  # its last digits depend on the networks that it is computed with
            np.testing.assert_allclose(array, whole[name], rtol=2**-23)  # one rounding to float32
        else:
            assert array.tobytes() == whole[name].tobytes()
    assert not list(tmp_path.glob("*.parts"))
