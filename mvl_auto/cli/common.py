"""What all commands share: the shape of `--help`, the root, the log on the screen, errors in one line.

A command is a `Command`: its words, its arguments, and a function from the parsed arguments to an exit
code. It imports nothing heavy at module level, so that `--help` is there at once:

    COMMAND = Command("mvl_train", "Train one or more folds.", "mvl_train 4 fold0", add_arguments, run)

    def main(argv: Sequence[str] | None = None) -> int:
        return run_command(COMMAND, argv)

    def run(args: argparse.Namespace) -> int:
        from mvl_auto import api                      # torch is imported here, not for --help
        api.train(args.dataset, root=args.root, progress=args.progress)
        return 0

`args.root` is the root folder, found; `args.progress` draws bars, or lines where there is no terminal.
Exit codes: 0 done, 1 part of it failed, 2 nothing was done because of the input, 130 stopped by Ctrl-C,
143 by SIGTERM.
Results go to stdout, with the root in the first line; the log, bars and errors go to stderr.
"""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import re
import shlex
import signal
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from mvl_auto.bars import bars
from mvl_auto.cli.nnunet_words import WORDS, Refused, translate
from mvl_auto.cli.streams import discard_stdout, is_full, prepare_streams
from mvl_auto.cli.waiting import choose_waiting
from mvl_auto.errors import MvlError, PartlyFailed, Stopped
from mvl_auto.exhausted import check_room_for_libraries, exhaustion
from mvl_auto.logs import LOGGER
from mvl_auto.paths import DEFAULT_ROOT, ROOT_VARIABLE, check_working_folder, find_root
from mvl_auto.printable import printable
from mvl_auto.progress import ONLY_IN_FILE, noting_stages, silent
from mvl_auto.ranks import SINGLE, rank_here
from mvl_auto.version import __version__

DONE = 0
PARTLY_FAILED = 1
BAD_INPUT = 2
SIGNALLED = 128  # + the signal's number, as shells do
INTERRUPTED = SIGNALLED + signal.SIGINT
PIPE_CLOSED = 141  # 128 + SIGPIPE: `mvl_block list | head`

EXAMPLE_WIDTH = 78  # characters of a line of the examples, without the backslash behind it
SINGLE_DASH = re.compile(r"-[A-Za-z_][^-]*.")  # more than one letter behind it


@dataclass(frozen=True)
class Command:
    """name: as typed. summary: what it does, sentences. example: command lines, one a line.

    add_arguments: adds the command's own arguments to the parser. run: does it, returns the exit code.
    uses_root: whether it works on a root folder; then it has --root and prints the root first.
    trains: whether it computes for long in threads that wait for each other. joint: whether it works with its other
    processes where torchrun has started several. uses_torch: always, not only at times.
    """

    name: str
    summary: str
    example: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    uses_root: bool = True
    trains: bool = False
    joint: bool = False
    uses_torch: bool = False


def run_command(command: Command, argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn what the user can mend into one line on stderr. Returns the exit code."""
    prepare_streams()
    args = parse_arguments(command, sys.argv[1:] if argv is None else argv)
    choose_waiting(os.environ, command.trains)  # before torch is imported
    try:
        rank = rank_here() if command.joint else SINGLE
    except MvlError as error:
        _say(f"{command.name}: {error}")
        return BAD_INPUT
    args.leads = rank.leads
    args.progress, stage_of = noting_stages(silent if _quiet(args) or not rank.leads else bars())
    called = command.name if rank.leads else f"{command.name} ({rank})"
    with _log_on_screen(args, "" if rank.leads else f"{rank}: "):
        try:
            check_room_for_libraries(torch=command.uses_torch)
            if command.uses_torch:
                check_working_folder()
            if command.uses_root:
                args.root = _announce_root(args)
            code = command.run(args)
            sys.stdout.flush()
            return code
        except PartlyFailed as error:
            return partly_failed(command, [error])
        except MvlError as error:
            _say(f"{called}: {error}")
            return BAD_INPUT
        except Stopped as stop:
            again = shlex.join([command.name, *(sys.argv[1:] if argv is None else argv)])
            if rank.leads:
                _say(f"{command.name}: stopped by {signal.Signals(stop.number).name}; {stop.done}. To resume: {again}")
            return SIGNALLED + stop.number
        except KeyboardInterrupt:
            _say(f"{command.name}: stopped. Run the same command again to resume.")
            return INTERRUPTED
        except BrokenPipeError:
            if _someone_reads_stdout():
                raise
            return PIPE_CLOSED
        except Exception as error:
            if isinstance(error, OSError) and is_full(error):
                _say(f"{command.name}: the output cannot be written ({error.strerror}). The command has stopped.")
            elif told := exhaustion(error, stage_of(error)):
                _say(f"{command.name}: {told}")
            else:
                raise
            return BAD_INPUT


def partly_failed(command: Command, failures: Sequence[MvlError]) -> int:
    """Say what failed, a line each, and return the exit code."""
    for failure in failures:
        _say(f"{command.name}: {failure}")
    return PARTLY_FAILED


def parse_arguments(command: Command, argv: Sequence[str]) -> argparse.Namespace:
    """The arguments, nnU-Net's words among them. Exits with code 2 and one line when they cannot be understood."""
    parser, notes = build_parser(command), []  # type: tuple[Parser, list[str]]
    try:
        ours = translate(command.name, argv, notes)
        check_single_dashes(ours, option_names(parser).union(WORDS.get(command.name, ())))
    except Refused as refusal:
        parser.error(str(refusal))
    args = parser.parse_args(ours)
    for note in notes:
        _say(f"{command.name}: {note}")
    return args


def check_single_dashes(argv: Sequence[str], options: Collection[str]) -> None:
    """Refuse `-npz`, which argparse would read as `-n pz`. Raises Refused, with the option that was perhaps meant."""
    for word in argv:
        if word == "--":
            return
        if SINGLE_DASH.match(word) and word not in options:
            name = word.partition("=")[0]
            if name[:2] in options and name[2:].isdigit():
                raise Refused(f"put a space between {name[:2]} and {name[2:]}")
            raise Refused(f"there is no option {name}{_perhaps(f'-{name}', options)}")


def option_names(parser: argparse.ArgumentParser) -> set[str]:
    """Every option of a parser, and of the parsers of its actions (`mvl_block add`)."""
    names: set[str] = set()
    for action in parser._actions:
        names.update(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            names = names.union(*map(option_names, action.choices.values()))
    return names


def _perhaps(word: str, options: Collection[str]) -> str:
    close = difflib.get_close_matches(word, sorted(options), 1)
    return f". Did you mean {close[0]}?" if close else ""


class Parser(argparse.ArgumentParser):
    """Errors are one line and a hint, not the whole usage."""

    def error(self, message: str) -> NoReturn:
        unknown = re.fullmatch(r"unrecognized arguments: (--[\w-]+)\b.*", message)
        if unknown:
            message = f"there is no option {unknown[1]}{_perhaps(unknown[1], option_names(self))}"
        if not message.endswith(("?", ".")):
            message += "."
        self.exit(BAD_INPUT, f"{self.prog.split()[0]}: {message} See {self.prog} --help.\n")


def build_parser(command: Command) -> Parser:
    parser = Parser(
        prog=command.name,
        description=command.summary,
        epilog="example:\n" + "\n".join(_as_typed(line.strip()) for line in command.example.strip().splitlines()),
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    add_shared_arguments(parser, command.uses_root)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def _as_typed(line: str) -> str:
    """A command line for the help, in several with the shell's backslash where it is long."""
    if len(line) <= EXAMPLE_WIDTH:
        return f"  {line}"
    wrapper = textwrap.TextWrapper(EXAMPLE_WIDTH, "  ", "      ", break_long_words=False, break_on_hyphens=False)
    joined = re.sub(r"( --?[a-z][\w-]*) (?!-)", r"\1\0", line)  # an option stays with its value
    return " \\\n".join(wrapper.wrap(joined)).replace("\0", " ")


def add_shared_arguments(parser: argparse.ArgumentParser, uses_root: bool = True) -> None:
    """--root, -v, -q. For subparsers too: what is not given leaves no trace, so neither level overwrites the other."""
    group = parser.add_argument_group("everywhere")
    if uses_root:
        group.add_argument(
            "--root",
            type=Path,
            default=argparse.SUPPRESS,
            metavar="FOLDER",
            help=f"holds raw, preprocessed, results and blocks (default: ${ROOT_VARIABLE}, else {DEFAULT_ROOT})",
        )
    loudness = group.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="store_true", default=argparse.SUPPRESS, help="say more")
    loudness.add_argument(
        "-q", "--quiet", action="store_true", default=argparse.SUPPRESS, help="results and warnings only, no bars"
    )


class HelpFormatter(argparse.HelpFormatter):
    """Text wrapped, indented example lines as they are; the same on every Python version, for docs/cli.md."""

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog, max_help_position=30, **settings)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = text.splitlines()
        return "\n".join(line if line.startswith(" ") else textwrap.fill(line, width) for line in lines)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        values = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {values}"


# --------------------------------------------------------------------------------------- the screen


def _quiet(args: argparse.Namespace) -> bool:
    return bool(getattr(args, "quiet", False))


def _someone_reads_stdout() -> bool:
    """False for a closed pipe; what is left for it is then thrown away, or Python would complain when it ends."""
    try:
        print(flush=True)
    except BrokenPipeError:
        discard_stdout()
        return False
    return True


def _announce_root(args: argparse.Namespace) -> Path:
    """Print which root is used and who chose it: the first line of every command that works on one.

    Of several processes that work together only the one that leads prints it.
    """
    given: Path | None = getattr(args, "root", None)
    chosen_by = "--root" if given else f"${ROOT_VARIABLE}" if os.environ.get(ROOT_VARIABLE) else "default"
    root = find_root(given)
    if args.leads:
        print(f"root: {root} ({chosen_by})", flush=True)
    return root


@contextmanager
def _log_on_screen(args: argparse.Namespace, prefix: str = "") -> Iterator[None]:
    """Show what mvl_auto logs on stderr: from INFO on, from DEBUG with -v, from WARNING with -q.

    prefix: of each line, for a process that does not lead; it shows warnings only.
    """
    handler = _ScreenHandler(prefix)
    handler.setLevel(logging.WARNING if _quiet(args) or prefix else logging.DEBUG)
    level, propagate = LOGGER.level, LOGGER.propagate
    LOGGER.propagate = False  # some libraries give the root logger a handler that would repeat every line
    LOGGER.setLevel(logging.DEBUG if getattr(args, "verbose", False) else logging.INFO)
    LOGGER.addHandler(handler)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        LOGGER.propagate = propagate


class _ScreenHandler(logging.Handler):
    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.prefix = prefix

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, ONLY_IN_FILE):
            return
        prefix = "warning: " if record.levelno == logging.WARNING else ""
        _say(self.prefix + prefix + self.format(record))


def _say(line: str) -> None:
    """A line on stderr, above a bar where there is one; what a terminal would act on is written out."""
    line = printable(line, keep="\n\t")
    with suppress(OSError):  # stdout is told by itself, and there is no place to tell of stderr
        sys.stdout.flush()
    with suppress(OSError):
        if "tqdm" in sys.modules:
            from tqdm import tqdm

            tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)
