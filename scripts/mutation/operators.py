"""Which mistakes are made: every place of a file where one operator of our list applies, as a change of its text.

Messages, logs, annotations, decorators and docstrings stay as they are: no test has to notice another wording.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

ORDER = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
COMPARISONS = ORDER | {ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}
SUMS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div}
ARITHMETIC = SUMS | {ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}
PAIRS = [
    *(("min", "max"), ("mean", "median"), ("any", "all"), ("amin", "amax"), ("argmin", "argmax"), ("floor", "ceil")),
    *(("minimum", "maximum"), ("zeros", "ones"), ("zeros_like", "ones_like"), ("sum", "mean"), ("sorted", "list")),
    *(("round", "int"), ("cos", "sin"), ("nanmean", "nanmedian"), ("nanmin", "nanmax"), ("std", "var")),
]
NAMES = {**{b: a for a, b in PAIRS if b not in ("mean", "list", "int")}, **dict(PAIRS)}
AXES = {"axis", "dim"}
SPOKEN = {"log", "warnings", "progress", "advance", "print"}  # calls that only say something


@dataclass(frozen=True)
class Mutant:
    """A change of one file: characters start:end of its text become `after`."""

    file: str
    line: int
    last_line: int
    operator: str
    before: str
    after: str
    start: int
    end: int
    source_line: str

    @property
    def key(self) -> str:
        return f"{self.file}:{self.line}:{self.start}:{self.operator}"

    def applied(self, text: str) -> str:
        return text[: self.start] + self.after + text[self.end :]


def mutants_of(file: str, text: str) -> list[Mutant]:
    """All that the operators find in the text of a file, in the order of their places."""
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))

    def place(number: int, byte: int) -> int:
        """ast counts columns in bytes of UTF-8."""
        line = lines[number - 1]
        return starts[number - 1] + len(line.encode()[:byte].decode())

    found: list[Mutant] = []
    for operator, node, changed in _changes(ast.parse(text)):
        start = place(node.lineno, node.col_offset)  # type: ignore[attr-defined]
        end = place(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]
        after = changed if isinstance(changed, str) else ast.unparse(changed)
        if isinstance(node, ast.expr) and not isinstance(node, ast.Constant | ast.Name | ast.Attribute | ast.Call):
            after = f"({after})"
        line = lines[node.lineno - 1].strip()  # type: ignore[attr-defined]
        mutant = Mutant(file, node.lineno, node.end_lineno, operator, text[start:end], after, start, end, line)  # type: ignore[attr-defined]
        if _parses(mutant.applied(text)):
            found.append(mutant)
    return sorted(found, key=lambda mutant: (mutant.start, mutant.end, mutant.operator))


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def _changes(tree: ast.AST) -> Iterator[tuple[str, ast.AST, ast.AST | str]]:
    for node in _nodes(tree):
        yield from _of_values(node)
        yield from _of_calls(node)
        yield from _of_statements(node)


def _nodes(node: ast.AST, in_function: bool = False) -> Iterator[ast.AST]:
    """The nodes in which a mistake counts."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "exc", "msg"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_silent(child):
                yield from _nodes(child)


def _is_silent(node: ast.AST) -> bool:
    """Whether nothing but words, types or checks of our own hang on this node."""
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.Expr):
        if isinstance(node.value, ast.Constant):
            return True
        if isinstance(node.value, ast.Call):
            return ast.unparse(node.value.func).split(".")[0] in SPOKEN
    return False


def _of_values(node: ast.AST) -> Iterator[tuple[str, ast.AST, ast.AST | str]]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARISONS:
        yield "comparison", node, _with(node, ops=[COMPARISONS[type(node.ops[0])]()])
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC and not _has_text(node):
        yield "arithmetic", node, _with(node, op=ARITHMETIC[type(node.op)]())
    if isinstance(node, ast.BoolOp):
        yield "and/or", node, _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not", node, node.operand
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        yield "sign", node, node.operand
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield "constant", node, repr(not node.value)
        elif isinstance(node.value, int):
            yield "constant", node, repr(node.value + 1)
        elif isinstance(node.value, float):
            yield "constant", node, repr(node.value * 2 or 1.0)
    if isinstance(node, ast.IfExp):
        yield "condition", node, _with(node, body=node.orelse, orelse=node.body)
    if isinstance(node, ast.comprehension) and node.ifs:
        for test in node.ifs:
            yield "filter", test, "True"


def _has_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(part, ast.JoinedStr) or isinstance(getattr(part, "value", None), str) for part in ast.walk(node)
    )


def _of_calls(node: ast.AST) -> Iterator[tuple[str, ast.AST, ast.AST | str]]:
    if not isinstance(node, ast.Call):
        return
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in NAMES and (isinstance(node.func, ast.Attribute) or name in ("min", "max", "any", "all", "round")):
        other = copy.deepcopy(node)
        if isinstance(other.func, ast.Attribute):
            other.func.attr = NAMES[name]
        else:
            other.func = ast.Name(NAMES[name])
        yield "function", node, other
    if name == "sorted":
        yield "function", node, _with(node, func=ast.Name("list"), keywords=[])
    if (
        len(node.args) >= 2
        and not any(isinstance(each, ast.Starred) for each in node.args)
        and name not in ("isinstance", "min", "max")
    ):
        yield "arguments swapped", node, _with(node, args=[node.args[1], node.args[0], *node.args[2:]])
    for number, keyword in enumerate(node.keywords):
        if keyword.arg in AXES or keyword.arg is None or name in ("Field", "zip", "MvlError"):
            continue
        rest = [each for place, each in enumerate(node.keywords) if place != number]
        yield f"without {keyword.arg}", node, _with(node, keywords=rest)


def _of_statements(node: ast.AST) -> Iterator[tuple[str, ast.AST, ast.AST | str]]:
    if isinstance(node, ast.If | ast.While) and not isinstance(node.test, ast.Compare):
        yield "condition", node.test, _with(ast.UnaryOp(ast.Not(), node.test))
    if isinstance(node, ast.AugAssign):
        yield "statement", node, "pass"
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "statement", node, "pass"
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute | ast.Subscript):
        yield "statement", node, "pass"
    if isinstance(node, ast.Return) and isinstance(node.value, ast.Call | ast.Name):
        yield "return", node, "return None"


def _with(node: ast.AST, **changes: object) -> ast.AST:
    other = copy.copy(node)
    for name, value in changes.items():
        setattr(other, name, value)
    return ast.fix_missing_locations(other)
