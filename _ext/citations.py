"""The list of references has the labels that the text has: names and year, not letters and two digits."""

from __future__ import annotations

from collections import Counter

from pybtex.plugin import register_plugin
from pybtex.richtext import Text
from pybtex.style.formatting.unsrt import Style
from pybtex.style.labels import BaseLabelStyle


def names(people):
    """Cohen; Chen and Bruna; Cohen et al."""
    last = ["".join(Text.from_latex(part).render_as("text") for part in p.last_names) for p in people]
    return last[0] if len(last) == 1 else f"{last[0]} and {last[1]}" if len(last) == 2 else f"{last[0]} et al."


class NamesAndYear(BaseLabelStyle):
    """Labels; where two entries would share one, letters follow the year."""

    def format_labels(self, entries):
        labels = [f"{names(entry.persons['author'])}, {entry.fields['year']}" for entry in entries]
        often, seen = Counter(labels), Counter()
        for label in labels:
            seen[label] += 1
            yield label + (chr(96 + seen[label]) if often[label] > 1 else "")


class NamesYear(Style):
    default_label_style = NamesAndYear
    default_sorting_style = "author_year_title"


def setup(app):
    register_plugin("pybtex.style.formatting", "names_year", NamesYear)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
