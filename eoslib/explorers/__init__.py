r"""Explorers: small interactive figures that iterate the maps live, in a static page or in JupyterLab, without a server.

Each is a Bokeh layout whose sliders run a few lines of JavaScript (the ``.js`` files beside this one). What it shows
last is kept in a data source named ``state``, so that a test can compare it with the library.
Bokeh is an optional dependency (extra ``book``).
"""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np

from eoslib import transverse
from eoslib.plot import COLOURS

from . import _stills

_HERE = Path(__file__).resolve().parent
_SCRIPTS = ("bokeh", "bokeh-widgets")
_RATIOS = np.round(np.arange(0.80, 0.985, 0.01), 2)
_DEPTHS = (2, 3)


class Explorer:
    """A Bokeh document in a frame of its own, and a still of it for paper and for readers without scripts.

    As text it is constant, so that stored outputs can be compared.
    """

    def __init__(self, layout, name: str, height: int, still: _stills.Still):
        self.layout, self.name, self.height, self.still = layout, name, height, still

    def __repr__(self) -> str:
        return f"explorer: {self.name}"

    def _repr_html_(self) -> str:
        from bokeh.embed import components
        from bokeh.resources import Resources

        script, div = components(self.layout)
        sources = Resources(mode="inline", components=list(_SCRIPTS)).js_raw
        libraries = "".join(f'<script data-bokeh="{n}">{s}</script>' for n, s in zip(_SCRIPTS, sources, strict=False))
        page = (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{self.name}</title>'
            '<meta name="viewport" content="width=device-width">'
            "<style>body{margin:0;background:#fff;color:#222;font:15px sans-serif}</style>"
            f"{libraries}</head><body><main>{div}</main>{script}</body></html>"
        )
        still = self.still.as_html(f"explorer-{self.name.replace(' ', '-')}")
        return (
            f'<iframe class="explorer" title="Explorer: {self.name}" loading="lazy" '
            f'style="width:100%;height:{self.height}px;border:0" srcdoc="{html.escape(page)}"></iframe>'
            f'<figure class="explorer-still" style="display:none">{still}</figure>'
            "<noscript><style>iframe.explorer{display:none}figure.explorer-still{display:block!important}</style></noscript>"
        )


def one_mode() -> Explorer:
    """The one-mode map: cobweb, series, bifurcation diagram with a cursor, the exact two-cycle and the printed root.

    Examples
    --------
    >>> one_mode()
    explorer: one mode
    """
    from bokeh.models import ColumnDataSource, Span

    rate, depth, start = 2.3, 3, 0.3
    controls = {
        "rate": _slider("q = ηS, learning rate times sharpness", 1.5, 4.4, rate, 0.01),
        "depth": _slider("L, number of layers", 2, 8, depth, 1),
        "start": _slider("u₀, start", 0.02, 1.6, start, 0.01),
    }
    names = ("curve", "cobweb", "series", "diagram", "cycle", "printed")
    sources = {name: ColumnDataSource({"x": [0.0, 1.0], "y": [0.5, 1.0]}) for name in names}
    sources["state"] = ColumnDataSource({"key": [], "value": []}, name="state")
    cursor = Span(location=rate, dimension="height", line_color="black", line_dash="dashed")

    web = _figure("u", "next u", x_range=(0, 1.7), y_range=(0, 1.7), height=300)
    web.line([0, 1.7], [0, 1.7], color="#767676")
    web.line("x", "y", source=sources["curve"], color=COLOURS["blue"], line_width=2)
    web.line("x", "y", source=sources["cobweb"], color=COLOURS["orange"], line_alpha=0.7)
    web.scatter("x", "y", source=sources["cycle"], color=COLOURS["green"], size=9, legend_label="exact two-cycle")
    web.scatter("x", "y", source=sources["printed"], color="#000000", marker="x", size=11, legend_label="root of the printed g")
    web.legend.location = "bottom_right"
    steps = _figure("step t", "u", y_range=(0, 1.7), height=190)
    steps.line("x", "y", source=sources["series"], color=COLOURS["orange"])
    steps.scatter("x", "y", source=sources["series"], color=COLOURS["orange"], size=4)
    tree = _figure("q = ηS", "last values of u", x_range=(1.5, 4.4), y_range=(0, 1.7), height=220)
    tree.scatter("x", "y", source=sources["diagram"], color=COLOURS["grey"], size=1)
    tree.add_layout(cursor)
    still = _stills.one_mode(rate, depth, start)
    return _finish("one mode", 905, controls, sources | {"cursor": cursor}, [web, steps, tree], still)


def two_modes() -> Explorer:
    r"""Two modes near the threshold: where alignment is lost, by size, by mode, and for an exactly diagonal target.

    Two by two layers, first target value one. The thresholds come from `transverse.threshold` and
    `transverse.pair_eigenvalue`, computed once for every ratio that the slider offers.

    Examples
    --------
    >>> two_modes()
    explorer: two modes
    """
    from bokeh.models import ColumnDataSource, RadioButtonGroup, Span

    rate, ratio, depth, seed = 2.16, 0.90, 3, 8
    controls = {
        "rate": _slider("q = ηS, learning rate times sharpness", 2.0, 2.6, rate, 0.002),
        "ratio": _slider("σ₂/σ₁, ratio of the target's values", 0.80, 0.98, ratio, 0.01),
        "depth": _slider("L, number of layers", 2, 3, depth, 1),
        "seed": _slider("k, where the off-diagonal seed is 10⁻ᵏ", 3, 16, seed, 1),
        "view": RadioButtonGroup(labels=["sorted by size", "by mode", "exactly diagonal"], active=0),
    }
    table = {"ratio": np.tile(_RATIOS, 2), "depth": np.repeat(_DEPTHS, len(_RATIOS))}
    pairs = [((1.0, r), d) for r, d in zip(table["ratio"], table["depth"], strict=True)]
    table["eta_t"] = [d * transverse.threshold(values, d) for values, d in pairs]
    table["second"] = [2 * d / transverse.pair_eigenvalue(values, d) for values, d in pairs]
    names = ("first", "other", "off")
    sources = {name: ColumnDataSource({"x": [0.0, 1.0], "y": [0.5, 1.0]}) for name in names}
    sources["table"] = ColumnDataSource(table)
    sources["state"] = ColumnDataSource({"key": [], "value": []}, name="state")
    spans = {n: Span(location=2.1, dimension="height", line_color=COLOURS[c]) for n, c in (("at_second", "purple"), ("at_eta_t", "blue"))}
    spans["cursor"] = Span(location=rate, dimension="height", line_color="black", line_dash="dashed")

    ruler = _figure("q: yours dashed, 2/λ₂ purple, η_T blue", "", x_range=(2.0, 2.6), y_range=(0, 1), height=90)
    ruler.yaxis.visible = False
    for span in spans.values():
        ruler.add_layout(span)
    values = _figure("step t", "values of the product", height=260)
    for name, colour in (("first", "blue"), ("other", "orange")):
        values.line("x", "y", source=sources[name], color=COLOURS[colour])
        values.scatter("x", "y", source=sources[name], color=COLOURS[colour], size=4)
    off = _figure("step t", "log₁₀ |off-diagonal entry|", y_range=(-18, 1), height=200)
    off.line("x", "y", source=sources["off"], color=COLOURS["green"])
    row = pairs.index(((1.0, ratio), depth))
    still = _stills.two_modes(rate, ratio, depth, seed, table["second"][row], table["eta_t"][row])
    return _finish("two modes", 850, controls, sources | spans, [ruler, values, off], still)


def valley() -> Explorer:
    r"""Gradient descent on :math:`\tfrac12(ab - 1)^2`: drag the start, choose the rate; loss, sharpness and gap follow.

    Examples
    --------
    >>> valley()
    explorer: valley
    """
    from bokeh.models import ColumnDataSource, PointDrawTool

    rate, first, second = 1.05, 1.4, 0.5  # from here the orbit hops in view, and ends balanced
    controls = {
        "rate": _slider("η, learning rate", 0.05, 1.5, rate, 0.01),
        "first": _slider("a₀, start", 0.05, 3.0, first, 0.01),
        "second": _slider("b₀, start", 0.05, 3.0, second, 0.01),
    }
    names = ("flat", "sharp", "path", "loss", "sharpness", "edge", "gap")
    sources = {name: ColumnDataSource({"x": [0.0, 1.0], "y": [0.5, 1.0]}) for name in names}
    sources["start"] = ColumnDataSource({"x": [first], "y": [second]})
    sources["state"] = ColumnDataSource({"key": [], "value": []}, name="state")

    grid = np.linspace(0, 3.2, 161)
    loss = 0.5 * (np.outer(grid, grid) - 1) ** 2
    plane = _figure("a", "b", x_range=(0, 3.2), y_range=(0, 3.2), height=360)
    plane.image([np.log10(loss + 1e-3)], x=0, y=0, dw=3.2, dh=3.2, palette="Greys256", alpha=0.55)
    plane.line("x", "y", source=sources["sharp"], color=COLOURS["orange"], line_width=4, legend_label="minima sharper than 2/η")
    plane.line("x", "y", source=sources["flat"], color=COLOURS["green"], line_width=4, legend_label="minima flatter than 2/η")
    plane.line("x", "y", source=sources["path"], color=COLOURS["blue"])
    plane.scatter("x", "y", source=sources["path"], color=COLOURS["blue"], size=4)
    handle = plane.scatter("x", "y", source=sources["start"], color="black", size=13)
    drag = PointDrawTool(renderers=[handle], add=False)
    plane.add_tools(drag)
    plane.toolbar.active_tap = drag
    curves = _figure("step t", "sharpness; dashed: 2/η", height=190)
    curves.line("x", "y", source=sources["sharpness"], color=COLOURS["blue"])
    curves.line("x", "y", source=sources["edge"], color="black", line_dash="dashed")
    falls = _figure("step t; loss blue, gap orange", "log₁₀ loss, gap", height=190)
    falls.line("x", "y", source=sources["loss"], color=COLOURS["blue"])
    falls.line("x", "y", source=sources["gap"], color=COLOURS["orange"])
    still = _stills.valley(rate, first, second)
    return _finish("valley", 940, controls, sources, [plane, curves, falls], still, drag="start")


def _figure(x, y, **options):
    from bokeh.plotting import figure

    plot = figure(x_axis_label=x, y_axis_label=y, tools="", toolbar_location=None, sizing_mode="stretch_width", **options)
    plot.grid.grid_line_color = "#E6E6E6"
    return plot


def _slider(title, start, end, value, step):
    from bokeh.models import Slider

    return Slider(
        title=title,
        start=start,
        end=end,
        value=value,
        step=step,
        sizing_mode="stretch_width",
        margin=(5, 12, 5, 5),  # room for the handle at the right end
    )


def _finish(name, height, controls, models, plots, still, *, drag=None):
    """Join controls, read-out and plots; the script runs when the document is ready and on every change."""
    from bokeh.document import Document
    from bokeh.events import DocumentReady
    from bokeh.layouts import column
    from bokeh.models import CustomJS, Div

    text = Div(text="", sizing_mode="stretch_width", name="text")
    code = (_HERE / f"{name.replace(' ', '_')}.js").read_text(encoding="utf8")
    callback = CustomJS(args=controls | models | {"text": text}, code=code)
    for key, control in controls.items():
        control.name = key
        control.js_on_change("active" if "active" in control.properties() else "value", callback)
    if drag:
        move = "if (start.data.x.length) { first.value = start.data.x[0]; second.value = start.data.y[0]; }"
        models[drag].js_on_change("data", CustomJS(args=controls | models, code=move))
        models[drag].js_on_change("patching", CustomJS(args=controls | models, code=move))
    layout = column(*controls.values(), text, *plots, sizing_mode="stretch_width")
    document = Document()
    document.add_root(layout)
    document.js_on_event(DocumentReady, callback)
    return Explorer(layout, name, height, still)
