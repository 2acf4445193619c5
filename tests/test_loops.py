"""The inner loop of descent against the update written out, and one thread meanwhile."""

import sys
import threading
import tracemalloc

import numpy as np
import pytest
import threadpoolctl

from eoslib import loops

DTYPES = [np.float64, np.float32, np.longdouble]


def start(n, depth, width=3, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    W, M = rng.standard_normal((n, depth, width, width)) / 2, rng.standard_normal((width, width))
    return W.astype(dtype), M.astype(dtype), np.linspace(0.02, 0.1, n).astype(dtype)


def product(W):
    """The end-to-end matrix of one network, multiplied one layer after another."""
    P = np.eye(W.shape[-1], dtype=W.dtype)
    for layer in W:
        P = layer @ P
    return P


def step(W, M, rate):
    """One update of one network: each gradient is the residual between the layers after and before."""
    residual = product(W) - M
    return np.stack(
        [layer - rate * product(W[i + 1 :]).T @ residual @ product(W[:i]).T for i, layer in enumerate(W)]
        if len(W) > 1
        else [W[0] - rate * residual]
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [1, 3])
def test_the_loop_is_the_update_written_out(n, depth, dtype):
    W, M, rates = start(n, depth, dtype=dtype)
    loop = loops.Loop(W, M, rates)
    states = [W]
    for _ in range(7):
        states.append(np.stack([step(w, M, rate) for w, rate in zip(states[-1], rates)]))
    few = 100 * np.finfo(dtype).eps  # some roundings of numbers of size one, in seven steps that do not amplify them
    room = loop.room(4)
    assert room.shape == ((4, 3, 3) if n == 1 else (4, n, 3, 3)) and room.dtype == dtype
    loop.record(room)
    for k in range(4):
        np.testing.assert_allclose(room[k].reshape(n, 3, 3), [product(w) for w in states[k]], rtol=0, atol=few)
    np.testing.assert_allclose(loop.read(), states[4], rtol=0, atol=few)
    assert loop.skip(3) is True
    np.testing.assert_allclose(loop.read(), states[7], rtol=0, atol=few)
    assert loop.read().dtype == dtype and loop.read().shape == W.shape and loop.read().flags.c_contiguous
    assert loop.skip(0) is True and np.array_equal(loop.read(), loop.read())


@pytest.mark.parametrize("n", [1, 3])
def test_what_a_loop_holds_is_its_own(n):
    W, M, rates = start(n, 3)
    kept = W.copy(), M.copy(), rates.copy()
    for order in (lambda a: a, lambda a: np.asfortranarray(a)):
        loop = loops.Loop(order(W), order(M), rates)
        assert loop.weights.flags.c_contiguous and loop.target.flags.c_contiguous  # each layer in one piece
        loop.skip(2)
        assert all(np.array_equal(a, b) for a, b in zip((W, M, rates), kept))
        seen = loop.read()
        loop.skip(1)
        assert not np.array_equal(seen, loop.read())  # a copy
    other = start(n, 3, seed=1)[0]
    loop.write(other)
    assert np.array_equal(loop.read(), other)
    loop.skip(1)
    np.testing.assert_allclose(loop.read()[-1], step(other[-1], M, rates[-1]), rtol=0, atol=1e-14)
    assert not np.array_equal(loop.read(), other)


@pytest.mark.parametrize("n", [1, 30])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_step_allocates_no_matrix(n, depth):
    W, M, rates = start(n, depth, width=48)
    loop = loops.Loop(W / 7, M, rates)
    loop.skip(1)
    tracemalloc.start()
    loop.skip(3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # NumPy's buffer of 8192 numbers where rates of many runs are broadcast; all runs together hold 69,120 in a layer
    assert peak < (48 * 48 * 8 / 2 if n == 1 else 1.5 * 8192 * 8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 3])
def test_losses_and_singular_values_of_some_states(n, dtype):
    W, M, rates = start(n, 2, dtype=dtype)
    loop = loops.Loop(W, M, rates)
    products = loop.room(5)
    loop.record(products)
    P = products.reshape(5, n, 3, 3).astype(float)
    few = 30 * np.finfo(dtype).eps if dtype != np.longdouble else 30 * np.finfo(float).eps  # sums of nine squares
    losses = loop.losses(products, loop.room(5))
    assert losses.shape == (5, n) and losses.dtype == dtype
    np.testing.assert_allclose(losses.astype(float), ((P - M.astype(float)) ** 2).sum((-2, -1)) / 2, rtol=few)
    loop.copies = 4  # the last diagonal entry stands for four
    more = 1.5 * (P - M.astype(float))[..., -1, -1] ** 2
    np.testing.assert_allclose(loop.losses(products, loop.room(5)).astype(float), losses.astype(float) + more, rtol=few)
    dead = np.zeros((5, n), bool)
    wanted = np.linalg.svd(P, compute_uv=False)
    assert loop.singular_values(products, dead).dtype == (np.float32 if dtype == np.float32 else float)
    np.testing.assert_allclose(loop.singular_values(products, dead), wanted, rtol=0, atol=few)
    dead[3, -1] = True
    products.reshape(5, n, 3, 3)[3, -1] = np.nan  # on which LAPACK would give up
    wanted[3, -1] = 0
    np.testing.assert_allclose(loop.singular_values(products, dead), wanted, rtol=0, atol=few)


@pytest.mark.parametrize("n", [1, 3])
def test_a_loss_out_of_range_anywhere_on_the_way_is_told(n):
    """A single layer at rate one is at its target after a step, wherever it came from."""
    W, M, rates = np.full((n, 1, 1, 1), 0.5), np.zeros((1, 1)), np.ones(n)
    W[-1] = 1e160
    with np.errstate(over="ignore"):
        assert loops.Loop(W, M, rates).skip(3) is False
    W[-1] = 1e153  # whose square is 1e306, and half of a thousand times that out of range
    loop = loops.Loop(W, M, rates)
    assert loop.skip(1) is True
    with np.errstate(over="ignore"):
        loop.write(W)
        loop.copies = 1000
        assert loop.skip(1) is False
    assert loop.skip(1) is True and not loop.read().any()


@pytest.mark.parametrize("n", [1, 3])
def test_retired_runs_rest_at_zero_and_the_others_go_on(n):
    W, M, rates = start(n, 1)
    loop, alone = loops.Loop(W, M, rates), loops.Loop(W, M, rates)
    loop.retire(np.arange(n) == 0)
    loop.skip(3), alone.skip(3)
    assert not loop.read()[0].any() and np.array_equal(loop.read()[1:], alone.read()[1:])
    assert alone.read()[0].any()
    again = loops.Loop(W, M, rates)
    again.retire(np.zeros(n, bool))  # none
    again.skip(3)
    assert np.array_equal(again.read(), alone.read())


def count():
    return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}


def test_the_first_that_comes_in_limits_and_restores():
    seen = []

    def other():
        with loops.one_thread():
            seen.append(count())
        seen.append(count())  # it was not the first, and restores nothing

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        with loops.one_thread():
            assert count() == {1}
            thread = threading.Thread(target=other)
            thread.start(), thread.join()
            with loops.one_thread():  # nor is it again
                assert count() == {1}
            assert count() == {1} and seen == [{1}, {1}]
        assert count() == {2}
        for _ in range(2):  # whatever happens inside, and again afterwards
            with pytest.raises(ZeroDivisionError), loops.one_thread():
                assert count() == {1}
                raise ZeroDivisionError
            assert count() == {2}


def test_other_pools_are_left_alone():
    """The pools of OpenMP, as torch has one, are none of NumPy's."""
    import torch  # noqa: F401  brings a pool of OpenMP

    def openmp():
        return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "openmp"]

    with threadpoolctl.threadpool_limits(2):
        before = openmp()
        with loops.one_thread():
            assert openmp() == before


def test_without_threadpoolctl_nothing_is_changed(monkeypatch):
    before = count()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "threadpoolctl", None)
        assert loops._pools.__wrapped__() is None
    monkeypatch.setattr(loops, "_pools", lambda: None)
    with loops.one_thread():
        assert count() == before
        assert loops._FIRST.acquire(blocking=False)
        loops._FIRST.release()
