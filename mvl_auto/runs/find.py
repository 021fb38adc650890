"""Which trained networks predict: the one run under the root's results that fits the arguments.

<root>/results/<dataset>/<run>/fold0, fold1, ...       a run is an ensemble of its trained folds

A run of a cascade's second stage leads to that of its first, in the folder beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from mvl_auto.errors import MvlError
from mvl_auto.paths import find_results
from mvl_auto.runs.folds import choose_folds
from mvl_auto.runs.run import TrainedRun, read_run, short_name, subfolders

log = logging.getLogger(__name__)


def find_trained(
    root: Path,
    dataset: str | int | Path | None = None,
    configuration: str | None = None,
    run: str | None = None,
    folds: Sequence[str | int] | None = None,
) -> TrainedRun:
    """The one run under <root>/results that fits the arguments, with its trained folds or those asked for.

    dataset: number, name or path. run: the run's folder name. folds: 0, "0", "fold0", "all"; unfinished ones
    are taken only when they are named here. Raises MvlError when no run fits, saying what to do, or several do,
    listing them with the arguments that choose each.
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


def _with_folds(run: TrainedRun, wanted: Sequence[str | int] | None) -> TrainedRun:
    by_name = {state.fold: (folder, state) for folder, state in run.folds}
    if wanted is None:
        finished = [name for name, (_, state) in by_name.items() if state.finished]
        if not finished:
            state = run.folds[0][1]
            raise MvlError(
                f"is not trained to the end (fold {state.fold} stopped at step {state.step})",
                file=run.folder,
                remedy=f"Go on with the same mvl_train as before; mvl_predict -f {state.fold} takes it as it is.",
            )
        return TrainedRun(run.folder, tuple(by_name[name] for name in finished))
    remedy = "Name one of them, or train it with mvl_train."
    chosen = choose_folds(wanted, by_name, what="trained fold", file=run.folder, remedy=remedy)
    for name in chosen:
        if not by_name[name][1].finished:
            step = by_name[name][1].step
            log.warning("%s: fold %s is not trained to the end, its network of step %d is used", run.folder, name, step)
    return TrainedRun(run.folder, tuple(by_name[name] for name in chosen))


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
            f"no trained network matches {asked}", file=root / "results", remedy=f"There are: {_words(there)}."
        )
    return MvlError(
        "holds no trained network",
        file=root / "results",
        remedy=f"Train one: mvl_train {dataset or 'DATASET'} fold0. Or give the folder of the networks with --root.",
    )


def _several(runs: Sequence[TrainedRun], root: Path) -> MvlError:
    return MvlError(
        f"holds {len(runs)} trained networks", file=root / "results", remedy=f"Choose with {_words(runs, ' or ')}."
    )


def _words(runs: Iterable[TrainedRun], between: str = ", ") -> str:
    """The arguments that choose each of these runs: `-d 4 -n 3d_fullres`."""
    return between.join(f"-d {short_name(each.folder.parent.name)} -n {each.folder.name}" for each in runs)


def _finished(run: TrainedRun) -> bool:
    return any(state.finished for _, state in run.folds)
