"""The book's own rules: what every chapter has, and that ledger, figures and chapters say the same."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ROOT / "chapters"
PAGES = sorted(CHAPTERS.glob("*.md"))
HEADER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  name: python3
  display_name: Python 3 (ipykernel)
  language: python
---
"""
STATEMENTS = ("definition", "lemma", "proposition", "theorem", "corollary", "observation", "conjecture")
PREFIXES = ("def-", "lem-", "prop-", "thm-", "cor-", "obs-", "conj-")
FIGURES_OF_THE_PAPER = 23


def read(path):
    return jupytext.read(path, fmt="md:myst")


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def tags(cell):
    return cell.metadata.get("tags", [])


def can_fail(test):
    """Whether an asserted expression depends on anything: no constant, and no comparison of a thing with itself."""
    if isinstance(test, ast.Compare):
        return len({ast.dump(side) for side in (test.left, *test.comparators)}) > 1
    return any(isinstance(node, ast.Name) for node in ast.walk(test))


def has_assert(source):
    """Whether the cell asserts something that can fail, somewhere that runs."""
    tree = ast.parse(source)
    dead = {
        id(n) for i in ast.walk(tree) if isinstance(i, ast.If) and isinstance(i.test, ast.Constant) for n in ast.walk(i)
    }
    found = [node.test for node in ast.walk(tree) if isinstance(node, ast.Assert) and id(node) not in dead]
    return any(can_fail(test) for test in found)


def problems(path) -> list[str]:
    """Everything in one notebook that breaks a rule; used on the chapters, and on planted faults in test_planted."""
    text, cells, found = path.read_text(encoding="utf8"), code_cells(path), []
    prose = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    if not text.startswith(HEADER):
        found.append("header differs from the book's")
    if re.search(r"\d", path.stem):
        found.append("digit in the file name")
    if len(re.findall(r"^# ", prose, re.M)) != 1:
        found.append("needs exactly one H1")
    checked = set()
    for number, cell in enumerate(cells):
        try:
            tree = ast.parse(cell.source)
        except SyntaxError as error:
            found.append(f"cell {number}: {error}")
            continue
        found += [f"cell {number}: {p}" for p in code_problems(cell.source, tree)]
        if muted := {
            "raises-exception",
            "nbval-skip",
            "nbval-ignore-output",
            "nbval-raises-exception",
            "skip-execution",
        } & set(tags(cell)):
            found.append(f"cell {number}: {', '.join(sorted(muted))} hides failures")
        if not fold_line(cell):
            found.append(f"cell {number}: a check begins with a comment that says what was tried")
        shown = cell.source.rstrip().rpartition("\n")[2]
        if shown.startswith("Markdown(") and cell.metadata.get("mystnb", {}).get("markdown_format") != "myst":
            found.append(f"cell {number}: a table is shown as text without mystnb: markdown_format: myst")
        for tag in tags(cell):
            if tag.startswith("check-"):
                checked.add(tag)
                if not has_assert(cell.source):
                    found.append(f"cell {number}: tagged {tag} without an assert")
    if not checked:
        found.append("no check cell")
    found += [f"check cell {tag} has no target line" for tag in sorted(checked) if f"({tag})=\n" not in prose + "\n"]
    found += [f"label {label} has no check cell" for label in labels_in(prose) if f"check-{label}" not in checked]
    return found + figure_problems(cells)


def fold_line(cell):
    """Whether a check cell has the line under which the page folds it."""
    is_check = any(tag.startswith("check-") for tag in tags(cell))
    return not is_check or {"argument", "remove-input"} & set(tags(cell)) or cell.source.startswith("# ")


def code_problems(source, tree):
    """Rules for the code of one cell."""
    lines = [line for line in source.split("\n") if line.strip()]
    if len(lines) > 40:
        yield f"{len(lines)} lines of code"
    if wide := [line for line in lines if len(line) > 95]:
        yield f"a line of {len(wide[0])} characters, which scrolls sideways: {wide[0][:40]}"
    if re.search(
        r"np\.random\.(?!default_rng|Generator)\w+|default_rng\(\)|^\s*(?:import|from) random\b", source, re.M
    ):
        yield "unseeded or global randomness"
    if re.search(
        r"^\s*(?:import|from) warnings\b|\bsuppress\(|#\s*NBVAL_|\bpytest\.raises\(AssertionError|np\.seterr",
        source,
        re.M,
    ):
        yield "warnings or failures are switched off"
    if re.search(r"(?<![\w.])/(tmp|home|root|work)/", source):
        yield "a path of one machine"
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) and any(isinstance(child, ast.Assert) for child in ast.walk(node)):
            yield "an assert inside try"


def figure_problems(cells):
    """Every figure has a name, a caption, alternative text and its numbers."""
    found = []
    offered = re.findall(r"plot\.download\(\s*\"(fig-[\w-]+)\"", "\n".join(cell.source for cell in cells))
    for number, cell in enumerate(cells):
        options = cell.metadata.get("mystnb", {})
        figure, alt = options.get("figure", {}), options.get("image", {}).get("alt", "")
        if "plt.show()" in cell.source and not figure:
            found.append(f"cell {number}: shows a figure without name and caption")
        if not figure:
            continue
        name, caption = figure.get("name", ""), figure.get("caption", "")
        if not re.fullmatch(r"fig(-[a-z]+)+", name):
            found.append(f"cell {number}: figure name {name!r}")
        if len(caption.split()) < 10 or len(caption.split()) > 110:
            found.append(f"{name}: caption of {len(caption.split())} words")
        if len(alt.split()) < 10:
            found.append(f"{name}: alternative text of {len(alt.split())} words")
        if name not in offered:
            found.append(f"{name}: its numbers are not offered for download")
    return found


def labels_in(prose):
    """Labels of all prf statements on a page."""
    pattern = rf"\{{prf:(?:{'|'.join(STATEMENTS)})\}}[^\n]*\n:label: ([\w-]+)"
    return re.findall(pattern, prose)


def is_notebook(path):
    return path.read_text(encoding="utf8").startswith("---\njupytext")


NOTEBOOKS = [path for path in PAGES if is_notebook(path)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_chapter_keeps_the_rules(path):
    assert problems(path) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_metadata_of_cells_are_ascii(path):
    """jupytext before 1.19 writes other letters as escapes: saving would change the file."""
    heads = re.findall(r"^```\{code-cell\}[^\n]*\n---\n(.*?)^---$", path.read_text(encoding="utf8"), flags=re.M | re.S)
    assert [line for head in heads for line in head.splitlines() if not line.isascii()] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_round_trip_through_jupytext(path):
    """Opening and saving a chapter in JupyterLab changes nothing."""
    command = [sys.executable, "-m", "jupytext", "--test-strict", str(path), "--to", "ipynb"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_cell_has_a_stored_output_and_no_image(path):
    text = (ROOT / "tests" / "outputs" / f"{path.stem}.json").read_text(encoding="utf8")
    assert len(json.loads(text)) == len(code_cells(path))
    assert "image/" not in text and "<html" not in text


def test_every_page_is_in_the_table_of_contents_once():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = [toc["root"]] + [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    assert sorted(listed) == sorted(f"chapters/{path.stem}" for path in PAGES)


def test_every_module_has_a_page():
    modules = {path.stem for path in (ROOT / "eoslib").glob("*.py")} | {"explorers"}
    assert {path.stem for path in (CHAPTERS / "api").glob("*.md")} == modules - {"__init__", "validate"}
    toc = (ROOT / "_toc.yml").read_text()
    assert all(f"chapters/api/{path.stem}\n" in toc for path in (CHAPTERS / "api").glob("*.md"))


def test_stored_outputs_belong_to_chapters():
    assert {p.stem for p in (ROOT / "tests" / "outputs").glob("*.json")} == {p.stem for p in NOTEBOOKS}


def rows(page, columns):
    """Data rows of the page's tables with that many columns, each a list of cells."""
    table = [line for line in (CHAPTERS / f"{page}.md").read_text(encoding="utf8").split("\n") if line.startswith("|")]
    split = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]
    return [r for r in split if len(r) == columns and not set(r[0]) <= set("-: ")]


CLAIMS = yaml.safe_load((CHAPTERS / "claims.yml").read_text(encoding="utf8"))


def test_claims_and_chapters_name_the_same_statements():
    chapters = {label: path.stem for path in NOTEBOOKS for label in labels_in(path.read_text(encoding="utf8"))}
    listed = {c["id"]: c.get("chapter") for c in CLAIMS if c["id"].startswith(PREFIXES)}
    assert listed == chapters
    assert all(not re.search(r"\d|[A-Z]", label) for label in listed)


def test_claims_point_at_checks():
    checks = {tag for path in NOTEBOOKS for cell in code_cells(path) for tag in tags(cell) if tag.startswith("check-")}
    wrong = [c["id"] for c in CLAIMS if c.get("check") and c["check"] not in checks]
    wrong += [c["id"] for c in CLAIMS if c["id"].startswith(PREFIXES) and not c.get("check")]
    assert wrong == []


def test_figure_rows_point_at_figures_and_have_a_verdict():
    drawn = {
        c.metadata["mystnb"]["figure"]["name"]
        for p in NOTEBOOKS
        for c in code_cells(p)
        if c.metadata.get("mystnb", {}).get("figure")
    }
    numbers = set()
    for row in rows("figures", 7):
        if row[0] == "paper":
            continue
        numbers |= {int(n) for n in re.findall(r"\d+", row[0])}
        names = re.findall(r"\{numref\}`(fig-[\w-]+)`", row[1])
        assert names and set(names) <= drawn, row
        assert row[5].startswith(("reproduced", "differs", "corrected")), row
    assert numbers == set(range(1, FIGURES_OF_THE_PAPER + 1))


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem not in ("index", "notation")], ids=lambda p: p.stem)
def test_a_chapter_opens_with_a_picture(path):
    """A figure comes before the first statement, and no import cell is shown."""
    kinds = []
    for cell in read(path).cells:
        if cell.cell_type == "code":
            kinds.append("figure" if cell.metadata.get("mystnb", {}).get("figure") else "code")
            assert not re.match(r"(import|from) ", cell.source) or "remove-input" in tags(cell), cell.source[:60]
        elif labels_in(cell.source):
            kinds.append("statement")
    assert "statement" not in kinds[: kinds.index("figure")]


def sources(root=ROOT):
    """The project's files: those git knows or would add, or without git all but what is built and installed."""
    if (root / ".git").exists():
        command = ["git", "ls-files", "-co", "--exclude-standard"]
        listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split("\n")
        return [root / name for name in listed if name and (root / name).is_file()]
    built = {".venv", "_build", "__pycache__", ".pytest_cache", ".hypothesis", ".ipynb_checkpoints", ".ruff_cache"}
    return [p for p in root.rglob("*") if p.is_file() and not built & set(p.relative_to(root).parts)]


def test_nothing_in_the_sources_speaks_of_one_machine():
    texts = [p for p in sources() if p.suffix in {".md", ".yml", ".toml", ".cff", ".py"} and p != Path(__file__)]
    assert set(PAGES) <= set(texts)
    for path in texts:
        assert not re.search(r"(?<![\w.])/(tmp|work|root|home)/\w", path.read_text(encoding="utf8")), path


def test_the_rule_about_sources_holds_in_an_archive_without_git(tmp_path):
    (tmp_path / ".venv").mkdir()
    for name in ("chapter.md", ".venv/installed.md"):
        (tmp_path / name).touch()
    assert sources(tmp_path) == [tmp_path / "chapter.md"]
