"""Which training cases a run with few cases gets: nested lists, patient by patient."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mvl_auto.ablation.record import Amount

STREAM = 7  # keeps these random numbers apart from those of weights and batches


def nested_cases(patients: Sequence[Sequence[str]], amount: Amount, fold: str, seed: int) -> tuple[str, ...]:
    """The first patients of a random order that is the same for every amount, until they have enough cases; sorted.

    patients: the names of the cases of each (planners.splits.group_cases). So a smaller amount is a part of a larger
    one, and no patient is divided.
    """
    total = sum(map(len, patients))
    wanted = total if amount.share is not None and amount.share >= 1 else number_of_cases(amount, total)
    rng = np.random.default_rng([seed, int(fold), STREAM])
    taken: list[str] = []
    for place in rng.permutation(len(patients)):
        if len(taken) >= wanted:
            break
        taken.extend(patients[place])
    return tuple(sorted(taken))


def number_of_cases(amount: Amount, total: int) -> int:
    """At least one, at most all."""
    wanted = amount.cases if amount.share is None else math.ceil(amount.share * total - 1e-9)
    assert wanted is not None
    return max(1, min(wanted, total))
