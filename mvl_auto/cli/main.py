"""python -m mvl_auto: any command by its name, for where the scripts are not on the path."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

PREFIX = "mvl_"
HERE = "mvl_auto.cli."


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    scripts = [script for script in entry_points(group="console_scripts") if script.value.startswith(HERE)]
    commands = {script.name.removeprefix(PREFIX): script for script in sorted(scripts)}
    name = words[0].removeprefix(PREFIX) if words else ""
    if name in commands:
        code: int = commands[name].load()(words[1:])
        return code
    if not words or words[0] in ("-h", "--help"):
        print(f"python -m mvl_auto COMMAND ...\n\ncommands: {', '.join(commands)}")
        return 0
    sys.stderr.write(f"mvl_auto: there is no command '{words[0]}' (there are: {', '.join(commands)}).\n")
    return 2
