"""The diagonal network against matrices, against finite differences, and against what it should refuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from eoslib import descent, diagonal, hessian, network, scalar

DEPTHS = range(2, 8)


def loss(s, target):
    return ((s.prod(-2) - target) ** 2).sum(-1) / 2


@settings(derandomize=True, deadline=None, max_examples=25)
@given(depth=st.integers(1, 6), width=st.integers(1, 4), seed=st.integers(0, 100))
def test_gradient_and_hessian_are_finite_differences_of_the_loss(depth, width, seed):
    rng = np.random.default_rng(seed)
    s, target, h = rng.uniform(0.4, 1.3, (depth, width)), rng.standard_normal(width), 1e-5
    blocks, gradient = diagonal.hessian_blocks(s, target), diagonal.gradient(s, target)
    for i in range(depth):
        e = np.zeros((depth, width))
        e[i] = h
        up, down = diagonal.gradient(s + e, target), diagonal.gradient(s - e, target)
        # central differences: h^2 = 1e-10 times third derivatives (below 100 here) and 1e-16 / h of rounding
        assert_allclose((up - down).T / (2 * h), blocks[:, i], atol=1e-7)
        for j in range(width):
            e = np.zeros((depth, width))
            e[i, j] = h
            assert_allclose((loss(s + e, target) - loss(s - e, target)) / (2 * h), gradient[i, j], atol=1e-7)


@pytest.mark.parametrize("start", ["balanced", "unbalanced"])
@pytest.mark.parametrize("depth", [2, 3, 5])
def test_diagonal_matrices_are_the_diagonal_network(depth, start):
    target = np.array([4.0, 3.5, 1.0, 0.0])
    rate = 2.3 / scalar.sharpness_at_minimum(4.0, depth)
    s = diagonal.initialise(start, depth=depth, width=4, scale=0.4)
    W = network.initialise(start, depth=depth, width=4, scale=0.4)
    assert np.array_equal(np.diagonal(W, axis1=1, axis2=2), s)
    mine, full = diagonal.descend(s, target, rate, 1500), descent.descend(W, np.diag(target), rate, 1500)
    assert not full.weights[:, ~np.eye(4, dtype=bool)].any()  # exactly zero, not small
    # attracted to a cycle or a minimum: a few roundings of numbers of size 4
    assert_allclose(np.diagonal(full.weights, axis1=1, axis2=2), mine.weights, atol=1e-12)
    assert_allclose(full.loss, mine.loss, atol=1e-11)


@pytest.mark.parametrize("init", ["balanced", "unbalanced"])
@pytest.mark.parametrize("depth", DEPTHS)
def test_spectrum_at_the_minimum_is_that_of_the_dense_hessian(depth, init):
    rng = np.random.default_rng(depth)
    for rank in (1, 2, 3):
        values, width, scale = np.sort(rng.uniform(0.01, 20, rank))[::-1], 3, rng.uniform(0.05, 1.2)
        s = np.zeros((depth, width))
        s[:, :rank] = values ** (1 / depth)
        s[:-1, rank:] = scale if init == "unbalanced" else 0
        H = hessian.dense(np.array([np.diag(v) for v in s]), np.diag(s.prod(0)))
        keep = np.concatenate([i * width**2 + np.arange(width) * (width + 1) for i in range(depth)])
        found, counts = diagonal.spectrum_at_minimum(values, depth=depth, width=width, scale=scale, init=init)
        assert counts.sum() == depth * width
        # LAPACK: a few units of 1e-16 of the largest
        dense = np.linalg.eigvalsh(H[np.ix_(keep, keep)])
        assert_allclose(dense, np.sort(np.repeat(found, counts)), atol=1e-13 * found[0])


def test_the_printed_inactive_eigenvalues_are_not_those_of_the_hessian():
    depth, scale = 3, 0.7
    H = diagonal.hessian_blocks(np.array([[scale], [scale], [0.0]]), np.zeros(1))[0]
    printed = (1 + np.array([-1, 1]) * np.sqrt(4 * depth - 3)) / 2 * scale ** (2 * depth - 2)
    found = np.linalg.eigvalsh(H)
    assert found.min() > -1e-15 and printed.min() < -0.1
    assert np.abs(found[:, None] - printed).min() > 0.01


@pytest.mark.parametrize("depth", DEPTHS)
def test_multipliers_are_those_of_the_two_step_jacobian(depth):
    values = np.array([3.0, 2.9, 1.0])
    rate = 2.3 / scalar.sharpness_at_minimum(3.0, depth)
    expected = diagonal.multipliers(values, depth, rate)
    for i, value in enumerate(values):
        if scalar.relative_rate(value, depth, rate) > 2:
            cycle = scalar.two_cycle(value, depth, rate)
            points = (cycle.low, cycle.high)
        else:
            points = (value ** (1 / depth),) * 2
        J = np.eye(depth)
        for point in points:
            J = (np.eye(depth) - rate * diagonal.hessian_blocks(np.full((depth, 1), point), [value])[0]) @ J
        together, apart = np.ones(depth), np.eye(depth)[0] - np.eye(depth)[1]
        # exact eigenvectors: products of a few numbers of order one
        assert_allclose(J @ together, expected.along[i] * together, atol=1e-11)
        assert_allclose(J @ apart, expected.across[i] * apart, atol=1e-11)


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_ratio_separates_targets_that_can_from_targets_that_cannot(depth):
    ratio, window = diagonal.together(depth), scalar.window(depth)
    for factor, can in ((1.001, True), (0.999, False)):
        second = ratio * factor * 5.0
        edges = np.linspace(2, window.period_four, 20_001)[1:-1] / scalar.sharpness_at_minimum(5.0, depth)
        q = scalar.relative_rate(second, depth, edges)
        assert bool((q > 2).any()) == can


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_most_that_can_oscillate_together_is_what_a_scan_of_the_rates_finds(depth):
    rng, end = np.random.default_rng(depth), scalar.window(depth).period_four
    for _ in range(20):
        values = rng.uniform(5.0, 10.0, 6)
        rates = np.linspace(
            1.9 / scalar.sharpness_at_minimum(10.0, depth), 2.6 / scalar.sharpness_at_minimum(5.0, depth), 20_000
        )
        q = np.array([scalar.relative_rate(value, depth, rates) for value in values])
        assert diagonal.most_together(values, depth) == ((q > 2) & (q < end)).sum(0).max()


def test_the_largest_group_need_not_hold_the_largest_coordinate():
    target, depth = np.array([10.0, 8.0, 7.6, 7.2]), 3
    assert diagonal.most_together(target, depth) == 3
    start = diagonal.initialise("unbalanced", depth=depth, width=4, scale=0.1)
    rate = 2.45 / scalar.sharpness_at_minimum(8.0, depth)
    run = diagonal.descend(start, target, rate, 4000, keep=64)
    assert not run.diverged and diagonal.periods(run.coordinates)[1:].tolist() == [2, 2, 2]


def test_more_than_two_coordinates_can_be_two_periodic_and_the_largest_need_not_be():
    target, depth = np.array([10.0, 9.9, 9.7, 9.5]), 3
    start = diagonal.initialise("unbalanced", depth=depth, width=4, scale=0.1)
    rates = np.array([2.4, 2.52]) / scalar.sharpness_at_minimum(10.0, depth)
    seen = diagonal.periods(diagonal.descend(start, target, rates, 4000, keep=64).coordinates)
    assert seen.tolist() == [[2, 2, 2, 2], [4, 2, 2, 2]]


def test_a_negative_target_is_reached_from_the_one_zero_start_only():
    target = np.array([-1.0])
    ends = {
        start: diagonal.descend(diagonal.initialise(start, depth=3, width=1, scale=0.5), target, 0.4, 5000)
        for start in ("unbalanced", "balanced")
    }
    mirror = diagonal.descend(diagonal.initialise("unbalanced", depth=3, width=1, scale=0.5), -target, 0.4, 5000)
    assert_allclose(ends["unbalanced"].coordinates, -mirror.coordinates, atol=0)
    assert abs(ends["unbalanced"].coordinates[-1, 0] + 1) < 1e-12
    assert 0 < ends["balanced"].coordinates[-1, 0] < 1e-6


def test_balanced_inactive_coordinate_fades_algebraically():
    steps, depth, rate = 20_000, 3, 0.5
    s = diagonal.descend(np.full((depth, 1), 0.5), [0.0], rate, steps).weights[0, 0]
    # s' = -rate s^(2L-1): s^(2-2L) grows by (2L-2) rate a step; corrections of relative size log(steps)/steps
    assert abs(s ** (2 - 2 * depth) / ((2 * depth - 2) * rate * steps) - 1) < 0.01


def test_rates_and_starts_batch_like_single_runs_and_divergence_is_reported():
    target, rates = np.array([2.0, 1.0]), np.array([0.3, 0.55, 5.0])
    starts = np.stack([diagonal.initialise("unbalanced", depth=2, width=2, scale=a) for a in (0.1, 0.4)])
    run = diagonal.descend(starts, target, rates, 300, keep=10)
    assert run.coordinates.shape == (3, 2, 10, 2) and run.weights.shape == (3, 2, 2, 2)
    one = diagonal.descend(starts[1], target, rates[1], 300, keep=10)
    assert np.array_equal(one.coordinates, run.coordinates[1, 1]) and np.array_equal(one.weights, run.weights[1, 1])
    assert run.diverged.tolist() == [[False, False], [False, False], [True, True]]
    assert not np.isnan(run.coordinates).any() and not np.isnan(run.loss).any()
    assert (diagonal.periods(np.concatenate([run.coordinates] * 4, axis=-2))[2] == 0).all()


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: diagonal.initialise("gaussian", depth=2, width=2, scale=1.0), "start: got 'gaussian'"),
        (lambda: diagonal.initialise("balanced", depth=2, width=2, scale=0.0), "scale: got 0.0"),
        (lambda: diagonal.gradient(np.ones(3), np.ones(3)), "s: got shape"),
        (lambda: diagonal.gradient(np.ones((2, 3)), np.ones(2)), "target: got shape"),
        (lambda: diagonal.descend(np.ones((2, 1)), [1.0], -1.0, 3), "learning_rate: got -1.0"),
        (lambda: diagonal.descend(np.ones((2, 1)), [np.nan], 1.0, 3), "target: got entries"),
        (lambda: diagonal.spectrum_at_minimum((1.0, 2.0), depth=2, width=1, scale=0.1), "width: got 1"),
        (lambda: diagonal.spectrum_at_minimum((1.0,), depth=2, width=1, scale=0.1, init="zero"), "init: got 'zero'"),
        (lambda: diagonal.spectrum_at_minimum((0.0,), depth=2, width=1, scale=0.1), "singular_values: got"),
        (lambda: diagonal.multipliers((1.0,), 1, 0.1), "depth: got 1"),
        (lambda: diagonal.together(1), "depth: got 1"),
        (lambda: diagonal.most_together((1.0, -1.0), 3), "singular_values: got"),
        (lambda: diagonal.periods(np.ones((3, 2))), "values: got shape"),
    ],
)
def test_bad_input_is_named(call, word):
    with pytest.raises(ValueError, match=word.split("(")[0]):
        call()
