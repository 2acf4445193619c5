r"""Recorded run: the exact computation behind the symmetry-breaking threshold for three and four layers.

Everything is exact, over the rational functions of z = rho_2 / rho_1 and c = b / rho_1, where rho_1 < rho_2 is the two-cycle of
mode 1 and b the layer value of mode 2 at rest, so that

    sigma_2 / sigma_1 = c^L (1 + z^(L-1)) / (1 + z^(2L-1)).

The two-step matrix of a sector has its exact ones and k = 2 or 3 further multipliers, the roots of p. On a connected set where p(1),
p(-1) and the pair resultant P = prod_{i<j} (1 - mu_i mu_j) have no zero, no multiplier can pass the unit circle. The script factors
these quantities, counts their zeros, and writes polynomials and counts to ``transverse_certificate.json``.

    python recorded/transverse_certificate.py          # about two minutes

`load` reads the record; `count` counts roots by the rule of signs (its own code, integers only).
"""

from __future__ import annotations

import json
import platform
import time
from fractions import Fraction
from math import lcm
from pathlib import Path

import sympy as sp

from eoslib import recorded

RECORD = Path(__file__).resolve().with_suffix(".json")
END = {3: Fraction(1585, 1000), 4: Fraction(13, 10)}  # z up to which the statement is shown; z_4 is 1.28787 and 1.18715
z, c, y, C = sp.symbols("z c y C")


def cycle_data(depth, z):
    """(eta rho^(2L-2), kappa / c, eta r rho^(L-2)) at the two points of the cycle, in terms of z."""
    Z = sum(z**i for i in range(depth))
    low = (1 + z ** (1 - depth)) / Z, 1, 1 - z
    high = z ** (depth - 1) * (1 + z ** (depth - 1)) / Z, 1 / z, 1 - 1 / z
    return low, high


def factor(depth, sign, z, c, phase):
    """One step in a sector, as a list of rows; exact for exact arguments."""
    outer, ratio, residual = cycle_data(depth, z)[phase]
    kappa = c * ratio

    def entry(i, j):
        corner = kappa ** (i + j - depth) if i + j >= depth else 0
        return int(i == j) - outer * kappa ** (i + j) - sign * residual * corner

    return [[entry(i, j) for j in range(depth)] for i in range(depth)]


def characteristic(depth, sign):
    """Coefficients of prod (x - mu_i) over the multipliers that are not exactly 1, highest power first; rational in z, c."""
    one, two = (sp.Matrix(factor(depth, sign, z, c, phase)) for phase in (0, 1))
    coefficients = (two * one).applyfunc(sp.cancel).to_DM().to_field()
    x = sp.Symbol("x")
    whole = sp.Poly([coefficients.domain.to_sympy(e) for e in coefficients.charpoly()], x)
    for _ in range((depth if sign == 1 else depth - 1) // 2):
        quotient = [sp.Integer(1)]
        for e in whole.all_coeffs()[1:]:
            quotient.append(sp.cancel(quotient[-1] + e))
        assert quotient.pop() == 0  # 1 is a root
        whole = sp.Poly(quotient, x)
    return [sp.factor(e) for e in whole.all_coeffs()]


def conditions(p):
    """p(1), (-1)^k p(-1) and the pair resultant."""
    k = len(p) - 1
    at_one, at_minus = sum(p), (-1) ** k * sum(e * (-1) ** (k - i) for i, e in enumerate(p))
    if k == 2:
        pairs = 1 - p[2]
    else:
        e1, e2, e3 = -p[1], p[2], -p[3]
        pairs = 1 - e2 + e1 * e3 - e3**2
    return tuple(sp.factor(sp.cancel(e)) for e in (at_one, at_minus, pairs))


def main_factor(e):
    """The factor of the numerator of e with the largest degree in c."""
    factors = [f for f, _ in sp.factor_list(sp.numer(e))[1] if f.has(c)]
    return max(factors, key=lambda f: sp.Poly(f, z, c).total_degree())


def terms(f, *variables):
    """A polynomial as a list of [exponent, ..., integer as text]."""
    return [[*map(int, powers), str(e)] for powers, e in sp.Poly(f, *variables).terms()]


def product(e):
    """A rational function of z, c as a list of [terms, exponent]; its value is the product of the powers."""
    top, bottom = sp.fraction(sp.together(e))
    factors = []
    for f, side in ((top, 1), (bottom, -1)):
        constant, parts = sp.factor_list(f, z, c)
        factors += [[terms(constant, z, c), side], *([terms(g, z, c), side * int(k)] for g, k in parts)]
    return factors


class Setting:
    """Variables in which the curves of one depth are written: (z, c) for three layers, (C, y) for four."""

    def __init__(self, depth):
        self.depth, self.end = depth, END[depth]
        if depth == 3:
            self.base, self.fibre, self.low, self.high = z, c, Fraction(1), END[3]
            self.ratio = c**3 * (1 + z**2) / (1 + z**5)
            u = sp.Symbol("u")  # rho_1 / sigma_1^(1/3)
            P = (1 + z**2) / (1 + z**5)
            printed = (z - 1) * (1 + c**2 * u**2 + c**4 * P * u) - 2 * (1 - P) * u  # eta lambda_12 = 2
            self.rest = 3 * c**4 * (1 + z**2) - 2 * z**2 * (z**2 + z + 1)  # eta S_2 = 2
            self.printed = sp.resultant(sp.numer(sp.together(printed)), (1 + z**5) * u**3 - (1 + z**2), u)
        else:
            self.base, self.fibre, self.low, self.high = C, y, Fraction(2), END[4] + 1 / END[4]
            cubic = C**3 - C**2 - 2 * C + 1
            P = (C - 1) / cubic
            self.ratio = y**2 * P
            printed = cubic**2 * (1 + y**2 * P) ** 2 - P * (2 * C - cubic * y - cubic * y**3 * P) ** 2
            self.printed = sp.numer(sp.together(printed))
            self.rest = 2 * y**3 * (C - 1) - C

    def write(self, f):
        """A polynomial in z, c in the variables of the setting, its positive factors without the fibre dropped."""
        if self.depth == 3:
            return sp.expand(f)
        factors = [g for g, _ in sp.factor_list(reduced(f))[1] if g.has(y)]
        assert len(factors) == 1
        return factors[0]

    def roots(self, e, high=None):
        """Irreducible factors of a polynomial in the base variable, and the number of its roots in the window."""
        factors = [integers(sp.Poly(f, self.base)) for f, _ in sp.factor_list(e)[1] if f.has(self.base)]
        high = self.high if high is None else high
        found = sum(count(f, self.low, high) for f in factors)
        return {"factors": [[str(k) for k in f] for f in factors], "high": str(high), "roots": found}

    def on_fibre(self, f, at):
        """Coefficients of f over the fibre at one rational point of the base."""
        return integers(sp.Poly(f.subs(self.base, sp.Rational(at.numerator, at.denominator)), self.fibre))

    def top(self, at):
        """Two rationals, 1e-9 apart, between which the fibre reaches sigma_2 = sigma_1."""
        value_at = self.ratio.subs(self.base, sp.Rational(at.numerator, at.denominator))
        k = 3 if self.depth == 3 else 2
        whole = int(sp.floor(sp.N((1 / value_at.coeff(self.fibre**k)) ** sp.Rational(1, k) * 10**9, 30)))
        return Fraction(whole, 10**9), Fraction(whole + 1, 10**9)


def curve(setting, e):
    """One condition: the rational function, its curve, the critical points of the base, and the number of zeros over each base point."""
    f = main_factor(e)
    g = setting.write(f)
    poly, edge = sp.Poly(g, setting.fibre), sp.numer(sp.together(setting.ratio - 1))
    critical = {
        "discriminant": sp.discriminant(g, setting.fibre),
        "leading": poly.LC(),
        "zero": poly.eval(0),
        "equal": sp.resultant(g, edge, setting.fibre),
    }
    at = (setting.low + setting.high) / 2
    low, high = setting.top(at)
    line = setting.on_fibre(g, at)
    assert count(line, low, high) == 0 and value(line, low) != 0
    return {
        "condition": product(e),
        "curve": terms(g, setting.base, setting.fibre),
        "critical": {name: setting.roots(sp.sympify(w)) for name, w in critical.items()},
        "sample": str(at),
        "top": str(low),
        "zeros": count(line, 0, low),
    }, g


def along(setting, g, p):
    """The curve of the threshold is monotone and meets neither eta lambda_12 = 2 nor eta S_2 = 2; inside the window no angle of 60."""
    base, fibre, ratio = setting.base, setting.fibre, setting.ratio
    slope = sp.diff(g, fibre) * sp.diff(ratio, base) - sp.diff(g, base) * sp.diff(ratio, fibre)
    slope = sp.numer(sp.cancel(sp.together(slope / ratio * fibre)))
    cosine = -p[1] - 1 if len(p) == 3 else -p[1] + p[3] - 1  # 2 cos theta - 1 where the pair resultant vanishes
    sixth = setting.write(main_factor(sp.cancel(sp.together(cosine))))
    window = Fraction(12879, 10000) if setting.depth == 3 else Fraction(11872, 10000) + Fraction(10000, 11872)
    names = {
        "monotone": (slope, None),
        "printed": (setting.printed, None),
        "rest": (setting.rest, None),
        "sixth": (sixth, window),
    }
    out = {}
    for name, (f, high) in names.items():
        out[name] = {"curve": terms(f, base, fibre), "degree": None} | setting.roots(sp.resultant(g, f, fibre), high)
        out[name]["degree"] = sum(len(k) - 1 for k in out[name]["factors"])
    return out


def compute(depth):
    """Everything for one depth, with the seconds it took."""
    began, setting, out = time.process_time(), Setting(depth), {}
    for sign in (1, -1):
        p = characteristic(depth, sign)
        at_one, at_minus, pairs = conditions(p)
        out[str(sign)] = {"one": product(at_one)}
        out[str(sign)]["minus"], _ = curve(setting, at_minus)
        out[str(sign)]["pair"], g = curve(setting, pairs)
        if sign == -1:
            out["threshold"] = along(setting, g, p)
    return out | {"seconds": round(time.process_time() - began, 1)}


def reduced(f):
    """The same polynomial for even depth, in y = c^2 / z and C = z + 1/z: it is palindromic in z."""
    terms = sp.Poly(f, c).terms()
    assert all(k % 2 == 0 for (k,), _ in terms)
    p = sp.Poly(sp.expand(sum(e * (y * z) ** (k // 2) for (k,), e in terms)), z)
    low, high = min(m for (m,) in p.monoms()), max(m for (m,) in p.monoms())
    middle, half = (low + high) // 2, (high - low) // 2
    powers = [sp.Integer(2), C]
    for _ in range(half):
        powers.append(sp.expand(C * powers[-1] - powers[-2]))
    part = lambda i: p.coeff_monomial(z**i)
    assert all(sp.expand(part(middle + k) - part(middle - k)) == 0 for k in range(half + 1))
    return sp.expand(part(middle) + sum(part(middle + k) * powers[k] for k in range(1, half + 1)))


def integers(poly):
    """Integer coefficients without common factor, highest power first."""
    return [int(e) for e in sp.Poly(poly).clear_denoms(convert=True)[1].primitive()[1].all_coeffs()]


def count(coefficients, low, high):
    """Number of distinct roots in the open interval (low, high) of a square-free integer polynomial.

    Descartes' rule of signs after x = low + (high - low) / (1 + t), with bisection until it gives 0 or 1; integers only.
    """
    low, high = Fraction(low), Fraction(high)
    q = lcm(low.denominator, high.denominator)
    a, width, n = int(low * q), int((high - low) * q), len(coefficients) - 1
    scaled = shift([e * q**k for k, e in enumerate(coefficients)][::-1], a)  # q^n f((a + X) / q), lowest power first
    shifted = shift([e * width**k for k, e in enumerate(scaled)][::-1], 1)
    signs = [e > 0 for e in shifted if e]
    changes = sum(s != t for s, t in zip(signs, signs[1:]))
    if changes <= 1:
        return changes
    middle = (low + high) / 2
    return count(coefficients, low, middle) + count(coefficients, middle, high) + (value(coefficients, middle) == 0)


def shift(p, a):
    """Coefficients of p(x + a), lowest power first, by repeated Horner steps."""
    p = list(p)
    for i in range(len(p) - 1):
        for k in range(len(p) - 2, i - 1, -1):
            p[k] += a * p[k + 1]
    return p


def value(coefficients, x):
    """Value of a polynomial, highest power first, exact."""
    total = Fraction(0)
    for e in coefficients:
        total = total * x + e
    return total


def evaluate(listed, *at):
    """Value of a polynomial of the record (a list of [exponent, ..., integer as text]) at numbers; exact for exact numbers."""
    total = 0
    for *powers, e in listed:
        part = int(e)
        for x, k in zip(at, powers):
            part = part * x**k
        total = total + part
    return total


def evaluate_product(factors, *at):
    """Value of a condition of the record."""
    total = Fraction(1)
    for listed, power in factors:
        total *= evaluate(listed, *at) ** power
    return total


def conditions_at(depth, sign, z, c):
    """p(1), (-1)^k p(-1) and the pair resultant at two Fractions, from the matrices alone (Faddeev and Le Verrier's method)."""
    one, two = (factor(depth, sign, z, c, phase) for phase in (0, 1))
    multiply = lambda A, B: [[sum(x * y for x, y in zip(row, column)) for column in zip(*B)] for row in A]
    M, p, power = multiply(two, one), [Fraction(1)], None
    for k in range(1, depth + 1):
        power = M if power is None else multiply(M, power)
        p.append(-sum(power[i][i] for i in range(depth)) / k)
        power = [[e + (p[-1] if i == j else 0) for j, e in enumerate(row)] for i, row in enumerate(power)]
    for _ in range((depth if sign == 1 else depth - 1) // 2):  # divide by x - 1
        quotient = [p[0]]
        for e in p[1:]:
            quotient.append(quotient[-1] + e)
        assert quotient.pop() == 0
        p = quotient
    k = len(p) - 1
    minus = (-1) ** k * sum(e * (-1) ** (k - i) for i, e in enumerate(p))
    if k == 2:
        return sum(p), minus, 1 - p[2]
    e1, e2, e3 = -p[1], p[2], -p[3]
    return sum(p), minus, 1 - e2 + e1 * e3 - e3**2


def same_zeros(first, second, factors, prime):
    """Whether the resultant of two curves over the fibre and the recorded factors vanish at the same residues of the base."""
    fibre = sp.Symbol("fibre")
    for at in range(prime):
        degrees = [max(j for _, j, _ in listed) for listed in (first, second)]
        lines = []
        for listed, degree in zip((first, second), degrees):
            coefficients = [0] * (degree + 1)
            for i, j, e in listed:
                coefficients[degree - j] += int(e) * pow(at, i, prime)
            lines.append(sp.Poly(coefficients, fibre, modulus=prime))
        if all(line.degree() < degree for line, degree in zip(lines, degrees)):
            continue  # both leading coefficients vanish: the resultant of the reduced pair is another
        resultant = 0 if any(line.is_zero for line in lines) else lines[0].resultant(lines[1])
        known = any(value([int(e) for e in f], at) % prime == 0 for f in factors)
        if (int(resultant) % prime == 0) != known:
            return False
    return True


def load(path=RECORD):
    """The record: a dict by depth ("3", "4"), and "note"."""
    return json.loads(recorded.listed(Path(path)).read_text(encoding="utf8"))


def main():
    """Compute and write the record."""
    parts = {str(depth): compute(depth) for depth in END}
    note = {
        "versions": {"python": platform.python_version(), "sympy": sp.__version__},
        "machine": platform.machine(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "arithmetic": "exact: integers and rational functions",
    }
    whole = RECORD.with_suffix(".json.new")
    whole.write_text(json.dumps(parts | {"note": note}, separators=(",", ":")) + "\n", encoding="utf8")
    whole.replace(RECORD)
    recorded.enter(RECORD)
    for depth, part in parts.items():
        for sign in ("1", "-1"):
            for name in ("minus", "pair"):
                critical = {k: w["roots"] for k, w in part[sign][name]["critical"].items()}
                print(depth, sign, name, "critical points", critical, "zeros on the fibre", part[sign][name]["zeros"])
        found = {k: (w["degree"], w["roots"]) for k, w in part["threshold"].items()}
        print(depth, "(degree, roots in the window)", found, part["seconds"], "s")


if __name__ == "__main__":
    main()
