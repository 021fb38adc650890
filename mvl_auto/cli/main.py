"""python -m mvl_auto: any command by its name, for where the scripts are not on the path."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

NOT_COMMANDS = {
    "__init__",
    "common",
    "main",
    "nnunet_words",
    "streams",
    "submitting",
    "training_options",
    "values",
    "waiting",
}


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in NOT_COMMANDS)
    name = words[0].removeprefix("mvl_") if words else ""
    if name in names:
        code: int = importlib.import_module(f"mvl_auto.cli.{name}").main(words[1:])
        return code
    if not words or words[0] in ("-h", "--help"):
        print(f"python -m mvl_auto COMMAND ...\n\ncommands: {', '.join(names)}")
        return 0
    sys.stderr.write(f"mvl_auto: there is no command '{words[0]}' (there are: {', '.join(names)}).\n")
    return 2
