"""Symbols of formulas, as the pages read them: which they are, and which row of the notation page they mean."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from docutils import nodes

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_ext"))
import symbols


@pytest.mark.parametrize(
    ("tex", "found"),
    [
        (r"\eta S_{i} < q_4", [r"\eta", "S_i", "q_4"]),
        (r"W_{\ell+1}^\top W_{L:1}", [r"W_\ell+1", r"\top", "W_L:1"]),
        (r"m = \sigma_{*,1}", ["m", r"\sigma_\star,1"]),
        (r"\operatorname{diag}(b)", ["b"]),
        (r"d\ln\Psi = P\,d\alpha", [r"\ln", r"\Psi", "P", r"\alpha"]),
        (r"\sigma_i(P) + \sigma_1", ["P", r"\sigma_1"]),
        (r"\bar\kappa = 2\int_0^1\kappa\,d\tau", [r"\bar\kappa", r"\int_0", r"\kappa", r"\tau"]),
        (r"\mathbf 1 f'' \mathbf W_\ell", [r"\mathbf1", "f''", r"\mathbfW_\ell"]),
    ],
)
def test_symbols_of_a_formula(tex, found):
    assert [s.replace(" ", "") for s in symbols.symbols(tex)] == found


@pytest.mark.parametrize(
    ("entry", "used", "same"),
    [
        ("S_i", "S_2", True),
        ("S_i", r"S_\ell", True),
        ("q_i", "q_4", False),
        ("q_4", "q_4", True),
        (r"W_\ell", r"W_\ell+1", True),
        ("W_j:i", r"W_L:\ell+1", True),
        (r"\lambda_ij", r"\lambda_12", True),
        (r"\lambda_ij", r"\lambda_1", False),
        (r"\sigma_\star,i", r"\sigma_\star,1", True),
        ("S", "S_2", False),
    ],
)
def test_a_row_is_about_a_symbol(entry, used, same):
    assert symbols.same(entry, used) is same


def page(rows, letters):
    """A notation page: rows (symbol, meaning), and letters with (meaning, chapter or none)."""
    document = nodes.container()
    for symbol, meaning in rows:
        cells = [nodes.entry("", nodes.paragraph("", "", x)) for x in (nodes.math("", symbol), nodes.Text(meaning))]
        document += nodes.row("", *cells)
    for letter, meanings in letters:
        item = nodes.definition_list_item("", nodes.term("", "", nodes.math("", letter)))
        for meaning, chapter in meanings:
            text = [nodes.Text(meaning)]
            if chapter:
                text = [nodes.Text(meaning + " in "), nodes.reference("", chapter, refuri=f"{chapter}.html")]
            item += nodes.definition("", nodes.paragraph("", "", *text))
        document += item
    return document


def test_a_chapters_own_meaning_comes_before_the_general_one():
    document = page(
        [("P", "probability"), ("q_4", "end of the window")],
        [("P", [("in general another", None), ("product", "at_rest"), ("short for a term", "windows")])],
    )
    known = symbols.meanings(document)

    def said(symbol, chapter):
        found = symbols.meaning_of(symbol, chapter, known)
        return found and symbols.plain(found.nodes)

    assert said("P", "at_rest") == "product"
    assert said("P", "elsewhere") == said("P", "windows") == "probability"
    assert said("q_4", "at_rest") == "end of the window" and said("q_3", "at_rest") is None
    ids = [i for n in document.findall(nodes.Element) for i in n.get("ids", [])]
    assert len(ids) == len(set(ids)) == 5 and "symbol-q-4" in ids


def test_plain_text_of_a_formula():
    assert symbols.unicode(r"L\,\sigma_1^{2-2/L}") == "Lσ_1^(2-2/L)"
    assert symbols.unicode(r"\tfrac12\lVert R\rVert") == "½‖ R‖"
    assert symbols.unicode(r"\mathbf 1") == "1"
