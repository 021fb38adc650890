"""Anomalies of the same kind as one, so that a fault of a thousand cases is one line of a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mvl_auto.alike import alike, where
from mvl_auto.plans import Anomaly


@dataclass(frozen=True)
class AnomalyGroup:
    """The files that have the same anomaly. what, remedy: of the first of them."""

    files: tuple[str, ...]
    what: str
    remedy: str

    @property
    def where(self) -> str:
        """`labelsTr/a.nii.gz`, or `8 files: labelsTr/a.nii.gz, labelsTr/b.nii.gz, labelsTr/c.nii.gz and 5 more`."""
        return where(self.files)


def group_anomalies(found: Iterable[Anomaly]) -> tuple[AnomalyGroup, ...]:
    """Groups in the order of their first anomalies: those that `alike` takes for the same."""
    kinds = alike(found, lambda anomaly: (anomaly.file, f"{anomaly.what} {anomaly.remedy}"))
    return tuple(AnomalyGroup(tuple(each.file for each in kind), kind[0].what, kind[0].remedy) for kind in kinds)
