"""Enclosures hold what they should, depend on no global precision, and refuse what they cannot enclose."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eoslib import enclose


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    low=st.floats(-3, 3),
    width=st.floats(1e-6, 2),
    bits=st.integers(16, 120),
    pieces=st.integers(1, 7),
    inside=st.floats(0, 1),
)
def test_values_lie_inside_and_more_pieces_never_widen(low, width, bits, pieces, inside):
    def function(iv, x):
        return iv.exp(x) * (1 - x) / iv.sqrt(2 + x * x) + iv.log(5 + x)

    def exact(x):
        return mpmath.exp(x) * (1 - x) / mpmath.sqrt(2 + x * x) + mpmath.log(5 + x)

    side = (low, low + width)
    found = enclose.over(function, side, pieces=pieces, bits=bits)
    with mpmath.workdps(60):
        value = exact(mpmath.mpf(min(low + inside * width, side[1])))
        assert found.low <= value <= found.high
    twice = enclose.over(function, side, pieces=2 * pieces, bits=bits)
    # the middle of a piece is rounded once, 1e-16 of the side
    assert twice.low >= found.low - 1e-12 and twice.high <= found.high + 1e-12
    assert found.boxes == pieces and found.bits == bits


def test_width_falls_with_the_precision_and_with_the_pieces():
    def third(iv, x):
        return x / 3

    widths = []
    for bits in (20, 30, 40):
        at = enclose.over(third, (1.0, 1.0 + 2.0**-52), pieces=1, bits=bits)
        widths.append(at.high - at.low)
    assert widths[0] > 500 * widths[1] > 250000 * widths[2] > 0
    wide, fine = (enclose.over(lambda iv, x: x - x, (0.0, 1.0), pieces=n).high for n in (1, 10))
    assert (wide, fine) == (1.0, pytest.approx(0.1))


def test_nothing_depends_on_mpmaths_own_settings():
    def function(iv, x):
        return iv.exp(x) / 7

    before = enclose.over(function, (0.0, 1.0), bits=90)
    old = mpmath.iv.prec
    try:
        mpmath.iv.prec = 10
        assert enclose.over(function, (0.0, 1.0), bits=90) == before
    finally:
        mpmath.iv.prec = old
    enclose.over(function, (0.0, 1.0), bits=20)
    assert mpmath.iv.prec == old and enclose.over(function, (0.0, 1.0), bits=90) == before


def test_two_sides_and_different_pieces():
    found = enclose.over(lambda iv, x, y: x * y, (1.0, 2.0), (-3.0, 5.0), pieces=(3, 4))
    assert (found.low, found.high, found.boxes) == (-6.0, 10.0, 12)
    assert str(found) == "[-6, 10] on 12 boxes, 64 bits"


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: enclose.over(lambda iv: 1), "sides"),
        (lambda: enclose.over(lambda iv, x: x, (1.0, 1.0)), "sides"),
        (lambda: enclose.over(lambda iv, x: x, (0.0, np.nan)), "sides"),
        (lambda: enclose.over(lambda iv, x: x, (0.0, 1.0, 2.0)), "sides"),
        (lambda: enclose.over(lambda iv, x: x, (0.0, 1.0), pieces=0), "pieces"),
        (lambda: enclose.over(lambda iv, x: x, (0.0, 1.0), pieces=(2, 2)), "pieces"),
        (lambda: enclose.over(lambda iv, x: x, (0.0, 1.0), bits=8), "bits"),
        (lambda: enclose.arithmetic(53.0), "bits"),
    ],
)
def test_bad_input_is_named(call, name):
    with pytest.raises(ValueError, match=rf"^{name}: got"):
        call()


def test_what_is_not_enclosed_raises():
    with pytest.raises(ArithmeticError, match="not enclosed"):
        enclose.over(lambda iv, x: 1 / x, (-1.0, 1.0), pieces=2)


def test_below_proves_what_over_needs_many_more_boxes_for():
    bumpy = lambda iv, x, y: x * (1 - x) + y * (1 - y)  # at most one half
    found = enclose.below(bumpy, (0.0, 1.0), (0.0, 1.0), bound=0.51)
    assert 0.5 <= found.high < 0.51 and found.low <= 0 and found.bits == 64
    assert enclose.over(bumpy, (0.0, 1.0), (0.0, 1.0), pieces=40).high > 0.51 and found.boxes < 1600


@pytest.mark.parametrize(
    ("sides", "options", "message"),
    [
        ((), {"bound": 1.0}, "sides: got none"),
        (((1.0, 0.0),), {"bound": 1.0}, "sides: got (1.0, 0.0)"),
        (((0.0, 1.0),), {"bound": float("nan")}, "bound: got a value that is not finite"),
        (((0.0, 1.0),), {"bound": 1.0, "bits": 2}, "bits: got 2"),
        (((0.0, 1.0),), {"bound": 1.0, "most": 0}, "most: got 0"),
    ],
)
def test_below_names_what_is_wrong(sides, options, message):
    with pytest.raises(ValueError) as error:
        enclose.below(lambda iv, x: x, *sides, **options)
    assert message in str(error.value)


def test_ends_are_rounded_outward():
    context = enclose.arithmetic(200)
    third = context.mpf(1) / 3
    low, high = enclose.ends(third)
    assert (
        low == 1 / 3 and high == np.nextafter(1 / 3, 1) and enclose.ends(-third) == (-high, -low)
    )  # 1/3 in float is below one third
    assert enclose.ends(context.mpf([0.25, 2])) == (0.25, 2.0)


def test_over_and_below_by_hand():
    double = lambda iv, x: 2 * x
    found = enclose.over(double, (0.0, 1.0))
    assert (found.low, found.high, found.boxes, found.bits) == (0.0, 2.0, 100, 64)
    assert str(enclose.Enclosure(-1.23456789, 2.0, 3, 4)) == "[-1.23457, 2] on 3 boxes, 4 bits"
    each = []
    enclose.over(
        lambda iv, x, y: each.append((enclose.ends(x), enclose.ends(y))) or x,
        (0.0, 1.0),
        (2.0, 3.0),
        pieces=np.array([2, 1]),
    )
    assert each == [((0.0, 0.5), (2.0, 3.0)), ((0.5, 1.0), (2.0, 3.0))]
    assert enclose.over(lambda iv, x: 3.0, (0.0, 1.0), pieces=1).high == 3.0  # a plain number is an interval
    shown = enclose.below(double, (0.0, 1.0), bound=2.5)
    assert (shown.low, shown.high, shown.boxes, shown.bits) == (0.0, 2.0, 1, 64)
    assert enclose.below(double, (0.0, 1.0), bound=2.5, bits=20).bits == 20
    with pytest.raises(ArithmeticError, match="^function: not shown to be less than 2 on 10 boxes$"):
        enclose.below(double, (0.0, 1.0), bound=2.0, most=10)  # it is reached


def test_below_cuts_the_side_that_is_longest_beside_the_box_and_gives_up_in_time():
    asked = []

    def function(iv, x, y):
        asked.append((enclose.ends(x), enclose.ends(y)))
        return iv.mpf([0, 1]) if len(asked) < 3 else iv.mpf(0)

    found = enclose.below(function, (1.0, 2.0), (0.0, 100.0), bound=0.5)
    # the whole; its upper half in x; of that, y is now the longer one in comparison
    assert asked[:4] == [((1, 2), (0, 100)), ((1.5, 2), (0, 100)), ((1.5, 2), (50, 100)), ((1.5, 2), (0, 50))]
    assert found.boxes == 3 and found.high == 0.0
    needs_eight = lambda iv, x: iv.mpf([0, 1]) if x.delta > 0.13 else iv.mpf(0)
    assert enclose.below(needs_eight, (0.0, 1.0), bound=0.5, most=8).boxes == 8
    with pytest.raises(ArithmeticError, match="on 7 boxes"):
        enclose.below(needs_eight, (0.0, 1.0), bound=0.5, most=7)
    assert enclose.below(needs_eight, (0.0, 0.1), bound=0.5, most=1).boxes == 1
    second = np.nextafter(1, 2)
    for side, most, calls in (((0.0, 1.0), 10, 10), ((1.0, second), 10, 1), ((second, np.nextafter(second, 2)), 10, 1)):
        asked.clear()
        with pytest.raises(ArithmeticError, match=f"not shown to be less than 1 on {most} boxes"):
            enclose.below(lambda iv, x: asked.append(x) or iv.mpf([0, 2]), side, bound=1.0, most=most)
        assert len(asked) == calls
    with pytest.raises(ArithmeticError):  # an enclosure without a lower end shows nothing
        enclose.below(lambda iv, x: iv.mpf([-np.inf, 0]), (0.0, 1.0), bound=1.0, most=5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: enclose.arithmetic(15), "^bits: got 15, needs an integer from 16 to 1000000$|^bits: got 15"),
        (lambda: enclose.arithmetic(10**6 + 1), "^bits: got 1000001"),
        (lambda: enclose.over(lambda iv, x: x, (0.0, 1.0), pieces=10**7 + 1), "^pieces: got 10000001, .* 1 to 10000000$"),
        (
            lambda: enclose.over(lambda iv, x, y: x, (0.0, 1.0), (0.0, 1.0), pieces=(1,)),
            "^pieces: got 1 of them, .* each of 2 sides",
        ),
        (lambda: enclose.over(lambda iv, x: x, (2.0, 1.0)), r"^sides: got \(2.0, 1.0\), needs pairs"),
        (lambda: enclose.below(lambda iv: 1, bound=1.0), "^sides: got none, needs at least one pair"),
    ],
)
def test_refusals_say_what_is_needed(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("bits", [16, 53, 10**6])
def test_precisions_that_are_taken(bits):
    assert enclose.arithmetic(bits).prec == bits


def test_half_infinite_values_are_not_enclosed():
    for ends in ([0, np.inf], [-np.inf, 0]):
        with pytest.raises(ArithmeticError, match="^function: its values on .* are not enclosed"):
            enclose.over(lambda iv, x: iv.mpf(ends), (0.0, 1.0), pieces=1)


@pytest.mark.parametrize("high", [2**53 + 1, np.nextafter(np.longdouble(1), np.longdouble(2)), np.int64(2**53 + 1)])
def test_ends_that_are_no_floats_are_rounded_outward(high):
    found = enclose.over(lambda iv, x: x, (0, high), pieces=1)
    assert found.high > high or found.high == high == np.float64(high)
    tensor = pytest.importorskip("torch").tensor([0.0, 0.5])  # whose entries have an index and refuse it
    assert enclose.over(lambda iv, x: x, tensor, pieces=1).high == 0.5


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: enclose.over(lambda iv, x: x, (-1.7e308, 1.7e308), pieces=3), "^sides: .*width"),
        (lambda: enclose.over(None, (0.0, 1.0)), "^function: got None"),
        (lambda: enclose.below(None, (0.0, 1.0), bound=1.0), "^function: got None"),
        (lambda: enclose.over(lambda iv, x: x, (0.0, 1.0), pieces=np.array(1.5)), "^pieces: "),
        (lambda: enclose.ends(1.0), "^interval: got 1.0"),
    ],
)
def test_what_is_no_function_interval_or_width_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("low", [2**53 + 3, -(2**53) - 1, np.int64(2**53 + 3), np.int64(2**53 + 2), 2**53])
def test_low_ends_are_rounded_outward(low):
    below = {2**53 + 3: 2.0**53 + 2, -(2**53) - 1: -(2.0**53) - 2}  # halves between floats go to the even one
    found = enclose.over(lambda iv, x: x, (low, 2**54), pieces=1)
    assert (found.low, found.high) == (below.get(int(low), float(low)), 2.0**54)


@pytest.mark.parametrize(("high", "above"), [(2**53 + 1, 2**53 + 2), (2**53 + 3, 2**53 + 4), (2**53 + 2, 2**53 + 2)])
def test_high_ends_are_rounded_outward_and_no_further(high, above):
    assert enclose.over(lambda iv, x: x, (0, high), pieces=1).high == above


@pytest.mark.filterwarnings("error")
@pytest.mark.skipif(np.finfo(np.longdouble).max == np.finfo(float).max, reason="long double is double here")
def test_ends_beyond_the_floating_range_are_refused():
    far = np.longdouble("1e400")
    for side in ((0, far), (-far, 0), (far, 2 * far)):
        with pytest.raises(ValueError, match="^sides: got .* whose width is within the floating range"):
            enclose.over(lambda iv, x: x, side)
    tiny = np.longdouble("1e-4000")
    found = enclose.over(lambda iv, x: x, (-tiny, tiny), pieces=1)
    assert (found.low, found.high) == (-5e-324, 5e-324)
