"""What a run's folder has, for its report: tolerant, because unfinished and damaged runs have reports too.

    <run>/plans.json                     the plan in words
    <run>/fold0/state.json               how far the fold is, its seed and cases
    <run>/fold0/progress.csv             the curves of training
    <run>/fold0/summary.json             the scores of its validation; validation/scores.json, if mvl_evaluate wrote it,
                                         has more metrics and is taken instead
    <run>/fold0/log.txt                  the command and the warnings
    <root>/preprocessed/<dataset>        where the raw dataset lies, and what the doctor found in it

Whatever is missing or damaged becomes a sentence in `problems`; the rest is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mvl_auto.datasets import Dataset, inspect_dataset
from mvl_auto.errors import MvlError
from mvl_auto.evaluation.scored import ScoredRun
from mvl_auto.evaluation.scored import read_run as read_scores
from mvl_auto.files import entries, reading
from mvl_auto.images import stem
from mvl_auto.paths import preprocessed_folder
from mvl_auto.plans import Anomaly, Configuration, DatasetRecord, Fingerprint, Plan, read_document
from mvl_auto.report.machine import ENVIRONMENT, Environment
from mvl_auto.runs import HISTORY, State, read_curves
from mvl_auto.runs.checkpoint import PLAN, STATE

if TYPE_CHECKING:
    from collections.abc import Callable

Found = TypeVar("Found")

SUMMARY, LOG, VALIDATION, SCORES = "summary.json", "log.txt", "validation", "scores.json"
LOG_LINE = re.compile(r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ (?P<level>[A-Z]+) (?P<message>.*)")
STARTED = re.compile(r"mvl_auto (?P<version>\S+), Python (?P<python>\S+): (?P<command>.+)")


@dataclass(frozen=True)
class LogLine:
    """One line of a log.txt; lines below it without a time of their own belong to it."""

    time: str
    level: str
    message: str


@dataclass(frozen=True, eq=False)
class FoldRecord:
    """One fold of a run. What is None was not there; `problems` says so."""

    name: str  # fold0
    folder: Path
    state: State | None
    curves: Mapping[str, tuple[float, ...]]  # column of progress.csv -> its values, NaN where a cell is empty
    scores: ScoredRun | None
    log: tuple[LogLine, ...]
    predictions: Mapping[str, Path]  # case -> the file of its prediction
    environment: Environment | None
    problems: tuple[str, ...]

    @property
    def finished(self) -> bool:
        return self.state is not None and self.state.finished

    @property
    def commands(self) -> list[str]:
        """The commands that trained it, as they were typed, each once."""
        found = (STARTED.fullmatch(line.message) for line in self.log)
        return list(dict.fromkeys(match["command"] for match in found if match))

    @property
    def versions(self) -> list[str]:
        """mvl_auto and Python of each start, each once."""
        found = (STARTED.fullmatch(line.message) for line in self.log)
        return list(dict.fromkeys(f"mvl_auto {match['version']}, Python {match['python']}" for match in found if match))


@dataclass(frozen=True, eq=False)
class RunRecord:
    """A run: its plan, its folds, and the dataset that it was trained on, as far as they can be read."""

    name: str
    folder: Path
    plan: Plan | None
    configuration: Configuration | None
    folds: tuple[FoldRecord, ...]
    raw: Dataset | None
    anomalies: tuple[Anomaly, ...]  # what mvl_doctor reports too
    preparation: tuple[LogLine, ...]  # the log of mvl_plan_and_preprocess
    problems: tuple[str, ...]

    @property
    def dataset(self) -> str:
        return self.plan.dataset if self.plan else self.folder.parent.name

    @property
    def all_problems(self) -> list[str]:
        return [*self.problems, *(f"{fold.name}: {problem}" for fold in self.folds for problem in fold.problems)]


def collect_run(folder: Path, name: str = "") -> RunRecord:
    """Read a run, or one fold of it when `folder` is a fold. name: for a report of several (default: the folder's).

    Raises MvlError when the folder does not exist or holds nothing of a run.
    """
    folder = Path(folder).absolute()
    there = entries(folder)
    one_fold = folder.name.startswith("fold") and not (folder / PLAN).is_file()
    run = folder.parent if one_fold else folder
    places = [folder] if one_fold else [each for each in there if each.is_dir() and each.name.startswith("fold")]
    if not places and not (run / PLAN).is_file():
        raise MvlError(
            "is not a training run: it has no fold0, fold1, ... and no plans.json",
            file=folder,
            remedy="Name a folder like results/Dataset004_Hippocampus/3d_fullres, or train with mvl_train.",
        )
    problems: list[str] = []
    plan = _tolerant(problems, lambda: read_document(run / PLAN, Plan))
    folds = tuple(_collect_fold(place) for place in places)
    if not folds:
        problems.append("No fold was trained yet.")
    configuration = _tolerant(problems, lambda: _configuration(plan, folds, run)) if plan else None
    prepared = preprocessed_folder(run.parents[2], plan.dataset if plan else run.parent.name)
    record = _tolerant(problems, lambda: read_document(prepared / "dataset.json", DatasetRecord))
    raw = _tolerant(problems, lambda: inspect_dataset(Path(record.folder))[0]) if record else None
    fingerprint = _tolerant(problems, lambda: read_document(prepared / "fingerprint.json", Fingerprint))
    return RunRecord(
        name=name or run.name,
        folder=run,
        plan=plan,
        configuration=configuration,
        folds=folds,
        raw=raw,
        anomalies=(*fingerprint.left_out, *fingerprint.anomalies) if fingerprint else (),
        preparation=_tolerant(problems, lambda: read_log(prepared / LOG)) or (),
        problems=tuple(problems),
    )


def read_log(path: Path) -> tuple[LogLine, ...]:
    """The lines of a log.txt; none where there is no file. Raises MvlError when it cannot be read."""
    if not path.is_file():
        return ()
    with reading(path):
        text = path.read_text(encoding="utf-8", errors="replace")
    lines: list[LogLine] = []
    for line in text.splitlines():
        match = LOG_LINE.match(line)
        if match:
            lines.append(LogLine(match["time"], match["level"], match["message"]))
        elif lines:
            last = lines[-1]
            lines[-1] = LogLine(last.time, last.level, f"{last.message}\n{line}")
    return tuple(lines)


def find_predictions(fold: Path) -> dict[str, Path]:
    """Case -> file of its prediction in the validation of a fold. Raises MvlError when the folder cannot be read."""
    folder = fold / VALIDATION
    there = entries(folder) if folder.is_dir() else []
    others = {".json", ".csv"}  # what mvl_evaluate wrote
    return {stem(path): path for path in there if path.is_file() and path.suffix not in others and path.name[0] != "."}


def _collect_fold(folder: Path) -> FoldRecord:
    problems: list[str] = []
    state = _tolerant(problems, lambda: read_document(folder / STATE, State))
    curves = _tolerant(problems, lambda: read_curves(folder / HISTORY))
    if state is not None and not state.finished:
        problems.append(f"The training is not finished: {state.step} steps are done.")
    expected = state is None or (state.finished and bool(state.validation_cases))
    scores = _read_scores(folder, problems) if expected else None
    environment = None
    if (folder / ENVIRONMENT).is_file():
        environment = _tolerant(problems, lambda: read_document(folder / ENVIRONMENT, Environment))
    predictions = _tolerant(problems, lambda: find_predictions(folder)) or {}
    if scores is not None and (lacking := [case for case in scores.cases if case not in predictions]):
        problems.append(f"validation/ lacks the predictions of {len(lacking)} of {len(scores.cases)} scored cases.")
    return FoldRecord(
        name=folder.name,
        folder=folder,
        state=state,
        curves=curves or {},
        scores=scores,
        log=_tolerant(problems, lambda: read_log(folder / LOG)) or (),
        predictions=predictions,
        environment=environment,
        problems=tuple(problems),
    )


def _read_scores(folder: Path, problems: list[str]) -> ScoredRun | None:
    """The scores of mvl_evaluate on validation/, if they cover the validation's cases, else those of the training."""
    own = _tolerant(problems, lambda: read_scores(folder / SUMMARY, folder.name))
    more = folder / VALIDATION / SCORES
    found = _tolerant(problems, lambda: read_scores(more, folder.name)) if more.is_file() else None
    return found if found and set(found.cases) >= set(own.cases if own else ()) else own


def _configuration(plan: Plan, folds: tuple[FoldRecord, ...], run: Path) -> Configuration:
    """That of the folds; where no state can be read, the one that the folder is named after, or the recommended one."""
    names = [fold.state.configuration for fold in folds if fold.state]
    if not names and run.name in plan.configurations:
        names = [run.name]
    return plan.configuration(names[0] if names else None)


def _tolerant(problems: list[str], read: Callable[[], Found]) -> Found | None:
    """What `read` returns; or None and a sentence in `problems`."""
    try:
        return read()
    except MvlError as error:
        problems.append(str(error))
        return None
