"""A run on disk: results/<dataset>/<run>/fold0, fold1, ..., and the folds of it that predict together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mvl_auto.errors import MvlError
from mvl_auto.files import sha256_of_file
from mvl_auto.paths import FOLDER_NAME
from mvl_auto.plans import Configuration, Plan, read_document
from mvl_auto.runs.checkpoint import CHECKPOINT, PLAN, PreviousReference, State, has_checkpoint, read_state
from mvl_auto.runs.trained import Trained, load_trained


@dataclass(frozen=True)
class TrainedRun:
    """The folds of one run that predict together."""

    folder: Path  # <root>/results/<dataset>/<run>
    folds: tuple[tuple[Path, State], ...]  # folder and state of each fold, in order

    @cached_property
    def plan(self) -> Plan:
        return read_document(self.folder / PLAN, Plan, remedy="Train this run anew with mvl_train.")

    @property
    def configuration(self) -> Configuration:
        return self.plan.configuration(self.folds[0][1].configuration)

    @property
    def fold_names(self) -> tuple[str, ...]:
        return tuple(state.fold for _, state in self.folds)

    @cached_property
    def previous(self) -> TrainedRun | None:
        """Of a cascade's second stage: the first, with the very folds that the second was trained after.

        Raises MvlError when the folds were trained after different ones, or those have changed.
        """
        if self.configuration.previous_stage is None:
            return None
        references = {state.fold: state.previous for _, state in self.folds}
        reference = references[self.fold_names[0]]
        different = [fold for fold, each in references.items() if each != reference]
        if reference is None or different:
            raise MvlError(
                f"has folds {self.fold_names[0]} and {different[0]} that were trained after different first stages"
                if different
                else "does not say which first stage it was trained after",
                file=self.folder,
                remedy=f"Choose folds with -f {self.fold_names[0]}." if different else "Train it again with mvl_train.",
            )
        return _first_stage(self, reference)

    def checkpoints(self) -> dict[str, str]:
        """sha256 of the checkpoint of each fold: which weights these are."""
        return {state.fold: sha256_of_file(folder / CHECKPOINT) for folder, state in self.folds}

    def load(self, blocks_folder: Path) -> list[Trained]:
        """The networks, in eval mode, on the CPU. Raises MvlError as `load_trained` does."""
        return [load_trained(folder, blocks_folder) for folder, _ in self.folds]


def read_run(folder: Path, configuration: str | None = None) -> TrainedRun:
    """A run with all its folds (of one configuration) that have a checkpoint. Raises MvlError for a damaged one."""
    there = [entry for entry in subfolders(folder) if entry.name.startswith("fold") and has_checkpoint(entry)]
    folds = tuple((fold, read_state(fold)) for fold in there)
    return TrainedRun(folder, tuple(each for each in folds if configuration in (None, each[1].configuration)))


def _first_stage(run: TrainedRun, reference: PreviousReference) -> TrainedRun:
    """The folds that a reference names, unchanged. Raises MvlError for one that is not."""
    folder = run.folder.parent / reference.run
    there = {state.fold: (fold, state) for fold, state in (read_run(folder).folds if folder.is_dir() else ())}
    first = TrainedRun(folder, tuple(there[fold] for fold in reference.checkpoints if fold in there))
    now = first.checkpoints()
    for fold, checkpoint in reference.checkpoints.items():
        if now.get(fold) != checkpoint:
            raise MvlError(
                f"was trained after fold {fold} of {reference.run}, which "
                + ("has been trained again since" if fold in now else "is not there any more"),
                file=run.folder,
                remedy=f"Restore {folder}, or delete this run and train it again with mvl_train.",
            )
    return first


def short_name(dataset: str) -> str:
    """The shortest argument that names a dataset: 4 for Dataset004_Hippocampus."""
    match = FOLDER_NAME.match(dataset)
    return str(int(match["number"])) if match else dataset


def subfolders(folder: Path) -> list[Path]:
    """In order, without the hidden ones."""
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
