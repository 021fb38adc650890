"""Write what the docs say of the code from the code itself:

docs/cli.md             the help of every command, as the commands print it
docs/architecture.md    between its two markers, the first sentence of every file

python scripts/write_docs.py
"""

from __future__ import annotations

import ast
import importlib
import os
import re
from importlib.metadata import entry_points
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
COLUMNS = "100"
COMMANDS = ["mvl_plan_and_preprocess", "mvl_train", "mvl_predict", "mvl_evaluate"]  # as data flows; then by name
FOLDERS = [  # the shared part, then as data flows, then what lies on top
    "mvl_auto",
    "mvl_auto/plans",
    "mvl_auto/images",
    "mvl_auto/images/dicom",
    "mvl_auto/datasets",
    "mvl_auto/jobs",
    "planners",
    "planners/fingerprint",
    "planners/doctor",
    "planners/cost",
    "preprocessing",
    "mvl_auto/llm",
    "mvl_auto/llm/formats",
    "mvl_auto/llm/sources",
    "mvl_auto/network",
    "mvl_auto/runs",
    "mvl_auto/training",
    "inference",
    "evaluation",
    "mvl_auto/report",
    "mvl_auto/ablation",
    "mvl_auto/api",
    "mvl_auto/cli",
    "mvl_auto/demo",
]
BEGIN, END = "<!-- the map: written by scripts/write_docs.py -->\n", "<!-- end of the map -->\n"
CLI_HEADER = """\
# The commands

Written by `scripts/write_docs.py` from the commands' own `--help`; a test fails when it has drifted.

Every command that works on a root folder says in its first line which one it uses. Results go to stdout; the log,
progress and errors go to stderr. Exit codes: 0 done; 1 some cases failed, the others are done; 2 nothing was done
because of the input, which one line names; 130 stopped by Ctrl-C.
"""


def main() -> None:
    for path, text in documents().items():
        path.write_text(text, encoding="utf-8")


def documents() -> dict[Path, str]:
    """File -> what it should say."""
    return {
        REPOSITORY / "docs" / "cli.md": commands(),
        REPOSITORY / "docs" / "architecture.md": architecture(
            (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
        ),
    }


def commands() -> str:
    os.environ |= {"COLUMNS": COLUMNS, "NO_COLOR": "1"}
    ours = [point for point in entry_points(group="console_scripts") if point.name.startswith("mvl_")]
    ours.sort(key=lambda point: (COMMANDS.index(point.name) if point.name in COMMANDS else len(COMMANDS), point.name))
    return CLI_HEADER + "".join(f"\n## {point.name}\n\n```text\n{help_text(point.module)}```\n" for point in ours)


def help_text(module: str) -> str:
    from mvl_auto.cli.common import build_parser

    return build_parser(importlib.import_module(module).COMMAND).format_help()


def architecture(text: str) -> str:
    """The text with a new map between its markers."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + "".join(map(table_of_folder, FOLDERS)) + "\n" + END + after


def table_of_folder(folder: str) -> str:
    files = sorted((REPOSITORY / folder).glob("*.py"), key=lambda file: (file.name != "__init__.py", file.name))
    rows = [f"| `{file.name}` | {sentence} |" for file in files if (sentence := first_sentence(file))]
    return "\n".join([f"\n### {folder}/\n", "| file | what it is for |", "|---|---|", *rows, ""])


def first_sentence(file: Path) -> str:
    """Of a module's docstring, on one line; empty without one."""
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return re.split(r"(?<=[.!?]) (?=[A-Z`])", paragraph)[0].rstrip(":").replace("|", r"\|")


if __name__ == "__main__":
    main()
