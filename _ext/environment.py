"""Fix and state the environment that the chapters run in, and refuse one that is not the book's.

An output depends on more than its cell: on the kernel, on the library that kernel imports, on versions, on variables
and files read at a start. The variables below are set, or left out, for every kernel of the book and of the tests; a
kernel started like theirs is then asked what it is. Its answer is part of the key under which outputs are kept.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib.machinery import all_suffixes
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ROOT / "chapters"
OWN = ROOT / "_build" / "environment"
INLINE = "module://matplotlib_inline.backend_inline"

# Set in the kernels and, as far as it has an effect after the start, in the tests and the build.
FIXED = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR", "NUMBA")} | {
    "VECLIB_MAXIMUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),  # this library, whatever else is installed
    "PYTHONNOUSERSITE": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "LC_ALL": "C",
    "TZ": "UTC",
    "MPLCONFIGDIR": str(OWN / "matplotlib"),
    "IPYTHONDIR": str(OWN / "ipython"),
    "JUPYTER_RUNTIME_DIR": str(OWN / "runtime"),
    "JUPYTER_PREFER_ENV_PATH": "1",
    "SYMPY_GROUND_TYPES": "python",
    "SYMPY_USE_CACHE": "yes",
    "MPMATH_NOGMPY": "1",
}
# Families that change results or what is run. All are left out but for FIXED and MACHINE.
FAMILIES = re.compile(
    r"(PYTHON|MPL|MATPLOTLIB|IPYTHON|JUPYTER|NPY_|NUMPY_|SYMPY_|MPMATH_|TORCH|PYTORCH|ATEN_|OMP_|GOMP_|KMP_|MKL_|OPENBLAS"
    r"|GOTO_|BLIS_|VECLIB_|NUMEXPR_|NUMBA_|XLA_|JAX_|SCIPY_|SKLEARN_|BOKEH_|LC_|LANG$|LANGUAGE$|TZ$|GLIBC_TUNABLES$)"
)
# Choices of the machine: kept, and part of the key.
MACHINE = re.compile(
    r"(EOSLIB_.*|OPENBLAS_CORETYPE|NPY_(DIS|EN)ABLE_CPU_FEATURES|ATEN_CPU_CAPABILITY|MKL_ENABLE_INSTRUCTIONS|MKL_CBWR"
    r"|GLIBC_TUNABLES|LD_LIBRARY_PATH|LD_PRELOAD|DYLD_.*|SOURCE_DATE_EPOCH)$"
)
# What a process needs on some system, and outputs do not depend on.
INDIFFERENT = re.compile(
    r"(PATH|HOME|USER|LOGNAME|SHELL|TERM|COLUMNS|TMPDIR|TEMP|TMP|CI|.*_PROXY|.*_proxy|SSL_CERT_.*|XDG_.*|PYTEST_.*|COV_.*"
    r"|COVERAGE_.*|GITHUB_.*|READTHEDOCS.*|PYTHONDONTWRITEBYTECODE|PYTHONPYCACHEPREFIX|PYTHONUNBUFFERED"
    r"|SYSTEMROOT|SYSTEMDRIVE|WINDIR|COMSPEC|PATHEXT|APPDATA|LOCALAPPDATA|USERPROFILE|PROGRAMDATA|PROGRAMFILES.*"
    r"|NUMBER_OF_PROCESSORS|PROCESSOR_.*)$"
)

# Run in a kernel: what it is, as far as outputs depend on it.
QUESTION = """
import hashlib, importlib.metadata, importlib.util, json, locale, os, pathlib, site, sys, time, warnings
import matplotlib, matplotlib.font_manager, mpmath, numpy, sympy, threadpoolctl
def _text(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()[:16] if path else None
def _file(name):
    spec = importlib.util.find_spec(name)
    return spec.origin if spec else None
_shell = get_ipython()
_own = {"IPKernelApp": {"connection_file"}}  # what the start of a kernel sets by itself
_config = {k: sorted(set(v) - _own.get(k, set())) for k, v in _shell.config.items()}
_start = pathlib.Path(_shell.profile_dir.startup_dir)
_answer = {
    "python": sys.version,
    "prefix": sys.prefix,
    "flags": {n: v for n in dir(sys.flags) if n[0] != "_" and isinstance(v := getattr(sys.flags, n), int)},
    "path": sys.path,
    "eoslib": _file("eoslib"),
    "modules": [m.__file__ for m in (numpy, matplotlib, sympy, mpmath)],
    "packages": sorted({f"{d.name}=={d.version}" for d in importlib.metadata.distributions()}),
    "site": [_text(getattr(sys.modules.get(n), "__file__", None)) for n in ("sitecustomize", "usercustomize")],
    "paths": {p.name: _text(p) for f in site.getsitepackages() for p in sorted(pathlib.Path(f).glob("*.pth"))},
    "ipython": {k: v for k, v in _config.items() if v},
    "startup": sorted(p.name for p in _start.glob("*") if p.suffix in (".py", ".ipy")),
    "backend": matplotlib.get_backend(),
    "style": hashlib.sha256(repr(sorted(matplotlib.rcParams.items())).encode()).hexdigest()[:16],
    "matplotlibrc": matplotlib.matplotlib_fname(),
    "warnings": repr(warnings.filters),
    "threads": [[p["internal_api"], p["num_threads"], p.get("architecture"), p["version"]]
                for p in threadpoolctl.threadpool_info()],
    "cpu": numpy.show_config(mode="dicts").get("SIMD Extensions"),
    "errors": numpy.geterr(),
    "longdouble": [numpy.finfo(numpy.longdouble).nmant, numpy.finfo(numpy.longdouble).maxexp],
    "ground types": [sympy.polys.domains.GROUND_TYPES, mpmath.libmp.BACKEND],
    "locale": locale.setlocale(locale.LC_ALL),
    "time zone": time.tzname,
    "encoding": [sys.stdout.encoding, sys.getfilesystemencoding()],
}
pathlib.Path(ANSWER).write_text(json.dumps(_answer, default=repr), encoding="utf8")
"""


class Foreign(Exception):
    """The environment is not the book's; the message says what is wrong and what to do."""


def for_kernels(variables) -> dict:
    """The variables that a kernel starts with, out of those of the caller."""
    kept = {n: v for n, v in variables.items() if MACHINE.match(n) or INDIFFERENT.match(n)}
    return kept | FIXED


def fix() -> None:
    """Fix this process: drop variables of the families, set the fixed ones, before NumPy or Matplotlib is imported."""
    for name in [n for n in os.environ if FAMILIES.match(n) and not MACHINE.match(n) and not INDIFFERENT.match(n)]:
        del os.environ[name]
    os.environ.update(FIXED, MPLBACKEND="agg")
    if hasattr(time, "tzset"):
        time.tzset()
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))


@contextmanager
def of_kernels():
    """Within it, a process that is started gets the variables of a kernel."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(for_kernels(before))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def make_folder(path: Path) -> Path:
    """Make a folder, or say what a checkout needs."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise Foreign(
            f"{path} cannot be written ({error.strerror}); book and tests need a checkout they can write"
        ) from None


def shadows(folder: Path) -> list[str]:
    """Files in a folder on the import path that hide a module of Python or of an installed package, or set a style."""
    names = set(sys.stdlib_module_names) | set(packages_distributions()) - {"eoslib"}
    names |= {"sitecustomize", "usercustomize"}  # which Python runs at its start
    found = [p for suffix in all_suffixes() for p in folder.glob(f"*{suffix}") if p.name.removesuffix(suffix) in names]
    inits = [p for suffix in all_suffixes() for p in folder.glob(f"*/__init__{suffix}")]
    found += [p.parent for p in inits if p.parent.name in names]
    return sorted(str(p) for p in {*found, *folder.glob("matplotlibrc")})


def refuse_switches() -> None:
    """Refuse to run without assertions."""
    if sys.flags.optimize:
        raise Foreign("Python was started with -O or PYTHONOPTIMIZE, which removes every assert; start it without")


def refuse_kernel() -> None:
    """Refuse a kernel `python3` that is not this Python's own, before it is run."""
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpecManager

    spec = KernelSpecManager().get_kernel_spec("python3")
    command, own = list(spec.argv), get_kernel_dict()["argv"]
    # jupyter_client replaces a bare python by the one that runs
    bare = command[0] in ("python", "python3", f"python3.{sys.version_info[1]}")
    if not bare and Path(command[0]).absolute().parent != Path(sys.executable).absolute().parent:
        raise Foreign(f"kernel python3 is {command[0]} (from {spec.resource_dir}), not that of {sys.prefix}; remove it")
    if command[1:] != own[1:] or spec.env:
        raise Foreign(f"kernel python3 (from {spec.resource_dir}) starts as {command} with {spec.env}, not as {own}")


def ask() -> dict:
    """Start a kernel as the chapters do and have it say what it is."""
    from jupyter_client.manager import start_new_kernel

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "answer"
        with open(os.devnull, "w") as nowhere:
            manager, client = start_new_kernel(kernel_name="python3", cwd=str(CHAPTERS), stderr=nowhere)
        try:
            reply = client.execute_interactive(
                f"ANSWER = {str(place)!r}\n{QUESTION}",
                store_history=False,
                timeout=120,
                output_hook=lambda message: None,
            )["content"]
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
        if reply["status"] != "ok":
            raise Foreign(f"the kernel cannot say what it is: {reply.get('ename')}: {reply.get('evalue')}")
        return json.loads(place.read_text(encoding="utf8"))


def problems(answer: dict) -> list[str]:
    """What in a kernel's answer is not as the book needs it."""
    found = []
    if Path(answer["prefix"]).resolve() != Path(sys.prefix).resolve():
        found.append(f"the kernel runs in {answer['prefix']}, not in {sys.prefix}")
    if answer["flags"]["optimize"]:
        found.append("the kernel runs without assertions")
    library = answer["eoslib"]
    if (ROOT / "eoslib").is_dir() and not (library and ROOT / "eoslib" in Path(library).resolve().parents):
        found.append(f"the kernel imports eoslib from {library}, not from {ROOT}")
    if answer["backend"] != INLINE:
        found.append(f"the kernel draws with {answer['backend']}, not with {INLINE}")
    if many := [f"{api} {number}" for api, number, *_ in answer["threads"] if number != 1]:
        found.append(f"the kernel runs with threads: {', '.join(many)}, needs 1")
    if extra := [*answer["ipython"], *answer["startup"]]:
        found.append(f"IPython is configured on this machine ({', '.join(extra)}); the chapters need its defaults")
    return found


@functools.cache
def state() -> dict:
    """What the kernels of this process are, once it is known that they are the book's own.

    Raises
    ------
    Foreign
        If the environment is not the book's.
    """
    refuse_switches()
    make_folder(OWN)
    if hiding := shadows(CHAPTERS) + shadows(ROOT):
        raise Foreign(f"{', '.join(hiding)}: would be read in place of what is installed; rename it")
    with of_kernels():
        refuse_kernel()
        answer = ask()
        answer["variables"] = {n: v for n, v in sorted(os.environ.items()) if not INDIFFERENT.match(n)}
    if found := problems(answer):
        raise Foreign("; ".join(found))
    return answer


def lines() -> list[str]:
    """The environment in a few lines, for the head of a run."""
    answer = state()
    threads = ", ".join(f"{api} {version} ({kind}), {n} thread" for api, n, kind, version in answer["threads"])
    machine = [f"{n}={v}" for n, v in answer["variables"].items() if MACHINE.match(n)]
    return [
        f"kernel: Python {answer['python'].split()[0]} of {answer['prefix']}",
        f"eoslib: {answer['eoslib']}; {len(answer['packages'])} packages",
        f"figures: {answer['backend'].removeprefix('module://')}; {threads}",
        f"long double: {answer['longdouble'][0] + 1} bits; switches: {', '.join(machine) or 'none'}",
    ]
