"""Two landscapes over the plane against finite differences, other code for descent, and what they should refuse."""

import warnings

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from eoslib import landscape, scalar

PLACES = st.tuples(st.floats(-9, 9), st.floats(-9, 9))


def differences(f, point, h=1e-5):
    """Central differences of f at a point, one row per direction."""
    return np.array([(f(point + h * e) - f(point - h * e)) / (2 * h) for e in np.eye(2)])


@pytest.mark.parametrize("usual", [False, True])
@settings(derandomize=True, deadline=None, max_examples=60)
@given(place=PLACES)
def test_derivatives_of_the_table_are_finite_differences(usual, place):
    point = np.array(place)
    r = np.hypot(*point)
    # away from the kinks: ridges, the origin, and the circle r = pi of the usual table
    assume(abs(np.sin(place[0])) > 1e-3 and abs(np.cos(place[1])) > 1e-3 and r > 0.3 and abs(r - np.pi) > 1e-3)
    g = landscape.holder_gradient(point, usual=usual)
    H = landscape.holder_hessian(point, usual=usual)
    # h^2 = 1e-10 times third derivatives, and 1e-16 / h of rounding; values up to e^3
    assert_allclose(differences(lambda p: landscape.holder(p, usual=usual), point), g, atol=1e-7)
    assert_allclose(differences(lambda p: landscape.holder_gradient(p, usual=usual), point), H, atol=1e-6)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(place=st.tuples(st.floats(-1.5, 1.5), st.floats(-1.5, 1.5)), depth=st.integers(2, 6), m=st.floats(0.2, 2))
def test_derivatives_of_the_scalar_network_are_finite_differences(place, depth, m):
    point, more = np.array(place), {"targets": (m, 1.0), "depth": depth}
    g, H = (f(point, **more) for f in (landscape.scalar_network_gradient, landscape.scalar_network_hessian))
    # relative to 1.5^10 = 58 times powers of the depth
    assert_allclose(differences(lambda p: landscape.scalar_network(p, **more), point), g, rtol=1e-6, atol=1e-5)
    assert_allclose(differences(lambda p: landscape.scalar_network_gradient(p, **more), point), H, rtol=1e-6, atol=1e-5)


def test_both_tables_have_the_symmetries_of_their_formula():
    points = np.random.default_rng(0).uniform(-9, 9, (50, 2))
    for usual in (False, True):
        value = landscape.holder(points, usual=usual)
        for sign in ((-1, 1), (1, -1), (-1, -1)):
            assert np.array_equal(landscape.holder(points * sign, usual=usual), value)
            g = landscape.holder_gradient(points * sign, usual=usual)
            assert_allclose(g, landscape.holder_gradient(points, usual=usual) * sign, atol=1e-14)


@pytest.mark.parametrize("usual", [False, True])
def test_minimum_of_a_cell_is_its_lowest_point_on_a_fine_grid(usual):
    for where in ([0, 0], [-1, 0], [0, -1], [1, 1], [2, 3], [-4, -2]):
        point = landscape.cell_minimum(where, usual=usual)
        assert landscape.cell(point).tolist() == where
        edges = np.linspace(1e-3, np.pi - 1e-3, 400)
        x, y = np.pi * where[0] + edges, np.pi * (where[1] - 0.5) + edges
        values = landscape.holder(np.stack(np.meshgrid(x, y), -1), usual=usual)
        lowest = np.unravel_index(values.argmin(), values.shape)
        # the grid's spacing is 0.008
        assert abs(x[lowest[1]] - point[0]) < 0.008 and abs(y[lowest[0]] - point[1]) < 0.008


def test_cells_change_exactly_where_the_table_vanishes():
    for place in ([0.0, 0.4], [np.pi, -1.0], [1.0, np.pi / 2], [2.0, -3 * np.pi / 2]):
        low, high = np.array(place) - 1e-9, np.array(place) + 1e-9
        assert (landscape.cell(low) != landscape.cell(high)).any()
        assert abs(landscape.holder(place)) < 1e-12


def test_descent_on_the_scalar_network_is_the_one_mode_map():
    rates = np.linspace(0.02, 0.05, 7)
    run = landscape.descend(landscape.scalar_network_gradient, [[0.7, 1.1], [1.0, 0.6]], rates)
    for i, start in enumerate(run.points[:, 0]):
        for j, target in enumerate((0.8, 1.0)):
            s = start[j]
            for k, rate in enumerate(rates):
                s = scalar.step(s, target, 4, 8 * rate)
                assert abs(s - run.points[i, k + 1, j]) < 1e-14 * 10  # the same sums in another order
    assert run.points.shape == (2, 8, 2) and not run.diverged.any()


def test_a_run_that_leaves_is_stopped_and_said_to_have_diverged():
    run = landscape.descend(lambda p: -p, [[1.0, 0.0], [0.0, 0.0]], np.ones(60), limit=50.0)
    assert run.diverged.tolist() == [True, False]
    assert np.abs(run.points).max() <= 50 and np.isfinite(run.points).all()
    broken = landscape.descend(lambda p: np.full_like(p, np.nan), [[1.0, 1.0]], np.ones(2))
    assert broken.diverged.all() and (broken.points == 1).all()


def test_share_of_a_step_along_negative_curvature():
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    for values in ([-2, -1, 0, 1, 3], [1, 2, 3, 4, 5], [-5, -4, -3, -2, -1]):
        parts = rng.standard_normal(5)
        share = landscape.downward_share(turn @ parts, turn @ np.diag(values).astype(float) @ turn.T)
        if values[0] != -2:
            assert abs(share - (values[0] < 0)) < 1e-14
        else:  # the eigenvalue 0 counts on neither side but by rounding
            wanted = (parts[:2] ** 2).sum() / (parts**2).sum()
            zero = parts[2] ** 2 / (parts**2).sum()
            assert min(abs(share - wanted), abs(share - wanted - zero)) < 1e-13
    assert np.isnan(landscape.downward_share(np.zeros(2), np.eye(2)))


@pytest.mark.parametrize("depth", [2, 3, 4, 6])
def test_chord_of_a_two_cycle_has_curvature_two_over_the_rate(depth):
    m, rate = 1.7, 2.3 / scalar.sharpness_at_minimum(1.7, depth)
    cycle = scalar.two_cycle(m, depth, rate)

    def along(p):  # second derivative of (s^L - m)^2 / (2L), whose descent the one-mode map is
        return ((1 - scalar.slope(p, m, depth, rate)) / rate)[..., None]

    H = landscape.chord_hessian(along, np.array([cycle.low]), np.array([cycle.high]))
    assert abs(H[0, 0] * rate - 2) < 1e-12  # Gauss's rule is exact; the cycle is known to rounding
    other = landscape.chord_hessian(along, np.array([cycle.low]), np.array([0.99 * cycle.high]))
    assert abs(other[0, 0] * rate - 2) > 1e-3


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: landscape.holder([1.0]), "points"),
        (lambda: landscape.holder([np.nan, 1.0]), "points"),
        (lambda: landscape.holder_gradient("x"), "points"),
        (lambda: landscape.cell_minimum([0.5, 0.0]), "cells"),
        (lambda: landscape.cell_minimum([[0, 0, 0]]), "cells"),
        (lambda: landscape.scalar_network([1.0, 1.0], targets=(1.0,)), "targets"),
        (lambda: landscape.scalar_network([1.0, 1.0], targets=(1.0, -1.0)), "targets"),
        (lambda: landscape.scalar_network_hessian([1.0, 1.0], depth=1), "depth"),
        (lambda: landscape.descend(lambda p: p, [1.0, 1.0, 1.0], [0.1]), "start"),
        (lambda: landscape.descend(lambda p: p, [1.0, 1.0], 0.1), "rates"),
        (lambda: landscape.descend(lambda p: p, [1.0, 1.0], [0.0]), "rates"),
        (lambda: landscape.descend(lambda p: p, [1.0, 1.0], [0.1], limit=0), "limit"),
        (lambda: landscape.downward_share([1.0, 2.0], np.eye(3)), "hessians"),
        (lambda: landscape.chord_hessian(lambda p: p, [1.0], [1.0, 2.0]), "two"),
        (lambda: landscape.chord_hessian(lambda p: p, [1.0], [2.0], nodes=0), "nodes"),
    ],
)
def test_bad_input_is_refused_by_name(call, name):
    with pytest.raises(ValueError, match=f"^{name}: got "):
        call()


def test_the_table_in_numbers_worked_out_by_hand():
    e = np.exp(1)
    points = np.array([[np.pi / 2, 0.0], [-np.pi / 2, 0.0], [0.0, 1.0], [1.5 * np.pi, 0.0], [np.pi / 2, np.pi]])
    far = np.sqrt(np.pi**2 / 4 + np.pi**2) / np.pi
    assert_allclose(landscape.holder(points), [-(e**0.5), -(e**0.5), 0, -(e**-0.5), -np.exp(1 - far)], rtol=1e-14)
    assert_allclose(
        landscape.holder(points, usual=True), [-(e**0.5), -(e**0.5), 0, -(e**0.5), -np.exp(far - 1)], rtol=1e-14
    )
    assert_allclose(landscape.holder_gradient([np.pi / 2, 0.0]), [e**0.5 / np.pi, 0], atol=1e-15)  # -(1)' e^(1 - r/pi)
    assert_allclose(landscape.holder_gradient([1.5 * np.pi, 0.0], usual=True), [-(e**0.5) / np.pi, 0], atol=1e-14)
    near = np.sqrt(np.pi**2 - 0.25) * (1 + np.finfo(float).eps * np.arange(-4, 5))
    circle = np.array([0.5, next(y for y in near if np.hypot(0.5, y) == np.pi)])
    for function in (landscape.holder_gradient, landscape.holder_hessian):
        assert np.array_equal(function(circle, usual=True), function(circle))
    ridge = landscape.holder_hessian([0.0, 1.0])  # f = -x cos(y) e^(1 - r/pi) on the side x >= 0
    inner = np.exp(1 - 1 / np.pi)
    assert_allclose(ridge, [[0, inner * (np.cos(1) / np.pi + np.sin(1))], [inner * (np.cos(1) / np.pi + np.sin(1)), 0]])
    # on the circle r = pi the printed side is taken; on a ridge the side of sin >= 0
    assert (
        landscape.holder_gradient([0.0, np.pi], usual=True)[0]
        == landscape.holder_gradient([0.0, np.pi])[0]
        == pytest.approx(1.0)
    )
    assert (
        np.isnan(landscape.holder_gradient([0.0, 0.0])).all() and np.isnan(landscape.holder_hessian([0.0, 0.0])).any()
    )
    assert landscape.holder(np.zeros((2, 3, 2))).shape == (2, 3) and landscape.holder_hessian(
        np.ones((2, 3, 2))
    ).shape == (2, 3, 2, 2)
    far = [5.0, 4.0]  # where the two tables differ; the printed one unless asked for
    for function in (landscape.holder, landscape.holder_gradient, landscape.holder_hessian):
        assert np.array_equal(function(far), function(far, usual=False)) and not np.allclose(
            function(far), function(far, usual=True)
        )
    H = landscape.holder_hessian(np.random.default_rng(0).uniform(-9, 9, (50, 2)))
    assert np.array_equal(H, np.swapaxes(H, -1, -2))


def test_cells_by_hand():
    pi = np.pi
    assert landscape.cell([[0.1, 0.0], [-0.1, 0.0], [pi + 0.1, pi / 2 + 0.1], [0.1, -pi / 2 - 0.1]]).tolist() == [
        [0, 0], [-1, 0], [1, 1], [0, -1],
    ]  # fmt: skip
    assert landscape.cell_minimum(np.zeros((0, 2), int)).shape == (0, 2)
    many = landscape.cell_minimum(np.array([[[0, 0], [-1, 0]], [[1, 1], [2, 3]]], np.int8), usual=True)
    assert many.shape == (2, 2, 2) and np.array_equal(landscape.cell(many), [[[0, 0], [-1, 0]], [[1, 1], [2, 3]]])
    assert_allclose(landscape.holder_gradient(many, usual=True), 0, atol=1e-12)
    assert_allclose(landscape.cell_minimum([0, 0]), [np.arctan(np.pi), 0], atol=1e-14)  # not the usual one unless asked
    assert landscape.cell_minimum([[2, 3]])[0] != pytest.approx(landscape.cell_minimum([[2, 3]], usual=True)[0])


def test_a_cell_whose_minimum_is_not_found_is_named(monkeypatch):
    monkeypatch.setattr(landscape, "NEWTON_STEPS", 1)
    with pytest.raises(
        ValueError, match=r"^cells: got \[\[2, 3\], \[1, 1\]\], needs cells with a smooth minimum inside"
    ):
        landscape.cell_minimum([[2, 3], [1, 1]])


def test_a_point_at_rest_that_is_no_minimum_of_its_cell_is_refused(monkeypatch):
    monkeypatch.setattr(landscape, "holder_gradient", lambda p, usual: np.zeros_like(p))
    monkeypatch.setattr(landscape, "holder_hessian", lambda p, usual: np.diag([-1.0, 1.0]))
    with pytest.raises(ValueError, match="needs cells with a smooth minimum inside"):  # a saddle
        landscape.cell_minimum([0, 0])
    monkeypatch.setattr(landscape, "holder_hessian", lambda p, usual: np.eye(2))
    assert landscape.cell_minimum([0, 0]).tolist() == [np.pi / 2, 0.0]
    for other in ([0, 1], [1, 0]):
        monkeypatch.setattr(landscape, "cell", lambda p: np.array(other))
        with pytest.raises(ValueError, match="needs cells with a smooth minimum inside"):  # in another cell
            landscape.cell_minimum([0, 0])


@pytest.mark.parametrize("broken", ["holder_gradient", "holder_hessian", "cell"])
def test_of_several_cells_only_those_without_a_minimum_are_named(monkeypatch, broken):
    """Each of the three conditions fails for one cell of a batch, in one component."""
    cells, good = [[0, 0], [1, 1], [2, 3]], getattr(landscape, broken)

    def bad(points, **options):
        value, there = good(points, **options), good(points, **options)
        there[1] = {"holder_gradient": [0.0, 1e-6], "holder_hessian": np.diag([-0.5, 1.0]), "cell": [1, 0]}[broken]
        return np.where(np.arange(3).reshape((3,) + (1,) * (value.ndim - 1)) == 1, there, value)

    landscape.cell_minimum(cells)
    monkeypatch.setattr(landscape, broken, bad)
    with pytest.raises(ValueError, match=r"^cells: got \[\[1, 1\]\], needs"):
        landscape.cell_minimum(cells)


@pytest.mark.parametrize("usual", [False, True])
def test_far_cells_have_their_minimum_at_the_tables_own_scale(usual):
    """The table is up to 1e244 deep there, or 1e-244: Newton's method from the middle leaves a relative gradient of rounding."""
    cells = np.array([[40, 3], [-33, 33], [0, -45], [400, -400]])
    point = landscape.cell_minimum(cells, usual=usual)
    assert np.array_equal(landscape.cell(point), cells)
    pair = np.pi * (
        cells + np.array([0.5, 0.0])
    )  # -log|f| = -log|sin x| - log|cos y| -+ (1 - r / pi): solved by bisection
    slope = lambda p, i: (1 if usual else -1) * p[i] / np.hypot(*p) / np.pi
    for p, middle in zip(point, pair):
        # cot x = -slope and tan y = slope, at offsets from the middle of the cell
        assert_allclose(np.tan(p - middle), [slope(p, 0), slope(p, 1)], atol=1e-12)


def test_near_the_origin_the_hessian_is_in_range():
    """There f = -e|x| up to r, whose slope along the exponent bends: f_xy = -(e/pi) y^3 / r^3 and so on, at every scale."""
    for size in (1e-5, 1e-120, 1e-300):
        x, y, r = 0.6 * size, 0.8 * size, size
        with np.errstate(all="raise", under="ignore"):
            H = landscape.holder_hessian([x, y])
        c, s = x / r, y / r  # -e x (1 - r/pi): second derivatives of x r are (3 c - c^3, s^3; s^3, c s^2 ... )
        wanted = np.e / np.pi * np.array([[3 * c - c**3, s**3], [s**3, c**3]])
        assert_allclose(H, wanted, atol=10 * size + 1e-14)


def test_the_scalar_network_by_hand():
    assert landscape.scalar_network([1.0, 1.0]) == pytest.approx(0.04) and landscape.scalar_network(
        [0.0, 0.0]
    ) == pytest.approx(1.64)
    assert_allclose(landscape.scalar_network_gradient([1.0, 2.0]), [8 * 0.2, 8 * 15 * 8])
    assert_allclose(landscape.scalar_network_hessian([1.0, 2.0]), np.diag([8 * (7 - 2.4), 8 * 4 * (7 * 16 - 3)]))
    assert landscape.scalar_network([[3.0, 1.0]], targets=(8.0, 2.0), depth=2).tolist() == [2.0]
    assert_allclose(landscape.scalar_network_gradient([3.0, 1.0], targets=(8.0, 2.0), depth=2), [12.0, -4.0])
    assert_allclose(
        landscape.scalar_network_hessian([[3.0, 1.0]], targets=(8.0, 2.0), depth=2),
        [np.diag([4 * (27 - 8), 4 * (3 - 2)])],
    )


def test_the_square_belongs_to_the_plane():
    away = lambda p: -p  # a step of 1 doubles
    run = landscape.descend(away, [[25.0, 0.0], [0.0, -25.1], [25.0, 25.0]], [1.0, 1.0], limit=100.0)
    assert run.diverged.tolist() == [False, True, False] and run.points[:, -1].tolist() == [
        [100.0, 0.0],
        [0.0, -50.2],
        [100.0, 100.0],
    ]
    assert landscape.descend(away, [500.0, 0.0], [1.0]).points[-1].tolist() == [
        1000.0,
        0.0,
    ]  # up to 1000 unless told otherwise
    gone = landscape.descend(away, [500.1, 0.0], [1.0, 1.0])
    assert gone.diverged and gone.points[:, 0].tolist() == [500.1] * 3
    back = landscape.descend(
        lambda p: np.where(p > 4, 1000.0, -p), [3.0, 0.0], [1.0, 0.001, 1.0], limit=5.0
    )  # it stays where it was
    assert back.diverged and back.points[:, 0].tolist() == [3.0] * 4 or back.points[1, 0] == 3.0
    whole = landscape.descend(lambda p: p, [4, 2], [0.5])  # whole numbers
    assert (
        whole.points.tolist() == [[4.0, 2.0], [2.0, 1.0]]
        and whole.rates.tolist() == [0.5]
        and whole.points.shape == (2, 2)
    )


def test_without_a_step_a_run_is_its_start():
    run = landscape.descend(lambda p: p, np.ones((3, 4, 2)), [])
    assert run.points.shape == (3, 4, 1, 2) and run.diverged.shape == (3, 4) and not run.diverged.any()


def test_shares_of_a_batch_are_those_one_by_one():
    rng = np.random.default_rng(4)
    g, A = rng.standard_normal((5, 3)), rng.standard_normal((5, 3, 3))
    H = A + np.swapaxes(A, -1, -2)
    together = landscape.downward_share(g, H)
    for share, vector, matrix in zip(together, g, H):
        values, vectors = np.linalg.eigh(matrix)
        parts = [np.dot(vectors[:, i], vector) ** 2 for i in range(3) if values[i] < 0]
        assert share == pytest.approx(sum(parts) / np.dot(vector, vector), abs=1e-14)
    assert np.ptp(together) > 0.1


def test_share_of_batches_and_of_zero_curvature():
    g = np.array([[3.0, 4.0], [6.0, 8.0]])
    assert_allclose(landscape.downward_share(g, np.stack([np.diag([-1.0, 2.0]), np.diag([0.0, -2.0])])), [0.36, 0.64])
    assert landscape.downward_share([3.0, 4.0], np.zeros((2, 2))) == 0  # flat is not downward


def test_chord_of_one_node_is_the_middle_and_of_few_exact_for_polynomials():
    power = lambda k: lambda p: (p**k)[..., None]
    zero, two = np.array([0.0]), np.array([2.0])
    assert landscape.chord_hessian(power(2), zero, two, nodes=1) == pytest.approx(1.0)
    assert landscape.chord_hessian(power(3), zero, two, nodes=2) == pytest.approx(2.0)
    assert landscape.chord_hessian(power(4), zero, two, nodes=2) != pytest.approx(3.2, rel=1e-3, abs=0)
    assert landscape.chord_hessian(power(47), zero, two) == pytest.approx(2.0**47 / 48, rel=1e-12, abs=0)
    assert abs(landscape.chord_hessian(power(120), zero, two)[0, 0] / (2.0**120 / 121) - 1) > 1e-9
    constant = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert_allclose(
        landscape.chord_hessian(lambda p: np.broadcast_to(constant, (*p.shape, 2)), [1.0, 1.0], [2.0, 5.0]),
        constant,
        rtol=1e-14,
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: landscape.holder(1.0), r"^points: got shape \(\), needs \(..., 2\)"),
        (lambda: landscape.cell([1.0, 2.0, 3.0]), r"^points: got shape \(3,\)"),
        (lambda: landscape.cell_minimum([1, 2, 3]), r"^cells: got shape \(3,\) of int64"),
        (lambda: landscape.cell_minimum(3), r"^cells: got shape \(\)"),
        (lambda: landscape.cell_minimum([[0, 0], [401, 0]]), r"^cells: got .*401.* needs integers up to 400 in size"),
        (lambda: landscape.cell_minimum([0, -401]), "^cells: got .*-401"),
        (lambda: landscape.cell_minimum([[1, 2], [1]]), "^cells: got shape"),
        (
            lambda: landscape.scalar_network([1.0, 1.0], targets=(1.0, 2.0, 3.0)),
            r"^targets: got shape \(3,\), needs two numbers",
        ),
        (lambda: landscape.scalar_network([1.0, 1.0], depth=1), "^depth: got 1, needs an integer >= 2"),
        (lambda: landscape.descend(lambda p: p, [1.0], [0.1]), r"^start: got shape \(1,\)"),
        (
            lambda: landscape.descend(lambda p: p, [1.0, 2.0], [[0.1]]),
            r"^rates: got shape \(1, 1\), needs one rate for each step",
        ),
        (lambda: landscape.downward_share(1.0, [[1.0]]), r"^hessians: got shape \(1, 1\)"),
        (lambda: landscape.downward_share([1.0, 2.0], np.ones((2, 3))), r"^hessians: got shape \(2, 3\)"),
        (lambda: landscape.chord_hessian(lambda p: p, [[1.0]], [[2.0]]), r"^two: got shape \(1, 1\)"),
        (lambda: landscape.chord_hessian(lambda p: p, [np.nan], [1.0]), "^one: got entries that are not finite"),
        (lambda: landscape.chord_hessian(lambda p: p, [1.0], [np.nan]), "^two: got entries that are not finite"),
        (lambda: landscape.chord_hessian(lambda p: p, [1.0], [2.0], nodes=0), "^nodes: got 0, needs .* from 1 to 1000"),
        (lambda: landscape.holder([1.0, 1.0], usual=1), "^usual: got 1, needs True or False"),
    ],
)
def test_refusals_say_what_is_needed(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("size", [1e-320, 1e-200, 1e-160, 1e160, 1e300])
def test_the_share_does_not_depend_on_the_unit_of_the_gradient(size):
    g = np.array([3.0, 4.0]) * size
    share = g[1] ** 2 / (g @ g) if 1e-150 < size < 1e150 else 1 / (1 + (g[0] / g[1]) ** 2)  # subnormal ones are rounded
    assert landscape.downward_share(g, np.diag([1.0, -2.0])) == pytest.approx(share, rel=1e-14, abs=0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: landscape.holder([1e4, 2e4], usual=True), "^points: "),
        (lambda: landscape.holder_gradient([1e4, 2e4], usual=True), "^points: "),
        (lambda: landscape.cell([1e300, 1.0]), "^points: "),
        (lambda: landscape.scalar_network([1e100, 1.0]), "^points, targets, depth: "),
        (lambda: landscape.scalar_network_gradient([1e100, 1.0]), "^points, targets, depth: "),
        (lambda: landscape.scalar_network_hessian([1e100, 1.0]), "^points, targets, depth: "),
        (lambda: landscape.descend(None, [1.0, 2.0], [0.5]), "^gradient: got None, needs a function"),
        (lambda: landscape.descend(lambda p: p, [1.0, 2.0], [0.5], limit=[1.0, 2.0]), "^limit: "),
        (lambda: landscape.chord_hessian(lambda p: p, [1.0], [2.0]), r"^hessian: got shape \(24, 1\) from it"),
        (lambda: landscape.chord_hessian(lambda p: p[..., None], [1.7e308], [-1.7e308]), "^one, two: "),
    ],
)
def test_what_overflows_or_is_no_function_is_named(call, words):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=words):
            call()


@pytest.mark.filterwarnings("error")
def test_the_printed_table_is_flat_as_far_as_floats_go():
    far = [1.7e308, 1.7e308]  # whose distance from the origin is beyond them
    for function in (landscape.holder, landscape.holder_gradient, landscape.holder_hessian):
        assert not np.any(function(far))
        with pytest.raises(ValueError, match="^points: got"):
            function(far, usual=True)


def test_cells_as_far_as_floats_tell_them():
    with mpmath.workdps(40):
        x, y = (int(mpmath.floor(1e15 / mpmath.pi + shift)) for shift in (0, mpmath.mpf(0.5)))
    assert landscape.cell([1e15, 1e15]).tolist() == [x, y]
    for far in ([np.nextafter(1e15, np.inf), 0.0], [0.0, -1.5e15]):
        with pytest.raises(ValueError, match="^points: got .*, needs numbers up to 1e15 in size"):
            landscape.cell(far)
    with pytest.raises(ValueError, match=r"^cells: got a masked array, needs \(..., 2\) integers: fill"):
        landscape.cell_minimum(np.ma.ones(2, int))


def test_the_share_of_each_gradient_of_a_batch_and_of_none():
    g, H = np.array([[3.0, 4.0], [3e-200, 4e-200], [3e200, 4e200]]), np.stack([np.diag([1.0, -2.0])] * 3)
    assert_allclose(landscape.downward_share(g, H), 0.64, rtol=1e-14)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zero by zero
        assert np.isnan(landscape.downward_share(np.zeros((2, 0)), np.zeros((2, 0, 0)))).tolist() == [True, True]


@pytest.mark.filterwarnings("error")
def test_no_warning_comes_before_the_refusal_or_the_end_of_a_run():
    with pytest.raises(ValueError, match="^points, targets, depth: got"):  # infinity less infinity
        landscape.scalar_network_hessian([1e100, 1.0], targets=(1e308, 1.0))
    for gradient in (lambda p: p * 1e308, lambda p: p * np.inf - p * np.inf):
        run = landscape.descend(gradient, [1.0, 2.0], [1e3, 1e3])
        assert run.diverged and run.points.tolist() == [[1.0, 2.0]] * 3
    root = lambda p: np.sqrt(-p)[..., None]
    with pytest.raises(ValueError, match="^hessian: got entries .*, needs a function whose values are finite"):
        landscape.chord_hessian(root, [1.0], [2.0])


@pytest.mark.skipif(np.finfo(np.longdouble).max == np.finfo(float).max, reason="long double is double here")
def test_long_doubles_beyond_the_range_are_named():
    far = np.longdouble("1e400")
    for call, name in (
        (lambda: landscape.cell([far, far]), "points"),
        (lambda: landscape.descend(lambda p: p, [far, far], [0.5]), "start"),
        (lambda: landscape.downward_share(np.ones(1), np.full((1, 1), far)), "hessians"),
    ):
        with pytest.raises(ValueError, match=f"^{name}: got entries beyond the range of float64"):
            call()
