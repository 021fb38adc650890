"""What the documents say of the code, compared with the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import write_docs

from mvl_auto.version import __version__

REPOSITORY = Path(__file__).parents[1]


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
