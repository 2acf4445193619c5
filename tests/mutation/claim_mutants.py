"""Mutants of a claim: an asserted formula with one number, sign, index or bound changed.

What is changed is what is claimed: numbers and signs inside a formula (an arithmetic expression that holds a name),
indices, the number beside an equality, the bound of an inequality (moved so that the assertion says more). What is left
alone is how it is looked at: tolerances, seeds, ranges, grids, keyword arguments, prints and figures.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import re
from dataclasses import dataclass, field

DEPTHS = {"L", "depth"}
# their positional numbers are part of what is said; the first argument is a formula
SAYING = {"subs", "diff", "coeff", "prove", "isclose", "allclose", "limit", "array_equal"}
LOOKING = set(
    "range default_rng linspace arange geomspace logspace zeros ones full round Symbol symbols standard_normal uniform"
    " normal reshape print glue enumerate seed integers Fraction len N evalf eye download initialise astype".split()
)
SMALL = 1e-2  # a number below this beside a formula is a tolerance or a step of a difference quotient
FEW = 3  # a cell with no more mutants gets those of `Finder.plainer` as well
DEVIATION = re.compile(r"err|off|resid|miss|diff|drift|deviat|gap|worst|apart|distance|tol|eps|round|slack|left")
# parameters of an experiment, which hold no claim
SETTING = re.compile(
    r"^((\w+_)?(rates?|start|begin|push|grid|scales?)|learning_rates?|q_values?|eta_value|steps?|draw)$"
)
CLAIMED = re.compile(r"^(expected|claimed|printed|known|D$)")  # tables of numbers that are themselves the claim
SHOWING = re.compile(r"^(print|glue|display|plt|plot|axis|axes|figure|series|panel)\b")


@dataclass
class Mutant:
    """One change of one node: `slot` is (parent, field, index or None)."""

    slot: tuple
    new: ast.AST
    before: str
    after: str
    key: str = ""

    def source(self, tree: ast.Module):
        """The tree compiled with this change in it; the tree itself comes back unchanged."""
        old = get(self.slot)
        put(self.slot, self.new)
        try:
            changed = copy.deepcopy(tree)
        finally:
            put(self.slot, old)
        return compile(ast.fix_missing_locations(changed), "<mutant>", "exec")


def get(slot):
    parent, name, index = slot
    value = getattr(parent, name)
    return value if index is None else value[index]


def put(slot, node):
    parent, name, index = slot
    if index is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[index] = node


def slots(node):
    """The places below a node that hold expressions or statements."""
    for name, value in ast.iter_fields(node):
        if isinstance(value, ast.AST):
            yield (node, name, None)
        elif isinstance(value, list):
            yield from ((node, name, k) for k, entry in enumerate(value) if isinstance(entry, ast.AST))


def number(node):
    """The value of a literal number, with its sign; None for anything else."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = number(node.operand)
        return None if value is None else -value
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value
    return None


def literal(value):
    return ast.UnaryOp(ast.USub(), ast.Constant(-value)) if value < 0 else ast.Constant(value)


def moved(value):
    """A wrong number: the next integer, or ten per cent off."""
    return literal(value + 1 if isinstance(value, int) else float(f"{1.1 * value:.12g}"))


def called(node):
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def names(node, context=ast.Load):
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, context)}


def is_tolerance(big, small):
    """Whether `small < big` bounds an error rather than states an inequality."""
    if number(small) is not None:
        return False
    values = [abs(n.value) for n in ast.walk(big) if isinstance(n, ast.Constant) and type(n.value) is float]
    if any(0 < value <= SMALL for value in values) or any(DEVIATION.search(name) for name in names(big)):
        return True
    if any(DEVIATION.search(name) for name in names(small)) and number(big) is not None:
        return True
    if isinstance(small, ast.Call | ast.BinOp):
        for node in ast.walk(small):
            if isinstance(node, ast.Call) and called(node) in ("abs", "norm", "fabs"):
                return any(isinstance(n, ast.BinOp) and isinstance(n.op, ast.Sub) for n in ast.walk(node))
    return False


@dataclass
class Finder:
    """Walks statements and gathers the mutants of their formulas."""

    found: list = field(default_factory=list)

    def propose(self, slot, new, shown=None):
        old = get(slot)
        shown = shown or slot
        before = ast.unparse(get(shown))
        put(slot, new)
        after = ast.unparse(get(shown))
        put(slot, old)
        if before != after:
            self.found.append(Mutant(slot, new, before, after))

    def children(self, node):
        for slot in slots(node):
            self.expression(slot)

    def expression(self, slot):
        node = get(slot)
        if isinstance(node, ast.BinOp):
            self.arithmetic(slot)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            if number(node) is None:
                self.propose(slot, node.operand)
            self.children(node)
        elif isinstance(node, ast.Subscript):
            self.subscript(slot)
        elif isinstance(node, ast.Call):
            self.call(slot)
        elif not isinstance(node, ast.JoinedStr | ast.keyword):
            self.children(node)

    def arithmetic(self, slot):
        node = get(slot)
        left, right = number(node.left), number(node.right)
        if isinstance(node.op, ast.Add | ast.Sub):
            for side in ("left", "right"):
                value = number(getattr(node, side))
                if value is not None and (isinstance(value, int) or abs(value) >= SMALL):
                    self.propose((node, side, None), moved(value), slot)
            if left is None and right is None and not isinstance(node.left, ast.List | ast.Tuple | ast.JoinedStr):
                self.propose((node, "op", None), ast.Sub() if isinstance(node.op, ast.Add) else ast.Add(), slot)
        elif isinstance(node.left, ast.List | ast.Tuple) or isinstance(node.right, ast.List | ast.Tuple):
            pass  # repeats a list
        elif isinstance(node.op, ast.Mult | ast.Div | ast.Pow | ast.FloorDiv | ast.Mod):
            for side, value in (("left", left), ("right", right)):
                child = getattr(node, side)
                if value is not None and not (isinstance(value, float) and abs(value) < SMALL):
                    self.propose((node, side, None), moved(value), slot)
                elif isinstance(child, ast.Name) and child.id in DEPTHS:
                    self.propose((node, side, None), ast.BinOp(child, ast.Add(), ast.Constant(1)), slot)
            if isinstance(node.op, ast.Div) and left is None and right is None:
                self.propose(slot, ast.BinOp(node.right, ast.Div(), node.left))
        self.children(node)

    def subscript(self, slot):
        node = get(slot)
        value = number(node.slice)
        if isinstance(value, int) and isinstance(node.ctx, ast.Load):
            other = 0 if value in (-1, 1) else value + (1 if value > -1 else -1)
            self.propose((node, "slice", None), literal(other), slot)
        self.expression((node, "value", None))
        if not any(isinstance(n, ast.Slice) for n in ast.walk(node.slice)):
            self.expression((node, "slice", None))

    def call(self, slot):
        node = get(slot)
        name = called(node)
        if name in LOOKING:
            return
        for k, argument in enumerate(node.args):
            value = number(argument)
            method = isinstance(node.func, ast.Attribute) and not name.startswith(("is", "all", "array", "prove"))
            if name in SAYING and value is not None and (method or k == 1):
                self.propose((node, "args", k), moved(value), slot)
            else:
                self.expression((node, "args", k))
        self.expression((node, "func", None))
        for keyword in node.keywords:
            if keyword.arg == "assuming":
                self.expression((keyword, "value", None))

    def assertion(self, slot, positive=True):
        node = get(slot)
        if isinstance(node, ast.BoolOp):
            for k in range(len(node.values)):
                self.assertion((node, "values", k), positive)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            self.assertion((node, "operand", None), not positive)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
            self.assertion((node, "left", None), positive)
            self.assertion((node, "right", None), positive)
        elif isinstance(node, ast.Compare):
            self.comparison(slot, positive)
        elif isinstance(node, ast.Call) and called(node) in ("all", "any"):
            inner = (node, "args", 0) if node.args else (node.func, "value", None)
            if isinstance(get(inner), ast.GeneratorExp | ast.ListComp):
                self.assertion((get(inner), "elt", None), positive)
                self.children_of_generators(get(inner))
            else:
                self.assertion(inner, positive)
        else:
            self.expression(slot)

    def children_of_generators(self, node):
        for generator in node.generators:
            self.expression((generator, "iter", None))

    def comparison(self, slot, positive):
        node = get(slot)
        if len(node.ops) > 1:
            self.window(slot)
            return
        op, left, right = node.ops[0], (node, "left", None), (node, "comparators", 0)
        if isinstance(op, ast.Eq) and positive:
            for side in (left, right):
                self.equal_to(side, slot)
        elif isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE):
            small, big = (left, right) if isinstance(op, ast.Lt | ast.LtE) else (right, left)
            if not positive:
                small, big = big, small
            if is_tolerance(get(big), get(small)):
                self.expression(small)
            else:
                self.tighter(small, big, slot)
        else:
            self.expression(left)
            self.expression(right)

    def equal_to(self, side, shown):
        node = get(side)
        value = number(node)
        if value is not None:
            self.propose(side, moved(value), shown)
        elif isinstance(node, ast.Tuple | ast.List) and node.elts and number(node.elts[0]) is not None:
            self.propose((node, "elts", 0), moved(number(node.elts[0])), shown)
        else:
            self.expression(side)

    def tighter(self, small, big, shown):
        """`small < big` with a literal bound moved by two (ten where it is an order of size), else with half the room."""
        for side, grows in ((small, True), (big, False)):
            value = number(get(side))
            if value:
                factor = 2 if 0.1 <= abs(value) <= 50 else 10
                up = grows == (value > 0)
                new = value * factor if up else value / factor
                self.propose(side, literal(int(new) if new == int(new) else float(f"{new:.12g}")), shown)
                self.expression(big if grows else small)
                return
            if value == 0:
                self.expression(big if grows else small)
                return
        size = ast.Call(ast.Name("abs", ast.Load()), [copy.deepcopy(get(big))], [])
        half = ast.BinOp(size, ast.Div(), ast.Constant(2))
        self.propose(big, ast.BinOp(get(big), ast.Sub(), half), shown)

    def window(self, slot):
        """`a < x < b`: the whole window doubled, so that it no longer holds a number it held narrowly."""
        node = get(slot)
        ends = (node, "left", None), (node, "comparators", len(node.comparators) - 1)
        values = [number(get(end)) for end in ends]
        if None not in values and min(values) * max(values) > 0:
            new = copy.copy(node)
            new.comparators = [*node.comparators[:-1], literal(2 * values[1])]
            new.left = literal(2 * values[0])
            self.propose(slot, new)
        elif isinstance(node.ops[-1], ast.Lt | ast.LtE):
            middle = (node, "comparators", len(node.comparators) - 2)
            if is_tolerance(get(ends[1]), get(middle)):
                self.expression(middle)
            else:
                self.tighter(middle, ends[1], slot)
        for k in range(len(node.comparators) - 1):
            self.expression((node, "comparators", k))

    def table(self, node):
        """First and last number of each row."""
        for row in (n for n in ast.walk(node) if isinstance(n, ast.Tuple | ast.List)):
            for k in {0, len(row.elts) - 1} if row.elts else ():
                if number(row.elts[k]) is not None:
                    self.propose((row, "elts", k), moved(number(row.elts[k])), (Show(row), "node", None))

    def statement(self, node, needed):
        if isinstance(node, ast.Assert):
            self.assertion((node, "test", None))
        elif isinstance(node, ast.FunctionDef | ast.If | ast.While | ast.With | ast.Try):
            for inner in node.body + getattr(node, "orelse", []):
                self.statement(inner, needed | names(node) if isinstance(node, ast.FunctionDef) else needed)
        elif isinstance(node, ast.For):
            self.expression((node, "iter", None))
            for inner in node.body:
                self.statement(inner, needed)
        elif isinstance(node, ast.Return):
            self.children(node)
        elif isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign) and stored(node) & needed:
            if all(SETTING.match(name) for name in stored(node)):
                return
            if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add | ast.Sub):
                other = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
                self.propose((node, "op", None), other, (Show(node), "node", None))
            if all(CLAIMED.match(name) for name in stored(node)):
                self.table(node.value)
            self.expression((node, "value", None))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and names(node) & needed:
            self.expression((node, "value", None))


    def plainer(self, body):
        """Matrix products in the other order, products without a factor, transposes left out, bounds of comparisons that are kept."""
        for node in (n for statement in body for n in ast.walk(statement)):
            for slot in slots(node):
                child = get(slot)
                if isinstance(child, ast.BinOp) and isinstance(child.op, ast.Mult | ast.MatMult):
                    if number(child.left) is None and number(child.right) is None:
                        if isinstance(child.op, ast.MatMult):
                            self.propose(slot, ast.BinOp(child.right, child.op, child.left))
                        self.propose(slot, child.left)
                elif isinstance(child, ast.Attribute) and child.attr in ("T", "mT"):
                    self.propose(slot, child.value)
                elif isinstance(child, ast.Compare) and isinstance(node, ast.Assign) and number(child.comparators[0]):
                    self.comparison(slot, positive=True)


@dataclass
class Show:
    """A statement dressed as a slot, so that it can be shown whole."""

    node: ast.AST


IN_PLACE = {"append", "extend", "update", "add", "insert", "pop", "sort", "remove", "setdefault", "clear"}


def stored(node):
    """Names that a statement binds or changes in place."""
    bound = names(node, ast.Store)
    bound |= {n.name for n in ast.walk(node) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    return bound | changed(node)


def changed(node):
    """Names whose object a statement changes in place."""
    found = set()
    for n in ast.walk(node):
        targets = n.targets if isinstance(n, ast.Assign) else [n.target] if isinstance(n, ast.AugAssign) else []
        for target in targets:
            if isinstance(n, ast.AugAssign) or isinstance(target, ast.Subscript | ast.Attribute):
                root = target
                while isinstance(root, ast.Subscript | ast.Attribute):
                    root = root.value
                found |= {root.id} if isinstance(root, ast.Name) else set()
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr in IN_PLACE:
            root = n.func.value
            while isinstance(root, ast.Subscript | ast.Attribute):
                root = root.value
            found |= {root.id} if isinstance(root, ast.Name) else set()
    return found


def free(node, bound=frozenset()):
    """Names that a statement, or a list of them, reads before it binds them itself."""
    if isinstance(node, list):
        found, bound = set(), set(bound)
        for statement in node:
            found |= free(statement, bound)
            bound |= binds(statement)
        return found
    if isinstance(node, ast.FunctionDef | ast.Lambda):
        arguments = {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)}
        body = node.body if isinstance(node.body, list) else [node.body]
        local = set().union(*(binds(n) for n in body)) if isinstance(node, ast.FunctionDef) else set()
        found = set().union(*(free(n) for n in [*body, *node.args.defaults])) - arguments - local
        return found - set(bound)
    if isinstance(node, ast.For):
        inner = set(bound) | names(node.target, ast.Store)
        return free(node.iter, bound) | free(node.body + node.orelse, inner)
    if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        targets = set().union(*(names(g.target, ast.Store) for g in node.generators))
        found = set().union(*(free(child) for child in ast.iter_child_nodes(node)))
        return found - targets - set(bound)
    if isinstance(node, ast.If | ast.While | ast.With | ast.Try):
        heads = [n for n in ast.iter_child_nodes(node) if not isinstance(n, ast.stmt)]
        inner = set(bound).union(*(names(n, ast.Store) for n in heads))
        return set().union(*(free(n, bound) for n in heads)) | free(node.body + getattr(node, "orelse", []), inner)
    own = {node.id} if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) else set()
    if isinstance(node, ast.AugAssign):
        own |= names(node.target, ast.Store)
    return (own | set().union(*(free(child) for child in ast.iter_child_nodes(node)))) - set(bound)


def binds(node):
    """Names that a statement binds in its own scope."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {a.asname or a.name.split(".")[0] for a in node.names}
    if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp | ast.Lambda):
        return {n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr)}
    own = {node.id} if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load) else set()
    return own.union(*(binds(child) for child in ast.iter_child_nodes(node)))


def shows(node):
    return isinstance(node, ast.Expr) and bool(SHOWING.match(ast.unparse(node)))


def feeding(tree, wanted):
    """Names of the cell that its assertions, or later cells through `wanted`, depend on."""
    needed = set(wanted)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            needed |= names(node)
    simple = [n for n in ast.walk(tree) if isinstance(n, ast.stmt) and not isinstance(n, ast.Assert) and not shows(n)]
    while True:
        more = set().union(*(names(n) for n in simple if stored(n) & needed), set())
        if more <= needed:
            return needed
        needed |= more


def mutants(tree, wanted=(), *, limit=None):
    """The mutants of a cell, named by what is changed; of more than `limit`, those whose names hash lowest."""
    finder, needed = Finder(), feeding(tree, wanted)
    for node in tree.body:
        if not shows(node) and not (isinstance(node, ast.FunctionDef) and node.name not in needed):
            finder.statement(node, needed)
    if len(finder.found) <= FEW:
        finder.plainer([node for node in tree.body if not shows(node)])
    seen = {}
    for mutant in finder.found:
        name = f"{mutant.before} -> {mutant.after}"
        seen[name] = seen.get(name, 0) + 1
        mutant.key = name if seen[name] == 1 else f"{name} ({seen[name]})"
    found = finder.found
    if limit and len(found) > limit:
        ranked = sorted(found, key=lambda mutant: hashlib.md5(mutant.key.encode()).hexdigest())[:limit]
        found = [mutant for mutant in found if mutant in ranked]
    return found
