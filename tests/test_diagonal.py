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


def test_periods_are_told_relative_to_the_size_of_the_coordinate():
    swing = np.array([0.0, 1.0] * 16)[:, None]
    for size in (1.0, 1e6, 1e-6):  # a two-cycle of relative width 2e-7 is one, of width 5e-8 it is rest
        assert diagonal.periods(size * (1 + 2e-7 * swing)).tolist() == [2]
        assert diagonal.periods(size * (1 + 5e-8 * swing)).tolist() == [1]
    assert diagonal.periods(1 + 1e-3 * swing, tolerance=1e-2).tolist() == [1]
    assert diagonal.periods(np.array([3, 4] * 16)[:, None]).tolist() == [2]  # whole numbers


def test_periods_up_to_the_largest_and_no_further():
    for period, expected in ((16, 16), (17, 0), (1, 1)):
        orbit = np.resize(np.linspace(1, 2, period), 64)
        assert diagonal.periods(np.stack([orbit, np.ones(64)], axis=-1)).tolist() == [expected, 1]
    batch = np.ones((3, 4, 2, 5)) * np.array([1.0, 2.0])[:, None]
    batch[1] = 1.0
    found = diagonal.periods(batch, largest=1)
    assert found.shape == (3, 4, 5) and not found[[0, 2]].any() and np.all(found[1] == 1)
    assert diagonal.periods(np.ones((32, 1))).tolist() == [1]
    with pytest.raises(ValueError, match=r"^values: got shape \(31, 1\), needs .* 2 \* largest = 32$"):
        diagonal.periods(np.ones((31, 1)))
    assert diagonal.periods(np.ones((4, 1)), largest=2).tolist() == [1]
    for bad in (
        np.array([[np.nan, 1.0]] * 32),
        [["a"]] * 32,
        [[1.0], [1.0, 2.0]],
        np.ma.masked_array(np.ones((32, 1))),
    ):
        with pytest.raises(ValueError, match="^values: got"):
            diagonal.periods(bad)


def test_one_layer_is_a_linear_recursion():
    """s - t is multiplied by 1 - rate in each step."""
    target = np.array([2.0, -1.0, 0.0])
    start = diagonal.initialise("balanced", depth=1, width=3, scale=0.5)
    run = diagonal.descend(start, target, [0.5, 3.0], 4, keep=3)
    assert run.steps.tolist() == [2, 3, 4] and run.coordinates.shape == (2, 3, 3) and run.loss.shape == (2, 3)
    for i, rate in enumerate((0.5, 3.0)):
        expected = target + (0.5 - target) * (1 - rate) ** np.arange(2.0, 5.0)[:, None]
        assert_allclose(run.coordinates[i], expected, rtol=1e-14)
        assert_allclose(run.loss[i], [((x - target) ** 2).sum() / 2 for x in expected], rtol=1e-14)
        assert_allclose(run.weights[i, 0], expected[-1], rtol=1e-14)
    assert diagonal.initialise("unbalanced", depth=1, width=2, scale=0.5).tolist() == [[0.0, 0.0]]
    for keep in (None, 100):
        whole = diagonal.descend(start, target, 0.5, 4, keep=keep)
        assert whole.steps.tolist() == [0, 1, 2, 3, 4] and whole.coordinates[0].tolist() == [0.5, 0.5, 0.5]
    assert diagonal.descend(start, target, 0.5, 4, keep=1).steps.tolist() == [4]
    none = diagonal.descend(start, target, 0.5, 0)
    assert (
        none.steps.tolist() == [0]
        and np.array_equal(none.weights, start)
        and none.loss.tolist() == [(2.25 + 2.25 + 0.25) / 2]
    )


def test_the_start_is_not_changed_and_rates_have_their_own_axes():
    start = np.full((2, 2, 3), 0.5)
    run = diagonal.descend(start, np.ones(3), np.full((4, 1), 0.1), 2)
    assert run.coordinates.shape == (4, 1, 2, 3, 3) and np.all(start == 0.5) and not run.diverged.any()
    assert diagonal.gradient(np.ones((0, 2, 3)), np.ones(3)).shape == (0, 2, 3)  # an empty batch
    one = diagonal.descend(np.full((2, 1), 0.5), [1.0], 0.1, 1)
    assert_allclose(one.weights, 0.5 + 0.1 * 0.75 * 0.5, rtol=1e-15)  # s + rate (1 - s^2) s


def test_a_run_whose_last_state_alone_is_not_finite_has_diverged():
    # the first step sends the layers to 1e200, where the product is out of range; that product is not recorded
    run = diagonal.descend(np.array([[1e100], [1e100]]), [0.0], 1.0, 1, keep=2)
    assert bool(run.diverged) and np.isfinite(run.coordinates[0, 0]) and np.isinf(run.coordinates[1, 0])
    # loss out of range beside a product within it
    run = diagonal.descend(np.array([[1e100], [1e60]]), [0.0], 1e-300, 0)
    assert bool(run.diverged) and np.isfinite(run.coordinates).all() and np.isinf(run.loss[0])
    # a loss that leaves the range while the layers do not: 1e70 becomes -1e-130 * 1e140 * 1e70 = -1e80
    run = diagonal.descend(np.full((2, 1), 1e70), [0.0], 1e-130, 1)
    assert bool(run.diverged) and np.isfinite(run.weights).all() and np.isfinite(run.loss).tolist() == [True, False]
    # one bad coordinate beside a good one, one bad state among good ones
    run = diagonal.descend(np.array([[1.0, 3.0], [1.0, 3.0]]), [1.0, 1.0], 1.0, 12)
    assert bool(run.diverged) and np.all(run.coordinates[:6, 0] == 1.0) and np.all(np.isfinite(run.coordinates[:6]))
    assert np.all(np.isinf(run.coordinates[6:]))  # a state with one infinity is infinite as a whole
    assert not np.isnan(run.weights).any()


def test_blocks_of_a_batch_by_hand():
    """Three layers with 2, 3, 5 and target 29: residual 1, so that entry (l, m) is P^2 / (s_l s_m) + s_k."""
    s = np.array([[[2.0], [3.0], [5.0]], [[1.0], [1.0], [1.0]]])
    first, second = diagonal.hessian_blocks(s, [29.0])
    assert_allclose(first[0], [[225, 155, 93], [155, 100, 62], [93, 62, 36]])
    assert_allclose(second[0], np.ones((3, 3)) - 28 * (1 - np.eye(3)))
    assert_allclose(diagonal.gradient(s, [29.0])[0, :, 0], [15, 10, 6])
    assert diagonal.hessian_blocks([[2.0, 7.0]], [0.0, 0.0]).tolist() == [[[1.0]], [[1.0]]]  # one layer: the identity


def test_spectrum_counts():
    full, counts = diagonal.spectrum_at_minimum([4.0, 1.0], depth=2, width=2, scale=0.5)
    assert full.tolist() == [8.0, 2.0, 0.0] and counts.tolist() == [1, 1, 2]
    balanced, counts = diagonal.spectrum_at_minimum(4.0, depth=2, width=3, scale=0.5, init="balanced")
    assert balanced.tolist() == [8.0, 0.0] and counts.tolist() == [1, 5]
    value, counts = diagonal.spectrum_at_minimum([4.0], depth=2, width=3, scale=0.5)  # unbalanced by default
    assert value.tolist() == [8.0, 0.25, 0.0] and counts.tolist() == [1, 2, 3]


def test_multipliers_on_both_sides_of_the_edge():
    """L = 2, target 1, q = 2 rate; the ratio of the two points is read off the map itself."""
    found = diagonal.multipliers([1.0], 2, 0.9)
    assert_allclose([found.along[0], found.across[0]], [(1 - 1.8) ** 2, 1.0], rtol=1e-14)
    edge = diagonal.multipliers([1.0], 2, 1.0)
    assert_allclose([edge.along[0], edge.across[0]], [1.0, 1.0], rtol=1e-14)
    s, eta = 0.8, 1.1
    for _ in range(2000):  # the multiplier along is 0.18 or so: long at rest on the cycle
        s = s + eta * (1 - s * s) * s
    z = s / (s + eta * (1 - s * s) * s)
    assert_allclose(diagonal.multipliers([1.0], 2, eta).across[0], 5 - 2 * (z + 1 / z), rtol=1e-11)


def test_the_ratio_itself_is_excluded_and_order_does_not_matter():
    ratio = diagonal.together(2)
    assert diagonal.most_together((1.0, ratio), 2) == 1
    assert diagonal.most_together((ratio * 1.0000001, 1.0), 2) == 2
    assert diagonal.most_together((1.0, 1.0, 1.0), 2) == 3 and diagonal.most_together(1.0, 2) == 1
    assert diagonal.together(3) == pytest.approx((2 / scalar.window(3).period_four) ** 0.75, rel=1e-14, abs=0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: diagonal.gradient([[1e200], [1e200], [1e200]], [0.0]), "^s: got .* needs numbers whose result"),
        (lambda: diagonal.hessian_blocks([[1e200], [1e200], [1e200]], [0.0]), "^s: got .* needs numbers whose result"),
        (lambda: diagonal.spectrum_at_minimum([1e300], depth=3, width=1, scale=1.0), "^singular_values: got"),
        (lambda: diagonal.spectrum_at_minimum([1.0], depth=3, width=1, scale=1e100), "^scale: got"),
        (
            lambda: diagonal.spectrum_at_minimum([1.0], depth=1, width=1, scale=1.0),
            "^depth: got 1, needs an integer >= 2",
        ),
        (
            lambda: diagonal.spectrum_at_minimum([[1.0]], depth=2, width=1, scale=1.0),
            r"^singular_values: got shape \(1, 1\)",
        ),
        (lambda: diagonal.spectrum_at_minimum([], depth=2, width=1, scale=1.0), r"^singular_values: got shape \(0,\)"),
        (lambda: diagonal.spectrum_at_minimum([1.0], depth=2, width=1, scale=0.0), "^scale: got 0.0"),
        (
            lambda: diagonal.multipliers([1e200], 3, 1e200),
            r"^singular_values, learning_rate: got \[1e\+200\], 1e\+200: ",
        ),
        (lambda: diagonal.multipliers([1.0], 2, 0.0), "^learning_rate: got 0.0"),
        (lambda: diagonal.initialise("balanced", depth=0, width=1, scale=1.0), "^depth: got 0, needs an integer >= 1"),
        (lambda: diagonal.initialise("balanced", depth=1, width=0, scale=1.0), "^width: got 0, needs an integer >= 1"),
        (lambda: diagonal.initialise("balanced", depth=2**20, width=2**20, scale=1.0), "^depth, width: got an array"),
        (lambda: diagonal.descend([[1.0]], [1.0], 0.1, -1), "^steps: got -1, needs an integer >= 0"),
        (lambda: diagonal.descend([[1.0]], [1.0], 0.1, 1, keep=0), "^keep: got 0, needs an integer >= 1"),
        (lambda: diagonal.descend([[1.0]], [1.0], 0.0, 1), "^learning_rate: got 0.0"),
        (lambda: diagonal.gradient(np.ones((0, 1)), [1.0]), r"^s: got shape \(0, 1\)"),
        (lambda: diagonal.gradient(np.ones((1, 0)), []), r"^s: got shape \(1, 0\)"),
        (lambda: diagonal.periods(np.ones((64, 1)), tolerance=0.0), "^tolerance: got 0.0"),
        (lambda: diagonal.gradient([[1e200], [1e200], [0.0], [1.0]], [0.0]), "^s: got .* needs numbers whose result"),
        (
            lambda: diagonal.hessian_blocks([[1e200], [1e200], [0.0], [1.0]], [0.0]),
            "^s: got .* needs numbers whose result",
        ),
        (
            lambda: diagonal.spectrum_at_minimum([1.0], depth=2, width=0, scale=1.0),
            "^width: got 0, needs an integer >= 1$",
        ),
        (lambda: diagonal.multipliers([1.0], 1, 0.1), "^depth: got 1, needs an integer >= 2$"),
        (
            lambda: diagonal.periods(np.ones((64, 1)), tolerance=-1.0),
            "^tolerance: got -1.0, needs one finite real number > 0$",
        ),
        (lambda: diagonal.periods(np.ones((64, 1)), largest=0), "^largest: got 0, needs an integer >= 1"),
    ],
)
def test_refusals_name_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_no_product_is_lost_in_a_narrower_dtype_than_the_result():
    """Layers of 1e-30 in float32 beside a target in float64: products of two and three of them are 1e-60 and 1e-90."""
    s = np.full((3, 1), 1e-30, np.float32)
    size = float(s[0, 0])
    assert_allclose(diagonal.gradient(s, [2.0]), -2 * size**2, rtol=1e-14)
    H = diagonal.hessian_blocks(s, [2.0])
    assert_allclose(H[0], -2 * size * (1 - np.eye(3)) + size**4, rtol=1e-14)
    run = diagonal.descend(s, [2.0], 0.5, 1)
    assert_allclose(run.coordinates[:, 0], [size**3, (size + size**2) ** 3], rtol=1e-14)
    assert run.weights.dtype == np.float64
    narrow = diagonal.descend(np.ones((2, 1), np.float32), np.float32([2.0]), np.float32(0.1), 2)
    assert narrow.weights.dtype == narrow.coordinates.dtype == np.float32
    wide = diagonal.descend(np.ones((2, 1), np.float32), np.float32([2.0]), 0.1, 2)
    assert wide.weights.dtype == np.float64  # that of the rate; 1 + 0.1 is not rounded to float32
    assert_allclose(wide.coordinates[1, 0], 1.1**2, rtol=1e-15)


@pytest.mark.skipif(np.finfo(np.longdouble).max == np.finfo(float).max, reason="long double is double here")
def test_long_doubles_out_of_the_range_of_floats():
    tiny = np.longdouble("1e-4000")
    for call, words in (
        (lambda: diagonal.most_together([1.0, tiny], 2), "^singular_values: got .*, which is zero in float64"),
        (lambda: diagonal.multipliers([1.0], 2, tiny), "^learning_rate: got .*, which is zero in float64"),
        (lambda: diagonal.initialise("balanced", depth=1, width=1, scale=tiny), "^scale: got .*, which is zero in"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    assert diagonal.periods(tiny * np.resize([1.0, 2.0], (32, 1))).tolist() == [2]


def test_most_layers_of_the_blocks(monkeypatch):
    monkeypatch.setattr(diagonal, "_blocks", lambda s, target: np.array(len(s)))
    assert diagonal.hessian_blocks(np.ones((1000, 2)), [1.0, 1.0]) == 1000
    with pytest.raises(ValueError, match="^s: got 1001 layers, needs at most 1000"):
        diagonal.hessian_blocks(np.ones((1001, 2)), [1.0, 1.0])


def test_what_periods_refuses():
    for tolerance in (0.0, -1.0):
        with pytest.raises(ValueError, match=f"^tolerance: got {tolerance}, needs one finite real number > 0"):
            diagonal.periods(np.ones((64, 1)), tolerance=tolerance)
    for bad in ([[1.0], [1.0, 2.0]], np.full((64, 1), np.nan), np.ones((64, 1), bool), np.ma.ones((64, 1))):
        words = r"^values: got .*, needs real numbers \(infinite where a run diverged\)"
        with pytest.raises(ValueError, match=words):
            diagonal.periods(bad)
