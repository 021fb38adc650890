"""Which tests reach which lines, and how long each takes: measured once for each test file.

A line that a shared fixture runs counts for every test that uses the fixture; a line that runs at import counts for
every test that runs anything of its file.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mutation.overlay import pytest_in_a_fork

MOST_SECONDS = 600.0  # of one test file


class Watcher:
    """A plugin of pytest that tells coverage whose lines come now."""

    def __init__(self, overlay: Path, to: Path) -> None:
        self.overlay, self.to = overlay, to
        self.seconds: dict[str, float] = defaultdict(float)
        self.failed: set[str] = set()
        self.fixtures: dict[str, list[str]] = {}
        self.now = ""

    def pytest_configure(self) -> None:
        import coverage

        self.coverage = coverage.Coverage(
            data_file=None, include=[f"{self.overlay}/*"], omit=[f"{self.overlay}/tests/*"], config_file=False
        )
        self.coverage.start()

    def switch(self, context: str) -> None:
        self.now = context
        self.coverage.switch_context(context)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self.fixtures[item.nodeid] = list(getattr(item, "fixturenames", ()))
        self.switch(item.nodeid)
        yield
        self.switch("")

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Any:
        before = self.now
        if fixturedef.scope != "function":
            self.switch(f"fixture {fixturedef.argname}")
        yield
        self.switch(before)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed or report.skipped:
            self.failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        self.coverage.stop()
        data = self.coverage.get_data()
        lines: dict[str, dict[str, list[int]]] = defaultdict(dict)  # test -> file -> lines
        for file in data.measured_files():
            name = str(Path(file).resolve().relative_to(self.overlay.resolve()))
            for line, contexts in data.contexts_by_lineno(file).items():
                for context in contexts:
                    for test in self._tests_of(context):
                        lines[test].setdefault(name, []).append(line)
        tests = {
            test: {"seconds": self.seconds[test], "lines": lines.get(test, {})}
            for test in self.fixtures
            if test not in self.failed
        }
        self.to.write_text(json.dumps(tests), encoding="utf-8")

    def _tests_of(self, context: str) -> list[str]:
        if context.startswith("fixture "):
            return [test for test, names in self.fixtures.items() if context.removeprefix("fixture ") in names]
        return [context] if context else []


@dataclass(frozen=True)
class Test:
    """One test: its time in seconds, and the lines that it runs, by file."""

    name: str
    seconds: float
    lines: dict[str, frozenset[int]]


def measure(overlay: Path, files: Sequence[str], folder: Path) -> list[Test]:
    """The tests of these files; measured before where `folder` has the figures."""
    tests = []
    for file in files:
        version = hashlib.sha256((overlay / file).read_bytes()).hexdigest()[:12]  # a changed file is measured anew
        store = folder / f"{file.replace('/', '.')}.{version}.json"
        if not store.exists():
            pytest_in_a_fork([file], folder / "said.txt", MOST_SECONDS, [Watcher(overlay, store)])
        if not store.exists():
            raise RuntimeError(f"{file} could not be measured: {(folder / 'said.txt').read_text()[-2000:]}")
        for name, found in json.loads(store.read_text(encoding="utf-8")).items():
            lines = {path: frozenset(each) for path, each in found["lines"].items()}
            tests.append(Test(name, found["seconds"], lines))
    return tests


def tests_for(tests: Sequence[Test], file: str, lines: range, most_seconds: float) -> list[Test]:
    """The tests that run one of the lines, the quickest first, up to so many seconds together.

    Where no test runs them they run at import: then those that run anything of the file.
    """
    mine = [test for test in tests if not test.lines.get(file, frozenset()).isdisjoint(lines)]
    mine = mine or [test for test in tests if file in test.lines] or list(tests)
    chosen, spent = [], 0.0
    for test in sorted(mine, key=lambda test: test.seconds):
        if chosen and spent + test.seconds > most_seconds:
            break
        chosen.append(test)
        spent += test.seconds
    return chosen
