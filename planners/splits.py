"""Folds for cross-validation: no patient, and no copy of an image, is both trained and validated on.

Without groups and copies the folds are nnU-Net's (sklearn's KFold, shuffled with seed 12345, over the sorted names),
so that scores per fold can be compared.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np

from mvl_auto.plans import CaseFingerprint, Fingerprint, Splits

FOLDS = 5
SEED = 12345  # nnU-Net's

log = logging.getLogger(__name__)


def split(fingerprint: Fingerprint, folds: int = FOLDS, seed: int = SEED) -> Splits:
    """Divide the cases of a dataset into folds of about equal size; the order of the cases does not matter.

    With fewer groups than folds there are as many folds as groups. A single group makes one fold that both trains and
    validates on all cases: its scores say nothing about new patients.
    """
    units = group_cases(fingerprint.cases)
    if len(units) == 1:
        what = "its cases are all of one patient, or one image" if len(fingerprint.cases) > 1 else "it has one case"
        log.warning("%s: %s: training validates on what it trains on", fingerprint.dataset, what)
    order = np.arange(len(units))
    np.random.RandomState(seed).shuffle(order)
    return Splits(
        fingerprint_hash=fingerprint.hash,
        seed=seed,
        folds=tuple(_deal([units[i] for i in order], min(folds, len(units)))),
    )


def group_cases(cases: Iterable[CaseFingerprint]) -> list[tuple[str, ...]]:
    """The names of cases that must share a fold: same group, or same image, or linked by a chain of both; sorted."""
    from scipy.cluster.hierarchy import DisjointSet

    linked = DisjointSet()
    names = []
    for case in cases:
        name = ("case", case.name)
        names.append(name)
        for key in (name, ("group", case.group), ("image", case.image_hash)):
            linked.add(key)
            linked.merge(name, key)
    return sorted({tuple(sorted(key for kind, key in linked.subset(name) if kind == "case")) for name in names})


def _deal(units: list[tuple[str, ...]], folds: int) -> Iterable[tuple[str, ...]]:
    """Consecutive units into folds: each fold takes units while that brings it closer to its share of the rest."""
    left = sum(map(len, units))
    start = 0
    for fold in range(folds):
        share = -(-left // (folds - fold))
        stop, size = start, 0
        while stop < len(units) and (stop == start or len(units) - stop > folds - fold - 1):
            grown = size + len(units[stop])
            last = fold == folds - 1
            if stop > start and not last and abs(grown - share) >= abs(size - share):
                break
            stop, size = stop + 1, grown
        yield tuple(sorted(name for unit in units[start:stop] for name in unit))
        start, left = stop, left - size
