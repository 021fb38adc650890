"""scripts/mutate.py in a tiny package: what a test reaches is killed, what none looks at survives, and it goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from mutation.operators import mutants_of
from mutation.results import table

SCRIPTS = Path(__file__).parents[1] / "scripts"
SOURCE = '''"""Two functions."""


def looked_at(a: int, b: int) -> int:
    return a + b


def unwatched(a: int, b: int) -> int:
    return a * b
'''
TEST = """from mvl_auto.sums import looked_at, unwatched


def test_sums():
    assert looked_at(2, 3) == 5
    assert unwatched(2, 1) == 2  # a division would give the same
"""
RUN = """import sys
from pathlib import Path
sys.path.insert(0, {scripts!r})
import mutate
from mutation import overlay
from mutation.modules import Group
overlay.HEAVY[:] = ["pytest", "coverage"]
group = Group("sums", ("mvl_auto/sums.py",), ("tests/test_sums.py",))
mutate.main(["-o", {out!r}, "--number", "50"], Path({package!r}), [group])
"""


def after(text: str, operator: str) -> set[str]:
    return {mutant.after for mutant in mutants_of("a.py", text) if mutant.operator == operator}


def test_each_operator_makes_its_mistake_and_leaves_words_alone():
    assert after("x = a < b", "comparison") == {"(a <= b)"}
    assert after("x = a / b + 1", "arithmetic") == {"(a / b - 1)", "(a * b)"}
    assert after("x = [1, 0.5, True]", "constant") == {"2", "1.0", "False"}
    assert after("x = np.mean(y, axis=0)", "function") == {"np.median(y, axis=0)"}
    assert after("x = np.mean(y, axis=0)", "constant") == {"1"}
    assert after("x = f(a, b, keep=c)", "arguments swapped") == {"f(b, a, keep=c)"}
    assert after("x = f(a, keep=c)", "without keep") == {"f(a)"}
    assert after("def f():\n    g()\n    return h()", "statement") == {"pass"}
    assert after("def f():\n    g()\n    return h()", "return") == {"return None"}
    assert not mutants_of("a.py", 'def f(x: int = None) -> "a < b":\n    """1 < 2"""\n    log.info("%d", 1 + 2)\n')


def test_a_mutant_changes_its_place_and_nothing_else():
    text = 'name = "größe"; x = 1  # ü\ny = a + b\n'
    changed = {mutant.applied(text) for mutant in mutants_of("a.py", text)}
    assert changed == {text.replace("x = 1", "x = 2"), text.replace("a + b", "(a - b)")}


def test_what_a_test_notices_is_killed_and_a_second_run_has_nothing_to_do(tmp_path):
    package, out = tmp_path / "package", tmp_path / "out"
    for name, text in {"mvl_auto/__init__.py": "", "mvl_auto/sums.py": SOURCE, "tests/test_sums.py": TEST}.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    script = RUN.format(scripts=str(SCRIPTS), out=str(out), package=str(package))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=120
        )
        lines = [json.loads(line) for line in (out / "mutants.jsonl").read_text().splitlines()]
        assert {line["after"]: line["outcome"] for line in lines} == {"(a - b)": "killed", "(a / b)": "survived"}
        assert len(lines) == 2
    assert (package / "mvl_auto/sums.py").read_text() == SOURCE
    assert "| sums | 2 | 1 | 1 | 0 |" in (out / "mutants.md").read_text()
    known = [{"file": "mvl_auto/sums.py", "line": "return a * b", "after": "(a / b)", "reason": "as it happens"}]
    assert "| sums | 2 | 1 | 0 | 1 |" in table(lines, known)
