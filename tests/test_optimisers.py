"""Update rules against loops written out, their two-cycles against long runs, and bad input."""

import numpy as np
import pytest

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
