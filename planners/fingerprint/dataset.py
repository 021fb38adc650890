"""What a dataset is: every case examined once, in parallel, and the sum of it.

The fingerprint is the same for the same voxels, however they are stored: turned, in another layout, in another order.
Memory does not grow with the dataset but for a few numbers per case.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mvl_auto.datasets import Case, Dataset, files_of, hash_files
from mvl_auto.errors import MvlError, PartlyFailed
from mvl_auto.jobs import JobFailed, log_trace, run_jobs, worthwhile_workers
from mvl_auto.planners.fingerprint.anomalies import NAMED, anomalies_between, left_out, problems_between
from mvl_auto.planners.fingerprint.case import Examination
from mvl_auto.planners.fingerprint.intensities import Intensities
from mvl_auto.planners.fingerprint.store import CannotKeep, examine_once, forget_others
from mvl_auto.plans import Anomaly, CaseFingerprint, Fingerprint
from mvl_auto.progress import Progress, silent
from mvl_auto.text import count_text, list_text

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Survey:
    """What came of looking at every case, by the cases' names; a case is in `failures` or in the two before it."""

    cases: dict[str, Case]  # all of them, sorted
    intensities: list[Intensities]  # one per channel
    fingerprints: dict[str, CaseFingerprint] = field(default_factory=dict)
    anomalies: dict[str, tuple[Anomaly, ...]] = field(default_factory=dict)
    failures: dict[str, MvlError] = field(default_factory=dict)
    reused: list[str] = field(default_factory=list)  # names of the cases whose examination was known from before

    def examined(self) -> list[CaseFingerprint]:
        """Of the cases that can be used, in their order."""
        return [self.fingerprints[name] for name in self.cases if name in self.fingerprints]


def fingerprint_dataset(
    dataset: Dataset,
    *,
    keep: Path | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    keep_going: bool = False,
    progress: Progress = silent,
) -> Fingerprint:
    """Examine every case of a dataset, but those that were examined before and have not changed.

    keep: a folder of examinations, which is read and added to as they come; None: all are examined, nothing is written.
    workers: processes; None: one per core, fewer where the files are so small that starting them takes longer.
    scheduler: the address of a Dask cluster that examines them instead.
    keep_going: leave out cases that cannot be used, and say so in the fingerprint, as long as any is left.
    Raises MvlError at the end when cases cannot be used, naming the first and listing the others (PartlyFailed where
    that is nothing that is wrong with them: their worker died, say); also when no case has a labelled voxel, or when
    images of two and of three dimensions are mixed. And at once when `keep` cannot be written.
    """
    if not dataset.cases:
        raise MvlError("has no training cases", file=dataset.folder, remedy="Add images and labels to it.")
    found = survey(dataset, keep=keep, workers=workers, scheduler=scheduler, progress=progress)
    failures = [found.failures[name] for name in found.cases if name in found.failures]
    if failures and not (keep_going and found.fingerprints):
        raise _first(failures)
    examined = found.examined()
    for problem in problems_between(dataset, examined):
        raise problem
    return Fingerprint(
        dataset=dataset.id,
        channels=dataset.channels,
        labels=dataset.labels,
        file_ending=dataset.file_ending,
        cases=tuple(examined),
        foreground_intensity_properties_per_channel=tuple(channel.statistics() for channel in found.intensities),
        anomalies=(
            *(anomaly for name in found.cases for anomaly in found.anomalies.get(name, ())),
            *anomalies_between(dataset, found.cases, examined),
        ),
        left_out=left_out(failures, dataset.folder),
    )


def survey(
    dataset: Dataset,
    *,
    keep: Path | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Progress = silent,
) -> Survey:
    """Look at every case of a dataset, whatever is wrong with it.

    keep, workers, scheduler: as in `fingerprint_dataset`. Raises MvlError when `keep` cannot be written.
    """
    cases = {case.name: case for case in sorted(dataset.cases, key=lambda case: case.name)}
    if workers is None:
        workers = worthwhile_workers((file for case in cases.values() for file in files_of(case)), len(cases))
    if keep is not None:
        forget_others(keep, cases)
    examine = partial(
        examine_once, labels=dataset.labels, channels=len(dataset.channels), folder=dataset.folder, keep=keep
    )
    found = Survey(cases, [Intensities() for _ in dataset.channels])
    with progress("examining", len(cases)) as advance:
        for case, outcome in run_jobs(examine, cases.values(), min(workers, len(cases)), scheduler):
            advance(1, case.name)
            if isinstance(outcome, CannotKeep):
                raise outcome
            if isinstance(outcome, MvlError | JobFailed):
                found.failures[case.name] = _told(case, outcome)
                continue
            _add(found, *outcome, dataset.groups.get(case.name, case.name))
    if found.reused:
        log.info("%s: %d of %d cases were examined before", dataset.id, len(found.reused), len(cases))
    return found


def changed_cases(fingerprint: Fingerprint, dataset: Dataset) -> tuple[str, ...]:
    """Names of the cases that are new, gone, changed, or of another group than when the fingerprint was taken.

    Reads every file, but decodes none. One that cannot be read has changed: examining it tells why.
    """
    before = {case.name: (case.files_hash, case.group) for case in fingerprint.cases}
    now = {case.name: case for case in dataset.cases}
    changed = before.keys() ^ now.keys()
    for name in before.keys() & now.keys():
        try:
            found = (hash_files(now[name]), dataset.groups.get(name, name))
        except MvlError:
            changed.add(name)
            continue
        if before[name] != found:
            changed.add(name)
    return tuple(sorted(changed))


def _add(found: Survey, examination: Examination, reused: bool, group: str) -> None:
    fingerprint = examination.fingerprint.model_copy(update={"group": group})
    found.fingerprints[fingerprint.name] = fingerprint
    found.anomalies[fingerprint.name] = examination.anomalies
    for channel, case_sketch in zip(found.intensities, examination.sketches, strict=False):
        channel.add(case_sketch)
    if reused:
        found.reused.append(fingerprint.name)


def _told(case: Case, outcome: MvlError | JobFailed) -> MvlError:
    if isinstance(outcome, MvlError):
        return outcome
    log_trace(log, case.name, outcome)
    return PartlyFailed(f"could not be examined: {outcome}", file=case.images[0], remedy="Remove or repair this case.")


def _first(failures: Sequence[MvlError]) -> MvlError:
    """The one line for all of them; where there are several, each has its own in the log."""
    first, *others = failures
    if not others:
        return first
    for failure in failures:
        log.error("%s", failure)
    files = list_text((other.file for other in others), NAMED)
    more = f"({count_text(len(others), 'more case')} cannot be used either: {files})"
    kind = PartlyFailed if all(isinstance(failure, PartlyFailed) for failure in failures) else MvlError
    return kind(first.what, file=first.file, remedy=f"{first.remedy} {more}")
