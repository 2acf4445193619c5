"""Checks of arguments: each raises a ``ValueError`` that names the argument, what it got and what it needs."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

_ABSENT = object()


def integer(name: str, value: Any, *, least: int) -> int:
    """Return `value` as an ``int`` that is at least `least`.

    Raises
    ------
    ValueError
        If `value` is no integer or is too small.

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
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise ValueError(f"{name}: got {value!r}, needs an integer >= {least}")
    return number


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
        raise ValueError(f"{name}: got {value!r}, {need}")
    return array


def real(name: str, value: Any, *, need: str = "needs finite real numbers") -> np.ndarray:
    """Return `value` as a finite real array, of its own floating dtype or float64.

    Raises
    ------
    ValueError
        If `value` is not numeric or has an entry that is not finite.

    Examples
    --------
    >>> real("x", [1, 2]).dtype
    dtype('float64')
    """
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):  # ragged lists, tensors on a device
        array = np.asarray(None)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name}: got {value!r}, {need}")
    if array.dtype.kind != "f":
        array = array.astype(float)
    if not np.all(np.isfinite(array)):
        raise ValueError(
            f"{name}: got {'a value that is' if array.ndim == 0 else 'entries that are'} not finite, {need}"
        )
    return array


def representable(name: str, value: Any, result: np.ndarray) -> np.ndarray:
    """Return `result`, computed from finite `value`, if it is finite too.

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
    if not np.all(np.isfinite(result)):
        raise ValueError(f"{name}: got {short(value)}, needs numbers whose result is within the floating range")
    return result


def short(value: Any) -> str:
    """Return `value` as text of one line and at most 60 characters, for an error message.

    Examples
    --------
    >>> short(np.zeros((3, 100)))
    'float64 array of shape (3, 100)'
    """
    if isinstance(value, np.ndarray) and value.size > 4:
        return f"{value.dtype} array of shape {value.shape}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


def weights(W: Any, M: Any = _ABSENT, *, V: Any = _ABSENT, numpy_only: bool = False) -> tuple:
    """Check that `W` has shape (..., L, d, d), that `M` is (d, d) and that `V` has the shape of `W`.

    NumPy arrays of any floating dtype pass unchanged, so do arrays of Python objects (for mpmath) and floating torch
    tensors; lists and integers become float64.

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
        raise ValueError(f"rng: got {rng!r}, needs a numpy.random.Generator for {why}")
    return rng


def _is_tensor(value):
    return type(value).__module__.split(".")[0] == "torch"


def _array(name, value):
    if _is_tensor(value):
        if not value.is_floating_point():
            raise ValueError(f"{name}: got a tensor of {value.dtype}, needs a floating dtype")
        if not bool(value.isfinite().all()):
            raise ValueError(f"{name}: got entries that are not finite, needs finite numbers")
        return value
    if isinstance(value, np.ndarray) and value.dtype == object:
        try:
            finite = all(x - x == 0 for x in value.ravel())
        except TypeError:
            finite = False
        if not finite:
            raise ValueError(f"{name}: got objects that are not finite numbers, needs finite numbers")
        return value
    return real(name, value)
