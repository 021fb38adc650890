"""Arguments of the Python functions: what they may be, and errors that speak of them.

A duration may be "10m", an amount of memory "8GB", folds 0, "fold0" or a list of them: as on the command line. The
library's errors name the options of the commands; `in_python_words` gives the arguments that mean the same.
"""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Real
from os import PathLike
from typing import Any, TypeVar

from mvl_auto.errors import MvlError
from mvl_auto.text import parse_duration, parse_memory

Folds = str | int | Sequence[str | int]
Value = TypeVar("Value")

COMMAND = re.compile(r"mvl_(plan_and_preprocess|pretrain|train|predict|evaluate|explain|doctor|compare|audit)")
OPTION = re.compile(r"(--?[a-z][a-z-]*)([.,;:)]*)")
VALUE = re.compile(r"\d|[A-Z]{3,}|none\b|last\b|cpu\b|cuda\b|tcp:|hf:|file:")  # how a value of an option begins
NAMED = {"-n", "-d", "--name", "--dataset"}  # options whose value is a name: any word but these
JOINING = {"or", "and", "to", "for", "is"}
FOLD = re.compile(r"\d+|fold\w+|all")
PLACEHOLDER = re.compile(r"[A-Z]{3,}")
END = re.compile(r"[.,;:)]+")
ARGUMENTS = {  # where an option is not called as its argument
    "--time": "seconds",
    "-n": "run",
    "--name": "run",
    "-c": "configuration",
    "-d": "dataset",
    "-f": "folds",
    "-i": "input",
    "-o": "output",
    "-r": "references",
    "-p": "predictions",
    "--no-mirroring": "mirror=False",
    "--fix": "fix",
    "--json": "output",
    "--lr": "learning_rate",
    "--from": "start_from",
}
FLAGS = {"--plan-only", "--strict", "--keep-going", "--overwrite", "--probabilities", "--only-common", "--volumes"}


def list_of_folds(folds: Folds) -> list[str | int]:
    """A single fold is a list of one: "12" is fold 12, not the folds 1 and 2.

    Raises MvlError for what is no fold, and for an empty list.
    """
    if not isinstance(folds, Iterable) or isinstance(folds, str):
        return [_fold(folds)]
    if listed := [_fold(each) for each in folds]:
        return listed
    raise MvlError("no fold is named", remedy="Give a number or a name, or several: 0, 'fold0', [0, 1].")


def list_of_words(words: str | PathLike[str] | Iterable[str | PathLike[str]]) -> list[str]:
    """A single word or path is a list of one, not of its letters."""
    return [os.fspath(each) for each in ([words] if isinstance(words, str | PathLike) else words)]


def _fold(fold: Any) -> str | int:
    """numpy's integers become Python's."""
    try:
        return fold if isinstance(fold, str | bool) else operator.index(fold)
    except TypeError:
        raise MvlError(f"{fold!r} is no fold", remedy="Give a number or a name: 0 or 'fold0'.") from None


def as_seconds(duration: float | str | None) -> float | None:
    """Seconds of a number or of "10m". Raises MvlError for other words, and for what is not above 0."""
    seconds = _parsed(parse_duration, duration) if isinstance(duration, str) else duration
    return _above_0(seconds, "a duration", "90s, 10m, 1h30m or a number of seconds")


def as_bytes(memory: int | str | None) -> int | None:
    """Bytes of a number or of "8GB". Raises MvlError for other words, and for what is not above 0."""
    amount = _parsed(parse_memory, memory) if isinstance(memory, str) else memory
    return _above_0(amount, "an amount of memory", "8GB, 500MB, 8GiB or a number of bytes")


def check_counts(**counts: int | None) -> None:
    """Raise MvlError, with the name of the argument, for one that is given and no whole number from 1 on."""
    for name, count in counts.items():
        if count is not None and (isinstance(count, bool) or not _is_whole(count) or count < 1):
            raise MvlError(f"{name} is {count!r}", remedy="Give a whole number from 1 on.")


def _is_whole(number: Any) -> bool:
    return hasattr(number, "__index__")


def _above_0(number: Any, what: str, remedy: str) -> Any:
    if number is None or (isinstance(number, Real) and not isinstance(number, bool) and 0 < float(number) < math.inf):
        return number
    raise MvlError(f"{number!r} is not {what}", remedy=f"Give {remedy}.")


def _parsed(parse: Callable[[str], Value], text: str) -> Value:
    try:
        return parse(text)
    except ValueError as error:
        what, _, remedy = str(error).partition(": give ")
        raise MvlError(what, remedy=f"Give {remedy}.") from error


@contextmanager
def in_python_words() -> Iterator[None]:
    """MvlErrors that leave the block speak of arguments, not of options; type, file and the rest stay."""
    try:
        yield
    except MvlError as error:
        error.what, error.remedy = python_words(error.what), python_words(error.remedy)
        error.args = (python_words(str(error)), *error.args[1:])
        raise


def python_words(text: str) -> str:
    """`Give more with --time 10m.` becomes `Give more with seconds="10m".`; `mvl_train 4 fold0` a call."""
    words, result = text.split(" "), []
    while words:
        word = words.pop(0)
        if command := COMMAND.fullmatch(_without_end(word)[0]):
            if end := _without_end(word)[1]:
                words.insert(0, end)
            result.append(f"mvl_auto.{command[1]}({', '.join(_arguments_of(words))}){_end(words)}")
            continue
        lead = word[: len(word) - len(word.lstrip("('"))]
        option = OPTION.fullmatch(word[len(lead) :])
        if option is None or (name := _name_of(option[1])) is None:
            result.append(word)
        elif option[2] or option[1] in FLAGS or not words or not _is_value(words[0], option[1]):
            result.append(f"{lead}{name}{'=True' * (option[1] in FLAGS)}{option[2]}")
        else:
            value, end = _without_end(words.pop(0))
            result.append(f"{lead}{name}={_literal(value)}{end}")
    return " ".join(result)


def _is_value(word: str, option: str) -> bool:
    return bool(VALUE.match(word)) or (option in NAMED and word not in JOINING)


def _arguments_of(words: list[str]) -> list[str]:
    """Take the words of a command line off the front of a sentence, as Python's arguments."""
    positional: list[str] = []
    named: list[str] = []
    while words:
        word, end = _without_end(words[0])
        if name := _name_of(word):
            words.pop(0)
            value = ""
            if word not in FLAGS and not end and words:
                value, end = _without_end(words.pop(0))
            named.append(f"{name}={_literal(value)}" if value else f"{name}=True")
        elif FOLD.fullmatch(word) or PLACEHOLDER.fullmatch(word):
            words.pop(0)
            positional.append(_literal(word))
        else:
            break
        if end:
            words.insert(0, end)
            break
    if len(positional) > 2:  # a dataset, and several folds
        positional = [positional[0], f"[{', '.join(positional[1:])}]"]
    return [*positional, *named]


def _end(words: list[str]) -> str:
    """The full stop behind a command line, which `_arguments_of` left as a word of its own."""
    return words.pop(0) if words and END.fullmatch(words[0]) else ""


def _name_of(option: str) -> str | None:
    if option in ARGUMENTS:
        return ARGUMENTS[option]
    return option[2:].replace("-", "_") if option.startswith("--") and len(option) > 2 else None


def _without_end(word: str) -> tuple[str, str]:
    """A word and the punctuation behind it."""
    kept = word.rstrip(".,;:)")
    return kept, word[len(kept) :]


def _literal(word: str) -> str:
    return word if word.isdigit() or PLACEHOLDER.fullmatch(word) else f'"{word}"'
