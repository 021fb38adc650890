"""Findings of the same kind as one, so that a fault of a thousand cases is one line of a report."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mvl_auto.planners.doctor.diagnosis import Finding
from mvl_auto.text import list_text

LISTED = 3  # files that a group names
MEASURED = re.compile(r"\d+\.\d+(?:e[+-]?\d+)?|\d+(?= (?:of \d+ |labelled )?voxels)|(?<= of )\d+(?= voxels)")


@dataclass(frozen=True)
class FindingGroup:
    """The files that have the same finding. what, remedy: of the first of them."""

    files: tuple[str, ...]
    what: str
    remedy: str
    prevents_use: bool

    @property
    def where(self) -> str:
        """`labelsTr/a.nii.gz`, or `8 files: labelsTr/a.nii.gz, labelsTr/b.nii.gz, labelsTr/c.nii.gz and 5 more`."""
        return self.files[0] if len(self.files) == 1 else f"{len(self.files)} files: {list_text(self.files, LISTED)}"


def group_findings(findings: Iterable[Finding]) -> tuple[FindingGroup, ...]:
    """Groups in the order of their first findings.

    Findings are of the same kind when their texts agree in all but measured figures: numbers with a decimal point, and
    counts of voxels. Label values and file names must agree.
    """
    groups: dict[tuple[str, str, bool], list[Finding]] = {}
    for finding in findings:
        key = (MEASURED.sub("#", finding.what), MEASURED.sub("#", finding.remedy), finding.prevents_use)
        groups.setdefault(key, []).append(finding)
    return tuple(
        FindingGroup(tuple(each.file for each in group), group[0].what, group[0].remedy, group[0].prevents_use)
        for group in groups.values()
    )
