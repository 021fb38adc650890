"""Folds for cross-validation: patients, and copies of an image, are never on both sides.

Without groups and copies the folds are nnU-Net's (sklearn's KFold, shuffled with seed 12345, over the sorted names),
so that scores per fold can be compared.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from mvl_auto.plans import CaseFingerprint, Fingerprint, Splits

FOLDS = 5
SEED = 12345  # nnU-Net's

log = logging.getLogger(__name__)


def split(fingerprint: Fingerprint, folds: int = FOLDS, seed: int = SEED) -> Splits:
    """Deal the cases of a dataset into folds of about equal size; the order of the cases does not count.

    With fewer groups than folds there are as many folds as groups. A single group makes one fold, which both trains
    and validates on all cases: its scores say nothing about new patients.
    """
    units = together(fingerprint.cases)
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


def together(cases: Iterable[CaseFingerprint]) -> list[tuple[str, ...]]:
    """The names of cases that must share a fold: same group, or same image, or linked by a chain of both; sorted."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = key = parent[parent[key]]
        return key

    names = sorted((case.name, case.group, case.image_hash) for case in cases)
    for name, group, image in names:
        for key in (f"group {group}", f"image {image}"):
            parent[root(key)] = root(f"case {name}")
    units = defaultdict(list)
    for name, _, _ in names:
        units[root(f"case {name}")].append(name)
    return sorted(tuple(unit) for unit in units.values())


def _deal(units: list[tuple[str, ...]], folds: int) -> Iterable[tuple[str, ...]]:
    """Consecutive units into folds: each takes units as long as that brings it nearer to its share of what is left."""
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
