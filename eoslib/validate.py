"""Checks of arguments: each raises a ``ValueError`` that names the argument, what it got and what it needs."""

from __future__ import annotations

import operator

import numpy as np


def integer(name: str, value, *, least: int) -> int:
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
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise ValueError(f"{name}: got {value!r}, needs an integer >= {least}")
    return number


def positive(name: str, value, *, zero: bool = False) -> np.ndarray:
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


def real(name: str, value, *, need: str = "needs finite real numbers") -> np.ndarray:
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
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name}: got {value!r}, {need}")
    if array.dtype.kind != "f":
        array = array.astype(float)
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name}: got {'a value that is' if array.ndim == 0 else 'entries that are'} not finite, {need}")
    return array


def weights(W, M=None, *, extra=None):
    """Check that `W` has shape (..., L, d, d), that `M` is (d, d) and that `extra` has the shape of `W`.

    NumPy arrays of any floating dtype pass unchanged, so do arrays of Python objects (for mpmath) and torch tensors;
    lists and integers become float64.

    Returns
    -------
    tuple
        ``(W, M, extra)``, each as an array or ``None``.

    Raises
    ------
    ValueError
        On a wrong shape or an entry that is not finite.

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
    if M is not None:
        M = _array("M", M)
        if tuple(M.shape) != shape[-2:]:
            raise ValueError(f"M: got shape {tuple(M.shape)}, needs {shape[-2:]} to match W")
    if extra is not None:
        extra = _array("V", extra)
        if tuple(extra.shape) != shape:
            raise ValueError(f"V: got shape {tuple(extra.shape)}, needs {shape}, that of W")
    return W, M, extra


def generator(rng, why: str) -> np.random.Generator:
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


def _array(name, value):
    if type(value).__module__.split(".")[0] == "torch":
        if not bool(value.isfinite().all()):
            raise ValueError(f"{name}: got entries that are not finite, needs finite numbers")
        return value
    if isinstance(value, np.ndarray) and value.dtype == object:
        return value
    return real(name, value)
