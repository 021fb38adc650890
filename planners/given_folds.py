"""Folds that a dataset.json gives itself, as MONAI's datalists do: they are used as they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mvl_auto.errors import MvlError
from mvl_auto.planners.splits import SEED, group_cases
from mvl_auto.plans import Fingerprint, Splits


def given_splits(fingerprint: Fingerprint, folds: Mapping[str, int], file: Path) -> Splits | None:
    """The folds of a dataset in the order of their numbers; None where dataset.json gives none.

    folds: the number of the fold that validates on each case; a case that was left out has no place in them.
    Raises MvlError naming `file` where patients, or copies of an image, are in two folds: one would be trained on and
    validated on.
    """
    cases = {case.name: folds[case.name] for case in fingerprint.cases if case.name in folds}
    numbers = sorted(set(cases.values()))
    if len(cases) < len(fingerprint.cases) or len(numbers) < 2:
        return None
    for unit in group_cases(fingerprint.cases):
        if len({cases[name] for name in unit}) > 1:
            first = unit[0]
            other = next(name for name in unit if cases[name] != cases[first])
            raise MvlError(
                f"puts '{first}' into fold {cases[first]} and '{other}' into fold {cases[other]}, and they are of one "
                "patient or copies of one image",
                file=file,
                remedy="Give both the same fold, or remove the folds.",
            )
    return Splits(
        fingerprint_hash=fingerprint.hash,
        seed=SEED,
        given=True,
        folds=tuple(tuple(sorted(name for name in cases if cases[name] == number)) for number in numbers),
    )
