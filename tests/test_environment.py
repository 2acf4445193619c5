"""Planted environments: variables, files, kernels and folders of another machine change no output, or are refused."""

import copy
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.machinery import all_suffixes
from pathlib import Path

import environment
import freshcache
import nbformat
import outputs
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from test_book import HEADER

ROOT = Path(__file__).resolve().parent.parent
DRAW = """
```{code-cell} ipython3
---
mystnb:
  figure:
    name: fig-x
    caption: A figure.
---
import matplotlib.pyplot as plt
plt.figure(figsize=(2, 2))
plt.plot([0, 1])
plt.show()
```
"""
DRAWN = [{"text/plain": "<Figure size 200x200 with 1 Axes>"}]


def cell(source):
    return f"\n```{{code-cell}} ipython3\n{source}\n```\n"


def plant(folder, chapters, book=False):
    """A book of planted chapters, name -> (cells, stored outputs), under the book's own settings."""
    (folder / "chapters").mkdir()
    (folder / "tests" / "outputs").mkdir(parents=True)
    (folder / "eoslib").mkdir()
    (folder / "eoslib" / "__init__.py").write_text("value = 42\n")
    for name in ("conftest.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "_ext", folder / "_ext")
    for name, (cells, stored) in chapters.items():
        (folder / "chapters" / f"{name}.md").write_text(HEADER + "\n# Planted\n" + cells, encoding="utf8")
        (folder / "tests" / "outputs" / f"{name}.json").write_text(json.dumps(stored))
    settings = """
        import sys
        sys.path.insert(0, "_ext")
        extensions = ["myst_nb", "freshcache"]
        root_doc = "chapters/index"
        nb_execution_mode = "cache"
        exclude_patterns = ["_*", "tests", "eoslib"]
    """
    (folder / "conf.py").write_text("\n".join(line.strip() for line in settings.split("\n")))


def run(folder, *command, **variables):
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, env={**os.environ, **variables}
    )
    return done.returncode, done.stdout + done.stderr


def test_run(folder, *options, **variables):
    return run(
        folder, "-m", "pytest", "--nbval", "-p", "no:cacheprovider", "--color=no", "chapters", *options, **variables
    )


test_run.__test__ = False


def build(folder, **variables):
    """A strict build; returns exit code, log and the page."""
    command = ["-m", "sphinx", "-b", "html", "-E", "-a", "-W", "--keep-going", "--color", ".", "_build/html"]
    code, log = run(folder, *[c for c in command if c != "--color"], **variables)
    page = folder / "_build" / "html" / "chapters" / "index.html"
    return code, log, page.read_text(encoding="utf8") if page.exists() else ""


# Variables that change an output, a kernel or an import, each tried alone on one of the chapters or on `REPORT` below.
HOSTILE = {
    "MPLBACKEND": "svg",
    "MATPLOTLIBRC": "elsewhere",
    "MPLCONFIGDIR": "elsewhere",
    "PYTHONOPTIMIZE": "1",
    "PYTHONWARNINGS": "error",
    "PYTHONHASHSEED": "7",
    "PYTHONSTARTUP": "startup.py",
    "PYTHONPATH": "elsewhere",
    "PYTHONUSERBASE": "elsewhere",
    "PYTHONDEVMODE": "1",
    "PYTHONINTMAXSTRDIGITS": "640",
    "IPYTHONDIR": "elsewhere",
    "JUPYTER_PATH": "elsewhere",
    "JUPYTER_CONFIG_DIR": "elsewhere",
    "NPY_PROMOTION_STATE": "weak_and_warn",
    "OMP_NUM_THREADS": "2",
    "OPENBLAS_NUM_THREADS": "2",
    "SYMPY_GROUND_TYPES": "gmpy",
    "SYMPY_USE_CACHE": "no",
    "SYMPY_DEBUG": "True",
    "MPMATH_STRICT": "1",
    "TZ": "Asia/Tokyo",
    "LANG": "POSIX",
    "LC_ALL": "POSIX",
    "AN_UNKNOWN_VARIABLE": "1",
}
KEPT = {"EOSLIB_SCALE": "full", "OPENBLAS_CORETYPE": "Haswell", "NPY_DISABLE_CPU_FEATURES": "X86_V4", "PATH": "/bin"}


def test_kernels_get_no_variable_that_was_not_thought_of():
    kept = environment.for_kernels(HOSTILE | KEPT)
    assert kept == KEPT | environment.FIXED


@pytest.mark.parametrize("name", sorted(HOSTILE.keys() - {"AN_UNKNOWN_VARIABLE"}))
def test_a_variable_that_changes_results_is_dropped_from_the_process(name, monkeypatch):
    environment.fix()  # other tests' libraries set variables of their own when they are first used
    before = dict(os.environ)
    try:
        os.environ[name] = HOSTILE[name]
        environment.fix()
        assert os.environ.get(name) == (environment.FIXED | {"MPLBACKEND": "agg"}).get(name)
        assert before.items() <= os.environ.items()
    finally:
        os.environ.clear()
        os.environ.update(before)
        environment.fix()


GLUE = "from myst_nb import glue\nglue('a', '0.125', display=False)"
GLUED = [{"application/papermill.record/text/plain": "'0.125'"}]
REPORT = """import os, sys, time, locale, warnings, sympy, eoslib
from matplotlib import get_backend, rcParams
print(sys.flags.optimize, sys.flags.dev_mode, get_backend(), rcParams["lines.linewidth"], time.tzname, eoslib.value)
print("planted" in globals(), hash("a") == hash("a"), sympy.polys.domains.GROUND_TYPES, os.environ["OMP_NUM_THREADS"])
"""
REPORTED = [
    {
        "stdout": "0 False module://matplotlib_inline.backend_inline 1.5 ('UTC', 'UTC') 42\nFalse True python 1\n",
    }
]


def hostile_machine(folder):
    """Every file that Python, IPython, Jupyter and Matplotlib look for, and the variables that name them."""
    style = "lines.linewidth: 9\nbackend: svg\n"
    files = {
        "home/.config/matplotlib/matplotlibrc": style,
        "home/matplotlibrc": style,
        "home/startup.py": "planted = 1",
        "home/.ipython/profile_default/startup/one.py": "planted = 1",
        "home/.ipython/profile_default/ipython_config.py": "get_config().InlineBackend.figure_format = 'svg'",
        "home/eoslib/__init__.py": "value = 41",
        "home/sitecustomize.py": "import os; os.environ['MPLBACKEND'] = 'svg'",
        "home/kernels/python3/kernel.json": json.dumps(
            {"argv": ["/bin/false", "{connection_file}"], "display_name": "planted", "language": "python"}
        ),
    }
    files["home/.local/share/jupyter/kernels/python3/kernel.json"] = files["home/kernels/python3/kernel.json"]
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    home = str(folder / "home")
    named = {"PYTHONPATH": home, "JUPYTER_PATH": home, "MATPLOTLIBRC": home, "MPLCONFIGDIR": home, "HOME": home}
    named |= {"PYTHONSTARTUP": f"{home}/startup.py", "IPYTHONDIR": f"{home}/.ipython"}
    gone = {"PYTHONOPTIMIZE", "PYTHONWARNINGS"}  # these reach the process of the tests or the build itself
    return {n: v for n, v in HOSTILE.items() if n not in gone} | named


@pytest.fixture(scope="module")
def planted_book(tmp_path_factory):
    """A book under attack: tests, build, cache altered, build again."""
    folder = tmp_path_factory.mktemp("book")
    machine = hostile_machine(folder)
    index = cell(REPORT) + DRAW + cell(GLUE) + "\n{glue}`a`\n\n```{toctree}\nsecond\n```\n"
    second = (cell("1"), [[{"text/plain": "1"}]])
    plant(folder, {"index": (index, [REPORTED, DRAWN, GLUED]), "second": second})
    first = build(folder, **machine)
    assert first[0] == 0, first[1]
    entries = (folder / "_build" / ".jupyter_cache").glob("*/executed/*/base.ipynb")
    (entry,) = (e for e in entries if "GROUND_TYPES" in e.read_text(encoding="utf8"))
    kept = entry.read_text(encoding="utf8")
    entry.write_text(kept.replace("9 1.5", "9 9").replace("1.5 (", "9.5 ("), encoding="utf8")
    second = build(folder, **machine)
    return folder, machine, first, second, kept, entry


def test_a_hostile_machine_changes_nothing_in_the_build(planted_book):
    _, _, (code, log, page), *_ = planted_book
    assert code == 0, log
    assert "index: ran in" in log and "second: ran in" in log and log.count("Using cached notebook") == 2
    assert "backend_inline 1.5" in page and "0 1 True" not in page
    assert "figures: matplotlib_inline.backend_inline" in log and "eoslib: " in log and "kernel: Python" in log


def test_an_altered_cache_is_not_published(planted_book):
    folder, machine, _, (code, log, page), kept, entry = planted_book
    third = build(folder, **machine)[1]
    assert "Using cached notebook" in third
    assert code == 0 and "was altered" in log, log
    downloaded = nbformat.read(folder / "_build" / "jupyter_execute" / "chapters" / "index.ipynb", as_version=4)
    assert "1.5" in [c for c in downloaded.cells if c.cell_type == "code"][0].outputs[0].text
    assert "9.5" not in page and "backend_inline 1.5" in page
    assert "9.5" not in entry.read_text(encoding="utf8")


def test_the_build_refuses_what_was_not_reviewed(planted_book):
    folder, machine, *_ = planted_book
    stored = folder / "tests" / "outputs" / "index.json"
    stored.write_text(stored.read_text().replace("1.5", "1.6").replace("0.125", "0.25"))
    code, log, _ = build(folder, **machine)
    assert code != 0 and "output differs from index.json: cell 0: stdout" in log, log
    assert "cell 2: application/papermill.record/text/plain is [\"'0.125'\"]" in log


def test_a_hostile_machine_changes_nothing_in_the_tests_and_faults_are_named(tmp_path):
    """One run: the report, a killed kernel, a figure without image, a warning with its text, an edit during the run."""
    kill = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    undrawn = DRAW.replace("plt.show()", 'plt.close()\nprint("no figure")')
    warns = "import sys\nprint('the words of the warning', file=sys.stderr)"
    edit = "from pathlib import Path\nPath('../eoslib/__init__.py').write_text('value = 43')\nprint(1)"
    machine = hostile_machine(tmp_path)
    chapters = {
        "a_report": (cell(REPORT) + DRAW, [REPORTED, DRAWN]),
        "b_killed": (cell(kill) + cell("1"), [[], [{"text/plain": "1"}]]),
        "c_undrawn": (undrawn, [[{"stdout": "no figure\n"}]]),
        "d_warns": (cell(warns), [[]]),
        "e_edits": (cell(edit), [[{"stdout": "1\n"}]]),
    }
    plant(tmp_path, chapters)
    code, report = test_run(tmp_path, "-rA", "--nbval-cell-timeout=100", **machine)
    assert code == 1 and report.count("PASSED") == 3 and report.count("FAILED") == 4, report
    assert "PASSED chapters/a_report.md::Cell 1" in report and "PASSED chapters/e_edits.md" in report
    assert "The kernel died (signal SIGKILL, as when memory runs out)" in report
    assert "Not run: the kernel died in cell 0" in report
    assert "A figure without an image" in report and "stderr: the words of the warning" in report
    filed = [nbformat.read(p, as_version=4) for p in (tmp_path / "_build").rglob("base.ipynb")]
    assert (
        len(filed) == 1 and "GROUND_TYPES" in filed[0].cells[0].source
    )  # none of a run during which the library changed


def test_assertions_cannot_be_switched_off(tmp_path):
    plant(tmp_path, {"index": (cell("1"), [[{"text/plain": "1"}]])})
    code, report = test_run(tmp_path, PYTHONOPTIMIZE="1")  # pytest has a word of its own
    assert code != 0 and "assert statements are not executed" in report and "passed" not in report, report
    code, log, _ = build(tmp_path, PYTHONOPTIMIZE="1")
    assert code != 0 and "removes every assert" in log, log


def test_a_checkout_that_cannot_be_written_is_named(tmp_path):
    plant(tmp_path, {"index": (cell("1"), [[{"text/plain": "1"}]])})
    (tmp_path / "_build").write_text("a file in the way")
    code, report = test_run(tmp_path)
    assert code == pytest.ExitCode.USAGE_ERROR and "cannot be written" in report and "Traceback" not in report, report
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "install.py", tmp_path / ".ci")
    code, log = run(tmp_path, ".ci/install.py", ".installed", "test")
    assert code != 0 and "cannot be written" in log and "Traceback" not in log and not (tmp_path / ".venv").exists()


def kernel_at(folder, monkeypatch, **changes):
    """A kernel python3 that comes first on the search path."""
    spec = {
        "argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "x",
        "language": "python",
    }
    place = folder / "kernels" / "python3"
    place.mkdir(parents=True)
    (place / "kernel.json").write_text(json.dumps(spec | changes))
    monkeypatch.setenv("JUPYTER_PATH", str(folder))


FOREIGN = {
    "another Python": {"argv": ["/opt/other/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]},
    "another module": {"argv": ["python", "-m", "another_kernel", "-f", "{connection_file}"]},
    "assertions off": {"argv": ["python", "-O", "-m", "ipykernel_launcher", "-f", "{connection_file}"]},
    "variables of its own": {"env": {"MPLBACKEND": "svg"}},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_kernel_is_refused_before_it_runs(name, tmp_path, monkeypatch):
    kernel_at(tmp_path, monkeypatch, **FOREIGN[name])
    with pytest.raises(environment.Foreign, match="kernel python3"):
        environment.refuse_kernel()


def test_the_own_kernel_is_accepted(tmp_path, monkeypatch):
    kernel_at(tmp_path, monkeypatch)
    environment.refuse_kernel()


STRANGE = {
    "prefix": ("/opt/other", "runs in /opt/other"),
    "eoslib": ("/opt/other/eoslib/__init__.py", "imports eoslib from /opt/other"),
    "backend": ("agg", "draws with agg"),
    "threads": ([["openblas", 2, "Haswell", "0.3"]], "openblas 2"),
    "ipython": ({"InlineBackend": {"figure_format": "svg"}}, "InlineBackend"),
    "startup": (["one.py"], "one.py"),
    "flags": ({"optimize": 1}, "without assertions"),
}


@pytest.mark.parametrize("part", STRANGE)
def test_a_kernel_that_is_not_the_books_is_refused(part):
    answer = copy.deepcopy(environment.state())
    assert environment.problems(answer) == []
    answer[part] = STRANGE[part][0]
    (problem,) = environment.problems(answer)
    assert STRANGE[part][1] in problem


def test_files_that_hide_a_module_or_set_a_style_are_found(tmp_path):
    hiding = ["matplotlibrc", "numpy.py", "random.py", "random.pyc", "scipy", "sitecustomize.py", "sympy.abi3.so"]
    (tmp_path / "scipy").mkdir()
    for name in (*hiding, "mine.py", "scipy/__init__.pyc"):
        if name != "scipy":
            (tmp_path / name).touch()
    found = [Path(p).name for p in environment.shadows(tmp_path)]
    assert found == [name for name in hiding if not name.endswith(".so") or ".abi3.so" in all_suffixes()]


@pytest.mark.parametrize("line", ["exec_lines = ['import math; math.pi = 3']", "matplotlib = 'agg'"])
def test_a_configured_kernel_is_refused(line, tmp_path, monkeypatch):
    profile = tmp_path / "profile_default"
    profile.mkdir()
    (profile / "ipython_kernel_config.py").write_text(f"c.IPKernelApp.{line}")
    monkeypatch.setitem(environment.FIXED, "IPYTHONDIR", str(tmp_path))
    with pytest.raises(environment.Foreign, match="IPython is configured on this machine .*IPKernelApp"):
        environment.state.__wrapped__()


@pytest.fixture
def key(monkeypatch):
    """The cache folder that belongs to an answer of the kernel and to files."""

    def folder(answer, files="files"):
        monkeypatch.setattr(environment, "state", lambda: answer)
        monkeypatch.setattr(freshcache, "sources", lambda: files)
        return freshcache.at_start.__wrapped__()[1]

    return folder


def test_the_key_holds_all_that_the_kernel_says_and_the_files(key):
    answer = copy.deepcopy(environment.state())
    own, seen = key(answer), set()
    for part in answer:
        seen.add(key(answer | {part: "changed"}))
    seen.add(key(answer, "other files"))
    assert own not in seen and len(seen) == len(answer) + 1
    assert {"packages", "backend", "variables", "threads", "eoslib", "python", "style", "cpu"} <= answer.keys()
    assert key(answer) == own


def test_an_edit_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(freshcache, "ROOT", tmp_path)
    (tmp_path / "eoslib").mkdir()
    (tmp_path / "recorded").mkdir()
    seen = {freshcache.sources()}
    for name in ("eoslib/a.py", "eoslib/a.js", "recorded/a.npz", "constraints.txt"):
        (tmp_path / name).write_text("1")
        seen.add(freshcache.sources())
    (tmp_path / "eoslib/a.py").write_text("2")
    seen.add(freshcache.sources())
    assert len(seen) == 6


def test_a_chapter_that_reads_pages_is_sealed_with_them(tmp_path):
    (tmp_path / "base.ipynb").write_text(json.dumps({"source": 'Path("notation.md")'}))
    assert freshcache.seal_of(tmp_path, "a") != freshcache.seal_of(tmp_path, "b")
    (tmp_path / "base.ipynb").write_text(json.dumps({"source": "1"}))
    assert freshcache.seal_of(tmp_path, "a") == freshcache.seal_of(tmp_path, "b")


@pytest.mark.parametrize("fault", ("altered", "gone", "not sealed", "database"))
def test_a_damaged_cache_is_made_again(fault, tmp_path, monkeypatch):
    monkeypatch.setattr(freshcache, "at_start", lambda: ("files", tmp_path / "cache"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    freshcache.file(notebook, tmp_path / "a.md", 1.0, freshcache.pages())
    assert freshcache.drop_unsealed() == []
    (entry,) = (tmp_path / "cache").glob("executed/*")
    if fault == "altered":
        (entry / "base.ipynb").write_text((entry / "base.ipynb").read_text().replace("1", "2"))
    elif fault == "database":
        (tmp_path / "cache" / "global.db").write_bytes(b"no database" * 100)
    else:
        shutil.rmtree(entry) if fault == "gone" else (entry / "seal").unlink()
    assert len(freshcache.drop_unsealed()) == 1
    freshcache.file(notebook, tmp_path / "a.md", 1.0, freshcache.pages())
    assert freshcache.drop_unsealed() == [] and entry.exists()


def executed(*made, figure=False):
    metadata = {"mystnb": {"figure": {"name": "fig-x"}}} if figure else {}
    return nbformat.v4.new_code_cell("1", outputs=list(made), metadata=metadata)


def test_differences_of_text_and_images():
    out, draw = nbformat.v4.new_output, {"image/png": "x", "text/plain": "f"}
    printed = executed(out("stream", name="stdout", text="a"), out("stream", name="stdout", text="b"))
    drawn, undrawn = (executed(out("display_data", data=d), figure=True) for d in (draw, {"text/plain": "f"}))
    stored = [[{"stdout": "ab"}], [{"text/plain": "f"}]]
    assert outputs.differences([printed, drawn], stored) == []
    assert outputs.differences([printed, undrawn], stored) == ["cell 1: a figure without an image"]
    assert outputs.differences([printed], stored) == ["1 cells, 2 stored outputs"]
    assert len(outputs.differences([printed, drawn], [[{"stdout": "ac"}], [{"text/plain": "g"}]])) == 2
    assert len(outputs.differences([executed(), drawn], stored)) == 1


def installer(place):
    """.ci/install.py as a module, at home in another checkout."""
    spec = importlib.util.spec_from_file_location("installer", place / ".ci" / "install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.CONSTRAINTS = "constraints.txt"  # these tests may themselves run with others
    return module


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / ".ci").mkdir()
    for name in ("Makefile", ".ci/install.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def fake_venv(checkout, version="3 11", code=0, prefix=".venv"):
    """A .venv whose Python answers as told."""
    answer = f"{version} {(checkout / prefix).resolve()}" if version else ""
    (checkout / ".venv" / "bin").mkdir(parents=True)
    python = checkout / ".venv" / "bin" / "python"
    python.write_text(f"#!/bin/sh\necho {answer}\nexit {code}\n")
    python.chmod(0o755)
    (checkout / ".venv" / "pyvenv.cfg").touch()


@pytest.mark.skipif(os.name == "nt", reason="a shell script in place of Python")
def test_what_makes_an_environment_unusable(checkout):
    module = installer(checkout)
    assert module.fault() == "is not there"
    (checkout / ".venv").mkdir()
    assert "no Python that runs" in module.fault()
    shutil.rmtree(checkout / ".venv")
    fake_venv(checkout)
    assert module.fault() is None and module.fault((3, 11)) is None
    assert "3.12 was asked for" in module.fault((3, 12))
    (checkout / ".venv" / "bin" / "pip").write_text("#!/another/place/.venv/bin/python3\n")
    assert "was moved" in module.fault()
    old, below = "3.10, and 3.11 or later is needed", "is not complete: its Python belongs to"
    for answer, words in ((("3 10",), old), (("", 1), "without pip"), (("3 11", 0, "/usr"), below)):
        shutil.rmtree(checkout / ".venv")
        fake_venv(checkout, *answer)
        assert words in module.fault()


def test_a_python_that_is_too_old_is_named_before_anything_is_made(checkout, monkeypatch):
    module = installer(checkout)
    monkeypatch.setattr(module.sys, "version_info", (3, 10, 1))
    with pytest.raises(SystemExit, match="3.11 or later is needed, and .* is 3.10; name another"):
        module.install(checkout / ".venv" / ".installed", "test")
    assert not (checkout / ".venv").exists()


def test_a_python_that_is_not_there_is_named(checkout):
    done = subprocess.run(
        ["make", "PYTHON=python3.99", ".venv/.installed"], cwd=checkout, capture_output=True, text=True
    )
    assert done.returncode and "python3.99 is not there" in done.stdout


def test_a_folder_that_is_no_environment_is_not_removed(checkout):
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "thesis.tex").touch()
    with pytest.raises(SystemExit, match="thesis.tex"):
        installer(checkout).install(checkout / ".venv" / ".installed", "test")
    assert (checkout / ".venv" / "thesis.tex").exists()


def test_pip_is_not_sent_elsewhere(checkout, monkeypatch):
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_TARGET", "elsewhere")
    kept = installer(checkout).variables()
    assert kept["PIP_USER"] == "0" and "PIP_TARGET" not in kept


BROKEN = {
    "without pip": lambda venv: [shutil.rmtree(p) for p in venv.glob("lib/python*/site-packages/pip")],
    "without a stamp": lambda venv: (venv / ".installed").unlink(),
    "with a Python that is gone": lambda venv: [
        p.unlink() or p.symlink_to("/gone") for p in (venv / "bin").glob("python*")
    ],
    "cut off": lambda venv: [shutil.rmtree(p) if p.is_dir() else p.unlink() for p in venv.glob("*") if p.name != "bin"],
    "moved": None,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_make_mends_an_environment(name, checkout):
    """`make` after a first one that failed; a small project stands in for the book's packages."""
    project = (
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n[project]\nname = "x"\n'
    )
    project += 'version = "1"\n[project.optional-dependencies]\ntest = ["six"]\n[tool.setuptools]\npackages = []\n'
    (checkout / "pyproject.toml").write_text(project)
    (checkout / "constraints.txt").write_text("six==1.17.0\n")
    install = ["make", "EXTRAS=test", f"PYTHON={sys._base_executable}", ".venv/.installed"]
    variables = {**os.environ, "PIP_USER": "1", "CONSTRAINTS": "constraints.txt"}

    def made(place):
        done = subprocess.run(install, cwd=place, capture_output=True, text=True, env=variables)
        assert done.returncode == 0, done.stdout + done.stderr
        there = subprocess.run(
            [place / ".venv/bin/python", "-I", "-c", "import six; print(six.__file__)"], capture_output=True
        )
        assert str(place / ".venv") in there.stdout.decode()
        return done.stdout

    assert made(checkout) == "" and made(checkout) == ""
    place = checkout
    if name == "moved":
        place = checkout.parent / f"{checkout.name}-moved"
        shutil.move(checkout, place)
    else:
        BROKEN[name](checkout / ".venv")
    assert ("made again" in made(place)) == (name != "without a stamp")
    assert made(place) == ""


def test_the_requirement_on_pytorch_is_the_pin_or_the_range(checkout, monkeypatch):
    module = installer(checkout)
    assert re.fullmatch(r"torch==[\d.]+", module.torch())
    monkeypatch.setattr(module, "CONSTRAINTS", "")
    assert re.fullmatch(r"torch>=[\d.]+", module.torch())


def lower_bounds():
    """Package -> its lower bound in pyproject.toml; one bound for each package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
    asked = project["dependencies"] + [r for e in ("book", "test", "data") for r in project["optional-dependencies"][e]]
    bounds = {}
    for requirement in (Requirement(r) for r in asked if not r.startswith("eoslib")):
        (bound,) = (s.version for s in requirement.specifier if s.operator == ">=")
        assert bounds.setdefault(canonicalize_name(requirement.name), bound) == bound, requirement
    return bounds


def pins(name):
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf8").splitlines()]
    return {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines if line}


def test_the_oldest_set_is_that_of_the_lower_bounds_and_the_pins_are_in_range():
    oldest, pinned = pins("constraints-oldest.txt"), pins("constraints.txt")
    for name, bound in lower_bounds().items():
        assert Version(oldest[name]) == Version(bound), name
        assert Version(pinned[name]) >= Version(bound), name


def test_a_checkout_with_windows_line_ends_is_the_same(tmp_path):
    if not shutil.which("git"):
        pytest.skip("needs git")
    files = {".ci/run": b"#!/usr/bin/env bash\necho ran\n", "recorded/script.py": b"x = 1\n", "a.npz": b"PK\r\n\n\0"}
    for name, content in files.items():
        (tmp_path / "origin" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "origin" / name).write_bytes(content)
    shutil.copy(ROOT / ".gitattributes", tmp_path / "origin")
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "-m", "x"]):
        subprocess.run(["git", *command], cwd=tmp_path / "origin", check=True)
    subprocess.run(["git", "clone", "-q", "-c", "core.autocrlf=true", "origin", "clone"], cwd=tmp_path, check=True)
    assert {name: (tmp_path / "clone" / name).read_bytes() for name in files} == files
    assert subprocess.check_output(["bash", tmp_path / "clone" / ".ci" / "run"]) == b"ran\n"


def test_the_workflow_runs_what_is_there():
    """Every target of make, file and set of versions that the workflow names exists; it cannot be run here."""
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf8")
    workflow = yaml.safe_load(text)
    makefile = (ROOT / "Makefile").read_text(encoding="utf8")
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    targets = {t for step in steps for t in re.findall(r"make (?:\S+=\S* )*([\w.-]+)", step.get("run", ""))}
    assert targets and all(f"\n{target}:" in makefile for target in targets)
    rows = workflow["jobs"]["versions"]["strategy"]["matrix"]["include"]
    assert {(row["python"], row["versions"]) for row in rows} >= {
        ("3.11", "oldest"),
        ("3.12", "newest"),
        ("3.13", "newest"),
    }
    assert all(not row["constraints"] or (ROOT / row["constraints"]).is_file() for row in rows)
    assert subprocess.run(["bash", "-n", ROOT / ".ci" / "run"]).returncode == 0
