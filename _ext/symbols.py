"""The first use of a symbol on a page shows its meaning, and links to its row on the notation page.

`chapters/notation.md` is the only source. A row of its tables holds everywhere, unless its meaning names chapters; an entry
of its list of letters with several meanings holds in the chapters it names, and there before any row. The first formula in
a line that uses a symbol becomes a link; the meaning is its title and, as typeset text, an entry of a ``template`` from
which ``book.js`` fills a tooltip. Ids are given to the rows, so that the links have somewhere to go.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from html import escape

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform

NOTATION = "chapters/notation"
# Lists made from the verdicts or the library; nobody reads them from the top.
LISTS = {"ledger", "errata", "paper_order", "figures", "library", "references", "status", "notation"}
LONGEST = 24  # signs of a formula that may be a link; beyond it the line below would be the formula's, not the symbol's
SKIP = (nodes.title, nodes.subtitle, nodes.rubric, nodes.reference, nodes.target, pending_xref)

ACCENT = r"\\(?:bar|hat|tilde|dot|mathbf|mathbb|mathcal|mathrm|bm)\s*(?:\{[^{}]*\}|\\[A-Za-z]+|[A-Za-z0-9])"
DIFFERENTIAL = re.compile(r"(?:\\,|(?<=frac\{)|(?<=\}\{))d(?=\\?[A-Za-z])|d(?=\\ln|\\alpha)")
BASE = rf"{ACCENT}|\\nabla\^2|\\[A-Za-z]+|[A-Za-z]"
SYMBOL = re.compile(rf"({BASE})('*)(?:_(\{{[^{{}}]*\}}|\\[A-Za-z]+|[A-Za-z0-9]))?")
DEFINES = re.compile(r"[^=<>&]{1,30}=\s*[^\s\d]")
WORDS = re.compile(r"\\(?:text|operatorname|mathrm|begin|end)\*?\{[^{}]*\}")
INDEX = r"(?:[ijk1-3rdL]|\\ell)(?:[+-]1)?"


@dataclass
class Meaning:
    """One row or entry: the symbols it is about, the chapters it holds in (none: all), its id, its text."""

    symbols: list[str]
    chapters: set[str]
    id: str
    nodes: list = field(default_factory=list)


def symbols(tex: str) -> list[str]:
    r"""The symbols of a formula in their order, each with its index: ``\eta S_{i}`` gives ``\eta`` and ``S_i``."""
    found, tex = [], DIFFERENTIAL.sub(" ", WORDS.sub(" ", tex))
    for match in SYMBOL.finditer(tex):
        base, primes, index = match.groups("")
        if base == r"\sigma" and tex[match.end() : match.end() + 1] == "(":
            continue  # a singular value of the matrix in brackets
        base = re.sub(r"[{}]|\s+(?=\\)", "", base.replace(r"\bm", r"\mathbf"))
        index = re.sub(r"[{} ]|\\,", "", index).replace("*", r"\star")
        found.append(base + primes + (f"_{index}" if index else ""))
    return found


def same(entry: str, used: str) -> bool:
    r"""Whether a symbol of the notation page is the one used: ``S_i`` is also ``S_2``, ``W_\ell`` is also ``W_1``."""
    if entry == used:
        return True
    base, _, index = entry.partition("_")
    parts = index.replace(r"\star,", r"\star;").split(";")  # an index that names the target stays
    general = parts[-1]
    if not re.fullmatch(r"[ijk]|ij|\\ell|\\ell,i|j:i", general):
        return False
    pattern = "".join({",": ",?", ":": ":"}.get(c, INDEX) for c in re.findall(r"\\ell|.", general))
    fixed = re.escape(parts[0] + ",") if len(parts) > 1 else ""
    return bool(re.fullmatch(rf"{re.escape(base)}_{fixed}{pattern}", used))


def signs(tex: str) -> int:
    """How many signs a formula has, about."""
    return len(re.findall(r"\\[A-Za-z]+|[^\s{}\\^_]", re.sub(r"\\[,;! ]|\\[bB]ig+[lr]?", "", tex)))


def slug(symbol: str) -> str:
    plain = unicode(symbol.replace(r"\ell", "l"))
    names = [unicodedata.name(c, "").rsplit(" ", 1)[-1].lower() if ord(c) > 127 else c for c in plain]
    return re.sub(r"[^a-z0-9]+", "-", "".join(names).lower()).strip("-")


SIGNS = {
    r"\star": "⋆", r"\infty": "∞", r"\le": "≤", r"\ge": "≥", r"\cdots": "⋯", r"\dots": "…", r"\lVert": "‖", r"\top": "ᵀ",
    r"\rVert": "‖", r"\ell": "ℓ", r"\nabla": "∇", r"\sum": "∑", r"\prod": "∏", r"\sqrt": "√", r"\tfrac12": "½", r"\pm": "±",
    r"\max": "max", r"\ln": "ln", r"\cos": "cos", r"\varepsilon": "ε", r"\lvert": "|", r"\rvert": "|", r"\to": "→", r"\times": "×",
}  # fmt: skip


def unicode(tex: str) -> str:
    """A formula as plain text, for a title."""
    text = re.sub(r"\\[,;! ]|\\[bB]ig+[lr]?", "", tex)
    text = text.replace(r"\tfrac12", "½")
    text = re.sub(r"\\tfrac(\d)(\w)", r"\1/\2 ", text)
    text = re.sub(r"\\mathbf\s*", "", re.sub(r"([_^])\{([^{}]{2,})\}", r"\1(\2)", text))
    text = re.sub(r"\\bar\s*\{?(\\?[A-Za-z]+)\}?", lambda m: m[1] + "\u0304", text)

    def letter(match):
        name = match[0][1:]
        if match[0] in SIGNS:
            return SIGNS[match[0]]
        case = "CAPITAL" if name[0].isupper() else "SMALL"
        try:
            return unicodedata.lookup(f"GREEK {case} LETTER {'LAMDA' if name.lower() == 'lambda' else name.upper()}")
        except KeyError:
            return name

    text = re.sub(r"\\[A-Za-z]+", letter, text)
    return re.sub(r"[{}]", "", text)


def is_about(node) -> list[str]:
    """The symbols that the first column of a row, or a term, is about: of each part of a formula the first."""
    return [
        s
        for math in node.findall(nodes.math)
        for part in re.split(r"\s*<\s*|,\s+", math.astext())
        for s in symbols(part)[:1]
    ]


def chapters_in(node) -> set[str]:
    """The chapters that a meaning names, as references before or after they are resolved."""
    found = {n["reftarget"].rsplit("/", 1)[-1] for n in node.findall(pending_xref) if n.get("reftarget")}
    return found | {m[1] for n in node.findall(nodes.reference) if (m := re.match(r"(\w+)\.html", n.get("refuri", "")))}


def until_chapters(children) -> list:
    """A meaning without "in this chapter, that chapter"."""
    kept = []
    for child in children:
        if isinstance(child, pending_xref | nodes.reference):
            break
        kept.append(child)
    if len(kept) < len(children) and kept and isinstance(kept[-1], nodes.Text):
        kept[-1] = nodes.Text(re.sub(r"[,;:]?\s*(?:\bin|,)?\s*$", "", kept[-1].astext()))
    return kept


def meanings(document) -> list[Meaning]:
    """Everything the notation page says, the entries that name chapters first; gives the rows their ids."""
    scoped, general, taken = [], [], set()

    def add(node, about, text):
        name = slug(about[0])
        number = next(n for n in range(100) if (name, n) not in taken)
        taken.add((name, number))
        id = f"symbol-{name}" + (f"-{chr(97 + number)}" if number else "")
        if id not in node["ids"]:
            node["ids"].append(id)
        chapters, words = chapters_in(node), until_chapters(text)
        if not plain(words).startswith("short for") and (chapters or isinstance(node, nodes.row)):
            (scoped if chapters else general).append(Meaning(about, chapters, id, words))

    for row in document.findall(nodes.row):
        if isinstance(row.parent, nodes.thead) or len(row) != 2 or not all(len(cell) and len(cell[0]) for cell in row):
            continue
        if isinstance(row[0][0][0], nodes.math):  # not "mode i" or "balanced"
            add(row, is_about(row[0]), row[1][0].children)
    for item in document.findall(nodes.definition_list_item):
        term = [n for n in item.children if isinstance(n, nodes.term)]
        for definition in (n for n in item.children if isinstance(n, nodes.definition)):
            paragraph = definition[0]
            about, text = is_about(term[0]), paragraph.children
            first = next((n for n, c in enumerate(text) if isinstance(c, nodes.Text) and c.astext() != ", "), 0)
            if first and text[first].astext().startswith(":"):  # "S_i, S_j: …" is about these
                about = is_about(nodes.paragraph("", "", *(c.deepcopy() for c in text[:first])))
                text = [nodes.Text(text[first].astext().lstrip(": ")), *text[first + 1 :]]
            add(definition, about, text)
    return scoped + general


def meaning_of(symbol: str, chapter: str, known: list[Meaning]) -> Meaning | None:
    """What a symbol means in a chapter: the chapter's own before the general, as spelt before by pattern."""
    for own in (True, False):
        for exact in (True, False):
            for m in known:
                here = (chapter in m.chapters) if own else not m.chapters
                if here and any(s == symbol if exact else same(s, symbol) for s in m.symbols):
                    return m
    return None


class NameRows(SphinxTransform):
    """Ids on the notation page."""

    default_priority = 700

    def apply(self):
        if self.env.docname == NOTATION:
            meanings(self.document)


class symbol_link(nodes.General, nodes.Inline, nodes.TextElement):
    """A formula that shows the meaning of its symbols."""


def visit_symbol(self, node):
    attributes = {
        "class": "symbol", "href": node["uri"], "title": node["title"], "aria-label": node["name"],
        "data-means": " ".join(node["means"]),
    }  # fmt: skip
    self.body.append(
        "<a " + " ".join(f'{key}="{escape(value, quote=True)}"' for key, value in attributes.items()) + ">"
    )


def depart_symbol(self, node):
    self.body.append("</a>")


class LinkSymbols(SphinxPostTransform):
    """Make links of first uses, once every page is read."""

    default_priority = 900
    formats = ("html",)

    def run(self, **_):
        stem = self.env.docname.rsplit("/", 1)[-1]
        if stem in LISTS or self.env.docname.count("/") != 1 or NOTATION not in self.env.all_docs:
            return
        if not hasattr(self.app, "symbol_meanings"):
            self.app.symbol_meanings = meanings(self.env.get_doctree(NOTATION))
        met, shown = set(), []
        page = self.app.builder.get_relative_uri(self.env.docname, NOTATION)
        for math in list(self.document.findall(nodes.math)):
            if signs(math.astext()) > LONGEST or not in_running_text(math):
                continue
            new, defined = [], DEFINES.match(math.astext())
            for number, symbol in enumerate(symbols(math.astext())):
                found = meaning_of(symbol, stem, self.app.symbol_meanings)
                if found and found.id not in met:
                    met.add(found.id)
                    # a chapter's own letter on the left of its definition needs no other
                    if not (defined and number == 0 and found.chapters):
                        new.append((symbol, found))
            if new:
                shown += new
                title = "; ".join(f"{unicode(s)}: {plain(m.nodes)}" for s, m in new)
                ids = [m.id for _, m in new]
                link = symbol_link("", uri=f"{page}#{ids[0]}", title=title, name=unicode(math.astext()), means=ids)
                math.replace_self(link)
                link += math
        if shown:
            rows = "".join(f'<p data-symbol="{m.id}">{formula(s)}: {rich(m.nodes)}</p>' for s, m in shown)
            self.document += nodes.raw("", f'<template class="symbol-meanings">{rows}</template>', format="html")


def in_running_text(node) -> bool:
    """Not in a title, a link, or what a cell prints; a figure's caption counts as text."""
    while node.parent is not None:
        if isinstance(node, nodes.caption):
            return True
        node = node.parent
        if isinstance(node, SKIP) or node.tagname == "dropdown_title" or node.get("nb_element") == "cell_code_output":
            return False
    return True


def formula(tex: str) -> str:
    return rf'<span class="math notranslate nohighlight">\({escape(tex)}\)</span>'


def rich(children) -> str:
    """Text, formulas and names of the library as HTML."""
    parts = []
    for child in children:
        if isinstance(child, nodes.math):
            parts.append(formula(child.astext()))
        elif isinstance(child, nodes.literal):
            parts.append(f"<code>{escape(child.astext())}</code>")
        else:
            parts.append(escape(child.astext()))
    return "".join(parts)


def plain(children) -> str:
    return "".join(unicode(c.astext()) if isinstance(c, nodes.math) else c.astext() for c in children)


def setup(app):
    app.add_node(symbol_link, html=(visit_symbol, depart_symbol))
    app.add_transform(NameRows)
    app.add_post_transform(LinkSymbols)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
