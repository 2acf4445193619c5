r"""Two layers just beyond the symmetry breaking: the normal form to fifth order, and what it says about the torus.

On the invariant set :math:`W_2 = D W_1^\top D`, D = diag(1, -1), with :math:`\eta = 1`, the rows of :math:`W_1` move as

.. math:: w_1 \to (I - R) w_1, \quad w_2 \to (I + R) w_2, \quad R = w_1 w_1^\top - w_2 w_2^\top - \mathrm{diag}(m, -n).

At the threshold m + n = 2 the cycle has :math:`w_{11} = a, 1/a` and :math:`w_{22}^2 = b^2 = n = 3 - a^2 - a^{-2}`. With
:math:`w_{12} = b X`, :math:`w_{21} = y`, :math:`w_{22} = b \beta`, :math:`J = \mathrm i b` every coefficient is p + q J with p, q
rational in a. `quintic` solves the invariant surface and the map on it, :math:`\zeta \to \lambda\zeta + c_3 \zeta|\zeta|^2 +
c_5\zeta|\zeta|^4 + \dots`, order by order, for a number or for all a at once (a field of rational functions);
`closed_form` is what comes out, and `law` turns it into the amplitude and the frequency of the torus.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp
from sympy.polys.fields import FracElement

from eoslib import validate

REAL = (48, -629, 3107, -7527, 9804, -7125, 2761, -455)
IMAGINARY = (192, -2588, 13360, -34402, 48753, -40320, 19162, -4722, 405)


class _Number:
    """p + q J with J^2 = `square`; p, q from any field."""

    __slots__ = ("p", "q", "square")

    def __init__(self, p, q, square):
        self.p, self.q, self.square = p, q, square

    def __add__(self, o):
        return _Number(self.p + o.p, self.q + o.q, self.square)

    def __sub__(self, o):
        return _Number(self.p - o.p, self.q - o.q, self.square)

    def __mul__(self, o):
        return _Number(self.p * o.p + self.square * self.q * o.q, self.p * o.q + self.q * o.p, self.square)

    def inverse(self):
        norm = self.p * self.p - self.square * self.q * self.q
        return _Number(self.p / norm, -self.q / norm, self.square)

    def conjugate(self):
        return _Number(self.p, -self.q, self.square)

    def zero(self):
        return self.p == 0 and self.q == 0


def _times(P, R, order):
    """Product of two polynomials in zeta, conj zeta (dict of exponents), cut after `order`."""
    out = {}
    for (i, j), x in P.items():
        for (k, l), y in R.items():
            if i + j + k + l <= order:
                key = i + k, j + l
                out[key] = out[key] + x * y if key in out else x * y
    return out


def _plus(*parts):
    """Sum of polynomials."""
    out = {}
    for P in parts:
        for k, x in P.items():
            out[k] = out[k] + x if k in out else x
    return out


def _scale(c, P):
    """Multiple of a polynomial."""
    return {k: c * x for k, x in P.items()}


class _Model:
    """The two-step map around the cycle with low value a, at the threshold."""

    def __init__(self, a):
        zero = a - a
        n = 3 - a * a - 1 / (a * a)
        self.number = lambda p, q=zero: _Number(p + zero, q, -n)
        self.n, self.a, self.one = n, a, self.number(1)
        self.J = self.number(0, zero + 1)
        # two steps turn (b X, y) by theta: cos theta = 2 n - 1, sin theta = 2 b (1/a - a)
        self.multiplier = self.number(2 * n - 1, 2 * (1 / a - a))

    def step(self, w, order):
        """One step of (w_11, w_12 / b, w_21, w_22 / b)."""
        alpha, X, y, beta = w
        n, m = self.number(self.n), self.number(2 - self.n)
        mul, minus = lambda P, R: _times(P, R, order), self.number(-1)
        cross = _plus(mul(alpha, X), _scale(minus, mul(y, beta)))
        first = _plus(mul(alpha, alpha), _scale(minus, mul(y, y)), {(0, 0): minus * m})
        second = _plus(_scale(n, mul(X, X)), _scale(minus * n, mul(beta, beta)), {(0, 0): n})
        return (
            _plus(alpha, _scale(minus, mul(first, alpha)), _scale(minus * n, mul(cross, X))),
            _plus(X, _scale(minus, mul(cross, alpha)), _scale(minus, mul(second, X))),
            _plus(y, mul(first, y), _scale(n, mul(cross, beta))),
            _plus(beta, mul(second, beta), mul(cross, y)),
        )

    def two(self, w, order):
        return self.step(self.step(w, order), order)

    def multiplier_of(self, entry):
        """Multiplier of two steps in w_11 (entry 0) or w_22 / b (entry 3); the diagonal entries do not mix."""
        w = [{(0, 0): self.number(self.a)}, {}, {}, {(0, 0): self.one}]
        w[entry] = _plus(w[entry], {(1, 0): self.one})
        return self.two(w, 1)[entry][1, 0]


def quintic(a: Any) -> tuple:
    r"""Exact fifth-order coefficient at the threshold, for the cycle with low value a.

    Parameters
    ----------
    a : Fraction, or an element of a field of rational functions
        :math:`\sqrt\eta\,\rho_1`, below 1 and such that n = 3 - a^2 - 1/a^2 is positive: above 0.618. Of a field it is an
        unknown: ``sympy.field("a", sympy.QQ)[1]``, which takes half a minute.

    Returns
    -------
    n, real, imaginary : field elements
        :math:`n = \eta_T\sigma_2`, Re and :math:`\sin\theta`-fold Im of :math:`\bar\lambda c_5`, for :math:`2|\zeta|` the
        geometric mean of the sizes of (W_12, W_21) in the two phases.

    Raises
    ------
    ValueError
        If `a` is none of these: floats have no exact zero.
    ArithmeticError
        If the third-order coefficient is not zero, or the linear part is not a turn (neither happens).

    Examples
    --------
    >>> from fractions import Fraction
    >>> n, real, imaginary = quintic(Fraction(2, 3))
    >>> n, (real, imaginary) == closed_form(n)
    (Fraction(11, 36), True)
    """
    exact = isinstance(a, numbers.Rational) and not isinstance(a, bool)
    if not (_unknown(a) and a.field.domain.is_Exact) and not (exact and 0 < a < 1 and (3 - a * a) * a * a > 1):
        raise ValueError(
            f"a: got {validate.short(a)}, needs a Fraction below 1 with 3 - a^2 - 1/a^2 > 0, or an unknown of an exact field"
        )
    model = _Model(a)
    J, minus = model.J, model.number(-1)
    surface = [
        {(0, 0): model.number(a)},
        {(1, 0): model.one, (0, 1): model.one},
        {(1, 0): minus * J, (0, 1): J},
        {(0, 0): model.one},
    ]
    linear, lam = model.two(surface, 1), model.multiplier
    if not ((linear[1][1, 0] - lam).zero() and (linear[2][1, 0] + lam * J).zero()):
        raise ArithmeticError("the linear part is not a turn")
    for order in (2, 3, 4):
        _next_order(model, surface, order)
    value = lam.conjugate() * _along_and_against(model, model.two(surface, 5), (3, 2))[0]
    unit = 1 / (a * a * model.n * model.n)  # b |zeta| sqrt(a) is the geometric mean of the phases
    return model.n, value.p * unit, value.q * unit * lam.q * model.n  # Im = q b, sin theta = (part of lambda) b


def _next_order(model, surface, order):
    r"""Solve the terms of order 2, 3 or 4 of the invariant surface, in place.

    The map on it is the turn alone so far: at third order all terms can be solved, the resonant one too, since its
    coefficient is zero. So a term of the surface takes the factor :math:`\lambda^i\bar\lambda^j`, and nothing else reaches it.
    """
    lam = model.multiplier
    bar, moved = lam.conjugate(), model.two(surface, order)
    for i in range(order + 1):
        key, factor = (i, order - i), model.one
        for unit in [lam] * i + [bar] * (order - i):
            factor = factor * unit
        if order % 2 == 0:
            for entry in (0, 3):
                surface[entry][key] = moved[entry][key] * (factor - model.multiplier_of(entry)).inverse()
            continue
        along, against = _along_and_against(model, moved, key)
        if key == (2, 1) and not along.zero():
            raise ArithmeticError("the third-order coefficient is not zero")
        along = along if along.zero() else along * (factor - lam).inverse()
        against = against if against.zero() else against * (factor - bar).inverse()
        surface[1][key], surface[2][key] = along + against, (against - along) * model.J


def _along_and_against(model, moved, key):
    """A term of (X, y) as multiples of (1, -J), which turns with lambda, and (1, J), which turns with its conjugate."""
    half, y = (model.one + model.one).inverse(), moved[2][key] * model.J.inverse()
    return half * (moved[1][key] - y), half * (moved[1][key] + y)


def _horner(coefficients, n):
    total = 0
    for e in coefficients:
        total = total * n + e
    return total


def closed_form(n: Any) -> tuple:
    r"""Re and :math:`\sin\theta`-fold Im of :math:`\bar\lambda c_5` at :math:`n = \eta_T\sigma_2`.

    .. math::

        \mathrm{Re} &= \frac{8\,N}{(n-1)(3n^2-3n+1)(9n^3-59n^2+71n-25)}, \\
        N &= 48n^7-629n^6+3107n^5-7527n^4+9804n^3 \\
        &\quad -7125n^2+2761n-455

    and the same with 4 times the polynomial `IMAGINARY` for the second.

    Parameters
    ----------
    n : float, Fraction, mpmath or SymPy number, or an expression or element of a field with an unknown
        Between 0 and 1.

    Returns
    -------
    real, imaginary
        Of the kind of `n`; float64 for a shorter float. A float that is close to 1 has lost digits of 1 - n.

    Raises
    ------
    ValueError
        If `n` is none of these, or not between 0 and 1.

    Examples
    --------
    >>> from fractions import Fraction
    >>> closed_form(Fraction(1, 2))[0] < 0
    True
    """
    if not _unknown(n) and not (isinstance(n, sp.Expr) and n.is_commutative and n.free_symbols):
        if not isinstance(n, numbers.Real) and not (isinstance(n, sp.Expr) and n.is_real) or not 0 < n < 1:
            raise ValueError(f"n: got {validate.short(n)}, needs one number strictly between 0 and 1, or an unknown")
    n = float(n) if isinstance(n, (np.float16, np.float32)) else n
    return _closed_form(n, n - 1)


def _unknown(value):
    """Whether this is an element of a field of rational functions, and no constant."""
    return isinstance(value, FracElement) and not (value.numer.is_ground and value.denom.is_ground)


def _closed_form(n, less):
    """See `closed_form`; `less` is n - 1, of which floats lose digits near one."""
    below = less * (3 * n * n - 3 * n + 1) * (9 * n * n * n - 59 * n * n + 71 * n - 25)
    return 8 * _horner(REAL, n) / below, 4 * _horner(IMAGINARY, n) / below


@dataclass(frozen=True)
class Torus:
    r"""The torus of two layers at :math:`\eta = (1 + \varepsilon)\eta_T`, to leading order in :math:`\varepsilon`."""

    amplitude: float  # rms of P_12 = amplitude * epsilon^(1/4), in units of sigma_1
    angle: float  # angle of the multiplier per two steps at the threshold
    turning: float  # angle on the torus = angle + turning * epsilon
    linear_turning: float  # the same from the multiplier alone, as if the amplitude were zero


def law(ratio: float) -> Torus:
    r"""Amplitude and frequency of the torus of two layers just beyond :math:`\eta_T`, for :math:`\kappa = \sigma_2/\sigma_1`.

    With :math:`n = 2\kappa/(1+\kappa)` and :math:`G = \mathrm{Re}\,\bar\lambda c_5 < 0`, the multiplier has modulus
    :math:`1 + (3-n)\varepsilon` and

    .. math::

        \mathrm{rms}\,P_{12} = \frac{\sigma_1+\sigma_2}{2} \Bigl(\frac{(3-n)\varepsilon}{\lvert G\rvert}\Bigr)^{1/4}
        (1+n)^{1/2} (5-n)^{1/4}.

    Parameters
    ----------
    ratio : float
        Strictly between 0 and 1.

    Returns
    -------
    Torus

    Raises
    ------
    ValueError
        If the ratio is not inside (0, 1).

    Examples
    --------
    >>> round(law(0.9).amplitude, 4)
    0.4368
    """
    k = validate.number("ratio", ratio)
    if not 0 < k < 1:
        raise ValueError(f"ratio: got {ratio!r}, needs a number strictly between 0 and 1")
    n, rest = 2 * k / (1 + k), (1 - k) / (1 + k)  # n and 1 - n, each to all digits
    real, imaginary = _closed_form(n, -rest)
    size = (3 - n) / -real  # r^4 / epsilon
    amplitude = (1 + k) / 2 * size**0.25 * np.sqrt(1 + n) * (5 - n) ** 0.25
    sin = 2 * np.sqrt(n * rest)
    # trace tau = 2 |mu| cos(angle), with m = (2 - n)(1 + eps), n -> n (1 + eps): d tau / d eps = 6 (n - 1) at eps = 0,
    # so that with cos(angle) = 2 n - 1 the angle moves by 2 n (2 - n) / sin(angle)
    linear = (2 - n) * np.sqrt(n / rest)
    return Torus(
        amplitude=float(amplitude),
        angle=2 * float(np.arctan2(np.sqrt(rest), np.sqrt(n))),
        turning=float(linear + imaginary * size / sin),
        linear_turning=float(linear),
    )
