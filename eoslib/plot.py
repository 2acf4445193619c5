"""One figure style for the book, thresholds with names, and the numbers behind a figure as a CSV file."""

from __future__ import annotations

import base64
import csv
import io
import math
import re
import sys
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import is_color_like

from . import validate

# Okabe and Ito's colours, which colour-blind readers can tell apart; black is kept for text and thresholds.
COLOURS = {
    "blue": "#0072B2",
    "orange": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "amber": "#E69F00",
    "grey": "#767676",
}

# Mode 1, 2, 3 ... in every figure of the book.
MODES = tuple(COLOURS.values())


def use_style() -> None:
    """Set Matplotlib's defaults for the book; every chapter calls this once, before its first figure.

    In a notebook figures are shown as SVG, sharp at any size; pass ``rasterized=True`` to artists of many thousand points.

    Examples
    --------
    >>> use_style()
    >>> mpl.rcParams["figure.facecolor"]
    'white'
    """
    mpl.rcParams.update(mpl.rcParamsDefault)
    mpl.rcParams.update(
        {
            "figure.figsize": (7.2, 3.2),
            "figure.dpi": 110,
            "savefig.dpi": 160,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": cycler(color=list(COLOURS.values())),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#E6E6E6",
            "grid.linewidth": 0.6,
            "axes.titlesize": 10,
            "axes.titlelocation": "left",
            "axes.labelsize": 10,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.fontsize": 9,
            "legend.frameon": False,
            "lines.linewidth": 1.4,
            "lines.markersize": 3.5,
            "font.size": 10,
            "mathtext.fontset": "cm",
            "svg.hashsalt": "eoslib",
        }
    )
    if "ipykernel" in sys.modules:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        # rasterized artists lie up to a pixel beside the axes' own lines: pixels must be small
        set_matplotlib_formats("svg", metadata={"Date": None}, dpi=220)


def threshold(
    axis: Axes, value: float, label: str, *, along: str = "x", where: float = 0.98, colour: str = "black"
) -> None:
    """Draw a named dashed line at `value`: horizontal with ``along="x"``, vertical with ``along="y"``.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
    value : float
    label : str
        The name, written beside the line.
    along : {"x", "y"}
        The axis the line runs along.
    where : float
        Position of the label along the line, 0 to 1.
    colour : str or what else Matplotlib takes for one

    Raises
    ------
    ValueError
        If an argument is none of these; the message names it.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> figure, axis = plt.subplots()
    >>> threshold(axis, 2.0, "two")
    >>> axis.texts[0].get_text()
    'two'
    >>> plt.close(figure)
    """
    value, where = validate.number("value", value), validate.number("where", where)
    along = validate.choice("along", along, ("x", "y"))
    if not 0 <= where <= 1:
        raise ValueError(f"where: got {where}, needs a number from 0 to 1")
    if not isinstance(label, str):
        raise ValueError(f"label: got {validate.short(label)}, needs a word")
    if not is_color_like(colour):
        raise ValueError(f"colour: got {validate.short(colour)}, needs a colour of Matplotlib")
    _axes(axis)
    horizontal = along == "x"
    (axis.axhline if horizontal else axis.axvline)(
        value, color=colour, linestyle=(0, (4, 3)), linewidth=1.0, zorder=1.5
    )
    place = (where, value) if horizontal else (value, where)
    axis.annotate(
        label,
        place,
        xycoords=axis.get_yaxis_transform() if horizontal else axis.get_xaxis_transform(),
        xytext=(0, 3) if horizontal else (3, 0),
        textcoords="offset points",
        ha=("right" if where > 0.5 else "left") if horizontal else "left",
        va="bottom" if horizontal else ("top" if where > 0.5 else "bottom"),
        color=colour,
        fontsize=9,
    )


def ruler(axis: Axes, marks: dict, ends: tuple[float, float], *, spans: Sequence[tuple] = ()) -> None:
    """Draw a ruler: named ticks above a line, named stretches below it.

    Names stand to the right of their ticks, in rows such that no tick crosses a name.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
        Its vertical axis is hidden.
    marks : dict of str to float
        Where something happens; the value is written behind the name.
    ends : (float, float)
        Both ends of the ruler.
    spans : sequence of (float, float, str, str)
        Start, end, name and colour (a key of `COLOURS`) of each stretch, which lies on the ruler.

    Raises
    ------
    ValueError
        If there is no mark, a mark or a stretch lies outside the ruler, or an argument is none of these.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> figure, axis = plt.subplots()
    >>> marks, spans = {"edge": 2.0, "period four": 2.4893}, [(2.0, 2.4893, "two values", "blue")]
    >>> ruler(axis, marks, (1.9, 3.0), spans=spans)
    >>> sorted(text.get_text() for text in axis.texts)
    ['edge 2', 'period four 2.489', 'two values']
    >>> plt.close(figure)
    """
    both = validate.double("ends", validate.real("ends", ends))
    if both.shape != (2,) or not both[0] < both[1]:
        raise ValueError(f"ends: got {validate.short(ends)}, needs two increasing numbers")
    ends = (float(both[0]), float(both[1]))
    length = validate.representable("ends", ends, ends[1] - ends[0])
    named = validate.named("marks", marks, "numbers").items()
    marks = {name: validate.number(f"marks[{name!r}]", value) for name, value in named}
    if not marks or not all(ends[0] <= value <= ends[1] for value in marks.values()):
        raise ValueError(f"marks: got {marks}, needs at least one, all between {ends[0]} and {ends[1]}")
    spans = _stretches(spans, ends)
    _axes(axis)
    size, row_height = 9, 0.55
    digits = max(3, 3 - math.floor(math.log10(length)))  # a thousandth of a short ruler, too
    # width of a name in units of the axis: a character is about half as wide as the letters are high
    unit = length / (axis.figure.get_size_inches()[0] * 72 * axis.get_position().width)
    rows = []  # (value, row), from right to left: a name stands above all ticks that it passes over
    for name, value in sorted(marks.items(), key=lambda item: -item[1]):
        text = f"{name} {value:g}" if value == round(value) else f"{name} {value:.{digits}f}"
        width = 0.55 * size * len(re.sub(r"[\\${}_]", "", text)) * unit
        row = 1 + max((r for x, r in rows if x < value + width), default=-1)
        rows.append((value, row))
        height = row_height * (row + 1)
        axis.plot([value, value], [0, height], color="black", linewidth=0.8)
        axis.annotate(text, (value, height), xytext=(3, 0), textcoords="offset points", va="top", fontsize=size)
    axis.plot(ends, [0, 0], color="black", linewidth=1.2)
    for start, stop, name, colour in spans:
        axis.fill_between([start, stop], -0.5, -0.05, color=COLOURS[colour], alpha=0.3, linewidth=0)
        axis.text((start + stop) / 2, -0.28, name, ha="center", va="center", fontsize=size - 1)
    axis.set(xlim=ends, ylim=(-0.55, row_height * (1.2 + max(r for _, r in rows))), yticks=[])
    axis.spines["left"].set_visible(False)
    axis.grid(False)


def _axes(axis):
    if not isinstance(axis, Axes):
        raise ValueError(f"axis: got {validate.short(axis)}, needs the axes of a Matplotlib figure")


def _stretches(spans, ends):
    """The stretches of a ruler, with their ends as floats."""
    need = f"needs (start, end, name, colour) between {ends[0]} and {ends[1]}, with a colour out of {', '.join(COLOURS)}"
    if not isinstance(spans, (list, tuple)):
        raise ValueError(f"spans: got {validate.short(spans)}, needs a list of stretches")
    checked = []
    for i, span in enumerate(spans):
        if not isinstance(span, (list, tuple)) or len(span) != 4:
            raise ValueError(f"spans[{i}]: got {validate.short(span)}, {need}")
        start, stop = (validate.number(f"spans[{i}]", end) for end in span[:2])
        name, colour = span[2:]
        words = isinstance(name, str) and isinstance(colour, str) and colour in COLOURS
        if not words or not ends[0] <= start < stop <= ends[1]:
            raise ValueError(f"spans[{i}]: got {validate.short(span)}, {need}")
        checked.append((start, stop, name, colour))
    return checked


class Download:
    """A link that saves the numbers behind a figure as CSV; it needs no server and no other file."""

    def __init__(self, name: str, text: str, rows: int):
        self.name, self.text, self.rows = name, text, rows

    def __repr__(self) -> str:
        return f"{self.name}.csv ({self.rows} rows)"

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.text.encode()).decode()
        return (
            f'<p class="figure-data"><a download="{self.name}.csv" href="data:text/csv;base64,{data}">'
            f"Numbers behind this figure ({self.name}.csv, {self.rows} rows)</a></p>"
        )


def download(name: str, columns: dict, *, digits: int = 6) -> Download:
    """Offer the numbers behind the figure `name` as a CSV file of the given columns.

    Parameters
    ----------
    name : str
        The figure's name, ``fig-...``.
    columns : dict of str to (n,) array_like
        Columns may differ in length; shorter ones end in empty cells, and so do numbers that are not there (NaN).
    digits : int
        Significant digits written.

    Raises
    ------
    ValueError
        If the name does not begin with ``fig-``, or a column is not one-dimensional, is empty or holds an infinite number.

    Examples
    --------
    >>> download("fig-example", {"step": [0, 1], "loss": [2.0, 0.5]})
    fig-example.csv (2 rows)
    """
    if not isinstance(name, str) or not name.startswith("fig-"):
        raise ValueError(f'name: got {validate.short(name)}, needs a name that begins with "fig-"')
    if not validate.named("columns", columns, "columns"):
        raise ValueError("columns: got none, needs at least one")
    digits = validate.integer("digits", digits, least=1, most=17)
    arrays = {key: _column(key, column) for key, column in columns.items()}
    rows = max(a.size for a in arrays.values())
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(arrays)
    for i in range(rows):
        writer.writerow([_cell(a[i], digits) if i < a.size else "" for a in arrays.values()])
    return Download(name, stream.getvalue(), rows)


def _column(key, column):
    """A column as an array of words or of numbers, none of them infinite; NaN stands for an empty cell."""
    name = f"columns[{key!r}]"
    try:
        array = np.asarray(column)
    except ValueError:  # a ragged list
        array = np.asarray(None)
    if array.dtype.kind not in "SUbiuf" or isinstance(column, np.ma.MaskedArray):
        raise ValueError(f"{name}: got {validate.short(column)}, needs numbers or words")
    if array.ndim != 1:
        raise ValueError(f"{name}: got shape {array.shape}, needs one dimension")
    if array.size == 0 or (array.dtype.kind == "f" and np.isinf(array).any()):
        raise ValueError(f"{name}: got {'no' if array.size == 0 else 'infinite'} numbers, needs what the figure draws")
    return array


def _cell(value, digits):
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else f"{value:.{digits}g}"
    return str(value)
