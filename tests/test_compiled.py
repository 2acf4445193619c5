"""The compiled loops against NumPy's: to rounding where orbits are regular, by their statistics where they are not."""

import importlib
from fractions import Fraction

import numpy as np
import pytest

from eoslib import descent, loops, network

pytest.importorskip("numba", reason="the extra `fast` is not installed")
binding = pytest.importorskip("llvmlite.binding")
compiled = importlib.import_module("eoslib.compiled")

KINDS = [{}, {"keep": 20}, {"every": 13, "observe": {"norm": lambda w: (w * w).sum((-3, -2, -1))}}]


def setting(depth, width, start="unbalanced", values=(10, 9, 6)):
    rng = np.random.default_rng(depth + width)
    M = network.target(values[:width], width, rng=rng).matrix
    W = network.initialise(start, depth=depth, width=width, scale=0.5, rng=rng)
    return W, M, depth * values[0] ** (2 - 2 / depth)


@pytest.mark.parametrize("kind", KINDS, ids=["whole", "keep", "every"])
@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@pytest.mark.parametrize("width", [1, 2, 3, 5, 7, 11, 20])
def test_compiled_descent_is_the_plain_one_to_rounding(kind, depth, width):
    """Below the edge, where rounding does not grow. Eleven runs: a full group of lanes and a part of one."""
    W, M, S = setting(depth, width, "orthogonal")
    rates = np.linspace(0.2, 1.2, 11) / S  # the layers are not balanced, which makes the minimum steeper
    plain, compiled = (descent.descend(W, M, rates, 400, compiled=c, **kind) for c in (False, True))
    assert not plain.diverged.any() and not compiled.diverged.any()
    assert np.median(network.loss(plain.weights, M)) < np.sum(M * M) / 10  # most have left the saddle
    for name in ("weights", "loss", "singular_values"):
        # some ten thousand roundings of numbers up to the norm of the target, squared in the loss
        np.testing.assert_allclose(getattr(compiled, name), getattr(plain, name), rtol=1e-10, atol=1e-10)
    for name, value in plain.observed.items():
        np.testing.assert_allclose(compiled.observed[name], value, rtol=1e-10)


@pytest.mark.parametrize("width", [1, 5, 7])
def test_a_compiled_batch_is_its_runs_bit_for_bit(width, monkeypatch):
    rng = np.random.default_rng(width)
    W, M = rng.standard_normal((3, 3, width, width)) / width, rng.standard_normal((width, width))
    rates = np.array([0.02, 0.3, 0.05, 0.1, 1.0, 0.01, 0.2])
    together = descent.descend(W, M, rates, 300, keep=150, compiled=True)
    for index in np.ndindex(7, 3):
        alone = descent.descend(W[index[1]], M, rates[index[0]], 300, keep=150, compiled=True)
        for name in ("weights", "loss", "singular_values", "diverged_at"):
            assert np.array_equal(getattr(together, name)[index], getattr(alone, name)), name
    monkeypatch.setattr(compiled, "CHUNK_BYTES", 1)  # one group of lanes at a time
    monkeypatch.setattr(descent, "BLOCK_BYTES", 5000)
    parts = descent.descend(W, M, rates, 300, keep=150, compiled=True)
    for name in ("weights", "loss", "singular_values", "diverged_at"):
        assert np.array_equal(getattr(together, name), getattr(parts, name)), name


@pytest.mark.parametrize("keep", [None, 2])
def test_compiled_divergence(keep):
    W, M, S = setting(3, 5)
    rates = np.array([1.0, 8.0, 1.5, 40.0]) / S
    run = descent.descend(W, M, rates, 900, keep=keep, compiled=True)
    assert run.diverged.tolist() == [False, True, False, True] and np.isfinite(run.weights).all()
    assert np.isinf(run.loss[run.diverged, -1]).all() and np.isfinite(run.loss[~run.diverged]).all()
    for w, at, rate in zip(run.weights, run.diverged_at, rates):
        if at >= 0:
            assert np.isfinite(network.loss(w, M))
            with np.errstate(over="ignore", invalid="ignore"):
                a, b, c = w - rate * network.gradient(w, M)
                assert not np.isfinite(np.sum((c @ b @ a - M) ** 2))


def test_beyond_the_edge_the_two_agree_on_cycles_and_in_the_mean():
    """A two-cycle attracts, so the last states agree to rounding; a chaotic band agrees in its mean and its ends."""
    W, S = np.full((2, 1, 1), 0.9), 2.0
    cycle, band = 2.3 / S, 3.0 / S  # period four is born at q = 2.47, chaos sets in at 2.6
    plain, fast = (descent.descend(W, np.eye(1), [cycle, band], 40_000, keep=20_000, compiled=c) for c in (False, True))
    np.testing.assert_allclose(fast.singular_values[0], plain.singular_values[0], rtol=1e-12)
    a, b = plain.singular_values[1, :, 0], fast.singular_values[1, :, 0]
    assert np.abs(a - b).max() > 0.5  # the orbits themselves part
    means = np.stack([a, b]).reshape(2, 100, 200).mean(axis=2)  # of blocks far longer than the memory of the orbit
    assert abs(means[0].mean() - means[1].mean()) < 4 * np.sqrt(means.var(axis=1).sum() / 100)
    np.testing.assert_allclose([b.min(), b.max()], [a.min(), a.max()], atol=0.02)  # 20,000 points: the ends are sampled


def test_what_the_compiled_loops_cannot_do_is_named(monkeypatch):
    W, M, S = setting(2, 3)
    with pytest.raises(ValueError, match="^compiled: .*float32, needs float64"):
        descent.descend(W.astype(np.float32), M.astype(np.float32), 1 / S, 5, compiled=True)
    with pytest.raises(ValueError, match="^compiled: "):
        descent.descend(W, M, 1 / S, 5, compiled="yes")


@pytest.mark.skipif(not binding.get_host_cpu_features().get("fma", True), reason="this processor does not fuse")
def test_products_and_sums_are_fused():
    """What is left of s² - m is the rounding of the square, which only a fused product keeps; else s would rest."""
    s = np.sqrt(np.arange(2.0, 30.0))
    m = s * s
    left = np.array([float(Fraction(float(b)) - Fraction(float(a)) ** 2) for a, b in zip(s, m)])
    assert np.count_nonzero(left) > 20 and np.abs(left).max() < 4e-15
    states, at = np.empty((1, s.size)), np.full(s.size, -1)
    rate = 2.0**60  # the steps are far above the last place of s
    compiled.orbit(s, m, np.full(s.size, rate), 2, 1, states, at)
    np.testing.assert_allclose(states[0], s + rate * s * left, rtol=1e-15)  # four roundings of 1e-16 at most
    rest = compiled.Loop(s.reshape(-1, 1, 1, 1), np.zeros((1, 1)), 1 / s)
    rest.skip(1)  # one layer: s - (1 / s) s, of which the fused difference leaves the rounding of the reciprocal
    left = [float(Fraction(float(a)) - Fraction(1 / float(a)) * Fraction(float(a))) for a in s]
    np.testing.assert_allclose(rest.read().ravel(), left, rtol=1e-15)


@pytest.mark.skipif(not binding.get_host_cpu_features().get("fma", True), reason="this processor does not fuse")
def test_entries_of_products_are_sums_of_fused_products():
    """The first term is rounded, and the second added to it in one rounding."""
    rng = np.random.default_rng(0)
    W = rng.standard_normal((9, 2, 2, 2))
    loop = compiled.Loop(W, np.zeros((2, 2)), np.zeros(9))
    seen = loop.room(1)
    loop.record(seen)
    exact, plain = np.empty((9, 2, 2)), np.empty((9, 2, 2))
    for run, i, j in np.ndindex(9, 2, 2):
        (a, b), (x, y) = W[run, 1, i], W[run, 0, :, j]
        exact[run, i, j] = float(Fraction(float(a * x)) + Fraction(float(b)) * Fraction(float(y)))
        plain[run, i, j] = a * x + b * y
    assert np.array_equal(seen[0].reshape(9, 2, 2), exact) and not np.array_equal(exact, plain)


@pytest.mark.parametrize(("depth", "width", "runs"), [(1, 3, 2), (2, 5, 9), (3, 7, 17), (4, 2, 8), (2, 11, 3)])
def test_whole_numbers_are_computed_exactly(depth, width, runs):
    """Steps from small whole numbers with the rates 1 and 2: no rounding anywhere, so the loops agree exactly."""
    rng = np.random.default_rng(depth * width)
    W = rng.integers(-1, 2, (runs, depth, width, width)).astype(float)
    M, rates = rng.integers(-3, 4, (width, width)).astype(float), rng.integers(1, 3, runs).astype(float)
    plain, fast = loops.Loop(W, M, rates), compiled.Loop(W, M, rates)
    for count in (1, 1) if depth < 4 else (1,):
        a, b = plain.room(count), fast.room(count)
        plain.record(a), fast.record(b)
        assert np.array_equal(a.reshape(b.shape), b) and np.abs(b).max() < 2**50
        assert np.array_equal(plain.read(), fast.read())
    retired = np.arange(runs) % 3 == 1
    plain.retire(retired), fast.retire(retired)
    assert np.array_equal(plain.read(), fast.read()) and not fast.read()[retired].any()
    fast.write(W), plain.write(W)
    fast.skip(1), plain.skip(1)
    assert np.array_equal(fast.read(), plain.read()) and np.array_equal(fast.read()[retired], W[retired])
