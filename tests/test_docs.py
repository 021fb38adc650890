"""What the documents say of the code, compared with the code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import write_docs

from mvl_auto.version import __version__

REPOSITORY = Path(__file__).parents[1]
NUMBER = re.compile(r"\d+(?:\.\d+)?")


@pytest.mark.parametrize("name", ["cli.md", "architecture.md"])
def test_what_is_written_from_the_code_has_not_drifted(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")  # whoever runs the tests, and however wide the terminal
    monkeypatch.setenv("NO_COLOR", "")
    path = REPOSITORY / "docs" / name
    assert path.read_text(encoding="utf-8") == write_docs.documents()[path], "run python scripts/write_docs.py"


def test_every_file_is_on_the_map():
    """A file is there by the first sentence of its docstring."""
    chart = write_docs.architecture(f"{write_docs.BEGIN}{write_docs.END}")
    files = [file for folder in write_docs.FOLDERS for file in (REPOSITORY / folder).rglob("*.py")]
    missing = [str(file.relative_to(REPOSITORY)) for file in files if not on_the_map(file, chart)]
    assert not missing


def on_the_map(file: Path, chart: str) -> bool:
    section = chart.split(f"\n### {file.parent.relative_to(REPOSITORY)}/\n")[1].split("\n### ")[0]
    return f"| `{file.name}` |" in section


def test_links_between_the_documents_lead_somewhere():
    documents = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")]
    broken = [
        f"{document.name}: {target}"
        for document in documents
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", document.read_text(encoding="utf-8"))
        if not (document.parent / target).exists()
    ]
    assert not broken


def test_the_version_is_the_same_everywhere():
    citation = (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {__version__}\n" in citation
    assert f"\n## [{__version__}]\n" in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")


def table(document: Path, heading: str) -> list[list[str]]:
    """The cells of each row of the first table below a heading."""
    below = f"\n{document.read_text(encoding='utf-8')}".split(f"\n{heading}\n")[1]
    rows = re.search(r"^\|.*?\n\|[-| ]+\|\n((?:\|.*\n)+)", below, re.MULTILINE)
    assert rows, f"{document.name}: no table below {heading}"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in rows[1].splitlines()]


def test_every_number_of_the_readme_is_in_the_file_that_its_benchmark_wrote():
    """To the last digit that is shown. The tables of docs/evidence.md are held to its records by a test of its own."""
    wrong = []
    for _, figure, source in table(REPOSITORY / "README.md", "## Where it stands"):
        written = re.search(r"\]\((docs/evidence\.md|docs/figures/[a-z_]+\.json)\)", source)
        assert written, f"{source}: names no file with figures"
        text = (REPOSITORY / written[1]).read_text(encoding="utf-8")
        if written[1].endswith(".md"):
            wrong += [number for number in NUMBER.findall(figure) if not re.search(rf"(?<![\d.]){number}(?!\d)", text)]
            continue
        kept = json.loads(text)
        script = kept["command"].split()[1]
        assert script in source
        assert (REPOSITORY / script).is_file()
        values = [value for value in kept["figures"].values() if isinstance(value, int | float)]
        for number in NUMBER.findall(figure):
            half = 0.5 * 10.0 ** -len(number.partition(".")[2])
            if not any(abs(value - float(number)) <= half * 1.0001 for value in values):
                wrong.append(f"{number} is not in {written[1]}")
    assert not wrong


def test_every_experiment_names_what_measured_it():
    unnamed = []
    for _, what, *_ in table(REPOSITORY / "docs/experiments.md", "# Experiments"):
        named = re.findall(r"`(?:[^`]* )?((?:benchmarks|scripts|tests)/[a-z_/]+\.py|mvl_[a-z_]+)", what)
        there = [name for name in named if name.startswith("mvl_") or (REPOSITORY / name).is_file()]
        if not there:
            unnamed.append(what[:80])
    assert not unnamed
