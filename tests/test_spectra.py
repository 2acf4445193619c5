"""Closed-form spectra and escape times against dense Hessians, automatic differentiation and runs of gradient descent."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.integrate import quad

from eoslib import descent, escape, hessian, network

seeds = st.integers(0, 2**32 - 1)
few = settings(derandomize=True, deadline=None, max_examples=25)


def orthogonal_factors(depth, width, rng):
    # LAPACK's factor of a 2 x 2 matrix is a symmetric reflection, which cannot tell Q from its transpose
    return [np.linalg.qr(rng.standard_normal((width, width)))[0] * rng.choice([-1, 1], width) for _ in range(depth + 1)]


def aligned_network(values, target_values, rng):
    """Weights Q_{l+1} diag(s_l) Q_l^T and the target Q_{L+1} diag(sigma) Q_1^T, for random orthogonal Q_l."""
    depth, width = values.shape
    Q = orthogonal_factors(depth, width, rng)
    W = np.array([(Q[k + 1] * values[k]) @ Q[k].T for k in range(depth)])
    sigma = np.zeros(width)
    sigma[: len(target_values)] = target_values
    return W, (Q[depth] * sigma) @ Q[0].T


def minimum(sigma, depth, width, scale, init):
    values = np.zeros((depth, width))
    values[:, : len(sigma)] = np.asarray(sigma) ** (1 / depth)
    if init == "unbalanced":
        values[:-1, len(sigma) :] = scale
    return values


@few
@given(seeds, st.integers(1, 6), st.sampled_from(["unbalanced", "balanced"]), st.booleans())
def test_spectrum_at_minimum_is_the_dense_one(seed, depth, init, repeated):
    rng = np.random.default_rng(seed)
    width = int(rng.integers(1, 6 if depth < 4 else 4))
    sigma = np.sort(10 ** rng.uniform(-1, 1, int(rng.integers(1, width + 1))))[::-1]
    sigma = np.full_like(sigma, sigma[0]) if repeated else sigma
    scale = 10 ** rng.uniform(-2, 0.3)
    W, M = aligned_network(minimum(sigma, depth, width, scale, init), sigma, rng)
    values, counts = hessian.spectrum_at_minimum(sigma, depth=depth, width=width, scale=scale, init=init)
    assert counts.sum() == depth * width**2 and np.all(np.diff(values) < 0) and np.all(counts > 0)
    dense = np.linalg.eigvalsh(hessian.dense(W, M))[::-1]
    # eigvalsh of n <= 150 parameters: a few ulp of the largest eigenvalue, times a modest factor
    assert_allclose(np.repeat(values, counts), dense, atol=1e-13 * dense[0])


@few
@given(seeds, st.integers(1, 8))
def test_spectrum_aligned_is_the_dense_one_anywhere(seed, depth):
    rng = np.random.default_rng(seed)
    width = int(rng.integers(1, 6 if depth < 5 else 4))
    values, sigma = rng.standard_normal((2, depth, width)), 3 * rng.random(width)
    closed = hessian.spectrum_aligned(values, sigma)
    for batch in range(2):
        dense = np.linalg.eigvalsh(hessian.dense(*aligned_network(values[batch], sigma, rng)))[::-1]
        assert_allclose(closed[batch], dense, atol=1e-12 * np.abs(dense).max())


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_spectrum_against_automatic_differentiation(depth):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(depth)
    sigma = (2.0, 0.7)
    W, M = aligned_network(minimum(sigma, depth, 3, 0.4, "unbalanced"), sigma, rng)

    def loss(flat):
        product = torch.eye(3, dtype=torch.float64)
        for layer in flat.reshape(depth, 3, 3):
            product = layer @ product
        return ((product - torch.from_numpy(M)) ** 2).sum() / 2

    H = torch.autograd.functional.hessian(loss, torch.from_numpy(W.ravel())).numpy()
    values, counts = hessian.spectrum_at_minimum(sigma, depth=depth, width=3, scale=0.4)
    assert_allclose(np.repeat(values, counts), np.linalg.eigvalsh(H)[::-1], atol=1e-13 * values[0])


def test_the_printed_list_is_incomplete():
    sigma, depth, width, scale = np.array([3.0, 2.0]), 3, 4, 0.3
    values, counts = hessian.spectrum_at_minimum(sigma, depth=depth, width=width, scale=scale)
    assert counts[np.isclose(values, scale ** (2 * depth - 2))].sum() == 4  # (d - r)^2, missing in the paper
    assert counts[values > 0].sum() == width**2
    values, counts = hessian.spectrum_at_minimum(sigma, depth=depth, width=width, scale=scale, init="balanced")
    assert counts[values > 0].sum() == width**2 - 4
    assert counts[np.isclose(values, 3 ** (4 / 3))].sum() == 2 * 2  # 2 (d - r), not d - r


@pytest.mark.parametrize("start", ["unbalanced", "orthogonal"])
def test_a_run_ends_at_the_spectrum_up_to_the_square_of_the_scale(start):
    rng = np.random.default_rng(1)
    t = network.target((2.0, 1.0), 4, rng=rng)
    W = network.initialise(start, depth=3, width=4, scale=0.05, rng=rng)
    W = descent.descend(W, t.matrix, 0.05, 6000, keep=1).weights
    dense = np.linalg.eigvalsh(hessian.dense(W, t.matrix))[::-1]
    values, counts = hessian.spectrum_at_minimum(t.singular_values, depth=3, width=4, scale=0.05, init=start)
    gap = np.abs(np.repeat(values, counts) - dense)
    assert gap[0] < 0.05**4 and gap.max() < 2 * 0.05**2  # the sharpness to fourth order, the rest to second


@pytest.mark.parametrize(
    "changes, name",
    [
        ({"singular_values": (1.0, 0.0)}, "singular_values"),
        ({"singular_values": (1.0,) * 5}, "singular_values"),
        ({"singular_values": [[1.0]]}, "singular_values"),
        ({"scale": 0.0}, "scale"),
        ({"scale": -0.1}, "scale"),
        ({"scale": (0.1, 0.2)}, "scale"),
        ({"depth": 0}, "depth"),
        ({"width": 2.5}, "width"),
        ({"init": "gaussian"}, "init"),
    ],
)
def test_spectrum_at_minimum_refuses(changes, name):
    arguments = {"singular_values": (2.0, 1.0), "depth": 3, "width": 4, "scale": 0.1} | changes
    with pytest.raises(ValueError, match=f"^{name}: got"):
        hessian.spectrum_at_minimum(arguments.pop("singular_values"), **arguments)


@pytest.mark.parametrize(
    "layers, target, name",
    [
        (np.ones(3), (1.0,), "layer_singular_values"),
        (np.ones((2, 3)), (1.0,) * 4, "target_singular_values"),
        (np.ones((2, 3)), [[1.0]], "target_singular_values"),
        (np.full((2, 3), np.nan), (1.0,), "layer_singular_values"),
    ],
)
def test_spectrum_aligned_refuses(layers, target, name):
    with pytest.raises(ValueError, match=f"^{name}: got"):
        hessian.spectrum_aligned(layers, target)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: hessian.spectrum_at_minimum((1.0,), depth=100_001, width=1, scale=1), "^depth: got 100001, .* to 100000$"),
        (lambda: hessian.spectrum_at_minimum((1.0,), depth=1, width=10**7, scale=1), "^width: got 10000000, .* to 1000000$"),
        (lambda: hessian.spectrum_at_minimum((), depth=1, width=1, scale=1), r"^singular_values: got shape \(0,\)"),
        (lambda: hessian.spectrum_at_minimum((1e300,), depth=3, width=1, scale=1), "^singular_values, scale: got"),
        # powers of the scale leave the floating range: of a Python float that is another error
        (lambda: hessian.spectrum_at_minimum((1.0,), depth=3, width=2, scale=1e100), "^singular_values, scale: got"),
        (lambda: hessian.spectrum_at_minimum((1.0,), depth=2, width=2, scale=1e200), "^singular_values, scale: got"),
        (lambda: hessian.spectrum_aligned(np.zeros((0, 3)), (1.0,)), r"^layer_singular_values: got shape \(0, 3\)"),
        (lambda: hessian.spectrum_aligned(np.zeros((3, 0)), ()), r"^layer_singular_values: got shape \(3, 0\)"),
        # entries of 1e308 are in range, their sum, the eigenvalue, is not
        (lambda: hessian.spectrum_aligned(np.full((2, 1), 1e154), (1e308,)), "^layer_singular_values: got"),
    ],
)
def test_refusals_of_the_spectra_name_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_spectra_of_torch_tensors_of_nothing_and_of_a_scale_that_does_not_matter():
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="^W: got a torch tensor"):
        hessian.spectrum_reduced(torch.zeros((2, 3, 3)), torch.eye(3))
    assert hessian.spectrum_aligned(np.zeros((0, 2, 3)), (1.0,)).shape == (0, 18)
    values, counts = hessian.spectrum_at_minimum((1.0,), depth=3, width=2, scale=1e200, init="balanced")
    assert values.tolist() == [3.0, 1.0, 0.0] and counts.tolist() == [1, 2, 9]


def run_states(start, depth, width, symmetric):
    """States of a run just beyond the edge: the saddle, the rise, and the oscillation."""
    rng = np.random.default_rng(depth * width)
    t = network.target((10.0, 9.5, 2.0), width, rng=rng, symmetric=symmetric)
    scale = 0.1 if depth < 5 else 0.3  # deeper networks leave the saddle later
    W = network.initialise(start, depth=depth, width=width, scale=scale, rng=rng)
    rate = 1.01 * 2 / (depth * 10 ** (2 - 2 / depth))
    run = descent.descend(W, t.matrix, rate, 2000, every=125, observe={"W": lambda W: W}, singular_values=False)
    assert not run.diverged and np.ptp(run.loss[-8:]) > 1e-4  # still oscillating
    return run.observed["W"], t


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("start", ["unbalanced", "orthogonal", "balanced"])
@pytest.mark.parametrize("depth, width", [(2, 10), (3, 10), (4, 10), (5, 10), (2, 15), (3, 15)])
def test_spectrum_reduced_is_the_dense_one_along_runs(depth, width, start, symmetric):
    states, t = run_states(start, depth, width, symmetric)
    values, counts = hessian.spectrum_reduced(states, t.matrix)
    k = 6 if start == "balanced" and not symmetric else 3
    assert values.shape == (17, depth * (k**2 + 2 * k + 3)) and np.all(counts.sum(axis=-1) == depth * width**2)
    for i in range(0, 17, 4):
        dense = np.linalg.eigvalsh(hessian.dense(states[i], t.matrix))[::-1]
        # LAPACK on up to 700 parameters: some tens of ulp of the largest modulus
        assert_allclose(np.repeat(values[i], counts[i]), dense, atol=3e-14 * np.abs(dense).max())


@pytest.mark.parametrize("start", ["unbalanced", "balanced"])
@pytest.mark.parametrize("width", [3, 4, 5, 6])
def test_spectrum_reduced_with_few_other_directions_or_none(start, width):
    states, t = run_states(start, 3, width, False)
    for W in states[[0, 5, 16]]:
        values, counts = hessian.spectrum_reduced(W, t.matrix)
        dense = np.linalg.eigvalsh(hessian.dense(W, t.matrix))[::-1]
        assert np.all(counts > 0)
        assert_allclose(np.repeat(values, counts), dense, atol=3e-14 * np.abs(dense).max())


def test_spectrum_reduced_of_wide_networks_is_that_of_the_aligned_form():
    """Width 100, where 30,000 eigenvalues have no dense matrix to come from: the closed form of aligned networks."""
    rng = np.random.default_rng(0)
    sigma, s = np.array([10.0, 9.5, 2.0]), np.full((3, 100), 0.1)
    s[:, :3], s[2, 3:] = sigma ** (1 / 3) + 0.1 * rng.standard_normal((3, 3)), 0.0
    closed = hessian.spectrum_aligned(s, sigma)
    values, counts = hessian.spectrum_reduced(*aligned_network(s, sigma, rng))
    # products of matrices of width 100 with orthogonal ones: some hundred ulp
    assert_allclose(np.repeat(values, counts), closed, atol=1e-13 * closed[0])


def test_spectrum_reduced_of_a_zero_target_of_batches_and_of_sizes():
    W = np.stack([network.initialise("balanced", depth=3, width=5, scale=a) for a in (0.5, 2.0)]).reshape(2, 1, 3, 5, 5)
    values, counts = hessian.spectrum_reduced(W, np.zeros((5, 5)))
    dense = np.linalg.eigvalsh(hessian.dense(W, np.zeros((5, 5))))[..., ::-1]
    assert values.shape[:2] == (2, 1) and values.shape == counts.shape
    for i in range(2):
        assert_allclose(np.repeat(values[i, 0], counts[i, 0]), dense[i, 0], atol=1e-14 * dense[i, 0, 0])
    assert hessian.spectrum_reduced(W[:0], np.eye(5))[0].shape[:2] == (0, 1)
    states, t = run_states("orthogonal", 3, 6, False)
    plain, counts = hessian.spectrum_reduced(states[16], t.matrix)
    for size in (1e-170, 1e170):  # of the Hessian
        kappa = size ** (1 / 4)
        scaled, again = hessian.spectrum_reduced(kappa * states[16], kappa**3 * t.matrix)
        assert_allclose(np.repeat(scaled, again) / kappa**4, np.repeat(plain, counts), atol=1e-13 * plain[0])


@pytest.mark.parametrize("size", [1e-9, 1e-6, 1e-4])
def test_spectrum_reduced_errs_by_no_more_than_its_bound(size):
    states, t = run_states("unbalanced", 4, 8, False)
    W = states[16] + size * np.random.default_rng(0).standard_normal(states[16].shape)
    with pytest.raises(ValueError, match="^W: got layers that are .* away"):
        hessian.spectrum_reduced(W, t.matrix)
    values, counts = hessian.spectrum_reduced(W, t.matrix, tolerance=1e-2)
    dense = np.linalg.eigvalsh(hessian.dense(W, t.matrix))[::-1]
    omega, rho = np.linalg.norm(W, 2, axis=(-2, -1)).max(), np.linalg.norm(network.product(W) - t.matrix)
    delta = np.linalg.norm(W - states[16], 2, axis=(-2, -1)).max()
    bound = 3 * (3 * 4 * omega**5 + 2 * omega * rho) * 4 * delta  # its form is at most a few delta from W too
    error = np.abs(np.repeat(values, counts) - dense).max()
    assert 1e-3 * size < error < bound


def test_spectrum_reduced_refuses_what_has_another_form():
    t = network.target((3.0, 1.0), 6, rng=np.random.default_rng(0))
    gaussian = network.initialise("gaussian", depth=3, width=6, scale=0.3, rng=np.random.default_rng(1))
    uneven = network.initialise("unbalanced", depth=3, width=6, scale=0.3)
    uneven[0] = uneven[0] @ (np.eye(6) + 1e-3 * np.outer(t.right[:, 4], t.right[:, 4]))  # one of the others differs
    leaking = network.initialise("unbalanced", depth=3, width=6, scale=0.3)
    leaking[0] = leaking[0] + 1e-3 * np.outer(t.right[:, 0], t.right[:, 4])
    small = network.initialise("unbalanced", depth=3, width=6, scale=1e-3)
    small[2] = t.matrix  # the largest layer, of norm 3; the rest of the first is 1e-3, and uneven by 1e-9
    small[0] = small[0] @ (np.eye(6) + 1e-6 * np.outer(t.right[:, 4], t.right[:, 4]))
    for W in (gaussian, uneven, leaking, small):
        with pytest.raises(ValueError, match="^W: got layers that are"):
            hessian.spectrum_reduced(W, t.matrix)


@pytest.mark.parametrize("depth", range(2, 9))
def test_escape_law_and_exact_time_differ_by_the_right_constant(depth):
    """Matching to a balanced mode, whose time from x to the half is exact, gives the next term; zero for two layers."""
    m, scale, half = 0.5, 0.01, 0.5 ** (1 / depth)
    gap = escape.time_to_reach(0.5, m, depth, scale) - escape.escape_time(m, depth, scale)
    constant = 0.0
    if depth > 2:
        constant = quad(lambda x: x / (1 - x**depth), 0, half)[0] - half ** (2 - depth) / (depth - 2)
    # what follows is of relative order scale^2 times a logarithm; a time is the exponential of a number up to 28, of which
    # a rounding or two is as many roundings of the time, which reaches 1e12
    rounding = 40 * np.finfo(float).eps * escape.escape_time(m, depth, scale)
    assert_allclose(gap, constant * m ** (2 / depth - 2), rtol=0, atol=5e-4 + rounding)


@pytest.mark.parametrize("start", ["unbalanced", "balanced"])
@pytest.mark.parametrize("depth, scale", [(2, 1e-3), (3, 0.02), (4, 0.08), (5, 0.18)])
def test_escape_time_of_small_steps(depth, scale, start):
    """With steps of 1/50 of the edge the run follows the flow; the law has an O(1) remainder beside times of 50 and more."""
    m, rate = 1.0, 0.02 / depth
    W = network.initialise(start, depth=depth, width=1, scale=scale)
    steps = int(1.5 * escape.escape_time(m, depth, scale, start=start) / rate)
    product = descent.descend(W, np.eye(1), rate, steps).singular_values[:, 0]
    measured = rate * np.argmax(product > 0.5)
    law = escape.escape_time(m, depth, scale, start=start)
    assert abs(measured - law) < 0.03 * law + 1
    if start == "unbalanced":
        assert_allclose(measured, escape.time_to_reach(0.5, m, depth, scale), rtol=0.01)


@pytest.mark.parametrize("depth, scale", [(3, 0.01), (4, 0.03), (6, 0.15), (8, 0.3)])
def test_leaving_out_the_saddle_changes_nothing_else(depth, scale):
    """The gap a^2 - b^2 at the end is that of the whole run up to a few times 1 / ((L - 2)^2 remaining)."""
    m, rate = 0.5, 1.5 / (depth * 0.5 ** (2 - 2 / depth))
    whole = network.initialise("unbalanced", depth=depth, width=1, scale=scale)
    short = escape.leave_saddle(m, depth, scale, rate, remaining=300)
    assert_allclose(short[0] ** 2 - short[-1] ** 2, scale**2, rtol=1e-9)
    steps = 3000 + int(1.2 * escape.escape_time(m, depth, scale) / rate)
    ends = [descent.descend(W, np.array([[m]]), rate, steps, keep=1).weights[:, 0, 0] for W in (whole, short)]
    gaps = [end[0] ** 2 - end[-1] ** 2 for end in ends]
    assert_allclose(network.product(ends[1][:, None, None]), m, rtol=1e-12)
    assert_allclose(gaps[1], gaps[0], rtol=4 / ((depth - 2) ** 2 * 300))


def test_leave_saddle_stays_below_half_the_layer_value():
    W = escape.leave_saddle(0.5, 4, 0.01, 1.0, remaining=1)  # 1 / sqrt(2 * 0.5) is beyond the target
    assert_allclose(W[:3, 0, 0], 0.5**0.25 / 2, rtol=1e-14)
    assert np.array_equal(
        escape.leave_saddle(0.5, 3, 0.01, 1.0), network.initialise("unbalanced", depth=3, width=1, scale=0.01)
    )


def test_reversed_residuals_keep_the_spectrum_of_the_pairs():
    """Only the blocks (i, i) feel the sign; for one mode, two layers, the Hessian is [[b^2, ab + R], [ab + R, a^2]]."""
    a, b, m = 0.7, 0.4, 1.5
    both = [np.linalg.eigvalsh([[b**2, a * b + R], [a * b + R, a**2]]) for R in (a * b - m, m - a * b)]
    assert_allclose(hessian.spectrum_aligned([[a], [b]], (m,))[::-1], both[0], atol=1e-15)
    s = np.random.default_rng(0).standard_normal((3, 4))
    sigma = np.array([3.0, 2.0, 1.0, 0.5])
    here, there = hessian.spectrum_aligned(s, sigma), hessian.spectrum_aligned(s, 2 * s.prod(axis=0) - sigma)
    assert np.sum(np.abs(here[:, None] - there).min(axis=1) < 1e-12) == 3 * 4 * 3


@pytest.mark.parametrize(
    "arguments, name",
    [
        ((0.0, 3, 0.1), "target"),
        ((1.0, 1, 0.1), "depth"),
        ((1.0, 3, 0.0), "scale"),
        ((1.0, 3, 1.0), "scale"),
    ],
)
def test_escape_refuses(arguments, name):
    for call in (escape.escape_time, lambda *a: escape.time_to_reach(0.5, *a), lambda *a: escape.leave_saddle(*a, 0.1)):
        with pytest.raises(ValueError, match=f"^{name}: got"):
            call(*arguments)
    with pytest.raises(ValueError, match="^start: got"):
        escape.escape_time(1.0, 3, 0.1, start="gaussian")
    with pytest.raises(ValueError, match="^fraction: got"):
        escape.time_to_reach(1.0, 1.0, 3, 0.1)
    with pytest.raises(ValueError, match="^scale: got"):
        escape.leave_saddle(1.0, 3, [0.1, 0.2], 0.1)
