"""How a chapter reads on the page: checks folded under one line, figures and their numbers as files.

The sources stay plain notebooks. A cell tagged ``check-…`` whose first line is a comment is shown as "checked: comment"
and opens on a click, unless it is tagged ``argument``. CSV files behind figures are written beside the pages instead of
inside them, and each figure links to its own file.
"""

from __future__ import annotations

import base64
import importlib
import inspect
import json
import os
import platform
import re
import shutil
import time
from importlib.metadata import version
from pathlib import Path

import bokeh
from docutils import nodes
from docutils.statemachine import StringList
from myst_nb.sphinx_ import HideCodeCellNode, NbMetadataCollector
from sphinx.addnodes import desc_parameterlist
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator

SCRIPT = re.compile(r"&lt;script data-bokeh=&quot;([\w-]+)&quot;&gt;.*?&lt;/script&gt;", re.S)
CSV = re.compile(r'href="data:text/csv;base64,([A-Za-z0-9+/=]+)"')
STILL = re.compile(r'src="data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)" data-file="([\w-]+\.svg)"')


class FoldChecks(SphinxPostTransform):
    """Give check cells their one line, before myst-nb hides what is to be hidden."""

    default_priority = 198
    formats = ("html",)

    def run(self, **_):
        for cell in self.document.findall(nodes.container):
            if cell.get("nb_element") != "cell_code" or not cell.children:
                continue
            tags = cell.get("cell_metadata", {}).get("tags", [])
            source = cell.children[0].astext().lstrip()
            if any(t.startswith("check-") for t in tags) and "argument" not in tags and source.startswith("#"):
                line = source.split("\n", 1)[0].lstrip("# ").strip()
                cell["hide_mode"] = "input"
                cell["prompt_show"] = cell["prompt_hide"] = f"checked: {line}"
                cell["classes"].append("folded-check")
            elif cell.get("hide_mode") == "input":
                cell["prompt_show"] = cell["prompt_hide"] = "code of this figure" if is_figure(cell) else "code"


def is_figure(cell):
    return any(isinstance(n, (nodes.figure, nodes.image)) for n in cell.findall())


def visit_fold(self, node):
    self.body.append(f'<details class="admonition hide {" ".join(node["classes"])}">\n')
    self.body.append(f'<summary class="fold">{self.encode(node["prompt_show"])}</summary>\n')


def depart_fold(self, node):
    self.body.append("</details>\n")


def link_figures(app, doctree, docname):
    """A figure opens as a file of its own, sharp at any size."""
    for figure in doctree.findall(nodes.figure):
        for image in list(figure.findall(nodes.image)):
            if not isinstance(image.parent, nodes.reference):
                name = Path(app.builder.images.get(image["uri"], image["uri"])).name
                link = nodes.reference(
                    "", "", refuri=f"{'../' * docname.count('/')}_images/{name}", internal=True, classes=["figure-link"]
                )
                image.replace_self(link)
                link += image


POWER = re.compile(r"(\d(?:\.\d+)?)e([+-])0*(\d+)")
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def as_written(number):
    """A number from a cell as a sentence has it: "3.0·10⁻⁴" for "3.0e-04", and a minus for a hyphen."""
    number = POWER.sub(lambda m: f"{m[1]}·10{(m[2].strip('+') + m[3]).translate(RAISED)}", number)
    return re.sub(r"(?<![\w.])-(?=\d)", "−", number)


def write_numbers(app, doctree, docname):
    """Numbers that cells put into sentences."""
    for pasted in doctree.findall(nodes.inline):
        if "pasted-text" in pasted["classes"]:
            for text in list(pasted.findall(nodes.Text)):
                text.parent.replace(text, nodes.Text(as_written(text.astext())))


def offer_notebook(app, doctree, docname):
    """At the end of a chapter, a link to its executed notebook."""
    if any(n.get("nb_element") == "cell_code" for n in doctree.findall(nodes.container)):
        link = nodes.reference(
            "", "this chapter as an executed notebook", refuri=f"../notebooks/{Path(docname).name}.ipynb"
        )
        sections = [n for n in doctree.children if isinstance(n, nodes.section)]
        sections[-1] += nodes.paragraph("", "Download ", link, nodes.Text("."), classes=["figure-data"])


class run_times(nodes.General, nodes.Element):
    """A place for the table of run times, which is known once every page has been read."""


class RunTimes(SphinxDirective):
    """``{run-times}``: how long each chapter took, in the order of the contents."""

    def run(self):
        # the mark by which myst-nb has the page written again after a chapter was executed
        NbMetadataCollector.set_doc_data(self.env, self.env.docname, "has_exec_table", True)
        return [run_times()]


class FillRunTimes(SphinxPostTransform):
    """A row for each executed chapter: its title and its seconds."""

    default_priority = 8

    def run(self, **_):
        pages = NbMetadataCollector.get_doc_data(self.env).items()
        data = {name: page["exec_data"] for name, page in pages if page.get("exec_data")}
        for place in list(self.document.findall(run_times)):
            rows = [row(nodes.Text("chapter"), nodes.Text("seconds"))]
            for name in in_order(self.env, self.env.config.root_doc):
                if name in data:
                    uri = self.app.builder.get_relative_uri(self.env.docname, name)
                    link = nodes.reference("", self.env.titles[name].astext(), refuri=uri, internal=True)
                    took = data[name]["runtime"]
                    seconds = f"{took:.1f}" if data[name]["succeeded"] and took is not None else "did not finish"
                    rows.append(row(link, nodes.Text(seconds)))
            group = nodes.tgroup("", *(nodes.colspec(colwidth=w) for w in (85, 15)), cols=2)
            group += [nodes.thead("", rows[0]), nodes.tbody("", *rows[1:])]
            place.replace_self(nodes.table("", group, classes=["colwidths-auto"]))


def row(*cells):
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))


def in_order(env, name):
    """A page and those below it, in the order of the contents."""
    yield name
    for child in env.toctree_includes.get(name, ()):
        yield from in_order(env, child)


class BuildFacts(SphinxDirective):
    """``{build-facts}``: versions, machine, threads and date of the build."""

    def run(self):
        packages = (
            "numpy",
            "scipy",
            "sympy",
            "mpmath",
            "matplotlib",
            "torch",
            "jupyter-book",
            "Sphinx",
            "myst-nb",
            "nbval",
        )
        threads = os.environ.get("OMP_NUM_THREADS", "not set")
        facts = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)]
        facts += [
            f"{platform.system()} on {platform.machine()}",
            f"{os.cpu_count()} processors, OMP_NUM_THREADS {threads}",
        ]
        facts += [time.strftime("built on %Y-%m-%d", time.gmtime())]
        return [nodes.bullet_list("", *(nodes.list_item("", nodes.paragraph("", fact)) for fact in facts))]


class MutationScores(SphinxDirective):
    """``{mutation-scores} library``, ``{mutation-scores} chapters``: what `make mutants` and `make chapter-mutants` last wrote."""

    required_arguments = 1

    def run(self):
        name = {"library": "scores.json", "chapters": "chapter_scores.json"}[self.arguments[0]]
        path = Path(self.env.app.srcdir) / "tests" / "mutation" / name
        self.env.note_dependency(str(path))
        head, rows = getattr(self, self.arguments[0])(json.loads(path.read_text(encoding="utf8")))
        lines = [head, ["---"] + ["---:"] * (len(head) - 2) + ["---"], *rows]
        box = nodes.Element()
        text = StringList([f"| {' | '.join(line)} |" for line in lines], source=str(path))
        self.state.nested_parse(text, self.content_offset, box)
        for table in box.findall(nodes.table):
            table["classes"].append("scores")
        return box.children

    def library(self, scores):
        rows = []
        for name, row in scores.items():
            page = Path(self.env.app.srcdir) / "chapters" / "api" / f"{name}.md"
            part = f" (1 in {row['one_in']})" if row["one_in"] > 1 else ""
            line = [f"[`{name}`](api/{name}.md)" if page.exists() else f"`{name}`", f"{row['mutants']:,}{part}"]
            line += [f"{row['killed'] + row['stopped']:,}", str(row["equivalent"]), str(row["taste"])]
            line += [str(row["survived"]), f"{100 * row['score']:.1f} %"]
            line += [f"{100 * row['before']['score']:.0f} %" if "before" in row else "–", row["date"]]
            rows.append(line)
        head = ["module", "mutants", "killed", "the same", "taste", "survived", "score", "before", "date"]
        return head, rows

    def chapters(self, scores):
        columns = ["check cells", "mutants", "killed", "by error", "survived", "explained", "date"]
        return ["chapter", *columns], [
            [f"[{name.replace('_', ' ')}]({name}.md)", *(str(row[c]) for c in columns)] for name, row in scores.items()
        ]


def parts_as_files(app, exception):
    """Move CSV files out of the pages into ``numbers``, BokehJS, the same in all, into ``bokeh``, and stills into ``_images``."""
    if exception or app.builder.format != "html":
        return
    folder = Path(app.outdir) / "numbers"
    executed = Path(app.outdir).parent / "jupyter_execute" / "chapters"
    for path in executed.glob("*.ipynb"):
        (Path(app.outdir) / "notebooks").mkdir(exist_ok=True)
        shutil.copy(path, Path(app.outdir) / "notebooks")
    for path in Path(app.outdir).glob("chapters/**/*.html"):
        html = path.read_text(encoding="utf8")

        def file(match, html=html):
            name = re.search(r'download="([\w-]+\.csv)"[^>]*$', html[: match.start()])[1]
            folder.mkdir(exist_ok=True)
            (folder / name).write_bytes(base64.b64decode(match[1]))
            return f'href="../numbers/{name}"'

        def picture(match):
            (Path(app.outdir) / "_images").mkdir(exist_ok=True)
            (Path(app.outdir) / "_images" / match[2]).write_bytes(base64.b64decode(match[1]))
            return f'src="../_images/{match[2]}"'

        changed = STILL.sub(picture, CSV.sub(file, html))
        for name in {match[1] for match in SCRIPT.finditer(changed)}:
            (Path(app.outdir) / "bokeh").mkdir(exist_ok=True)
            shutil.copy(
                Path(bokeh.__file__).parent / "server" / "static" / "js" / f"{name}.min.js", Path(app.outdir) / "bokeh"
            )
        changed = SCRIPT.sub(r"&lt;script src=&quot;../bokeh/\1.min.js&quot;&gt;&lt;/script&gt;", changed)
        if changed != html:
            path.write_text(changed, encoding="utf8")


class ModuleTable(SphinxDirective):
    """``{module-table} eoslib.network``: its public functions and classes, a line each, with links."""

    required_arguments = 1

    def run(self):
        module = importlib.import_module(self.arguments[0])
        lines = []
        for name, thing in vars(module).items():
            public = not name.startswith("_") and getattr(thing, "__module__", None) == module.__name__
            if public and (inspect.isfunction(thing) or inspect.isclass(thing)):
                first = (inspect.getdoc(thing) or "").split("\n", 1)[0]
                lines += [f"* - {{py:obj}}`{name} <{module.__name__}.{name}>`", f"  - {markdown(first)}"]
        lines = [
            ":::{list-table}",
            ":header-rows: 1",
            ":class: module-table",
            "",
            "* - name",
            "  - what it does",
            *lines,
            ":::",
        ]
        box = nodes.Element()
        self.state.nested_parse(StringList(lines, source=__file__), self.content_offset, box)
        return box.children


def markdown(line):
    """One line of reStructuredText as Markdown."""
    return re.sub(r"``([^`]+)``", r"`\1`", re.sub(r":math:`([^`]+)`", r"$\1$", line))


def visit_parameters(self, node):
    node["begins"] = len(self.body)
    HTML5Translator.visit_desc_parameterlist(self, node)


def depart_parameters(self, node):
    """Parameters on lines of their own as spans: Sphinx writes a list of definitions without a term, inside a term."""
    HTML5Translator.depart_desc_parameterlist(self, node)
    if node.get("multi_line_parameter_list"):
        html = "".join(self.body[node["begins"] :])
        html = re.sub(r"<dd\b", '<span class="sig-line"', html).replace("</dd>", "</span>")
        self.body[node["begins"] :] = [re.sub(r"\s*<dl\b", '<span class="sig-lines"', html).replace("</dl>", "</span>")]


def offer_repository(app, config):
    """Links to a page's source, to edit it and to report a problem, once `_config.yml` names a repository; none before."""
    options = config.html_theme_options
    known = bool(options.get("repository_url"))
    for button in ("repository", "source", "edit_page", "issues"):
        options[f"use_{button}_button"] = known


def order_search(app, config):
    """Sphinx puts the file that should score results into the script of the search page."""
    config.html_search_scorer = str(Path(__file__).with_name("search.js"))


def setup(app):
    app.connect("config-inited", order_search)
    app.connect("config-inited", offer_repository, priority=400)  # before the theme reads its options
    app.add_directive("module-table", ModuleTable)
    app.add_node(HideCodeCellNode, override=True, html=(visit_fold, depart_fold))
    app.add_node(desc_parameterlist, override=True, html=(visit_parameters, depart_parameters))
    app.add_post_transform(FoldChecks)
    app.add_directive("build-facts", BuildFacts)
    app.add_node(run_times)
    app.add_directive("run-times", RunTimes)
    app.add_post_transform(FillRunTimes)
    app.add_directive("mutation-scores", MutationScores)
    app.connect("doctree-resolved", link_figures)
    app.connect("doctree-resolved", offer_notebook)
    app.connect("doctree-resolved", write_numbers)
    app.connect("build-finished", parts_as_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
