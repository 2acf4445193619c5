"""The CSV link, thresholds and the style."""

import base64
import re

import matplotlib
import numpy as np
import pytest

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
