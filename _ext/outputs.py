"""The comparable part of a chapter's outputs: its text, and whether a figure was drawn."""

from __future__ import annotations

TEXT = ("text/plain", "text/latex", "text/markdown", "application/papermill.record/text/plain")


def is_notebook(text: str) -> bool:
    """Whether a Markdown page has the header of a MyST notebook."""
    return text.startswith("---\n") and "format_name: myst" in text.split("\n---", 1)[0]


def text_only(outputs) -> list:
    """The text of a cell's outputs, as a list of ``{kind: text}``; the parts of one stream are joined."""
    kept, streams = [], {}
    for output in outputs:
        if output["output_type"] == "stream":
            name = output["name"]
            if name not in streams:
                kept.append(streams.setdefault(name, {name: ""}))
            streams[name][name] += output["text"]
        elif "data" in output:
            kept.append({kind: output["data"][kind] for kind in TEXT if kind in output["data"]})
    return [entry for entry in kept if entry]


def by_kind(entries) -> dict:
    """Texts of each kind in their order; the order between kinds depends on when a stream is flushed."""
    found: dict = {}
    for entry in entries:
        for kind, text in entry.items():
            found.setdefault(kind, []).append(text)
    return found


def lacks_image(cell, outputs) -> bool:
    """Whether a cell that is a figure of the book drew none."""
    is_figure = "figure" in cell.metadata.get("mystnb", {})
    return is_figure and not any(kind.startswith("image/") for o in outputs for kind in o.get("data", ()))


def differences(cells, stored) -> list[str]:
    """What executed cells show and the stored outputs do not, a line for each."""
    if len(cells) != len(stored):
        return [f"{len(cells)} cells, {len(stored)} stored outputs"]
    found = []
    for number, (cell, entries) in enumerate(zip(cells, stored)):
        shown, expected = by_kind(text_only(cell.outputs)), by_kind(entries)
        for kind in sorted(shown.keys() | expected.keys()):
            if shown.get(kind) != expected.get(kind):
                found.append(f"cell {number}: {kind} is {shown.get(kind)}, stored is {expected.get(kind)}")
        if lacks_image(cell, cell.outputs):
            found.append(f"cell {number}: a figure without an image")
    return found
