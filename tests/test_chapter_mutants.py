"""The harness that mutates the chapters' claims: a sound check kills, one that cannot fail is reported."""

import ast
import json
import sys

import pytest
from test_book import HEADER, ROOT

sys.path.insert(0, str(ROOT / "tests" / "mutation"))
import chapters
import claim_mutants

PLANTED = """
# A chapter states something

```{code-cell} ipython3
def cube(x):
    return 2 * x**3
```

```{code-cell} ipython3
:tags: [check-lem-sound]

# a sound check
value = sum(cube(k) for k in range(1, 4))
assert abs(value - 2 * (3 * 4 / 2) ** 2) < 1e-12
```

```{code-cell} ipython3
:tags: [check-lem-blind]

# a blind check
other = 3 * value - 1
assert abs(other - 3 * value) < 1e-3 or other != 0
```

```{code-cell} ipython3
:tags: [check-lem-empty]

# an empty check
assert all(cube(x) == 2 * x**4 for x in ())
```
"""


@pytest.fixture(scope="module")
def examined(tmp_path_factory):
    path = tmp_path_factory.mktemp("planted") / "planted.md"
    path.write_text(HEADER + PLANTED, encoding="utf8")
    rows, faults = chapters.forked(lambda: chapters.examine(path))
    return {row["cell"]: row for row in rows}, faults


def test_a_sound_check_kills_every_mutant_of_its_claim(examined):
    fates = examined[0]["a sound check"]["fates"]
    assert len(fates) >= 3 and {fate for fate, _ in fates.values()} == {"killed"}


def test_a_definition_is_watched_by_the_checks_that_use_it(examined):
    row = examined[0]["def cube(x):"]
    assert row["fates"] == {"2 * x ** 3 -> 3 * x ** 3": ["killed", 1], "x ** 3 -> x ** 4": ["killed", 1]}


def test_checks_that_cannot_fail_are_reported(examined):
    rows, faults = examined
    complaints = chapters.judge(list(rows.values()), faults, {})
    assert "a blind check: kills no mutant of its own claim" in complaints
    assert "an empty check: kills no mutant of its own claim" in complaints
    assert any(line.startswith("an empty check: never asserted") for line in complaints)
    assert not any(line.startswith(("a sound check", "def cube")) for line in complaints)


def test_a_reason_answers_for_its_survivor_and_for_no_other(examined):
    rows, _ = examined
    blind = [rows["a blind check"]]
    survivors = [key for key, (fate, _) in blind[0]["fates"].items() if fate == "survived"]
    assert survivors
    told = {"a blind check": dict.fromkeys(survivors, "equivalent")}
    assert chapters.judge(blind, [], told) == ["a blind check: kills no mutant of its own claim"]
    told["a blind check"]["gone"] = "was equivalent"
    assert "a blind check: has a reason but no survivor: gone" in chapters.judge(blind, [], told)


MUTATED = {
    "assert a == 3": ["a == 3 -> a == 4"],
    "assert abs(a - 4 / 3) < 1e-12": ["a - 4 / 3 -> a + 4 / 3", "4 / 3 -> 5 / 3", "4 / 3 -> 4 / 4"],
    "assert rho > 0.2": ["rho > 0.2 -> rho > 0.4"],
    "assert drift > 1e-6": ["drift > 1e-06 -> drift > 1e-05"],
    "assert not rho > 0.2": ["rho > 0.2 -> rho > 0.1"],
    "assert low < bound": ["low < bound -> low < bound - abs(bound) / 2"],
    "assert 2 < q < 3": ["2 < q < 3 -> 4 < q < 6"],
    "assert np.isclose(v[0], L * m**2, rtol=1e-9)": [
        "v[0] -> v[1]",
        "L * m ** 2 -> (L + 1) * m ** 2",
        "m ** 2 -> m ** 3",
    ],
    "c = 2 * q\nunused = 3 * q\nprint(4 * q)\nassert c == q": ["2 * q -> 3 * q"],
    "expected = (1, 5, 3)\nassert expected == found": ["(1, 5, 3) -> (2, 5, 3)", "(1, 5, 3) -> (1, 5, 4)"],
    "rng = np.random.default_rng(3)\nassert [f(rng, k) for k in range(2, 9)] == g": [],
}


@pytest.mark.parametrize("source", MUTATED)
def test_what_is_mutated_is_what_is_claimed(source, monkeypatch):
    monkeypatch.setattr(claim_mutants, "FEW", -1)
    assert [mutant.key for mutant in claim_mutants.mutants(ast.parse(source))] == MUTATED[source]


def test_a_cell_with_few_numbers_gets_changes_of_its_products():
    found = claim_mutants.mutants(ast.parse("assert np.array_equal(A @ B.T, c * D)"))
    assert {mutant.after for mutant in found} == {"B.T @ A", "A", "B", "c"}


def test_every_reason_is_given_in_words_for_a_cell_that_is_there():
    stored = chapters.read_reasons()
    for name, reasons in stored.items():
        cells = {cell.name for cell in chapters.read(ROOT / "chapters" / f"{name}.md")}
        assert set(reasons) <= cells, name
        for cell, told in reasons.items():
            assert told and all(isinstance(why, str) and len(why.split()) >= 4 for why in told.values()), (name, cell)


def test_the_scores_are_of_every_chapter_and_its_check_cells():
    scores = json.loads(chapters.SCORES.read_text(encoding="utf8"))
    paths = {path.stem: path for path in (ROOT / "chapters").glob("*.md") if chapters.is_notebook(path)}
    assert set(scores) == set(paths)
    for name, row in scores.items():
        assert row["complaints"] == 0 and row["survived"] == row["explained"], name
        assert row["check cells"] == sum(cell.is_check for cell in chapters.read(paths[name])), name
        assert row["mutants"] == row["killed"] + row["by error"] + row["survived"], name
