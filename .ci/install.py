"""Make .venv what pyproject.toml and constraints.txt ask for; make it again where it cannot serve.

Run by make with any Python 3, ``python .ci/install.py STAMP EXTRAS``. A .venv that is unfinished, was moved, has no pip
or is of a Python that is too old is removed and made again; one that is complete is left as it is.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
NEEDED = (3, 11)
CONSTRAINTS = os.environ.get("CONSTRAINTS", "constraints.txt")  # empty: the newest that pyproject.toml allows
OWN = {
    "bin",
    "lib",
    "lib64",
    "include",
    "share",
    "etc",
    "Scripts",
    "Lib",
    "Include",
    "pyvenv.cfg",
    ".installed",
    ".lab",
}
QUESTION = "import os, sys, pip; print(*sys.version_info[:2], os.path.realpath(sys.prefix))"


def variables():
    """The environment of pip: what would send packages elsewhere is left out."""
    moved = (
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_ROOT",
        "PIP_REQUIRE_VIRTUALENV",
        "PYTHONHOME",
        "PYTHONPATH",
        "__PYVENV_LAUNCHER__",
    )
    kept = {name: value for name, value in os.environ.items() if name not in moved}
    return {**kept, "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def fault(asked=None):
    """Why .venv cannot serve, or None; `asked` is the version of Python that was asked for."""
    if not os.path.lexists(str(VENV)):
        return "is not there"
    try:
        done = subprocess.run([str(PYTHON), "-I", "-c", QUESTION], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        return "has no Python that runs ({})".format(error.strerror)
    answer = done.stdout.decode().split(maxsplit=2)
    if done.returncode or len(answer) != 3:
        return "has a Python without pip, or one that does not run"
    if answer[2].strip() != os.path.realpath(str(VENV)):  # else pip would install into the Python below
        return "is not complete: its Python belongs to {}".format(answer[2].strip())
    if (int(answer[0]), int(answer[1])) < NEEDED:
        return "is of Python {}.{}, and {}.{} or later is needed".format(answer[0], answer[1], *NEEDED)
    if asked and (int(answer[0]), int(answer[1])) != asked:
        return "is of Python {}.{}, and {}.{} was asked for".format(answer[0], answer[1], *asked)
    pip = PYTHON.parent / "pip"
    if pip.exists() and str(PYTHON.parent).encode() not in pip.read_bytes()[:1000]:
        return "was moved here from another place"
    return None


def base():
    """The Python to make .venv from: this one, or what it was itself made from."""
    if sys.version_info[:2] < NEEDED:
        sys.exit(
            "Python {}.{} or later is needed, and {} is {}.{}; name another: make PYTHON=python3.12".format(
                *NEEDED, sys.executable, *sys.version_info[:2]
            )
        )
    return getattr(sys, "_base_executable", None) or sys.executable


def make(why):
    """Make .venv anew."""
    python = base()
    if VENV.is_symlink() or VENV.is_file():
        VENV.unlink()
    elif VENV.exists():
        strange = sorted(set(os.listdir(str(VENV))) - OWN)
        if strange and not (VENV / "pyvenv.cfg").exists():
            sys.exit(".venv {}, and holds what no environment holds ({}): remove it".format(why, ", ".join(strange)))
        print(".venv {}: it is made again".format(why))
        shutil.rmtree(str(VENV))
    if subprocess.call([python, "-I", "-m", "venv", str(VENV)], env=variables()):
        shutil.rmtree(str(VENV), ignore_errors=True)
        sys.exit(
            "{} cannot make a virtual environment; on Debian and Ubuntu its package is python3-venv".format(python)
        )


def pip(*arguments):
    command = [str(PYTHON), "-I", "-m", "pip", "install", "--quiet", *arguments]
    if subprocess.call(command, env=variables(), cwd=str(ROOT)):
        sys.exit("pip could not install {}; the same command tries again".format(arguments[-1]))


def torch():
    """The requirement on PyTorch: the pin where there is one, else the range of pyproject.toml."""
    pins = (ROOT / CONSTRAINTS).read_text(encoding="utf8").split() if CONSTRAINTS else []
    ranges = re.findall(r'"(torch>=[^"]*)"', (ROOT / "pyproject.toml").read_text(encoding="utf8"))
    return ([pin for pin in pins if pin.startswith("torch==")] or ranges)[0]


def wanted():
    """What a complete .venv was made for: this place and these requirements."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", ".ci/install.py", *([CONSTRAINTS] if CONSTRAINTS else [])):
        digest.update((ROOT / name).read_bytes())
    return "{} {} {}\n".format(ROOT, CONSTRAINTS, digest.hexdigest())


def complete(stamp):
    try:
        return stamp.read_text(encoding="utf8") == wanted()
    except (OSError, UnicodeDecodeError):
        return False


def install(stamp, extras):
    """Install the extras, unless that was done; PyTorch first and alone, from the index of CPU builds if in reach."""
    folder = ROOT / "_build"
    try:
        os.makedirs(str(folder), exist_ok=True)
        tempfile.TemporaryFile(dir=str(folder)).close()
    except OSError as error:
        sys.exit("{} cannot be written ({}); the book needs a checkout that can".format(folder, error.strerror))
    why = fault(tuple(sys.version_info[:2]) if os.environ.get("PYTHON_ASKED") else None)
    if why is None and complete(stamp):
        return
    try:
        if why:
            make(why)
        if stamp.exists():
            stamp.unlink()
        index = os.environ.get("TORCH_INDEX")
        if "book" in extras:
            pip("--retries", "1", "--no-deps", *(["--extra-index-url", index] if index else []), torch())
        pip(*(["-c", CONSTRAINTS] if CONSTRAINTS else []), "-e", ".[{}]".format(extras))
        stamp.write_text(wanted(), encoding="utf8")
    except OSError as error:
        sys.exit(
            "{} cannot be written ({}); the environment is made in the checkout".format(error.filename, error.strerror)
        )


if __name__ == "__main__":
    install(VENV / sys.argv[1], sys.argv[2])
