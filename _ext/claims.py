"""One source for every verdict: `chapters/claims.yml`, and what the pages make of it.

Statements get a badge (the paper's number, the verdict) that links to their row; the directive ``{claims}`` writes the
ledger, the errata and the paper's order; references to statements read as words instead of numbers that would collide
with the paper's own.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.addnodes import pending_xref
from sphinx.domains import Domain, ObjType
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective
from sphinx_proof.nodes import NODE_TYPES

FILE = Path(__file__).resolve().parent.parent / "chapters" / "claims.yml"
SECTIONS = "abstract 1 2 3 3.1 3.2 3.3 4 4.1 4.2 4.3 5 references A B B.1 B.2 B.3 B.4 B.5 B.6 C C.1 C.2 C.3".split()
# Word shown, and the order in which the filters and the counts are listed.
VERDICTS = {
    "holds": "true as printed",
    "imprecise": "true under a condition or reading that the paper states elsewhere or plainly intends",
    "corrected": "false as printed; a repair of the same kind holds",
    "refuted": "false, and no repair of the same kind holds",
    "misprint": "a slip of typesetting, in the paper or in our copy of it",
    "definition": "a definition, which cannot fail",
    "qualitative": "has no sharp truth value; the row says what was measured",
    "not checked": "neither proved nor tried; the row says why",
    "reproduced": "a figure that comes out as described",
    "differs": "a figure that comes out otherwise",
    "proved": "the book's own, with a proof as general as stated",
    "confirmed": "the book's own, checked numerically in the range stated",
    "conjecture": "the book's own, neither proved nor refuted",
}
ERRATA = ("erratum", "copy")


@cache
def load() -> list[dict]:
    """All entries, in the order of the file."""
    return yaml.safe_load(FILE.read_text(encoding="utf8"))


def by_id() -> dict[str, dict]:
    return {entry["id"]: entry for entry in load()}


def is_ours(entry) -> bool:
    return entry["kind"] == "ours"


def paper_order(entry):
    """Key that sorts entries as the paper prints them; within a section they keep the order of the file."""
    section = str(entry.get("place", {}).get("section", ""))
    return SECTIONS.index(section) if section in SECTIONS else len(SECTIONS)


def section_name(section) -> str:
    section = str(section)
    if not section[:1].isdigit() and len(section) > 3:
        return section.capitalize()
    return f"{'Section' if section[0].isdigit() else 'Appendix'} {section}"


def place_of(entry) -> str:
    """Where in the paper: "Lemma 2", "proof of Lemma 5, equation 30", or the section where nothing is numbered."""
    place = entry.get("place", {})
    if is_ours(entry):
        return "this book"
    parts = [str(place["item"])] if place.get("item") else []
    if place.get("equation"):
        several = re.search(r"[,–-]", str(place["equation"]))
        parts.append(f"equation{'s' if several else ''} {place['equation']}")
    if not parts or not re.search(r"\d", parts[0]):
        parts.append(section_name(place.get("section", "")))
    return ", ".join(parts)


def verdict_of(entry) -> str:
    """The verdict with what it rests on: "corrected", "holds (proved)"."""
    if entry["verdict"] in ("holds", "imprecise") and entry.get("evidence") in ("proved", "confirmed"):
        return f"{entry['verdict']} ({entry['evidence']})"
    return entry["verdict"]


def word_class(entry) -> str:
    return "verdict-" + entry["verdict"].replace(" ", "-")


def page_of(entry) -> str:
    return "chapters/errata" if entry["kind"] in ERRATA else "chapters/ledger"


MOST_BESIDE = 6  # rows linked beside a row
NAMED = r"(Theorem|Lemma|Proposition|Definition|Figure|equation)s? ([\d][\d,– -]*)"
NUMBERED = re.compile(r"(Definition|Lemma|Proposition|Theorem) \d+")


def is_numbered(entry):
    return entry["kind"] == "statement" and bool(NUMBERED.fullmatch(str(entry["place"].get("item"))))


def numbers() -> dict[str, int]:
    """Counts for the index: the numbered statements, all claims by outcome, slips, and the book's own."""
    printed = [e for e in load() if not is_ours(e)]
    claimed = [e for e in printed if e["kind"] not in ERRATA]
    first = {e["place"]["item"]: e["verdict"] for e in reversed(claimed) if is_numbered(e)}
    words = Counter(first.values())
    return {
        "numbered": sum(words.values()),
        "stand": sum(words[w] for w in ("holds", "imprecise", "definition")),
        "corrected": words["corrected"],
        "refuted": words["refuted"],
        "claimed": len(claimed),
        "failed": sum(e["verdict"] in ("corrected", "refuted", "differs") for e in claimed),
        "unchecked": sum(e["verdict"] == "not checked" for e in claimed),
        "slips": len(printed) - len(claimed),
        "ours": len(load()) - len(printed),
    }


class statement(nodes.Admonition, nodes.Element):
    """A labelled statement, without a number of the book's own."""


def visit_statement(self, node):
    self.body.append(self.starttag(node, "div", CLASS="admonition"))


def depart_statement(self, node):
    self.body.append("</div>\n")


class NameStatements(SphinxTransform):
    """Replace sphinx-proof's numbered boxes by boxes that carry kind, title and, later, a badge."""

    default_priority = 400

    def apply(self):
        numbered = tuple(NODE_TYPES.values())
        for old in list(self.document.findall(lambda n: isinstance(n, numbered))):
            label, kind = old["label"], old["realtype"]
            new = statement(ids=old["ids"], classes=old["classes"], label=label)
            title = nodes.title("", "")
            title += nodes.inline("", f"{kind.title()}.", classes=["statement-kind"])
            title += nodes.Text(" ")
            title += [child.deepcopy() for child in old[0].children]
            if isinstance(title[-1], nodes.Text):  # the place stands in the badge
                title[-1] = nodes.Text(re.sub(r"\s*\(paper: [^)]*\)$", "", title[-1].astext()))
            new += title
            new += old.children[1:]
            old.replace_self(new)
            self.env.proof_list[label]["nonumber"] = True


class LinkStatements(SphinxPostTransform):
    """Badges in titles, and names in references, once every page is known."""

    default_priority = 5  # before references are resolved
    formats = ("html",)

    def run(self, **_):
        entries = by_id()
        for node in list(self.document.findall(statement)):
            if entry := entries.get(node["label"]):
                node[0] += nodes.Text(" ")
                node[0] += badge(self.app.builder, self.env.docname, entry)
        for node in list(self.document.findall(pending_xref)):
            target = node.get("reftarget")
            if node.get("refdomain") == "prf" and target in entries and node.astext() == target:
                node[0].children = [nodes.Text(entries[target]["name"])]


def badge(builder, docname, entry):
    uri = builder.get_relative_uri(docname, page_of(entry)) + f"#row-{entry['id']}"
    link = nodes.reference("", "", internal=True, refuri=uri, classes=["badge", word_class(entry)])
    link += nodes.inline("", f"{place_of(entry)} · {verdict_of(entry)}")
    return link


class Rows(Domain):
    """The rows as objects of the search: by place in the paper and name, and by each number in a range of numbers."""

    name = "claims"
    label = "Claims"
    object_types = {"row": ObjType("ledger"), "slip": ObjType("errata")}

    def get_type_name(self, type, primary=False):
        """What the search says beside a row."""
        return type.lname

    def get_objects(self):
        for entry in load():
            kind = "slip" if entry["kind"] in ERRATA else "row"
            first = 0 if is_numbered(entry) else 1
            place, name = place_of(entry), plain(entry["name"]).replace("$", "")
            spelled = [f"{k} {number}" for k, number in named(entry)]
            places = [place] + [f"{key} (in {place})" for key in spelled if not re.search(rf"{key}\b", place)]
            for shown in places:
                text = f"{name if name.startswith(shown) else f'{shown}: {name}'} · {verdict_of(entry)}"
                yield f"{entry['id']} {shown}", text, kind, page_of(entry), f"row-{entry['id']}", first

    def merge_domaindata(self, docnames, otherdata):
        """All is in the file."""

    def resolve_any_xref(self, env, fromdocname, builder, target, node, contnode):
        """No reference in the text means a row: rows are linked by their page's anchors."""
        return []


class Claims(SphinxDirective):
    """``{claims} ledger``, ``{claims} errata``, ``{claims} paper``, ``{claims} words``, ``{claims} jump``."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self):
        self.env.note_dependency(str(FILE))
        return getattr(self, f"write_{self.arguments[0]}")()

    def write_words(self):
        """The verdict words, their meaning, and how often each was given, in the ledger and in the errata."""
        number = Counter((e["verdict"], e["kind"] in ERRATA) for e in load())
        lines = []
        for word, meaning in VERDICTS.items():
            here, there = number[word, False], number[word, True]
            counts = [f"{here} here"] * (here > 0) + [f"{there} in the errata"] * (there > 0)
            lines += [f"{word}", f": {meaning} ({', '.join(counts) or 'none'}).", ""]
        return self.parse(lines)

    def write_numbers(self):
        """The index's summary."""
        n = numbers()
        return self.parse(
            [
                f"Of the paper's {n['numbered']} numbered definitions, lemmas, propositions and theorems {n['stand']} stand, "
                f"{n['corrected']} hold after a correction, and {n['refuted']} {'fails' if n['refuted'] == 1 else 'fail'} without a repair of the same kind.",
                f"Of all {n['claimed']} assertions of the paper that the [ledger](ledger.md) lists, its figures included, {n['failed']} "
                f"failed or needed a correction and {n['unchecked']} were not checked, each with the reason.",
                f"{n['slips']} slips in formulas and steps of proofs have [a page of their own](errata.md). "
                f"{n['ours']} statements are the book's.",
            ]
        )

    def write_ledger(self):
        """Rows by chapter: statements, claims and the book's own; errata have a page of their own."""
        rows = [e for e in load() if e["kind"] not in ERRATA]
        out = [nodes.raw("", FILTERS, format="html")]
        chapters = list(dict.fromkeys(e.get("chapter", "") for e in rows))
        chapters.sort(key=lambda c: (c == "", self.chapter_order(c)))
        for chapter in chapters:
            out += self.section(
                chapter, self.chapter_title(chapter), [e for e in rows if e.get("chapter", "") == chapter]
            )
        return out

    def write_errata(self):
        """Slips of formulas and proof steps, in the order of the paper's pages."""
        rows = sorted((e for e in load() if e["kind"] in ERRATA), key=paper_order)
        return self.by_section(rows, self.row)

    def write_paper(self):
        """Every assertion of the paper, one line each, in the paper's order."""
        rows = sorted((e for e in load() if not is_ours(e)), key=paper_order)
        return self.by_section(rows, self.line)

    def write_jump(self):
        """Links to everything that has a number in the paper."""
        found = {}
        for entry in sorted((e for e in load() if not is_ours(e)), key=paper_order):
            own = entry["kind"] == "statement"
            for kind, number in named(entry):
                key = (kind.capitalize(), number)
                if key not in found or (own and not found[key][1] and kind != "equation"):
                    found[key] = (entry, own)
        block = nodes.container(classes=["jump"])
        for kind in ("Theorem", "Lemma", "Proposition", "Definition", "Figure", "Equation"):
            line = nodes.paragraph()
            line += nodes.strong("", kind)
            for (k, number), (entry, _) in sorted(found.items(), key=lambda item: item[0][1]):
                if k == kind:
                    line += nodes.Text(" ")
                    line += link_to(
                        self.env.app.builder, self.env.docname, entry, str(number), label=f"{kind} {number}"
                    )
            block += line
        return [block]

    def by_section(self, rows, write):
        out = []
        for section in dict.fromkeys(str(e["place"]["section"]) for e in rows):
            chosen = [e for e in rows if str(e["place"]["section"]) == section]
            out += self.section(f"section-{section}", section_name(section), chosen, write)
        return out

    def section(self, name, title, rows, write=None):
        box = nodes.section(ids=[nodes.make_id(f"claims-{name}") or "claims"], names=[])
        box += nodes.title("", title)
        for entry in rows:
            box += (write or self.row)(entry)
        return [box]

    def row(self, entry):
        """One claim: name and verdict, what is printed, what holds, what shows it."""
        box = nodes.container(classes=["claim", word_class(entry), f"kind-{entry['kind']}"], ids=[f"row-{entry['id']}"])
        head = nodes.paragraph(classes=["claim-head"])
        head += nodes.strong("", entry["name"])
        head += nodes.Text(" ")
        head += nodes.inline("", f"{place_of(entry)} · {verdict_of(entry)}", classes=["badge", word_class(entry)])
        box += head
        for key, title in (("printed", "Printed"), ("holds", "Holds"), ("reason", "Why")):
            if entry.get(key):
                box += self.parse([f"**{title}.** {' '.join(str(entry[key]).split())}"])
        box += self.foot(entry)
        box += self.beside(entry)
        return [box]

    def beside(self, entry):
        """Links to the other rows on the same number of the paper, in its order; where they are many, to the statements."""
        others = {e["id"]: e for key in named(entry) for e in by_number()[key] if e["id"] != entry["id"]}
        if not others:
            return []
        keys = [key for key in named(entry) if len(by_number()[key]) > 1]
        line = nodes.paragraph(classes=["claim-foot", "claim-beside"])
        line += nodes.Text(f"Also on {spelled(keys)}: ")
        chosen = nearest(others.values())
        for number, other in enumerate(chosen):
            line += nodes.Text(" · " if number else "")
            line += link_to(self.env.app.builder, self.env.docname, other, plain(other["name"]))
            line += nodes.Text(f" ({verdict_of(other)})")
        if len(others) > len(chosen):
            uri = self.env.app.builder.get_relative_uri(self.env.docname, "chapters/paper_order")
            more = nodes.reference("", "", internal=True, refuri=f"{uri}#{section_id(entry['place']['section'])}")
            rest = f"{len(others) - len(chosen)} {'more ' if chosen else ''}in the paper's order"
            more += nodes.inline("", rest)
            line += [nodes.Text(" · " if chosen else ""), more]
        return [line]

    def line(self, entry):
        box = nodes.paragraph(classes=["claim-line", word_class(entry)])
        box += nodes.inline("", f"{place_of(entry)}", classes=["claim-place"])
        box += nodes.Text(" ")
        box += link_to(self.env.app.builder, self.env.docname, entry, entry["name"])
        box += nodes.Text(" ")
        box += nodes.inline("", verdict_of(entry), classes=["badge", word_class(entry)])
        return [box]

    def foot(self, entry):
        """Links to the statement and the cell, what it rests on, and how far it was shown."""
        parts = []
        if re.match(r"(def|lem|prop|thm|cor|obs|conj)-", entry["id"]):
            parts.append(f"{{prf:ref}}`statement: {plain(entry['name'])} <{entry['id']}>`")
        if entry.get("check"):
            parts.append(f"[check: {entry['check'].removeprefix('check-').replace('-', ' ')}](#{entry['check']})")
        how = " · ".join(str(entry[k]) for k in ("evidence", "proof", "range") if entry.get(k) and entry[k] != "none")
        if how:
            parts.append(how)
        block = self.parse([" · ".join(parts)]) or [nodes.paragraph()]
        used = [by_id()[u] for u in entry.get("uses", [])]
        for number, other in enumerate(used):
            block[-1] += nodes.Text(", " if number else (" · rests on " if parts else "Rests on "))
            block[-1] += link_to(self.env.app.builder, self.env.docname, other, plain(other["name"]))
        for paragraph in block:
            paragraph["classes"].append("claim-foot")
        return block if parts or used else []

    def parse(self, lines):
        box = nodes.Element()
        self.state.nested_parse(StringList(lines, source=str(FILE)), self.content_offset, box)
        return box.children

    def chapter_title(self, chapter):
        if not chapter:
            return "Not tied to a chapter"
        words = chapter.replace("_", " ").replace("low rank", "low-rank").replace("two cycle", "two-cycle")
        return (words[0].upper() + words[1:]).replace("Relu", "ReLU")

    def chapter_order(self, chapter):
        toc = (FILE.parent.parent / "_toc.yml").read_text()
        place = toc.find(f"chapters/{chapter}\n")
        return place if place >= 0 else len(toc)


def named(entry):
    """What has a number in the paper: pairs like ("Lemma", 4), ("equation", 29)."""
    if is_ours(entry):
        return []
    place = entry["place"]
    text = str(place.get("item", "")) + (f" equation {place['equation']}" if place.get("equation") else "")
    return [(kind, number) for kind, numbers in re.findall(NAMED, text) for number in expand(numbers)]


@cache
def by_number() -> dict:
    """Entries by the numbers that they have in the paper."""
    found = defaultdict(list)
    for entry in load():
        for key in dict.fromkeys(named(entry)):
            found[key].append(entry)
    return found


def section_id(section) -> str:
    """Anchor of a section of the paper on a page in its order."""
    return nodes.make_id(f"claims-section-{section}")


def nearest(others):
    """The rows to name beside a row, in the paper's order: all where they are few, else those of statements."""
    rows = sorted(others, key=paper_order)
    return rows if len(rows) <= MOST_BESIDE else [e for e in rows if e["kind"] == "statement"][:MOST_BESIDE]


def spelled(keys):
    """What has a number in the paper, in words: "Proposition 1, equations 18–23"."""
    words = []
    for kind in dict.fromkeys(kind for kind, _ in keys):
        runs = []
        for number in sorted(number for k, number in keys if k == kind):
            if runs and number == runs[-1][-1] + 1:
                runs[-1].append(number)
            else:
                runs.append([number])
        names = [str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs]
        words.append(f"{kind}{'s' if sum(map(len, runs)) > 1 else ''} {', '.join(names)}")
    return ", ".join(words)


def plain(name):
    return re.sub(r"[`<>\[\]]", "", str(name))


def expand(numbers):
    """The numbers in "8–11, 17"."""
    for part in re.split(r",\s*", numbers.strip(" ,-–")):
        ends = [int(n) for n in re.findall(r"\d+", part)]
        if ends:
            yield from range(ends[0], ends[-1] + 1)


def link_to(builder, docname, entry, text, label=None):
    uri = builder.get_relative_uri(docname, page_of(entry)) + f"#row-{entry['id']}"
    link = nodes.reference("", "", internal=True, refuri=uri)
    link += nodes.inline("", text)
    if label:
        link["reftitle"] = label
    return link


FILTERS = '<div class="claim-filters" role="group" aria-label="Show only rows with the verdict"></div>'


def setup(app):
    app.add_node(statement, html=(visit_statement, depart_statement))
    app.add_domain(Rows)
    app.add_transform(NameStatements)
    app.add_post_transform(LinkStatements)
    app.add_directive("claims", Claims)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
