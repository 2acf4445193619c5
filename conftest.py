"""Collect the chapters as notebooks: nbval runs every code cell and compares its text output with `tests/outputs`.

Chapters are MyST files without stored outputs. The text that each cell printed or displayed when it was last reviewed
lies in ``tests/outputs/<chapter>.json``; images and HTML are left out on both sides. ``--nbval-update`` rewrites these
files. A chapter whose cells all passed goes to the cache that the book is built from.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections import defaultdict
from pathlib import Path

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import jupytext
import nbformat
from nbval.plugin import IPyNbCell, IPyNbFile, coalesce_streams, find_metadata_tags

ROOT = Path(__file__).resolve().parent
OUTPUTS = ROOT / "tests" / "outputs"
collect_ignore = [] if importlib.util.find_spec("numba") else ["eoslib/compiled.py"]  # the extra "fast"
TEXT = ("text/plain", "text/latex", "text/markdown", "application/papermill.record/text/plain")


def pytest_addoption(parser):
    parser.addoption("--nbval-update", action="store_true", help="write the chapters' text outputs to tests/outputs")


def pytest_collect_file(file_path, parent):
    if parent.config.option.nbval and file_path.suffix == ".md" and is_notebook(file_path):
        return Chapter.from_parent(parent, path=file_path)


def is_notebook(path: Path) -> bool:
    """Whether a Markdown file has the header of a MyST notebook."""
    text = path.read_text(encoding="utf8")
    return text.startswith("---\n") and "format_name: myst" in text.split("\n---", 1)[0]


def text_only(outputs) -> list:
    """The comparable part of a cell's outputs, as a list of ``{kind: text}``."""
    kept = []
    for output in coalesce_streams(list(outputs)):
        if output["output_type"] == "stream":
            kept.append({output["name"]: output["text"]})
        elif "data" in output:
            kept.append({kind: output["data"][kind] for kind in TEXT if kind in output["data"]})
    return [entry for entry in kept if entry]


class Chapter(IPyNbFile):
    """A MyST chapter, one test for each code cell."""

    def collect(self):
        self.nb = jupytext.read(self.path, fmt="md:myst")
        self.reference = OUTPUTS / f"{self.path.stem}.json"
        stored = json.loads(self.reference.read_text(encoding="utf8")) if self.reference.exists() else []
        cells = [cell for cell in self.nb.cells if cell.cell_type == "code"]
        self.ran = []
        for number, cell in enumerate(cells):
            cell.execution_count = number + 1  # nbval compares only cells that have been run
            options = defaultdict(bool, find_metadata_tags(cell.metadata))
            options.setdefault("check", self.compare_outputs)
            checks = [tag for tag in cell.metadata.get("tags", []) if tag.startswith("check-")]
            item = ChapterCell.from_parent(
                self, name=" ".join([f"Cell {number}", *checks]), cell_num=number, cell=cell, options=options
            )
            item.stored = stored[number] if number < len(stored) else None
            item.last = number == len(cells) - 1
            yield item

    def setup(self):
        super().setup()
        # With history IPython honours a trailing semicolon, as it does in JupyterLab.
        self.kernel.execute_cell_input = lambda source, allow_stdin=None: self.kernel.kc.execute(
            source, allow_stdin=allow_stdin, stop_on_error=False, store_history=True
        )
        self.started = time.time()

    def teardown(self):
        super().teardown()
        cells = [cell for cell in self.nb.cells if cell.cell_type == "code"]
        if len(self.ran) != len(cells):
            return
        if self.config.option.nbval_update:
            OUTPUTS.mkdir(exist_ok=True)
            text = json.dumps([text_only(outputs) for outputs in self.ran], indent=1, ensure_ascii=False)
            self.reference.write_text(text + "\n", encoding="utf8")
        keep_for_book(self.path, self.ran, time.time() - self.started)


class ChapterCell(IPyNbCell):
    """A code cell; its text output must be the stored one."""

    def runtest(self):
        super().runtest()
        self.parent.ran.append(self.test_outputs)

    def compare_outputs(self, test, ref, skip_compare=None):
        if self.config.option.nbval_update:
            return True
        if self.stored is None:
            self.comparison_traceback = [f"no stored output of this cell in {self.parent.reference.name}: make outputs"]
            return False
        stored = [nbformat.from_dict(_as_output(entry)) for entry in self.stored]
        return super().compare_outputs([nbformat.from_dict(_as_output(e)) for e in text_only(test)], stored)


def _as_output(entry):
    stream = next((name for name in ("stdout", "stderr") if name in entry), None)
    if stream:
        return {"output_type": "stream", "name": stream, "text": entry[stream]}
    return {"output_type": "display_data", "data": entry, "metadata": {}}


def keep_for_book(path: Path, outputs: list, seconds: float) -> None:
    """Put an executed chapter into the book's cache, read by the reader that the book itself uses."""
    sys.path.insert(0, str(ROOT / "_ext"))
    import freshcache
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn
    from myst_nb.core.read import read_myst_markdown_notebook

    nb = read_myst_markdown_notebook(path.read_text(encoding="utf8"), add_source_map=True, path=str(path))
    cells = [cell for cell in nb.cells if cell.cell_type == "code"]
    if len(cells) != len(outputs):
        return
    for number, (cell, out) in enumerate(zip(cells, outputs)):
        cell.execution_count = number + 1
        cell.outputs = [nbformat.from_dict(dict(o)) for o in out]
    cache = get_cache(str(freshcache.folder()))
    bundle = CacheBundleIn(nb, str(path), data={"execution_seconds": round(seconds, 1)})
    cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
