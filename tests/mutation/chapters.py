"""Do the chapters' checks notice a wrong claim?

``make chapter-mutants [NAME=two_cycle]`` runs a chapter once, then each mutant of a cell's formulas (`claim_mutants`) in
a fork: the changed cell in the namespace it had, and, if that passes, every later check that depends on what it defines.
A mutant is *killed* by a failing assertion, killed *by error* by any other exception or the time limit, or *survives*.
Survivors are explained in ``chapter_survivors.yml``; one without a reason, a reason without its survivor, a check cell
that kills nothing and an assertion that never runs make the target fail. ``--show`` prints all survivors as YAML.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import contextlib
import copy
import io
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ["MPLBACKEND"] = "agg"

import claim_mutants
import jupytext
import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[2]
SURVIVORS = Path(__file__).with_name("chapter_survivors.yml")
SCORES = Path(__file__).with_name("chapter_scores.json")
MOST, MOST_DEFINING = 5, 2  # mutants of a check cell and of another, unless all are asked for
FIGURES = {"hide-input", "remove-input"}


@dataclass
class Cell:
    """A code cell: what it says, what it reads and binds, the namespace before it, and how long it took."""

    number: int
    source: str
    tags: tuple
    name: str = ""
    tree: ast.Module = None
    loads: set = None
    stores: set = None
    before: dict = field(default_factory=dict)
    seconds: float = 0.0

    def __post_init__(self):
        self.tree = ast.parse(self.source)
        self.loads = claim_mutants.free(self.tree.body)
        self.stores = claim_mutants.changed(self.tree).union(*(claim_mutants.binds(node) for node in self.tree.body))
        lines = [line.strip() for line in self.source.splitlines() if line.strip()]
        self.name = (lines or [""])[0].lstrip("# ")

    @property
    def is_check(self):
        return any(tag.startswith("check-") for tag in self.tags)


def read(path):
    """The chapter's code cells; the loads of a cell include what the functions it calls read."""
    notebook = jupytext.read(path, fmt="md:myst")
    cells = [c for c in notebook.cells if c.cell_type == "code"]
    cells = [Cell(k, c.source, tuple(c.metadata.get("tags", []))) for k, c in enumerate(cells)]
    reads, seen = {}, Counter()
    for cell in cells:
        seen[cell.name] += 1
        cell.name += f" ({seen[cell.name]})" if seen[cell.name] > 1 else ""
        for node in ast.walk(cell.tree):
            if isinstance(node, ast.FunctionDef):
                reads.setdefault(node.name, set()).update(claim_mutants.free(node))
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda) and claim_mutants.binds(node):
                reads.setdefault(min(claim_mutants.binds(node)), set()).update(claim_mutants.free(node.value))
    for cell in cells:
        while True:
            more = set().union(*(reads.get(name, set()) for name in cell.loads))
            if more <= cell.loads:
                break
            cell.loads |= more
    return cells


class Chapter:
    """A chapter that ran once in this process, ready to run changed cells in forks of it."""

    def __init__(self, path):
        self.cells = read(path)
        os.chdir(Path(path).parent)
        self.space = {"__name__": "__main__", "__builtins__": builtins}
        for cell in self.cells:
            self.run_first(cell)

    def run_first(self, cell):
        """Run a cell, with copies kept of what it or a later cell changes in place."""
        for name in claim_mutants.changed(cell.tree) & set(self.space):
            old = self.space[name]
            with contextlib.suppress(TypeError):
                kept = copy.deepcopy(old)
                for earlier in self.cells[: cell.number]:
                    earlier.before.update({key: kept for key, value in earlier.before.items() if value is old})
        cell.before = {
            key: copy.deepcopy(value) if isinstance(value, np.random.Generator) else value
            for key, value in self.space.items()
        }
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            exec(compile(cell.tree, f"<cell {cell.number}>", "exec"), self.space)
            if "matplotlib.pyplot" in sys.modules:
                sys.modules["matplotlib.pyplot"].close("all")
            close_pool()
        cell.seconds = time.perf_counter() - start

    def wanted(self, cell):
        """Names of a cell that a later check reads, before another cell binds them anew."""
        found, alive = set(), set(cell.stores)
        for after in self.cells[cell.number + 1 :]:
            found |= after.loads & alive if after.is_check or self.wanted(after) else set()
            alive -= after.stores - after.loads
        return found

    def dependents(self, cell):
        """Later cells that a change of this one reaches, with the names that carry it there."""
        found, tainted = [], set(cell.stores)
        for after in self.cells[cell.number + 1 :]:
            carried = after.loads & tainted
            if carried and (after.is_check or self.wanted(after)):
                found.append((after, set(tainted)))
                tainted |= after.stores
            else:
                tainted -= after.stores
        return found

    def run_changed(self, cell, code):
        """Run changed code in place of a cell, then what depends on it. Returns the fate and the cell that decided it."""
        self.space.clear()
        self.space.update(cell.before)
        fate, where = attempt(code, self.space), cell
        for after, tainted in self.dependents(cell):
            if fate != "survived":
                break
            values = {name: self.space[name] for name in tainted if name in self.space}
            self.space.clear()
            self.space.update(after.before | values)
            fate, where = attempt(compile(after.tree, f"<cell {after.number}>", "exec"), self.space), after
        return fate, where.number

    def control(self, cell):
        """Whether the unchanged cell passes when it is run again, and its assertions all run over something."""
        seen = forked(lambda: self.reached(cell), 20 + 10 * cell.seconds)
        if not isinstance(seen, list):
            return f"{cell.name}: does not pass when run again ({seen})"
        return "".join(f"{cell.name}: never asserted: {line}; " for line in seen)

    def reached(self, cell):
        """Assertions of a cell that did not run, or ran over an empty collection."""
        tree, lines = copy.deepcopy(cell.tree), {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assert):
                lines[len(lines)] = ast.unparse(node)
                node.test = Reaching(len(lines) - 1).visit(node.test)
                node.test = ast.Call(ast.Name("_reached", ast.Load()), [ast.Constant(len(lines) - 1), node.test], [])
        hit, empty = set(), set()

        def reached(k, value):
            hit.add(k)
            return value

        def everything(k, function, values):
            values = list(values) if not isinstance(values, np.ndarray) else values
            empty.update({k} if len(values) == 0 else ())
            return function(values)

        self.space.clear()
        self.space.update(cell.before | {"_reached": reached, "_all": everything})
        fate = attempt(compile(ast.fix_missing_locations(tree), "<control>", "exec"), self.space)
        return fate if fate != "survived" else [lines[k] for k in lines if k not in hit or k in empty]


def close_pool():
    """End joblib's worker processes: a fork would wait for them, and cannot reach them."""
    loky = sys.modules.get("joblib.externals.loky.reusable_executor")
    if loky is not None and loky._executor is not None:
        loky._executor.shutdown(wait=True, kill_workers=True)
        loky._executor = None


class Reaching(ast.NodeTransformer):
    """all(...) -> _all(k, all, ...), which notes an empty collection."""

    def __init__(self, k):
        self.k = k

    def visit_Call(self, node):
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "all" and len(node.args) == 1:
            return ast.Call(ast.Name("_all", ast.Load()), [ast.Constant(self.k), node.func, *node.args], [])
        return node


def attempt(code, space):
    """How a cell ends: survived, killed, or error."""
    try:
        exec(code, space)
    except AssertionError:
        return "killed"
    except BaseException:  # whatever a wrong formula leads to
        return "error"
    return "survived"


def forked(function, limit=None):
    """What `function` returns (as JSON) when run in a fork of this process, or "error" beyond the limit in seconds."""
    receive, send = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            os.close(receive)
            if limit:
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, 1)
                os.dup2(null, 2)
                signal.setitimer(signal.ITIMER_REAL, limit)
            with os.fdopen(send, "w") as stream:
                json.dump(function(), stream)
            os._exit(0)
        except BaseException as error:
            if not limit:
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(1)
    os.close(send)
    with os.fdopen(receive) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else "error"


def examine(path, *, most=MOST, only=None):
    """Run all mutants of a chapter: a list of rows, one a cell, and a list of faults found by the control runs."""
    chapter = Chapter(path)
    rows, faults = [], []
    for cell in chapter.cells:
        wanted = chapter.wanted(cell)
        if not (cell.is_check or wanted) or (only and not re.search(only, cell.name)):
            continue
        if cell.is_check and (fault := chapter.control(cell)):
            faults.append(fault)
        fates, start = {}, time.perf_counter()
        limit = 10 + 5 * cell.seconds + 3 * sum(after.seconds for after, _ in chapter.dependents(cell))
        number = most and (most if cell.is_check else MOST_DEFINING)
        for mutant in claim_mutants.mutants(cell.tree, wanted, limit=number):
            code = mutant.source(cell.tree)
            fate = forked(lambda code=code, cell=cell: chapter.run_changed(cell, code), limit)
            fates[mutant.key] = [fate, None] if isinstance(fate, str) else fate
        took = time.perf_counter() - start
        rows.append({"cell": cell.name, "number": cell.number, "check": cell.is_check, "fates": fates})
        counts = dict(Counter(fate for fate, _ in fates.values()))
        kind = "check" if cell.is_check else "other"
        print(f"{took:6.1f} s  {cell.number:3d} {kind} {counts} {cell.name}", file=sys.stderr, flush=True)
    return rows, faults


def judge(rows, faults, reasons):
    """Lines of complaint; `reasons` is cell name -> {mutant: reason}."""
    complaints = list(faults)
    deciding = {where for row in rows for fate, where in row["fates"].values() if fate == "killed"}
    for row in rows:
        given = reasons.get(row["cell"], {})
        alive = [key for key, (fate, _) in row["fates"].items() if fate == "survived"]
        complaints += [f"{row['cell']}: survives without a reason: {key}" for key in alive if key not in given]
        complaints += [f"{row['cell']}: has a reason but no survivor: {key}" for key in given if key not in alive]
        if row["check"] and row["number"] not in deciding:
            complaints.append(f"{row['cell']}: kills no mutant of its own claim")
    known = {row["cell"] for row in rows}
    complaints += [f"{name}: a reason for a cell that is not there" for name in reasons if name not in known]
    return complaints


COLUMNS = ("check cells", "mutants", "killed", "by error", "survived", "explained")


def count(rows, reasons):
    """The numbers of a chapter, by the names of the columns."""
    counts, explained = Counter(), 0
    for row in rows:
        counts.update(fate for fate, _ in row["fates"].values())
        given = reasons.get(row["cell"], {})
        explained += sum(fate == "survived" and key in given for key, (fate, _) in row["fates"].items())
    numbers = [sum(row["check"] for row in rows), sum(counts.values())]
    numbers += [*(counts[fate] for fate in ("killed", "error", "survived")), explained]
    return dict(zip(COLUMNS, numbers, strict=True))


def keep(name, numbers, most):
    """Write a chapter's numbers to ``chapter_scores.json``."""
    scores = json.loads(SCORES.read_text(encoding="utf8")) if SCORES.exists() else {}
    scores[name] = {**numbers, "of a check": most or "all", "date": time.strftime("%Y-%m-%d", time.gmtime())}
    SCORES.write_text(json.dumps(scores, indent=1, sort_keys=True) + "\n", encoding="utf8")


def survivors(rows, reasons):
    """Cell -> surviving mutant -> its reason, or nothing."""
    left = {}
    for row in rows:
        for key, (fate, _) in row["fates"].items():
            if fate == "survived":
                left.setdefault(row["cell"], {})[key] = reasons.get(row["cell"], {}).get(key, "")
    return left


def read_reasons():
    """Chapter -> cell -> mutant -> why it survives, the named reasons written out."""
    stored = yaml.safe_load(SURVIVORS.read_text(encoding="utf8"))
    kinds = stored.pop("reasons")
    return {
        name: {cell: {key: kinds.get(why, why) for key, why in told.items()} for cell, told in cells.items()}
        for name, cells in stored.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="chapters, by file name without ending; all of them by default")
    parser.add_argument("--all", action="store_true", help=f"all mutants of a cell, not {MOST}")
    parser.add_argument("--cell", help="only cells whose first comment matches this pattern")
    parser.add_argument("--show", action="store_true", help="print the survivors as YAML")
    parser.add_argument("--save", type=Path, help="folder for the rows as JSON")
    options = parser.parse_args()
    stored = read_reasons()
    names = options.names or [p.stem for p in sorted((ROOT / "chapters").glob("*.md")) if is_notebook(p)]
    sys.path.insert(0, str(ROOT))
    failed = False
    print("| chapter | " + " | ".join(COLUMNS) + " |\n| --- |" + len(COLUMNS) * " ---: |")
    for name in names:
        path, most = ROOT / "chapters" / f"{name}.md", None if options.all else MOST
        answer = forked(lambda path=path, most=most: examine(path, most=most, only=options.cell))
        if isinstance(answer, str):
            print(f"{name}: does not run", file=sys.stderr)
            failed = True
            continue
        rows, faults = answer
        reasons = stored.get(name, {})
        numbers = count(rows, reasons)
        print(f"| {name} | " + " | ".join(map(str, numbers.values())) + " |", flush=True)
        complaints = judge(rows, faults, reasons)
        failed |= bool(complaints)
        if not options.cell:
            keep(name, numbers | {"complaints": len(complaints)}, most)
        print("\n".join(complaints), file=sys.stderr)
        if options.save:
            (options.save / f"{name}.json").write_text(json.dumps([rows, faults]))
        if options.show:
            print(yaml.safe_dump({name: survivors(rows, reasons)}, width=1000, sort_keys=False, allow_unicode=True))
    sys.exit(failed)


def is_notebook(path):
    text = path.read_text(encoding="utf8")
    return text.startswith("---\n") and "format_name: myst" in text.split("\n---", 1)[0]


if __name__ == "__main__":
    main()
