"""Update rules against loops written out, their two-cycles against long runs, and bad input."""

import functools
from math import gamma

import mpmath
import numpy as np
import pytest
from scipy.special import ive, kve

from eoslib import descent, network, optimisers, scalar


def setting(seed=0):
    target = network.target((3, 2), 3, rng=np.random.default_rng(seed))
    W = 0.7 * np.random.default_rng(seed + 1).standard_normal((3, 3, 3))
    return W, target.matrix


def grad(W, M):
    """Gradient of three layers written with explicit products."""
    a, b, c = W
    R = c @ b @ a - M
    return np.stack([(c @ b).T @ R, c.T @ R @ a.T, R @ (b @ a).T])


def test_no_momentum_is_plain_descent():
    W, M = setting()
    plain = descent.descend(W, M, 0.02, 50)
    for rule in (optimisers.HeavyBall(0.0), optimisers.Nesterov(0.0), optimisers.WeightDecay(0.0)):
        run = optimisers.descend(W, M, 0.02, 50, rule=rule)
        np.testing.assert_allclose(run.weights, plain.weights, rtol=1e-12)  # other order of the same sums
        np.testing.assert_allclose(run.loss, plain.loss, rtol=1e-12)
        np.testing.assert_allclose(run.singular_values, plain.singular_values, rtol=1e-12, atol=1e-12)


def test_rules_are_their_loops_written_out():
    W, M = setting()
    rate, b = 0.02, 0.6
    now, before, after, ahead, small = W, W, W, W, W
    rms, nu, mean = W, None, 0 * W
    for _ in range(20):
        now, before = now - rate * grad(now, M) + b * (now - before), now
        y = after + b * (after - ahead)
        after, ahead = y - rate * grad(y, M), after
        small = (1 - 0.01) * small - rate * grad(small, M)
        g = grad(rms, M)
        nu = np.sum(g * g) if nu is None else 0.9 * nu + 0.1 * np.sum(g * g)
        mean = b * mean + (1 - b) * g
        rms = rms - rate * mean / (np.sqrt(nu) + 1e-3)
    for rule, expected in (
        (optimisers.HeavyBall(b), now),
        (optimisers.Nesterov(b), after),
        (optimisers.WeightDecay(0.01), small),
        (optimisers.ScalarRMSProp(0.9, momentum=b, floor=1e-3), rms),
    ):
        found = optimisers.descend(W, M, rate, 20, rule=rule).weights
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


def test_noise_has_its_size_and_is_drawn_for_each_run():
    M = np.eye(2)
    W = np.stack([np.eye(2)] * 2)
    rates = np.full(4000, 0.1)
    rule = optimisers.LabelNoise(np.eye(2), 0.5, np.random.default_rng(0))
    one = optimisers.descend(W, M, rates, 1, rule=rule).weights[:, 0, 0, 0] - 1
    assert abs(one.std() / 0.05 - 1) < 0.05 and abs(one.mean()) < 0.003  # 4000 draws: 1 %, 0.0008
    rule = optimisers.BatchNoise(0.25, np.random.default_rng(0))
    step = optimisers.descend(1.1 * W, M, rates, 1, rule=rule).weights[:, 0, 0, 0] - 1.1
    values, counts = np.unique(step.round(12), return_counts=True)
    assert len(values) == 2 and abs(values[0] / values[1] - 3) < 1e-9 and abs(counts[0] - 2000) < 200


def test_diverged_runs_stop_and_batches_are_their_runs():
    W, M = setting()
    rates = np.array([0.01, 5.0])
    run = optimisers.descend(W, M, rates, 60, rule=optimisers.HeavyBall(0.5), every=5)
    assert run.diverged.tolist() == [False, True] and run.diverged_at[0] == -1 and run.diverged_at[1] > 0
    assert np.all(np.isinf(run.loss[1, run.steps >= run.diverged_at[1]])) and np.all(np.isfinite(run.weights))
    alone = optimisers.descend(W, M, 0.01, 60, rule=optimisers.HeavyBall(0.5), every=5)
    np.testing.assert_allclose(alone.loss, run.loss[0], rtol=1e-12)
    assert alone.loss.shape == (13,) and alone.steps.tolist() == list(range(0, 61, 5))


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_branches_start_at_the_edge_of_plain_descent_without_their_parameter(depth):
    for t in (0.02, 0.1):
        q, low, high = scalar.branch(t, depth)
        mu = scalar.branch_multiplier(t, depth)
        for c in (
            optimisers.heavy_ball_cycle(t, depth, momentum=0.0),
            optimisers.nesterov_cycle(t, depth, momentum=0.0),
            optimisers.weight_decay_cycle(t, depth, decay=0.0),
        ):
            np.testing.assert_allclose([c.rate, c.low, c.high], [q, low, high], rtol=1e-12)
            np.testing.assert_allclose([c.trace, c.determinant], [mu, 0], rtol=1e-11, atol=1e-11)


def test_ellipse_and_roots_agree():
    rng = np.random.default_rng(0)
    nu = rng.uniform(-1.2, 1.2, 2000) + 1j * rng.uniform(-1.2, 1.2, 2000)
    for b in (0.0, 0.3, 0.9):
        inside = np.abs(optimisers.heavy_ball_multipliers(nu, momentum=b)).max(-1) < 1
        x = (nu.real - 2 * b / (1 + b) ** 2) / ((1 + b * b) / (1 + b) ** 2)
        y = nu.imag / ((1 - b) / (1 + b))
        assert np.array_equal(inside, x * x + y * y < 1) and inside.any() and not inside.all()


def test_label_noise_law_joins_linear_response_and_cycle():
    noise = 1e-3
    D = (2 * noise / 3) ** 2
    below = optimisers.label_noise_variance(1.97, 3, noise=noise)
    assert abs(below / (D / (2 * 0.03)) - 1) < 0.05  # q in front of D differs from 2 by 1.5 %
    above = optimisers.label_noise_variance(2.1, 3, noise=noise)
    assert abs(above / (3 * 0.1 / (8 * 11)) - 1) < 0.02  # kappa delta


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: optimisers.HeavyBall(1.0), "momentum"),
        (lambda: optimisers.Nesterov(-0.1), "momentum"),
        (lambda: optimisers.WeightDecay(-1.0), "decay"),
        (lambda: optimisers.ScalarRMSProp(1.0), "memory"),
        (lambda: optimisers.LabelNoise(np.eye(2), 0.1, None), "rng"),
        (lambda: optimisers.BatchNoise(1.0, np.random.default_rng(0)), "variance"),
        (lambda: optimisers.weight_decay_cycle(0.0, 3, decay=0.1), "t"),
        (lambda: optimisers.window_end(lambda t: optimisers.heavy_ball_cycle(t, 2, momentum=0), stop=0.01), "cycle"),
        (lambda: optimisers.descend(*setting(), 0.1, 3, rule=optimisers.HeavyBall(0.1), every=0), "every"),
        (lambda: optimisers.descend(*setting(), -0.1, 3, rule=optimisers.HeavyBall(0.1)), "learning_rate"),
    ],
)
def test_bad_input_is_named(make, word):
    with pytest.raises(ValueError, match=f"^{word}"):
        make()


def test_a_rule_of_ones_own_needs_only_the_two_methods():
    class Sign:
        def start(self, W):
            return 0

        def advance(self, W, memory, gradient, rate):
            return W - rate * np.sign(gradient(W)), memory + 1

    W, M = setting()
    found = optimisers.descend(W, M, 0.01, 2, rule=Sign()).weights
    expected = W - 0.01 * np.sign(grad(W, M))
    np.testing.assert_array_equal(found, expected - 0.01 * np.sign(grad(expected, M)))
    with pytest.raises(NotImplementedError):
        optimisers.descend(W, M, 0.01, 2, rule=optimisers.Rule())


def two_steps(rule, depth, q):
    """Two steps of a rule on one mode, as a map of (weight, second number of its memory); m = 1."""

    def gradient(w):
        return (w**depth - 1) * w ** (depth - 1)

    rate = q / depth

    def step(w, other):
        if isinstance(rule, optimisers.HeavyBall):
            return w - rate * gradient(w) + rule.momentum * (w - other), w
        if isinstance(rule, optimisers.Nesterov):
            ahead = w + rule.momentum * (w - other)
            return ahead - rate * gradient(ahead), w
        if isinstance(rule, optimisers.WeightDecay):
            return (1 - rule.decay) * w - rate * gradient(w), 0.0
        g = gradient(w)  # RMSProp of one layer, with its root of the mean square; q / depth is the learning rate itself
        root = np.sqrt(rule.memory * other**2 + (1 - rule.memory) * g * g)
        return w - rate * g / (root + rule.floor), root

    return lambda w, other: np.array(step(*step(w, other)))


@pytest.mark.parametrize("depth", [2, 3, 5])
@pytest.mark.parametrize("t", [0.03, 0.08])
def test_points_trace_and_determinant_are_those_of_two_steps(depth, t):
    b = 0.6
    heavy = optimisers.heavy_ball_cycle(t, depth, momentum=b)
    ahead = optimisers.nesterov_cycle(t, depth, momentum=b)
    half = (ahead.high - ahead.low) / (2 * (1 + 2 * b))
    middle = (ahead.high + ahead.low) / 2
    decayed = optimisers.weight_decay_cycle(t, depth, decay=0.1)
    rate, rms = optimisers.rmsprop_cycle(t, depth, memory=0.8, floor=0.05)
    root = (rms.high - rms.low) / rms.rate * depth
    cases = (
        (optimisers.HeavyBall(b), heavy, heavy.rate, (heavy.low, heavy.high)),
        (optimisers.Nesterov(b), ahead, ahead.rate, (middle - half, middle + half)),
        (optimisers.WeightDecay(0.1), decayed, decayed.rate, (decayed.low, 0.0)),
        (optimisers.ScalarRMSProp(0.8, floor=0.05 * depth), rms, rate * depth, (rms.low, root)),
    )
    for rule, cycle, q, point in cases:
        F = two_steps(rule, depth, q)
        np.testing.assert_allclose(F(*point), point, rtol=0, atol=1e-12)  # it is a cycle
        h = 1e-6
        J = np.array([(F(*(point + d)) - F(*(point - d))) / (2 * h) for d in h * np.eye(2)]).T
        # central differences: 1e-12 times third derivatives of order 1e3, rounding 1e-16/1e-6
        np.testing.assert_allclose([np.trace(J), np.linalg.det(J)], [cycle.trace, cycle.determinant], rtol=0, atol=1e-6)


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_edge_under_decay_is_where_the_branch_starts(depth):
    for decay in (0.02, 0.2):
        edge = optimisers.weight_decay_edge(depth, decay=decay)
        starts = [optimisers.weight_decay_cycle(t, depth, decay=decay).rate - edge for t in (4e-3, 2e-3)]
        assert 3.9 < starts[0] / starts[1] < 4.1  # quadratic in t, to fourth order


def one(value=1.0, depth=2):
    return np.full((depth, 1, 1), value)


@pytest.mark.parametrize(
    ("trace", "determinant", "attracts"),
    [
        (0.0, 0.0, True),
        (1.5, 0.5, False),
        (1.49, 0.5, True),
        (-1.49, 0.5, True),
        (-1.5, 0.5, False),
        (0.0, 1.0, False),
        (0.0, 0.99, True),
    ],
)
def test_a_cycle_attracts_where_both_multipliers_are_inside(trace, determinant, attracts):
    cycle = optimisers.Cycle(2.1, 0.9, 1.1, trace, determinant)
    found = cycle.multipliers
    assert cycle.attracts is attracts and len(found) == 2 and abs(found[0]) >= abs(found[1])
    np.testing.assert_allclose([found.sum(), found.prod()], [trace, determinant], atol=1e-12)
    assert attracts == (np.abs(found).max() < 1 - 1e-12)


def test_multipliers_of_the_heavy_ball_by_hand():
    # nu = 0: (lambda + b)^2 = 0; nu = -1 with b = 0: lambda = -1 and 0
    np.testing.assert_allclose(
        optimisers.heavy_ball_multipliers([0.0, 1.0], momentum=0.5), [[-0.5, -0.5], [1.0, 0.25]], atol=1e-15
    )
    np.testing.assert_allclose(optimisers.heavy_ball_multipliers(-1.0, momentum=0.0), [-1, 0], atol=1e-15)
    found = optimisers.heavy_ball_multipliers([[2.0, 3j]], momentum=0.3)
    assert found.shape == (1, 2, 2) and found.dtype == complex
    for nu, pair in zip((2.0, 3j), found[0]):
        np.testing.assert_allclose((pair + 0.3) ** 2, 1.3**2 * nu * pair, rtol=1e-12)
        assert abs(pair[0]) > abs(pair[1]) and pair.prod() == pytest.approx(0.09)
    assert optimisers.heavy_ball_multipliers(np.array([1], np.int8), momentum=0.0).tolist() == [[1, 0]]


def test_momentum_of_a_single_number_by_hand():
    """f = (w_1 w_2 - 1)^2 / 2 at w = 2, before at 3: gradient 3 * 2 = 6."""
    before, W, M = one(3.0), one(2.0), np.eye(1)
    heavy = optimisers.descend(W, M, 0.1, 1, rule=optimisers.HeavyBall(0.5), memory=before).weights
    np.testing.assert_allclose(heavy, one(2 - 0.6 + 0.5 * (2 - 3)))
    ahead = 2 + 0.5 * (2 - 3)
    nesterov = optimisers.descend(W, M, 0.1, 1, rule=optimisers.Nesterov(0.5), memory=before).weights
    np.testing.assert_allclose(nesterov, one(ahead - 0.1 * (ahead**2 - 1) * ahead))
    assert optimisers.descend(W, M, 0.1, 1, rule=optimisers.HeavyBall(0.5)).weights[0] == pytest.approx(
        1.4
    )  # at rest before
    # RMSProp: the squares of both gradients, 72; the first step has the length rate / sqrt 2 in each
    rms = optimisers.descend(W, M, 0.1, 1, rule=optimisers.ScalarRMSProp(0.9)).weights
    np.testing.assert_allclose(rms, one(2 - 0.1 / np.sqrt(2)))
    adam = optimisers.descend(W, M, 0.1, 1, rule=optimisers.ScalarRMSProp(0.9, momentum=0.8, floor=1.0)).weights
    np.testing.assert_allclose(adam, one(2 - 0.1 * 0.2 * 6 / (np.sqrt(72) + 1)))


def test_what_is_recorded():
    W, M = setting()
    rule = optimisers.HeavyBall(0.3)
    whole = optimisers.descend(W, M, 0.02, 9, rule=rule, observe={"P": network.product})
    assert (
        whole.steps.tolist() == list(range(10)) and whole.loss.shape == (10,) and whole.singular_values.shape == (10, 3)
    )
    np.testing.assert_allclose(whole.observed["P"][0], network.product(W), rtol=1e-14)
    np.testing.assert_allclose(whole.loss, [network.loss(w, M) for w in _path(W, M, 9)], rtol=1e-12)
    np.testing.assert_allclose(whole.singular_values, np.linalg.svd(whole.observed["P"], compute_uv=False), rtol=1e-12)
    last = optimisers.descend(W, M, 0.02, 9, rule=rule, keep=4, every=2, singular_values=False)
    assert last.steps.tolist() == [6, 8] and last.singular_values is None and last.observed == {}
    np.testing.assert_allclose(last.loss, whole.loss[[6, 8]], rtol=1e-14)
    assert optimisers.descend(W, M, 0.02, 9, rule=rule, keep=1).steps.tolist() == [9]
    assert optimisers.descend(W, M, 0.02, 9, rule=rule, keep=99).steps.tolist() == list(range(10))
    none = optimisers.descend(W, M, 0.02, 0, rule=rule)
    assert (
        np.array_equal(none.weights, W) and none.steps.tolist() == [0] and not none.diverged and none.diverged_at == -1
    )
    with pytest.raises(ValueError, match="^every: got 5, but none of the states 7 to 9 is a multiple of it"):
        optimisers.descend(W, M, 0.02, 9, rule=rule, keep=3, every=5)
    single = optimisers.descend(W.astype(np.float32), M.astype(np.float32), 0.02, 2, rule=rule)
    assert single.weights.dtype == np.float32


def _path(W, M, steps):
    before, states = W, [W]
    for _ in range(steps):
        states.append(states[-1] - 0.02 * grad(states[-1], M) + 0.3 * (states[-1] - before))
        before = states[-2]
    return states


def test_axes_of_rates_and_of_starts():
    W, M = setting()
    starts = np.stack([W, 0.5 * W])
    run = optimisers.descend(
        starts, M, [[0.01], [0.02], [5.0]], 12, rule=optimisers.HeavyBall(0.3), observe={"P": network.product}
    )
    assert (
        run.loss.shape == (3, 1, 2, 13)
        and run.weights.shape == (3, 1, 2, 3, 3, 3)
        and run.observed["P"].shape == (3, 1, 2, 13, 3, 3)
    )
    assert run.learning_rate.shape == (3, 1, 2) and run.learning_rate[:, 0, 1].tolist() == [0.01, 0.02, 5.0]
    one_of_them = optimisers.descend(starts[1], M, 0.02, 12, rule=optimisers.HeavyBall(0.3))
    np.testing.assert_allclose(run.loss[1, 0, 1], one_of_them.loss, rtol=1e-12)
    assert run.diverged[2].all() and not run.diverged[:2].any()
    when = run.diverged_at[2, 0, 0]
    assert np.isfinite(run.loss[2, 0, 0, :when]).all() and np.isinf(run.loss[2, 0, 0, when:]).all()
    assert np.isinf(run.observed["P"][2, 0, 0, when:]).all() and np.isinf(run.singular_values[2, 0, 0, when:]).all()
    # the weights are those of the last state with a finite loss
    np.testing.assert_allclose(network.loss(run.weights[2, 0, 0], M), run.loss[2, 0, 0, when - 1], rtol=1e-10)


def test_the_rates_of_a_run_are_its_own_and_exist_in_its_dtype():
    W, M, rates = np.full((2, 1, 1), 0.9), np.eye(1), np.array([0.1, 0.2])
    run = optimisers.descend(W, M, rates, 3, rule=optimisers.HeavyBall(0.5))
    rates[:] = 1.0
    assert run.learning_rate.tolist() == [0.1, 0.2]
    for rate, word in ((1e-60, "zero"), ([0.1, 1e60], "infinite")):
        with pytest.raises(ValueError, match=f"^learning_rate: got .*, which is {word} in float32"):
            optimisers.descend(np.float32(W), np.float32(M), rate, 3, rule=optimisers.HeavyBall(0.5))


def test_edges_in_closed_form():
    assert optimisers.heavy_ball_cycle(0.0, 2, momentum=0.9).rate == pytest.approx(3.8)
    assert optimisers.nesterov_cycle(0.0, 5, momentum=0.9).rate == pytest.approx(2 * 1.9 / 2.8)
    # three layers: 2 (1 + 2 g)^(4/3) (1 + g / 2)^(-1/3)
    assert optimisers.weight_decay_edge(3, decay=0.5) == pytest.approx(
        2 * 2 ** (4 / 3) * 1.25 ** (-1 / 3), rel=1e-14, abs=0
    )
    assert optimisers.weight_decay_edge(4, decay=0.0) == 2.0
    rate, cycle = optimisers.rmsprop_cycle(0.1, 2, memory=0.5, floor=0.3)
    assert rate == pytest.approx(cycle.high - cycle.low + 0.3 * cycle.rate)
    assert optimisers.rmsprop_cycle(0.1, 2, memory=0.5)[0] == cycle.high - cycle.low  # no floor unless asked for


@pytest.mark.parametrize(("depth", "momentum"), [(2, 0.0), (2, 0.5), (3, 0.9)])
def test_the_window_ends_where_a_multiplier_is_minus_one(depth, momentum):
    branch = lambda t: optimisers.heavy_ball_cycle(t, depth, momentum=momentum)
    end = optimisers.window_end(branch)
    assert np.abs(end.multipliers + 1).min() < 1e-6 and end.rate > 2 * (1 + momentum)
    if momentum == 0:
        assert end.rate == pytest.approx(scalar.window(depth).period_four, rel=1e-10, abs=0)
    coarse = optimisers.window_end(branch, start=1e-4, stop=2.0, pieces=7)
    assert coarse.rate == pytest.approx(end.rate, rel=1e-12, abs=0)
    with pytest.raises(ValueError, match=r"^cycle: it keeps attracting, .*, for t from start = 0.001 to stop = 0.01$"):
        optimisers.window_end(branch, stop=0.01)
    with pytest.raises(ValueError, match="^start, stop: got 1.5, 1.0, needs start < stop"):
        optimisers.window_end(branch, start=1.5)  # up to 1.0 unless told otherwise


@pytest.mark.parametrize("q", [2 + 1e-6, 2.1, 3.0, 1e5, 9e99])
@pytest.mark.parametrize("depth", [2, 5])
def test_label_noise_so_weak_that_its_peak_is_normal(q, depth):
    """With u = x^2 the density is a normal one of mean a and deviation b, times u^(-1/2): its mean by Gauss and Hermite."""
    kappa = 3 / (4 * (depth - 1) * (5 * depth - 4))
    points, weights = np.polynomial.hermite_e.hermegauss(40)
    for ratio in (1e-3, 9e-5, 1.1e-4, 1e-6, 1e-30):  # b / a: on both sides of the one where the library changes the method
        a = kappa * (q - 2)
        noise = ratio * a / np.sqrt(kappa) * depth / q
        if not 1e-100 < noise:
            continue
        shares = weights / np.sqrt(1 + ratio * points)
        expected = a * (1 + ratio * (shares * points).sum() / shares.sum())
        found = optimisers.label_noise_variance(q, depth, noise=noise)
        assert found == pytest.approx(expected, rel=1e-9 if ratio > 1e-4 else 1e-15, abs=0)


def test_heavy_ball_multipliers_up_to_the_largest_that_is_taken():
    pair = optimisers.heavy_ball_multipliers([1e150, 1e150j], momentum=0.9)
    np.testing.assert_allclose(pair[:, 0], [1.9**2 * 1e150, 1.9**2 * 1e150j], rtol=1e-14, atol=0)


def test_label_noise_by_another_quadrature():
    for q, depth, noise in ((1.9, 2, 0.02), (2.0, 3, 0.05), (2.05, 2, 0.01), (2.3, 4, 0.3)):
        kappa, D = 3 / (4 * (depth - 1) * (5 * depth - 4)), (q * noise / depth) ** 2
        x = np.linspace(-3, 3, 400_001)
        power = (2 / D) * ((q - 2) * x**2 / 2 - x**4 / (4 * kappa))
        weight = np.exp(power - power.max())
        assert optimisers.label_noise_variance(q, depth, noise=noise) == pytest.approx(
            (x**2 * weight).sum() / weight.sum(), rel=1e-7
        )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: optimisers.HeavyBall(1.5), r"^momentum: got 1.5, needs a number in \[0, 1\)"),
        (lambda: optimisers.HeavyBall(np.nan), "^momentum: got"),
        (lambda: optimisers.LabelNoise(np.array([[np.inf]]), 0.1, np.random.default_rng(0)), "^direction: got"),
        (lambda: optimisers.LabelNoise(np.eye(1), -0.1, np.random.default_rng(0)), "^size: got -0.1"),
        (lambda: optimisers.LabelNoise(np.eye(1), 0.1, 3), "^rng: got 3, .* for the noise"),
        (lambda: optimisers.BatchNoise(-0.1, np.random.default_rng(0)), "^variance: got -0.1"),
        (lambda: optimisers.BatchNoise(0.5, None), "^rng: got None, .* for the noise"),
        (lambda: optimisers.ScalarRMSProp(-0.1), "^memory: got -0.1"),
        (lambda: optimisers.ScalarRMSProp(0.5, momentum=1.0), "^momentum: got 1.0"),
        (lambda: optimisers.ScalarRMSProp(0.5, floor=-1.0), "^floor: got -1.0"),
        (
            lambda: optimisers.descend(*setting(), 0.1, -1, rule=optimisers.HeavyBall(0.1)),
            "^steps: got -1, needs an integer >= 0",
        ),
        (
            lambda: optimisers.descend(*setting(), 0.1, 1, rule=optimisers.HeavyBall(0.1), keep=0),
            "^keep: got 0, needs an integer >= 1",
        ),
        (
            lambda: optimisers.descend(*setting(), 0.1, 1, rule=optimisers.HeavyBall(0.1), every=0),
            "^every: got 0, needs an integer >= 1",
        ),
        (lambda: optimisers.heavy_ball_multipliers([np.nan], momentum=0.1), "^multipliers: got .* needs finite"),
        (lambda: optimisers.heavy_ball_multipliers([[1], [1, 2]], momentum=0.1), "^multipliers: got .* needs finite"),
        (lambda: plain(observe={7: network.product}), "^observe: got .* needs a dict of functions by their names"),
        (lambda: plain(observe={"P": 1}), "^observe: got .* needs a dict of functions by their names"),
        (lambda: plain(observe={"P": np.sum}), r"^observe: the function 'P' returned shape \(\) for .* needs \(3, 1\)"),
        (lambda: plain(singular_values=1), "^singular_values: got 1"),
        (lambda: optimisers.heavy_ball_multipliers(["a"], momentum=0.1), "^multipliers: got .* needs finite"),
        (lambda: optimisers.heavy_ball_multipliers(np.ma.masked_array([1.0]), momentum=0.1), "^multipliers: got"),
        (lambda: optimisers.heavy_ball_multipliers([1e200], momentum=0.1), "^multipliers: got .* at most 1e150 in size$"),
        (lambda: optimisers.heavy_ball_multipliers([1.0, 1e200], momentum=0.1), "^multipliers: got .* at most 1e150 in size$"),
        (lambda: optimisers.heavy_ball_multipliers([-1.01e150j], momentum=0.0), "^multipliers: got .* at most 1e150 in size$"),
        (lambda: optimisers.heavy_ball_multipliers(1.0, momentum=1.0), "^momentum: got 1.0"),
        (lambda: optimisers.heavy_ball_cycle(-0.1, 2, momentum=0.1), "^t: got -0.1, needs one finite real number >= 0"),
        (lambda: optimisers.heavy_ball_cycle(0.1, 2, momentum=1.0), "^momentum: got 1.0"),
        (lambda: optimisers.nesterov_cycle(0.1, 2, momentum=1.0), "^momentum: got 1.0"),
        (lambda: optimisers.weight_decay_cycle(0.1, 1, decay=0.1), "^depth: got 1, needs an integer >= 2"),
        (lambda: optimisers.weight_decay_cycle(0.1, 3, decay=-0.1), "^decay: got -0.1"),
        (lambda: optimisers.weight_decay_cycle(100.0, 3, decay=0.1), "^t, depth, decay: got 100.0, 3, 0.1"),
        (lambda: optimisers.weight_decay_cycle(59.0, 3, decay=0.1), "^t, depth, decay: got 59.0, 3, 0.1"),
        (lambda: optimisers.weight_decay_cycle(50.1, 3, decay=0.1), "^t, depth, decay: got 50.1, 3, 0.1"),
        (lambda: optimisers.weight_decay_cycle(0.1, 3, decay=1e101), "^t, depth, decay: got"),
        (lambda: optimisers.weight_decay_edge(1, decay=0.1), "^depth: got 1, needs an integer >= 2"),
        (lambda: optimisers.weight_decay_edge(3, decay=-0.1), "^decay: got -0.1"),
        (
            lambda: optimisers.weight_decay_edge(3, decay=1.5e100),
            "^decay: got 1.5e.100, needs a number of at most 1e100",
        ),
        (lambda: optimisers.weight_decay_edge(3, decay=1e101), "^decay: got 1e.101, needs a number of at most 1e100"),
        (lambda: optimisers.rmsprop_cycle(0.0, 3, memory=0.1), "^t: got 0.0, needs one finite real number > 0"),
        (
            lambda: optimisers.rmsprop_cycle(1e-300, 3, memory=0.1),
            "^t: got 1e-300, needs a number at which the two values differ",
        ),
        (lambda: optimisers.rmsprop_cycle(0.1, 3, memory=1.0), "^memory: got 1.0"),
        (lambda: optimisers.rmsprop_cycle(0.1, 3, memory=0.1, floor=-0.1), "^floor: got -0.1"),
        (lambda: optimisers.label_noise_variance(2.0, 1, noise=0.1), "^depth: got 1, needs an integer >= 2"),
        (lambda: optimisers.label_noise_variance(0.0, 2, noise=0.1), "^q: got 0.0"),
        (lambda: optimisers.label_noise_variance(2.0, 2, noise=0.0), "^noise: got 0.0"),
        (lambda: optimisers.label_noise_variance(2.0, 2, noise=1e-101), "^q, noise, depth: got"),
        (lambda: optimisers.label_noise_variance(1e101, 2, noise=0.1), "^q, noise, depth: got"),
        (lambda: optimisers.label_noise_variance(2.0, 2, noise=1.5e100), "^q, noise, depth: got"),
        (lambda: optimisers.label_noise_variance(1e60, 2, noise=1e60), "^q, noise, depth: got"),
        (lambda: optimisers.label_noise_variance(1.5e100, 2, noise=1e-50), "^q, noise, depth: got"),
        (lambda: optimisers.weight_decay_cycle(0.1, 3, decay=1.5e100), "^t, depth, decay: got"),
    ],
)
def test_refusals_name_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_runs_lost_at_the_start_and_by_a_step_without_length():
    lost = optimisers.descend(one(1e200), np.eye(1), 0.1, 3, rule=optimisers.HeavyBall(0.5))
    assert lost.diverged and lost.diverged_at == 0 and np.all(lost.weights == 1e200)
    # the square of a gradient of 1e-200 is zero, and without a floor the step infinite
    gone = optimisers.descend(one(1e-200), np.eye(1), 0.1, 3, rule=optimisers.ScalarRMSProp(0.9))
    assert gone.diverged and gone.diverged_at == 1 and np.all(gone.weights == 1e-200)


def plain(**options):
    return optimisers.descend(*setting(), 0.1, 2, rule=optimisers.HeavyBall(0.0), **options)


def test_the_update_is_made_once_a_step_and_of_numpy_only():
    class Counting(optimisers.Rule):
        calls = 0

        def advance(self, W, memory, gradient, rate):
            self.calls += 1
            return W, None

    rule = Counting()
    optimisers.descend(*setting(), 0.1, 7, rule=rule)
    assert rule.calls == 7
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="^W: got a torch tensor, needs a NumPy array"):
        optimisers.descend(torch.ones(2, 1, 1), torch.ones(1, 1), 0.1, 1, rule=rule)


def test_noise_is_that_of_its_draws_step_by_step():
    """Three runs at once, with the draws taken beforehand from a generator of the same seed."""
    W, M = setting()
    starts, direction, rate, size, share = np.stack([W, 0.5 * W, -W]), np.outer([1, 2, 3], [1, 0, -1]), 0.02, 0.3, 0.25
    found = optimisers.descend(
        starts, M, rate, 5, rule=optimisers.LabelNoise(direction, size, np.random.default_rng(3))
    )
    expected, draws = starts.copy(), np.random.default_rng(3).standard_normal((5, 3))
    for row in draws:
        for n, xi in enumerate(row):
            expected[n] -= rate * grad(expected[n], M + size * xi * direction)
    np.testing.assert_allclose(found.weights, expected, rtol=1e-11, atol=1e-12)
    found = optimisers.descend(starts, M, rate, 5, rule=optimisers.BatchNoise(share, np.random.default_rng(3)))
    expected, rng = starts.copy(), np.random.default_rng(3)
    for _ in range(5):
        for n, sign in enumerate(rng.choice([-1, 1], size=3)):
            expected[n] -= rate * (1 + np.sqrt(share) * sign) * grad(expected[n], M)
    np.testing.assert_allclose(found.weights, expected, rtol=1e-11, atol=1e-12)


def test_rules_without_noise_or_memory_are_the_rules_they_leave():
    W, M = setting()
    plain_run = descent.descend(W, M, 0.02, 20).weights
    rng = np.random.default_rng(0)
    for rule in (optimisers.LabelNoise(np.eye(3), 0.0, rng), optimisers.BatchNoise(0.0, rng)):
        np.testing.assert_allclose(optimisers.descend(W, M, 0.02, 20, rule=rule).weights, plain_run, rtol=1e-12)
    # without memory every step of RMSProp has the length of the rate
    states = optimisers.descend(W, M, 0.02, 5, rule=optimisers.ScalarRMSProp(0.0), observe={"W": lambda w: w}).observed[
        "W"
    ]
    np.testing.assert_allclose(np.linalg.norm(np.diff(states, axis=0).reshape(5, -1), axis=1), 0.02, rtol=1e-12)


def test_one_step_size_for_each_run_of_a_batch():
    W, M = setting()
    starts, rule = np.stack([W, 0.5 * W, np.stack([np.eye(3)] * 3)]), optimisers.ScalarRMSProp(0.9, momentum=0.5)
    M = np.diag(np.diag(M))  # the last start has gradients that are zero beside the diagonal
    found = optimisers.descend(starts, M, 0.02, 6, rule=rule).weights
    for start, ended in zip(starts, found):
        alone = optimisers.descend(start, M, 0.02, 6, rule=rule).weights
        np.testing.assert_allclose(ended, alone, rtol=1e-11, atol=1e-13)
    assert np.isfinite(found).all() and not np.allclose(found[2], starts[2])


def test_an_observer_sees_what_it_sees_of_plain_descent():
    W, M = setting()
    seen = []
    for run in (descent.descend, lambda *a, **k: optimisers.descend(*a, rule=optimisers.HeavyBall(0.0), **k)):
        found = run(
            W, M, np.array([0.02, 5.0]), 20, observe={"P": lambda w: seen.append(w.copy()) or network.product(w)}
        )
    assert found.diverged.tolist() == [False, True] and seen[0].shape == seen[1].shape == (21, 2, 3, 3, 3)
    lost = found.steps >= found.diverged_at[1]
    assert np.all(seen[0][lost, 1] == 0) and np.array_equal(seen[1][lost, 1], seen[0][lost, 1])
    np.testing.assert_allclose(seen[1][:, 0], seen[0][:, 0], rtol=1e-12, atol=1e-14)


def label_noise_by_bessel(q, depth, noise):
    """The mean square under exp(-a x^2 - b x^4), the derivative of the logarithm of its integral, a Bessel function."""
    kappa, D = 3 / (4 * (depth - 1) * (5 * depth - 4)), (q * noise / depth) ** 2
    a, b = (2 - q) / D, 1 / (2 * kappa * D)
    z = a * a / (8 * b)
    if a > 0:
        return a / (4 * b) * (kve(0.75, z) / kve(0.25, z) - 1)
    return -a / (4 * b) * (1 + (ive(0.75, z) + ive(-0.75, z)) / (ive(0.25, z) + ive(-0.25, z)))


@pytest.mark.parametrize(
    ("q", "depth", "noise"),
    [(1.5, 2, 1e-3), (1.9, 2, 10.0), (1.99, 3, 3.0), (2.01, 3, 3.0), (2.3, 3, 1e-3), (2.05, 2, 0.01), (2.3, 3, 1e-4)],
)
def test_label_noise_by_bessel_functions(q, depth, noise):
    found = optimisers.label_noise_variance(q, depth, noise=noise)
    # the tolerance of the quadrature; far below the edge the Bessel functions cancel to 1e-11
    assert found == pytest.approx(label_noise_by_bessel(q, depth, noise), rel=1e-10, abs=0)


def test_label_noise_at_the_edge_and_at_the_ends_of_its_range():
    for depth, noise in ((2, 0.01), (3, 5.0), (2, 9e99), (10, 4e100), (2, 1e-97)):
        scale = np.sqrt(2 * 3 / (4 * (depth - 1) * (5 * depth - 4))) * 2 * noise / depth
        expected = scale * gamma(0.75) / gamma(0.25)
        # the tail that is left out weighs e^-32
        assert optimisers.label_noise_variance(2.0, depth, noise=noise) == pytest.approx(expected, rel=1e-12, abs=0)
    for noise in (3e-4, 3e-5, 3e-6, 3e-9):  # a peak of relative width noise: y = x^2 has the mean top - kappa D / 2 top
        top, spread = 0.9 / 88, 3 / 88 * (2.3 * noise / 3) ** 2
        shown = optimisers.label_noise_variance(2.3, 3, noise=noise)
        assert shown == pytest.approx(top - spread / (2 * top), rel=1e-12 + 3 * (spread / top**2) ** 2, abs=0)


def test_a_doubtful_integral_is_refused(monkeypatch):
    for errors, refused in (((0.9e-6, 0.0), 0), ((0.0, 0.9e-6), 0), ((1.1e-6, 0.0), 1), ((0.0, 1.1e-6), 1)):
        left = list(errors)
        monkeypatch.setattr(optimisers, "quad", lambda *_, left=left, **__: (100.0, left.pop(0), {}))
        if refused:
            with pytest.raises(ArithmeticError, match="^label noise: the integrals of the density do not converge"):
                optimisers.label_noise_variance(2.0, 2, noise=0.1)
        else:
            assert optimisers.label_noise_variance(2.0, 2, noise=0.1) == 1.0


def test_numbers_inside_the_range_are_taken():
    far, (q, low, high) = optimisers.weight_decay_cycle(48.0, 3, decay=0.0), scalar.branch(48.0, 3)
    assert [far.rate, far.low, far.high] == pytest.approx([q, low, high], rel=1e-12, abs=0)
    for decay in (9e99, 1e100):
        edge = optimisers.weight_decay_edge(3, decay=decay)  # 2 (2 g)^(4/3) (g / 2)^(-1/3), up to 1 / g
        assert edge == pytest.approx(2 * 2 ** (5 / 3) * decay, rel=1e-12, abs=0)
    assert np.isfinite(optimisers.weight_decay_cycle(0.1, 3, decay=9e99).rate)


def flipping(flip):
    """A branch of cycles of which `1 + trace + determinant` is the given function of t, and the rate t itself."""
    return lambda t: optimisers.Cycle(t, 0.9, 1.1, flip(t) - 1, 0.0)


def test_the_window_end_is_the_first_change_of_sign_on_its_grid():
    assert optimisers.window_end(flipping(lambda t: 0.9 - t)).rate == pytest.approx(0.9, rel=1e-12)
    with pytest.raises(ValueError, match="^cycle: .* for t from start = 0.5 to stop = 1.0$"):
        optimisers.window_end(flipping(lambda t: 1.3 - t), start=0.5)
    # a root on the grid, inside or last; two roots in neighbouring intervals
    for root in (0.5, 1.0):
        found = optimisers.window_end(flipping(lambda t, root=root: root - t), start=0.0, stop=1.0, pieces=4)
        assert found.rate == pytest.approx(root, rel=1e-12)
    found = optimisers.window_end(flipping(lambda t: (0.2 - t) * (0.4 - t)), start=0.0, stop=1.0, pieces=4)
    assert found.rate == pytest.approx(0.2, rel=1e-12)
    # t is found to 1e-15 beside a root of 3e-10
    found = optimisers.window_end(flipping(lambda t: 27 - (1e10 * t) ** 3), start=1e-11, stop=1e-9, pieces=3)
    assert found.rate == pytest.approx(3e-10, rel=1e-5, abs=0)


@pytest.mark.parametrize("momentum", [0.0, 1e-3, 0.5, 0.999])
@pytest.mark.parametrize("multiplier", [-1e150, -1e9, -1e-20, 1e-20, 0.3, 1.0, 1e3, 1e8, 1e12, 1e150, 2e4 + 3e4j])
def test_both_roots_under_the_heavy_ball_keep_their_digits(multiplier, momentum):
    with mpmath.workdps(400):
        a, b = (1 + mpmath.mpf(momentum)) ** 2 * mpmath.mpmathify(multiplier) / 2, mpmath.mpf(momentum)
        root = mpmath.sqrt(a * (a - 2 * b))
        exact = sorted((a - b + root, a - b - root), key=lambda x: (-abs(x), -mpmath.im(x)))
        found = optimisers.heavy_ball_multipliers(multiplier, momentum=momentum)
        for x, wanted in zip(sorted(found, key=lambda x: (-round(abs(x), 9), -x.imag)), exact):
            # a dozen roundings, which a root feels lambda/root times: much where the two nearly coincide
            assert abs(x - wanted) <= 1e-14 * abs(wanted) * (1 + abs(a / root))


def test_numbers_of_rules_become_floats_and_are_checked():
    assert type(optimisers.HeavyBall(np.float16(0.5)).momentum) is float
    plain = optimisers.nesterov_cycle(0.1, 3, momentum=float(np.float16(0.9)))
    assert optimisers.nesterov_cycle(0.1, 3, momentum=np.float16(0.9)) == plain
    run = functools.partial(optimisers.descend, np.ones((2, 1, 1)), np.eye(1), 0.1, 2)
    for call, name in (
        (lambda: optimisers.ScalarRMSProp(None), "memory"),
        (lambda: optimisers.ScalarRMSProp([0.1, 0.2]), "memory"),
        (lambda: optimisers.BatchNoise([0.1, 0.2], np.random.default_rng(0)), "variance"),
        (lambda: run(rule=None), "rule"),
        (lambda: run(rule=optimisers.HeavyBall(0.5), memory=[1.0, 2.0, 3.0]), "memory"),
        (lambda: run(rule=optimisers.HeavyBall(0.5), memory=1.0), "memory"),
        (lambda: run(rule=optimisers.HeavyBall(0.5), memory=np.ones((1, 1))), "memory"),
        (lambda: run(rule=optimisers.HeavyBall(0.5), memory=np.ones((2, 2, 1, 1))), "memory"),
    ):
        with pytest.raises(ValueError, match=f"^{name}: got"):
            call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c: optimisers.window_end(None), "^cycle: got None, needs a function"),
        (lambda c: optimisers.window_end(c, start=-0.1), "^start: got -0.1, needs one finite real number >= 0"),
        (lambda c: optimisers.window_end(c, stop=0.0), "^stop: got 0.0, needs one finite real number > 0"),
        (lambda c: optimisers.window_end(c, start=1.0), "^start, stop: got 1.0, 1.0, needs start < stop"),
        (lambda c: optimisers.window_end(c, pieces=0), "^pieces: got 0, needs an integer from 1 to 1000000"),
        (lambda c: optimisers.window_end(c, pieces=10**6 + 1), "^pieces: got 1000001, needs an integer from 1 to"),
        (lambda c: optimisers.window_end(lambda t: 0.5 - t), "^cycle: got .* from it, needs a Cycle"),
        (
            lambda c: optimisers.window_end(lambda t: optimisers.heavy_ball_cycle(t - 1, 3, momentum=0.5)),
            "^cycle, start, stop: there is none at t = 0.001: t: got .*-0.999",
        ),
    ],
)
def test_what_the_window_end_refuses(call, words):
    cycle = flipping(lambda t: 0.9 - t)
    with pytest.raises(ValueError, match=words):
        call(cycle)
    for least in ({"start": 0.0}, {"pieces": 1}):
        assert optimisers.window_end(cycle, **least).rate == pytest.approx(0.9, rel=1e-12)


@pytest.mark.filterwarnings("error")
def test_multipliers_that_the_heavy_ball_takes():
    find = functools.partial(optimisers.heavy_ball_multipliers, momentum=0.5)
    assert find(1e150)[0] == pytest.approx(2.25e150, rel=1e-15) and find([]).shape == (0, 2)
    assert find(np.array([1, 0])).tolist()[0] == [1.0, 0.25]  # whole numbers
    wide = [np.clongdouble("1e400")] * int(np.finfo(np.longdouble).max > np.finfo(float).max)
    for bad in (1.0001e150, 1e151j, np.inf, np.nan, [[1.0], [1.0, 2.0]], "1", np.ma.ones(2), None, *wide):
        with pytest.raises(ValueError, match="^multipliers: got"):
            find(bad)


def test_a_rule_has_both_methods_and_a_memory_the_shape_of_weights():
    class Half:
        def start(self, W):
            return None

    class Whole(Half):
        def advance(self, W, memory, gradient, rate):
            return W - rate * gradient(W), None

    W, M = np.array([1.5, 0.5]).reshape(2, 1, 1), np.eye(1)
    plain = descent.descend(W, M, 0.1, 3)
    np.testing.assert_allclose(optimisers.descend(W, M, 0.1, 3, rule=Whole()).weights, plain.weights, rtol=1e-14)
    other = type("Other", (), {"advance": Whole.advance})()
    for bad in (Half(), other, type("Odd", (Whole,), {"start": 1})(), type("Odd", (Whole,), {"advance": 1})()):
        with pytest.raises(ValueError, match="^rule: got .*, needs a Rule, or what has its two methods"):
            optimisers.descend(W, M, 0.1, 3, rule=bad)
    run = functools.partial(optimisers.descend, W, M, [0.1, 0.2], 3, rule=optimisers.HeavyBall(0.5))
    once = run(memory=0.9 * W)
    np.testing.assert_array_equal(run(memory=np.stack([0.9 * W] * 2)).weights, once.weights)
    for bad in (0.9 * W[:1], np.stack([0.9 * W]), np.full((2, 1, 1), np.nan), np.full((1, 2, 2, 1, 1), 0.9)):
        with pytest.raises(ValueError, match="^memory: got"):
            run(memory=bad)
    with pytest.raises(ValueError, match="^memory: got .* float32"):
        optimisers.descend(np.float32(W), np.float32(M), 0.1, 3, rule=optimisers.HeavyBall(0.5), memory=1e60 * W)
    for W_, M_ in ((W.astype(object), M), (W, M.astype(object))):
        with pytest.raises(ValueError, match="^W, M: got an array of objects, needs a floating dtype"):
            optimisers.descend(W_, M_, 0.1, 3, rule=optimisers.HeavyBall(0.5))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.longdouble])
def test_singular_values_in_dtypes_that_lapack_has_not(dtype):
    W, M = np.full((2, 2, 2), np.eye(2), dtype), 2 * np.eye(2, dtype=dtype)
    kept = np.float32 if dtype == np.float32 else float
    run = optimisers.descend(W, M, dtype(0.25), 1, rule=optimisers.HeavyBall(0.0))
    assert run.singular_values.dtype == kept and run.weights.dtype == dtype
    np.testing.assert_allclose(run.singular_values, [[1.0, 1.0], [1.5625, 1.5625]], rtol=1e-6)  # (1 + 1/4)^2
    lost = optimisers.descend(W, M, dtype(100.0), 40, rule=optimisers.HeavyBall(0.0))
    assert lost.diverged and np.isinf(lost.loss[-1]) and np.isinf(lost.singular_values[-1]).all()
    last = lost.singular_values[lost.diverged_at - 1]  # of long doubles beyond the range of float64
    assert np.isinf(last).all() == (dtype == np.longdouble and np.finfo(dtype).max > np.finfo(float).max)
