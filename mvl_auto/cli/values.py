"""Values of the commands' arguments: durations, sizes, numbers, devices, from the word that the user typed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

from mvl_auto.text import DEVICE, parse_duration, parse_memory

Value = TypeVar("Value")
LARGEST_SEED, DIGITS = 2**62 - 1, 19  # and as many digits as that has
PEAK = "learning rate at its peak (default: 0.003; less for a trunk wider than 192: 0.0015 at 384)"
LOGGERS = "tensorboard, or FILE.py:FUNCTION, MODULE:FUNCTION: gets the figures on the way (docs/loggers.md)"
DEVICES = "auto, cpu, cuda, cuda:1 or mps (default: auto)"


def duration(text: str) -> float:
    """Seconds of "90s", "10m", "1h30m", or of a plain number."""
    return _as_argument(parse_duration, text)


def memory(text: str) -> int:
    """Bytes of "8GB" (10^9), "500MB", "8GiB" (2^30)."""
    return _as_argument(parse_memory, text)


def _as_argument(parse: Callable[[str], Value], text: str) -> Value:
    """argparse shows the words of an ArgumentTypeError, but not those of a ValueError."""
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def positive(text: str, most: int = 10**9) -> int:
    """A whole number from 1 to `most`."""
    if not text.isascii() or not text.isdigit() or not text.strip("0"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1 on")
    if len(text) > DIGITS or int(text) > most:
        raise argparse.ArgumentTypeError(f"'{text[:DIGITS]}' is too large: give at most {most}")
    return int(text)


def at_most(most: int) -> Callable[[str], int]:
    """The type of a whole number from 1 to `most`."""
    return lambda text: positive(text, most)


def whole(text: str) -> int:
    """A whole number from 0 on, such as a seed."""
    return 0 if text == "0" else positive(text, LARGEST_SEED)


def learning_rate(text: str) -> float:
    """A number above 0 and below 1."""
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no learning rate: give a number between 0 and 1, such as 1e-3")
    return rate


def factor(text: str) -> float:
    """A number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' must be a number from 0 to 1")
    return number


def share(text: str) -> float:
    """A number above 0 and at most 1."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' must be a number above 0 and at most 1")
    return number


def logger(text: str) -> str:
    """tensorboard, FILE.py:FUNCTION or MODULE:FUNCTION."""
    if text != "tensorboard" and not text.rpartition(":")[0]:
        raise argparse.ArgumentTypeError(f"'{text}' is no logger: give tensorboard or FILE.py:FUNCTION")
    return text


def device(text: str) -> str:
    """auto, cpu, cuda, cuda:1 or mps."""
    if not DEVICE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a device: give auto, cpu, cuda, cuda:1 or mps")
    return text


def layer(text: str) -> int | str:
    """last, or a number: from the end if it is negative."""
    if text == "last":
        return text
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not a layer: give last, 0, 1, ... or -1, -2, ...") from error
