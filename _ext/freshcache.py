"""Keep executed chapters only while what they ran with is unchanged, and show no output but a reviewed one.

jupyter-cache knows a chapter by its cells alone; a change of the library, of a recorded run, of a version, of the
kernel or of a variable would leave old outputs on the page. So the cache lives in a folder whose name is a hash of
all of these, taken before anything runs; if a file has changed by the end, nothing is kept. The test run
(``conftest.py``) fills the same folder, so that the book need not run its chapters a second time. Each entry is
sealed by a checksum, and the build compares what it shows with ``tests/outputs``.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import environment
import nbformat
import outputs
from environment import ROOT
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.cache.db import NbCacheRecord
from jupyter_cache.executors.utils import single_nb_execution
from myst_nb.core.read import read_myst_markdown_notebook
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sqlalchemy.exc import DatabaseError

STORED = ROOT / "tests" / "outputs"
CACHE = ROOT / "_build" / ".jupyter_cache"


def sources() -> str:
    """Digest of the files that chapters run or read, their own text aside."""
    digest = hashlib.sha256()
    files = [*ROOT.glob("eoslib/**/*.*"), *ROOT.glob("recorded/*.*"), ROOT / "constraints.txt"]
    files += [*ROOT.glob("benchmarks/*.py"), *ROOT.glob("benchmarks/results/recorded.json")]
    for path in sorted(p for p in files if p.is_file() and "__pycache__" not in p.parts):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


@functools.cache
def at_start() -> tuple[str, Path]:
    """Digest of the sources when first asked, and the cache folder of those and of the environment."""
    files = sources()
    everything = json.dumps([files, environment.state()], sort_keys=True)
    return files, CACHE / hashlib.sha256(everything.encode()).hexdigest()[:16]


def unchanged() -> bool:
    """Whether the sources are those of the start."""
    return sources() == at_start()[0]


def pages() -> str:
    """Digest of the chapters' text, which some chapters read."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "chapters").glob("*.md")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def seal_of(entry: Path, read: str) -> str:
    """Checksum of an executed notebook, and of the chapters' text if it reads that."""
    content = (entry / "base.ipynb").read_bytes()
    return hashlib.sha256(content + (read.encode() if b'.md\\"' in content else b"")).hexdigest()


def intact(entry: Path, read: str) -> bool:
    """Whether a filed notebook is what was sealed."""
    try:
        return (entry / "seal").read_text(encoding="ascii") == seal_of(entry, read)
    except (OSError, UnicodeDecodeError):
        return False


@contextlib.contextmanager
def kept():
    """The cache of these sources and this environment; its database is closed in the end, which nothing else would do."""
    cache = get_cache(str(at_start()[1]))
    try:
        yield cache
    finally:
        cache.db.dispose()


def drop_unsealed() -> list[str]:
    """Remove entries that were altered since they were filed, or whose filing was cut off; they run again."""
    folder, read, dropped = at_start()[1], pages(), []
    if not folder.is_dir():
        return []
    try:
        with kept() as cache:
            records = {record.hashkey: record.pk for record in cache.list_cache_records()}
            for key in sorted(records.keys() | {entry.name for entry in folder.glob("executed/*")}):
                if not intact(folder / "executed" / key, read):
                    dropped.append(key)
                    shutil.rmtree(folder / "executed" / key, ignore_errors=True)
                    if key in records:
                        NbCacheRecord.remove_record(records[key], cache.db)
    except DatabaseError:
        dropped.append(folder.name)
        shutil.rmtree(folder)
    return dropped


def seal(entry: Path, read: str) -> None:
    (entry / "seal").write_text(seal_of(entry, read), encoding="ascii")


def file(notebook, path: Path, seconds: float, read: str) -> None:
    """Keep an executed chapter for the book; `read` is the digest of the pages when it began."""
    bundle = CacheBundleIn(notebook, str(path), data={"execution_seconds": round(seconds, 1)})
    with kept() as cache:
        record = cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    seal(at_start()[1] / "executed" / record.hashkey, read)


def start(app, config):
    """Before anything runs: the environment, stated or refused, and the cache that belongs to it."""
    log = logging.getLogger(__name__)
    try:
        for line in environment.lines():
            log.info(line)
        folder = at_start()[1]
        environment.make_folder(CACHE)
    except environment.Foreign as refused:
        raise ExtensionError(str(refused)) from None
    app.pages_at_start = pages()
    for entry in drop_unsealed():
        log.info("cache: %s was altered or left unfinished, and is made again", entry)
    config.nb_execution_cache_path = str(folder)
    variables = environment.for_kernels(os.environ)
    os.environ.clear()
    os.environ.update(variables)


def processors() -> int:
    """Chapters to run at once: each takes one processor and some 500 MB."""
    return min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def run_missing(app, env, names):
    """Run the chapters that are not kept, several at once, and keep those that ran through.

    myst-nb finds these in the cache; one that failed it runs again, and says why.
    """
    waiting = []
    with kept() as cache:
        for path in (Path(env.doc2path(name)) for name in names):
            text = path.read_text(encoding="utf8")
            if outputs.is_notebook(text):
                notebook = read_myst_markdown_notebook(text, add_source_map=True, path=str(path))
                try:
                    cache.match_cache_notebook(notebook)
                except KeyError:
                    waiting.append((path, notebook))

    def run(path, notebook):
        try:
            return single_nb_execution(notebook, str(path.parent), env.mystnb_config.execution_timeout, False)
        except Exception:  # a kernel that died
            return None

    with ThreadPoolExecutor(processors()) as pool:
        for (path, notebook), result in zip(waiting, pool.map(run, *zip(*waiting))) if waiting else ():
            if result is not None and result.err is None:
                logging.getLogger(__name__).info("%s: ran in %.0f seconds", path.stem, result.time)
                file(notebook, path, result.time, app.pages_at_start)


def seal_new(app, doctree):
    """Seal what this build has just executed."""
    for entry in at_start()[1].glob("executed/*"):
        if not (entry / "seal").exists():
            seal(entry, app.pages_at_start)


def compare(app, env):
    """Every chapter shows what was reviewed, in the kernel that was stated.

    The executed notebooks that readers download are written here too: myst-nb writes those it found in the cache
    without their outputs.
    """
    log = logging.getLogger(__name__)
    with kept() as cache:
        compare_all(app, env, cache, log)
    if not unchanged():
        shutil.rmtree(at_start()[1], ignore_errors=True)
        log.warning("library, records or versions changed while the book was built; build it again")


def compare_all(app, env, cache, log):
    """Warn of each output that differs, of another kernel and of a chapter that was not kept."""
    for name in sorted(env.found_docs):
        if "kernelspec" not in env.metadata.get(name, {}):
            continue
        executed = Path(app.outdir).parent / "jupyter_execute" / f"{name}.ipynb"
        notebook = nbformat.read(executed, as_version=4)
        if (kernel := notebook.metadata.kernelspec.name) != "python3":
            log.warning("kernel %s is not the book's python3", kernel, location=name)
        try:
            notebook = cache.merge_match_into_notebook(notebook)[1]
        except KeyError:
            log.warning("no executed notebook was kept", location=name)
            continue
        reference = STORED / f"{Path(name).name}.json"
        stored = json.loads(reference.read_text(encoding="utf8")) if reference.exists() else []
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for difference in outputs.differences(cells, stored):
            log.warning("output differs from %s: %s", reference.name, difference, location=name)
        nbformat.write(notebook, executed)


def setup(app):
    environment.fix()
    app.connect("config-inited", start, priority=1)
    app.connect("env-before-read-docs", run_missing)
    app.connect("doctree-read", seal_new)
    app.connect("env-check-consistency", compare)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
