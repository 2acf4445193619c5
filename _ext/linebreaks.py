"""Where a line must not break: between a formula and its punctuation, a number and its unit, a relation and its number.

A browser may break a line on either side of a formula, which to it is a picture, so that a comma could begin a line. Here a
formula and the signs that touch it become one unbroken piece, and the spaces that must hold become non-breaking ones.
"""

from __future__ import annotations

import re

from docutils import nodes

BEHIND = re.compile(r"(?:[,.;:!?)\]”’…]|-\w+)+")
BEFORE = re.compile(r"[(\[“‘]+$")
UNITS = r"(?:%|[kMG]B|[mµnp]?s|min|h)(?![\w/])"
NUMBER_AND_UNIT = re.compile(rf"(?<=\d) (?={UNITS})")
UNIT_FIRST = re.compile(rf" (?={UNITS})")
RELATION = re.compile(r"(?:[=<>]|\\(?:approx|simeq|[lg]e))\s*$")
VERBATIM = (nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.raw, nodes.comment)
NO_BREAK = "\u00a0"


def beside(node, step):
    """The neighbour on one side, out of the links and emphases of which the node is the end; and the outermost of these."""
    while True:
        parent = node.parent
        place = parent.index(node) + step
        if 0 <= place < len(parent):
            return parent[place], node
        if not isinstance(parent, nodes.Inline):
            return None, node
        node = parent


def hold_units(text):
    """Non-breaking spaces between numbers and units, also where the number is a node of its own before this one."""
    held = NUMBER_AND_UNIT.sub(NO_BREAK, text.astext())
    neighbour, _ = beside(text, -1)
    if neighbour is not None and neighbour.astext()[-1:].isdigit():
        held = re.sub(rf"^{UNIT_FIRST.pattern}", NO_BREAK, held)
    return held


def hold_relation(math):
    """A non-breaking space after a formula that ends with a relation, if a number follows."""
    space, _ = beside(math, 1)
    if not isinstance(space, nodes.Text) or not RELATION.search(math.astext()) or not space.startswith(" "):
        return
    number, _ = beside(space, 1)
    if space.strip() == "" and number is None:
        return
    first = space.strip() or number.astext()
    if first[:1].isdigit() or first[:1] in "-−":
        space.parent.replace(space, nodes.Text(NO_BREAK + space.lstrip(" ")))


def alone(node):
    """The outermost link or emphasis that holds this node and nothing else."""
    while isinstance(node.parent, nodes.Inline) and len(node.parent) == 1:
        node = node.parent
    return node


def hold_signs(math):
    """One unbroken piece of a formula and the signs that touch it; a sign behind a longer emphasis moves into it."""
    host, (after, end) = alone(math), beside(math, 1)
    before, start = beside(math, -1)
    behind = BEHIND.match(after.astext()) if isinstance(after, nodes.Text) else None
    if end is not host and not isinstance(end, nodes.strong | nodes.emphasis):
        behind = None
    opening = BEFORE.search(before.astext()) if isinstance(before, nodes.Text) and start is host else None
    if not behind and not opening:
        return
    piece = nodes.inline(classes=["unbroken"])
    host.parent.replace(host, piece)
    piece += host
    if opening:
        piece.insert(0, nodes.Text(opening[0]))
        before.parent.replace(before, nodes.Text(before.astext()[: opening.start()]))
    if behind:
        piece += nodes.Text(behind[0])
        after.parent.replace(after, nodes.Text(after.astext()[behind.end() :]))


def keep_together(tree):
    """All three, everywhere in a page but in code."""
    for math in list(tree.findall(nodes.math)):
        hold_relation(math)
    for text in list(tree.findall(nodes.Text)):
        parent = text.parent
        while parent is not None and not isinstance(parent, VERBATIM):
            parent = parent.parent
        if parent is None and (held := hold_units(text)) != text.astext():
            text.parent.replace(text, nodes.Text(held))
    for math in list(tree.findall(nodes.math)):
        hold_signs(math)


def setup(app):
    def resolved(app, tree, _):
        if app.builder.format == "html":
            keep_together(tree)

    app.connect("doctree-resolved", resolved, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
