"""Which trained networks predict: found under the root's results by as few words as leave no doubt.

<root>/results/<dataset>/<run>/fold0, fold1, ...       a run is an ensemble of its trained folds

A run of a cascade's second stage leads to that of its first, in the folder beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mvl_auto.errors import MvlError
from mvl_auto.files import sha256_of_file
from mvl_auto.network.checkpoint import (
    CHECKPOINT,
    PLAN,
    PreviousReference,
    State,
    Trained,
    load_trained,
    read_state,
)
from mvl_auto.paths import FOLDER_NAME, find_results
from mvl_auto.plans import Configuration, Plan, read_document

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedRun:
    """The folds of one run that shall predict together."""

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

        Raises MvlError when the folds were trained after different ones, or these are not what they were.
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


def find_trained(
    root: Path,
    dataset: str | int | Path | None = None,
    configuration: str | None = None,
    run: str | None = None,
    folds: Sequence[str | int] | None = None,
) -> TrainedRun:
    """The one run under <root>/results that the words leave, with its trained folds or those asked for.

    dataset: number, name or path. run: the run's folder name. folds: 0, "0", "fold0", "all"; unfinished ones
    are taken only when they are named here. Raises MvlError when no run is left, saying what to do, or several,
    listing them with the words that choose.
    """
    folders = [
        folder for each in find_results(dataset, root) for folder in subfolders(each) if run in (None, folder.name)
    ]
    runs = [each for each in (read_run(folder, configuration) for folder in folders) if each.folds]
    if not runs:
        raise _none(root, dataset, configuration, run)
    if folds is None and any(_finished(each) for each in runs):
        runs = [each for each in runs if _finished(each)]
    if len(runs) > 1:
        raise _several(runs, root)
    return _of_one_kind(_with_folds(runs[0], folds))


def read_run(folder: Path, configuration: str | None = None) -> TrainedRun:
    """A run with all its folds (of one configuration) that have a checkpoint. Raises MvlError for a damaged one."""
    there = [entry for entry in subfolders(folder) if entry.name.startswith("fold") and (entry / CHECKPOINT).is_file()]
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
                remedy=f"Bring {folder} back as it was, or delete this run and train it again with mvl_train.",
            )
    return first


def _with_folds(run: TrainedRun, wanted: Sequence[str | int] | None) -> TrainedRun:
    by_name = {state.fold: (folder, state) for folder, state in run.folds}
    if wanted is None:
        finished = [name for name, (_, state) in by_name.items() if state.finished]
        if not finished:
            state = run.folds[0][1]
            raise MvlError(
                f"is not trained to its end (fold {state.fold} stopped at step {state.step})",
                file=run.folder,
                remedy=f"Go on with the same mvl_train as before, or add -f {state.fold} to predict as it is.",
            )
        return TrainedRun(run.folder, tuple(by_name[name] for name in finished))
    chosen = [str(fold).lower().removeprefix("fold").lstrip("_") for fold in wanted]
    for given, name in zip(wanted, chosen, strict=True):
        if name not in by_name:
            raise MvlError(
                f"has no trained fold '{given}' (there are: {', '.join(by_name)})",
                file=run.folder,
                remedy="Name one of them, or train it with mvl_train.",
            )
        if not by_name[name][1].finished:
            step = by_name[name][1].step
            log.warning("%s: fold %s is not trained to its end, it is taken as of step %d", run.folder, name, step)
    return TrainedRun(run.folder, tuple(by_name[name] for name in dict.fromkeys(chosen)))


def _of_one_kind(run: TrainedRun) -> TrainedRun:
    kinds = {state.configuration for _, state in run.folds}
    if len(kinds) > 1:
        words = " or ".join(f"-c {kind}" for kind in sorted(kinds))
        raise MvlError("has folds of several configurations", file=run.folder, remedy=f"Choose with {words}.")
    return run


def _none(root: Path, dataset: str | int | Path | None, configuration: str | None, run: str | None) -> MvlError:
    asked = " ".join([f"-n {run}"] * bool(run) + [f"-c {configuration}"] * bool(configuration))
    there = [each for folder in find_results(dataset, root) for each in map(read_run, subfolders(folder)) if each.folds]
    if there:
        return MvlError(
            f"no trained network answers to {asked}", file=root / "results", remedy=f"There are: {_words(there)}."
        )
    return MvlError(
        "holds no trained network",
        file=root / "results",
        remedy=f"Train one: mvl_train {dataset or 'DATASET'} fold0. Or say with --root where the networks are.",
    )


def _several(runs: Sequence[TrainedRun], root: Path) -> MvlError:
    return MvlError(
        f"holds {len(runs)} trained networks", file=root / "results", remedy=f"Choose with {_words(runs, ' or ')}."
    )


def _words(runs: Iterable[TrainedRun], between: str = ", ") -> str:
    """The arguments that choose each of these runs: `-d 4 -n 3d_fullres`."""
    return between.join(f"-d {short_name(each.folder.parent.name)} -n {each.folder.name}" for each in runs)


def short_name(dataset: str) -> str:
    """A dataset in as few letters as a command takes: 4 for Dataset004_Hippocampus."""
    match = FOLDER_NAME.match(dataset)
    return str(int(match["number"])) if match else dataset


def _finished(run: TrainedRun) -> bool:
    return any(state.finished for _, state in run.folds)


def subfolders(folder: Path) -> list[Path]:
    """In order, without the hidden ones."""
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
