"""The benchmarks: peers compute what the library computes, ratios and the regression check are right, the record is whole."""

import copy
import doctest
import json

import numpy as np
import pytest

from benchmarks import authors, clock, curvature, device, growth, linear, others, ours, result
from eoslib import descent, hessian, network, scalar, training

RATE = linear.edge_rate(0.9)
SIZE = {"rounds": 3, "budget": 0.01}


def case(width=4, start="gaussian"):
    W, M = linear.problem(width, start)
    return W, M


# -- peers ------------------------------------------------------------------------------------------------------------
def test_the_authors_loops_are_gradient_descent():
    W, M = case()
    W = 3 * W  # off the saddle
    run = descent.descend(W, M, RATE, 30, observe={"layers": lambda W: np.linalg.svd(W, compute_uv=False)})
    size = run.singular_values.max()
    # float32: 1e-7 of the largest number, 30 steps
    losses, layers, last = authors.train(W, M, RATE, 30)
    np.testing.assert_allclose(losses, run.loss[1:], rtol=1e-5)
    np.testing.assert_allclose(layers.swapaxes(0, 1), run.observed["layers"][1:], atol=1e-5 * size)
    np.testing.assert_allclose(last, run.singular_values[-1], atol=1e-5 * size)
    losses, values = authors.train_in_a_notebook(W, M, RATE, 30)
    np.testing.assert_allclose(losses, run.loss, rtol=1e-5)
    np.testing.assert_allclose(values, run.singular_values, atol=1e-5 * size)


def test_sweep_of_torch_func():
    W, M = case()
    W = 3 * W
    rates = np.array([0.5, 0.9]) * RATE
    # float64, 40 steps from a saddle: rounding times the growth of the modes
    np.testing.assert_allclose(
        others.sweep(W, M, rates, 40, 5), descent.descend(W, M, rates, 40, keep=5).singular_values, atol=1e-12
    )


def test_hessians_and_their_eigenvalues():
    W, M = case(3, "gaussian")
    W = W + 0.3
    H = hessian.dense(W, M)
    size = np.abs(H).max()
    np.testing.assert_allclose(others.full_hessian(W, M), H, atol=1e-13 * size)
    np.testing.assert_allclose(authors.full_hessian(W, M), H, atol=1e-6 * size)  # float32
    top = np.linalg.eigvalsh(H)[::-1]
    np.testing.assert_allclose(authors.sharpness_in_a_notebook(W, M, 2), top[:2], atol=1e-5 * top[0])
    outer = np.sort(top[np.argsort(-np.abs(top))[:2]])[::-1]
    np.testing.assert_allclose(authors.sharpness(W, M, 2), outer, atol=1e-5 * top[0])
    net, X, y = others.linear_network(W, M)
    np.testing.assert_allclose(others.cohen(net, X, y, others.half_squares), top[:1], atol=1e-5 * top[0])


def test_batches_add_up_in_cohens_product():
    net, X, y = others.linear_network(*case(5))
    whole, parts = (others.cohen(net, X, y, others.half_squares, batch=b) for b in (5, 2))
    np.testing.assert_allclose(whole, parts, rtol=1e-5)


def test_power_iteration_finds_the_top_of_a_network():
    import torch

    model, X, y = curvature._trained(40, 6, 8, 5)
    torch.manual_seed(0)
    exact = curvature._reference(model, X, y)
    found = others.power_iteration(model, X, y, lambda a, b: ((a - b) ** 2).sum() / 80, tolerance=1e-7, most=2000)
    assert abs(found / exact - 1) < 1e-4  # a step moves it by 1e-7; the gap of this spectrum multiplies that by 100
    mine = training.sharpness(model, lambda m: ((m(X) - y) ** 2).sum() / 80)
    assert abs(mine.values[0] / exact - 1) < 1e-5  # float32


def test_one_mode_of_the_authors():
    found, s = authors.one_mode(10.0, 3, RATE, 1.0, 8), 1.0
    for value in found:
        s = scalar.step(s, 10.0, 3, RATE)
        assert abs(value / s - 1) < 1e-12  # rounding


@pytest.mark.parametrize("fast", [True, False])
def test_orbit_is_the_map(fast):
    rates = np.array([0.5, 0.9]) * RATE
    found = ours.orbit(10.0, 3, rates, 1.0, 50, 4, fast=fast)
    state, expected = np.full(2, 1.0), []
    for t in range(51):
        if t > 46:
            expected.append(state)
        state = scalar.step(state, 10.0, 3, rates)
    np.testing.assert_allclose(found, np.stack(expected, axis=1), rtol=1e-12)


def test_peers_in_jax():
    pytest.importorskip("jax", reason="JAX is an optional peer")
    from benchmarks import in_jax

    W, M = case()
    W = 3 * W
    rates = np.array([0.5, 0.9]) * RATE
    run = descent.descend(W, M, rates, 40, keep=5)
    for autodiff in (False, True):
        found = in_jax.sweep(W, M, rates, 40, 5, autodiff=autodiff)()
        np.testing.assert_allclose(found, run.singular_values, atol=1e-12)
    losses, values = in_jax.trajectory(W, M, RATE, 20)()
    np.testing.assert_allclose(values, descent.descend(W, M, RATE, 20).singular_values, atol=1e-12)
    assert losses.shape == (21,)
    np.testing.assert_allclose(in_jax.full_hessian(W, M)(), hessian.dense(W, M), atol=1e-13 * np.abs(M).max())
    orbit = in_jax.one_mode(10.0, 3, rates, 1.0, 50, 4)()
    np.testing.assert_allclose(orbit, ours.orbit(10.0, 3, rates, 1.0, 50, 4), rtol=1e-12)


def test_spectrum_with_multiplicities_on_aligned_states():
    M, states = ours.edge_states(6, 2, values=(4.0, 3.0))
    exact = np.linalg.eigvalsh(hessian.dense(states, M))[:, ::-1]
    # LAPACK on 108 numbers; the run is aligned to rounding
    np.testing.assert_allclose(ours.spectrum(states, M, 10), exact[:, :10], atol=1e-12 * exact.max())


@pytest.mark.parametrize("module", [clock, growth, result], ids=lambda m: m.__name__)
def test_examples_in_docstrings(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


# -- arithmetic -------------------------------------------------------------------------------------------------------
def test_answers_are_compared_before_anything_is_timed():
    calls = []

    def wrong():
        calls.append("wrong")
        return np.array([1.0, 2.1])

    mine = clock.Candidate(lambda: np.array([1.0, 2.0]), 2.0, lambda x: x)
    peers = {
        "right": lambda: clock.Candidate(lambda: np.array([1.0, 2.0]), 1.0, lambda x: x),
        "wrong": lambda: clock.Candidate(wrong, 1.0, lambda x: x, tolerance=0.04),
        "absent": lambda: __import__("no_such_package"),
        "broken": lambda: 1 / 0,
    }
    report = clock.compare(mine, peers, rounds=3, budget=0.01)
    status = {name: entry["status"] for name, entry in report["peers"].items()}
    assert status == {"right": "measured", "wrong": "disagrees", "absent": "not installed", "broken": "failed"}
    assert calls == ["wrong"] and "seconds" not in report["peers"]["wrong"]
    assert report["peers"]["wrong"]["error"] == pytest.approx(0.05)


def test_errors_of_answers():
    assert clock.error(np.array([2.0, 4.0]), np.array([2.0, 3.0])) == 0.25
    assert clock.error(np.zeros(2), np.zeros(3)) == clock.error(np.ones(1), np.array([np.nan])) == np.inf


def test_ratio_is_that_of_medians_per_unit_of_work():
    found = clock.ratio(np.array([3.0, 9.0, 4.0]), np.array([1.0, 2.0, 1.0]), their_work=2.0, our_work=4.0)
    assert found["ratio"] == 8.0 and found["ratio_low"] == 7.0 and found["ratio_high"] == 8.5
    assert clock.summary(np.array([3.0, 9.0, 4.0]), 2.0) == {"seconds": 2.0, "low": 1.75, "high": 3.25, "rounds": 3}


def test_rounds_are_interleaved(monkeypatch):
    calls = []
    monkeypatch.setattr(clock, "_time", lambda run, repeats: run() or 1.0)
    clock.interleave({n: lambda n=n: calls.append(n) for n in "abc"}, rounds=3, budget=9.0)
    assert "".join(calls) == "abc" + 3 * "abc"


def test_exponent_of_a_power_law():
    x = np.array([40.0, 80.0, 160.0])
    assert growth.exponent(x, 3e-6 * x**2.4) == pytest.approx(2.4, abs=1e-12)


def test_a_sweep_on_a_device_is_compared_with_one_core():
    found = device.sweep(4, 6, 40, 3, "cpu")  # torch on the processor goes the way of CUDA
    assert found["ratio"] == found["core"]["seconds"] / found["device"]["seconds"] > 0
    assert found["error"] < 1e-12  # float64, 40 steps


# -- regression check -------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def record():
    return result.read()


def slower(record, name, factor):
    """A copy of the record in which one row of the library takes `factor` times as long."""
    slow = copy.deepcopy(record)
    row = next(row for row in slow["rows"] if row["id"] == name)
    for key in ("seconds", "low", "high"):
        row["ours"][key] *= factor
    for peer, entry in row["peers"].items():
        if entry["status"] == "measured":
            for key in ("ratio", "ratio_low", "ratio_high"):
                entry[key] /= factor
                row["measures"][f"{name}/{peer}"]["value"] = entry["ratio"]
    return slow | {"targets": result.verdicts(slow)}


def test_a_result_equal_to_the_record_is_no_regression(record):
    assert result.regressions(record, record) == []


@pytest.mark.parametrize("name", ["sweep-5", "sharpness-10", "dense-10"])
def test_a_planted_slow_down_is_found_in_each_ratio_of_its_row(record, name):
    slow = slower(record, name, 2.5)
    assert result.faults(slow) == []
    found = result.regressions(slow, record)
    assert found and all(line.startswith(f"{name}/") for line in found)
    assert len(found) == sum(e["status"] == "measured" for r in record["rows"] if r["id"] == name for e in r["peers"].values())
    assert result.regressions(slower(record, name, 1.5), record) == []
    assert result.regressions(slower(record, name, 0.1), record) == []


def test_a_slow_library_fails_the_command(record, tmp_path, capsys):
    from benchmarks.command import main

    result.write(tmp_path / "latest.json", slower(record, "sweep-5", 3.0))
    options = ["check", "--result", str(tmp_path / "latest.json")]
    assert main(options) == 1 and "sweep-5/the authors" in capsys.readouterr().out
    assert main([*options, "--factor", "4"]) == 0


def test_a_planted_slow_down_of_real_work_is_found():
    """Both sides timed: the same function, and itself five times, against a bound of two."""
    A = np.random.default_rng(0).standard_normal((120, 120))

    def report(times):
        mine = clock.Candidate(lambda: [np.linalg.svd(A, compute_uv=False) for _ in range(times)][0], 1.0, lambda x: x)
        peer = clock.Candidate(lambda: np.linalg.svd(A, compute_uv=False), 1.0, lambda x: x)
        timed = clock.compare(mine, {"peer": lambda: peer}, rounds=7, budget=1.0)
        return {"rows": [linear.row("row", "row", "call", {}, timed)]}

    fast, slow = report(1), report(5)
    assert result.regressions(fast, fast) == [] and len(result.regressions(slow, fast)) == 1


def test_nothing_in_common_is_an_error(record):
    other = copy.deepcopy(record)
    for row in other["rows"]:
        row["id"] = f"other-{row['id']}"
    with pytest.raises(ValueError, match="no ratio in common"):
        result.regressions(other, record)
    for factor in (1.0, float("nan")):
        with pytest.raises(ValueError, match="factor: got"):
            result.regressions(record, record, factor)


@pytest.mark.parametrize("status", ["disagrees", "failed"])
def test_a_peer_that_disagrees_or_fails_is_reported(record, status):
    other = copy.deepcopy(record)
    entry = other["rows"][0]["peers"]["torch.func"]
    entry |= {"status": status, "error": 0.1, "tolerance": 1e-8, "reason": "TypeError: x"}
    assert len(result.regressions(other, record)) == 1


# -- record -----------------------------------------------------------------------------------------------------------
def test_the_record_is_whole(record):
    assert result.faults(record) == []
    assert not record["about"]["quick"]
    bad = [
        f"{row['id']}/{name}: {e['status']}"
        for row in record["rows"]
        for name, e in row["peers"].items()
        if e["status"] in ("failed", "disagrees")
    ]
    assert bad == []
    assert [t.measure for t in result.TARGETS if t.measure not in result.measures(record)] == []


def test_faults_are_found(record):
    def altered(change):
        other = copy.deepcopy(record)
        change(other)
        return result.faults(other)

    peer = lambda r: r["rows"][0]["peers"]["the authors"]  # noqa: E731
    assert altered(lambda r: r.pop("growth")) == ["no growth"]
    assert altered(lambda r: r.update(format=0))
    assert altered(lambda r: r["about"].pop("versions"))
    assert altered(lambda r: r["rows"].append(r["rows"][0]))
    assert altered(lambda r: r["rows"][0].pop("settings"))
    assert altered(lambda r: r["rows"][0]["ours"].update(seconds=-1.0))
    assert altered(lambda r: r["rows"][0]["ours"].update(rounds=2))
    assert altered(lambda r: peer(r).update(status="fine"))
    assert altered(lambda r: peer(r).update(error=1.0))
    assert altered(lambda r: peer(r).update(ratio=2 * peer(r)["ratio"]))
    assert altered(lambda r: r["growth"][0]["x"].pop())
    assert altered(lambda r: r["targets"][0].update(met=not r["targets"][0]["met"]))


def test_an_altered_record_is_refused(record, tmp_path):
    path = tmp_path / "recorded.json"
    result.write(path, record)
    assert result.read(path) == record
    path.write_text(path.read_text().replace('"rounds": 7', '"rounds": 8', 1).replace('"rounds": 3', '"rounds": 4', 1))
    with pytest.raises(ValueError, match="was altered"):
        result.read(path)
    with pytest.raises(ValueError, match="not a whole result: format 0"):
        result.write(path, record | {"format": 0})


def test_a_full_result_from_elsewhere_can_become_the_record_and_a_quick_one_cannot(record, tmp_path):
    from benchmarks.command import main

    alone, place = tmp_path / "brought.json", tmp_path / "results" / "recorded.json"
    alone.write_text(json.dumps(record))
    assert main(["adopt", "--result", str(alone), "--record", str(place)]) == 0 and result.read(place) == record
    device = tmp_path / "device.json"
    device.write_text(json.dumps(record | {"cuda": {"status": "measured", "device": "a card", "rows": []}}))
    assert main(["adopt", "--result", str(alone), "--device", str(device), "--record", str(place)]) == 0
    taken = result.read(place)["cuda"]
    assert taken["device"] == "a card" and taken["about"] == record["about"]
    device.write_text(json.dumps(record | {"cuda": {"status": "not measured", "reason": "none"}}))
    with pytest.raises(SystemExit):
        main(["adopt", "--result", str(alone), "--device", str(device), "--record", str(place)])
    alone.write_text(json.dumps(record | {"about": record["about"] | {"quick": True}}))
    with pytest.raises(SystemExit):
        main(["adopt", "--result", str(alone), "--record", str(place)])


def test_targets_are_judged_by_their_bounds():
    least, most = result.Target("w", "m", 2.0), result.Target("w", "m", 2.0, least=False)
    assert least.met(2.0) and not least.met(1.9) and most.met(2.0) and not most.met(2.1)
    empty = {"rows": [], "growth": [], "memory": None}
    assert all(entry["met"] is None for entry in result.judge(empty))
    names = [t.measure for t in result.TARGETS]
    assert len(names) == len(set(names))


def test_memory_is_measured_in_a_child():
    found = growth.memory({"memory": (64, 40, 20)})
    # 64 rates, 20 states of 5 singular values and a loss, in float64, and the final weights
    assert found["traced"]["result"] >= 64 * 20 * 6 * 8 + 64 * 3 * 25 * 8
    assert found["traced"]["peak"] >= found["traced"]["result"] and found["resident"]["peak"] >= 0


def test_reduction_row_starts_aligned_and_the_full_row_does_not():
    W, M = case(6, "unbalanced")
    assert not W[-1].any() and np.array_equal(W[0], linear.scale(6) * np.eye(6))
    W, _ = case(6, "gaussian")
    off = W[0] - np.diag(np.diag(W[0]))
    assert np.abs(off).max() > 0.1 * linear.scale(6)
    assert json.dumps(linear.VALUES) and network.product(W).shape == (6, 6)
