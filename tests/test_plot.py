"""The CSV link, thresholds and the style."""

import base64
import io
import re
import sys
import types

import matplotlib
import numpy as np
import pytest
from IPython.core.pylabtools import print_figure

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from eoslib import plot


def test_the_link_holds_the_numbers():
    link = plot.download("fig-x", {"step": np.arange(3), "loss": np.array([1.0, 0.123456789]), "kind": ["a", "b", "c"]})
    page = link._repr_html_()
    assert 'class="figure-data"' in page and 'download="fig-x.csv"' in page and repr(link) == "fig-x.csv (3 rows)"
    text = base64.b64decode(re.search(r"base64,([^\"]+)", page)[1]).decode()
    assert text == "step,loss,kind\n0,1,a\n1,0.123457,b\n2,,c\n"


@pytest.mark.parametrize("name, columns, argument", [("x", {}, "name"), ("fig-x", {"a": [[1]]}, "columns")])
def test_bad_input_is_named(name, columns, argument):
    with pytest.raises(ValueError, match=f"^{argument}"):
        plot.download(name, columns)


def test_thresholds_are_named_and_where_they_should_be():
    figure, axis = plt.subplots()
    plot.threshold(axis, 2.0, "two")
    plot.threshold(axis, 3.0, "three", along="y")
    assert [t.get_text() for t in axis.texts] == ["two", "three"]
    assert axis.texts[1].xy == (3.0, 0.98) and axis.texts[0].xy == (0.98, 2.0)
    assert list(axis.lines[0].get_ydata()) == [2.0, 2.0] and list(axis.lines[1].get_xdata()) == [3.0, 3.0]
    with pytest.raises(ValueError, match="^along: got 'z'"):
        plot.threshold(axis, 1.0, "", along="z")
    plt.close(figure)


def test_style_is_white_in_any_mode():
    with matplotlib.rc_context():
        matplotlib.rcParams["figure.facecolor"] = "black"
        plot.use_style()
        assert matplotlib.rcParams["figure.facecolor"] == matplotlib.rcParams["savefig.facecolor"] == "white"


def test_ruler_puts_no_tick_through_a_name():
    figure, axis = plt.subplots(figsize=(7.2, 1.6))
    marks = {"edge": 2.0, "first": 2.03, "a rather long name": 2.14, "next": 2.15, "far": 3.0}
    plot.ruler(axis, marks, (1.9, 4.0), spans=[(2.0, 2.15, "between", "blue")])
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axis.texts if text.get_text() != "between"]
    assert len(boxes) == 5 and not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    for value, line in zip(sorted(marks.values(), reverse=True), axis.lines):
        x, top = axis.transData.transform((value, line.get_ydata()[1]))
        assert not any(box.x0 < x < box.x1 and box.y0 < top - 0.5 for box in boxes)
    plt.close(figure)


def test_ruler_refuses_marks_outside():
    figure, axis = plt.subplots()
    for marks in ({}, {"edge": 5.0}):
        with pytest.raises(ValueError, match="^marks: got"):
            plot.ruler(axis, marks, (1.9, 4.0))
    plt.close(figure)


@pytest.fixture
def axis():
    figure, axis = plt.subplots(figsize=(7.2, 1.6))
    yield axis
    plt.close(figure)


def table(*arguments, **options):
    page = plot.download(*arguments, **options)._repr_html_()
    return base64.b64decode(re.search(r"base64,([^\"]+)", page)[1]).decode()


def test_cells_of_the_table():
    assert table("fig-x", {"a": [1.0, np.nan, 1e-12], "b": [1, 2, 3]}) == "a,b\n1,1\n,2\n1e-12,3\n"
    assert table("fig-x", {"a": [np.pi]}) == "a\n3.14159\n" and table("fig-x", {"a": [np.pi]}, digits=3) == "a\n3.14\n"
    assert (
        table("fig-x", {"a": np.float32([0.5])}, digits=17) == "a\n0.5\n"
        and table("fig-x", {"a": [np.pi]}, digits=1) == "a\n3\n"
    )
    assert table("fig-x", {"a,b": [True, False], "c": np.array([1], np.uint8)}) == '"a,b",c\nTrue,1\nFalse,\n'
    link = plot.download("fig-x", {"a": [1, 2], "b": [1, 2, 3, 4]})
    assert repr(link) == "fig-x.csv (4 rows)" and "(fig-x.csv, 4 rows)</a>" in link._repr_html_()
    assert (link.name, link.rows, link.text) == ("fig-x", 4, "a,b\n1,1\n2,2\n,3\n,4\n")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plot.download("xfig-a", {"a": [1]}), "^name: got 'xfig-a', needs a name that begins with"),
        (lambda: plot.download(3, {"a": [1]}), "^name: got 3"),
        (lambda: plot.download("fig-a", {}), "^columns: got none, needs at least one"),
        (lambda: plot.download("fig-a", {7: [1.0]}), "^columns: got {7: .*, needs a dict of columns by their names"),
        (lambda: plot.download("fig-a", [1]), r"^columns: got \[1\], needs a dict"),
        (lambda: plot.download("fig-a", {"a": 1.0}), r"^columns\['a'\]: got shape \(\), needs one dimension"),
        (lambda: plot.download("fig-a", {"a": [1j]}), r"^columns\['a'\]: got \[1j\], needs numbers or words"),
        (lambda: plot.download("fig-a", {"a": [[1], [1, 2]]}), r"^columns\['a'\]: got .* needs numbers or words"),
        (
            lambda: plot.download("fig-a", {"a": np.ma.masked_array([1.0])}),
            r"^columns\['a'\]: got .* needs numbers or words",
        ),
        (lambda: plot.download("fig-a", {"a": []}), r"^columns\['a'\]: got no numbers"),
        (lambda: plot.download("fig-a", {"a": [1.0, np.inf]}), r"^columns\['a'\]: got infinite numbers"),
        (lambda: plot.download("fig-a", {"a": [1]}, digits=0), "^digits: got 0, needs an integer from 1 to 17"),
        (lambda: plot.download("fig-a", {"a": [1]}, digits=18), "^digits: got 18"),
        (lambda: plot.threshold(None, np.nan, ""), "^value: got"),
        (lambda: plot.threshold(None, 1.0, "", where=np.inf), "^where: got"),
        (lambda: plot.threshold(None, 1.0, "", where=1.001), "^where: got 1.001, needs a number from 0 to 1"),
        (lambda: plot.threshold(None, 1.0, "", where=-0.001), "^where: got -0.001"),
        (lambda: plot.threshold(None, 1.0, 2), "^label: got 2, needs a word"),
        (lambda: plot.threshold(None, 1.0, "", colour="blau"), "^colour: got 'blau', needs a colour of Matplotlib"),
        (lambda: plot.threshold(None, 1.0, ""), "^axis: got None, needs the axes of a Matplotlib figure"),
        (lambda: plot.ruler(plt, {"a": 1.0}, (0.0, 1.0)), "^axis: got <module .*, needs the axes"),
        (lambda: plot.ruler(None, {"a": 1.0}, (-1.7e308, 1.7e308)), "^ends: got .* within the floating range"),
        (lambda: plot.ruler(None, {"a": 1.0}, (0.0, 1.0), spans=None), "^spans: got None, needs a list of stretches"),
        *(
            (
                lambda span=span: plot.ruler(None, {"a": 1.0}, (0.0, 1.0), spans=[(0.0, 1.0, "", "grey"), span]),
                r"^spans\[1\]: got",
            )
            for span in [
                3,
                (0.0, 0.5, "a"),
                "0, 1",
                (0.5, 0.5, "a", "blue"),
                (-0.1, 0.5, "a", "blue"),
                (0.5, 1.1, "a", "blue"),
                (0.0, np.nan, "a", "blue"),
                ("0", 0.5, "a", "blue"),
                (0.0, 0.5, 7, "blue"),
                (0.0, 0.5, "a", "red"),
                (0.0, 0.5, "a", ["blue"]),
            ]
        ),
        (lambda: plot.ruler(None, {"a": 1.0}, (1.0, 1.0)), "^ends: got .* needs two increasing numbers"),
        (lambda: plot.ruler(None, {"a": 1.0}, (2.0, 1.0)), "^ends: got"),
        (lambda: plot.ruler(None, {"a": 1.0}, (0.0, 1.0, 2.0)), "^ends: got"),
        (lambda: plot.ruler(None, [1.0], (0.0, 1.0)), r"^marks: got \[1.0\], needs a dict"),
        (lambda: plot.ruler(None, {}, (0.0, 1.0)), "^marks: got {}, needs at least one"),
        (lambda: plot.ruler(None, {7: 0.5}, (0.0, 1.0)), "^marks: got {7: 0.5}, needs a dict of numbers by their names"),
        (lambda: plot.ruler(None, {"a": np.nan}, (0.0, 1.0)), r"^marks\['a'\]: got"),
        (lambda: plot.ruler(None, {"a": 1.0, "b": 1.01}, (0.0, 1.0)), "^marks: got .* all between 0.0 and 1.0"),
        (lambda: plot.ruler(None, {"a": -0.01}, (0.0, 1.0)), "^marks: got"),
    ],
)
def test_refusals_name_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize(
    ("start", "length", "text"),
    [(2.0, 4.0, "2.500"), (0.5, 16.0, "2.500"), (0.0, 0.5, "0.0625"), (3.0, 1e-5, "3.00000125"), (0.0, 1e-12, "0.000000000000125")],
)
def test_values_on_a_short_ruler_are_told_apart(axis, start, length, text):
    plot.ruler(axis, {"a": start + length / 8}, (start, start + length))
    assert axis.texts[0].get_text() == f"a {text}"


@pytest.mark.parametrize(
    ("where", "horizontal", "vertical"), [(1.0, "right", "top"), (0.5, "left", "bottom"), (0.51, "right", "top"), (0.0, "left", "bottom")]
)
def test_names_stand_inside_the_picture(axis, where, horizontal, vertical):
    plot.threshold(axis, 2.0, "a", where=where, colour="red")
    plot.threshold(axis, 3.0, "b", where=where, along="y")
    a, b = axis.texts
    assert (a.get_ha(), a.get_va()) == (horizontal, "bottom") and (b.get_ha(), b.get_va()) == ("left", vertical)
    assert (
        a.xy == (where, 2.0) and b.xy == (3.0, where) and (a.xyann, b.xyann) == ((0, 3), (3, 0))
    )  # three points off the line
    assert a.xycoords == axis.get_yaxis_transform() and b.xycoords == axis.get_xaxis_transform()
    assert a.get_color() == axis.lines[0].get_color() == "red" and b.get_color() == axis.lines[1].get_color() == "black"
    assert all(
        line.get_linestyle() == "--" and line.get_zorder() < 2 for line in axis.lines
    )  # dashed, behind the curves
    assert a.get_size() == b.get_size() == 9 and a.anncoords == b.anncoords == "offset points"


def test_ruler_writes_values_and_stretches(axis):
    plot.ruler(
        axis,
        {"start": 1.0, "end": 3.0, r"$q_{4}$": 2.4893},
        (1.0, 3.0),
        spans=[(1.0, 2.0, "low", "blue"), (2.0, 3.0, "high", "grey")],
    )
    assert sorted(t.get_text() for t in axis.texts) == ["$q_{4}$ 2.489", "end 3", "high", "low", "start 1"]
    spots = {t.get_text(): t.get_position() for t in axis.texts}
    assert spots["low"][0] == 1.5 and spots["high"][0] == 2.5 and -0.5 < spots["low"][1] < -0.05
    assert {(t.get_ha(), t.get_va()) for t in axis.texts if t.get_text() in ("low", "high")} == {("center", "center")}
    assert {line.get_color() for line in axis.lines} == {"black"}  # the colours are for modes and stretches
    assert axis.get_xlim() == (1.0, 3.0) and axis.get_ylim()[0] == -0.55 and not axis.get_yticks().size
    ticks = {line.get_xdata()[0]: line.get_ydata() for line in axis.lines[:3]}
    assert set(ticks) == {1.0, 3.0, 2.4893} and all(y[0] == 0 for y in ticks.values())
    marks = [t for t in axis.texts if hasattr(t, "xyann")]
    assert len(marks) == 3 and all(t.xyann == (3, 0) and t.anncoords == "offset points" for t in marks)
    # beside the upper end of its tick, below which it stands
    assert all(t.xy == (x, ticks[x][1]) and t.get_va() == "top" for t in marks for x in [t.xy[0]])
    base = axis.lines[3]
    assert list(base.get_xdata()) == [1.0, 3.0] and list(base.get_ydata()) == [0, 0]
    assert max(y[1] for y in ticks.values()) < axis.get_ylim()[1] and not axis.spines["left"].get_visible()
    boxes = axis.collections
    assert [tuple(box.get_facecolor()[0][:3]) for box in boxes] == [
        matplotlib.colors.to_rgb(plot.COLOURS[c]) for c in ("blue", "grey")
    ]
    for box, (start, stop) in zip(boxes, ((1.0, 2.0), (2.0, 3.0))):
        corners = box.get_paths()[0].vertices
        assert corners[:, 0].min() == start and corners[:, 0].max() == stop
        assert corners[:, 1].min() == -0.5 and corners[:, 1].max() == -0.05


def test_rows_of_a_ruler_are_as_few_as_names_allow(axis):
    plot.ruler(axis, {"a": 1.0, "b": 5.0, "c": 9.0}, (0.0, 10.0))  # far apart: one row
    assert len({line.get_ydata()[1] for line in axis.lines[:3]}) == 1
    heights = [line.get_ydata()[1] for line in axis.lines[:3]]
    axis.clear()
    plot.ruler(axis, {"a": 1.0, "b": 1.05, "c": 1.1}, (0.0, 10.0))  # on top of each other: three, the leftmost on top
    at = {line.get_xdata()[0]: line.get_ydata()[1] for line in axis.lines[:3]}
    assert at[1.1] == heights[0] and np.allclose([at[1.05], at[1.0]], [2 * heights[0], 3 * heights[0]])


@pytest.mark.parametrize("name", ["a rather long name", "$q_{4}$"])
def test_a_name_takes_the_room_that_it_is_drawn_in(axis, name):
    """The next tick stands beside the name in the same row, but not in it; the estimate is good to a fifth."""
    ends = (1.9, 4.0)
    plot.ruler(axis, {name: 2.0}, ends)
    axis.figure.canvas.draw()
    right = axis.transData.inverted().transform((axis.texts[0].get_window_extent().x1, 0))[0]
    for share, rows in ((0.8, 2), (1.3, 1)):
        axis.clear()
        plot.ruler(axis, {name: 2.0, "b": 2.0 + share * (right - 2.0)}, ends)
        assert len({line.get_ydata()[1] for line in axis.lines[:2]}) == rows


def test_a_ruler_is_as_high_as_its_rows_and_has_no_grid(axis):
    with matplotlib.rc_context({"axes.grid": True}):
        axis.clear()  # takes the grid
        assert axis.get_xgridlines()[0].get_visible()
        plot.ruler(axis, {"a": 1.0, "b": 1.05}, (0.0, 10.0))
    assert not any(line.get_visible() for line in axis.get_xgridlines())
    low, high = sorted(line.get_ydata()[1] for line in axis.lines[:2])
    bottom, top = axis.get_ylim()
    assert low == -bottom == high - low  # a row above is as high as the strip for the stretches below
    assert high < top < high + low / 2


@pytest.mark.parametrize("inside", [True, False])
def test_a_notebook_gets_vector_graphics_without_a_date(monkeypatch, inside):
    calls, module = [], types.ModuleType("matplotlib_inline.backend_inline")
    module.set_matplotlib_formats = lambda *formats, **options: calls.append((formats, options))
    monkeypatch.setitem(sys.modules, "matplotlib_inline.backend_inline", module)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    if inside:
        monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    with matplotlib.rc_context():
        plot.use_style()
    assert calls == ([(("svg",), {"metadata": {"Date": None}, "dpi": 220})] if inside else [])


def beside(dpi, value):
    """How far rasterized dots lie from a line through them in a notebook's SVG, in points."""
    with matplotlib.rc_context():
        plot.use_style()
        figure, axis = plt.subplots(figsize=(7.2, 6.0))
        axis.plot([0, 1], [value, value], color="#FF0000")
        many = np.full(400, value)
        axis.plot(np.linspace(0, 1, 400), many, ".", markersize=1.3, mew=0, color="black", rasterized=True)
        axis.set_ylim(0, 16)
        svg = print_figure(figure, "svg", dpi=dpi)
        plt.close(figure)
    image = re.search(r'base64,\s*([^"]+)"[^>]*?translate\(0 -([\d.]+)\)"[^>]*? y="-([\d.]+)"', svg)
    rows = plt.imread(io.BytesIO(base64.b64decode(image[1])))[..., 3].sum(axis=1)
    height, top = float(image[2]), float(image[3])
    centre = top + height * ((np.arange(rows.size) + 0.5) @ rows) / rows.sum() / rows.size
    line = float(re.findall(r'd="M [\d.]+ ([\d.]+)', svg[: svg.index("stroke: #ff0000") + 50])[-1])
    return abs(centre - line)


def test_rasterized_dots_lie_where_the_axes_say():
    """Beside by a pixel at most, a third of a point: that is what a figure of lines and pixels costs."""
    values = (3.0, 6.0, 7.3, 10.0, 12.5)
    assert max(beside(220, value) for value in values) < 72 / 220 < max(beside(72, value) for value in values)


def test_style_is_the_same_whatever_was_set_before():
    with matplotlib.rc_context():
        matplotlib.rcParams["lines.linestyle"] = ":"
        plot.use_style()
        rc = matplotlib.rcParams
        assert rc["lines.linestyle"] == "-" and rc["savefig.facecolor"] == rc["figure.facecolor"] == "white"
        assert rc["axes.prop_cycle"].by_key()["color"] == list(plot.MODES) == list(plot.COLOURS.values())
        assert rc["axes.grid"] and rc["axes.axisbelow"] and not rc["axes.spines.top"] and not rc["axes.spines.right"]
        assert rc["figure.constrained_layout.use"] and not rc["legend.frameon"] and rc["axes.titlelocation"] == "left"
        assert rc["svg.hashsalt"] == "eoslib"  # figures are the same bytes in each build
        assert tuple(rc["figure.figsize"]) == (7.2, 3.2)


def test_colours_are_those_that_colour_blind_readers_tell_apart():
    """Okabe and Ito's six (blue to orange), and a grey of contrast 4.5 on white."""
    assert list(plot.COLOURS) == ["blue", "orange", "green", "purple", "sky", "amber", "grey"]
    okabe_ito = {(0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0)}
    as_bytes = [tuple(round(255 * x) for x in matplotlib.colors.to_rgb(c)) for c in plot.MODES]
    assert set(as_bytes[:6]) == okabe_ito and len(as_bytes) == 7
    linear = lambda x: x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4
    light = sum(w * linear(x) for w, x in zip((0.2126, 0.7152, 0.0722), matplotlib.colors.to_rgb(plot.COLOURS["grey"])))
    assert 1.05 / (light + 0.05) >= 4.5
