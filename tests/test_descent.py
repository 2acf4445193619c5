"""Gradient descent against a loop that is written out, batches against single runs, divergence, and gradient flow."""

import importlib
import sys
import tracemalloc
import types
from concurrent.futures import ThreadPoolExecutor

import mpmath
import numpy as np
import pytest
import threadpoolctl
import torch

from eoslib import cuda, descent, loops, network, reduction

RATES = np.array([0.02, 0.0315, 0.034, 0.2, 0.05])


def setting(width=5, seed=0):
    target = network.target((10, 9, 6), width, rng=np.random.default_rng(seed))
    return network.initialise("unbalanced", depth=3, width=width, scale=0.01), target.matrix


def by_hand(W, M, rate, steps):
    """The update written with explicit products of three layers, sharing no code with the library."""
    a, b, c = (np.array(w) for w in W)
    for _ in range(steps):
        R = c @ b @ a - M
        a, b, c = a - rate * (c @ b).T @ R, b - rate * c.T @ R @ a.T, c - rate * R @ (b @ a).T
    return np.stack([a, b, c])


def test_descent_is_the_loop_written_out():
    W, M = setting()
    run = descent.descend(W, M, 0.02, 700)
    np.testing.assert_allclose(run.weights, by_hand(W, M, 0.02, 700), atol=1e-12)  # stable rate: rounding does not grow
    assert run.loss.shape == (701,) and run.singular_values.shape == (701, 5)
    np.testing.assert_allclose(run.loss[-1], network.loss(run.weights, M), rtol=1e-14)
    np.testing.assert_allclose(
        run.singular_values[-1], np.linalg.svd(network.product(run.weights), compute_uv=False), rtol=1e-14
    )


@pytest.mark.parametrize("width", [1, 3, 5, 20])
def test_a_batch_is_its_runs_bit_for_bit(width):
    rng = np.random.default_rng(width)
    W = rng.standard_normal((2, 3, width, width)) / np.sqrt(width)
    M = rng.standard_normal((width, width))
    observe = {"norm": lambda w: (w * w).sum((-3, -2, -1))}
    together = descent.descend(W, M, RATES, 400, keep=150, every=7, observe=observe)
    assert together.loss.shape[:2] == (5, 2) and together.observed["norm"].shape == together.loss.shape
    for index in np.ndindex(5, 2):
        alone = descent.descend(W[index[1]], M, RATES[index[0]], 400, keep=150, every=7, observe=observe)
        for name in ("weights", "loss", "singular_values", "diverged_at"):
            assert np.array_equal(getattr(together, name)[index], getattr(alone, name)), name
        assert np.array_equal(together.observed["norm"][index], alone.observed["norm"])


def test_chunks_do_not_change_a_bit(monkeypatch):
    W, M = setting()
    rates = np.linspace(0.02, 0.05, 23)
    whole = descent.descend(W, M, rates, 300)
    monkeypatch.setattr(descent, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(descent, "BLOCK_BYTES", 5000)
    parts = descent.descend(W, M, rates, 300)
    for name in ("weights", "loss", "singular_values", "diverged_at"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name)), name


def test_divergence_is_reported_and_every_finite_value_is_kept():
    W, M = setting()
    run = descent.descend(W, M, RATES, 900, observe={"first": lambda w: w[..., 0, 0, 0]})
    assert run.diverged.tolist() == [False, False, False, True, True]
    for i in np.flatnonzero(run.diverged):
        at = run.diverged_at[i]
        assert np.isfinite(run.loss[i, :at]).all() and np.isinf(run.loss[i, at:]).all()
        assert np.isfinite(run.singular_values[i, :at]).all() and np.isinf(run.singular_values[i, at:]).all()
        assert np.isinf(run.observed["first"][i, at:]).all() and np.isfinite(run.observed["first"][i, :at]).all()
        assert network.loss(run.weights[i], M) == run.loss[i, at - 1]  # the last state with a finite loss
        with np.errstate(over="ignore", invalid="ignore"):
            a, b, c = by_hand(run.weights[i], M, RATES[i], 1)  # one step: before it the run is chaotic
            assert not np.isfinite(((c @ b @ a - M) ** 2).sum())
    assert np.isfinite(run.weights).all() and run.diverged_at[:3].tolist() == [-1, -1, -1]


def test_divergence_from_the_first_step():
    run = descent.descend(np.full((3, 1, 1), 1e60), np.eye(1), 1.0, 5)
    assert run.diverged and run.diverged_at == 0 and np.isinf(run.loss).all()
    assert np.array_equal(run.weights, np.full((3, 1, 1), 1e60))


def test_what_follows_the_last_record_is_run_to_its_end():
    W, M = setting()
    for steps in (1256, 1999, 2000):
        run = descent.descend(W, M, 0.02, steps, every=1000)
        assert run.steps.tolist() == [0, 1000, 2000][: 1 + steps // 1000]
        assert np.array_equal(run.weights, descent.descend(W, M, 0.02, steps, keep=1).weights)
        np.testing.assert_allclose(run.weights, by_hand(W, M, 0.02, steps), rtol=0, atol=1e-12)


@pytest.mark.parametrize("observe", [{}, {"x": len}])
@pytest.mark.parametrize(
    ("width", "n", "steps"), [(1, 5, 30), (1, 5, 900), (5, 2000, 9000), (20, 400, 9000), (60, 9, 700), (120, 3, 9)]
)
def test_chunks_and_blocks_are_as_large_as_their_bytes_allow(width, n, steps, observe):
    W, M, _, plan = descent._plan(np.zeros((4, width, width)), np.eye(width), 0.1, steps, None, 1, observe, True)
    runs = np.broadcast_to(W, (n, *W.shape))
    make, chunk, block = descent._engine(False, None, runs, plan)
    one = 8 * width**2
    assert make is loops.Loop and chunk >= 1 and (chunk == 1 or chunk * one <= descent.CHUNK_BYTES < (chunk + 1) * one)
    held = one * min(n, chunk) * (4 if observe else 1)
    most = min(256, steps + 1)
    assert 1 <= block <= most and (block == 1 or block * held <= descent.BLOCK_BYTES)
    assert block == most or (block + 1) * held > descent.BLOCK_BYTES


def test_a_width_that_fills_a_chunk_alone():
    rng = np.random.default_rng(0)
    W, M = rng.standard_normal((2, 120, 120)) / 11, np.eye(120)
    assert 8 * 120**2 > descent.CHUNK_BYTES
    run = descent.descend(W, M, [0.01, 0.02], 1)
    assert run.loss[0, 1] == descent.descend(W, M, 0.01, 1).loss[1] != run.loss[1, 1] < run.loss[1, 0]


def test_a_run_that_is_lost_is_lost_once():
    """At rest its loss may still be infinite: the first step stays the one that is told, block after block."""
    run = descent.descend(np.full((2, 1, 1), 0.5), np.array([[1e200]]), [0.1, 0.2], 900)
    assert run.diverged_at.tolist() == [0, 0] and np.isinf(run.loss).all() and np.all(run.weights == 0.5)


def test_a_run_lost_at_the_start_beside_one_that_is_lost_on_the_way():
    W, M = setting()
    run = descent.descend(np.stack([np.full_like(W, 1e120), W]), M, 0.2, 900)
    alone = descent.descend(W, M, 0.2, 900)
    assert run.diverged_at.tolist() == [0, alone.diverged_at] and alone.diverged_at > 0
    assert np.array_equal(run.weights[1], alone.weights) and np.all(run.weights[0] == 1e120)


@pytest.mark.skipif(np.finfo(np.longdouble).max == np.finfo(float).max, reason="long double is double here")
def test_the_range_is_that_of_the_dtype():
    one = np.ones((1, 1), np.longdouble)
    run = descent.descend(np.full((1, 1, 1), 1e200, np.longdouble), one, 0.5, 3)
    assert not run.diverged and run.loss[0] == np.longdouble(1e200) ** 2 / 2


def test_the_values_of_later_blocks_may_need_a_wider_dtype():
    W, M = setting()
    kinds = iter([1, 0.5, 0.25, 0.125])
    run = descent.descend(W, M, 0.02, 600, observe={"x": lambda w: np.full(w.shape[:2], next(kinds))})
    assert run.observed["x"].dtype == float and run.observed["x"][[0, -1]].tolist() == [1, 0.25]


def test_what_a_faster_loop_needs_is_said(monkeypatch):
    W, M = setting()
    pytest.importorskip("numba")
    single, long = ((W.astype(dtype), M.astype(dtype)) for dtype in (np.float32, np.longdouble))
    for call, words in (
        (
            lambda: descent.descend(*single, 0.1, 5, compiled=True),
            "^compiled: got True for a run in float32, needs float64$",
        ),
        (
            lambda: descent.descend(*long, 0.1, 5, device="cpu"),
            "^device: got 'cpu' for a run in .*, needs float32 or float64$",
        ),
        (
            lambda: descent.descend(W, M, 0.1, 5, compiled=True, device="cpu"),
            "^device: got 'cpu' and compiled=True, needs one",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            call()

    def missing(name):
        raise ModuleNotFoundError(name=lacking)

    monkeypatch.setattr(importlib, "import_module", missing)
    for option, value, package in (("compiled", True, "numba"), ("device", "cpu", "torch")):
        lacking = package
        with pytest.raises(ValueError, match=f"^{option}: got {value!r}, needs the package {package}: "):
            descent.descend(W, M, 0.1, 5, **{option: value})
        lacking = "another"
        with pytest.raises(ModuleNotFoundError) as error:  # a fault of the module's own
            descent.descend(W, M, 0.1, 5, **{option: value})
        assert error.value.name == "another"


def test_flow_takes_a_method_of_high_order_with_the_tolerances(monkeypatch):
    seen, solve = [], descent.solve_ivp
    monkeypatch.setattr(descent, "solve_ivp", lambda *a, **k: seen.append(k) or solve(*a, **k))
    assert descent.flow(*setting(), [0.0, 0.5], rtol=2.5e-14, atol=1e-13).shape == (2, 3, 5, 5)
    assert (seen[0]["method"], seen[0]["rtol"], seen[0]["atol"]) == (descent.DOP853, 2.5e-14, 1e-13)


def test_what_is_recorded():
    W, M = setting()
    assert descent.descend(W, M, 0.02, 3, keep=99).steps.tolist() == [0, 1, 2, 3]
    full = descent.descend(W, M, 0.0315, 1000, observe={"w": lambda w: w})
    last = descent.descend(W, M, 0.0315, 1000, keep=10)
    thin = descent.descend(W, M, 0.0315, 1000, every=300)
    assert last.steps.tolist() == list(range(991, 1001)) and np.array_equal(last.loss, full.loss[-10:])
    assert thin.steps.tolist() == [0, 300, 600, 900] and np.array_equal(
        thin.singular_values, full.singular_values[::300]
    )
    assert np.array_equal(full.observed["w"][-1], full.weights) and np.array_equal(full.observed["w"][0], W)
    assert descent.descend(W, M, 0.1, 0).loss.shape == (1,)
    assert descent.descend(W, M, 0.1, 3, singular_values=False).singular_values is None


@pytest.mark.parametrize("dtype", [np.float32, np.longdouble])
def test_dtypes_are_kept(dtype):
    W, M = setting()
    run = descent.descend(W.astype(dtype), M.astype(dtype), 0.02, 600)
    assert run.weights.dtype == run.loss.dtype == dtype
    np.testing.assert_allclose(run.loss.astype(float), descent.descend(W, M, 0.02, 600).loss, atol=2e-3)


@pytest.mark.skipif(np.finfo(np.longdouble).eps == np.finfo(float).eps, reason="long double is double here")
def test_longdouble_is_closer_to_exact_arithmetic_than_float64():
    """After 19 steps the exact weight lies 1e-16 from the nearest float64: extended and quad precision come closer."""
    with mpmath.workdps(50):
        a, b, rate = mpmath.mpf(1) / 3, mpmath.mpf(1) / 5, mpmath.mpf(0.3)
        for _ in range(19):
            R = a * b - 1
            a, b = a - rate * R * b, b - rate * R * a
        nearest = abs(mpmath.mpf(float(a)) - a)
        start = np.array([[[np.longdouble(1) / 3]], [[np.longdouble(1) / 5]]])
        end = descent.descend(start, np.eye(1, dtype=np.longdouble), 0.3, 19).weights[0, 0, 0]
        error = abs(mpmath.mpf(np.format_float_positional(end)) - a)
    # 19 steps of at most 8 roundings of numbers up to 1.1, by eps / 2 each; the descent contracts what came before
    assert error < nearest and float(error) < 19 * 8 * 1.1 * float(np.finfo(np.longdouble).eps) / 2


def test_the_wider_dtype_decides_and_the_rate_is_not_rounded_to_the_narrower():
    W, M = setting()
    mixed = descent.descend(W.astype(np.float32), M, 0.1, 3)
    assert mixed.weights.dtype == np.float64
    assert np.array_equal(mixed.weights, descent.descend(W.astype(np.float32).astype(float), M, 0.1, 3).weights)
    assert descent.descend(W, M, RATES, 2).learning_rate.tolist() == RATES.tolist()


def test_the_rates_of_a_run_are_its_own():
    W, M = setting()
    rates = RATES.copy()
    run = descent.descend(W, M, rates, 2)
    rates[:] = 1.0
    assert run.learning_rate.tolist() == RATES.tolist()
    run.learning_rate[0] = 2.0
    assert rates[0] == 1.0


def test_observers_see_zeros_past_divergence_and_later_blocks_are_left_alone():
    W, M = setting()
    sizes = []
    run = descent.descend(
        W, M, 0.2, 900, observe={"size": lambda w: sizes.append(np.abs(w).max()) or (w * w).sum((-3, -2, -1))}
    )
    assert run.diverged_at > 0 and np.isfinite(sizes).all() and sizes[-1] == 0
    assert np.isinf(run.observed["size"][run.diverged_at :]).all()


def test_mpmath_objects_run():
    W = np.empty((2, 1, 1), object)
    W[:] = mpmath.mpf("0.9")
    run = descent.descend(W, np.array([[mpmath.mpf(1)]], object), 1.1, 20)
    np.testing.assert_allclose(
        run.loss.astype(float), descent.descend(np.full((2, 1, 1), 0.9), np.eye(1), 1.1, 20).loss, rtol=1e-9
    )


def test_flow_conserves_the_gaps_and_lowers_the_loss():
    rng = np.random.default_rng(5)
    W, M = rng.standard_normal((3, 4, 4)) / 2, rng.standard_normal((4, 4))
    states = descent.flow(W, M, [0.0, 0.5, 2.0])
    gaps = states[:, 1:].mT @ states[:, 1:] - states[:, :-1] @ states[:, :-1].mT
    np.testing.assert_allclose(gaps, np.broadcast_to(gaps[0], gaps.shape), atol=1e-8)
    assert np.all(np.diff(network.loss(states, M)) < 0) and np.array_equal(states[0], W)


def test_flow_is_as_accurate_as_it_says():
    """One balanced mode of depth two: s^2 follows the logistic equation."""
    s, times = 0.1, np.array([1.0, 3.0])
    exact = 1 / (1 + (1 / s**2 - 1) * np.exp(-2 * times))
    np.testing.assert_allclose(descent.flow(np.full((2, 1, 1), s), np.eye(1), times)[:, 0, 0, 0] ** 2, exact, rtol=1e-9)
    assert descent.flow(np.full((2, 1, 1), s), np.eye(1), [0.0])[0, 0, 0, 0] == s


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_flow_is_the_same_in_all_units(depth):
    """From c W to c^L M in the time c^(2 - 2 L) t it is c times that from W to M; for a power of two, bit for bit."""
    rng, times = np.random.default_rng(depth), np.array([0.1, 1.0, 3.0])
    W, M = rng.standard_normal((depth, 2, 2)), rng.standard_normal((2, 2))
    here = descent.flow(W, M, times)
    for power in (-480, -40, -1, 1, 40, 480):
        power = power // depth  # so that target and times are within the floating range
        there = descent.flow(np.ldexp(W, power), np.ldexp(M, power * depth), np.ldexp(times, power * (2 - 2 * depth)))
        assert np.array_equal(np.ldexp(there, -power), here)


@pytest.mark.parametrize("s", [1e-8, 1e-20, 1e-100, 1e-200])
def test_flow_from_a_small_start_escapes_when_it_should(s):
    """s^2 follows the logistic equation; with an absolute tolerance of 1e-12 the growth of smaller weights is lost."""
    times = -np.log(s) + np.array([-2.0, 0.0, 2.0])
    odds = (s * np.exp(times)) ** 2 / (1 - s**2)  # s^2 / (1 - s^2), from which it grows like exp(2 t)
    found = descent.flow(np.full((2, 1, 1), s), np.eye(1), times)[:, 0, 0, 0] ** 2
    # at most 1e-10 in each of some hundred steps, and the rounding of a time, 1e-16 of 460
    np.testing.assert_allclose(found, odds / (1 + odds), rtol=1e-7)


def test_flow_where_there_are_no_weights_or_no_time_or_no_target():
    zero, one = np.zeros((2, 2)), np.eye(2)
    assert not descent.flow(np.zeros((2, 2, 2)), one, [1.0, 2.0]).any()  # the saddle
    assert not descent.flow(np.zeros((3, 2, 2)), zero, [1.0]).any()
    found = descent.flow(np.zeros((1, 2, 2)), one, [0.0, 1.0])  # one layer: an exponential
    np.testing.assert_allclose(found[:, 0], [zero, (1 - np.exp(-1)) * one], atol=1e-9)
    W = np.full((5, 1, 1), 1e-60)  # whose own time is 1e480: nothing moves
    assert descent.flow(W, zero[:1, :1], [0.0, 1e-3, 1.0]).tolist() == [W.tolist()] * 3
    with pytest.raises(ValueError, match="^W: got weights that are lost beside the target"):
        descent.flow(np.full((2, 1, 1), 1e-290), one[:1, :1], [1.0])


def test_the_absolute_tolerance_of_flow_is_that_of_the_weights_at_each_step(monkeypatch):
    seen, step = [], descent._Relative._step_impl

    def watched(self):
        done = step(self)
        seen.append((self.atol, np.abs(self.y_old).max()))
        return done

    monkeypatch.setattr(descent._Relative, "_step_impl", watched)
    descent.flow(np.full((2, 1, 1), 1e-3), np.eye(1), [8.0])
    tolerances, sizes = np.array(seen).T
    assert np.array_equal(tolerances, 1e-12 * sizes) and sizes.min() < 1.1e-3 and sizes.max() > 0.9
    seen.clear()
    descent.flow(np.full((2, 1, 1), 1e-3), np.eye(1), [8.0], atol=1e-9)
    assert not seen


def test_flow_is_the_limit_of_descent():
    W, M = setting(3)
    end = descent.flow(W, M, [20.0])[0]
    errors = [np.abs(descent.descend(W, M, 20.0 / n, n, keep=1).weights - end).max() for n in (4000, 8000)]
    assert 1.9 < errors[0] / errors[1] < 2.1  # first order in the learning rate


def test_the_last_finite_state_is_found_wherever_in_a_block_a_run_diverges(monkeypatch):
    """The blocks are made shorter one by one, so that the first infinite loss falls on their ends and between them."""
    W, M = setting()
    known = descent.descend(W, M, [0.2, 0.05], 900).diverged_at
    for size in range(1, 9):
        for keep in (None, 1):  # with a look at each loss, and without
            monkeypatch.setattr(descent, "BLOCK_BYTES", size * 2 * 200)
            run = descent.descend(W, M, [0.2, 0.05], 900, keep=keep)
            assert np.array_equal(run.diverged_at, known) and np.isinf(run.loss[:, -1]).all(), (size, keep)
            for w, at, rate in zip(run.weights, run.diverged_at, run.learning_rate):
                assert np.isfinite(network.loss(w, M))
                with np.errstate(over="ignore", invalid="ignore"):
                    a, b, c = w - rate * network.gradient(w, M)
                    assert not np.isfinite(np.sum((c @ b @ a - M) ** 2)), (size, keep, at)


@pytest.mark.parametrize("how", [{}, {"compiled": True}, {"device": "cpu"}], ids=["plain", "compiled", "device"])
def test_a_run_that_has_diverged_does_not_slow_down_the_others(how, monkeypatch):
    """It rests at zero, with the rate zero; one layer at the rate 3 would set out again and again."""
    if how.get("compiled"):
        pytest.importorskip("numba")
    W, M = setting()[0][:1], setting()[1]
    descent.descend(W, M, 0.02, 1, **how)  # what is loaded and compiled once
    kind = {(): loops.Loop, ("compiled",): None, ("device",): cuda.Loop}[tuple(how)]
    kind = kind or sys.modules["eoslib.compiled"].Loop
    looks, losses = [], kind.losses
    monkeypatch.setattr(kind, "losses", lambda self, *room: looks.append(len(room[0])) or losses(self, *room))
    starts = np.stack([W, np.full_like(W, 1e200)])  # the second is lost from the start
    run = descent.descend(starts, M, [0.5, 3.0, 2.2, 0.1], 20_000, keep=1, **how)
    assert run.diverged.tolist() == [[False, True], [True, True], [True, True], [False, True]]
    assert 0 < sum(looks) < 3000  # those of the blocks in which a run is lost, and no others


def test_a_loss_beyond_the_floating_range_is_seen_though_the_run_comes_back():
    """A single layer with rate one jumps to its target from any start: only the first loss overflows."""
    run = descent.descend(np.full((1, 1, 1), 1e200), np.eye(1), 0.5, 1500, keep=1)
    assert run.diverged_at == 0 and np.isinf(run.loss).all() and run.weights == 1e200


@pytest.mark.parametrize("observe", [None, {"whole": lambda w: (w[..., 0, 0, 0] > 0).astype(int)}])
def test_what_is_observed_keeps_its_kind_and_its_shape(observe):
    W, M = setting()
    run = descent.descend(W, M, [0.02, 0.2], 600, observe=observe)
    for value in run.observed.values():
        assert value.shape == (2, 601) and set(np.unique(value)) <= {0, 1, np.inf}
    changing = iter(range(1, 100))
    with pytest.raises(ValueError, match="^observe: .*'x' changed the shape"):
        descent.descend(W, M, 0.02, 600, observe={"x": lambda w: np.zeros(w.shape[:2] + (next(changing),))})


def test_one_thread_inside_and_the_callers_count_afterwards():
    def count():
        return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}

    seen, (W, M) = [], setting()
    watch = {"threads": lambda w: seen.append(count()) or w[..., 0, 0, 0]}
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        descent.descend(W, M, 0.02, 300, observe=watch)
        assert set().union(*seen) == {1} and count() == {2}
        with pytest.raises(ZeroDivisionError):
            descent.descend(W, M, 0.02, 3, observe={"fails": lambda w: 1 / 0})
        assert count() == {2}
    before = count()
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(descent.descend, W, M, 0.02, 300) for _ in range(8)]
        assert all(np.array_equal(run.result().loss, runs[0].result().loss) for run in runs)
    assert count() == before


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("width", "count", "every"), [(5, 2000, 1), (20, 400, 7)])
def test_a_sweep_needs_little_memory_beside_its_result(width, count, every, compiled):
    """Whatever the number of steps and rates: buffers of one chunk and one block, some copies of 8 MiB."""
    if compiled:
        pytest.importorskip("numba")
    W, M = setting(width)
    rates = np.linspace(0.01, 0.03, count)
    options = {"keep": 60, "every": every, "compiled": compiled}
    descent.descend(W, M, rates[:9], 3, compiled=compiled)  # what is loaded and compiled once
    peaks = []
    for steps in (100, 300):
        tracemalloc.start()
        run = descent.descend(W, M, rates, steps, **options)
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    result = sum(value.nbytes for value in (run.weights, run.loss, run.singular_values)) / 2**20
    assert peaks[0] - result < 60 and peaks[1] - peaks[0] < 1


BAD = [
    (lambda W, M: descent.descend(W, M, -0.1, 5), "learning_rate"),
    (lambda W, M: descent.descend(W, M, 0.0, 5), "learning_rate"),
    (lambda W, M: descent.descend(W, M, np.nan, 5), "learning_rate"),
    (lambda W, M: descent.descend(W, M, [], 5), "learning_rate"),
    (lambda W, M: descent.descend(W.astype(np.float32), M.astype(np.float32), 1e-60, 5), "learning_rate"),
    (lambda W, M: descent.descend(W.astype(np.float32), M.astype(np.float32), [0.1, 1e60], 5), "learning_rate"),
    (lambda W, M: descent.descend(W, M, 0.1, True), "steps"),
    (lambda W, M: descent.descend(W, M, 0.1, 5, observe={"x": lambda w: w.sum()}), "observe"),
    (lambda W, M: descent.descend(W[None], M, [0.1, 0.2], 5, observe={"x": lambda w: w[:, 0, 0, 0, 0]}), "observe"),
    (lambda W, M: descent.descend(torch.tensor(W), torch.tensor(M), 0.1, 5), "W"),
    (lambda W, M: descent.flow(torch.tensor(W), torch.tensor(M), [1.0]), "W"),
    (lambda W, M: descent.descend(W, M, 0.1, -1), "steps"),
    (lambda W, M: descent.descend(W, M, 0.1, 2.5), "steps"),
    (lambda W, M: descent.descend(W, M, 0.1, 5, keep=0), "keep"),
    (lambda W, M: descent.descend(W, M, 0.1, 5, every=0), "every"),
    (lambda W, M: descent.descend(W, M, 0.1, 5, keep=1, every=4), "every"),
    (lambda W, M: descent.descend(W[0], M, 0.1, 5), "W"),
    (lambda W, M: descent.descend(W, M[:2], 0.1, 5), "M"),
    (lambda W, M: descent.flow(W[None], M, [1.0]), "W"),
    (lambda W, M: descent.flow(W, M, [1.0, 1.0]), "times"),
    (lambda W, M: descent.flow(W, M, [-1.0]), "times"),
]


@pytest.mark.parametrize("call, argument", BAD)
def test_bad_input_is_named(call, argument):
    with pytest.raises(ValueError, match=f"^{argument}: "):
        call(*setting())


def test_flow_says_where_it_stopped():
    W = network.initialise("balanced", depth=3, width=2, scale=0.5)
    with pytest.raises(RuntimeError, match="gradient flow stopped before time 1"):
        descent.flow(W, np.diag([1e200, 1.0]), [1.0])
    assert descent.flow(W, np.diag([2.0, 1.0]), [0.0]).shape == (1, 3, 2, 2)


def test_flow_says_how_far_it_came(monkeypatch):
    lost = types.SimpleNamespace(success=False, t=np.array([0.0, 0.5]), message="no step is small enough")
    monkeypatch.setattr(descent, "solve_ivp", lambda *arguments, **options: lost)
    with pytest.raises(RuntimeError, match=r"^gradient flow stopped after time 0\.5: no step is small enough$"):
        descent.flow(*setting(), [0.0, 0.5, 1.0])


@pytest.mark.parametrize("keep", [None, 3])
def test_a_run_dead_from_the_start_beside_others_over_many_blocks(keep, monkeypatch):
    """Blocks of a few steps: the dead run stays as it was in each of them, and its neighbours do not notice it."""
    monkeypatch.setattr(descent, "BLOCK_BYTES", 1000)
    W, M = setting()
    starts = np.stack([W, np.full_like(W, 1e120), 1.1 * W])
    run = descent.descend(starts, M, 0.02, 800, keep=keep, observe={"w": lambda w: w[..., 0, 0, 0]})
    assert run.diverged.tolist() == [False, True, False] and run.diverged_at.tolist() == [-1, 0, -1]
    assert (
        np.isinf(run.loss[1]).all() and np.isinf(run.singular_values[1]).all() and np.isinf(run.observed["w"][1]).all()
    )
    assert np.array_equal(run.weights[1], starts[1])
    for i in (0, 2):
        alone = descent.descend(starts[i], M, 0.02, 800, keep=keep)
        assert np.array_equal(run.loss[i], alone.loss) and np.array_equal(run.weights[i], alone.weights)


def test_a_single_layer_is_a_linear_recursion():
    """W - M is multiplied by 1 - rate in each step."""
    rng = np.random.default_rng(2)
    W, M = rng.standard_normal((2, 1, 3, 3)), rng.standard_normal((3, 3))
    run = descent.descend(W, M, [[0.5], [1.5]], 6, keep=4, every=2)
    assert run.steps.tolist() == [4, 6] and run.loss.shape == (2, 1, 2, 2) and run.learning_rate.shape == (2, 1, 2)
    for i, rate in enumerate((0.5, 1.5)):
        np.testing.assert_allclose(run.weights[i, 0], M + (1 - rate) ** 6 * (W - M), rtol=0, atol=1e-14)
        for k, t in enumerate((4, 6)):
            P = M + (1 - rate) ** t * (W[:, 0] - M)
            np.testing.assert_allclose(run.loss[i, 0, :, k], ((P - M) ** 2).sum((-2, -1)) / 2, rtol=1e-10)
            np.testing.assert_allclose(run.singular_values[i, 0, :, k], np.linalg.svd(P, compute_uv=False), rtol=1e-12)
    np.testing.assert_allclose(descent.flow(W[0], M, [0.0, 2.0])[1], M + np.exp(-2) * (W[0] - M), atol=1e-9)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda W, M: descent.descend(W, M, 0.1, 5, every=0), "^every: got 0, needs an integer >= 1$"),
        (lambda W, M: descent.descend(W, M, 0.1, 5, keep=0), "^keep: got 0, needs an integer >= 1$"),
        (lambda W, M: descent.descend(W, M, 0.1, -1), "^steps: got -1, needs an integer >= 0$"),
        (
            lambda W, M: descent.descend(W, M, 0.1, 9, keep=3, every=5),
            "^every: got 5, but none of the states 7 to 9 is",
        ),
        (lambda W, M: descent.descend(W, M, 0.1, 5, observe=[1]), r"^observe: got \[1\], needs a dict of functions"),
        (lambda W, M: descent.descend(W, M, 0.1, 5, observe={"a": 1}), "^observe: got .* needs a dict of functions"),
        (lambda W, M: descent.descend(W, M, 0.1, 5, observe={7: lambda w: w}), "^observe: got .* by their names$"),
        (lambda W, M: descent.descend(W, M, 0.1, 5, observe={("a",): lambda w: w, "b": len}), "^observe: got"),
        (lambda W, M: descent.descend(W, M, 0.1, 2**33), r"^steps: got an array of shape \(8589934593,\)"),
        (
            lambda W, M: descent.descend(W, M, 0.1, 2**36, keep=2**34, every=2),
            r"^steps: got an array of shape \(8589934592,\)",
        ),
        (lambda W, M: descent.descend(W, M, 0.1, 5, singular_values=1), "^singular_values: got 1"),
        (
            lambda W, M: descent.descend(np.zeros((0, *W.shape)), M, 0.1, 5),
            r"^learning_rate: got shape \(\) with W of shape",
        ),
        (lambda W, M: descent.flow(W, M, []), "^times: got .* needs a non-empty increasing list"),
        (lambda W, M: descent.flow(W, M, [[1.0]]), "^times: got"),
        (lambda W, M: descent.flow(W, M, [2.0, 1.0]), "^times: got"),
        (lambda W, M: descent.flow(W, M, [1.0], rtol=0.0), "^rtol: got 0.0"),
        (lambda W, M: descent.flow(W, M, [1.0], atol=0.0), "^atol: got 0.0"),
        (lambda W, M: descent.flow(W, M, [1.0], rtol=2.4e-14), "^rtol: got 2.4e-14, needs at least 2.5e-14"),
        (lambda W, M: descent.flow(W.astype(object), M, [1.0]), "^W, M: got an array of objects"),
        (lambda W, M: descent.flow(W, M.astype(object), [1.0]), "^W, M: got an array of objects"),
        (lambda W, M: descent.flow(np.stack([W, W]), M, [1.0]), "^W: got shape .* needs one network"),
    ],
)
def test_refusals_name_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call(*setting())


def test_a_users_function_gets_as_many_expanded_states_as_fit(monkeypatch):
    """Nine states of 2 * 6 * 6 numbers: four at a time in a block of four and a bit, one at a time in a tiny block."""
    small = reduction.reduce(np.stack([np.eye(6) / 2, np.zeros((6, 6))]), np.diag([1.0, 0.5, 0, 0, 0, 0]))
    w = np.random.default_rng(0).standard_normal((3, 3, *small.weights.shape))
    full, seen = small.expand(w), []

    def corner(states):
        seen.append(states.shape)
        return states[..., 0, :2, 0]

    for size, counts in ((4 * 576 + 575, [4, 4, 1]), (10, [1] * 9), (9 * 576, [9])):
        monkeypatch.setattr(descent, "BLOCK_BYTES", size)
        seen.clear()
        assert np.array_equal(descent._expanded(corner, small, w), full[..., 0, :2, 0])
        assert seen == [(1, count, 2, 6, 6) for count in counts]
    monkeypatch.setattr(descent, "BLOCK_BYTES", 4 * 576)
    assert descent._expanded(lambda states: np.ones((1, 4)), small, w).shape == (1, 4)  # wrong in the last piece alone
    with pytest.raises(ValueError, match=r"^observe: the function 'four' returned shape \(1, 4\) for weights of shape"):
        four = lambda w: descent._expanded(lambda states: np.ones((1, 4)), small, w)
        descent._observe({"four": four}, w, np.zeros((3, 3), bool))


def test_later_values_may_be_complex():
    """Only the record so far has to be widened; an array of real numbers would drop the imaginary part."""
    W, M = setting()
    kinds = iter([1.0, 0.5j, 0.25, 0.125])
    run = descent.descend(W, M, 0.02, 600, observe={"x": lambda w: np.full(w.shape[:2], next(kinds))})
    assert run.observed["x"].dtype == complex and run.observed["x"][[0, 256]].tolist() == [1, 0.5j]


def test_a_flow_that_never_ends_is_stopped(monkeypatch):
    monkeypatch.setattr(descent, "MOST_SLOPES", 500)
    with pytest.raises(RuntimeError, match="^gradient flow stopped after time .*: 500 evaluations of the gradient"):
        descent.flow(np.ones((2, 1, 1)), np.eye(1), [1e100])
    with pytest.raises(RuntimeError, match="^gradient flow stopped before time 1e.300: the last is 1e150 times that"):
        descent.flow(np.ones((2, 1, 1)), np.eye(1), [1e300])  # squares of the slopes are zero in these units
    assert np.isfinite(descent.flow(np.ones((2, 1, 1)), 2 * np.eye(1), [1.0])).all()


def test_a_flow_may_take_just_so_many_evaluations(monkeypatch):
    calls, inner = [], network.sweep_back

    def counted(*args):
        calls.append(1)
        return inner(*args)

    monkeypatch.setattr(network, "sweep_back", counted)
    call = lambda: descent.flow(np.ones((2, 1, 1), np.float32), 2 * np.eye(1, dtype=np.float32), [1.0])
    found, needed = call(), len(calls)
    monkeypatch.setattr(descent, "MOST_SLOPES", needed)
    np.testing.assert_array_equal(call(), found)
    monkeypatch.setattr(descent, "MOST_SLOPES", needed - 1)
    with pytest.raises(RuntimeError, match=f"^gradient flow stopped after time [01].*: {needed - 1} evaluations"):
        call()


@pytest.mark.skipif(np.finfo(np.longdouble).max == np.finfo(float).max, reason="long double is double here")
def test_what_a_flow_cannot_hold_in_floats_is_named():
    far, one = np.full((2, 1, 1), np.longdouble("1e400")), np.ones((2, 1, 1))
    for W_, M_, name in ((far, np.eye(1), "W"), (one, far[0], "M")):
        with pytest.raises(ValueError, match=f"^{name}: got entries beyond the range of float64"):
            descent.flow(W_, M_, [1.0])
