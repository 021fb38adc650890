"""No file that a user was given may run code: the source loads no pickles and evaluates no text (docs/security.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from source_files import source_files

UNPICKLE = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "jsonpickle"}
LOADERS = {"torch", "joblib", "yaml", "np", "numpy"}  # whose load() may run code
LOADS = {"load", "load_all", "full_load", "unsafe_load"}
EVALUATE = {"eval", "exec", "compile", "__import__"}
READERS = {"read_pickle", "torch_load", "load_pickle"}


def what_may_run_code(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name.split(".")[0] in UNPICKLE)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {each.name for each in node.names}
            if node.module.split(".")[0] in UNPICKLE or (node.module in LOADERS and names & LOADS):
                yield node.module
        elif isinstance(node, ast.Call):
            if _is_loader(node) or (isinstance(node.func, ast.Name) and node.func.id in EVALUATE):
                yield ast.unparse(node)
            if any(each.arg in ("trust_remote_code", "weights_only") for each in node.keywords):
                yield ast.unparse(node)


def _is_loader(call: ast.Call) -> bool:
    """torch.load, numpy.load but for allow_pickle=False, pandas.read_pickle and their kind."""
    if not isinstance(call.func, ast.Attribute):
        return False
    if call.func.attr in READERS:
        return True
    without = any(each.arg == "allow_pickle" and ast.unparse(each.value) == "False" for each in call.keywords)
    return call.func.attr in LOADS and ast.unparse(call.func.value) in LOADERS and not without


@pytest.mark.parametrize("name", sorted(source_files()))
def test_no_file_of_others_is_run_as_code(name):
    assert list(what_may_run_code(ast.parse(source_files()[name].read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(file)",
        "from torch import load",
        "np.load(file)",
        "np.load(file, allow_pickle=True)",
        "numpy.load(file)",
        "joblib.load(file)",
        "yaml.load(text)",
        "pandas.read_pickle(file)",
        "eval(text)",
        "AutoConfig.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_what_runs_code_is_found(line):
    assert len(list(what_may_run_code(ast.parse(line)))) == 1


@pytest.mark.parametrize("line", ["np.load(file, allow_pickle=False)", "json.load(file)", "network.eval()"])
def test_what_runs_none_is_left_alone(line):
    assert list(what_may_run_code(ast.parse(line))) == []
