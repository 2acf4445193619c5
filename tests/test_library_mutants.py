"""The mutants of the library: which changes are made, which are left alone, and what the lists of them must hold."""

import ast
import json
import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "mutation"))

import library_mutants

MUTATION = ROOT / "tests" / "mutation"
MADE = {
    "return a + b": ["a + b -> a - b"],
    "return A @ B": ["A @ B -> B @ A"],
    "return x[-1]": ["-1 -> -2", "-1 -> 0", "-1 -> 1"],
    "return x[1:]": ["1: -> :", "1 -> 2", "1 -> 0"],
    "return a < b": ["a < b -> a <= b", "a < b -> a > b"],
    "return a == b": ["a == b -> a != b"],
    "return not a": ["not a -> a"],
    "return a and b": ["a and b -> a or b"],
    "return a if b else c": ["a if b else c -> a", "a if b else c -> c"],
    "return x.sum(axis=0)": ["x.sum(axis=0) -> x.sum()", "x.sum -> x.prod", "0 -> 1", "0 -> -1"],
    "return x.T": ["x.T -> x"],
    "return max(a, b)": ["max -> min"],
    "return 0.5": ["0.5 -> 1.5", "0.5 -> -0.5"],
    "return 1e-12": ["1e-12 -> 1.0"],
    "return 1e300": ["1e+300 -> 2e+300", "1e+300 -> 5e+299"],
    "return True": ["True -> False"],
    'return "word"': ["'word' -> 'XXwordXX'"],
    "return [a for a in b if a]": ["for a in b if a -> for a in b"],
    "x += 1": ["x += 1 -> x -= 1", "x += 1 -> pass", "1 -> 2", "1 -> 0"],
    "x[0] = y": ["x[0] = y -> pass", "0 -> 1", "0 -> -1"],
    "f(a)": ["f(a) -> pass"],
    # what is said is left alone
    '"""Doc 1."""': [],
    'raise ValueError(f"{x} {1 + 1}")': [],
    'return f"{x + 1}"': [],
    "x: int": [],
}


@pytest.mark.parametrize("body", MADE)
def test_changes_of_one_statement(body):
    found = library_mutants.mutants(f"def f(x):\n    {body}\n")
    assert [mutant.change for mutant in found] == MADE[body]
    for mutant in found:
        assert mutant.function == "f" and 2 in mutant.lines
        assert ast.unparse(mutant.node) != ast.unparse(ast.parse(f"def f(x):\n    {body}\n").body[0])


def test_each_mutant_has_one_change_and_a_key_of_its_own():
    source = "K = 2\n\n\ndef f(x, k=3):\n    if x > 1:\n        return x + 1 + 1\n    return k\n\n\nclass C:\n    def g(self):\n        return 5\n"
    found = library_mutants.mutants(source)
    assert len({mutant.key for mutant in found}) == len(found)
    assert {mutant.function for mutant in found} == {"", "f", "C.g"}
    assert [m.key for m in found if m.function == "C.g"] == [
        ("C.g", "return 5", "5 -> 6", 1),
        ("C.g", "return 5", "5 -> 4", 1),
    ]
    twice = [m.number for m in found if m.change == "1 -> 2" and m.statement == "return x + 1 + 1"]
    assert twice == [1, 2]
    assert {"if x > 1: -> if True:", "if x > 1: -> if False:"} <= {m.change for m in found}
    default = next(m for m in found if m.change == "3 -> 4")
    assert list(default.lines) == [4, 5, 6, 7]  # a default is used wherever the function runs
    assert {name for name, _ in library_mutants.functions(source)} == {"f", "C.g"}


def test_every_survivor_has_a_reason_and_a_module():
    listed = yaml.safe_load((MUTATION / "library_survivors.yml").read_text(encoding="utf8"))
    for module, entries in listed.items():
        assert module == "all" or (ROOT / "eoslib" / f"{module}.py").exists()
        for entry in entries:
            assert set(entry) <= {"in", "at", "change", "like", "number", "kind", "why"} and len(entry["why"]) > 15
            assert ("change" in entry) != ("like" in entry) and entry.get("kind", "taste") == "taste"
            re.compile(entry.get("like", ""))


def test_scores_are_what_their_counts_say():
    for module, row in json.loads((MUTATION / "scores.json").read_text(encoding="utf8")).items():
        assert (ROOT / "eoslib" / f"{module}.py").exists()
        counted = row["killed"] + row["stopped"] + row["survived"] + row["equivalent"] + row["taste"]
        telling = row["mutants"] - row["equivalent"] - row["taste"]
        assert counted == row["mutants"] > 0
        assert row["score"] == pytest.approx((row["killed"] + row["stopped"]) / telling, abs=1e-4)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", row["date"]) and row["commit"] and row["one_in"] >= 1


def test_every_module_has_a_score_of_95_percent():
    scores = json.loads((MUTATION / "scores.json").read_text(encoding="utf8"))
    assert set(scores) == {path.stem for path in (ROOT / "eoslib").glob("[a-z]*.py")}
    assert all(row["score"] >= 0.95 for row in scores.values())
