"""Planted faults: a chapter that lies, raises or checks nothing must fail. Each runs in a pytest process of its own."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_book import HEADER, problems

ROOT = Path(__file__).resolve().parent.parent

CELLS = """
# A chapter states something

(check-lem-x)=
```{code-cell} ipython3
:tags: [check-lem-x]

# tried
value = 6 * 7
assert value == 42
print("value", value)
```

```{code-cell} ipython3
value
```
"""


HONEST = [[{"stdout": "value 42\n"}], [{"text/plain": "42"}]]
FAULTS = {
    "a changed printed value": (CELLS, [[{"stdout": "value 41\n"}], [{"text/plain": "42"}]], "Cell outputs differ"),
    "a changed displayed value": (CELLS, [[{"stdout": "value 42\n"}], [{"text/plain": "43"}]], "Cell outputs differ"),
    "an output that is gone": (CELLS.replace('print("value", value)\n', ""), HONEST, "Missing output fields"),
    "an output that is new": (CELLS.replace("assert", 'print("more")\nassert'), HONEST, "Cell outputs differ"),
    "a warning": (CELLS.replace("value = 6", "import sys; print('!', file=sys.stderr)\nvalue = 6"), HONEST, "stderr"),
    "a raise": (CELLS.replace("assert value == 42", 'raise RuntimeError("planted")'), HONEST, "planted"),
    "a failing assert": (CELLS.replace("== 42", "== 43"), HONEST, "AssertionError"),
    "a glued number": (
        CELLS.replace('print("value", value)', 'from myst_nb import glue\nglue("a", "0.1", display=False)'),
        [[{"application/papermill.record/text/plain": "'0.2'"}], [{"text/plain": "42"}]],
        "Cell outputs differ",
    ),
    "no stored outputs at all": (CELLS, None, "no stored output"),
    "a cell without stored output": (CELLS, HONEST[:1], "no stored output"),
}


def run(folder, chapters, *options):
    """Run planted chapters, name -> (cells, stored outputs), under the book's own conftest and settings.

    Returns pytest's exit code and its report, for all of them or, split at the headings, for each chapter.
    """
    (folder / "chapters").mkdir()
    (folder / "tests" / "outputs").mkdir(parents=True)
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "_ext", folder / "_ext")
    for name, (cells, stored) in chapters.items():
        (folder / "chapters" / f"{name}.md").write_text(HEADER + cells, encoding="utf8")
        if stored is not None:
            (folder / "tests" / "outputs" / f"{name}.json").write_text(json.dumps(stored))
    command = [sys.executable, "-m", "pytest", "--nbval", "-p", "no:cacheprovider", *options, "chapters"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done.returncode, re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """All planted chapters in one run, beside an honest one: exit code, report of each, and what reached the book."""
    folder = tmp_path_factory.mktemp("planted")
    stems = {name: name.replace(" ", "_") for name in FAULTS}
    chapters = {stems[name]: fault[:2] for name, fault in FAULTS.items()}
    code, report = run(folder, chapters | {"honest": (CELLS, HONEST)}, "-rA")
    parts = re.split(r"_{3,} chapters/(\w+)\.md::[^\n]* _{3,}\n", report)
    found = {stem: "" for stem in [*stems.values(), "honest"]}
    for stem, text in zip(parts[1::2], parts[2::2]):
        found[stem] += text
    return code, report, found, len(list((folder / "_build").rglob("base.ipynb")))


def test_an_honest_chapter_passes_and_alone_goes_to_the_book(planted):
    code, report, found, count = planted
    assert code == 1
    assert report.count("PASSED chapters/honest.md") == 2 and found["honest"] == ""
    assert count == 1


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught(name, planted):
    _, report, found, _ = planted
    stem = name.replace(" ", "_")
    assert f"FAILED chapters/{stem}.md" in report and FAULTS[name][2] in found[stem], found[stem]


def test_exit_code_of_an_honest_run(tmp_path):
    code, report = run(tmp_path, {"honest": (CELLS, HONEST)})
    assert code == 0 and "2 passed" in report, report


def test_update_writes_text_and_leaves_images_out(tmp_path):
    draw = "\n```{code-cell} ipython3\nimport matplotlib.pyplot as plt\nfigure = plt.figure(figsize=(2, 2))\nplt.show()\n```\n"
    code, report = run(tmp_path, {"planted": (CELLS + draw, None)}, "--nbval-update")
    assert code == 0, report
    stored = json.loads((tmp_path / "tests" / "outputs" / "planted.json").read_text())
    assert stored[:2] == HONEST and stored[2] == [{"text/plain": "<Figure size 200x200 with 0 Axes>"}]


@pytest.mark.parametrize("words", ["--nbval-update", "-x --nbval-lax", "-o addopts=--nbval-update"])
def test_stored_outputs_are_not_given_up_behind_the_command_line(tmp_path, monkeypatch, words):
    monkeypatch.setenv("PYTEST_ADDOPTS", words)
    wrong = [[{"stdout": "value 41\n"}], [{"text/plain": "42"}]]
    code, report = run(tmp_path, {"planted": (CELLS, wrong)})
    assert code == pytest.ExitCode.USAGE_ERROR and f"PYTEST_ADDOPTS is '{words}'" in report, report
    assert json.loads((tmp_path / "tests" / "outputs" / "planted.json").read_text()) == wrong


def test_other_words_of_pytest_may_stand_in_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_ADDOPTS", "-x")
    code, report = run(tmp_path, {"honest": (CELLS, HONEST)})
    assert code == 0 and "2 passed" in report, report


RULES = {
    "no check cell": CELLS.replace("(check-lem-x)=\n", "").replace(":tags: [check-lem-x]\n\n", ""),
    "without an assert": CELLS.replace("assert value == 42\n", ""),
    "tagged check-lem-x without an assert": CELLS.replace("assert value == 42", "assert True"),
    "has no target line": CELLS.replace("(check-lem-x)=\n", ""),
    "label lem-y has no check cell": CELLS + "\n```{prf:lemma} Y\n:label: lem-y\n\nText.\n```\n",
    "needs exactly one H1": CELLS + "\n# Another\n",
    "an assert inside try": CELLS.replace(
        "assert value == 42", "try:\n    assert value == 43\nexcept AssertionError:\n    pass"
    ),
    "global randomness": CELLS.replace("value = 6 * 7", "import numpy as np\nnp.random.seed(0)\nvalue = 42"),
    "lem-x without an assert": CELLS.replace("assert value == 42", "assert value == value"),
    "check-lem-x without an assert": CELLS.replace("assert value == 42", "if False:\n    assert value == 42"),
    "hides failures": CELLS.replace("[check-lem-x]", "[check-lem-x, raises-exception]"),
    "nbval-ignore-output hides": CELLS.replace("[check-lem-x]", "[check-lem-x, nbval-ignore-output]"),
    "switched off": CELLS.replace(
        "value = 6", "from contextlib import suppress\nwith suppress(AssertionError): pass\nvalue = 6"
    ),
    "failures are switched off": CELLS.replace("value = 6", "# NBVAL_SKIP\nvalue = 6"),
    "warnings or": CELLS.replace("value = 6", "from warnings import simplefilter\nvalue = 6"),
    "or global": CELLS.replace("value = 6", "import random\nvalue = 6"),
    "unseeded": CELLS.replace("value = 6 * 7", "import numpy as np\nrng = np.random.default_rng()\nvalue = 42"),
    "lines of code": CELLS.replace("value = 6 * 7", "value = 6 * 7\n" * 41),
    "without name and caption": CELLS.replace('print("value", value)', "plt.show()"),
    "header differs": CELLS,
    "digit in the file name": CELLS,
}


@pytest.mark.parametrize("rule", RULES)
def test_a_broken_rule_is_found(rule, tmp_path):
    name = "planted2.md" if rule == "digit in the file name" else "planted.md"
    header = HEADER.replace("python3", "python4") if rule == "header differs" else HEADER
    (tmp_path / name).write_text(header + RULES[rule], encoding="utf8")
    assert any(rule in problem for problem in problems(tmp_path / name)), problems(tmp_path / name)


def test_the_honest_chapter_breaks_no_rule(tmp_path):
    (tmp_path / "planted.md").write_text(HEADER + CELLS, encoding="utf8")
    assert problems(tmp_path / "planted.md") == []
