"""The pair block against dense Hessians, finite differences, closed forms and simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp

from eoslib import descent, hessian, network, scalar, transverse

quick = settings(derandomize=True, deadline=None, max_examples=25)
DEPTHS = st.integers(2, 6)


def aligned(a, b):
    """Layers diag(a_l, b_l), (L, 2, 2)."""
    return np.stack([np.diag(pair) for pair in zip(a, b)])


def off_diagonal(depth):
    """Positions of entries (1, 2) and then (2, 1) of all layers in the vector of a 2 x 2 network."""
    return np.concatenate([4 * np.arange(depth) + 1, 4 * np.arange(depth) + 2])


@quick
@given(DEPTHS, st.integers(0, 10**6))
def test_pair_hessian_is_a_block_of_the_dense_hessian(depth, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(-2, 2, (2, depth))
    m = np.sort(rng.uniform(0, 3, 2))[::-1]
    H = hessian.dense(aligned(a, b), np.diag(m))
    rows = off_diagonal(depth)
    others = np.setdiff1d(np.arange(4 * depth), rows)
    # sums of a few products of numbers up to 2^(2 depth): rounding 1e-16 of the largest entry, a thousandfold slack
    size = max(1.0, np.abs(H).max())
    np.testing.assert_allclose(H[np.ix_(rows, rows)], transverse.pair_hessian(a, b, m), rtol=0, atol=1e-13 * size)
    assert np.abs(H[np.ix_(rows, others)]).max() <= 1e-13 * size  # and it is coupled to nothing else


@quick
@given(DEPTHS, st.floats(0.3, 2), st.floats(0.3, 2), st.floats(0.5, 3), st.floats(0.1, 0.5))
def test_the_block_of_balanced_layers_splits_into_the_two_sectors(depth, a, b, m_one, m_two):
    whole = np.linalg.eigvalsh(transverse.pair_hessian([a] * depth, [b] * depth, (m_one, m_two)))
    parts = [transverse.sector_hessian(a, b, (m_one, m_two), depth, sign) for sign in (1, -1)]
    split = np.sort(np.concatenate([np.linalg.eigvalsh(part) for part in parts]))
    np.testing.assert_allclose(split, whole, rtol=0, atol=1e-12 * np.abs(whole).max())


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
@pytest.mark.parametrize("phase", transverse.PHASES)
def test_multipliers_are_those_of_a_finite_difference_of_two_steps(depth, phase):
    m, eta = (1.0, 0.95), 2.25 / depth
    one = scalar.two_cycle(m[0], depth, eta)
    two = scalar.two_cycle(m[1], depth, eta)
    b = {"rest": m[1] ** (1 / depth), "same": two.low, "opposite": two.high}[phase]
    W = aligned([one.low] * depth, [b] * depth)

    def two_steps(x):
        for _ in range(2):
            x = x - eta * network.gradient(x, np.diag(m))
        return x.ravel()

    h = 1e-5
    J = np.array(
        [(two_steps(W + h * e) - two_steps(W - h * e)) / (2 * h) for e in np.eye(W.size).reshape(-1, *W.shape)]
    ).T
    rows = off_diagonal(depth)
    block = J[np.ix_(rows, rows)]
    for mu in transverse.multipliers(m, depth, eta, phase=phase):
        # differences are wrong by h^2 = 1e-10; mu is a root of det(J - mu), multiple roots (the ones) move by 1e-10^(1/n)
        assert np.linalg.svd(block - mu * np.eye(2 * depth), compute_uv=False)[-1] < 1e-8


@pytest.mark.parametrize("depth", range(2, 9))
def test_exact_multipliers_one(depth):
    eta = 2.2 / depth
    for sign, count in ((1, depth // 2), (-1, (depth - 1) // 2)):
        M = transverse.floquet_matrix((1.0, 0.9), depth, eta, sign)
        assert np.sum(np.linalg.svd(M - np.eye(depth), compute_uv=False) < 1e-12) == count
        deflated = np.linalg.eigvals(transverse.floquet_matrix((1.0, 0.9), depth, eta, sign, deflate=True))
        assert np.sum(np.abs(deflated) < 1e-9) == count  # sent to zero
        kept = np.sort_complex(deflated[np.abs(deflated) > 1e-9])
        full = np.linalg.eigvals(M)
        for mu in kept:
            assert np.abs(full - mu).min() < 1e-9


@quick
@given(st.floats(0.05, 0.99), st.floats(2.01, 2.47))
def test_two_layers_in_closed_form(ratio, q):
    eta = q / 2
    m, b = eta, eta * ratio
    minus = transverse.multipliers((1.0, ratio), 2, eta, sector=-1)
    plus = transverse.multipliers((1.0, ratio), 2, eta, sector=1)
    # the branch parameter of the cycle is good to 1e-12 near q = 2, and so are the multipliers
    np.testing.assert_allclose(np.prod(minus), 1 + (2 - b - m) * (1 - b - 2 * m), atol=1e-10)
    np.testing.assert_allclose(np.sum(minus), b * b + b * m - b - 3 * m + 4, atol=1e-10)
    np.testing.assert_allclose(np.sort(plus.real), np.sort([1, 1 - (1 + b) * (m - b)]), atol=1e-10)


@quick
@given(st.floats(0.65, 0.995))
def test_threshold_of_two_layers(ratio):
    np.testing.assert_allclose(transverse.threshold((1.0, ratio), 2), 2 / (1 + ratio), rtol=1e-11)


@pytest.mark.parametrize("depth", range(2, 9))
def test_threshold_scales_and_agrees_with_the_near_degenerate_law(depth):
    delta = 1e-4
    eta = transverse.threshold((1.0, 1 - delta), depth)
    law = transverse.near_degenerate(depth)
    # next term of the expansion: of order delta relative to the leading one (coefficients below 2, seen for all depths)
    np.testing.assert_allclose((eta * depth - 2) / delta, law.excess, rtol=2 * delta)
    lam = transverse.pair_eigenvalue((1.0, 1 - delta), depth)
    assert abs((eta * lam / 2 - 1) / delta - law.ratio) < 2 * delta
    delta = 0.01  # for the second order: the third has coefficients below 2, seen for all depths
    eta = transverse.threshold((1.0, 1 - delta), depth)
    lam = transverse.pair_eigenvalue((1.0, 1 - delta), depth)
    assert abs((eta * depth - 2) / delta**2 - law.excess / delta - law.excess_second) < 2 * delta
    assert abs((eta * lam / 2 - 1) / delta**2 - law.ratio / delta - law.ratio_second) < 0.2 * delta
    ratio = transverse.threshold((7.0, 6.3), depth) * 7.0 ** (2 - 2 / depth) / transverse.threshold((1.0, 0.9), depth)
    np.testing.assert_allclose(ratio, 1, rtol=1e-10)


@pytest.mark.parametrize("depth, ratio", [(3, 0.9), (4, 0.8), (6, 0.95), (8, 0.99)])
def test_threshold_with_forty_digits(depth, ratio):
    """The sector written again in mpmath, on the cycle found by root search; the pair's modulus changes sign at the threshold."""

    def modulus(eta):
        f = lambda s: s + eta * (1 - s**depth) * s ** (depth - 1)
        low = mp.findroot(lambda s: f(f(s)) - s, mp.mpf(scalar.two_cycle(1.0, depth, float(eta)).low))
        b, M = mp.mpf(ratio) ** (mp.mpf(1) / depth), mp.eye(depth)
        for s in (low, f(low)):
            J = mp.eye(depth)
            for i in range(1, depth + 1):
                for j in range(1, depth + 1):
                    J[i - 1, j - 1] -= eta * s ** (2 * depth - i - j) * b ** (i + j - 2)
                    if i + j >= depth + 2:
                        J[i - 1, j - 1] += eta * (s**depth - 1) * s ** (2 * depth - i - j) * b ** (i + j - depth - 2)
            M = J * M
        return max(abs(v) for v in mp.eig(M, left=False, right=False) if abs(mp.im(v)) > 1e-3) - 1

    with mp.workdps(40):
        found = mp.mpf(transverse.threshold((1.0, ratio), depth))
        # a window of 1e-11: the library's root search ends at 1e-14, its multipliers carry about 1e-13
        assert modulus(found * (1 - mp.mpf("1e-11"))) < 0 < modulus(found * (1 + mp.mpf("1e-11")))


def test_equal_singular_values_have_no_stable_cycle():
    assert transverse.threshold((2.0, 2.0), 2) == pytest.approx(2 / scalar.sharpness_at_minimum(2.0, 2))
    for depth in range(2, 9):
        assert transverse.growth_rate((1.0, 1.0), depth, 2.001 / depth) > 0


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_growth_rate_of_a_simulation(depth, factor):
    m = (1.0, 0.9)
    eta = factor * transverse.threshold(m, depth)
    W = aligned([scalar.two_cycle(1.0, depth, eta).low] * depth, [0.9 ** (1 / depth)] * depth)
    W[0, 0, 1] += 1e-40  # far below the diagonal; its own relative precision is kept, so it grows or decays freely
    run = descent.descend(W, np.diag(m), eta, 1200, observe={"P": network.product}, singular_values=False)
    P = run.observed["P"]
    size = np.log(np.hypot(P[200::2, 0, 1], P[200::2, 1, 0]))
    slope = np.polyfit(run.steps[200::2], size, 1)[0]
    assert np.sign(slope) == np.sign(factor - 1)
    if factor > 1:  # below, the slowest decaying direction may hardly show in the product
        # the envelope turns with the pair's angle; over 1000 steps this moves the slope by less than 1/1000
        assert slope == pytest.approx(transverse.growth_rate(m, depth, eta), abs=1e-3)


def test_lyapunov_of_one_mode():
    depth, q = 3, 2.8
    weights = np.full((1, depth, 1, 1), 0.9)
    whole = transverse.lyapunov(weights, np.eye(1), [q / depth], 4000, rng=np.random.default_rng(0))
    assert whole[0] == pytest.approx(scalar.lyapunov(1.0, depth, q / depth), abs=0.05)


def test_lyapunov_of_a_run_that_escapes():
    weights = np.full((2, 2, 1, 1), 0.9)
    value = transverse.lyapunov(weights, np.eye(1), [1.1, 9.0], 50, rng=np.random.default_rng(0))
    assert np.isfinite(value[0]) and value[1] == np.inf


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: transverse.multipliers((1.0, 0.9), 2, 0.9), "learning_rate"),
        (lambda: transverse.multipliers((0.9, 1.0), 2, 1.1), "singular_values"),
        (lambda: transverse.multipliers((1.0,), 2, 1.1), "singular_values"),
        (lambda: transverse.multipliers((1.0, 0.9), 1, 1.1), "depth"),
        (lambda: transverse.multipliers((1.0, 0.9), 2, 1.1, pair=(1, 0)), "pair"),
        (lambda: transverse.multipliers((1.0, 0.9), 2, 1.1, phase="up"), "phase"),
        (lambda: transverse.sector_hessian(1.0, 0.0, (1, 1), 2, 1), "second"),
        (lambda: transverse.sector_hessian(1.0, 1.0, (1, 1), 2, 0), "sign"),
        (lambda: transverse.pair_hessian([1.0, 1.0], [1.0], (1, 1)), "shapes"),
        (lambda: transverse.near_degenerate(1), "depth"),
        (lambda: transverse.lyapunov(np.ones((1, 2, 1, 1)), np.eye(1), [1.0], 5, rng=None), "rng"),
        (lambda: transverse.lyapunov(np.ones((2, 1, 1)), np.eye(1), [1.0], 5, rng=np.random.default_rng(0)), "shapes"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
