"""Mutants of one module: each changes one place of its syntax tree.

What is said in an error message, an annotation or a docstring is left as it is. A place may have several mutants.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from dataclasses import dataclass

ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
ORDER = {
    ast.Lt: [ast.LtE, ast.Gt],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.Lt],
    ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
}
PAIRS = [
    ("min", "max"),
    ("minimum", "maximum"),
    ("argmin", "argmax"),
    ("any", "all"),
    ("floor", "ceil"),
    ("sin", "cos"),
    ("sum", "prod"),
]
NAMES = {a: b for pair in PAIRS for a, b in (pair, pair[::-1])}
SKIPPED = {"annotation", "returns", "decorator_list", "keywords_of_class", "bases"}


@dataclass(frozen=True)
class Mutant:
    """One change of a module."""

    function: str  # "f", "Class.f" or "" for a statement of the module itself
    statement: str  # the statement as `ast.unparse` writes it, of a compound one its first line
    change: str  # "before -> after"
    number: int  # of those with the same three, in order
    lines: range  # of the statement
    node: ast.stmt  # the function definition, or the statement of the module, after the change

    @property
    def key(self) -> tuple:
        return self.function, self.statement, self.change, self.number


def mutants(source: str) -> list[Mutant]:
    """All mutants of a module.

    >>> [m.change for m in mutants("def f(x):\\n    return x + 1\\n")]
    ['x + 1 -> x - 1', '1 -> 2', '1 -> 0']
    """
    tree, found, seen = ast.parse(source), [], Counter()
    for owner, name, unit in _units(tree):
        whole = copy.deepcopy(unit)
        for statement, before, after, place in _changes(whole):
            text = _first_line(statement)
            change = f"{_show(before)} -> {_show(after)}"
            place.put(after)
            node = copy.deepcopy(whole)
            place.put(before)
            key = (f"{owner}{name}", text, change)
            seen[key] += 1
            found.append(Mutant(*key, seen[key], _lines(statement), ast.fix_missing_locations(node)))
    return found


def functions(source: str):
    """Name and definition of each function and method, unchanged."""
    for owner, name, unit in _units(ast.parse(source)):
        if name:
            yield f"{owner}{name}", unit


def _units(tree):
    """Functions, methods and assignments of the module, each with the name of its class."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield "", node.name, node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    yield f"{node.name}.", inner.name, inner
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            yield "", "", node


@dataclass
class _Place:
    parent: ast.AST
    field: str
    index: int | None

    def put(self, node):
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


def _changes(unit):
    """Statement, node before, node after, and where it stands."""
    yield from _walk(unit, unit, None)


def _walk(node, statement, place):
    if isinstance(node, ast.stmt):
        statement = node
        if isinstance(node, ast.Raise):
            return
        for after in _of_statement(node):
            yield statement, node, after, place
    elif isinstance(node, ast.JoinedStr):
        return
    elif place is not None:
        for after in _of_expression(node, place):
            yield statement, node, after, place
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            return
    for field, child in ast.iter_fields(node):
        if field in SKIPPED or (field == "body" and _documented(node) and not child[1:]):
            continue
        if isinstance(child, list):
            skip = 1 if field == "body" and _documented(node) else 0
            for index, item in enumerate(child[skip:], start=skip):
                if isinstance(item, ast.AST):
                    yield from _walk(item, statement, _Place(node, field, index))
        elif isinstance(child, ast.AST):
            yield from _walk(child, statement, _Place(node, field, None))


def _documented(node):
    return isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node, clean=False) is not None


def _of_statement(node):
    if isinstance(node, ast.AugAssign):
        if other := ARITHMETIC.get(type(node.op)):
            yield _with(node, op=other())
        yield ast.Pass()
    elif isinstance(node, ast.Break):
        yield ast.Continue()
    elif isinstance(node, ast.Continue):
        yield ast.Pass()
    elif isinstance(node, ast.Expr) and isinstance(node.value, (ast.Call, ast.Yield)):
        if isinstance(node.value, ast.Call):
            yield ast.Pass()
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], (ast.Subscript, ast.Attribute)):
        yield ast.Pass()
    elif isinstance(node, (ast.If, ast.While)):
        if isinstance(node, ast.If):
            yield _with(node, test=ast.Constant(True))
        yield _with(node, test=ast.Constant(False))


def _of_expression(node, place):
    if isinstance(node, ast.BinOp):
        if other := ARITHMETIC.get(type(node.op)):
            yield _with(node, op=other())
        if isinstance(node.op, ast.MatMult):
            yield _with(node, left=node.right, right=node.left)
    elif isinstance(node, ast.UnaryOp):
        constant = isinstance(node.operand, ast.Constant)
        if isinstance(node.op, ast.USub) and constant:
            yield from (ast.Constant(-value) for value in _numbers(node.operand.value))
        if isinstance(node.op, (ast.USub, ast.Not, ast.Invert)):
            yield node.operand
    elif isinstance(node, ast.Compare):
        for index, op in enumerate(node.ops):
            for other in ORDER[type(op)]:
                yield _with(node, ops=[*node.ops[:index], other(), *node.ops[index + 1 :]])
    elif isinstance(node, ast.BoolOp):
        yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
    elif isinstance(node, ast.Constant):
        yield from (ast.Constant(value) for value in _numbers(node.value))
        if isinstance(node.value, str) and node.value:
            yield ast.Constant(f"XX{node.value}XX")
    elif isinstance(node, ast.Call):
        for index, keyword in enumerate(node.keywords):
            if keyword.arg is not None:
                yield _with(node, keywords=node.keywords[:index] + node.keywords[index + 1 :])
    elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
        word = node.id if isinstance(node, ast.Name) else node.attr
        if word in NAMES and place.field == "func":
            yield _with(node, **{"id" if isinstance(node, ast.Name) else "attr": NAMES[word]})
        if word in ("T", "mT") and isinstance(node, ast.Attribute):
            yield node.value
    elif isinstance(node, ast.Slice):
        for side in ("lower", "upper", "step"):
            if getattr(node, side) is not None:
                yield _with(node, **{side: None})
    elif isinstance(node, ast.comprehension):
        for index in range(len(node.ifs)):
            yield _with(node, ifs=node.ifs[:index] + node.ifs[index + 1 :])


def _numbers(value):
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, value - 1)
    elif isinstance(value, float) and abs(value) > 1e6:
        yield from (2 * value, value / 2)
    elif isinstance(value, float):
        yield 1.0 if abs(value) < 1e-3 else value + 1  # a tolerance is lost, a factor is another
        if abs(value) >= 1e-3 or value == 0:
            yield value - 1 if value != 1 else 0.5


def _with(node, **changes):
    new = copy.copy(node)
    for field, value in changes.items():
        setattr(new, field, value)
    return new


def _lines(node):
    last = node.end_lineno  # a default is used wherever the function runs
    if isinstance(node, (ast.If, ast.While, ast.For, ast.With, ast.Try)) and node.body:
        last = max(node.lineno, node.body[0].lineno - 1)
    return range(node.lineno, last + 1)


def _first_line(node):
    text = ast.unparse(node)
    if isinstance(node, ast.FunctionDef):
        return next(line for line in text.splitlines() if line.startswith("def "))
    return text.splitlines()[0] if hasattr(node, "body") else text


def _show(node):
    if isinstance(node, ast.comprehension):
        return ast.unparse(node).strip()
    return (
        _first_line(node) if isinstance(node, ast.stmt) else ast.unparse(ast.fix_missing_locations(copy.deepcopy(node)))
    )
