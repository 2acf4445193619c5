"""Tests of eoslib.bifurcation: closed forms, the map itself, matrices, bad input, and the recorded run."""

import importlib.util
from pathlib import Path

import mpmath
import numpy as np
import pytest
import sympy as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from eoslib import bifurcation, hessian, network, scalar, transverse

DEPTHS = range(2, 9)
RECORDED = Path(__file__).resolve().parents[1] / "recorded" / "full_matrix_bifurcation.py"
ONE = np.ones((2, 1, 1))
quick = settings(derandomize=True, deadline=None, max_examples=25)


def recorded():
    spec = importlib.util.spec_from_file_location("full_matrix_bifurcation", RECORDED)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- coordinates ------------------------------------------------------------------------------------------------------
@quick
@given(depth=st.integers(2, 8), q=st.floats(1.01, 5.0))
def test_overshoot_inverts_rate_and_the_orbit_is_that_of_the_map(depth, q):
    r = bifurcation.overshoot(q, depth)
    assert bifurcation.rate(r, depth) == pytest.approx(q, rel=1e-12, abs=0)
    D, E = (2 * depth - 1) * r - 2 * (depth - 1), (depth - 1) * r - (depth - 2)
    c = (E / D) ** (1 / depth)
    u = [scalar.step(c, 1.0, depth, q / depth)]
    u.append(scalar.step(u[0], 1.0, depth, q / depth))
    np.testing.assert_allclose(bifurcation.critical_orbit(r, depth, 2), np.array(u) / c, rtol=1e-10, atol=1e-12)


def test_critical_orbit_in_exact_numbers():
    r = sp.sqrt(2)
    assert sp.simplify(bifurcation.critical_orbit(r, 2, 2)[1] - 1) == 0
    assert sp.simplify(bifurcation.critical_orbit(sp.sqrt(3), 2, 2)[1]) == 0


@pytest.mark.parametrize(
    ("depth", "q"), [(2, 3.0), (3, 1.3), (5, 20.0), (8, 20.0), (50, 20.0), (1000, 1.01), (1000, 1.3)]
)
def test_overshoot_against_a_root_in_thirty_digits(depth, q):
    with mpmath.workdps(30):
        power = 1 - mpmath.mpf(2) / depth

        def excess(r):
            D, E = (2 * depth - 1) * r - 2 * (depth - 1), (depth - 1) * r - (depth - 2)
            return D * (D / E) ** power - q

        expected = float(mpmath.findroot(excess, 1 + mpmath.mpf(q - 1) / (2 * depth)))
    assert bifurcation.overshoot(q, depth) == pytest.approx(expected, rel=1e-15, abs=0)  # a few roundings


# -- superstable cycles -----------------------------------------------------------------------------------------------
def test_superstable_two_cycle_of_two_layers_is_three_root_two_minus_two():
    assert float(bifurcation.cascade(2, 1)[1] - (3 * mpmath.sqrt(2) - 2)) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("depth", DEPTHS)
def test_cascade_against_the_explicit_two_cycle_branch(depth):
    q = float(bifurcation.cascade(depth, 1)[1])
    assert abs(scalar.two_cycle(1.0, depth, q / depth).multiplier) < 1e-7


def test_the_cascade_of_a_million_layers_tends_to_that_of_the_limit():
    """With w = exp(y / L) the map is y -> y + q e^y (1 - e^y), in units of the minimum, as the depth grows."""

    def images(y, q, times):
        for _ in range(times):
            y = y + q * mpmath.exp(y) * (1 - mpmath.exp(y))
        return y

    def gap(q, times):
        # zero of the slope 1 + q e^y - 2 q e^2y
        c = mpmath.log((q + mpmath.sqrt(q * q + 8 * q)) / (4 * q))
        return images(c, q, times) - c

    with mpmath.workdps(30):
        found = bifurcation.cascade(10**6, 2)
        for q, period in zip(found[1:], (2, 4)):
            limit = mpmath.findroot(lambda x, n=period: gap(x, n), (q, q * (1 + mpmath.mpf(10) ** -9)))
            assert abs(q / limit - 1) < 1e-6  # of the order of one over the depth


@pytest.mark.parametrize("depth", (2, 5))
def test_feigenbaum_ratios_converge_geometrically(depth):
    errors = np.array([float(x) - 4.66920160910299 for x in bifurcation.feigenbaum(bifurcation.cascade(depth, 9))])
    assert abs(errors[-1]) < 5e-5
    assert np.all(np.abs(errors[3:]) < 0.5 * np.abs(errors[2:-1]))


def test_the_period_three_window_has_a_cascade_of_its_own_with_the_same_constant():
    m = bifurcation.landmarks(3)
    six = m.period_three_superstable + (m.period_six - m.period_three_superstable) * 4 / 3  # z^2 + k: k = 0, -3/4, -1
    r = [
        bifurcation.superstable(3, n, bifurcation.overshoot(q, 3))
        for n, q in ((3, m.period_three_superstable), (6, six))
    ]
    for n in (12, 24, 48, 96, 192):
        r.append(bifurcation.superstable(3, n, r[-1] + (r[-1] - r[-2]) / 4.5))
    ratios = bifurcation.feigenbaum([bifurcation.rate(x, 3) for x in r])
    assert float(ratios[-1]) == pytest.approx(4.6692, abs=0.005)


def test_superstable_refuses_a_cycle_of_smaller_period():
    with pytest.raises(RuntimeError, match="smaller"):
        bifurcation.superstable(2, 4, 2**0.5)


def test_the_fixed_point_is_the_first_superstable_cycle_and_none_of_two():
    """At the overshoot 1 the critical point is the minimum: the least guess that is allowed."""
    assert bifurcation.superstable(3, 1, 1) == bifurcation.superstable(3, 1, mpmath.mpf(1)) == 1
    for near in (1, 1.02):
        with pytest.raises(RuntimeError, match="smaller than 2$"):
            bifurcation.superstable(3, 2, near)


def test_a_smaller_period_is_told_from_a_close_return():
    """In fifteen digits, by half of them: roundings grow along a cycle, and a long cycle comes back close."""
    near = [bifurcation.overshoot(float(q), 2) for q in bifurcation.cascade(2, 5, digits=15)[-2:]]
    with mpmath.workdps(15):
        half = bifurcation.superstable(2, 32, near[-1], digits=15)
        assert abs(bifurcation.critical_orbit(half, 2, 32)[-1] - 1) > 1e-15  # closed but for roundings
    with pytest.raises(RuntimeError, match="smaller than 64$"):
        bifurcation.superstable(2, 64, half, digits=15)


def test_newtons_method_ends_below_the_documented_move(monkeypatch):
    """Of moves of 1 and 1 - 1e-6 times 10^(4 - digits) the second is the last."""
    with mpmath.workdps(20):
        bound = mpmath.mpf(10) ** -16
        almost = bound * (1 - mpmath.mpf(10) ** -6)
        for digits, moves in ((20, [0.01, bound, almost]), (21, [0.01, 0.3 * bound, 0.09 * bound])):
            made = iter(moves)
            monkeypatch.setattr(bifurcation, "_return", lambda *_, made=made: (next(made), 1))
            bifurcation.superstable(3, 1, 1.5, digits=digits)
            assert not list(made)


# -- landmarks --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("depth", DEPTHS)
def test_landmarks_against_scalar_window_and_in_order(depth):
    m, w = bifurcation.landmarks(depth), scalar.window(depth)
    assert m.sign_change == pytest.approx(w.sign_change, abs=1e-9)
    assert m.divergence == pytest.approx(w.divergence, abs=1e-9)
    rates = bifurcation.cascade(depth, 8)
    assert float(bifurcation.accumulation(rates)) == pytest.approx(w.chaos, abs=1e-8)
    order = [w.chaos, m.band_merging, m.period_three, m.period_three_superstable, m.period_six, m.period_three_end]
    assert np.all(np.diff([*order, m.sign_change, m.divergence]) > 0)


@pytest.mark.parametrize(("depth", "rel"), [(2, 1e-14), (3, 1e-14), (4, 1e-14), (7, 1e-14), (10_000, 2e-11)])
def test_landmarks_against_roots_in_thirty_digits(depth, rel):
    """In units of the minimum, with the critical point as the zero of the slope: no polynomial in the overshoot.

    Roundings, which a power multiplies by the depth.
    """
    m = bifurcation.landmarks(depth)

    def image(u, q, times):
        slope = mpmath.mpf(1)
        for _ in range(times):
            slope *= 1 + q / depth * ((depth - 1) * u ** (depth - 2) - (2 * depth - 1) * u ** (2 * depth - 2))
            u = u + q / depth * (1 - u**depth) * u ** (depth - 1)
        return u, slope

    def critical(q):
        return mpmath.findroot(lambda u: image(u, q, 1)[1], (0.9 ** (1 / depth), 0.6 ** (1 / depth)))

    def at(times, q):
        return image(critical(q), q, times)[0]

    with mpmath.workdps(30):
        one = {
            "band_merging": lambda q: at(3, q) - 1,
            "period_three_superstable": lambda q: at(3, q) - critical(q),
            "sign_change": lambda q: at(2, q),
            "divergence": lambda q: at(3, q) - at(1, q),
        }
        near = {name: (getattr(m, name), getattr(m, name) * (1 + 1e-9)) for name in one}
        roots = {name: mpmath.findroot(equation, near[name]) for name, equation in one.items()}
        for name, multiplier in (("period_three", 1), ("period_six", -1)):
            cycle = lambda u, q, x=multiplier: [a - b for a, b in zip(image(u, q, 3), (u, x))]
            q = mpmath.mpf(getattr(m, name))
            roots[name] = mpmath.findroot(cycle, (critical(q), q))[1]
        q = mpmath.mpf(m.period_three_end)
        meeting = lambda u, q: (image(u, q, 3)[0] - u, at(6, q) - u)  # the sixth image of c is on a three-cycle
        u, roots["period_three_end"] = mpmath.findroot(meeting, (at(6, q), q))
        assert image(u, q, 3)[1] > 1 and abs(u - 1) * depth > 1e-3  # an unstable one, and not rest
        for name, root in roots.items():
            assert getattr(m, name) == pytest.approx(float(root), rel=rel, abs=0)


@pytest.mark.parametrize("depth", (2, 3, 10_000))
def test_the_derivatives_for_the_guesses_of_a_window(depth):
    """Of one step: the second derivative in u, and how the image of the critical point moves away from it with q."""
    with mpmath.workdps(30):
        q = mpmath.mpf(2.9)
        image = lambda u, q: u + q / depth * (1 - u**depth) * u ** (depth - 1)
        slope = lambda u: 1 + q / depth * ((depth - 1) * u ** (depth - 2) - (2 * depth - 1) * u ** (2 * depth - 2))
        c = mpmath.findroot(slope, (0.9 ** (mpmath.mpf(1) / depth), 0.6 ** (mpmath.mpf(1) / depth)))
        bend = mpmath.diff(slope, c, h=mpmath.mpf(10) ** -12)
        # c(q) moves by minus the derivative of the slope in q, which is (slope - 1)/q = -1/q, over that in u
        drift = (image(c, 1) - c) - 1 / (q * bend)
    assert bifurcation._second_slope(float(c), 2.9, depth, 1) == pytest.approx(float(bend), rel=1e-6, abs=0)
    assert bifurcation._drift(2.9, depth, 1) == pytest.approx(float(drift), rel=1e-5, abs=0)


@pytest.mark.parametrize("depth", (2, 3, 30, 2000))
def test_the_hit_of_zero_against_a_root_in_thirty_digits(depth):
    found = bifurcation.zero_hit(depth)
    with mpmath.workdps(30):
        bracket = lambda r, L=depth: (L - 1) * r ** (L + 1) - (L - 2) * r**L - (2 * L - 1) * r + 2 * (L - 1)
        expected = mpmath.findroot(lambda r: r ** (depth - 2) * bracket(r) - depth, (found, found * (1 + 1e-9)))
        assert expected > 1 and found == pytest.approx(float(expected), rel=1e-15, abs=0)


@pytest.mark.parametrize("depth", (2, 3, 6))
def test_period_three_window_against_plain_iteration(depth):
    m = bifurcation.landmarks(depth)
    gap = 2e-4
    q = [m.period_three - gap, m.period_three + gap, m.period_six - gap, m.period_six + gap]
    found = bifurcation.period(bifurcation.scan(depth, q, steps=30000, keep=64).orbits)
    assert found.tolist() == [0, 3, 3, 6]
    ends = bifurcation.scan(depth, [m.period_three_end - gap, m.period_three_end + gap], steps=20000, keep=6000).orbits
    gaps = [np.diff(np.unique(np.concatenate([x, [x.min(), x.max()]]))).max() for x in ends]
    assert gaps[0] > 5 * gaps[1]  # three separate bands before the crisis, one after


@pytest.mark.parametrize("depth", DEPTHS)
def test_sign_change_and_divergence_against_the_map_on_a_grid(depth):
    m = bifurcation.landmarks(depth)
    u = np.linspace(0.5, 1.0, 50001)  # holds the critical point; the grid misses the maximum by less than 1e-8
    for q, positive in ((m.sign_change - 1e-6, True), (m.sign_change + 1e-6, False)):
        twice = scalar.step(scalar.step(u, 1.0, depth, q / depth), 1.0, depth, q / depth)
        assert (twice.min() > 0) == positive
    for q, inside in ((m.divergence - 1e-6, True), (m.divergence + 1e-6, False)):
        top = scalar.step(u, 1.0, depth, q / depth).max()
        back = scalar.step(scalar.step(top, 1.0, depth, q / depth), 1.0, depth, q / depth)
        assert (back < top) == inside


@pytest.mark.parametrize("depth", (2, 3))
def test_past_divergence_some_orbits_leave_and_before_it_none(depth):
    m = bifurcation.landmarks(depth)
    starts = np.linspace(0.6, 1.2, 13)
    fates = [
        [bifurcation.scan(depth, [q], steps=1500, start=x).fate[0] for x in starts]
        for q in m.divergence * np.array([0.999, 1.01])
    ]
    assert "diverged" not in fates[0] and "diverged" in fates[1]


# -- scans ------------------------------------------------------------------------------------------------------------
def test_lyapunov_exponents_of_known_orbits():
    s = bifurcation.scan(2, [1.5, 2.2, 3.9999999], steps=20000)
    c = scalar.two_cycle(1.0, 2, 1.1)
    expected = [np.log(0.5), np.log(abs(c.multiplier)) / 2, np.log(3)]
    np.testing.assert_allclose(s.lyapunov, expected, atol=0.02)  # 1/sqrt(13000) for the chaotic one


def test_lyapunov_exponents_against_scalar():
    q = np.array([1.7, 2.3, 2.55, 3.2])  # rest, two-cycle, four-cycle, chaos
    mine = bifurcation.scan(3, q, steps=30000).lyapunov
    np.testing.assert_allclose(
        mine[:3], scalar.lyapunov(1.0, 3, q / 3, steps=10000)[:3], atol=1e-3
    )  # end effects, 1/steps
    assert mine[3] == pytest.approx(scalar.lyapunov(1.0, 3, q[3] / 3, steps=20000), abs=0.02)  # two stretches of chaos


@pytest.mark.parametrize("depth", (3, 5))
def test_past_the_sign_change_a_mixed_cycle_can_attract_beside_the_saddle(depth):
    m = bifurcation.landmarks(depth)
    zero, top = bifurcation.zero_hit(depth), bifurcation.overshoot(m.divergence, depth)
    r = brentq(
        lambda x: bifurcation.critical_orbit(x, depth, 3)[-1] - 1, zero, top
    )  # from 0 to the outer cycle: passes 1
    c = (((depth - 1) * r - (depth - 2)) / ((2 * depth - 1) * r - 2 * (depth - 1))) ** (1 / depth)
    scans = [
        bifurcation.scan(depth, [bifurcation.rate(r, depth)], steps=5000, keep=48, start=c + x) for x in (0, 1e-4, 0.01)
    ]
    assert [int(bifurcation.period(s.orbits)[0]) for s in scans[:2]] == [3, 3]
    assert scans[1].orbits.min() < -0.5 and scans[2].fate[0] == "saddle"


def test_balance_exponent_on_the_two_cycle():
    c = scalar.two_cycle(1.0, 4, 2.3 / 4)
    z = c.high / c.low
    s = bifurcation.scan(4, [2.3], steps=9000)
    assert s.balance[0] == pytest.approx(np.log(abs(5 - 2 * (z + 1 / z))) / 2, abs=1e-9)


def test_gap_between_layers_contracts_at_the_balance_exponent_in_chaos():
    q, m, rate = 3.1, 1.0, 3.1 / 3
    W = np.ones((3, 1, 1)) * np.array([0.7, 0.7, 0.7 + 1e-6])[:, None, None]
    gaps = []
    for _ in range(400):
        W = W - rate * network.gradient(W, np.array([[m]]))
        gaps.append(abs(W[0, 0, 0] ** 2 - W[2, 0, 0] ** 2))
    gaps = np.array(gaps)
    gaps = gaps[gaps > 1e-14]  # above rounding
    slope = np.polyfit(np.arange(gaps.size), np.log(gaps), 1)[0]
    assert slope == pytest.approx(bifurcation.scan(3, [q], steps=20000).balance[0], abs=0.05)  # about 100 chaotic steps


def test_period_detection():
    rng = np.random.default_rng(0)
    rows = np.stack([np.tile(rng.random(p), 64)[:64] for p in (1, 2, 3, 8, 16)] + [rng.random(64), np.full(64, np.inf)])
    assert bifurcation.period(rows).tolist() == [1, 2, 3, 8, 16, 0, 0]


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_period_knows_no_units_and_tells_creeping_from_cycling(scale):
    creeping = bifurcation.scan(2, [1.999, 2.0], steps=3000, keep=48).orbits
    settled = bifurcation.scan(2, [1.9, 2.05, 2.5, 2.585], steps=20000, keep=48).orbits
    assert bifurcation.period(scale * creeping).tolist() == [0, 0]
    assert bifurcation.period(scale * settled).tolist() == [1, 2, 4, 8]
    # long enough the first is at rest: 0.999^40000 is 1e-18
    assert bifurcation.period(scale * bifurcation.scan(2, [1.999], steps=40000, keep=48).orbits).tolist() == [1]


@pytest.mark.parametrize("depth", [64, 65, 200, 201])
def test_landmarks_of_deep_networks_of_both_parities(depth):
    m, w = bifurcation.landmarks(depth), scalar.window(depth)
    np.testing.assert_allclose([m.sign_change, m.divergence], [w.sign_change, w.divergence], rtol=1e-11)


# -- rotation of singular vectors -------------------------------------------------------------------------------------
@pytest.mark.parametrize("depth", (2, 3, 4, 5))
def test_pair_step_against_the_hessian_of_matrices(depth):
    rng = np.random.default_rng(depth)
    u, ratio, q = 0.83, 0.55, 2.7
    W = np.stack([np.diag([u, ratio ** (1 / depth)])] * depth)
    x = rng.standard_normal(depth)
    for sector, sign in enumerate((1, -1)):
        V = np.zeros_like(W)
        V[:, 0, 1], V[:, 1, 0] = x, sign * x[::-1]
        image = V - q / depth * network.hessian_vector_product(W, np.diag([1.0, ratio]), V)
        predicted = bifurcation.pair_step([u], [q], ratio, depth)[sector, 0] @ x
        np.testing.assert_allclose(image[:, 0, 1], predicted, atol=1e-13)
        np.testing.assert_allclose(image[:, 1, 0], sign * predicted[::-1], atol=1e-13)


@pytest.mark.parametrize("depth", range(2, 9))
def test_pair_step_against_the_sectors_of_transverse(depth):
    u, ratio, q = 1.13, 0.7, 2.6
    for sector, sign in enumerate((1, -1)):
        hessian = transverse.sector_hessian(u, ratio ** (1 / depth), (1.0, ratio), depth, sign)
        np.testing.assert_allclose(
            bifurcation.pair_step([u], [q], ratio, depth)[sector, 0], np.eye(depth) - q / depth * hessian, atol=1e-14
        )


@pytest.mark.parametrize("depth", DEPTHS)
def test_pair_limit_separates_survival_from_loss(depth):
    c = scalar.two_cycle(1.0, depth, scalar.window(depth).period_four / depth)
    limit = bifurcation.pair_limit(depth, c.q, [c.low, c.high])
    ratios = np.linspace(0.02, 0.98, 97)
    size = []
    for ratio in ratios:
        one, two = np.moveaxis(bifurcation.pair_step([c.low, c.high], c.q, ratio, depth), 1, 0)
        size.append(np.abs(np.linalg.eigvals(two @ one)).max())
    np.testing.assert_array_equal(np.array(size) > 1 + 1e-6, ratios > limit)


def test_rotation_grows_at_the_pair_exponent_in_the_matrices():
    q, ratio, size = 3.2, 0.6, 1e-12
    W = np.stack([np.diag([0.7, ratio ** (1 / 3)])] * 3)
    W[0, 0, 1] = size
    logs = []
    for _ in range(200):
        W = W - q / 3 * network.gradient(W, np.diag([1.0, ratio]))
        logs.append(np.log(np.linalg.norm(W[:, 0, 1])))
    slope = np.polyfit(np.arange(150), logs[50:], 1)[0]
    assert slope == pytest.approx(bifurcation.pair_exponent(3, [q], ratio)[0], abs=0.05)  # 150 chaotic steps


def test_pair_limit_at_two_layers_is_the_golden_ratio():
    w = scalar.window(2)
    c = scalar.two_cycle(1.0, 2, w.period_four / 2)
    assert bifurcation.pair_limit(2, c.q, [c.low, c.high]) == pytest.approx((5**0.5 - 1) / 2, abs=5e-6)


# -- recorded run -----------------------------------------------------------------------------------------------------
def test_record_is_what_the_script_makes_and_small():
    module = recorded()
    record = module.load()
    np.testing.assert_array_equal(record["q"], module.rates_q())
    settings_used = record["about"]["settings"]
    assert (settings_used["steps"], settings_used["keep"], settings_used["seed"]) == (
        module.STEPS,
        module.KEEP,
        module.SEED,
    )
    assert module.RECORD.stat().st_size < 1.5e6
    assert module.replay(record, np.array([300]))["columns"] < 2e-5


def test_a_record_of_another_seed_is_noticed():
    module = recorded()
    record = module.load()
    record["head"] = record["head"] * (1 + 1e-6)
    assert module.replay(record, np.array([300]))["head"] > 1e-7


# -- bad input --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "call, word",
    [
        (lambda: bifurcation.rate(0.9, 3), "overshoot"),
        (lambda: bifurcation.overshoot(0.5, 3), "q"),
        (lambda: bifurcation.rate(1.1, 1), "depth"),
        (lambda: bifurcation.landmarks(1), "depth"),
        (lambda: bifurcation.cascade(2, 0), "doublings"),
        (lambda: bifurcation.feigenbaum([1.0, 2.0]), "rates"),
        (lambda: bifurcation.scan(2, [-1.0]), "q"),
        (lambda: bifurcation.scan(2, [2.0], keep=10, steps=5), "keep"),
        (lambda: bifurcation.scan(2, [2.0], start=-0.5), "start"),
        (lambda: bifurcation.pair_exponent(3, [2.0], 1.5), "ratio"),
        (lambda: bifurcation.pair_exponent(3, [6.0], 0.5), "q"),
        (lambda: bifurcation.period(np.zeros((2, 3))), "orbits"),
        (lambda: bifurcation.period(np.zeros((2, 40), complex)), "orbits"),
        (lambda: bifurcation.period(np.zeros((2, 40)), tolerance=np.nan), "tolerance"),
        (lambda: bifurcation.period(np.zeros((2, 40)), tolerance=-1), "tolerance"),
        (lambda: bifurcation.rate(np.nan, 3), "overshoot"),
        (lambda: bifurcation.rate("a", 3), "overshoot"),
        (lambda: bifurcation.rate(mpmath.mpf("nan"), 3), "overshoot"),
        (lambda: bifurcation.critical_orbit(np.inf, 3, 2), "overshoot"),
        (lambda: bifurcation.critical_orbit(1e100, 3, 9), "overshoot"),
        (lambda: bifurcation.critical_orbit(np.array([1.2, 1e100]), 3, 9), "overshoot"),
        (lambda: bifurcation.critical_orbit(sp.I, 3, 2), "overshoot"),
        (lambda: bifurcation.superstable(2, 2, np.nan), "near"),
        (lambda: bifurcation.superstable(1, 2, 1.4), "depth"),
        (lambda: bifurcation.cascade(2, 2, digits=1), "digits"),
        (lambda: bifurcation.feigenbaum([1.0, np.nan, 3.0]), "rates"),
        (lambda: bifurcation.feigenbaum([1.0, 1.0, 3.0]), "rates"),
        (lambda: bifurcation.feigenbaum(None), "rates"),
        (lambda: bifurcation.accumulation([1.0, 2.0, 4.0]), "rates"),
        (lambda: bifurcation.accumulation([1.0, 2.0]), "rates"),
        (lambda: bifurcation.pair_step([np.nan], [2.0], 0.5, 3), "u"),
        (lambda: bifurcation.pair_step([1.0], [np.inf], 0.5, 3), "q"),
        (lambda: bifurcation.pair_step([1.0, 1.1], [2.0] * 3, 0.5, 3), "u, q"),
        (lambda: bifurcation.pair_step([1.0], [2.0], np.nan, 3), "ratio"),
        (lambda: bifurcation.pair_exponent(3, [2.0], 0.5, steps=0), "steps"),
        (lambda: bifurcation.pair_exponent(3, [2.0], 0.5, steps=-3), "steps"),
        (lambda: bifurcation.pair_exponent(3, [2.0], 0.5, transient=-50), "transient"),
        (lambda: bifurcation.pair_limit(3, np.nan, [1.0]), "q"),
        (lambda: bifurcation.pair_limit(3, 2.1, [1.0, np.nan]), "orbit"),
        (lambda: bifurcation.pair_limit(3, 1.0, [1.0]), "orbit"),
        (lambda: bifurcation.scan(2, [2.0], start=np.nan), "start"),
        (lambda: bifurcation.network_scan(ONE, np.eye(1), [0.5], 9, 1, basis=(ONE[0] * np.nan, ONE[0])), "basis"),
        (lambda: bifurcation.network_scan(ONE, np.eye(1), [0.5], 9, 1, basis=(2 * ONE[0], ONE[0])), "basis"),
        (lambda: bifurcation.network_scan(ONE, np.eye(1), [0.5], 9, 1, basis=7), "basis"),
        (lambda: bifurcation.network_scan(ONE, np.eye(2), [0.5], 9, 1), "M"),
    ],
)
def test_bad_input_names_the_argument(call, word):
    with pytest.raises(ValueError, match=word):
        call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: bifurcation.critical_orbit(50.0, 4, 30),
            "^overshoot, depth: got 50.0, 4, whose orbit overflows at step",
        ),
        (lambda: bifurcation.critical_orbit(np.array([1.5, 50.0]), 4, 30), "^overshoot, depth: got"),
        (lambda: bifurcation.critical_orbit(1.5, 2, 0), "^steps: got 0, needs an integer >= 1"),
        (lambda: bifurcation.critical_orbit(np.array([1.5, 1.7e308]), 3, 1), "^overshoot, depth: got .* at step 1$"),
        (lambda: bifurcation.rate(0.9, 2), "^overshoot: got 0.9"),
        (lambda: bifurcation.rate(np.nan, 2), "^overshoot: got .*, needs finite real numbers >= 1$"),
        (lambda: bifurcation.rate("a", 2), "^overshoot: got 'a', needs finite real numbers >= 1$"),
        (lambda: bifurcation.rate(sp.Symbol("x", real=True), 2), "^overshoot: got x, needs finite real numbers >= 1$"),
        (lambda: bifurcation.overshoot(-1.0, 2), "^q: got -1.0, needs at least 1, where"),
        (lambda: bifurcation.rate(1.5, 1), "^depth: got 1, needs an integer >= 2"),
        (lambda: bifurcation.superstable(2, 2, near=0.5), "^near: got 0.5, needs at least 1"),
        (lambda: bifurcation.superstable(2, 0, near=1.5), "^period: got 0, needs an integer >= 1"),
        (
            lambda: bifurcation.superstable(2, 2, near=1.5, digits=14),
            "^digits: got 14, needs an integer from 15 to 10000",
        ),
        (lambda: bifurcation.scan(2, [[2.1]]), r"^q: got shape \(1, 1\), needs one number or a list"),
        (lambda: bifurcation.scan(2, [2.1], steps=2), "^steps: got 2, needs an integer >= 3"),
        (lambda: bifurcation.scan(2, [2.1], steps=10, keep=11), "^keep, start: got 11"),
        (lambda: bifurcation.scan(2, [2.1], keep=0), "^keep: got 0, needs an integer >= 1$"),
        (lambda: bifurcation.scan(2, [2.1], start=3.0), "^keep, start: got .* 0 < start < 3.0"),
        (lambda: bifurcation.scan(2, [2.1], start=0.0), "^start: got 0.0"),
        (lambda: bifurcation.scan(1, [2.1]), "^depth: got 1, needs an integer from 2 to 10000"),
        (lambda: bifurcation.period([["a"]]), "^orbits: got .* needs real numbers"),
        (lambda: bifurcation.period([[1.0], [1.0, 2.0]]), "^orbits: got .* needs real numbers"),
        (lambda: bifurcation.period(np.ones(32)), r"^orbits: got shape \(32,\)"),
        (lambda: bifurcation.period(np.ones((1, 31))), r"^orbits: got shape \(1, 31\), .* = 32"),
        (lambda: bifurcation.period(np.ones((1, 32)), tolerance=[1e-6]), "^tolerance: got"),
        (lambda: bifurcation.period(np.ones((1, 32)), tolerance=0.0), "^tolerance: got 0.0"),
        (lambda: bifurcation.period(np.ones((1, 32)), longest=0), "^longest: got 0, needs an integer >= 1"),
        (lambda: bifurcation.pair_limit(2, 2.5, [3.1]), "^orbit: got .* at most 3.0"),
        (lambda: bifurcation.pair_limit(2, 2.5, [1.0, 3.1]), "^orbit: got .* at most 3.0"),
        (lambda: bifurcation.pair_limit(2, 0.1, [3.0]), "^orbit: got .*, which at q = 0.1 no ratio"),
        (lambda: bifurcation.pair_limit(330, 2.5, [3.0]), "^q, orbit: got .*, needs numbers whose result is within"),
        # survives up to the ratio 1, between the last that is tried and its mirror image
        (lambda: bifurcation.pair_limit(2, 2 + 1e-6, [1.0]), "^orbit: got .*, which at q = 2.000001 no ratio"),
        (lambda: bifurcation.pair_limit(2, 2.5, [[1.0]]), r"^orbit: got shape \(1, 1\), needs a row"),
        (lambda: bifurcation.pair_limit(2, 2.5, []), r"^orbit: got shape \(0,\), needs a row"),
        (lambda: bifurcation.pair_limit(2, 0.0, [1.0]), "^q: got 0.0"),
        (lambda: bifurcation.pair_limit(1, 2.5, [1.0]), "^depth: got 1, needs an integer from 2 to 1000"),
    ],
)
def test_refusals_name_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_periods_by_hand():
    swing = np.resize([0.0, 1.0], 32)
    orbits = [1 + 2e-6 * swing, 1 + 5e-7 * swing, np.resize(np.arange(1.0, 17), 32), np.resize([1, 2, 1, 2.001], 32)]
    assert bifurcation.period(np.array(orbits)).tolist() == [2, 1, 16, 4]  # relative to the size, 1e-6
    assert bifurcation.period(1e9 * np.array(orbits)).tolist() == [2, 1, 16, 4]
    assert bifurcation.period(np.array(orbits), tolerance=1e-3, longest=2).tolist() == [1, 1, 0, 2]
    # a swing of 5e-4 on top of a cycle from 1 to 1000: a millionth of the largest value, not of the least
    assert bifurcation.period(np.resize([1.0, 1000.0, 1.0, 1000.0005], (1, 32)), longest=4).tolist() == [2]
    # "at most": nothing moves at zero, and a drift of a thousandth of the swing
    assert bifurcation.period(np.zeros((1, 32))).tolist() == [1]
    assert bifurcation.period([[0.0, 1.0, 0.001, 1.0]], longest=2, tolerance=0.01).tolist() == [2]
    bad = np.ones((2, 32))
    bad[0, 5] = np.inf
    assert bifurcation.period(bad).tolist() == [0, 1] and bifurcation.period(np.ones((1, 32), int)).tolist() == [1]
    assert bifurcation.period((1 + 1e-7 * np.arange(32))[None]).tolist() == [1]
    # one more than the longest is not looked for; half of a cycle at rest while the other half creeps is no cycle
    assert bifurcation.period(np.resize([1.0, 2.0, 3.0], (1, 32)), longest=2).tolist() == [0]
    half = np.resize([1.0, 1.01], 64)
    assert bifurcation.period(half[None]).tolist() == [2]
    for first in (0, 1):
        creeping = half.copy()
        creeping[first::2] += 9e-7 * np.arange(32)  # 9e-7 a turn, below the tolerance, and 2.8e-5 in all, above 1e-5
        assert bifurcation.period(creeping[None]).tolist() == [0]


# -- narrow and wide floats -------------------------------------------------------------------------------------------
def test_narrow_floats_are_computed_as_floats():
    """What is made of an array in float16 or float32 is what is made of the same numbers in float64."""
    for dtype in (np.float16, np.float32):
        q, u = np.array([2.2, 2.7], dtype), np.array([0.83, 1.1], dtype)
        wide = q.astype(float)
        assert np.array_equal(bifurcation.rate(q, 3), bifurcation.rate(wide, 3))
        assert np.array_equal(bifurcation.critical_orbit(q, 3, 2), bifurcation.critical_orbit(wide, 3, 2))
        mine, other = (bifurcation.scan(3, x, steps=30, keep=2) for x in (q, wide))
        assert mine.q.dtype == float and np.array_equal(mine.orbits, other.orbits)
        assert np.array_equal(bifurcation.pair_step(u, q, 0.6, 3), bifurcation.pair_step(u.astype(float), wide, 0.6, 3))
        exponents = [bifurcation.pair_exponent(3, x, 0.6, steps=20, transient=0) for x in (q, wide)]
        assert np.array_equal(*exponents)
    for dtype in (np.float16, np.longdouble):
        assert bifurcation.pair_limit(2, 2.5, np.ones(1, dtype)) == bifurcation.pair_limit(2, 2.5, [1.0])
    # a rate of 6e-8, the least of float16, is zero there when it is divided by four layers; here it moves a rotation
    assert np.all(np.diagonal(bifurcation.pair_step([1.0], np.float16([6e-8]), 0.5, 4)[0, 0]) < 1)


@pytest.mark.parametrize("huge", [1.7e308, np.array([1.5, 1.7e308])])
def test_an_overshoot_whose_rate_overflows_is_refused(huge):
    with pytest.raises(ValueError, match="^overshoot: got .*, needs numbers whose result is within the floating range"):
        bifurcation.rate(huge, 3)
    assert bifurcation.rate(mpmath.mpf("1e400"), 2) > mpmath.mpf("2.9e400")  # 3 r - 2


def test_what_a_wider_or_narrower_dtype_loses_is_refused():
    with pytest.raises(ValueError, match="^learning_rates: got .*, which is zero in float32, the dtype of the run"):
        bifurcation.network_scan(ONE.astype(np.float32), np.eye(1, dtype=np.float32), [0.5, 1e-60], 9, 1)
    if np.finfo(np.longdouble).max == np.finfo(float).max:
        return
    tiny, huge = np.longdouble("1e-4000"), np.longdouble("1e4000")
    for call, words in (
        (lambda: bifurcation.rate(huge, 2), "^overshoot: got .*, which is infinite in float64"),
        (lambda: bifurcation.overshoot(huge, 2), "^q: got .*, which is infinite in float64"),
        (lambda: bifurcation.scan(2, [tiny]), "^q: got .*, which is zero in float64"),
        (lambda: bifurcation.pair_step([tiny], [2.0], 0.5, 2), "^u: got .*, which is zero in float64"),
        (lambda: bifurcation.pair_step([1.0], [tiny], 0.5, 2), "^q: got .*, which is zero in float64"),
        (lambda: bifurcation.pair_step([1.0], [2.0], tiny, 2), "^ratio: got .*, which is zero in float64"),
        (lambda: bifurcation.pair_exponent(2, [tiny], 0.5), "^q: got .*, which is zero in float64"),
        (lambda: bifurcation.pair_limit(2, 2.5, [tiny]), "^orbit: got .*, which is zero in float64"),
        (lambda: bifurcation.feigenbaum([tiny, 1.0, 1.5]), "^rates: got .*, which is zero in float64"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    assert bifurcation.period(tiny * np.resize([1.0, 2.0], (1, 32))).tolist() == [2]


# -- scans against plain loops ----------------------------------------------------------------------------------------
def loop(depth, q, start, steps):
    """States 0 to `steps` of one orbit, and at the states before each step the slope and 2 minus the growth factor."""
    states, slopes, others = [start], [], []
    for _ in range(steps):
        u = states[-1]
        growth = 1 + q / depth * (1 - u**depth) * u ** (depth - 2)
        slopes.append(1 + q / depth * ((depth - 1) * u ** (depth - 2) - (2 * depth - 1) * u ** (2 * depth - 2)))
        others.append(2 - growth)
        states.append(growth * u)
    return np.array(states), np.array(slopes), np.array(others)


@pytest.mark.parametrize("depth", (2, 3, 4))
@pytest.mark.parametrize(("steps", "keep"), [(3, 1), (3, 3), (8, 2), (9, 9)])
def test_a_scan_is_its_loop(depth, steps, keep):
    q = [0.8, 1.3, 2.7]
    found = bifurcation.scan(depth, q, steps=steps, keep=keep, start=0.6)
    assert found.q.tolist() == q and found.orbits.shape == (3, keep) and found.fate.tolist() == ["bounded"] * 3
    for i in range(3):
        states, slopes, others = loop(depth, q[i], 0.6, steps)
        np.testing.assert_allclose(found.orbits[i], states[-keep:], rtol=1e-12)  # ten steps of some roundings each
        counted = slice(steps // 3, None)
        assert found.lyapunov[i] == pytest.approx(np.log(np.abs(slopes[counted])).mean(), rel=1e-11, abs=1e-12)
        assert found.balance[i] == pytest.approx(np.log(np.abs(others[counted])).mean(), rel=1e-11, abs=1e-12)
    default = bifurcation.scan(depth, 1.3, steps=steps, keep=keep)
    assert np.array_equal(default.orbits, bifurcation.scan(depth, [1.3], steps=steps, keep=keep, start=0.7).orbits)


@pytest.mark.parametrize("depth", (2, 3, 5))
def test_fates_are_those_of_the_loop(depth):
    """Past three units nothing comes back; below zero, at odd depth, what shrinks towards the saddle has been captured."""
    seen, rng = set(), np.random.default_rng(depth)
    for q, start in zip(rng.uniform(3.0, 9.0, 150), rng.uniform(0.9, 2.9 if depth < 5 else 1.5, 150)):
        found = bifurcation.scan(depth, [q], steps=3, keep=3, start=start)
        with np.errstate(over="ignore", invalid="ignore"):  # past divergence the loop goes on
            u = loop(depth, q, start, 3)[0][1:]
        gone = [k for k in range(3) if abs(u[k]) > 3]
        size = abs(u[2])
        if gone:
            expected, u = "diverged", [u[k] if k < gone[0] else np.inf for k in range(3)]
            assert np.isinf(found.lyapunov[0]) and np.isinf(found.balance[0])
        elif depth % 2 and u[2] < 0 and q / depth * (1 + size**depth) * size ** (depth - 2) < 1:
            expected = "saddle"
        else:
            expected = "bounded"
        assert found.fate.tolist() == [expected]
        np.testing.assert_allclose(found.orbits[0], u, rtol=1e-10)
        seen.add((expected, bool(u[2] < 0)))
    assert {("diverged", False), ("bounded", True), ("bounded", False)} <= seen
    assert (("saddle", True) in seen) == (depth % 2 == 1)


@pytest.mark.parametrize("depth", (3, 5, 7))
def test_the_saddle_captures_from_below_just_where_the_next_state_is_below_zero_too(depth):
    """From -v the next state is -v (1 - q/L (1 + v^L) v^(L-2)); once smaller than v and below zero it stays so."""
    q = 6.5
    factor = lambda v: 1 - q / depth * (1 + v**depth) * v ** (depth - 2)
    edge = brentq(factor, 0.1, 1.5)
    assert edge**depth > 0.05  # where the two powers differ
    for v, fate in ((0.5 * edge, "saddle"), (edge * (1 - 1e-6), "saddle"), (edge * (1 + 1e-6), "bounded")):
        after = lambda start, v=v: loop(depth, q, start, 3)[0][-1] + v
        starts = np.linspace(0.7, 1.1, 401)
        ends = np.array([after(x) for x in starts])
        k = np.flatnonzero((ends[:-1] * ends[1:] < 0) & (np.abs(ends[:-1] - ends[1:]) < 0.5))[0]
        found = bifurcation.scan(depth, [q], steps=3, keep=1, start=brentq(after, *starts[k : k + 2], xtol=1e-15))
        assert found.orbits[0, 0] == pytest.approx(-v, rel=1e-9, abs=0) and found.fate.tolist() == [fate]
        states = loop(depth, q, found.orbits[0, 0], 2000)[0]
        captured = np.all(states < 0) and np.all(np.diff(states) >= 0) and states[-1] > -0.3
        assert captured == (fate == "saddle") and (states[1] > 0) == (fate == "bounded")


@pytest.mark.parametrize("depth", (1000, 1001))
def test_a_deep_network_whose_powers_overflow_has_diverged(depth):
    """At 2.9 units the step is -inf, which is told without a warning."""
    found = bifurcation.scan(depth, [1.5], steps=3, keep=3, start=2.9)
    assert found.orbits.tolist() == [[np.inf] * 3] and found.fate.tolist() == ["diverged"]


def test_a_state_of_three_units_and_one_at_rest_in_the_saddle_are_bounded():
    """What is "beyond 3", and "below zero", to the last digit."""
    step = lambda u, q, depth: loop(depth, q, u, 1)[0][1]
    assert step(0.5, 40 / 3, 2) == 3.0
    found = bifurcation.scan(2, [40 / 3], steps=3, keep=3, start=0.5)
    assert found.orbits.tolist() == [[3.0, np.inf, np.inf]] and found.fate.tolist() == ["diverged"]
    assert step(2.0, 3 / 14, 3) == 0.0
    found = bifurcation.scan(3, [3 / 14], steps=3, keep=3, start=2.0)
    assert found.orbits.tolist() == [[0.0, 0.0, 0.0]] and found.fate.tolist() == ["bounded"]


def test_an_exponent_at_a_flat_point_is_the_logarithm_of_the_least_slope():
    """At rest at q = 1 the slope is 1 - q = 0, whose logarithm is cut at that of 1e-300."""
    found = bifurcation.scan(2, [1.0], steps=3, keep=1, start=1.0)
    assert found.lyapunov[0] == pytest.approx(np.log(1e-300), rel=1e-14, abs=0) and found.balance[0] == 0


@pytest.mark.parametrize("depth", (2, 3))
def test_a_pair_exponent_is_its_loop(depth):
    q, ratio, steps, transient = np.array([1.4, 2.6]), 0.6, 6, 3
    x, u = np.random.default_rng(5).standard_normal((2, 2, depth, 1)), np.array([0.7, 0.7])
    logs = np.zeros((2, 2))
    for t in range(transient + steps):
        x = bifurcation.pair_step(u, q, ratio, depth) @ x
        if t == transient - 1:
            logs -= np.log(np.linalg.norm(x, axis=(2, 3)))
        u = u + q / depth * (1 - u**depth) * u ** (depth - 1)
    logs += np.log(np.linalg.norm(x, axis=(2, 3)))
    found = bifurcation.pair_exponent(depth, q, ratio, steps=steps, transient=transient, seed=5)
    np.testing.assert_allclose(found, logs.max(axis=0) / steps, rtol=1e-11)
    one = bifurcation.pair_exponent(depth, 1.4, ratio, steps=steps)  # one number, and the documented defaults
    assert np.array_equal(one, bifurcation.pair_exponent(depth, [1.4], ratio, steps=steps, transient=1000, seed=0))
    assert bifurcation.pair_exponent(depth, q, ratio, steps=1, transient=0).shape == (2,)


def test_an_orbit_that_leaves_has_no_pair_exponent():
    for q in ([1.4, 6.0], [6.0, 1.4]):  # one of two
        with pytest.raises(ValueError, match="^q: got rates at which the one-mode orbit leaves for infinity$"):
            bifurcation.pair_exponent(3, q, 0.5, steps=20)


def test_pair_limit_of_a_cycle_of_three():
    """The largest modulus of C B A over both sectors crosses one at the limit; that of A B C is the same."""
    depth, q = 3, float(bifurcation.landmarks(3).period_three_superstable)
    states = loop(depth, q, 0.7, 3000)[0][-3:]
    limit = bifurcation.pair_limit(depth, q, states)

    def sizes(ratio):
        A, B, C = np.moveaxis(bifurcation.pair_step(states, q, ratio, depth), 1, 0)  # both sectors
        return [np.abs(np.linalg.eigvals(product)).max() for product in (C @ B @ A, A @ B @ C)]

    # the multiplier is compared with 1 + 1e-6 and the ratio known to 1e-9
    assert sizes(limit)[0] == pytest.approx(1 + 1e-6, abs=1e-7)
    assert sizes(limit - 1e-4)[0] < 1 + 1e-6 < sizes(limit + 1e-4)[0]
    assert (
        sizes(limit + 0.1)[0] == pytest.approx(sizes(limit + 0.1)[1], rel=1e-10, abs=0) and sizes(limit + 0.1)[0] > 1.1
    )
    assert bifurcation.pair_limit(2, 2.5, [1.0]) == pytest.approx((2 + 1e-6) / 1.25 - 1, abs=2e-9)


def test_a_scan_of_the_network_is_its_runs():
    rng = np.random.default_rng(3)
    left, right = (np.linalg.qr(rng.standard_normal((3, 3)))[0] for _ in range(2))
    M = left @ np.diag([2.0, 1.0, 0.5]) @ right.T
    W = 0.3 * rng.standard_normal((3, 3, 3))
    rates, steps, keep = [0.05, 0.2, 9.0], 6, 2
    found = bifurcation.network_scan(W, M, rates, steps, keep)
    named = bifurcation.network_scan(W, M, rates, steps, keep, basis=(left, right))
    assert found["modes"].shape == found["singular_values"].shape == (3, 2, 3) and found["sharpness"].shape == (3, 2)
    for i, rate in enumerate(rates[:2]):
        w, states = W, []
        for _ in range(steps):
            w = w - rate * network.gradient(w, M)
            states.append(w)
        for k, w in enumerate(states[-keep:]):
            P = left.T @ network.product(w) @ right
            np.testing.assert_allclose(named["modes"][i, k], np.diag(P), rtol=1e-11)
            np.testing.assert_allclose(found["modes"][i, k], np.diag(P), rtol=1e-11)  # LAPACK's basis but for signs
            np.testing.assert_allclose(named["singular_values"][i, k], np.linalg.svd(P)[1], rtol=1e-11)
            top = np.linalg.eigvalsh(hessian.dense(w, M))[-1]
            assert named["sharpness"][i, k] == pytest.approx(top, rel=1e-6, abs=0)
        off = [abs(left.T @ network.product(w) @ right) * (1 - np.eye(3)) for w in states[-keep:]]
        assert named["rotation"][i] == pytest.approx(np.max(off), rel=1e-10, abs=0)
        assert found["rotation"][i] == pytest.approx(np.max(off), rel=1e-10, abs=0)
    assert found["diverged_at"][:2].tolist() == [-1, -1] and 0 < found["diverged_at"][2] <= steps
    assert found["rotation"].tolist()[2] == np.inf and np.isfinite(found["rotation"][:2]).all()
    for bad in ((left,), [left, right, right], left, (left, right[:1]), (left, 1.001 * right)):
        with pytest.raises(ValueError, match="^basis: got"):
            bifurcation.network_scan(W, M, rates, steps, keep, basis=bad)
    assert np.array_equal(
        bifurcation.network_scan(W, M, [0.05], steps, 1, basis=[left, right])["modes"], named["modes"][:1, 1:]
    )
    for bad in (0, None):
        with pytest.raises(ValueError, match=f"^keep: got {bad}, needs an integer >= 1$"):
            bifurcation.network_scan(W, M, rates, steps, bad)
    with pytest.raises(ValueError, match="^W: got a torch tensor, needs a NumPy array$"):
        bifurcation.network_scan(torch.tensor(W), torch.tensor(M), rates, steps, keep)
    for bad in ([], [[0.1]]):
        with pytest.raises(ValueError, match="^learning_rates: got shape"):
            bifurcation.network_scan(W, M, bad, steps, keep)


def test_the_columns_of_a_basis_are_orthogonal_to_a_millionth():
    W, M, I = np.full((2, 2, 2), 0.5), np.eye(2), np.eye(2)
    turn = np.array([[1.0, 1.0], [-1.0, 1.0]]) / 2**0.5
    longer = (np.array([[1 + 0.75e-6, 0.0], [0.0, 1.0]])) @ turn  # rows to 1.5e-6, columns to half of that
    slanted = np.array([[1.0, 1e-6], [0.0, 1.0]])  # just as much as is allowed
    for side in (longer, slanted):
        bifurcation.network_scan(W, M, [0.1], 1, 1, basis=(side, I))
        bifurcation.network_scan(W, M, [0.1], 1, 1, basis=(I, side))
    for side in (longer.T, slanted * [1.0, 2.0]):
        with pytest.raises(ValueError, match="^basis: got a matrix of shape"):
            bifurcation.network_scan(W, M, [0.1], 1, 1, basis=(I, side))


# -- numbers of SymPy and mpmath, digits, and limits ------------------------------------------------------------------
def test_exact_numbers_pass_and_are_refused_like_others():
    assert bifurcation.rate(sp.Rational(3, 2), 2) == 2.5 and bifurcation.rate(mpmath.mpf(1.5), 2) == 2.5  # 3 r - 2
    assert all(bifurcation.rate(one, 3) == 1 for one in (sp.Integer(1), mpmath.mpf(1), 1, 1.0))
    assert bifurcation.critical_orbit(sp.Rational(1, 2), 2, 1) == [sp.Rational(1, 2)]
    assert bifurcation.critical_orbit(mpmath.mpf(0.5), 2, 1) == [mpmath.mpf(0.5)]
    assert bifurcation.rate([1.5, 2.0], 2).tolist() == [2.5, 4.0]
    for bad, text in (
        (sp.Rational(1, 2), "1/2"),
        (mpmath.mpf(0.5), "0.5"),
        (0.5, "0.5"),
        ([1.5, 0.5], r"\[1.5, 0.5\]"),
    ):
        with pytest.raises(ValueError, match=f"^overshoot: got {text}, needs finite real numbers >= 1$"):
            bifurcation.rate(bad, 2)
    for bad in (sp.I, sp.oo, sp.Symbol("x"), mpmath.inf, mpmath.nan):
        with pytest.raises(ValueError, match="^overshoot: got .*, needs finite real numbers$"):
            bifurcation.critical_orbit(bad, 2, 1)
        with pytest.raises(ValueError, match="^overshoot: got .*, needs finite real numbers >= 1$"):
            bifurcation.rate(bad, 2)
    with pytest.raises(ValueError, match="^rates: got a value that is not finite, needs finite real numbers$"):
        bifurcation.feigenbaum([1.0, np.inf, 2.0])
    assert bifurcation.feigenbaum([sp.Integer(0), sp.Integer(4), sp.Integer(5)]) == [4]
    assert bifurcation.superstable(2, 2, sp.Rational(7, 5)) == bifurcation.superstable(2, 2, mpmath.mpf("1.4"))


@pytest.mark.parametrize("period", (1, 2, 5))
def test_newtons_method_has_the_derivative(period):
    for depth, r in ((2, 1.3), (3, 1.2), (6, 1.05)):
        value = lambda x, n=period, L=depth: bifurcation._return(x, L, n)[0]
        with mpmath.workdps(40):
            r = mpmath.mpf(r)
            found, expected = bifurcation._return(r, depth, period), mpmath.diff(value, r)
            assert found[0] == bifurcation.critical_orbit(r, depth, period)[-1] - 1
            assert abs(found[1] / expected - 1) < 1e-15  # a difference quotient in forty digits


def test_digits_carried():
    near = bifurcation.overshoot(float(bifurcation.cascade(3, 2)[2]), 3)
    thirty = bifurcation.superstable(3, 4, near)
    assert thirty == bifurcation.superstable(3, 4, near, digits=30) != bifurcation.superstable(3, 4, near, digits=31)
    assert thirty != bifurcation.superstable(3, 4, near, digits=29)
    assert bifurcation.cascade(3, 2) == bifurcation.cascade(3, 2, digits=30)
    for digits in (15, 29, 31, 60):
        assert bifurcation.cascade(3, 2) != bifurcation.cascade(3, 2, digits=digits)
        with mpmath.workdps(80):
            root = bifurcation.superstable(3, 2, 1.36, digits=digits)
            # Newton's method squares a last move of 10^(4 - digits); what is left is rounding
            assert abs(bifurcation._return(root, 3, 2)[0]) < mpmath.mpf(10) ** (2 - digits)
    assert bifurcation.cascade(3, 1, digits=15) == bifurcation.cascade(3, 2, digits=15)[:2]
    with mpmath.workdps(60):
        ends = bifurcation.cascade(3, 2, digits=60)
        for n, guess in ((2, 1.36), (4, near)):
            exact = bifurcation.rate(bifurcation.superstable(3, n, guess, digits=60), 3)
            assert abs(ends[n // 2] - exact) < mpmath.mpf(10) ** -57  # a few roundings
    with pytest.raises(ValueError, match="^digits: got 14, needs an integer >= 15$"):
        bifurcation.cascade(2, 2, digits=14)
    with pytest.raises(ValueError, match="^doublings: got 0, needs an integer >= 1$"):
        bifurcation.cascade(2, 0)


@pytest.mark.parametrize("depth", (3, 4, 7))
def test_a_cycle_of_smaller_period_is_recognised_in_any_digits(depth):
    two = bifurcation.overshoot(float(bifurcation.cascade(depth, 1)[1]), depth)
    for digits in (15, 30, 60):
        with pytest.raises(RuntimeError, match="^the cycle near overshoot .* has a period smaller than 4$"):
            bifurcation.superstable(depth, 4, two, digits=digits)
    assert abs(bifurcation.superstable(depth, 1, 1.1) - 1) < 1e-28  # the cycle of one step is rest: none is smaller


def test_depths_at_the_ends():
    calls = (
        lambda depth: bifurcation.rate(1.5, depth),
        lambda depth: bifurcation.overshoot(2.5, depth),
        lambda depth: bifurcation.critical_orbit(1.5, depth, 1),
        lambda depth: bifurcation.superstable(depth, 2, 1.4),
        lambda depth: bifurcation.superstable(depth, 2, 1e300),  # from there one layer leads to zero, and its inverse
        bifurcation.zero_hit,
    )
    for call in calls:
        with pytest.raises(ValueError, match="^depth: got 1, needs an integer >= 2$"):
            call(1)
    for call in (
        lambda depth: bifurcation.pair_step([1.0], [2.0], 0.5, depth),
        lambda depth: bifurcation.pair_exponent(depth, [1.5], 0.5, steps=1),
        lambda depth: bifurcation.pair_limit(depth, 2.5, [1.0]),
    ):
        for depth in (1, 1001):
            with pytest.raises(ValueError, match=f"^depth: got {depth}, needs an integer from 2 to 1000$"):
                call(depth)
    for depth in (1, 1_000_001):
        with pytest.raises(ValueError, match=f"^depth: got {depth}, needs an integer from 2 to 1000000$"):
            bifurcation.cascade(depth, 1)
    for depth in (1, 10_001):
        for call in (lambda depth: bifurcation.scan(depth, [1.5]), bifurcation.landmarks):
            with pytest.raises(ValueError, match=f"^depth: got {depth}, needs an integer from 2 to 10000$"):
                call(depth)
    assert bifurcation.scan(10_000, [1.5], steps=3, keep=1).fate.tolist() == ["bounded"]
    for count in ({"steps": 0}, {"transient": -1}, {"seed": -1}):
        name, value = next(iter(count.items()))
        with pytest.raises(ValueError, match=f"^{name}: got {value}, needs an integer >= {value + 1}$"):
            bifurcation.pair_exponent(2, [1.5], 0.5, **count)
    with pytest.raises(ValueError, match="^q: got 0.99, needs at least 1, where"):
        bifurcation.overshoot(0.99, 3)
    assert bifurcation.overshoot(1.0, 3) == 1.0


def test_ladders_of_rates():
    assert bifurcation.feigenbaum([0.0, 4.0, 5.0, 5.5]) == [4.0, 2.0]
    assert bifurcation.accumulation([0.0, 4.0, 5.0, 5.5]) == 6.0  # a half, a quarter, ...
    assert bifurcation.accumulation([3.0, 2.0, 1.5]) == 1.0 and bifurcation.accumulation(
        [0.0, 2.0, 1.0]
    ) == pytest.approx(4 / 3)
    for bad, words in (
        ([0.0, 1.0], "rates: got 2 of them, needs at least 3$"),
        ([0.0, 1.0, 1.0], "rates: got .*, needs single numbers, neighbours different$"),
        ([1.0, 1.0, 2.0], "rates: got .*, needs single numbers, neighbours different$"),
        ([0.0, [1.0, 2.0], 3.0], "rates: got .*, needs single numbers, neighbours different$"),
        (7, "rates: got 7, needs a sequence of numbers$"),
    ):
        with pytest.raises(ValueError, match="^" + words):
            bifurcation.feigenbaum(bad)
    for bad in ([0.0, 1.0, 2.0], [0.0, 1.0, 3.0], [0.0, 1.0, 0.0]):
        with pytest.raises(
            ValueError, match="^rates: got gaps that do not shrink .last ratio .*, needs a convergent cascade"
        ):
            bifurcation.accumulation(bad)


@pytest.mark.parametrize("flag", (1, 5))
def test_a_window_that_is_not_found_is_an_error(flag, monkeypatch):
    """Whatever MINPACK says, both equations are to be solved to 1e-10."""
    expected, solve = bifurcation.landmarks(2), bifurcation.fsolve

    def failing(shift):
        def found(*arguments, **options):
            x, info, _, _ = solve(*arguments, **options)
            return x + shift, info, flag, "slow progress"

        return found

    monkeypatch.setattr(bifurcation, "fsolve", failing(0.0))
    assert bifurcation.landmarks(2) == expected
    # at the birth of a cycle the slope is one: a state beside it moves by the square of its distance
    for shift in (1e-8, 0.1, np.array([1e-8, 0.0])):
        monkeypatch.setattr(bifurcation, "fsolve", failing(shift))
        with pytest.raises(RuntimeError, match="^depth 2: no cycle of period 3 with multiplier 1.0: slow progress$"):
            bifurcation.landmarks(2)


def test_ratios_inside_zero_and_one():
    for ratio in (0.0, 1.0, -0.5, 1.5, [0.5]):
        for call in (
            lambda: bifurcation.pair_step([1.0], [2.0], ratio, 2),
            lambda: bifurcation.pair_exponent(2, [1.5], ratio, steps=1),
        ):
            with pytest.raises(ValueError, match="^ratio: got .*, needs a number between 0 and 1$"):
                call()
    for q in (1.99, 5.0):  # at rest two modes survive while q (1 + ratio) < 4: all of them, and not even the smallest
        with pytest.raises(ValueError, match=f"^orbit: got .*, which at q = {q} no ratio of singular values makes"):
            bifurcation.pair_limit(2, q, [1.0])


def test_an_orbit_that_leaves_in_one_step_is_reported_without_a_warning():
    """From 0.7 to 2.9, whose powers in 400 layers are out of range."""
    with pytest.raises(ValueError, match="^q: got rates at which the one-mode orbit leaves for infinity$"):
        bifurcation.pair_exponent(400, [2.2 * 400 / 0.7**399], 0.5, steps=3, transient=0)


def test_the_documented_length_of_a_scan():
    plain, named = bifurcation.scan(2, [2.2]), bifurcation.scan(2, [2.2], steps=3000, keep=200, start=0.7)
    assert np.array_equal(plain.orbits, named.orbits) and np.array_equal(plain.lyapunov, named.lyapunov)


@pytest.mark.parametrize("rates", [[1e308, -1e308, 1e308], [1.0, 0.0, 5e-324], [9e307, 1e308, -1e308]])
def test_ratios_beyond_the_floating_range_are_refused(rates):
    with pytest.raises(ValueError, match="^rates: got .* needs numbers whose gaps and ratios are within range"):
        bifurcation.feigenbaum(rates)


def test_masked_orbits_are_refused():
    states = np.ma.masked_array(np.ones((1, 40)), np.arange(40) == 3)
    with pytest.raises(ValueError, match="^orbits: got a masked array"):
        bifurcation.period(states, longest=4)


def test_overshoot_names_the_rate_that_is_too_large():
    with pytest.raises(ValueError, match="^q: got 1.7e[+]308"):
        bifurcation.overshoot(1.7e308, 3)
    assert bifurcation.overshoot(3e299, 3) == pytest.approx(3e299 / 5 / 2.5 ** (1 / 3), rel=1e-13, abs=0)  # D/E = 5/2


def test_a_limit_beyond_the_floating_range_is_refused():
    with pytest.raises(ValueError, match="^rates: got .* needs numbers whose gaps and ratios are within range"):
        bifurcation.accumulation([0.0, 1e300 * (1 + 1e-15), 2e300])  # 1e300 / 2e-15


@pytest.mark.parametrize("depth", [2, 3, 10, 1000, 10**6])
def test_overshoot_of_rates_of_every_size(depth):
    for q in (1.0, 1.0 + 1e-6, 2.0, 1e10, 1e150, 9e299 / depth):
        r = mpmath.mpf(bifurcation.overshoot(q, depth))
        D, E = (2 * depth - 1) * r - 2 * (depth - 1), (depth - 1) * r - (depth - 2)
        # r is known to some of its roundings, and dq/q is at most 2 L dr/r
        assert D * (D / E) ** (1 - mpmath.mpf(2) / depth) == pytest.approx(q, rel=2e-14 + 4e-15 * depth, abs=0)
    with pytest.raises(ValueError, match=f"^q: got .* at depth {depth}, needs at most 1e300 / depth"):
        bifurcation.overshoot(1.1e300 / depth, depth)


@pytest.mark.parametrize("depth", [1, 0, 2.0, True])
def test_overshoot_names_a_wrong_depth(depth):
    with pytest.raises(ValueError, match="^depth: got"):
        bifurcation.overshoot(2.0, depth)
