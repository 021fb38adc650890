"""The functions of `mvl_auto.api` as Python users call them: with progress, and errors that speak of arguments.

The commands call `mvl_auto.api` itself, with the bars of the command line and errors that name options.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from mvl_auto import api
from mvl_auto.arguments import in_python_words
from mvl_auto.bars import bars
from mvl_auto.progress import silent

Result = TypeVar("Result")


def for_python(function: Callable[..., Result]) -> Callable[..., Result]:
    """The function with `progress` on: bars in a notebook and on a terminal, lines elsewhere, nothing for False."""

    has_progress = "progress" in inspect.signature(function).parameters

    @functools.wraps(function)
    def call(*args: Any, progress: Any = True, **named: Any) -> Result:
        drawn = bars() if progress is True else silent if progress in (False, None) else progress
        with in_python_words():
            return function(*args, **named, **({"progress": drawn} if has_progress else {}))

    return call


ablate = for_python(api.ablate)
plan_and_preprocess = for_python(api.plan_and_preprocess)
pretrain = for_python(api.pretrain)
train = for_python(api.train)
predict = for_python(api.predict)
evaluate = for_python(api.evaluate)
explain = for_python(api.explain)
doctor = for_python(api.doctor)
compare = for_python(api.compare)
audit = for_python(api.audit)
