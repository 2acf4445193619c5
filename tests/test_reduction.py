"""Descent in the invariant subspace against the full run: below the edge, on cycles, in chaos, and where it must refuse."""

import numpy as np
import pytest
import torch

from eoslib import descent, network, reduction, transverse


def reduced(*arguments, **options):
    return descent.descend(*arguments, reduce=True, **options)


def setting(start, depth, width, scale=0.1, values=(10.0, 9.0, 6.0), **target):
    rng = np.random.default_rng(10 * depth + width)
    t = network.target(values, width, rng=rng, **target)
    return network.initialise(start, depth=depth, width=width, scale=scale, rng=rng), t.matrix


def same(small, full, tolerance):
    assert small.weights.shape == full.weights.shape and small.observed.keys() == full.observed.keys()
    assert np.array_equal(small.diverged_at, full.diverged_at) and np.array_equal(small.steps, full.steps)
    for name in ("loss", "singular_values", "weights", "learning_rate"):
        np.testing.assert_allclose(getattr(small, name), getattr(full, name), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("start", ["unbalanced", "balanced", "orthogonal"])
@pytest.mark.parametrize(("depth", "width"), [(2, 5), (3, 5), (4, 7), (5, 5), (3, 20), (5, 20), (2, 100), (3, 100)])
def test_the_full_run_below_the_edge(start, depth, width):
    """Rounding does not grow there: some hundred steps, each some roundings of numbers up to ten times the width."""
    W, M = setting(start, depth, width, scale=0.5)
    rates = np.array([0.4, 1.2]) / (depth * 10 ** (2 - 2 / depth))
    full, small = (run(W, M, rates, 300, every=3) for run in (descent.descend, reduced))
    same(small, full, 1e-9)
    assert full.loss[-1, -1] < full.loss[-1, 0] / 3


@pytest.mark.parametrize("layer", [0, 1, 2, None])
@pytest.mark.parametrize("width", [3, 4, 6, 7, 12])
def test_any_orthogonal_layers_with_factors_of_their_own(layer, width):
    """One layer zero, whichever, or none; widths below, at and above twice the rank."""
    rng = np.random.default_rng(width)
    W = np.linalg.qr(rng.standard_normal((2, 3, width, width)))[0] * rng.uniform(0.4, 1.2, (2, 3, 1, 1))
    if layer is not None:
        W[:, layer] = 0
    M = network.target((3.0, 2.0, 1.0), width, rng=rng).matrix
    rates = np.array([0.02, 0.05])
    full, small = (run(W, M, rates, 400) for run in (descent.descend, reduced))
    assert not full.diverged.any() and full.loss[..., -1].max() < 0.7 * full.loss[..., 0].min()
    same(small, full, 1e-9)


def test_a_batch_may_mix_starts_with_and_without_a_zero_layer():
    W, M = setting("orthogonal", 3, 9, scale=0.6)
    W = np.stack([W, W])
    W[1, 2] = np.linalg.qr(np.random.default_rng(0).standard_normal((9, 9)))[0]
    same(reduced(W, M, [0.01, 0.02], 300), descent.descend(W, M, [0.01, 0.02], 300), 1e-9)


def test_the_bases_are_orthonormal_and_invariant():
    for start in ("unbalanced", "balanced", "orthogonal"):
        W, M = setting(start, 4, 11)
        if start == "orthogonal":
            W[-1] = W[0].T
        small = reduction.reduce(W, M)
        np.testing.assert_allclose(
            small.frames.mT @ small.frames,
            np.broadcast_to(np.eye(small.frames.shape[-1]), (5,) + 2 * small.frames.shape[-1:]),
            atol=1e-13,
        )
        np.testing.assert_allclose(small.expand(small.weights), W, atol=1e-14)
        later = descent.descend(W, M, 0.01, 300).weights
        for w, before, after in zip(later, small.frames, small.frames[1:]):
            inside = after @ after.T
            np.testing.assert_allclose(w @ before, inside @ w @ before, atol=1e-12)  # into the next subspace
            np.testing.assert_allclose(w.T @ after, before @ before.T @ w.T @ after, atol=1e-12)  # and back
        assert small.departure < 1e-13 and small.frames.shape[-1] == (3 if start == "unbalanced" else 6)


@pytest.mark.parametrize("start", ["unbalanced", "orthogonal", "balanced"])
def test_the_two_cycle_beyond_the_edge(start):
    """Short of 2/lambda_12 nothing transverse grows: a cycle that attracts is reached to rounding."""
    values, depth = (10.0, 6.0, 3.0), 3
    W, M = setting(start, depth, 30, scale=0.05, values=values)
    edge, end = 2 / (depth * 10 ** (2 - 2 / depth)), transverse.threshold(values, depth)
    rate = edge * 1.1
    assert edge < rate < end
    full, small = (run(W, M, rate, 6000, keep=4) for run in (descent.descend, reduced))
    assert abs(full.singular_values[-1, 0] - full.singular_values[-2, 0]) > 1
    np.testing.assert_allclose(np.sort(small.loss), np.sort(full.loss), rtol=1e-6)  # the phase may differ
    np.testing.assert_allclose(np.sort(small.singular_values, axis=0), np.sort(full.singular_values, axis=0), atol=1e-7)


def test_beyond_the_second_threshold_the_statistics_agree():
    """Rounding between two near modes grows, in the subspace as in the full width: the orbits part, their ranges do not."""
    values, depth = (10.0, 9.5, 2.0), 3
    W, M = setting("unbalanced", depth, 12, scale=0.05, values=values)
    rate = 1.03 * transverse.threshold(values, depth)
    runs = [run(W, M, rate, 30_000, keep=20_000) for run in (descent.descend, reduced)]
    assert not any(run.diverged for run in runs)
    a, b = (run.singular_values[:, :2] for run in runs)
    assert np.abs(a - b).max() > 0.1  # not the same orbit
    means = np.stack([a, b]).reshape(2, 100, 200, 2).mean(axis=2)  # of blocks longer than what the orbit remembers
    spread = np.sqrt(means.var(axis=1).sum(axis=0) / 100)
    assert np.all(np.abs(means[0].mean(axis=0) - means[1].mean(axis=0)) < 4 * spread)
    assert all(run.singular_values[:, 3:].max() < 1e-6 for run in runs)  # nothing leaves the three modes


def test_divergence_is_that_of_the_full_run():
    W, M = setting("balanced", 3, 8, scale=0.7)
    rates = np.array([0.01, 0.3, 0.02, 1.0])
    full, small = (run(W, M, rates, 60) for run in (descent.descend, reduced))
    assert small.diverged.tolist() == full.diverged.tolist() == [False, True, False, True]
    assert (
        np.isinf(small.loss[1, -1])
        and np.all(np.isinf(small.singular_values[1, -1]))
        and np.isfinite(small.weights).all()
    )
    assert np.abs(small.diverged_at - full.diverged_at).max() <= 2  # the way out multiplies roundings


# Depth, factor of the layers, rate, and where the run diverges; width 20, rank 1. The square of a singular value is then
# 4e307: half of three of them is a loss in the floating range, half of twenty is none.
EDGES = {
    "at the start": (2, 4e307**0.25, 1e-3, 0),
    "after a step": (2, 1.0, 4e307**0.25 + 1, 1),
    "and comes back": (1, 4e307**0.5, 1.0, 0),
}


@pytest.mark.parametrize("how", [{}, {"compiled": True}, {"device": "cpu"}], ids=["plain", "compiled", "device"])
@pytest.mark.parametrize("what", [{}, {"keep": 1}, {"every": 4}], ids=["whole", "keep", "every"])
@pytest.mark.parametrize("name", EDGES)
def test_a_loss_that_only_all_directions_together_make_infinite(name, what, how):
    depth, factor, rate, at = EDGES[name]
    if how.get("compiled"):
        pytest.importorskip("numba")
    W, M = np.stack([factor * np.eye(20)] * depth), np.diag(np.r_[2.0, np.zeros(19)])
    observe, rates = {"corner": lambda w: w[..., 0, 5, 5]}, [0.3, rate]
    full = descent.descend(W, M, rates, 8, observe=observe, **what)
    small = reduced(W, M, rates, 8, observe=observe, **what, **how)
    assert full.diverged_at[1] == at
    same(small, full, 1e-12)  # a few roundings
    np.testing.assert_allclose(small.observed["corner"], full.observed["corner"], rtol=1e-12)
    small = reduced(W, M, rate, 1500, keep=1, **how)  # a long way without a look at each loss
    assert small.diverged_at == at and np.isinf(small.loss).all()


@pytest.mark.parametrize("size", [1e-200, 1e-158, 1e200])
def test_a_layer_whose_squares_leave_the_floating_range_is_none_that_is_zero(size):
    W, M = setting("balanced", 2, 6, scale=1.0, values=(2.0,))
    small = reduction.reduce(W * np.array([size, 1.0])[:, None, None], M)
    assert not small.still and small.weights.shape == (2, 3, 3)
    np.testing.assert_allclose(small.expand(small.weights)[0], size * np.eye(6), rtol=1e-14, atol=1e-14 * size)


def test_observers_see_the_full_network(monkeypatch):
    W, M = setting("balanced", 3, 8, scale=0.5)
    observe = {"corner": lambda w: w[..., 0, 0, 0], "size": lambda w: (w * w).sum((-3, -2, -1))}
    observe["row"] = lambda w: w[..., 0, 0, :]
    full, small = (run(W, M, [0.01, 0.02], 200, every=20, observe=observe) for run in (descent.descend, reduced))
    same(small, full, 1e-9)
    for name, value in full.observed.items():
        np.testing.assert_allclose(small.observed[name], value, rtol=1e-9, atol=1e-11)
    taken = {"of the complement": observe["corner"]}
    assert np.array_equal(reduced(W, M, 0.01, 5, observe=taken).observed["of the complement"][0], W[0, 0, 0])
    for size in (4 * W.nbytes, 1):  # four networks at a time, or one
        monkeypatch.setattr(descent, "BLOCK_BYTES", size)
        few = reduced(W, M, [0.01, 0.02], 200, every=20, observe=observe)
        for name, value in small.observed.items():
            np.testing.assert_allclose(few.observed[name], value, rtol=1e-14, atol=1e-15)
    with pytest.raises(ValueError, match="^observe: "):
        reduced(W, M, 0.01, 5, observe=3)
    with pytest.raises(ValueError, match="^observe: got {7: .*names"):
        reduced(W, M, 0.01, 5, observe={7: observe["size"]})
    with pytest.raises(ValueError, match="^observe: .*'sum'"):
        reduced(W, M, 0.01, 5, observe={"sum": lambda w: w.sum()})
    with pytest.raises(ValueError, match="^observe: .*batch"):
        reduced(np.stack([W, W]), M, 0.01, 5, observe=observe)


def test_only_the_singular_values_asked_for_and_the_compiled_loop():
    W, M = setting("balanced", 3, 8, scale=0.5)
    assert reduced(W, M, 0.01, 50, singular_values=False).singular_values is None
    pytest.importorskip("numba")
    rates = np.linspace(0.001, 0.02, 9)
    same(*(reduced(W, M, rates, 200, keep=3, compiled=c) for c in (False, True)), 1e-9)


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        (lambda W, M: (W + 1e-9, M), "W"),
        (
            lambda W, M: (network.initialise("gaussian", depth=3, width=6, scale=0.1, rng=np.random.default_rng(0)), M),
            "W",
        ),
        (lambda W, M: (W * np.array([1, 0, 0])[:, None, None], M), "W"),
        (lambda W, M: (np.stack([W, W * np.array([1, 0, 0])[:, None, None]]), M), "W: got a start with two zero layers"),
        (lambda W, M: (np.zeros((0, *W.shape)), M), "learning_rate: got shape"),
        (lambda W, M: (W, 0 * M), "M"),
        (lambda W, M: (W.astype(np.float32), M), "W, M"),
        (lambda W, M: (W, M.astype(np.float32)), "W, M"),
        (lambda W, M: (torch.tensor(W), torch.tensor(M)), "W: got a torch tensor"),
    ],
)
def test_what_cannot_be_reduced_is_refused(change, argument):
    W, M = change(*setting("unbalanced", 3, 6))
    with pytest.raises(ValueError, match=f"^{argument}"):
        reduced(W, M, 0.1, 5)


def test_the_tolerance_is_what_a_layer_may_miss_and_a_singular_value_may_be():
    W, M = setting("orthogonal", 3, 7, values=(2.0, 0.9))
    for bad in (0.5, 0.6, 0.0):
        with pytest.raises(ValueError, match="^tolerance: got"):
            reduction.reduce(W, M, tolerance=bad)
    # k is the rank, for a layer of this start is zero: of 2.0 and 0.9 one is above 0.98, and two are above 0.88
    assert [reduction.reduce(W, M, tolerance=x).frames.shape[-1] for x in (0.49, 0.44)] == [1, 2]
    off = W @ np.diag([1.0001, 1, 1, 1, 1, 1, 1])  # by 2e-4 in one entry, of which the mean of seven takes a part
    with pytest.raises(ValueError, match=r"^W: got layers that miss .* by 1\.\de-04, needs at most 1e-12"):
        reduction.reduce(off, M)
    found = reduction.reduce(off, M, tolerance=1e-3)
    assert 1e-4 < found.departure < 3e-4 and reduction.reduce(W, M).departure < 1e-14
    assert reduction.reduce(np.stack([np.eye(2)] * 3), np.diag([2.0, 1.0])).departure == 0  # nothing is left out
    near = M + 1e-13 * np.linalg.norm(M, 2) * np.eye(7)  # a third singular value that is neglected, and said to be
    assert 0.9e-13 < reduction.reduce(W, near).departure < 1.1e-13  # the quotient, to roundings of a thousandth of it
