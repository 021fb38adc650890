"""Rules for the source: no circle of imports, at most 8 parameters, at most 400 lines a file."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

import pytest
from source_files import source_files

MOST_PARAMETERS = 8
MOST_LINES = 400
PUBLIC_API = "api"  # its functions have as many keywords as a command has options

MODULES = {f"mvl_auto.{name}".rstrip("."): path for name, path in source_files().items()}
# Exceptions until they are mended: modules with functions of many parameters, and long ones.


PUBLIC = sorted(name for name in MODULES if name.startswith(f"mvl_auto.{PUBLIC_API}."))


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those that only type checkers execute."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in child.orelse:
                yield from statements(other)
        else:
            yield from statements(child)


def modules_imported(tree: ast.AST) -> set[str]:
    """The modules of the package that a file imports, at its top or inside a function.

    `from mvl_auto.plans import Plan` imports mvl_auto.plans, `from mvl_auto.llm import auto` imports mvl_auto.llm.auto.
    """
    found = set()
    for node in statements(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in below.values()}
    return found & MODULES.keys()


def find_circle(imports: Mapping[str, set[str]]) -> list[str]:
    """Modules of which each imports the next, and the last the first; empty where there is no circle."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Names of the parameters that a caller gives; * and ** count as one each."""
    given = function.args
    named = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    packed = [argument.arg for argument in (given.vararg, given.kwarg) if argument is not None]
    return [name for name in named if name not in ("self", "cls")] + packed


def functions_of_many_parameters(tree: ast.AST) -> list[str]:
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [f"{each.name} ({n})" for each in functions if (n := len(parameters(each))) > MOST_PARAMETERS]


def test_no_modules_import_each_other_in_a_circle():
    """Imports inside functions count too: they hide a circle, they do not open it."""
    trees = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in MODULES.items()}
    assert find_circle({module: modules_imported(tree) for module, tree in trees.items()}) == []


def test_circles_are_found():
    hidden = ast.parse("def f():\n    from mvl_auto.llm import card\n    import mvl_auto.errors, numpy")
    assert modules_imported(hidden) == {"mvl_auto.llm.card", "mvl_auto.errors"}
    assert modules_imported(ast.parse("from mvl_auto.plans import Plan")) == {"mvl_auto.plans"}
    typed = "if TYPE_CHECKING:\n    import mvl_auto.errors\nelse:\n    import mvl_auto.api"
    assert modules_imported(ast.parse(typed)) == {"mvl_auto.api"}
    circle = find_circle({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()})
    assert set(circle) == {"a", "b", "c"}
    assert ("b", "c") in pairwise(circle)
    assert find_circle({"a": {"b"}, "b": {"b"}}) == ["b", "b"]
    assert find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {*PUBLIC}))
def test_no_function_takes_many_parameters(module):
    found = functions_of_many_parameters(ast.parse(MODULES[module].read_text(encoding="utf-8")))
    assert not found, f"{module} has functions of more than {MOST_PARAMETERS} parameters: {', '.join(found)}"


@pytest.mark.parametrize("module", PUBLIC)
def test_the_parameters_of_the_public_api_are_keywords(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        if len(parameters(function)) > MOST_PARAMETERS:
            assert len(function.args.args) <= 3, f"{function.name}: make its options keywords"


def test_parameters_are_counted():
    method = "class A:\n    def f(self, a, b=1, /, c=2, *d, e, **g): pass"
    (function,) = [node for node in ast.walk(ast.parse(method)) if isinstance(node, ast.FunctionDef)]
    assert parameters(function) == ["a", "b", "c", "e", "d", "g"]
    many = ", ".join(f"p{n}" for n in range(MOST_PARAMETERS + 1))
    assert functions_of_many_parameters(ast.parse(f"def f({many}): pass")) == ["f (9)"]
    assert functions_of_many_parameters(ast.parse(f"def f({many.removesuffix(', p8')}): pass")) == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_file_is_long(module):
    lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{MODULES[module]} has {lines} lines: divide it by subject"
