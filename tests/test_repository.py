"""Links to source, edits and issues: on every page once `_config.yml` names a repository, and nowhere before."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


def build(folder, url):
    """A book of one page with this book's configuration, extensions and styles; its HTML."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf8"))
    config["repository"]["url"] = url
    (folder / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf8")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: chapters/index\n", encoding="utf8")
    (folder / "chapters").mkdir()
    (folder / "chapters" / "index.md").write_text("# One page\n\nOf text.\n", encoding="utf8")
    shutil.copy(ROOT / "chapters" / "references.bib", folder / "chapters")
    for name in ("_ext", "_static", "vendor"):
        (folder / name).symlink_to(ROOT / name)
    command = [
        sys.executable,
        "-c",
        "from jupyter_book.cli.main import main; main()",
        "build",
        "-W",
        "--keep-going",
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONWARNINGS": ""})
    assert done.returncode == 0, done.stderr[-2000:]
    return (folder / "_build" / "html" / "chapters" / "index.html").read_text(encoding="utf8")


def test_no_repository_is_named_and_the_pages_link_to_none(tmp_path):
    assert yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf8"))["repository"]["url"] == ""
    html = build(tmp_path, "")
    assert not any(word in html for word in ("source-repository", "source-edit", "source-issues", "source-file"))
    assert "executablebooks/jupyter-book" not in html  # what Jupyter Book would name by itself


@pytest.mark.parametrize("host", ["github.com", "gitlab.com"])
def test_a_repository_gives_every_page_its_links(tmp_path, host):
    base = f"https://{host}/someone/some-book"
    html = build(tmp_path, base)
    dash = "-/" if host == "gitlab.com" else ""
    for link in (
        f"{base}/{dash}edit/main/chapters/index.md",
        f"{base}/{dash}blob/main/chapters/index.md?plain=1",
        f"{base}/{dash}issues/new?",
    ):
        assert f'href="{link}' in html, link
