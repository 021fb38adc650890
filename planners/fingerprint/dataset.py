"""The fingerprint of a dataset: every case is read once, in parallel, and summarized.

The fingerprint is the same for the same voxels, however they are stored: turned, in another layout, in another order.
Memory grows only by a few numbers per case.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mvl_auto.alike import LISTED, alike, line_of, remedy_in, told_of
from mvl_auto.datasets import Case, Dataset, files_of, hash_files
from mvl_auto.errors import MvlError, PartlyFailed
from mvl_auto.jobs import JobFailed, log_trace, run_jobs, worthwhile_workers
from mvl_auto.planners.fingerprint.anomalies import NAMED, THE_WHOLE, anomalies_between, left_out, problems_between
from mvl_auto.planners.fingerprint.case import FingerprintedCase, name_in
from mvl_auto.planners.fingerprint.intensities import Intensities
from mvl_auto.planners.fingerprint.store import CannotCache, fingerprint_once, remove_other_entries
from mvl_auto.plans import Anomaly, CaseFingerprint, Fingerprint
from mvl_auto.progress import Progress, silent
from mvl_auto.text import count_text, list_text

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Survey:
    """What was found in every case, by name: a case is in `failures`, or in `fingerprints` and `anomalies`."""

    cases: dict[str, Case]  # all of them, sorted
    intensities: list[Intensities]  # one per channel
    fingerprints: dict[str, CaseFingerprint] = field(default_factory=dict)
    anomalies: dict[str, tuple[Anomaly, ...]] = field(default_factory=dict)
    failures: dict[str, MvlError] = field(default_factory=dict)
    reused: list[str] = field(default_factory=list)  # names of the cases that came from the cache

    def usable(self) -> list[CaseFingerprint]:
        """Of the cases that can be used, in their order."""
        return [self.fingerprints[name] for name in self.cases if name in self.fingerprints]


def fingerprint_dataset(
    dataset: Dataset,
    *,
    cache: Path | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    keep_going: bool = False,
    progress: Progress = silent,
) -> Fingerprint:
    """Read every case of a dataset, except those that are in the cache and have not changed.

    cache: folder of the per-case cache, read and added to; None: every case is read, nothing is written.
    workers: processes; None: one per core, fewer where the files are so small that starting them takes longer.
    scheduler: the address of a Dask cluster that does the work instead.
    keep_going: leave out cases that cannot be used, and list them in the fingerprint, as long as any is left.
    Raises MvlError at the end when cases cannot be used, naming the first and listing the others (PartlyFailed where
    the fault is not theirs, such as a worker that died); also when no case has a labelled voxel, or when 2D and 3D
    images are mixed. And at once when `cache` cannot be written.
    """
    if not dataset.cases:
        raise MvlError("has no training cases", file=dataset.folder, remedy="Add images and labels to it.")
    found = survey(dataset, cache=cache, workers=workers, scheduler=scheduler, progress=progress)
    failures = [found.failures[name] for name in found.cases if name in found.failures]
    if failures and not (keep_going and found.fingerprints):
        raise _combine(failures, dataset)
    usable = found.usable()
    for problem in problems_between(dataset, usable):
        raise problem
    return Fingerprint(
        dataset=dataset.id,
        channels=dataset.channels,
        labels=dataset.labels,
        file_ending=dataset.file_ending,
        cases=tuple(usable),
        foreground_intensity_properties_per_channel=tuple(channel.statistics() for channel in found.intensities),
        anomalies=(
            *(anomaly for name in found.cases for anomaly in found.anomalies.get(name, ())),
            *anomalies_between(dataset, found.cases, usable),
        ),
        left_out=left_out(failures, dataset.folder),
    )


def survey(
    dataset: Dataset,
    *,
    cache: Path | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Progress = silent,
) -> Survey:
    """Read every case of a dataset, whatever is wrong with it.

    cache, workers, scheduler: as in `fingerprint_dataset`. Raises MvlError when `cache` cannot be written.
    """
    cases = {case.name: case for case in sorted(dataset.cases, key=lambda case: case.name)}
    if workers is None:
        workers = worthwhile_workers((file for case in cases.values() for file in files_of(case)), len(cases))
    if cache is not None:
        remove_other_entries(cache, cases)
    work = partial(
        fingerprint_once, labels=dataset.labels, channels=len(dataset.channels), folder=dataset.folder, cache=cache
    )
    found = Survey(cases, [Intensities() for _ in dataset.channels])
    with progress("reading", len(cases)) as advance:
        for case, outcome in run_jobs(work, cases.values(), min(workers, len(cases)), scheduler):
            advance(1, case.name)
            if isinstance(outcome, CannotCache):
                raise outcome
            if isinstance(outcome, MvlError | JobFailed):
                found.failures[case.name] = _as_error(case, outcome)
                continue
            _add(found, *outcome, dataset.groups.get(case.name, case.name))
    if found.reused:
        log.info(
            "%s: %d of %d cases are unchanged since they were last read", dataset.id, len(found.reused), len(cases)
        )
    return found


def changed_cases(fingerprint: Fingerprint, dataset: Dataset) -> tuple[str, ...]:
    """Names of the cases that are new, gone, changed, or in another group than in the fingerprint.

    Reads every file, but decodes none. A file that cannot be read counts as changed: fingerprinting it says why.
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


def _add(found: Survey, case: FingerprintedCase, reused: bool, group: str) -> None:
    fingerprint = case.fingerprint.model_copy(update={"group": group})
    found.fingerprints[fingerprint.name] = fingerprint
    found.anomalies[fingerprint.name] = case.anomalies
    for channel, case_sketch in zip(found.intensities, case.sketches, strict=False):
        channel.add(case_sketch)
    if reused:
        found.reused.append(fingerprint.name)


def _as_error(case: Case, outcome: MvlError | JobFailed) -> MvlError:
    if isinstance(outcome, MvlError):
        return outcome
    log_trace(log, case.name, outcome)
    return PartlyFailed(f"could not be read: {outcome}", file=case.images[0], remedy="Remove or repair this case.")


def _combine(failures: Sequence[MvlError], dataset: Dataset) -> MvlError:
    """One error for all of them; where they are of several kinds, the log has a line for each kind."""
    first, *others = failures
    if not others:
        return first
    cases = count_text(len(dataset.cases), "case")
    fault = PartlyFailed if all(isinstance(failure, PartlyFailed) for failure in failures) else MvlError
    kinds = alike(failures, told_of)
    remedy = remedy_in(first.remedy, str(dataset.folder))
    if len(kinds) == 1:
        files = list_text((_name(failure, dataset) for failure in failures), LISTED)
        return fault(f"{len(failures)} of {cases} ({files}): {first.what}", file=dataset.folder, remedy=remedy)
    for kind in kinds:
        log.error("%s", line_of(kind))
    files = list_text((_name(other, dataset) for other in others), NAMED)
    more = f"({len(failures)} of {cases} cannot be used; the others are {files})"
    return fault(first.what, file=first.file, remedy=f"{remedy} {more}")


def _name(failure: MvlError, dataset: Dataset) -> str:
    return THE_WHOLE if failure.file is None else name_in(dataset.folder, Path(failure.file))
