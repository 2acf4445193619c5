"""Checks of arguments: each raises a ``ValueError`` that names the argument, what it got and what it needs."""

from __future__ import annotations

import math
import numbers
import operator
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_ABSENT = object()


def integer(name: str, value: Any, *, least: int, most: int | None = None) -> int:
    """Return `value` as an ``int`` that is at least `least`, and at most `most` (2^53 unless another bound is given).

    Raises
    ------
    ValueError
        If `value` is no integer or is out of range.

    Examples
    --------
    >>> integer("depth", 3, least=1)
    3
    >>> integer("depth", 0, least=1)
    Traceback (most recent call last):
    ...
    ValueError: depth: got 0, needs an integer >= 1
    """
    try:
        refused = isinstance(value, (bool, np.bool_, np.ma.MaskedArray))  # a mask would be lost
        number = None if refused else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or number > (2**53 if most is None else most):
        most = 2**53 if most is None and number is not None and number > least else most  # exact as a float
        need = f">= {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}: got {short(value)}, needs an integer {need}")
    return number


def flag(name: str, value: Any) -> bool:
    """Return `value` if it is ``True`` or ``False``; a word such as "no" is true for Python.

    Raises
    ------
    ValueError
        If it is anything else.

    Examples
    --------
    >>> flag("signed", "no")
    Traceback (most recent call last):
    ...
    ValueError: signed: got 'no', needs True or False
    """
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name}: got {short(value)}, needs True or False")
    return bool(value)


def choice(name: str, value: Any, options: Sequence[str]) -> str:
    """Return `value` if it is one of the words `options`.

    Raises
    ------
    ValueError
        If it is not.

    Examples
    --------
    >>> choice("along", "z", ("x", "y"))
    Traceback (most recent call last):
    ...
    ValueError: along: got 'z', needs "x" or "y"
    """
    if not isinstance(value, str) or value not in options:
        words = [f'"{option}"' for option in options]
        raise ValueError(f"{name}: got {short(value)}, needs {', '.join(words[:-1])} or {words[-1]}")
    return value


def number(name: str, value: Any, *, sign: str = "") -> float:
    """Return one finite real number as a ``float``; `sign` may ask for ``"> 0"`` or ``">= 0"``.

    Raises
    ------
    ValueError
        If `value` is an array, not real, not finite, not of that sign, or zero or infinite as a ``float``.

    Examples
    --------
    >>> number("rtol", 1e-3, sign="> 0")
    0.001
    >>> number("rtol", [1e-3])
    Traceback (most recent call last):
    ...
    ValueError: rtol: got [0.001], needs one finite real number
    """
    need = f"needs one finite real number{' ' if sign else ''}{sign}"
    array = real(name, value, need=need)
    if array.ndim or (sign == "> 0" and array <= 0) or (sign == ">= 0" and array < 0):
        raise ValueError(f"{name}: got {short(value)}, {need}")
    return float(cast(name, value, array, float))


def positive(name: str, value: Any, *, zero: bool = False) -> np.ndarray:
    """Return `value` as a real array whose entries are finite and positive (or zero, with ``zero=True``).

    Raises
    ------
    ValueError
        If an entry is not finite, or not of that sign.

    Examples
    --------
    >>> float(positive("learning_rate", 0.5))
    0.5
    >>> positive("learning_rate", -1.0)
    Traceback (most recent call last):
    ...
    ValueError: learning_rate: got -1.0, needs finite numbers > 0
    """
    need = f"needs finite numbers {'>=' if zero else '>'} 0"
    array = real(name, value, need=need)
    if not np.all(array >= 0 if zero else array > 0):
        raise ValueError(f"{name}: got {short(value)}, {need}")
    return array


def real(name: str, value: Any, *, need: str = "needs finite real numbers") -> np.ndarray:
    """Return `value` as a finite real array, of its own floating dtype or float64.

    Raises
    ------
    ValueError
        If `value` is not numeric, is masked or has an entry that is not finite.

    Examples
    --------
    >>> real("x", [1, 2]).dtype
    dtype('float64')
    """
    array = plain(name, value, need=need)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name}: got {short(value)}, {need}")
    if array.dtype.kind != "f":
        array = array.astype(float)
    if not np.all(np.isfinite(array)):
        raise ValueError(
            f"{name}: got {'a value that is' if array.ndim == 0 else 'entries that are'} not finite, {need}"
        )
    return array


def plain(name: str, value: Any, *, need: str) -> np.ndarray:
    """Return `value` as an array of whatever dtype; what is none, as a ragged list, becomes an array of objects.

    Raises
    ------
    ValueError
        If `value` is a masked array, whose mask would be lost.

    Examples
    --------
    >>> plain("x", [[1.0], [1.0, 2.0]], need="needs numbers").dtype
    dtype('O')
    """
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(f"{name}: got a masked array, {need}: fill or drop what is masked")
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError):  # ragged lists, tensors on a device or with a gradient
        return np.asarray(None)


def double(name: str, array: np.ndarray) -> np.ndarray:
    """Return the finite `array` in float64, for LAPACK; an entry that is too small there is zero.

    Raises
    ------
    ValueError
        If an entry is beyond the range of float64, or no real number.

    Examples
    --------
    >>> double("W", np.ones(1, np.float32)).dtype
    dtype('float64')
    """
    try:
        with np.errstate(over="ignore", under="ignore"):
            result = array.astype(np.float64, copy=False)
    except (TypeError, OverflowError):  # objects that are no real numbers, integers that no float is near
        result = np.array(np.nan)
    if not np.all(np.isfinite(result)):
        raise ValueError(f"{name}: got entries beyond the range of float64, needs numbers within it")
    return result


def together(**arrays: np.ndarray) -> tuple[int, ...]:
    """Return the common shape of arrays that broadcast, each under the name of its argument.

    Raises
    ------
    ValueError
        If they do not broadcast.

    Examples
    --------
    >>> together(s=np.ones(2), target=np.ones(3))
    Traceback (most recent call last):
    ...
    ValueError: s, target: got shapes (2,), (3,), needs ones that broadcast
    """
    shapes = [np.shape(array) for array in arrays.values()]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        got = ", ".join(map(str, shapes))
        raise ValueError(f"{', '.join(arrays)}: got shapes {got}, needs ones that broadcast") from None


def function(name: str, value: Any) -> Callable:
    """Return `value` if it can be called.

    Raises
    ------
    ValueError
        If it cannot.

    Examples
    --------
    >>> function("gradient", 2.0)
    Traceback (most recent call last):
    ...
    ValueError: gradient: got 2.0, needs a function
    """
    if not callable(value):
        raise ValueError(f"{name}: got {short(value)}, needs a function")
    return value


def representable(name: str, value: Any, result: Any) -> Any:
    """Return `result`, an array or tensor computed from finite `value`, if it is finite too.

    Raises
    ------
    ValueError
        If an entry of `result` overflowed.

    Examples
    --------
    >>> representable("x", 1e200, np.array([np.inf]))
    Traceback (most recent call last):
    ...
    ValueError: x: got 1e+200, needs numbers whose result is within the floating range
    """
    if _is_tensor(result):
        finite = bool(result.isfinite().all())
    elif getattr(result, "dtype", None) == object:
        finite = all(x - x == 0 for x in np.ravel(result))
    else:
        finite = np.all(np.isfinite(result))
    if not finite:
        raise ValueError(f"{name}: got {short(value)}, needs numbers whose result is within the floating range")
    return result


def cast(name: str, value: Any, array: Any, dtype: Any) -> np.ndarray:
    """Return the finite `array`, made of `value`, in the dtype of a run.

    Raises
    ------
    ValueError
        If an entry leaves the range of `dtype`: a rate that is zero there moves nothing.

    Examples
    --------
    >>> cast("learning_rate", 1e-60, 1e-60, np.float32)
    Traceback (most recent call last):
    ...
    ValueError: learning_rate: got 1e-60, which is zero in float32, the dtype of the run
    """
    array = np.asarray(array)
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore", under="ignore"):
        result = array.astype(dtype)
    for word, lost in (("zero", (result == 0) & (array != 0)), ("infinite", abs(result) == np.inf)):
        if np.any(lost):
            raise ValueError(f"{name}: got {short(value)}, which is {word} in {result.dtype}, the dtype of the run")
    return result


def storable(name: str, shape: Sequence[int]) -> None:
    """Refuse an array of more than 2^32 numbers (32 GiB).

    Raises
    ------
    ValueError
        If `shape` has more.

    Examples
    --------
    >>> storable("depth, width", (10**12, 2))
    Traceback (most recent call last):
    ...
    ValueError: depth, width: got an array of shape (1000000000000, 2), needs one of at most 2^32 numbers
    """
    if math.prod(shape) > 2**32:
        raise ValueError(f"{name}: got an array of shape {tuple(shape)}, needs one of at most 2^32 numbers")


def short(value: Any) -> str:
    """Return `value` as text of one line and at most 60 characters, for an error message.

    Examples
    --------
    >>> short(np.zeros((3, 100)))
    'float64 array of shape (3, 100)'
    """
    if isinstance(value, np.ndarray) and value.size > 4:
        return f"{value.dtype} array of shape {value.shape}"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a foreign object's own fault; the message shall come through
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def weights(W: Any, M: Any = _ABSENT, *, V: Any = _ABSENT, numpy_only: bool = False) -> tuple:
    """Check that `W` has shape (..., L, d, d), that `M` is (d, d) and that `V` has the shape of `W`.

    NumPy arrays of any floating dtype pass unchanged, so do arrays of real Python numbers (for mpmath) and dense
    floating torch tensors; lists and integers become float64.

    Returns
    -------
    tuple
        Those of ``W, M, V`` that were given, as arrays.

    Raises
    ------
    ValueError
        On a wrong shape, an entry that is not finite, or a mixture of NumPy and torch.

    Examples
    --------
    >>> weights(np.zeros((3, 2, 4)))
    Traceback (most recent call last):
    ...
    ValueError: W: got shape (3, 2, 4), needs (..., L, d, d) with L >= 1 and d >= 1
    """
    W = _array("W", W)
    shape = tuple(W.shape)
    if len(shape) < 3 or shape[-1] != shape[-2] or 0 in shape[-3:]:
        raise ValueError(f"W: got shape {shape}, needs (..., L, d, d) with L >= 1 and d >= 1")
    if numpy_only and _is_tensor(W):
        raise ValueError("W: got a torch tensor, needs a NumPy array")
    checked = [W]
    for name, value, wanted in (("M", M, shape[-2:]), ("V", V, shape)):
        if value is _ABSENT:
            continue
        array = _array(name, value)
        if tuple(array.shape) != wanted:
            raise ValueError(f"{name}: got shape {tuple(array.shape)}, needs {wanted} to match W")
        if _is_tensor(array) != _is_tensor(W):
            raise ValueError(f"{name}: got {type(array).__name__}, needs what W is, {type(W).__name__}")
        checked.append(array)
    return tuple(checked)


def generator(rng: Any, why: str) -> np.random.Generator:
    """Return `rng` if it is a ``numpy.random.Generator``.

    Raises
    ------
    ValueError
        If it is anything else; `why` says what randomness is needed for.

    Examples
    --------
    >>> generator(None, "a random target")
    Traceback (most recent call last):
    ...
    ValueError: rng: got None, needs a numpy.random.Generator for a random target
    """
    if not isinstance(rng, np.random.Generator):
        raise ValueError(f"rng: got {short(rng)}, needs a numpy.random.Generator for {why}")
    return rng


def named(name: str, value: Any, what: str) -> dict:
    """Return `value` if it is a dictionary whose keys are words; `what` says what its values shall be.

    Raises
    ------
    ValueError
        If it is anything else.

    Examples
    --------
    >>> named("columns", {7: [1.0]}, "columns")
    Traceback (most recent call last):
    ...
    ValueError: columns: got {7: [1.0]}, needs a dict of columns by their names
    """
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{name}: got {short(value)}, needs a dict of {what} by their names")
    return value


def functions(name: str, value: Any) -> dict[str, Callable]:
    """Return `value` if it is a dictionary of functions by their names, and an empty one for ``None``.

    Raises
    ------
    ValueError
        If it is anything else.

    Examples
    --------
    >>> functions("observe", {"size": abs, "half": 0.5})
    Traceback (most recent call last):
    ...
    ValueError: observe: got {'size': <built-in function abs>, 'half': 0.5}, needs a dict of functions by their names
    """
    if value is None:
        return {}
    if not all(map(callable, named(name, value, "functions").values())):
        raise ValueError(f"{name}: got {short(value)}, needs a dict of functions by their names")
    return value


def _is_tensor(value):
    torch = sys.modules.get("torch")  # without which nothing is a tensor
    return torch is not None and isinstance(value, torch.Tensor)


def _array(name, value):
    if _is_tensor(value):
        if not value.is_floating_point():
            raise ValueError(f"{name}: got a tensor of {value.dtype}, needs a floating dtype")
        if value.layout != sys.modules["torch"].strided:
            raise ValueError(f"{name}: got a tensor of layout {value.layout}, needs a dense one")
        if not bool(value.isfinite().all()):
            raise ValueError(f"{name}: got entries that are not finite, needs finite numbers")
        return value
    if isinstance(value, np.ndarray) and value.dtype == object and not isinstance(value, np.ma.MaskedArray):
        try:
            finite = all(isinstance(x, numbers.Real) and bool(x - x == 0) for x in value.ravel())
        except (TypeError, ValueError, ArithmeticError):
            finite = False
        if not finite:
            raise ValueError(f"{name}: got objects that are not finite numbers, needs finite numbers")
        return value
    return real(name, value)
