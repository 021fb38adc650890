"""Anomalies of the same kind as one, so that a fault of a thousand cases is one line of a table."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mvl_auto.plans import Anomaly
from mvl_auto.text import list_text

LISTED = 3  # files that a group names
MEASURED = re.compile(r"\d+\.\d+(?:e[+-]?\d+)?|\d+(?= (?:of \d+ |labelled )?voxels)|(?<= of )\d+(?= voxels)")


@dataclass(frozen=True)
class AnomalyGroup:
    """The files that have the same anomaly. what, remedy: of the first of them."""

    files: tuple[str, ...]
    what: str
    remedy: str

    @property
    def where(self) -> str:
        """`labelsTr/a.nii.gz`, or `8 files: labelsTr/a.nii.gz, labelsTr/b.nii.gz, labelsTr/c.nii.gz and 5 more`."""
        return self.files[0] if len(self.files) == 1 else f"{len(self.files)} files: {list_text(self.files, LISTED)}"


def group_anomalies(found: Iterable[Anomaly]) -> tuple[AnomalyGroup, ...]:
    """Groups in the order of their first anomalies.

    Anomalies are of the same kind when their texts agree in all but measured figures: numbers with a decimal point, and
    counts of voxels. Label values and file names must agree.
    """
    groups: dict[tuple[str, str], list[Anomaly]] = {}
    for anomaly in found:
        key = (MEASURED.sub("#", anomaly.what), MEASURED.sub("#", anomaly.remedy))
        groups.setdefault(key, []).append(anomaly)
    return tuple(
        AnomalyGroup(tuple(each.file for each in group), group[0].what, group[0].remedy) for group in groups.values()
    )
