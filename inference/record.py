"""predictions.json in the folder of predictions: which networks made them, and which are whole.

A case is entered before its prediction is written, and its size after: so a prediction that is not in the record is
someone else's, one without a size was perhaps cut short, and neither is ever taken for a finished one of ours.
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
    """What decides the predictions of a folder, apart from the images."""

    dataset: str
    run: str
    configuration: str
    plan_hash: str
    checkpoints: dict[str, str] = Field(description="fold -> sha256 of its checkpoint.safetensors")
    mirror: bool
    step: float = Field(description="of the patch, from one window to the next")


class PredictedCase(Frozen):
    file: str = Field(description="name of the prediction in this folder")
    files_hash: str = Field(description="sha256 over the bytes of the image's files")
    size: int | None = Field(None, description="bytes of the prediction; none until it is written")


class PredictionRecord(Document):
    made_by: MadeBy
    cases: dict[str, PredictedCase] = Field({}, description="by name")


@dataclass
class Record:
    """predictions.json of one folder, kept up to date on disk."""

    folder: Path
    content: PredictionRecord

    def is_whole(self, case: Case, file: str) -> bool:
        """Whether the prediction of a case is there, readable, and of the files as they are now.

        Raises MvlError when a file is in its place that this record does not know.
        """
        path = self.folder / file
        entry = self.content.cases.get(case.name)
        if not path.exists():
            return False
        if entry is None or entry.file != file:
            raise MvlError(f"is there already, but {RECORD} does not know it", file=path, remedy=ELSEWHERE)
        if entry.files_hash != hash_files(case):
            return False
        return entry.size == path.stat().st_size or _readable(path)

    def begin(self, name: str, file: str, files_hash: str) -> None:
        """Enter a case whose prediction is about to be written, and remove an earlier one."""
        (self.folder / file).unlink(missing_ok=True)
        self._enter(name, PredictedCase(file=file, files_hash=files_hash))

    def finish(self, name: str) -> None:
        """The prediction of a case is written."""
        entry = self.content.cases[name]
        self._enter(name, entry.model_copy(update={"size": (self.folder / entry.file).stat().st_size}))

    def _enter(self, name: str, entry: PredictedCase) -> None:
        cases = dict(sorted((self.content.cases | {name: entry}).items()))
        self.content = self.content.model_copy(update={"cases": cases})
        write_document(self.folder / RECORD, self.content)


def open_record(folder: Path, made_by: MadeBy, overwrite: bool) -> Record:
    """The record of a folder: a new one where there is none, and with `overwrite`.

    Raises MvlError when the folder holds predictions that other networks, or other settings, made.
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
    raise MvlError(f"holds predictions made with {difference(content.made_by, made_by)}", file=folder, remedy=ELSEWHERE)


def difference(there: MadeBy, now: MadeBy) -> str:
    """The first thing in which the makers of two sets of predictions differ, for a message."""
    if (there.dataset, there.run) != (now.dataset, now.run):
        return f"another network ({there.dataset}, {there.run})"
    if there.checkpoints.keys() != now.checkpoints.keys():
        return f"other folds ({', '.join(there.checkpoints)})"
    if there.mirror != now.mirror:
        return "mirroring" if there.mirror else "no mirroring"
    if there.step != now.step:
        return f"step {there.step:g}"
    return "an earlier training of this network"


def _readable(path: Path) -> bool:
    try:
        read_label(path)
    except MvlError:
        return False
    return True
