"""Keep executed chapters only while the code they ran is unchanged.

jupyter-cache knows a chapter by its cells alone; a change of the library, of a recorded run or of a pinned version would
leave old outputs on the page. So the cache lives in a folder whose name is a hash of all of these. The test run
(``conftest.py``) fills the same folder, so that the book need not run its chapters a second time.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def folder() -> Path:
    """Folder of the cache that belongs to the present state of library, recorded runs, pins, Python and scale."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {os.environ.get('EOSLIB_SCALE', 'book')}".encode())
    files = [*ROOT.glob("eoslib/**/*.py"), *ROOT.glob("recorded/*"), ROOT / "constraints.txt"]
    files += [*ROOT.glob("benchmarks/*.py"), *ROOT.glob("benchmarks/results/recorded.json")]
    for path in sorted(p for p in files if p.is_file()):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return ROOT / "_build" / ".jupyter_cache" / digest.hexdigest()[:16]


def _set(app, config):
    config.nb_execution_cache_path = str(folder())


def setup(app):
    app.connect("config-inited", _set, priority=1)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
