"""What an explorer shows at its first setting, as a picture: for paper, and where scripts do not run.

Drawn with the library, not with the explorer's script, whose read-out a test compares with the sentences here.
"""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import brentq

from eoslib import descent, hessian, network, scalar
from eoslib.plot import COLOURS


_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Still:
    """A picture, what it shows in words, and its caption, whose last part is the explorer's own read-out."""

    figure: Figure
    alt: str
    caption: str
    status: str

    def as_html(self, name: str) -> str:
        """The picture, which a build may keep as the file `name`, and its caption."""
        drawing = io.BytesIO()
        self.figure.savefig(drawing, format="svg", dpi=120, metadata={"Date": None})
        source = "data:image/svg+xml;base64," + base64.b64encode(drawing.getvalue()).decode("ascii")
        text = html.escape(f"{self.caption} {self.status}")
        return f'<img src="{source}" data-file="{name}.svg" alt="{html.escape(self.alt)}"><figcaption>{text}</figcaption>'


def one_mode(rate: float, depth: int, start: float) -> Still:
    """Cobweb, first steps and bifurcation diagram of the one-mode map at q = `rate`."""
    orbit = scalar.orbit(start, 1.0, depth, rate / depth, 2000).states
    cycle = scalar.two_cycle(1.0, depth, rate / depth)
    root = brentq(lambda u: _printed(u, rate, depth), 0.3, 0.99)
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.subplot_mosaic([["web", "steps"], ["web", "tree"]], width_ratios=(1, 1.2))
    grid, web = np.linspace(0, 1.7, 171), axes["web"]
    web.plot([0, 1.7], [0, 1.7], color=COLOURS["grey"], linewidth=0.8)
    web.plot(grid, scalar.step(grid, 1.0, depth, rate / depth), color=COLOURS["blue"])
    path = np.repeat(np.concatenate([orbit[:40], orbit[-60:]]), 2)
    web.plot(path[:-1], np.concatenate([[0], path[2:]]), color=COLOURS["orange"], linewidth=0.7)
    web.plot([cycle.low, cycle.high], [cycle.high, cycle.low], "o", color=COLOURS["green"], label="exact two-cycle")
    after = float(scalar.step(root, 1.0, depth, rate / depth))
    web.plot(root, after, "x", color="black", markersize=7, label="root of the printed g")
    web.legend(loc="upper left", fontsize=8)
    web.set(xlabel="$u$", ylabel="next $u$", xlim=(0, 1.7), ylim=(0, 1.7), aspect="equal")
    axes["steps"].plot(orbit[:120], ".-", color=COLOURS["orange"], linewidth=0.7, markersize=3)
    axes["steps"].set(xlabel="step $t$", ylabel="$u$", ylim=(0, 1.7))
    rates = np.linspace(1.5, 4.4, 291)
    ends = scalar.orbit(start, 1.0, depth, rates / depth, 524, keep=24).states
    axes["tree"].plot(rates, ends, ",", color=COLOURS["grey"], rasterized=True)
    axes["tree"].axvline(rate, color="black", linestyle="--", linewidth=0.8)
    axes["tree"].set(xlabel=r"$q = \eta S$", ylabel="last $u$", xlim=(1.5, 4.4), ylim=(0, 1.7))
    return Still(
        figure,
        "Left, a curve with one hump; between it and the diagonal a staircase climbs from 0.3 to a square with two green corners, "
        "past a cross on the curve. Upper right, an orbit that rises and then jumps between two values. Lower right, one line "
        "that splits at two into two branches and beyond 2.5 into a band of dots, with a dashed line at the present rate.",
        f"The explorer at its first setting, q = {rate:g}, L = {depth}, start {start:g}; on the page these three move. Left: the "
        "map, an orbit on it, the exact two-cycle and the root of the printed g. Right: the first steps of the orbit, which "
        "settles on the exact cycle, and the last values over all rates.",
        f"After 2000 steps: {orbit[-2]:.6f}, then {orbit[-1]:.6f}. Exact two-cycle: {cycle.low:.6f} and {cycle.high:.6f}; lower "
        f"root of the printed g: {root:.6f}.",
    )


def two_modes(rate: float, ratio: float, depth: int, seed: int, second: float, threshold: float) -> Still:
    """Two modes sorted by size, with an off-diagonal seed of 10^(-`seed`); `second` and `threshold` are rates q."""
    W = np.stack([np.diag([1.02, ratio ** (1 / depth)])] * depth)
    W[0, 0, 1] = 10.0**-seed
    run = descent.descend(W, np.diag([1.0, ratio]), rate / depth, 4000, observe={"product": network.product})
    off = np.log10(np.maximum(np.abs(run.observed["product"][::10, 0, 1]), 1e-18))
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    ruler, values, outside = figure.subplots(3, 1, height_ratios=(0.25, 1.2, 1))
    for place, colour, line in ((second, "purple", "-"), (threshold, "blue", "-"), (rate, None, "--")):
        ruler.axvline(place, color=COLOURS.get(colour, "black"), linestyle=line)
    ruler.set(xlim=(2.0, 2.6), yticks=[], xlabel=r"$q = \eta S$")
    times = np.arange(3921, 4001)
    for mode, colour in enumerate(("blue", "orange")):
        values.plot(times, run.singular_values[-80:, mode], ".-", color=COLOURS[colour], linewidth=0.7, markersize=3)
    values.set(xlabel="step $t$", ylabel="product")
    outside.plot(np.arange(0, 4001, 10), off, color=COLOURS["green"], linewidth=0.8)
    outside.set(xlabel="step $t$", ylabel=r"$\log_{10}$ off-diagonal", ylim=(-18, 1))
    grown, size = off[-1] > -2, "10⁻" + str(seed).translate(_RAISED)
    return Still(
        figure,
        "Three panels. A ruler from 2 to 2.6 with a purple and a blue line close together and a dashed line just beyond them. "
        "Below it two series of values of the product over the last 80 steps, which jump at every step. At the bottom a curve "
        "that rises from minus eight in a straight line and then stays near minus one.",
        f"The explorer at its first setting, q = {rate:g}, ratio {ratio:g}, L = {depth}, an off-diagonal seed of {size}, values "
        "sorted by size; on the page these five move. Top: the rates, dashed the one chosen. Middle: the values of the product in the last 80 of 4000 steps. "
        "Bottom: its off-diagonal entry.",
        f"Second eigenvalue: q = {second:.4f} (purple). Alignment is lost from q = {threshold:.4f} on (blue). At q = {rate:.3f} the "
        f"off-diagonal entry {'has grown: both values move' if grown else 'has not grown in 4000 steps'}.",
    )


def valley(rate: float, first: float, second: float) -> Still:
    """Descent on the smallest example from (`first`, `second`): the plane, sharpness, loss and gap."""
    start = np.array([first, second]).reshape(2, 1, 1)
    watch = {"a": lambda W: W[..., 0, 0, 0], "b": lambda W: W[..., 1, 0, 0]}
    run = descent.descend(start, np.eye(1), rate, 300, observe=watch)
    a, b = run.observed["a"], run.observed["b"]
    sharpness = (a * a + b * b) / 2 + np.hypot((a * a - b * b) / 2, 2 * a * b - 1)
    grid = np.linspace(0, 3.2, 161)
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.subplot_mosaic([["plane", "sharp"], ["plane", "loss"]], width_ratios=(1.1, 1))
    plane = axes["plane"]
    height = np.log10(0.5 * (np.outer(grid, grid) - 1) ** 2 + 1e-3)
    plane.imshow(height, origin="lower", extent=(0, 3.2, 0, 3.2), cmap="gray", alpha=0.55, interpolation="none")
    x = np.linspace(0.32, 3.15, 284)
    for colour, where, name in (
        ("orange", x * x + x**-2.0 >= 2 / rate, r"minima sharper than $2/\eta$"),
        ("green", x * x + x**-2.0 < 2 / rate, r"minima flatter than $2/\eta$"),
    ):
        if where.any():
            plane.plot(x, np.where(where, 1 / x, np.nan), color=COLOURS[colour], linewidth=3, label=name)
    plane.plot(a, b, color=COLOURS["blue"], linewidth=0.7)
    plane.plot(a[:60], b[:60], ".", color=COLOURS["blue"], markersize=3)  # the others lie on these
    plane.plot(first, second, "o", color="black", markersize=7)
    plane.legend(loc="upper right", fontsize=8)
    plane.set(xlabel="$a$", ylabel="$b$", xlim=(0, 3.2), ylim=(0, 3.2))
    axes["sharp"].plot(sharpness, color=COLOURS["blue"], linewidth=0.8)
    axes["sharp"].axhline(2 / rate, color="black", linestyle="--", linewidth=0.8)
    axes["sharp"].set(xlabel="step $t$", ylabel="sharpness")
    gap = a * a - b * b
    for values, colour in ((run.loss, "blue"), (np.abs(gap), "orange")):
        axes["loss"].plot(np.log10(np.maximum(values, 1e-18)), color=COLOURS[colour], linewidth=0.8)
    axes["loss"].set(xlabel="step $t$; loss blue, gap orange", ylabel=r"$\log_{10}$")
    power = f"{gap[-1]:.2e}".split("e")
    return Still(
        figure,
        "Left, a grey valley along the curve ab = 1, drawn in orange, with a path that starts at a black dot below the curve, "
        "jumps across it and ends on the diagonal. Upper right, the sharpness jumps about a dashed line. Lower right, the loss "
        "stays level while the gap falls in a straight line.",
        f"The explorer at its first setting, η = {rate:g} and start ({first:g}, {second:g}); on the page both move, the start by "
        "dragging. Left: the loss (grey), its minima, and 300 steps of descent. Right: the sharpness beside 2/η (dashed), the loss and the gap.",
        f"2/η = {2 / rate:.3f}. After 300 steps: sharpness {hessian.sharpness(run.weights, np.eye(1)):.3f}, gap a² − b² = "
        f"{power[0]}e{int(power[1])}, at first {first**2 - second**2:.2f}.",
    )


def _printed(u, q, depth):
    """The printed g in units of the target."""
    z = 1 + q * (1 - u**depth) * u ** (depth - 2)
    return u**depth * (1 + z ** (2 * depth - 1)) / (1 + z ** (depth - 1)) - 1
