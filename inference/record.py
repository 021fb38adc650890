"""predictions.json in the folder of predictions: which networks made them, and which are complete.

A case is entered before its prediction is written, and its file size afterwards. So a file that the record does not
name was not written by this program and is never replaced; an entry without a size is left by a run that was stopped in
between, and the next run completes it: with the size, if the file is readable, else with a new prediction.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from mvl_auto.datasets import Case, hash_files
from mvl_auto.errors import MvlError
from mvl_auto.images import read_label
from mvl_auto.plans import Document, Frozen, read_document, write_document

RECORD = "predictions.json"
ELSEWHERE = "Choose another output folder, or replace what is there with --overwrite."


class MadeBy(Frozen):
    """Everything that the predictions of a folder depend on, apart from the images."""

    dataset: str
    run: str
    configuration: str
    plan_hash: str
    checkpoints: dict[str, str] = Field(description="fold -> sha256 of its checkpoint.safetensors")
    mirror: bool
    step_size: float = Field(alias="step", description="distance between windows, as a share of a window")


class PredictedCase(Frozen):
    file: str = Field(description="name of the prediction in this folder")
    files_hash: str = Field(description="sha256 over the bytes of the image's files")
    size: int | None = Field(None, description="bytes of the prediction; null until it is written")


class PredictionRecord(Document):
    made_by: MadeBy
    cases: dict[str, PredictedCase] = Field({}, description="by name")


@dataclass
class Record:
    """predictions.json of one folder, kept up to date on disk."""

    folder: Path
    content: PredictionRecord

    def check_file(self, case: Case, file: str) -> None:
        """Raise MvlError when the place of a prediction is taken by a file that this record does not name."""
        entry = self.content.cases.get(case.name)
        if (entry is None or entry.file != file) and (self.folder / file).exists():
            raise MvlError(f"exists, but {RECORD} does not list it", file=self.folder / file, remedy=ELSEWHERE)

    def is_complete(self, case: Case, file: str) -> bool:
        """Whether the prediction of a case exists, is readable, and belongs to the image's files as they are now."""
        path = self.folder / file
        entry = self.content.cases.get(case.name)
        if entry is None or not path.exists() or entry.files_hash != hash_files(case):
            return False
        return entry.size == path.stat().st_size or _is_readable(path)

    def complete(self, name: str) -> None:
        """Enter the size of a prediction that a stopped run wrote and did not enter."""
        if self.content.cases[name].size is None:
            self.finish(name)

    def begin(self, name: str, file: str, files_hash: str) -> None:
        """Enter a case before its prediction is written, and remove an earlier prediction of it."""
        (self.folder / file).unlink(missing_ok=True)
        self._enter(name, PredictedCase(file=file, files_hash=files_hash))

    def finish(self, name: str) -> None:
        """Enter the size of a prediction, after it was written."""
        entry = self.content.cases[name]
        self._enter(name, entry.model_copy(update={"size": (self.folder / entry.file).stat().st_size}))

    def _enter(self, name: str, entry: PredictedCase) -> None:
        cases = dict(sorted((self.content.cases | {name: entry}).items()))
        self.content = self.content.model_copy(update={"cases": cases})
        write_document(self.folder / RECORD, self.content)


def open_record(folder: Path, made_by: MadeBy, overwrite: bool) -> Record:
    """The record of a folder; a new one where there is none, or where `overwrite` allows to replace another.

    Nothing is written. Raises MvlError when the folder holds predictions by other networks or with other settings.
    """
    path = folder / RECORD
    fresh = PredictionRecord(made_by=made_by)
    try:
        content = read_document(path, PredictionRecord, remedy=ELSEWHERE) if path.is_file() else fresh
    except MvlError:
        if not overwrite:
            raise
        content = fresh
    if content.made_by == made_by:
        return Record(folder, content)
    if overwrite or not content.cases:
        return Record(folder, fresh)
    difference = describe_difference(content.made_by, made_by)
    raise MvlError(f"holds predictions made with {difference}", file=folder, remedy=ELSEWHERE)


def describe_difference(there: MadeBy, now: MadeBy) -> str:
    """The first difference between the makers of two sets of predictions, for a message."""
    if (there.dataset, there.run) != (now.dataset, now.run):
        return f"another network ({there.dataset}, {there.run})"
    if there.checkpoints.keys() != now.checkpoints.keys():
        return f"other folds ({', '.join(there.checkpoints)})"
    if there.mirror != now.mirror:
        return "mirroring" if there.mirror else "no mirroring"
    if there.step_size != now.step_size:
        return f"step size {there.step_size:g}"
    return "an earlier training of this network"


def _is_readable(path: Path) -> bool:
    try:
        read_label(path)
    except MvlError:
        return False
    return True
