"""Collect the chapters as notebooks: nbval runs every code cell and compares its text output with `tests/outputs`.

Chapters are MyST files without stored outputs. The text that each cell printed or displayed when it was last reviewed
lies in ``tests/outputs/<chapter>.json``; images and HTML are left out on both sides. ``--nbval-update`` rewrites these
files. A chapter whose cells all passed goes to the cache that the book is built from.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path
from queue import Empty

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "_ext"))

import environment

environment.fix()  # before anything imports NumPy

import freshcache
import jupytext
import nbformat
import pytest
from nbval.plugin import IPyNbCell, IPyNbFile, coalesce_streams, find_metadata_tags
from outputs import is_notebook, lacks_image, text_only

OUTPUTS = ROOT / "tests" / "outputs"
collect_ignore = [] if importlib.util.find_spec("numba") else ["eoslib/compiled.py"]  # the extra "fast"


def pytest_addoption(parser):
    parser.addoption("--nbval-update", action="store_true", help="write the chapters' text outputs to tests/outputs")


def pytest_configure(config):
    """Refuse an environment that is not the book's, before anything is collected."""
    try:
        environment.refuse_switches()
        if "nbval" in (hidden := os.environ.get("PYTEST_ADDOPTS", "")):
            raise environment.Foreign(
                f"PYTEST_ADDOPTS is {hidden!r}: whether stored outputs are compared or written anew is said on the command "
                "line alone (make test, make outputs); take it out"
            )
        if config.option.nbval:
            freshcache.at_start()
            environment.make_folder(freshcache.CACHE)
    except environment.Foreign as refused:
        raise pytest.UsageError(str(refused)) from None


def pytest_report_header(config):
    return environment.lines() if config.option.nbval else None


def pytest_collect_file(file_path, parent):
    if parent.config.option.nbval and file_path.suffix == ".md" and is_notebook(file_path.read_text(encoding="utf8")):
        return Chapter.from_parent(parent, path=file_path)


class Chapter(IPyNbFile):
    """A MyST chapter, one test for each code cell."""

    def collect(self):
        self.text = self.path.read_text(encoding="utf8")  # what is run and filed, whatever happens to the file
        self.nb = jupytext.reads(self.text, fmt="md:myst")
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
        with environment.of_kernels():
            super().setup()
        self.kernel.await_reply = self.await_reply
        # With history IPython honours a trailing semicolon, as it does in JupyterLab.
        self.kernel.execute_cell_input = lambda source, allow_stdin=None: self.kernel.kc.execute(
            source, allow_stdin=allow_stdin, stop_on_error=False, store_history=True
        )
        self.died, self.started, self.pages = None, time.time(), freshcache.pages()

    def teardown(self):
        super().teardown()
        if self.died is not None:
            self.kernel.kc.stop_channels()
        cells = [cell for cell in self.nb.cells if cell.cell_type == "code"]
        if len(self.ran) != len(cells):
            return
        if self.config.option.nbval_update:
            OUTPUTS.mkdir(exist_ok=True)
            text = json.dumps([text_only(outputs) for outputs in self.ran], indent=1, ensure_ascii=False)
            self.reference.write_text(text + "\n", encoding="utf8")
        if freshcache.unchanged():
            keep_for_book(self)

    def await_reply(self, msg_id, timeout=None):
        """Wait for the end of a cell, and notice at once when the kernel dies."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            try:
                message = self.kernel.get_message("shell", timeout=min(1.0, end - time.monotonic()))
            except Empty:
                if not self.kernel.is_alive():
                    raise KernelDied from None
            else:
                if message["parent_header"].get("msg_id") == msg_id:
                    return
        raise Empty

    def end_of_kernel(self):
        """How the kernel's process ended."""
        code = self.kernel.km.provisioner.process.poll()
        if code is None or code >= 0:
            return f"exit code {code}"
        hint = ", as when memory runs out" if -code == signal.SIGKILL else ""
        return f"signal {signal.Signals(-code).name}{hint}"


class KernelDied(Exception):
    """The process that ran the cell is gone."""


class ChapterCell(IPyNbCell):
    """A code cell; its text output must be the stored one."""

    def runtest(self):
        if self.parent.died is not None:
            self.raise_cell_error(f"Not run: the kernel died in cell {self.parent.died}")
        try:
            super().runtest()
        except KernelDied:
            self.parent.died = self.cell_num
            self.raise_cell_error(f"The kernel died ({self.parent.end_of_kernel()})")
        if lacks_image(self.cell, self.test_outputs):
            self.raise_cell_error("A figure without an image")
        self.parent.ran.append(self.test_outputs)

    def compare_outputs(self, test, ref, skip_compare=None):
        if self.config.option.nbval_update:
            return True
        if self.stored is None:
            self.comparison_traceback = [f"no stored output of this cell in {self.parent.reference.name}: make outputs"]
            return False
        test, stored = text_only(test), self.stored
        same = super().compare_outputs(*([nbformat.from_dict(_as_output(e)) for e in side] for side in (test, stored)))
        if not same:  # nbval names a kind of output that was not expected, and does not show it
            expected = {kind for entry in stored for kind in entry}
            more = [f"{kind}: {text}" for entry in test for kind, text in entry.items() if kind not in expected]
            self.comparison_traceback += more
        return same


def _as_output(entry):
    stream = next((name for name in ("stdout", "stderr") if name in entry), None)
    if stream:
        return {"output_type": "stream", "name": stream, "text": entry[stream]}
    return {"output_type": "display_data", "data": entry, "metadata": {}}


def keep_for_book(chapter: Chapter) -> None:
    """Put an executed chapter into the book's cache, read by the reader that the book itself uses."""
    from myst_nb.core.read import read_myst_markdown_notebook

    nb = read_myst_markdown_notebook(chapter.text, add_source_map=True, path=str(chapter.path))
    cells = [cell for cell in nb.cells if cell.cell_type == "code"]
    if len(cells) != len(chapter.ran):
        return
    for number, (cell, out) in enumerate(zip(cells, chapter.ran)):
        cell.execution_count = number + 1
        cell.outputs = [nbformat.from_dict(dict(o)) for o in coalesce_streams(list(out))]  # one box for one table
    freshcache.file(nb, chapter.path, time.time() - chapter.started, chapter.pages)
