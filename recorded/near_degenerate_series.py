r"""Recorded run: the symmetry-breaking threshold for nearly equal singular values to second order, for symbolic depth.

The multipliers mu of the sector - are the zeros of a determinant of fixed size 2 x 2, for every depth L (see the chapter): with
z = exp(2 h), nu = mu - 1 and the two roots E of

    nu u w + d^2 (u + w - d^2) = 0,  u = (1 - p)^2 - p E,  w = (1 - P)^2 - P E,  p = rho_1 / b,  P = rho_2 / b,  d = P - p,

each root gives one column (e_1(E), e_2(E)). Here everything is expanded in h with

    sigma_2 / sigma_1 = 1 - d1 h^2 - d2 h^4,  mu = exp(i theta),  theta = theta_1 h (1 + rho h^2),

the leading theta_1^2 = 16 (L^2 - 1) / 3 and d1 from the theorem of the chapter. Coefficients are rational functions of L, polynomials
in the unknowns d2, rho and in J = i theta_1. The determinant is real + J real; its two lowest coefficients determine rho and d2.

    python recorded/near_degenerate_series.py         # about a minute and a half

`series(L)` does the same for one number L in a second or two.
"""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path

import sympy as sp

from eoslib import recorded

RECORD = Path(__file__).resolve().with_suffix(".json")
ORDER, TERMS = 11, 7  # powers of h kept, powers of E kept: terms of order h^9 of the determinant need E up to the sixth power
L = sp.Symbol("L")


class Ring:
    """Power series in h, cut after ORDER terms; coefficients are polynomials in d2, rho, J over the numbers or over Q(L)."""

    def __init__(self, depth):
        self.depth = L if depth is None else sp.Rational(depth)
        self.field = sp.QQ.frac_field(L) if depth is None else sp.QQ
        self.R, self.d2, self.rho, self.J = sp.ring("d2, rho, J", self.field)
        self.square = self.constant(-16 * (self.depth**2 - 1) / 3)  # J^2

    def constant(self, e):
        return self.R.ground_new(self.field.from_sympy(sp.cancel(sp.sympify(e))))

    def series(self, *coefficients):
        made = [e if hasattr(e, "ring") else self.constant(e) for e in coefficients[:ORDER]]
        return Series(self, made + [self.R.zero] * (ORDER - len(made)))

    def reduce(self, e):
        out = self.R.zero
        for (i, j, k), c in e.terms():
            out += self.R({(i, j, k % 2): c}) * self.square ** (k // 2)
        return out

    def apply(self, coefficient, x):
        """Sum of coefficient(k) x^k, for x without a constant term."""
        total, power = self.series(), self.series(1)
        for k in range(ORDER):
            total, power = total + coefficient(k) * power, power * x
        return total

    def exp(self, x):
        return self.apply(lambda k: 1 / sp.factorial(k), x)

    def log(self, x):
        """log(1 + x)."""
        return self.apply(lambda k: sp.Rational((-1) ** (k + 1), k) if k else 0, x)

    def even(self, n, shift=0):
        """cosh(n h), or with shift = 1 sinh(n h) / (n h)."""
        return self.apply(lambda k: 1 / sp.factorial(k + shift) if k % 2 == 0 else 0, self.series(0, n))


class Series:
    """A truncated power series; plain arithmetic."""

    def __init__(self, ring, c):
        self.ring, self.c = ring, c

    def _lift(self, o):
        return o if isinstance(o, Series) else self.ring.series(o)

    def __add__(self, o):
        return Series(self.ring, [x + y for x, y in zip(self.c, self._lift(o).c)])

    def __neg__(self):
        return Series(self.ring, [-x for x in self.c])

    def __sub__(self, o):
        return self + -self._lift(o)

    def __rsub__(self, o):
        return self._lift(o) - self

    def __mul__(self, o):
        out, other = [self.ring.R.zero] * ORDER, self._lift(o).c
        for i, x in enumerate(self.c):
            if x:
                for j, y in enumerate(other[: ORDER - i]):
                    if y:
                        out[i + j] += x * y
        return Series(self.ring, [self.ring.reduce(x) for x in out])

    __radd__, __rmul__ = __add__, __mul__

    def inverse(self):
        """1 / series, for constant term 1."""
        assert self.c[0] == 1
        return self.ring.apply(lambda k: 1, 1 - self)

    def shifted(self, k):
        """Divided by h^k."""
        assert not any(self.c[:k])
        return Series(self.ring, self.c[k:] + [self.ring.R.zero] * k)


def sines(ring, n):
    """Coefficients of sinh(n w) / (2 sinh(w / 2)) in powers of E = 2 cosh w - 2."""
    out, c = [], sp.sympify(n)
    for k in range(TERMS):
        out.append(ring.constant(c))
        c = sp.expand(c * (4 * n**2 - (2 * k + 1) ** 2)) / (4 * (2 * k + 2) * (2 * k + 3))
    return out


def determinant(depth):
    """The determinant, divided by E_1 - E_2, as a series in h."""
    ring = Ring(depth)
    l, h = ring.depth, ring.series(0, 1)
    first = 2 * l * (7 * l**2 - 10 * l + 2) / (5 * (l - 1))  # d1
    ratio = ring.log(-ring.series(0, 0, first, 0, ring.d2))
    cosh = [ring.log(ring.even(n) - 1) for n in (l - 1, 2 * l - 1)]
    log = (cosh[0] - cosh[1] - ratio) * ring.constant(1 / l)  # of sqrt(rho_1 rho_2) / b
    p, P = ring.exp(log - h), ring.exp(log + h)
    low, high = (ring.exp((log * -1 + s * h) * ring.constant(l - 1)) for s in (1, -1))  # p^(1-L), P^(1-L)
    both = ring.constant(2 / l) * ring.even(l - 1) * ring.even(1, 1) * ring.even(l, 1).inverse()
    outer = [both * ring.exp(ring.series(0, s * 2 * (l - 1))) for s in (-1, 1)]  # eta rho^(2L-2)
    nu, d = ring.exp(ring.series(0, ring.J, 0, ring.J * ring.rho)) - 1, P - p
    columns = boundary(ring, p, P, d, nu, outer, low, high)
    lead = ring.constant(1 / (-16 * (l**2 - 1) / 3)) * ring.J  # 1 / J
    top = ((nu * p * P).shifted(1) * lead).inverse() * lead
    a, b = (1 - p) * (1 - p), (1 - P) * (1 - P)
    total = (nu * (p * b + P * a) + d * d * (p + P)).shifted(1) * top  # E_1 + E_2
    product = (nu * a * b + d * d * (a + b - d * d)).shifted(1) * top  # E_1 E_2
    full, powers = [ring.series(1), total], [ring.series(1)]
    for _ in range(TERMS):
        full.append(total * full[-1] - product * full[-2])
        powers.append(powers[-1] * product)
    out = ring.series()
    for i in range(TERMS):
        for j in range(i + 1, TERMS):
            minor = columns[0][i] * columns[1][j] - columns[0][j] * columns[1][i]
            out = out + minor * powers[i] * full[j - i - 1]
    return ring, out


def boundary(ring, p, P, d, nu, outer, low, high):
    """Coefficients in E of the two boundary equations of one family, sector -."""
    l, base = ring.depth, 2 * d * d + nu * (1 + p * P)
    half, parts = sp.Rational(1, 2), []
    for place in ((1 - l) / 2, (l - 1) / 2):
        s = {k: sines(ring, place + k * half) for k in (-3, -1, 1, 3)}
        x = [
            (base + nu * p * p) * s[1][k] - (base * p + nu * P) * s[-1][k] - nu * p * s[3][k] + nu * p * P * s[-3][k]
            for k in range(TERMS)
        ]
        step = [nu * P * s[1][k] + nu * p * s[-3][k] - base * s[-1][k] for k in range(TERMS)]  # (Y - X) / d
        parts.append((x, step))
    (x, step), (x_last, step_last) = parts
    one = [d * step[k] + outer[0] * (x[k] - step_last[k] + low * step[k]) for k in range(TERMS)]
    two = []
    for k in range(TERMS):
        y, y_last = x[k] + d * step[k], x_last[k] + d * step_last[k]
        back, back_last = (nu + 1) * x[k] - y, (nu + 1) * x_last[k] - y_last
        two.append(d * back + outer[1] * (d * y + back_last - high * back))
    return one, two


def series(depth=None):
    """(rho, d2) from the two lowest coefficients of the determinant; for symbolic L, or for one number."""
    ring, out = determinant(depth)
    lowest = next(k for k, c in enumerate(out.c) if c)
    rho, d2, J = sp.symbols("rho d2 J")
    first, second = (sp.Poly(out.c[k].as_expr().subs({"d2": d2, "rho": rho, "J": J}), J) for k in (lowest, lowest + 1))
    assert first.coeff_monomial(1) == 0
    found = sp.solve(first.coeff_monomial(J), rho)
    assert len(found) == 1
    last = sp.solve(second.coeff_monomial(1).subs(rho, found[0]), d2)
    assert len(last) == 1 and sp.simplify(second.coeff_monomial(J).subs(rho, found[0])) == 0
    return sp.factor(found[0]), sp.factor(last[0])


def load(path=RECORD):
    """rho and d2 as expressions in L."""
    note = json.loads(recorded.listed(Path(path)).read_text(encoding="utf8"))
    return tuple(sp.sympify(note[key], locals={"L": L}) for key in ("rho", "d2"))


def main():
    """Compute for symbolic L and write the record."""
    began = time.process_time()
    rho, d2 = series()
    note = {
        "rho": str(rho),
        "d2": str(d2),
        "cpu_seconds": round(time.process_time() - began, 1),
        "arithmetic": "exact, coefficients in Q(L)",
        "versions": {"python": platform.python_version(), "sympy": sp.__version__},
        "machine": platform.machine(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    print(note)
    whole = RECORD.with_suffix(".json.new")
    whole.write_text(json.dumps(note, indent=1) + "\n", encoding="utf8")
    whole.replace(RECORD)
    recorded.enter(RECORD)


if __name__ == "__main__":
    main()
