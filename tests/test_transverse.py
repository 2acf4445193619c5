"""The pair block against dense Hessians, finite differences, closed forms and simulation."""

import sys
import time
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp

from eoslib import descent, hessian, network, scalar, transverse

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "recorded"))

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


def size_two_determinant(depth, ratio, eta, theta):
    """The determinant of chapter threshold_by_depth, sector -, at mu = exp(i theta): two equations on two solutions.

    Every number is mpmath's; the cycle is found by root search. Nothing of the library enters, no matrix is written down.
    """
    f = lambda s: s + eta * (1 - s**depth) * s ** (depth - 1)
    guess = mp.mpf(scalar.two_cycle(1.0, depth, float(eta)).low)
    low = mp.findroot(lambda s: f(f(s)) - s, (guess, guess * (1 - mp.mpf("1e-12"))), tol=1e-40)
    b, mu = mp.mpf(ratio) ** (mp.mpf(1) / depth), mp.expj(theta)
    p, P = low / b, f(low) / b
    one, two = eta * low ** (2 * depth - 2), eta * f(low) ** (2 * depth - 2)
    d, nu, g, h = P - p, mu - 1, (1 - p) ** 2, (1 - P) ** 2
    quadratic = (nu * p * P, -nu * (p * h + P * g) - d * d * (p + P), nu * g * h + d * d * (g + h - d * d))
    rows, half = [], mp.mpf(depth + 1) / 2
    total = lambda lam, r: (1 - (lam / r) ** depth) / (1 - lam / r)  # sum over l of (lam / r)^(l - 1)
    for E in mp.polyroots(quadratic, extraprec=60, maxsteps=100):
        lam = 1 + E / 2 + mp.sqrt(E + E * E / 4)
        x = d * d * (lam - p)
        back = (1 - p * lam) * (
            nu * (1 - P * lam) * (1 - p / lam) + d * d
        )  # the coefficient of lam^-l, without its sign
        y = x - d * back / (1 - p * lam)
        back_y = back - d * x / (1 - p / lam)
        first = lambda u, v: u * lam ** (1 - half) - v * lam ** (half - 1)
        summed = lambda u, v, r: u * lam ** (1 - half) * total(lam, r) - v * lam ** (half - 1) * total(1 / lam, r)
        rows += [
            first(y, back_y) - first(x, back) + one * summed(x, back, p),
            mu * first(x, back) - first(y, back_y) + two * summed(y, back_y, P),
        ]
    return (rows[0] * rows[3] - rows[1] * rows[2]) / (rows[0] * rows[2])


@pytest.mark.parametrize("depth, ratio", [(129, 0.85), (1000, 0.9)])
def test_threshold_of_deep_networks_is_a_zero_of_the_determinant_of_size_two(depth, ratio):
    began = time.process_time()
    eta = transverse.threshold((1.0, ratio), depth)
    assert time.process_time() - began < 3  # with whole sectors, minutes at depth 1000
    guess = transverse.near_degenerate(depth).angle * np.sqrt(eta * depth - 2)
    with mp.workdps(25):
        parts = lambda e, t: [f(size_two_determinant(depth, ratio, e / depth, t)) for f in (mp.re, mp.im)]
        found = mp.findroot(parts, (mp.mpf(eta) * depth, mp.mpf(guess)), tol=1e-18)
        # rounding of rho^L, 1e-16 L relative, in the library's cycle; tenfold slack
        assert abs(found[0] / (depth * mp.mpf(eta)) - 1) < 1e-15 * max(depth, 10)
        assert 0.1 < found[1] < 1.6


@pytest.mark.parametrize("depth, ratio", [(129, 0.95), (129, 0.3)])
def test_restricted_sectors_change_at_the_threshold_of_the_whole_ones(depth, ratio):
    eta = transverse.threshold((1.0, ratio), depth)
    # rounding of multipliers, 1e-13, over their speed of order one
    whole = [transverse.growth_rate((1.0, ratio), depth, f * eta) for f in (1 - 1e-11, 1 + 1e-11)]
    assert whole[0] < 0 < whole[1]
    for share in (0.05, 0.5, 0.95):  # and not earlier, in either sector, slow or fast
        assert transverse.growth_rate((1.0, ratio), depth, 2 / depth + share * (eta - 2 / depth)) < 0


@pytest.mark.parametrize("depth", [2, 3, 8, 128, 129, 130, 1000])
@pytest.mark.parametrize("sign", [1, -1])
def test_space_of_the_threshold_is_invariant_as_far_as_its_rotations_go(depth, sign):
    columns, angles = transverse._space(depth, sign)
    n = columns.shape[1]
    np.testing.assert_allclose(columns.T @ columns, np.eye(n), atol=1e-13)
    assert np.abs(angles[[0, -1]]).max(initial=0) < 1e-15  # no rotation outside the hidden bases
    np.testing.assert_allclose(angles[::-1], sign * angles, atol=1e-13)
    assert not angles.size or np.linalg.matrix_rank(angles) == angles.shape[1]  # NumPy 2.0: no rank of an empty matrix
    a, b, m = 1.02 ** (1 / depth), 0.9 ** (1 / depth), (1.0, 0.9)
    turns = angles[1:] * b - angles[:-1] * a
    np.testing.assert_allclose(columns @ (columns.T @ turns), turns, atol=1e-12)
    if depth <= 130:
        H = transverse.sector_hessian(a, b, m, depth, sign)
        found = transverse._resting_product(a, b, 1.0, sign, columns)
        # sums of L products of numbers of order one; b^L is the target to L roundings
        np.testing.assert_allclose(found, H @ columns, atol=1e-14 * depth)


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


@pytest.mark.parametrize("phase", ["rest", "same", "opposite"])
def test_growth_is_that_of_the_largest_multiplier_but_the_rotations(phase):
    depth, rate = 3, 0.8  # both modes are beyond their edges
    moduli = np.abs(transverse.multipliers((1.0, 0.9), depth, rate, phase=phase))
    left = np.delete(moduli, np.argsort(np.abs(moduli - 1))[: depth - 1])
    growth = transverse.growth_rate((1.0, 0.9), depth, rate, phase=phase)
    assert growth == pytest.approx(np.log(left.max()) / 2, rel=1e-9, abs=0) and abs(growth) > 1e-3


def test_a_run_escapes_from_its_own_scale():
    """One layer of one number, beyond its edge: each step is a factor of -2, and 1e4 lies between 2^13 and 2^14."""
    W, M = np.full((1, 1, 1, 1), 1.0), np.zeros((1, 1))
    for factor in (2.0**-100, 1.0, 2.0**100):
        short, long = (
            transverse.lyapunov(factor * W, M, [3.0], steps, rng=np.random.default_rng(0)) for steps in (13, 14)
        )
        assert short[0] == pytest.approx(np.log(2), rel=1e-12) and long[0] == np.inf
        target = transverse.lyapunov(0 * W, M + factor, [3.0], 13, rng=np.random.default_rng(0))  # (1 - (-2)^t) M
        assert target[0] == pytest.approx(np.log(2), rel=1e-12)
        assert transverse.lyapunov(0 * W, M + factor, [3.0], 14, rng=np.random.default_rng(0))[0] == np.inf
    least = transverse.lyapunov(W, np.longdouble(5e-324) ** 2 + M, [0.5], 10, rng=np.random.default_rng(0))
    assert least[0] == pytest.approx(np.log(0.5), rel=1e-12)  # a target far below the weights
    both = transverse.lyapunov(np.concatenate([W, 1e6 * W]), M, [3.0, 0.5], 20, rng=np.random.default_rng(0))
    assert both[0] == np.inf and both[1] == pytest.approx(np.log(0.5), rel=1e-12)  # its neighbour is large


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_lyapunov_is_the_same_in_all_units(depth):
    rng, rates = np.random.default_rng(depth), np.array([0.05, 0.3, 0.9])
    W, M = rng.standard_normal((3, depth, 2, 2)) / 2, rng.standard_normal((2, 2)) / 2
    here = transverse.lyapunov(W, M, rates, 50, rng=np.random.default_rng(0))
    for power in (-480, -40, 1, 40, 480):
        power = power // depth  # so that target and rates are within the floating range
        scaled = np.ldexp(W, power), np.ldexp(M, power * depth), np.ldexp(rates, power * (2 - 2 * depth))
        assert np.array_equal(transverse.lyapunov(*scaled, 50, rng=np.random.default_rng(0)), here)
    assert np.isfinite(here[0])


def test_a_target_whose_edge_is_no_float_is_named():
    for values in ((1e-310, 1e-311), (1e200, 1e199)):
        for call in (transverse.threshold, lambda m, depth: transverse.multipliers(m, depth, 1.1)):
            with pytest.raises(ValueError, match="^singular_values: got "):
                call(values, 5)


def test_lyapunov_takes_arrays_only():
    layers = torch.ones((1, 2, 1, 1), dtype=torch.float64)
    with pytest.raises((TypeError, ValueError), match="^W"):
        transverse.lyapunov(layers, np.eye(1), [1.0], 5, rng=np.random.default_rng(0))


def test_lyapunov_of_a_run_that_escapes():
    weights = np.full((2, 2, 1, 1), 0.9)
    value = transverse.lyapunov(weights, np.eye(1), [1.1, 9.0], 50, rng=np.random.default_rng(0))
    assert np.isfinite(value[0]) and value[1] == np.inf


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: transverse.multipliers((1.0, 0.9), 2, 0.9), "^learning_rate"),
        (lambda: transverse.floquet_matrix((1.0, 0.9), 2, -1.1, 1), "^learning_rate: got -1.1, needs one finite real number > 0"),
        (lambda: transverse.multipliers((0.9, 1.0), 2, 1.1), "^singular_values: got"),
        (lambda: transverse.multipliers((1.1, 0.9, 1.0), 2, 1.1), "^singular_values: got"),
        (lambda: transverse.multipliers((1.0,), 2, 1.1), "^singular_values: got .*at least two"),
        (lambda: transverse.multipliers((1.0, 0.9), 1, 1.1), "^depth: got 1"),
        (lambda: transverse.pair_eigenvalue((1.0, 0.9), 1), "^depth: got 1"),
        (lambda: transverse.multipliers((1.0, 0.9), 2, 1.1, pair=(1, 0)), "^pair"),
        (lambda: transverse.multipliers((1.0, 0.9), 2, 1.1, pair=(-1, 1)), "^pair"),
        (lambda: transverse.multipliers((1.0, 0.9), 2, 1.1, phase="up"), "^phase"),
        (lambda: transverse.sector_hessian(1.0, 0.0, (1, 1), 2, 1), "second"),
        (lambda: transverse.sector_hessian(1.0, 1.0, (1, 1), 2, 0), "^sign"),
        (lambda: transverse.pair_hessian([1.0, 1.0], [1.0], (1, 1)), "shapes"),
        (lambda: transverse.near_degenerate(1), "^depth"),
        (lambda: transverse.lyapunov(np.ones((1, 2, 1, 1)), np.eye(1), [1.0], 5, rng=None), "^rng"),
        (lambda: transverse.lyapunov(np.ones((2, 1, 1)), np.eye(1), [1.0], 5, rng=np.random.default_rng(0)), "shapes"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_pair_block_by_hand():
    """Two layers with a = (2, 3), b = (5, 7), targets 1 and 2: residuals 5 and 33."""
    v, w = np.array([3.0, 5.0]), np.array([7.0, 2.0])
    C = np.array([[0.0, 33.0], [5.0, 0.0]])
    expected = np.block([[np.outer(v, v), C], [C.T, np.outer(w, w)]])
    assert np.array_equal(transverse.pair_hessian([2, 3], [5, 7], (1, 2)), expected)
    # targets may be zero, and so may layers; only the order of the two matters
    assert transverse.pair_hessian([1.0, 0.0], [1.0, 0.0], (0, 3.0))[0, 3] == -3.0
    assert transverse.pair_hessian([1.0, 0.0], [1.0, 0.0], (3.0, 0))[1, 2] == -3.0


def test_sector_by_hand():
    """a = 2, b = 3, L = 3, targets 7 and 25: residuals 1 and 2; v = (4, 6, 9)."""
    v = np.array([4.0, 6.0, 9.0])
    # l + k = 5: r_i a^(6 - 5) b^0 = 2; l + k = 6: r_i a^0 b^1 = 3; l + k = 2: r_j b^0 a^1 = 4; l + k = 3: r_j b = 6
    T = np.array([[4.0, 6.0, 0.0], [6.0, 0.0, 2.0], [0.0, 2.0, 3.0]])
    for sign in (1, -1, 1.0, np.int64(-1)):
        found = transverse.sector_hessian(2.0, 3.0, (7.0, 25.0), 3, sign)
        np.testing.assert_allclose(found, np.outer(v, v) + sign * T, rtol=1e-15)
    assert np.array_equal(
        transverse.sector_hessian(-1.0, 1.0, (0.0, 0.0), 2, 1), [[1 - 0.0 + 1.0, -1.0], [-1.0, 1.0 + 1.0]]
    )


@pytest.mark.parametrize("phase", transverse.PHASES)
def test_floquet_matrix_is_the_product_in_the_order_of_time(phase):
    m, depth, eta = (1.0, 0.97), 3, 0.76
    one, two = scalar.two_cycle(1.0, depth, eta), scalar.two_cycle(0.97, depth, eta)
    b = {"rest": [0.97 ** (1 / 3)] * 2, "same": [two.low, two.high], "opposite": [two.high, two.low]}[phase]
    steps = [np.eye(3) - eta * transverse.sector_hessian(a, x, m, depth, -1) for a, x in zip((one.low, one.high), b)]
    np.testing.assert_allclose(
        transverse.floquet_matrix(m, depth, eta, -1, phase=phase), steps[1] @ steps[0], atol=1e-13
    )
    assert np.abs(steps[1] @ steps[0] - steps[0] @ steps[1]).max() > 1e-3


def test_defaults_are_the_first_pair_at_rest_in_both_sectors():
    values, eta = (1.0, 0.9, 0.8), 0.72
    default = transverse.multipliers(values, 3, eta)
    assert np.array_equal(default, transverse.multipliers(values, 3, eta, pair=(0, 1), phase="rest"))
    assert len(default) == 6 and np.sum(np.abs(default - 1) < 1e-9) == 2
    both = np.concatenate([transverse.multipliers(values, 3, eta, sector=s) for s in (1, -1)])
    np.testing.assert_allclose(np.sort(np.abs(both)), np.sort(np.abs(default)), atol=1e-12)
    assert np.array_equal(
        transverse.multipliers((1.0, 0.8), 3, eta), transverse.multipliers(values, 3, eta, pair=(0, 2))
    )
    assert not np.allclose(default, transverse.multipliers(values, 3, eta, pair=(0, 2)))
    assert transverse.growth_rate(values, 3, eta) == transverse.growth_rate(
        (1.0, 0.9), 3, eta, pair=(0, 1), phase="rest"
    )
    assert transverse.growth_rate(values, 3, eta, pair=(0, 2)) == transverse.growth_rate((1.0, 0.8), 3, eta)
    for lower in ((1.0, 0.9), (1.0, 0.8)):
        pair = (0, 1) if lower[1] == 0.9 else (0, 2)
        assert transverse.threshold(values, 3, pair=pair) == transverse.threshold(lower, 3)
        assert transverse.pair_eigenvalue(values, 3, pair=pair) == transverse.pair_eigenvalue(lower, 3)
    assert transverse.threshold(values, 3) == transverse.threshold(values, 3, pair=(0, 1))
    assert transverse.pair_eigenvalue(values, 3) == transverse.pair_eigenvalue(values, 3, pair=(0, 1))
    assert transverse.threshold((5.0, 1.0, 0.9), 3, pair=(1, 2)) == transverse.threshold((1.0, 0.9), 3)
    plain = transverse.floquet_matrix(values, 3, eta, 1)
    assert np.array_equal(plain, transverse.floquet_matrix(values, 3, eta, 1, deflate=False, pair=(0, 1), phase="rest"))


def test_multipliers_come_largest_modulus_first():
    found = transverse.multipliers((1.0, 0.9), 4, 0.57)
    size = np.abs(found)
    assert np.all(np.diff(size) < 1e-11) and size[0] - size[-1] > 0.1 and found.dtype == complex
    pairs = [i for i in range(7) if found[i].imag > 1e-6]
    assert pairs and all(
        abs(found[i + 1] - found[i].conjugate()) < 1e-9 for i in pairs
    )  # of a pair, the upper one first


def test_pair_eigenvalue_by_hand():
    # L = 3 with 8 and 1: 8^(4/3) + 8^(2/3) + 1 = 16 + 4 + 1
    assert transverse.pair_eigenvalue((8.0, 1.0), 3) == pytest.approx(21.0, rel=1e-14, abs=0)
    assert transverse.pair_eigenvalue((1.0, 1.0), 10**6) == 10**6
    with pytest.raises(ValueError, match="^depth: got 1000001"):
        transverse.pair_eigenvalue((1.0, 1.0), 10**6 + 1)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_rotation_and_growth_near_degenerate(depth):
    law, delta = transverse.near_degenerate(depth), 1e-4
    m = (1.0, 1 - delta)
    for q in (2.001, 2.002):  # far beyond q_T - 2 = O(delta), still a small step from 2
        found = transverse.multipliers(m, depth, q / depth, sector=-1)
        turning = found[np.argmax(found.imag)]
        # next terms: of relative order q - 2 and delta / (q - 2)
        assert abs(np.angle(turning)) / np.sqrt(q - 2) == pytest.approx(law.angle, rel=0.06, abs=0)
    eta = transverse.threshold(m, depth)
    # of order delta relative; above the threshold, where the pair grows and is not hidden by what decays more slowly
    assert transverse.growth_rate(m, depth, eta + 1e-6) / (1e-6 * depth) == pytest.approx(law.growth, rel=5e-4, abs=0)


def test_lyapunov_of_one_layer_is_the_logarithm_of_the_factor():
    """f = (W - M)^2 / 2: every tangent vector is multiplied by 1 - eta."""
    M, rng = np.diag([1.0, 2.0]), np.random.default_rng(1)
    W = np.ones((4, 1, 2, 2))
    rates = np.array([0.25, 0.5, 1.9, 3.0])
    found = transverse.lyapunov(W, M, rates, 10, rng=rng)
    np.testing.assert_allclose(found, np.log(np.abs(1 - rates)), rtol=1e-12)
    # at rate 3 the distance of at most 1 doubles: above 10^4 after 14 steps, not after 12
    assert np.isfinite(transverse.lyapunov(W, M, rates, 12, rng=rng)).all()
    assert np.isinf(transverse.lyapunov(W, M, rates, 16, rng=rng)).tolist() == [False, False, False, True]
    for steps, gone in ((13, False), (14, True)):  # 2^14 = 1.6 * 10^4 of the start
        assert np.isinf(transverse.lyapunov(1e-3 * W, 0 * M, rates, steps, rng=rng))[3] == gone
    large = transverse.lyapunov(100 * W, M, rates, 12, rng=rng)  # judged beside the start: 10^6
    assert np.isfinite(large).all()
    assert np.isinf(transverse.lyapunov(1e-3 * W, 0 * M, rates, 30, rng=rng)).tolist() == [False, False, False, True]
    one = transverse.lyapunov(W[:1], M, rates[:1], 1, rng=rng)
    np.testing.assert_allclose(one, [np.log(0.75)], rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: transverse.pair_hessian([[1.0, 1.0]], [[1.0, 1.0]], (1, 1)), "^first, second, targets: got shapes"),
        (lambda: transverse.pair_hessian([1.0], [1.0], (1, 1)), "^first, second, targets: got shapes"),
        (lambda: transverse.pair_hessian([1.0, 1.0], [1.0, 1.0], (1, 1, 1)), "^first, second, targets: got shapes"),
        (lambda: transverse.pair_hessian([1.0, 1.0], [1.0, 1.0], (1, -1)), "^targets: got"),
        (lambda: transverse.pair_hessian([1.0, np.nan], [1.0, 1.0], (1, 1)), "^first: got"),
        (lambda: transverse.pair_hessian([1.0, 1.0], [1.0, np.nan], (1, 1)), "^second: got"),
        (lambda: transverse.sector_hessian(0.0, 1.0, (1, 1), 2, 1), "^first, second: got 0.0, 1.0"),
        (lambda: transverse.sector_hessian(np.inf, 1.0, (1, 1), 2, 1), "^first: got"),
        (lambda: transverse.sector_hessian(1.0, np.inf, (1, 1), 2, 1), "^second: got"),
        (lambda: transverse.sector_hessian(1.0, 1.0, (1, -1), 2, 1), "^targets: got"),
        (lambda: transverse.sector_hessian(1.0, 1.0, (1, 1, 1), 2, 1), r"^targets: got shape \(3,\)"),
        (lambda: transverse.sector_hessian(1.0, 1.0, (1, 1), 1, 1), "^depth: got 1, needs an integer from 2 to 1000$"),
        (lambda: transverse.sector_hessian(1.0, 1.0, (1, 1), 1001, 1), "^depth: got 1001"),
        (lambda: transverse.threshold((1.0, 0.9), 10_001), "^depth: got 10001, needs an integer from 2 to 10000$"),
        (lambda: transverse.threshold((1.0, 0.5), 1001), "^depth: got 1001, needs at most 1000 for the thresholds"),
        (
            lambda: transverse.growth_rate((1.0, 0.9), 1001, 2.2 / 1001),
            "^depth: got 1001, needs an integer from 2 to 1000$",
        ),
        (lambda: transverse.sector_hessian(1.0, 1.0, (1, 1), 2, True), "^sign: got True"),
        (lambda: transverse.sector_hessian(1.0, 1.0, (1, 1), 2, np.True_), "^sign: got"),
        (lambda: transverse.sector_hessian(1.0, 1.0, (1, 1), 2, "1"), "^sign: got '1'"),
        (lambda: transverse.sector_hessian(1e200, 1.0, (1, 1), 3, 1), "^first, second, targets, depth: got"),
        (lambda: transverse.sector_hessian(1.0, 1e200, (1, 1), 3, 1), "^first, second, targets, depth: got"),
        (lambda: transverse.floquet_matrix((1.0, 0.9), 2, 0.0, 1), "^learning_rate: got 0.0"),
        (lambda: transverse.floquet_matrix((1.0, 0.9), 2, 1.1, 1, deflate=1), "^deflate: got 1"),
        (lambda: transverse.floquet_matrix((1.0, 0.9), 2, 1.1, 1, pair=0), "^pair: got 0"),
        (lambda: transverse.floquet_matrix((1.0, 0.9), 2, 1.1, 1, pair=(0, 1, 2)), "^pair: got"),
        (
            lambda: transverse.floquet_matrix((1.0, 0.9), 2, 1.1, 1, pair=(0, 2)),
            r"^pair: got \(0, 2\), needs 0 <= i < j < 2",
        ),
        (lambda: transverse.floquet_matrix((1.0, 0.9), 2, 1.1, 1, pair=(0, 0)), r"^pair: got \(0, 0\)"),
        (
            lambda: transverse.floquet_matrix((1.0, 0.9), 2, 1.1, 1, pair=(-1, 0)),
            "^pair: got -1, needs an integer >= 0",
        ),
        (lambda: transverse.floquet_matrix([[1.0, 0.9]], 2, 1.1, 1), "^singular_values: got"),
        (lambda: transverse.floquet_matrix((1.0, 0.0), 2, 1.1, 1), "^singular_values: got"),
        (lambda: transverse.threshold((1.0, 0.01), 3), "^singular_values: got .*stays stable up to eta = 1.43345$"),
        (
            lambda: transverse.lyapunov(np.ones((1, 1, 1, 1)), np.eye(1), [0.1], 0, rng=np.random.default_rng(0)),
            "^steps: got 0",
        ),
        (
            lambda: transverse.lyapunov(np.ones((1, 1, 1, 1)), np.eye(1), [0.0], 1, rng=np.random.default_rng(0)),
            "^learning_rate",
        ),
        (
            lambda: transverse.lyapunov(np.ones((1, 1, 1, 1)), np.eye(1), [0.1] * 2, 1, rng=np.random.default_rng(0)),
            "^W, learn",
        ),
        (
            lambda: transverse.lyapunov(np.ones((1, 1, 1, 1)), np.eye(1), [0.1], 1, rng=7),
            "rng: got 7, .* for the tangent vectors",
        ),
    ],
)
def test_refusals_name_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_pair_accepts_lists_and_arrays_and_equal_values():
    for pair in ([0, 1], np.array([0, 1])):
        assert transverse.pair_eigenvalue((2.0, 2.0), 2, pair=pair) == 4.0
    for depth in (2, 3):
        assert transverse.threshold((2.0, 2.0, 2.0), depth, pair=(1, 2)) == pytest.approx(
            2 / (depth * 2 ** (2 - 2 / depth))
        )


def test_threshold_of_far_apart_values_up_to_the_end_of_the_branch():
    """At ratio 0.1 the pair block loses stability shortly before the two-cycle's own end, and before 2 / lambda."""
    for depth in (3, 4, 6):
        eta = transverse.threshold((1.0, 0.1), depth)
        assert 2 < eta * depth < scalar.window(depth).divergence and eta < 2 / transverse.pair_eigenvalue(
            (1.0, 0.1), depth
        )
        below, above = (
            max(
                np.abs(np.linalg.eigvals(transverse.floquet_matrix((1.0, 0.1), depth, f * eta, s, deflate=True))).max()
                for s in (1, -1)
            )
            for f in (1 - 1e-6, 1 + 1e-6)
        )
        assert below < 1 < above
        for q in np.linspace(2.01, 0.9999 * eta * depth, 40):  # and not earlier
            assert transverse.growth_rate((1.0, 0.1), depth, q / depth) < 0


@pytest.mark.parametrize("depth", [2, 3, 4, 5, 7, 11, 20])
def test_second_order_laws_in_exact_fractions(depth):
    """From the recorded series d2 (the gap is d1 h^2 + d2 h^4, h half the logarithm of the cycle's ratio) and q(h)."""
    import near_degenerate_series as series

    L, d2 = Fraction(depth), Fraction(str(series.load()[1].subs(series.L, depth)))
    d1 = 2 * L * (7 * L**2 - 10 * L + 2) / (5 * (L - 1))
    cosh, sinh = (lambda n: (n**2 / 2, -(n**4) / 12)), (lambda n: (n**2 / 6, -(n**4) / 180))  # of their logarithms
    parts = [sinh(Fraction(1)), sinh(L), cosh(2 * L - 1), cosh(L - 1)]
    one, two = (p[0] - p[1] + p[2] + (1 - 2 / L) * (p[2] - p[3]) for p in zip(*parts))
    q_one = 2 * one / d1
    q_two = 2 * (two + one**2 / 2) / d1**2 - 2 * one * d2 / d1**3
    mean = [sum(f(Fraction(i) / L) for i in range(depth)) / L for f in (lambda x: -2 * x, lambda x: x * (2 * x - 1))]
    law = transverse.near_degenerate(depth)
    exact = (q_one, q_two, q_one / 2 + mean[0], q_two / 2 + mean[1] + q_one * mean[0] / 2)
    for found, expected in zip((law.excess, law.excess_second, law.ratio, law.ratio_second), exact):
        assert found == pytest.approx(float(expected), rel=1e-15, abs=0)
    # and from the leading order of the determinant: theta^2 = 16 (L^2 - 1) / 3 h^2, q - 2 = 2 one h^2
    assert law.angle**2 == pytest.approx(float(16 * (L**2 - 1) / 3 / (2 * one)), rel=1e-15, abs=0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: transverse.pair_hessian([1e200, 1e200], [1.0, 1.0], (1.0, 1.0)), "^first, second, targets: "),
        (lambda: transverse.pair_eigenvalue((1e300, 1e300), 3), "^singular_values: "),
        (lambda: transverse.multipliers((1.0, 0.8), 2, 1.1, sector=2), "^sector: got 2"),
        (lambda: transverse.sector_hessian(1.0, 1.0, (1.0, 1.0), 2, np.complex64(1)), "^sign: "),
        (lambda: transverse.pair_eigenvalue((1.0, 0.8), 2, pair=np.array(1)), "^pair: "),
    ],
)
def test_what_overflows_is_named(call, words):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=words):
            call()


def test_lyapunov_of_a_direction_that_is_wiped_out_and_of_a_large_target():
    one = np.ones((1, 1, 1, 1))
    found = transverse.lyapunov(one, np.eye(1), [1.0], 5, rng=np.random.default_rng(0))  # 1 - rate = 0
    assert found == pytest.approx(np.log(1e-300), abs=1)
    W = np.full((1, 2, 1, 1), 0.1)  # a long way below the target's 10^6, which it reaches
    assert np.isfinite(transverse.lyapunov(W, np.eye(1) * 1e12, [1e-13], 400, rng=np.random.default_rng(0))).all()


@pytest.mark.parametrize("size", [1e-200, 1e-15, 0.75, 1e200, 1.5e308])
def test_lyapunov_of_a_step_of_any_size(size):
    # f = (W - M)^2 / 2 at its minimum, where V is multiplied by 1 - eta; of a size below rounding nothing is left
    found = transverse.lyapunov(np.ones((1, 1, 1, 1)), np.eye(1), [1 + size], 3, rng=np.random.default_rng(0))
    assert found == pytest.approx(np.log(1 + size - 1 or 1e-300), rel=1e-13, abs=0)


def test_lyapunov_counts_as_escaped_what_is_large_beside_the_target():
    # one step moves an entry of both layers from 1 to 1 + eta (10^8 - 1); a run has escaped beyond 10^4 sqrt(10^8)
    W, M = np.broadcast_to(np.eye(3), (2, 2, 3, 3)), np.diag([1e8, 0.0, 0.0])
    found = transverse.lyapunov(W, M, [0.9, 1.1], 1, rng=np.random.default_rng(0))
    assert np.isinf(found).tolist() == [False, True]


def test_lyapunov_of_no_runs_and_of_objects():
    assert transverse.lyapunov(np.ones((0, 2, 1, 1)), np.eye(1), [], 3, rng=np.random.default_rng(0)).shape == (0,)
    for W, M in ((np.full((1, 2, 1, 1), 1, object), np.eye(1)), (np.ones((1, 2, 1, 1)), np.full((1, 1), 1, object))):
        with pytest.raises(ValueError, match="^W, M: got an array of objects"):
            transverse.lyapunov(W, M, [0.5], 3, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    "sign", [True, np.True_, np.timedelta64(1), 1j, np.complex128(1), "1", None, [1], 0.5, np.uint8(255), np.float32(2)]
)
def test_signs_that_are_none(sign):
    with pytest.raises(ValueError, match="^sign: "):
        transverse.sector_hessian(1.0, 1.0, (1.0, 1.0), 2, sign)


@pytest.mark.parametrize("sign", [-1, -1.0, np.int8(-1), np.float32(-1)])
def test_signs_of_every_kind(sign):
    assert np.array_equal(
        transverse.sector_hessian(2.0, 1.0, (3.0, 1.0), 2, sign), transverse.sector_hessian(2.0, 1.0, (3.0, 1.0), 2, -1)
    )


def test_blocks_whose_products_have_no_number():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="^first, second, targets: "):
            transverse.pair_hessian([1e200, 1e200, 0.0], [1e200, 1e200, 0.0], (1.0, 1.0))


def test_sectors_whose_powers_have_no_number():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="^first, second, targets, depth: "):
            transverse.sector_hessian(1e200, 1e-200, (1.0, 1.0), 8, 1)  # infinity times zero


def test_lyapunov_of_a_step_whose_entries_differ_by_two_hundred_decades():
    # f = (a b - m)^2 / 2 at (1, 0): the Hessian is ((0, -m), (-m, 1)), and eta m = 1
    W, M = np.array([1.0, 0.0]).reshape(1, 2, 1, 1), np.full((1, 1), 1e-200)
    found = transverse.lyapunov(W, M, [1e200], 1, rng=np.random.default_rng(0))
    V = np.random.default_rng(0).standard_normal(2)
    assert found == pytest.approx(np.log(1e200) + np.log(np.abs(V[1]) / np.hypot(*V)), rel=1e-13, abs=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lost = transverse.lyapunov(2 + W, np.eye(1), [1.7e308], 3, rng=np.random.default_rng(0))
    assert lost.tolist() == [np.inf]


def test_lyapunov_of_a_lost_direction_is_no_matter_of_other_runs():
    W, M = np.full((2, 2, 1, 1), 2.0), np.full((1, 1), 4.0)  # at a minimum, where no weight moves
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = transverse.lyapunov(W, M, [0.1, 1.7e308], 4, rng=np.random.default_rng(0))
    assert np.isinf(found).tolist() == [False, True]


def test_threshold_of_more_than_a_thousand_layers():
    law, delta = transverse.near_degenerate(1001), 1e-3
    q = transverse.threshold((1.0, 1 - delta), 1001) * 1001
    # the law leaves out delta^3 times a coefficient of order one
    assert q - 2 == pytest.approx(law.excess * delta + law.excess_second * delta**2, rel=0, abs=1e-8)
