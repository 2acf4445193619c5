"""What the extensions write: ranges of numbers, names of chapters, counts of verdicts, numbers in sentences."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_ext"))
import claims
import pages
from docutils import nodes


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ([("equation", 4)], "equation 4"),
        ([("Lemma", 5), ("Lemma", 2)], "Lemmas 2, 5"),
        ([("Proposition", 1), *(("equation", n) for n in (18, 19, 20, 23))], "Proposition 1, equations 18–20, 23"),
    ],
)
def test_numbers_in_a_row_are_a_range(keys, words):
    assert claims.spelled(keys) == words


@pytest.mark.parametrize(
    ("chapter", "title"),
    [
        ("relu_networks", "ReLU networks"),
        ("low_rank_adaptation", "Low-rank adaptation"),
        ("two_cycle", "Two-cycle"),
        ("", "Not tied to a chapter"),
    ],
)
def test_chapters_have_names(chapter, title):
    assert claims.Claims.chapter_title(None, chapter) == title


class Page:
    """A page that keeps the lines that it is asked to parse."""

    write_words = claims.Claims.write_words

    def parse(self, lines):
        return lines


def test_counts_of_verdicts_are_those_of_the_two_pages():
    lines = [line for line in Page().write_words() if line.startswith(": ")]
    here = [int(line.split(" here")[0].split("(")[-1]) for line in lines if " here" in line]
    rows = [e for e in claims.load() if e["kind"] not in claims.ERRATA]
    assert len(lines) == len(claims.VERDICTS) and sum(here) == len(rows)
    beside = [int(line.split(" in the errata")[0].replace("(", " ").split()[-1]) for line in lines if "errata" in line]
    assert sum(beside) == len(claims.load()) - len(rows)


@pytest.mark.parametrize(
    ("number", "written"),
    [
        ("3.0e-04", "3.0·10⁻⁴"),
        ("1.25e+10", "1.25·10¹⁰"),
        ("-0.0237", "−0.0237"),
        ("57.3, -2.1", "57.3, −2.1"),
        ("two-phase", "two-phase"),
        ("1-2", "1-2"),
        ("0.618", "0.618"),
    ],
)
def test_numbers_of_cells_read_as_in_a_sentence(number, written):
    paragraph = nodes.paragraph("", "", nodes.Text("take "), nodes.inline("", number, classes=["pasted-text"]))
    pages.write_numbers(None, paragraph, "")
    assert paragraph.astext() == f"take {written}"


def test_only_numbers_of_cells_are_rewritten():
    paragraph = nodes.paragraph("", "", nodes.Text("3.0e-04 "), nodes.literal("", "3.0e-04"))
    pages.write_numbers(None, paragraph, "")
    assert paragraph.astext() == "3.0e-04 3.0e-04"


def test_many_rows_on_one_number_name_its_statements_only():
    few, many = claims.by_number()[("Lemma", 6)], claims.by_number()[("Theorem", 1)]
    assert claims.nearest(few) == sorted(few, key=claims.paper_order) and len(few) <= claims.MOST_BESIDE < len(many)
    shown = claims.nearest(many)
    assert 0 < len(shown) <= claims.MOST_BESIDE and {e["kind"] for e in shown} == {"statement"}
