"""The planning stage on disk: the fingerprint, old or new, then splits and plan. The plan is written last."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from mvl_auto.alike import lines_of
from mvl_auto.datasets import Dataset
from mvl_auto.errors import MvlError, PartlyFailed
from mvl_auto.planners.fingerprint import changed_cases, fingerprint_dataset, left_out
from mvl_auto.planners.given_folds import given_splits
from mvl_auto.planners.splits import split
from mvl_auto.plans import (
    DELETE_AND_PLAN,
    Anomaly,
    DatasetRecord,
    Fingerprint,
    Plan,
    Splits,
    read_document,
    write_document,
)
from mvl_auto.progress import Progress
from mvl_auto.text import count_text

STRICT_REMEDY = "Repair it, or run again without --strict."
CASE_CACHE = ".examined"  # in a preprocessed dataset: the per-case fingerprint cache

log = logging.getLogger(__name__)


def take_fingerprint(
    raw: Dataset,
    folder: Path,
    workers: int | None,
    scheduler: str | None,
    keep_going: bool,
    unread: Sequence[MvlError],
    progress: Progress,
) -> Fingerprint:
    """The stored fingerprint where nothing has changed, else a new one, for which only changed cases are read.

    unread: the problems of cases that are left out of `raw` because of them.
    """
    path = folder / "fingerprint.json"
    if path.is_file():
        earlier = read_document(path, Fingerprint, DELETE_AND_PLAN)
        described = (raw.id, raw.channels, raw.labels, raw.file_ending)
        complete = not unread and not earlier.left_out
        same_words = described == (earlier.dataset, earlier.channels, earlier.labels, earlier.file_ending)
        changed = changed_cases(earlier, raw)
        if same_words and complete and not changed:
            log.info("%s: unchanged since its fingerprint was taken", raw.id)
            return earlier
        what = "dataset.json" if complete else "cases were left out"
        if changed:
            what = f"{count_text(len(changed), 'case')}, {changed[0]} the first"
        log.info("%s: has changed since its fingerprint was taken (%s)", raw.id, what)
    found = fingerprint_dataset(
        raw,
        cache=folder / CASE_CACHE,
        workers=workers,
        scheduler=scheduler,
        keep_going=keep_going,
        progress=progress,
    )
    return found.model_copy(update={"left_out": (*left_out(unread, raw.folder), *found.left_out)})


class AnomaliesFound(MvlError):
    """A dataset has anomalies and --strict refuses them; all are in `anomalies`."""

    anomalies: tuple[Anomaly, ...] = ()


def refuse_anomalies(fingerprint: Fingerprint, raw: Path, folder: Path) -> None:
    """Raise AnomaliesFound where there are any; the fingerprint is written, but no plan.

    raw: folder of the dataset. folder: of its preprocessed data.
    """
    if not fingerprint.anomalies:
        return
    write_document(folder / "fingerprint.json", fingerprint)
    first, others = fingerprint.anomalies[0], len(fingerprint.anomalies) - 1
    more = f" ({others} more, all in {folder / 'fingerprint.json'})" if others else ""
    error = AnomaliesFound(
        f"{first.what.rstrip('.')}{more}", file=raw / first.file, remedy=f"{first.remedy} {STRICT_REMEDY}"
    )
    error.anomalies = fingerprint.anomalies
    raise error


def write_plan(raw: Dataset, fingerprint: Fingerprint, plan: Plan, folder: Path) -> None:
    """Write fingerprint, splits and plan, the plan last: a folder with a plan is complete. Valid splits are kept."""
    write_document(folder / "fingerprint.json", fingerprint)
    splits = folder / "splits.json"
    given = given_splits(fingerprint, raw.folds, raw.folder / "dataset.json")
    earlier = read_document(splits, Splits, DELETE_AND_PLAN) if splits.is_file() else None
    stale = earlier is None or earlier.fingerprint_hash != fingerprint.hash
    removed = given is None and earlier is not None and earlier.given
    if removed:
        log.warning("%s: dataset.json gives no folds any more; they are drawn anew", splits)
    if stale or removed or (given is not None and earlier is not None and given.folds != earlier.folds):
        write_document(splits, given or split(fingerprint))
    write_document(folder / "dataset.json", DatasetRecord(dataset=raw.id, folder=str(raw.folder.absolute())))
    path = folder / "plans.json"
    if path.is_file() and read_document(path, Plan, DELETE_AND_PLAN).hash != plan.hash:
        log.warning("%s is replaced by another plan; trained runs keep their own", path)
    write_document(path, plan)


def log_left_out(fingerprint: Fingerprint, folder: Path) -> list[str]:
    """Why cases were left out, a line for each kind of fault; they are logged too."""
    lines = lines_of(
        [MvlError(each.what, file=folder / each.file, remedy=each.remedy) for each in fingerprint.left_out]
    )
    for line in lines:
        log.error("left out: %s", line)
    return lines


def raise_if_partly_failed(failures: Sequence[str], plan: Plan, others_are: str) -> None:
    """Raise PartlyFailed where `failures` says that cases were left out. others_are: what was done with the rest."""
    if not failures:
        return
    first, others = failures[0], len(failures) - 1
    more = f" ({count_text(others, 'other fault')}, named above and in log.txt)" if others else ""
    error = PartlyFailed(f"{first.rstrip('.')}{more}", remedy=f"All cases without a fault are {others_are}.")
    error.result = plan
    raise error
