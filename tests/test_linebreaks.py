"""Where a line of a page must not break: signs beside formulas, units behind numbers, numbers behind relations."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from docutils import nodes

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_ext"))
import linebreaks


def paragraph(*parts):
    """A paragraph of text, formulas (between dollars) and numbers that a cell made (between bars)."""
    made = nodes.paragraph()
    for part in parts:
        if part[0] == "$":
            made += nodes.math("", part.strip("$"))
        elif part[0] == "|":
            made += nodes.inline("", part.strip("|"), classes=["pasted-text"])
        else:
            made += nodes.Text(part)
    return made


def pieces(tree):
    return [n.astext() for n in tree.findall(nodes.inline) if "unbroken" in n["classes"]]


@pytest.mark.parametrize(
    ("parts", "held"),
    [
        (("for ", "$x$", ", and"), ["x,"]),
        (("(", "$x$", "), and"), ["(x),"]),
        (("the “", "$i < p$", "” of"), ["“i < p”"]),
        (("the ", "$i$", "-th pair"), ["i-th"]),
        (("for ", "$x$", " and ", "$y$"), []),
        (("between ", "$x$", "–", "$y$"), []),
    ],
)
def test_signs_stay_with_their_formula(parts, held):
    tree = paragraph(*parts)
    words = tree.astext()
    linebreaks.keep_together(tree)
    assert pieces(tree) == held and tree.astext() == words


def test_a_formula_inside_a_link_stays_with_the_sign_behind_the_link():
    tree, link = paragraph("at "), nodes.reference()
    link += nodes.math("", "q")
    tree += link
    tree += nodes.Text(", then")
    linebreaks.keep_together(tree)
    assert pieces(tree) == ["q,"] and isinstance(tree[1][0], nodes.reference)


def test_a_long_emphasis_stays_breakable_and_takes_the_sign_in():
    tree, bold = nodes.paragraph(), nodes.strong()
    bold += [nodes.Text("sharper if and only if "), nodes.math("", "x > 1")]
    tree += [bold, nodes.Text(", and then")]
    linebreaks.keep_together(tree)
    assert pieces(tree) == ["x > 1,"] and tree[0].astext() == "sharper if and only if x > 1,"


def test_a_long_link_is_left_as_it_is():
    tree, link = nodes.paragraph(), nodes.reference()
    link += [nodes.Text("the chapter on "), nodes.math("", "x")]
    tree += [link, nodes.Text(", and then")]
    linebreaks.keep_together(tree)
    assert pieces(tree) == []


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("takes 2.1 s of 5 % and 22 MB",), "takes 2.1~s of 5~% and 22~MB"),
        (("only ", "|6.9|", " %, a gap"), "only 6.9~%, a gap"),
        (("at ", "$q =$", " ", "|2.149|", ", the flow"), "at q =~2.149, the flow"),
        (("at ", "$q =$", " 2.149"), "at q =~2.149"),
        (("the ", "|three|", " ms"), "the three ms"),
        (("in 3 steps and 4 shares, 5 hours",), "in 3 steps and 4 shares, 5 hours"),
        (("from ", "$q =$", " the rate"), "from q = the rate"),
    ],
)
def test_units_and_numbers_stay(parts, text):
    tree = paragraph(*parts)
    linebreaks.keep_together(tree)
    assert tree.astext().replace("\u00a0", "~") == text


def test_code_is_left_alone():
    tree = paragraph("as ")
    tree += nodes.literal("", "sleep 5 s")
    linebreaks.keep_together(tree)
    assert tree.astext() == "as sleep 5 s"
