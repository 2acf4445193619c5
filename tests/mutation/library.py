"""Mutation test of the library: ``python tests/mutation/library.py [module ...]``, or ``make mutants NAME=module``.

One warm process imports everything and collects the tests of a module once; for each mutant it forks, the fork puts the
changed code into the live function and runs the tests that reach the changed lines, the fastest first, until one fails.
What nobody can kill stands with a reason in ``library_survivors.yml``; the counts go to ``scores.json``.

``mutmut`` 3 works with this layout too, but makes about 14 000 mutants, many of which reword messages, and starts a
pytest session for each: 0.45 s on an idle core before any test runs. Here a fork takes 0.02 s, and which test reaches
which line is known, so that most mutants meet one or two tests.
"""

from __future__ import annotations

import __future__
import argparse
import ast
import contextlib
import gc
import hashlib
import importlib.util
import inspect
import itertools
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "_ext"), str(HERE)]
import environment  # noqa: E402

environment.fix()  # before anything imports NumPy
environment.make_folder(environment.OWN)
os.environ["HYPOTHESIS_PROFILE"] = "mutants"

import coverage  # noqa: E402
import library_mutants as operators  # noqa: E402
import matplotlib.pyplot  # noqa: E402, F401  warm: no fork imports it again
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import scipy.optimize  # noqa: E402, F401
import sympy  # noqa: E402, F401
import torch  # noqa: E402, F401
import yaml  # noqa: E402

SCORES, SURVIVORS = HERE / "scores.json", HERE / "library_survivors.yml"
ASKED = 0.95
# tests of a module beside its own file, its doctests and its rows of test_arguments.py
MORE = {
    "balance": ["tests/test_certificates.py"],
    "optimisers": ["tests/test_averages.py"],
    "compiled": ["tests/test_scalar.py", "tests/test_descent.py"],
    "network": ["tests/test_contract.py"],
    "descent": ["tests/test_contract.py", "tests/test_reduction.py"],
    "hessian": ["tests/test_contract.py", "tests/test_spectra.py"],
    "scalar": ["tests/test_contract.py"],
}
# statements for which the rows of test_arguments.py are run: they hold bad and extreme numbers, and take a second each
CHECKING = re.compile(r"validate\.|_checked|_numbers|errstate|raise|^if |^def ")
BUDGET = 4.0  # processor seconds: a mutant that the fastest tests up to this sum let live counts as a survivor
# Of compiled code each mutant is compiled anew, some seconds for each width or depth of a test.
COMPILING = {"compiled": 25.0}
# Of other modules' tests those that ask for compiled loops are run, of widths and depths the middle ones; of a sweep's and
# of a run's those that start no Python of their own, which would not have the mutant.
PART = {
    "compiled": re.compile(r"^(?!.*rounding\[(1|2|11|20|\d-[125])-).*(compiled|own_step|their_company|orbits_that_leave)"),
    "sweep": re.compile("^(?!.*(dask|driver_that))"),
    "training": re.compile("^(?!.*a_killed_run)"),
}


class Mutation:
    """A pytest plugin in whose place of the test loop the mutants run."""

    def __init__(self, name: str, only: str, every: int, first: int, again: bool) -> None:
        self.name, self.only, self.part, self.failed, self.again = name, only, slice(first, None, every), False, again
        self.path = ROOT / "eoslib" / f"{name}.py"

    def pytest_collection_modifyitems(self, items):
        keep = [item for item in items if "test_arguments" not in item.nodeid or f"[{self.name}." in item.nodeid]
        part = PART.get(self.name, re.compile(""))
        items[:] = [item for item in keep if "test_arguments" in item.nodeid or part.search(item.nodeid)]

    def pytest_runtest_logreport(self, report):
        self.failed = self.failed or report.failed

    def pytest_runtestloop(self, session):
        self.module = importlib.import_module(f"eoslib.{self.name}")
        _warm(session.items, self.name)
        self.reached, self.seconds, broken = self.clean_run(session.items)
        if broken:
            raise pytest.UsageError(f"these tests fail without a mutant: {broken}")
        self.session, self.killer, self.results = session, {}, []
        gc.collect()
        gc.freeze()
        found = operators.mutants(self.path.read_text(encoding="utf8"))
        self.texts = {item.nodeid: hashlib.sha256(_text(item).encode()).hexdigest()[:16] for item in session.items}
        stand = self.kills_that_stand() if self.again else {}
        for mutant in found[self.part]:
            if self.only in mutant.function:
                began = time.monotonic()
                outcome = stand.get(repr(mutant.key)) or self.try_one(mutant)
                self.results.append((mutant, *outcome))
                if os.environ.get("MUTANTS_VERBOSE"):
                    spent = round(time.monotonic() - began, 3)
                    print(outcome[0], mutant.function, mutant.change, outcome[1], spent, sep=" | ", flush=True)
        self.keep_kills()
        return True

    def _kept(self):
        """Where the kills of earlier runs lie, by the code of the module and of the tests."""
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()[:16]
        return ROOT / "_build" / "mutants" / f"{self.name}-{digest}.json"

    def kills_that_stand(self):
        """What was found of mutants of this very module that were stopped, or killed by a test that has not changed."""
        kept = json.loads(self._kept().read_text(encoding="utf8")) if self._kept().exists() else {}
        now = self.texts | {"": ""}
        return {key: (outcome, test) for key, (outcome, test, text) in kept.items() if now.get(test) == text}

    def keep_kills(self):
        kept = json.loads(self._kept().read_text(encoding="utf8")) if self._kept().exists() else {}
        texts = self.texts | {"": ""}
        for mutant, outcome, test in self.results:
            kept.pop(repr(mutant.key), None)
            if outcome == "timeout" or (outcome == "killed" and test in texts):
                kept[repr(mutant.key)] = outcome, test, texts[test]
        self._kept().parent.mkdir(parents=True, exist_ok=True)
        self._kept().write_text(json.dumps(kept, indent=0), encoding="utf8")

    def clean_run(self, items):
        """For each test the lines of the module that it reaches and its processor time, found in a fork."""
        return _in_fork(lambda: self._clean(items))

    def _clean(self, items):
        for node in operators.functions(self.path.read_text(encoding="utf8")):  # the way in changes nothing by itself
            self.plant(*node)
        cov, seconds, broken = coverage.Coverage(include=[str(self.path)], data_file=None), {}, []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cov.start()
            for item in items:
                for cache in self.caches():  # an answer from there leaves no trace of its lines
                    cache.cache_clear()
                cov.switch_context(item.nodeid)
                began, self.failed = time.process_time(), False
                self.run(item)
                seconds[item.nodeid] = time.process_time() - began
                if self.failed:
                    broken.append(item.nodeid)
            cov.stop()
            for item in items if self.caches() and self.name not in COMPILING else ():  # the tests of a mutant run one after another, with full caches
                began = time.process_time()
                self.run(item)
                seconds[item.nodeid] = time.process_time() - began
        by_line = cov.get_data().contexts_by_lineno(str(self.path))
        return {line: sorted(set(tests) - {""}) for line, tests in by_line.items()}, seconds, broken

    def caches(self):
        """The functions of the module that keep their answers."""
        return [value for value in vars(self.module).values() if hasattr(value, "cache_clear")]

    def run(self, item):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)

    def tests_of(self, mutant):
        if mutant.function:
            nodes = {node for line in mutant.lines for node in self.reached.get(line, ())}
            if not nodes:  # compiled code leaves no trace: the tests that reach the function around it
                whole = range(mutant.node.lineno, mutant.node.end_lineno + 1)
                nodes = {node for line in whole for node in self.reached.get(line, ())}
        else:
            nodes = set(self.seconds)
        if not CHECKING.search(mutant.statement):
            nodes = {node for node in nodes if "test_arguments" not in node}
        first = self.killer.get(mutant.function)
        chosen = [item for item in self.session.items if item.nodeid in nodes]
        chosen.sort(key=lambda item: (item.nodeid != first, self.seconds[item.nodeid]))
        spent = itertools.accumulate(self.seconds[item.nodeid] for item in chosen)
        return [item for item, seconds in zip(chosen, spent) if seconds <= COMPILING.get(self.name, BUDGET)]

    def try_one(self, mutant):
        """("killed", test), ("timeout", "") or ("survived", number of tests)."""
        tests = self.tests_of(mutant)
        if not tests:
            return "survived", 0
        limit = 2 + 3 * sum(self.seconds[item.nodeid] for item in tests)

        def attempt():
            self.plant(mutant.function, mutant.node)
            for cache in self.caches():  # what was compiled before the fork is not the mutant
                cache.cache_clear()
            gc.disable()
            for item in tests:  # each may take three times its own time, lest a loop without end takes that of all
                end = int(time.process_time() + 3 * self.seconds[item.nodeid]) + 3
                resource.setrlimit(resource.RLIMIT_CPU, (end, resource.RLIM_INFINITY))
                self.run(item)
                if self.failed:
                    return item.nodeid
            return None

        found = _in_fork(attempt, wall=25 * limit)
        if found is TimeoutError:
            return "timeout", ""
        if found is None:
            return "survived", len(tests)
        self.killer[mutant.function] = found
        return "killed", found

    def plant(self, function, node):
        """Put the mutant into the live module: every reference to the function, and to its class, has it."""
        space = vars(self.module)
        whole = ast.Module([node], [])
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = []
            scratch = dict(space)
            exec(compile(whole, str(self.path), "exec", flags=__future__.annotations.compiler_flag), scratch)
            new, old = scratch[node.name], space
            for word in function.split("."):
                old = old[word] if isinstance(old, dict) else inspect.getattr_static(old, word)
            old = inspect.unwrap(old.fget if isinstance(old, property) else old)
            old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__
        else:
            exec(compile(whole, str(self.path), "exec", flags=__future__.annotations.compiler_flag), space)


def _text(item):
    """The code of a test, or the text of a doctest."""
    if hasattr(item, "dtest"):
        return item.dtest.docstring
    return inspect.getsource(item.function)


def _warm(items, name):
    """Do once what each fork would do for seconds: compile the fast loops, for the widths that the tests take."""
    module = next((item.module for item in items if item.path.name == "test_arguments.py"), None)
    if name == "sweep":
        _few_processes()
    if module is not None and importlib.util.find_spec("numba"):
        from eoslib import descent, scalar

        descent.descend(module.W, module.M, 0.1, 5, keep=2, compiled=True)
        scalar.orbit(0.5, 2.0, 3, 0.1, 5, compiled=True)
        for width in (3, 5, 7, 20) if name in ("descent", "reduction") else ():
            descent.descend(np.zeros((2, width, width)), np.eye(width), 0.1, 5, compiled=True)


def _few_processes():
    """Make joblib refuse what a mutant may ask of it: processes by the thousand."""
    import joblib

    start = joblib.Parallel.__init__

    def limited(self, n_jobs=None, **options):
        if n_jobs is not None and n_jobs > 8:
            raise RuntimeError(f"{n_jobs} processes")
        start(self, n_jobs, **options)

    joblib.Parallel.__init__ = limited


def _in_fork(function, wall=None):
    """What `function` returns in a fork of this process, or ``TimeoutError`` where the fork was stopped."""
    read, write = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read)
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
            os.setsid()
            text = json.dumps(function())
            with os.fdopen(write, "w") as pipe:
                pipe.write(text)
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    began, text = time.monotonic(), b""
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, wall or 0)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read()
    status = os.waitpid(child, 0)[1]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # processes that it started and left
    signal.setitimer(signal.ITIMER_REAL, 0)
    if os.WIFSIGNALED(status):
        if os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL):
            return TimeoutError
        return f"signal {os.WTERMSIG(status)}"
    if os.WEXITSTATUS(status) or not text:
        if wall is None:
            raise RuntimeError("the run without mutants did not end")
        return f"the process ended after {time.monotonic() - began:.0f} s"
    found = json.loads(text)
    if wall is None:
        found[0] = {int(line): tests for line, tests in found[0].items()}
    return found


def listed(name: str) -> list[dict]:
    """Survivors of a module with their reasons, after those of any module."""
    entries = yaml.safe_load(SURVIVORS.read_text(encoding="utf8")) or {}
    return [e | {"anywhere": True} for e in entries.get("all") or []] + (entries.get(name) or [])


def explains(entry: dict, mutant: operators.Mutant) -> bool:
    """Whether function, part of the statement, change (one, several, or a pattern `like`) and number are those of the mutant."""
    changes = entry.get("change", [])
    return (
        entry.get("in", "*") in ("*", mutant.function)
        and entry.get("at", "") in mutant.statement
        and (mutant.change in ([changes] if isinstance(changes, str) else changes) or _like(entry, mutant))
        and entry.get("number", mutant.number) == mutant.number
    )


def _like(entry, mutant):
    return "like" in entry and re.fullmatch(entry["like"], mutant.change) is not None


def measure(name: str, only: str, every: int, first: int, again: bool = False) -> dict:
    """Run all mutants of a module, print what is not accounted for, and return its row of the scores."""
    began = time.process_time() + sum(os.times()[2:4])
    files = [f"tests/test_{name}.py", f"eoslib/{name}.py", "tests/test_arguments.py", *MORE.get(name, [])]
    plugin = Mutation(name, only, every, first, again)
    options = ["-s", "-p", "no:terminal", "-p", "no:cacheprovider", "-o", "addopts=--doctest-modules", *files]
    code = pytest.main(
        [
            "--nbval-current-env",
            "-m",
            "not browser",
            *[f for f in options if (ROOT / f).exists() or not f.endswith(".py")],
        ],
        plugins=[plugin],
    )
    if not hasattr(plugin, "results"):
        raise SystemExit(f"{name}: no result, pytest ended with {code}")
    counts, known, used = Counter(outcome for _, outcome, _ in plugin.results), listed(name), set()
    for mutant, outcome, tests in plugin.results:
        if outcome != "survived":
            continue
        entries = [number for number, entry in enumerate(known) if explains(entry, mutant)]
        used.update(entries)
        if entries:
            counts[known[entries[0]].get("kind", "equivalent")] += 1
        else:
            print(f"{name}: survived {tests} tests\n{_entry(mutant)}")
    total = len(plugin.results)
    stale = (
        []
        if only or every > 1
        else [entry for number, entry in enumerate(known) if number not in used and not entry.get("anywhere")]
    )
    for entry in stale:
        print(f"{name}: listed in {SURVIVORS.name}, but no survivor: {entry}")
    killed = counts["killed"] + counts["timeout"]
    row = {
        "mutants": total,
        "one_in": every,
        "killed": counts["killed"],
        "stopped": counts["timeout"],
        "survived": counts["survived"] - counts["equivalent"] - counts["taste"],
        "equivalent": counts["equivalent"],
        "taste": counts["taste"],
        "score": round(killed / max(1, total - counts["equivalent"] - counts["taste"]), 4),
        "tests": len(plugin.seconds),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": _commit(),
        "cpu_seconds": round(time.process_time() + sum(os.times()[2:4]) - began),
    }
    if os.environ.get("MUTANTS_VERBOSE"):
        print(sorted(((round(v, 2), k) for k, v in plugin.seconds.items()), reverse=True)[:12])
    print(f"{name}: {row}", flush=True)
    return row | {"stale": stale}


def _entry(mutant):
    text = [
        f"  - in: {json.dumps(mutant.function)}",
        f"    at: {json.dumps(mutant.statement)}",
        f"    change: {json.dumps(mutant.change)}",
    ]
    return "\n".join([*text, *([f"    number: {mutant.number}"] if mutant.number > 1 else [])])


def _commit():
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", help="all if none is given")
    parser.add_argument(
        "--function", default="", help="only functions whose name contains this; the scores stay as they are"
    )
    parser.add_argument("--every", type=int, default=1, help="try one mutant in so many")
    parser.add_argument("--first", type=int, default=0, help="the first that is tried")
    parser.add_argument(
        "--again",
        action="store_true",
        help="take over what an earlier run killed, if neither the module nor the test that killed it has changed",
    )
    asked = parser.parse_args()
    names = asked.modules or sorted(p.stem for p in (ROOT / "eoslib").glob("[a-z]*.py"))
    os.chdir(ROOT)
    low = []
    for name in names:
        if len(names) > 1:  # a module that another has used is not fresh: one process each
            low += [name] * bool(
                subprocess.run(
                    [sys.executable, __file__, name, "--every", str(asked.every), "--first", str(asked.first)]
                    + ["--again"] * asked.again
                ).returncode
            )
            continue
        row = measure(name, asked.function, asked.every, asked.first, asked.again)
        stale = row.pop("stale")
        if not asked.function:
            scores = json.loads(SCORES.read_text(encoding="utf8")) if SCORES.exists() else {}
            before = {"before": scores[name]["before"]} if "before" in scores.get(name, {}) else {}  # of the first edition
            text = json.dumps(scores | {name: row | before}, indent=1, sort_keys=True)
            SCORES.write_text(text + "\n", encoding="utf8")
        low += [name] * (row["score"] < ASKED or bool(stale))
    if low and len(names) > 1:
        print(f"below {ASKED:.0%}, or with entries of {SURVIVORS.name} that are none: {', '.join(low)}")
    return int(bool(low))


if __name__ == "__main__":
    sys.exit(main())
