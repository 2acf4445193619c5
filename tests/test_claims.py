"""The verdicts: one file, every field in its place, none stronger than what it rests on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from test_book import CHAPTERS, FIGURES_OF_THE_PAPER, NOTEBOOKS, PREFIXES, code_cells, labels_in, tags

WORDS = {
    "paper": {
        "holds",
        "imprecise",
        "corrected",
        "refuted",
        "misprint",
        "definition",
        "reproduced",
        "differs",
        "qualitative",
        "not checked",
    },
    "ours": {"proved", "confirmed", "conjecture"},
}
FIELDS = set("id chapter kind place name printed verdict holds evidence proof range check uses reason todo".split())
KINDS = {"statement", "claim", "erratum", "copy", "ours"}
PROOFS = {"identity", "inequality", "certificate"}
SECTION = re.compile(r"abstract|references|[1-5]|[234]\.[1-3]|A|[BC]|B\.[1-6]|C\.[1-3]")
NEEDS_EVIDENCE = {"holds", "imprecise", "corrected", "refuted"}
NUMBERED = [
    *(f"Definition {n}" for n in range(1, 4)),
    *(f"Lemma {n}" for n in range(1, 12)),
    *(f"Proposition {n}" for n in range(1, 4)),
    "Theorem 1",
    "Theorem 2 (informal)",
    "Theorem 2",
    "Theorem 3",
]
MANY = 1000  # stands for "every depth" in a set of depths


def load(path: Path = CHAPTERS / "claims.yml") -> list[dict]:
    """Entries of the data file; a repeated key in one entry is an error."""

    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader, node):
        keys = [key.value for key, _ in node.value]
        assert len(set(keys)) == len(keys), f"repeated key near line {node.start_mark.line + 1}: {keys}"
        return yaml.SafeLoader.construct_mapping(loader, node, deep=True)

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    return yaml.load(path.read_text(encoding="utf8"), Strict)


CLAIMS = load()
CHECKS = {p.stem: {tag for c in code_cells(p) for tag in tags(c) if tag.startswith("check-")} for p in NOTEBOOKS}
LABELS = {label: p.stem for p in NOTEBOOKS for label in labels_in(p.read_text(encoding="utf8"))}


def depths(words: str) -> frozenset | None:
    """Depths that a range names, "all L ≥ 2", "all odd L ≥ 3", "L = 2…8", "L = 2, 3", "no depth", "L → ∞"; None for other words."""
    start = words.split(";")[0].strip()
    if start == "no depth":
        return frozenset(range(1, MANY))
    if match := re.fullmatch(r"all (odd |even |real )?L ≥ (\d)", start):
        return frozenset(range(int(match[2]), MANY, 2 if match[1] in {"odd ", "even "} else 1))
    if match := re.fullmatch(r"L = (\d+)…(\d+)", start):
        return frozenset(range(int(match[1]), int(match[2]) + 1))
    if match := re.fullmatch(r"L = (\d+(?:, \d+)*)", start):
        return frozenset(map(int, match[1].split(", ")))
    return frozenset() if start == "L → ∞" else None


def basis(entry: dict) -> str | None:
    """What the entry's `holds` rests on: proved, confirmed or nothing."""
    if entry.get("kind") == "ours":
        return {"proved": "proved", "confirmed": "confirmed"}.get(entry["verdict"])
    return None if entry.get("evidence") == "none" else entry.get("evidence")


def strength(entry: dict) -> int:
    """4 proved for all depths, 3 proved for a range, 2 confirmed, 1 conjecture or not checked; 5 a definition."""
    if entry["verdict"] == "definition":
        return 5
    if basis(entry) == "proved":
        return 4 if re.match(r"all |no depth", entry.get("range", "")) else 3
    return 2 if basis(entry) == "confirmed" else 1


def field_problems(entry: dict):
    """Rules for one entry by itself."""
    ours, verdict = entry.get("kind") == "ours", entry.get("verdict")
    if extra := set(entry) - FIELDS:
        yield f"unknown fields {sorted(extra)}"
    if entry.get("kind") not in KINDS:
        yield f"kind {entry.get('kind')!r}"
    if verdict not in WORDS["ours" if ours else "paper"]:
        yield f"verdict {verdict!r}"
    if not re.fullmatch(r"[a-z]+(-[a-z0-9]+)+", str(entry.get("id"))):
        yield "id is no slug"
    if not 1 <= len(str(entry.get("name", "")).split()) <= 8:
        yield "name of no or more than eight words"
    place = entry.get("place", {})
    if ours and place:
        yield "a place in the paper for a statement of this book"
    if not ours and not SECTION.fullmatch(str(place.get("section"))):
        yield f"place {place}"
    if set(place) - {"section", "item", "equation"} or not all(isinstance(v, str) for v in place.values()):
        yield f"place {place}"
    if not ours and len(str(entry.get("printed", "")).split()) < 1:
        yield "does not say what is printed"
    if verdict == "not checked":
        if len(entry.get("reason", "").split()) < 2:
            yield "not checked, without a reason"
    elif not entry.get("holds"):
        yield "does not say what holds"
    yield from evidence_problems(entry)


def evidence_problems(entry: dict):
    """Evidence, proof and range where the verdict needs them."""
    ours, verdict = entry.get("kind") == "ours", entry.get("verdict")
    if verdict in NEEDS_EVIDENCE and entry.get("evidence") not in {"proved", "confirmed", "none"}:
        yield f"{verdict} without evidence"
    if verdict in {"holds", "imprecise", "corrected"} and entry.get("evidence") == "none" and not entry.get("reason"):
        yield f"{verdict} rests on nothing, without a reason"
    if basis(entry) == "proved" and entry.get("proof") not in PROOFS:
        yield "proved without a kind of proof"
    if entry.get("proof") and basis(entry) != "proved":
        yield "a kind of proof, but not proved"
    if (basis(entry) or verdict == "conjecture") and depths(entry.get("range", "")) is None:
        yield f"range {entry.get('range')!r} does not start with its depths"
    if ours and entry.get("evidence") not in {None, basis(entry)}:
        yield "evidence and verdict differ"
    if "check" not in entry and verdict not in {"not checked", "definition", "misprint"} and "todo" not in entry:
        yield "neither a check nor a note on the cell that is missing"


def chapter_problems(entry: dict, checks: dict, labels: dict):
    """The entry and the chapter that shows it."""
    chapter, tag = entry.get("chapter"), entry.get("check")
    if tag and tag not in checks.get(chapter, ()):
        yield f"{tag} is no check cell of {chapter}"
    if chapter and chapter not in checks and entry["verdict"] != "not checked":
        yield f"no chapter {chapter}"
    if entry["kind"] == "statement" and entry["id"] not in labels:
        yield "no statement of that label"
    if entry["id"] in labels and labels[entry["id"]] != chapter:
        yield f"stands in {labels[entry['id']]}"


def link_problems(entries: list[dict]):
    """No verdict claims more than something it uses."""
    by_id = {entry["id"]: entry for entry in entries}
    for entry in entries:
        for used in (by_id.get(name) for name in entry.get("uses", ())):
            if used is None:
                yield f"{entry['id']}: uses an entry that does not exist"
            elif used["verdict"] == "refuted":
                yield f"{entry['id']}: uses {used['id']}, which is refuted"
            elif strength(entry) > strength(used):
                yield f"{entry['id']}: stronger than {used['id']}"
            elif basis(entry) == basis(used) == "proved" and not depths(entry["range"]) <= depths(used["range"]):
                yield f"{entry['id']}: proved for depths for which {used['id']} is not"
    yield from (f"{name}: rests on itself" for name in sorted(by_id) if name in reached(name, by_id))


def reached(name: str, by_id: dict) -> set:
    """Ids that an entry uses, directly or through others."""
    found, queue = set(), list(by_id[name].get("uses", ()))
    while queue:
        if (step := queue.pop()) in by_id and step not in found:
            found.add(step)
            queue += by_id[step].get("uses", ())
    return found


def problems(entries: list[dict], checks: dict = CHECKS, labels: dict = LABELS, numbered=NUMBERED) -> list[str]:
    """Everything that breaks a rule."""
    found, ids = [], [entry.get("id") for entry in entries]
    found += [f"{name}: twice" for name in sorted({str(name) for name in ids if ids.count(name) > 1})]
    for entry in entries:
        own = list(field_problems(entry)) or list(chapter_problems(entry, checks, labels))
        found += [f"{entry.get('id')}: {problem}" for problem in own]
    found += [f"{label}: no entry" for label in sorted(set(labels) - set(ids))]
    items = {entry.get("place", {}).get("item") for entry in entries if entry.get("kind") == "statement"}
    found += [f"{name}: no entry" for name in numbered if name not in items]
    return found or list(link_problems(entries))


def test_every_claim_keeps_the_rules():
    assert problems(CLAIMS) == []


def numbers(words: str) -> set[int]:
    """Numbers in a place such as "12–24", "before 16" or "Figures 5, 18"."""
    spans = re.findall(r"(\d+)(?:–(\d+))?", words)
    return {n for first, last in spans for n in range(int(first), int(last or first) + 1)}


def test_the_census_reaches_every_section_equation_and_figure():
    places = [claim["place"] for claim in CLAIMS if "place" in claim]
    sections = {place["section"] for place in places}
    wanted = "abstract 1 2 3 3.1 3.2 3.3 4.1 4.2 5 A B.1 B.2 B.3 B.4 B.5 B.6 C.1 C.2 C.3".split()
    assert set(wanted) <= sections
    assert set(range(1, 66)) <= set().union(*(numbers(place.get("equation", "")) for place in places))
    figures = {claim["id"] for claim in CLAIMS if claim["id"].startswith("fig-paper-")}
    assert figures == {f"fig-paper-{n}" for n in range(1, FIGURES_OF_THE_PAPER + 1)}
    verdicts = {claim["verdict"] for claim in CLAIMS if claim["id"] in figures}
    assert verdicts <= {"reproduced", "differs", "not checked"}


SAMPLE = """
- {id: def-word, chapter: one, kind: statement, place: {section: "1", item: Definition 1},
   name: Word, printed: p, verdict: definition, holds: h}
- {id: lem-deep, chapter: one, kind: statement, place: {section: C.3}, name: Deep, printed: p,
   verdict: holds, holds: h, evidence: proved, proof: identity, range: all L ≥ 2,
   check: check-lem-deep, uses: [lem-own, def-word]}
- {id: lem-own, chapter: one, kind: ours, name: Own, verdict: proved, holds: h, proof: inequality,
   range: no depth, check: check-lem-own}
- {id: lem-shallow, chapter: one, kind: ours, name: Shallow, verdict: proved, holds: h,
   proof: certificate, range: L = 2…4, check: check-lem-own}
- {id: lem-shallower, chapter: one, kind: ours, name: Shallower, verdict: proved, holds: h,
   proof: identity, range: "L = 2, 3", check: check-lem-own, uses: [lem-shallow]}
- {id: obs-seen, chapter: two, kind: statement, place: {section: B.4}, name: Seen, printed: p,
   verdict: imprecise, holds: h, evidence: confirmed, range: "L = 3; small", check: check-obs-seen}
- {id: conj-hoped, chapter: two, kind: ours, name: Hoped, verdict: conjecture, holds: h,
   range: "L = 2, 3", check: check-obs-seen}
- {id: err-wrong, chapter: two, kind: erratum, place: {section: "4.2"}, name: Wrong, printed: p,
   verdict: refuted, holds: h, evidence: confirmed, range: L = 3, check: check-obs-seen}
- {id: big-claim, kind: claim, place: {section: abstract}, name: Big claim, printed: p,
   verdict: not checked, reason: two words}
"""
BOOK = (
    {"one": {"check-lem-deep", "check-lem-own"}, "two": {"check-obs-seen"}},
    {"def-word": "one", "obs-seen": "two", "conj-hoped": "two"}
    | dict.fromkeys(("lem-deep", "lem-own", "lem-shallow", "lem-shallower"), "one"),
    ["Definition 1"],
)


def sample() -> list[dict]:
    return yaml.safe_load(SAMPLE)


def change(which: str, **fields):
    """The sample with some fields of one entry replaced, or removed where None is given."""
    entries = sample()
    target = next(entry for entry in entries if entry["id"] == which)
    for key, value in fields.items():
        target.pop(key, None) if value is None else target.update({key: value})
    return entries


FAULTS = {
    "unknown field": (change("lem-deep", colour="red"), "unknown fields"),
    "unknown kind": (change("lem-deep", kind="remark"), "kind 'remark'"),
    "no verdict": (change("lem-deep", verdict=None), "verdict None"),
    "a word of the other list": (change("lem-deep", verdict="proved"), "verdict 'proved'"),
    "a word of the paper for ours": (change("lem-own", verdict="holds"), "verdict 'holds'"),
    "no place": (change("lem-deep", place=None), "place {}"),
    "no such section": (change("lem-deep", place={"section": "7"}), "place {'section': '7'}"),
    "section as a number": (change("lem-deep", place={"section": 1}), "place {'section': 1}"),
    "page in a place": (change("lem-deep", place={"section": "1", "page": "2"}), "'page'"),
    "place for ours": (change("lem-own", place={"section": "1"}), "a place in the paper"),
    "nothing printed": (change("lem-deep", printed=None), "what is printed"),
    "nothing holds": (change("lem-deep", holds=None), "what holds"),
    "no name": (change("lem-deep", name=None), "name of no"),
    "long name": (change("lem-deep", name="a b c d e f g h i"), "more than eight"),
    "id with capitals": (change("big-claim", id="Big-claim"), "no slug"),
    "no evidence": (change("lem-deep", evidence=None, proof=None), "without evidence"),
    "rests on nothing": (change("lem-deep", evidence="none", proof=None), "rests on nothing"),
    "no kind of proof": (change("lem-deep", proof=None), "without a kind of proof"),
    "unknown kind of proof": (change("lem-deep", proof="picture"), "without a kind of proof"),
    "proof of a confirmed row": (change("obs-seen", proof="identity"), "but not proved"),
    "ours proved without proof": (change("lem-own", proof=None), "without a kind of proof"),
    "ours with other evidence": (change("lem-own", evidence="confirmed"), "evidence and verdict differ"),
    "no range": (change("lem-deep", range=None), "start with its depths"),
    "range without depths": (change("lem-deep", range="many networks"), "start with its depths"),
    "conjecture without range": (change("conj-hoped", range=None), "start with its depths"),
    "not checked, no reason": (change("big-claim", reason=None), "without a reason"),
    "no check": (change("lem-deep", check=None), "cell that is missing"),
    "no such check": (change("lem-deep", check="check-lem-nothing"), "no check cell"),
    "check of another chapter": (change("lem-deep", check="check-obs-seen"), "no check cell"),
    "no such chapter": (change("obs-seen", chapter="three", check=None, todo="cell"), "no chapter three"),
    "label of another chapter": (change("obs-seen", chapter="one", check="check-lem-own"), "stands in two"),
    "statement without label": (change("err-wrong", kind="statement"), "no statement of that label"),
    "uses nothing that is": (change("lem-deep", uses=["lem-nowhere"]), "does not exist"),
    "uses a refuted row": (change("obs-seen", uses=["err-wrong"]), "is refuted"),
    "proved from confirmed": (change("lem-shallow", uses=["obs-seen"]), "stronger than obs-seen"),
    "confirmed from a conjecture": (change("obs-seen", uses=["conj-hoped"]), "stronger than conj-hoped"),
    "confirmed from not checked": (change("obs-seen", uses=["big-claim"]), "stronger than big-claim"),
    "all depths from a range": (change("lem-deep", uses=["lem-shallow"]), "stronger than lem-shallow"),
    "more depths than those used": (change("lem-shallower", range="L = 2…5"), "depths for which lem-shallow"),
    "rests on itself": (change("lem-own", range="all L ≥ 2", uses=["lem-deep"]), "rests on itself"),
    "a row twice": ([*sample(), sample()[-1]], "twice"),
    "statement of a chapter without row": (sample()[1:], "def-word: no entry"),
    "numbered statement without row": (change("def-word", place={"section": "1"}), "Definition 1: no entry"),
}


def test_the_sample_keeps_the_rules():
    assert problems(sample(), *BOOK) == []


@pytest.mark.parametrize(("entries", "complaint"), FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_is_found(entries, complaint):
    found = problems(entries, *BOOK)
    assert any(complaint in problem for problem in found), found


def test_a_repeated_key_is_found(tmp_path):
    page = tmp_path / "claims.yml"
    page.write_text("- id: a-b\n  verdict: holds\n  verdict: refuted\n", encoding="utf8")
    with pytest.raises(AssertionError, match="repeated key"):
        load(page)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("all L ≥ 2", {2, 3, 50}),
        ("L = 2…4; α small", {2, 3, 4}),
        ("L = 2, 6", {2, 6}),
        ("no depth", {1, 50}),
        ("all odd L ≥ 3", {3, 5, 51}),
    ],
)
def test_depths_are_read(words, named):
    assert named <= depths(words) and ("all" in words or "no" in words or named == depths(words))
    assert depths("some depths") is None and depths("") is None
    assert not {4, 50} & depths("all odd L ≥ 3") and not depths("all even L ≥ 4") & depths("all odd L ≥ 3")


SHOWS = {
    # what at least one cell of the check must contain for a proof of this kind
    "identity": r"prove\(|sp\.|Fraction|== sp|symbols\.",
    "inequality": r"prove\(|sp\.|enclose\.|all_coeffs|Poly\(",
    "certificate": r"enclose\.|certificate|Poly\(|count_roots|Fraction|series\.|all_coeffs|signs",
}


def section_of(chapter, label):
    """Text between the headings around a statement."""
    text = (CHAPTERS / f"{chapter}.md").read_text(encoding="utf8")
    place = text.index(f":label: {label}\n")
    end = text.find("\n## ", place)
    return text[text.rfind("\n## ", 0, place) + 1 : end if end > 0 else None]


def test_the_kind_of_proof_is_what_the_cells_do():
    """An identity needs symbols or its proof in the text, a certificate an enclosure or exact counts, its own or one it uses."""
    sources, entries = {}, {entry["id"]: entry for entry in CLAIMS}
    for path in NOTEBOOKS:
        for cell in code_cells(path):
            for tag in tags(cell):
                sources.setdefault(tag, []).append(cell.source)

    def shown(entry, kind, seen):
        if re.search(SHOWS[kind], "\n".join(sources.get(entry.get("check"), []))):
            return True
        argued = r"\bProof\b|[Pp]roved? |because|[Ss]ince"
        if kind != "certificate" and entry["id"].startswith(PREFIXES):
            if re.search(argued, section_of(entry["chapter"], entry["id"])):
                return True
        seen.add(entry["id"])
        return any(shown(entries[u], kind, seen) for u in entry.get("uses", []) if u not in seen)

    labelled = [entry for entry in CLAIMS if entry.get("proof") and entry["id"].startswith(PREFIXES)]
    assert [(e["id"], e["proof"]) for e in labelled if not shown(e, e["proof"], set())] == []
