"""All problems and anomalies of a dataset in one list: the checks of the fingerprint, without stopping at any.

A finding prevents use where the fingerprint would refuse the dataset because of it. The others are the fingerprint's
anomalies.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pydantic import Field

from mvl_auto.alike import remedy_in
from mvl_auto.arguments import python_words
from mvl_auto.datasets import Dataset, files_of, inspect_dataset
from mvl_auto.errors import MvlError
from mvl_auto.jobs import JobFailed, run_jobs, worthwhile_workers
from mvl_auto.planners.doctor.piece import Repair
from mvl_auto.planners.doctor.repair_case import propose_repairs
from mvl_auto.planners.fingerprint.anomalies import anomalies_between, anomaly_of, problems_between
from mvl_auto.planners.fingerprint.dataset import Survey, survey
from mvl_auto.planners.fingerprint.grouping import group_anomalies
from mvl_auto.plans import Anomaly, Document
from mvl_auto.progress import Progress, silent
from mvl_auto.tables import Tabular


class Finding(Anomaly):
    prevents_use: bool = Field(description="this case, or the dataset, cannot be used until it is repaired")


class Diagnosis(Tabular, Document):
    """What mvl_doctor found."""

    dataset: str = Field(description="Dataset004_Hippocampus")
    folder: str = Field(description="absolute path of the raw dataset")
    cases: int = Field(description="cases that were read")
    usable_cases: int
    findings: tuple[Finding, ...] = Field(description="those that prevent use first, else in the order of the cases")
    repairs: tuple[Repair, ...] = Field(description="what repair_dataset would do for the cases that cannot be used")

    def as_table(self) -> tuple[list[str], list[list[str]]]:
        rows = [
            [kind.where, kind.what, python_words(remedy_in(kind.remedy, self.folder))]
            for kind in group_anomalies(self.findings)
        ]
        return ["file", "what", "what to do"], rows or [
            ["-", f"{self.usable_cases} of {self.cases} cases are usable", "-"]
        ]

    @property
    def usable(self) -> bool:
        return not self.preventing

    @property
    def repairable_files(self) -> frozenset[str]:
        return frozenset(repair.file for repair in self.repairs if repair.outcome == "repaired")

    @property
    def preventing(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.prevents_use)

    @property
    def odd(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if not finding.prevents_use)


def examine_dataset(folder: Path, *, workers: int | None = None, progress: Progress = silent) -> Diagnosis:
    """Read a raw dataset and every case of it. workers: as in `fingerprint_dataset`.

    Raises MvlError when dataset.json cannot be read: it says what the files should contain.
    """
    dataset, unread = inspect_dataset(folder)
    found = survey(dataset, workers=workers, progress=progress)
    preventing = [*unread, *_problems(dataset, found, all_read=not unread)]
    return Diagnosis(
        dataset=dataset.id,
        folder=str(dataset.folder),
        cases=len(found.cases),
        usable_cases=len(found.fingerprints),
        findings=(
            *(_of_problem(problem, dataset.folder) for problem in preventing),
            *(_of_anomaly(anomaly) for anomaly in _anomalies(dataset, found)),
        ),
        repairs=_proposed_repairs(dataset, found, workers),
    )


def _problems(dataset: Dataset, found: Survey, all_read: bool) -> Iterator[MvlError]:
    """Case by case; of the cases together only where all of them could be read."""
    for name in found.cases:
        if failure := found.failures.get(name):
            yield failure
            yield from failure.others
    if all_read and found.cases and not found.failures:
        yield from problems_between(dataset, found.usable())


def _proposed_repairs(dataset: Dataset, found: Survey, workers: int | None) -> tuple[Repair, ...]:
    failed = [found.cases[name] for name in found.cases if name in found.failures]
    if workers is None:
        workers = worthwhile_workers((file for case in failed for file in files_of(case)), len(failed))
    propose = partial(propose_repairs, labels=dataset.labels, folder=dataset.folder)
    proposals: dict[str, tuple[Repair, ...]] = {}
    for case, outcome in run_jobs(propose, failed, min(workers, len(failed))):
        if not isinstance(outcome, MvlError | JobFailed):  # no repair is proposed then; the finding says why
            proposals[case.name] = outcome
    return tuple(repair for case in failed for repair in proposals.get(case.name, ()))


def _anomalies(dataset: Dataset, found: Survey) -> Iterator[Anomaly]:
    if dataset.unlisted:
        what = (
            f'lists other cases under "training" than {dataset.unlisted} of imagesTr and labelsTr, which are not used'
        )
        yield Anomaly(file="dataset.json", what=what, remedy="List them too if they shall be used.")
    for name in found.cases:
        yield from found.anomalies.get(name, ())
    if not found.fingerprints:
        return
    for anomaly in anomalies_between(dataset, found.cases, found.usable()):
        if found.failures and anomaly.file == "dataset.json":
            anomaly = anomaly.model_copy(update={"what": f"{anomaly.what} (of those that can be used)"})
        yield anomaly


def _of_problem(problem: MvlError, folder: Path) -> Finding:
    return Finding(**anomaly_of(problem, folder).model_dump(), prevents_use=True)


def _of_anomaly(anomaly: Anomaly) -> Finding:
    return Finding(**anomaly.model_dump(), prevents_use=False)
