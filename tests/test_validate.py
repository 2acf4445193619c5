"""Checks of arguments: what passes, what does not, and the words of each refusal."""

import decimal
import fractions
import numbers

import numpy as np
import pytest
import sympy
import torch

from eoslib import validate

THREE = {"M": np.eye(2), "V": np.ones((3, 2, 2))}


def refused(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == words


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3), True + 2])
def test_whole_numbers_pass(value):
    found = validate.integer("n", value, least=3)
    assert found == 3 and type(found) is int and validate.integer("n", value, least=0, most=3) == 3


def test_bounds_of_whole_numbers():
    assert validate.integer("n", 2**53, least=0) == 2**53 and validate.integer("n", -1, least=-1) == -1
    assert validate.integer("n", 2**60, least=0, most=2**60) == 2**60 and validate.integer("n", 0, least=0, most=0) == 0
    refused(lambda: validate.integer("n", 2, least=3), "n: got 2, needs an integer >= 3")
    refused(lambda: validate.integer("n", 4, least=1, most=3), "n: got 4, needs an integer from 1 to 3")
    refused(lambda: validate.integer("n", 0, least=1, most=3), "n: got 0, needs an integer from 1 to 3")
    refused(
        lambda: validate.integer("n", 2**53 + 1, least=1), f"n: got {2**53 + 1}, needs an integer from 1 to {2**53}"
    )
    refused(lambda: validate.integer("n", 0, least=0, most=-1), "n: got 0, needs an integer from 0 to -1")
    for bad, text in ((2.0, "2.0"), (True, "True"), (np.True_, "np.True_"), ("3", "'3'"), (None, "None"), ([3], "[3]")):
        refused(lambda: validate.integer("n", bad, least=1), f"n: got {text}, needs an integer >= 1")


def test_flags_and_words():
    assert validate.flag("f", True) is True and validate.flag("f", np.False_) is False
    for bad in (0, 1, None, "True"):
        refused(lambda: validate.flag("f", bad), f"f: got {bad!r}, needs True or False")
    assert validate.choice("c", "b", ("a", "b")) == "b"
    refused(lambda: validate.choice("c", "z", ("a", "b", "c")), 'c: got \'z\', needs "a", "b" or "c"')
    refused(lambda: validate.choice("c", ["a"], ("a", "b")), 'c: got [\'a\'], needs "a" or "b"')


def test_one_number():
    for value in (0.5, np.float32(0.5), np.array(0.5), fractions.Fraction(1, 2).__float__()):
        assert validate.number("x", value) == 0.5 and type(validate.number("x", value)) is float
    assert validate.number("x", -2) == -2.0 and validate.number("x", 0, sign=">= 0") == 0.0
    assert validate.number("x", 1e-300, sign="> 0") == 1e-300
    refused(lambda: validate.number("x", 0, sign="> 0"), "x: got 0, needs one finite real number > 0")
    refused(lambda: validate.number("x", -1e-300, sign=">= 0"), "x: got -1e-300, needs one finite real number >= 0")
    refused(lambda: validate.number("x", [1.0]), "x: got [1.0], needs one finite real number")
    refused(lambda: validate.number("x", "1"), "x: got '1', needs one finite real number")
    refused(lambda: validate.number("x", 1j), "x: got 1j, needs one finite real number")
    refused(
        lambda: validate.number("x", np.inf, sign="> 0"),
        "x: got a value that is not finite, needs one finite real number > 0",
    )


def test_arrays_of_one_sign():
    assert validate.positive("x", [1, 2]).tolist() == [1.0, 2.0] and validate.positive("x", 0, zero=True) == 0
    assert validate.positive("x", np.ones(2, np.float32)).dtype == np.float32
    refused(lambda: validate.positive("x", [1.0, 0.0]), "x: got [1.0, 0.0], needs finite numbers > 0")
    refused(lambda: validate.positive("x", [1.0, -1.0], zero=True), "x: got [1.0, -1.0], needs finite numbers >= 0")
    refused(
        lambda: validate.positive("x", [1.0, np.nan]), "x: got entries that are not finite, needs finite numbers > 0"
    )


def test_what_the_dtype_of_a_run_can_hold():
    assert validate.cast("x", [0, 1], [0.0, 1.0], np.float32).dtype == np.float32
    assert validate.cast("x", 0.1, 0.1, object) == 0.1
    same = np.ones(2)
    assert validate.cast("x", same, same, float) is same
    assert validate.cast("x", [2], np.array([2]), float).dtype == np.float64  # whole numbers
    for value, array, word in ((1e-60, 1e-60, "zero"), (1e60, [1.0, -1e60], "infinite")):
        with np.errstate(all="raise"):  # whatever the caller has set
            refused(
                lambda: validate.cast("x", value, array, np.float32),
                f"x: got {value}, which is {word} in float32, the dtype of the run",
            )


@pytest.mark.skipif(np.finfo(np.longdouble).max == np.finfo(float).max, reason="long double is double here")
def test_one_number_within_the_range_of_floats():
    for text, word in (("1e-4000", "zero"), ("1e4000", "infinite"), ("-1e4000", "infinite")):
        value = np.longdouble(text)
        refused(
            lambda: validate.number("x", value), f"x: got {value!r}, which is {word} in float64, the dtype of the run"
        )


def test_real_arrays_keep_their_floats():
    for dtype in (np.float16, np.float32, np.float64, np.longdouble):
        array = np.ones(2, dtype)
        assert validate.real("x", array) is array
    for whole in (np.ones(2, int), np.ones(2, np.uint8), [1, 2]):
        assert validate.real("x", whole).dtype == np.float64
    refused(lambda: validate.real("x", [[1], [1, 2]]), "x: got [[1], [1, 2]], needs finite real numbers")
    refused(lambda: validate.real("x", [True]), "x: got [True], needs finite real numbers")
    refused(lambda: validate.real("x", np.inf), "x: got a value that is not finite, needs finite real numbers")
    refused(lambda: validate.real("x", [np.inf], need="needs y"), "x: got entries that are not finite, needs y")
    refused(
        lambda: validate.real("x", np.ma.masked_array([1.0], [True])),
        "x: got a masked array, needs finite real numbers: fill or drop what is masked",
    )
    needs_gradient = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="^x: got tensor"):
        validate.real("x", needs_gradient)


def test_results_out_of_range():
    for good in (np.ones(2), 1.0, torch.ones(2), np.array([fractions.Fraction(1, 3)] * 2)):
        assert validate.representable("x", 0, good) is good
    words = "x: got 0, needs numbers whose result is within the floating range"
    for bad in (np.array([1.0, np.inf]), np.nan, torch.tensor([1.0, np.inf]), np.array([1.0, np.inf], dtype=object)):
        refused(lambda: validate.representable("x", 0, bad), words)


def test_sizes():
    validate.storable("n", (2**16, 2**16))
    refused(
        lambda: validate.storable("n", [2**16, 2**16 + 1]),
        "n: got an array of shape (65536, 65537), needs one of at most 2^32 numbers",
    )


def test_values_by_their_names():
    for good in ({}, {"a": 1}):
        assert validate.named("x", good, "numbers") is good
    for bad in (None, [("a", 1)], {"a": 1, 2: 3}, {("a",): 1}):
        refused(lambda: validate.named("x", bad, "numbers"), f"x: got {bad}, needs a dict of numbers by their names")
    good = {"a": len}
    assert validate.functions("f", good) is good and validate.functions("f", None) == {}
    for bad in (0, [], {"a": len, "b": 1}, {1: len}):
        refused(
            lambda: validate.functions("f", bad),
            f"f: got {validate.short(bad)}, needs a dict of functions by their names",
        )


def test_short_texts():
    class Silent:
        def __repr__(self):
            raise RuntimeError("no")

    assert (
        validate.short(np.ones(5)) == "float64 array of shape (5,)"
        and validate.short(np.ones(4)) == "array([1., 1., 1., 1.])"
    )
    assert validate.short("a" * 58) == "'" + "a" * 58 + "'" and len(validate.short("a" * 58)) == 60
    assert validate.short("a" * 59) == "'" + "a" * 56 + "..." and len(validate.short("a" * 59)) == 60
    assert validate.short(np.eye(2)) == "array([[1., 0.], [0., 1.]])"  # one line
    assert validate.short(Silent()) == "a Silent"


def test_weights():
    W = np.ones((5, 3, 2, 2))
    assert validate.weights(W) == (W,) and validate.weights(W)[0] is W
    found = validate.weights(W[0], np.eye(2), V=W[1])
    assert len(found) == 3 and found[1].shape == (2, 2) and found[2] is not W
    assert len(validate.weights(W[0], V=W[1])) == 2 and len(validate.weights(W[0], np.eye(2))) == 2
    assert (
        validate.weights([[[1]]])[0].dtype == np.float64
        and validate.weights(np.ones((1, 1, 1), np.float32))[0].dtype == np.float32
    )
    for shape in ((2, 2), (3, 2, 4), (0, 2, 2), (3, 0, 0)):
        refused(
            lambda: validate.weights(np.zeros(shape)),
            f"W: got shape {shape}, needs (..., L, d, d) with L >= 1 and d >= 1",
        )
    assert validate.weights(np.zeros((0, 3, 2, 2)))[0].shape == (0, 3, 2, 2)  # an empty batch
    refused(lambda: validate.weights(W, np.eye(3)), "M: got shape (3, 3), needs (2, 2) to match W")
    refused(lambda: validate.weights(W, V=W[0]), "V: got shape (3, 2, 2), needs (5, 3, 2, 2) to match W")
    refused(
        lambda: validate.weights(W, [[np.inf] * 2] * 2), "M: got entries that are not finite, needs finite real numbers"
    )


def test_weights_of_torch_and_of_objects():
    W, M = torch.ones(3, 2, 2), torch.eye(2)
    assert validate.weights(W, M)[0] is W
    refused(lambda: validate.weights(W, numpy_only=True), "W: got a torch tensor, needs a NumPy array")
    refused(lambda: validate.weights(W, np.eye(2)), "M: got ndarray, needs what W is, Tensor")
    refused(lambda: validate.weights(np.ones((3, 2, 2)), M), "M: got Tensor, needs what W is, ndarray")
    refused(lambda: validate.weights(W.int()), "W: got a tensor of torch.int32, needs a floating dtype")
    refused(lambda: validate.weights(W / 0), "W: got entries that are not finite, needs finite numbers")
    one = W.clone()
    one[2, 1, 1] = np.nan
    refused(lambda: validate.weights(one), "W: got entries that are not finite, needs finite numbers")
    parameter = torch.nn.Parameter(W, requires_grad=False)  # a tensor whose class is in a module of its own
    assert validate.weights(parameter, M)[0] is parameter
    exact = np.full((1, 1, 1), fractions.Fraction(1, 3), dtype=object)
    assert validate.weights(exact)[0] is exact
    for bad in (np.inf, "a", None):
        refused(
            lambda: validate.weights(np.full((1, 1, 1), bad, object)),
            "W: got objects that are not finite numbers, needs finite numbers",
        )
    mixed = np.full((1, 2, 2), 1.0, dtype=object)
    mixed[0, 1, 1] = np.nan
    refused(lambda: validate.weights(mixed), "W: got objects that are not finite numbers, needs finite numbers")
    refused(
        lambda: validate.weights(np.ma.masked_array(exact, True)),
        "W: got a masked array, needs finite real numbers: fill or drop what is masked",
    )


def test_generators():
    rng = np.random.default_rng(0)
    assert validate.generator(rng, "x") is rng
    for bad in (None, 0, np.random.RandomState(0)):
        with pytest.raises(ValueError, match="^rng: got .*, needs a numpy.random.Generator for a target$"):
            validate.generator(bad, "a target")


def test_what_only_looks_like_an_integer_a_tensor_or_a_real_number_is_refused():
    with pytest.raises(ValueError, match="^depth: got"):
        validate.integer("depth", np.ma.masked_array(3, mask=True), least=1)
    for odd in (torch.float32, torch.nn.Linear(1, 1), torch.Size([2, 2]), torch.eye(2).to_sparse()):
        with pytest.raises(ValueError, match="^W: got"):
            validate.weights(odd)
    for odd in (1j, sympy.Symbol("x"), decimal.Decimal(1), None):
        with pytest.raises(ValueError, match="^W: got objects"):
            validate.weights(np.full((1, 1, 1), odd, dtype=object))
    for exact in (fractions.Fraction(1, 3), sympy.Rational(1, 3), 10**400):
        assert validate.weights(np.full((1, 1, 1), exact, dtype=object))[0][0, 0, 0] == exact


def test_what_has_no_double_is_refused():
    for odd in (10**400, 1j, None, np.inf, fractions.Fraction(10**400)):
        with pytest.raises(ValueError, match="^W: got entries beyond the range of float64"):
            validate.double("W", np.array([1.0, odd], dtype=object))
    exact = validate.double("W", np.array([fractions.Fraction(1, 3), 10**30], dtype=object))
    assert exact.dtype == np.float64 and exact.tolist() == [1 / 3, 1e30]
    array = np.ones(2)
    assert validate.double("W", array) is array


@pytest.mark.skipif(np.finfo(np.longdouble).max == np.finfo(float).max, reason="long double is double here")
def test_a_double_is_made_whatever_is_done_about_floating_errors():
    with np.errstate(all="raise"):
        assert validate.double("W", np.array(["1e-4000", "1.5"], np.longdouble)).tolist() == [0.0, 1.5]
        with pytest.raises(ValueError, match="^W: got entries beyond the range of float64"):
            validate.double("W", np.array(["1e400"], np.longdouble))


def test_a_function_comes_back_and_a_number_without_arithmetic_does_not():
    assert validate.function("gradient", abs) is abs
    bare = type("Bare", (), {})
    numbers.Real.register(bare)
    with pytest.raises(ValueError, match="^W: got objects that are not finite numbers"):
        validate.weights(np.full((1, 1, 1), bare(), dtype=object))
