"""A folder of images to a folder of segmentations.

Each is written on the grid of its image, under its image's name, in the label values of the training data. While the
networks work on one image, the next is read and preprocessed and the last one written, in a thread each. What is
there already and whole is not done again (record.py); an image that cannot be read is reported, the others are done.
A cascade's first stage segments each image just before the second does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from mvl_auto.datasets import Case, find_cases
from mvl_auto.errors import MvlError, all_noted
from mvl_auto.files import CannotWrite, clear_unfinished, ensure_writable_folder, locked
from mvl_auto.inference.label_files import write_color_tables, write_label_names
from mvl_auto.inference.predict import Prediction
from mvl_auto.inference.predictor import Predictor, Ready, load_predictor, prediction_file, probabilities_file
from mvl_auto.inference.record import MadeBy, Record, open_record
from mvl_auto.inference.sliding_window import STEP
from mvl_auto.inference.volumes import write_volumes
from mvl_auto.logs import log_file
from mvl_auto.network.device import choose_device
from mvl_auto.progress import Advance, Progress, silent
from mvl_auto.runs import TrainedRun

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class Report:
    """What became of the cases of a folder, by name."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  # there already, and whole
    failed: dict[str, str] = field(default_factory=dict)  # and why


def predict_folder(
    input: Path,
    output: Path,
    trained: TrainedRun,
    blocks_folder: Path,
    *,
    device: str = "auto",
    mirror: bool = True,
    step: float = STEP,
    overwrite: bool = False,
    probabilities: bool = False,
    color_table: bool = False,
    volumes: bool = False,
    progress: Progress = silent,
) -> Report:
    """Predict every image of `input` (a folder, or one image) into the folder `output`.

    trained: from `find_trained`; several folds are an ensemble. step: from one window to the next, a share of the
    patch. overwrite: also what is there already. probabilities: write them too, in output/probabilities.
    color_table: write colour tables for ITK-SNAP and 3D Slicer. volumes: write volumes.csv of what is there then.
    A case whose channels are incomplete is in the report, and the others are done.
    Raises MvlError, before any work, when there is nothing to read, `output` cannot be written or holds predictions
    of other networks, the device does not exist, or a network is damaged; and at once when its disk is full.
    """
    if not 0 < step <= 1:
        raise MvlError(f"the step is {step:g}, it must lie between 0 and 1", remedy="Leave it at 0.5.")
    input, output = Path(input), Path(output)
    if output.resolve() in (input.resolve(), input.resolve().parent if input.is_file() else None):
        raise MvlError(
            "is the folder of the images; predictions have their names", file=output, remedy="Choose another for -o."
        )
    on = choose_device(device)
    problems: list[MvlError] = []
    cases = find_cases(input, len(trained.plan.channels), problems=problems)
    if not cases:
        raise all_noted(problems)
    ensure_writable_folder(output)
    with locked(output, "predicting"), log_file(output / "log.txt"):
        clear_unfinished(output)
        record = open_record(output, _made_by(trained, mirror, step), overwrite)
        whole = [] if overwrite else [case.name for case in cases if _is_whole(case, record, probabilities)]
        report = Report(skipped=whole)
        for problem in problems:
            _failed(Path(problem.file or input).name, problem, report)
        write_label_names(output, trained.plan.labels)
        if color_table:
            write_color_tables(output, trained.plan.labels)
        todo = [case for case in cases if case.name not in set(whole)]
        log.info(
            "%s: %d images to predict, %d are there already; %s, fold%s %s, on %s",
            input, len(todo), len(whole), trained.folder, "s" * (len(trained.folds) > 1),
            ", ".join(trained.fold_names), on,
        )  # fmt: skip
        if todo:
            predictor = load_predictor(trained, blocks_folder, str(on), mirror, step, probabilities)
            with progress("predicting", len(cases), done=len(whole)) as advance:
                predict_cases(predictor, todo, record, report, advance)
        if volumes:
            there = [case for case in cases if case.name not in report.failed]
            pairs = [(case, output / prediction_file(case)) for case in there]
            write_volumes(pairs, output, trained.plan, progress)
    return report


def predict_cases(
    predictor: Predictor, cases: Sequence[Case], record: Record, report: Report, advance: Advance
) -> None:
    """Predict and write cases, entering into `report` what became of each."""
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        being_written: list[tuple[Case, Future[None]]] = []
        for case, reading in ahead(reader, predictor.prepare, cases):
            predicted = _predict(predictor, case, reading, report, advance)
            if predicted is None:
                continue
            _wait_for(being_written, report)
            being_written.append((case, writer.submit(predictor.write, case, *predicted, record)))
        _wait_for(being_written, report)


def ahead(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[Item, Future[Result]]]:
    """Each item with its function's result to come; the next item's is under way by then."""
    previous: tuple[Item, Future[Result]] | None = None
    for item in items:
        current = item, pool.submit(function, item)
        if previous is not None:
            yield previous
        previous = current
    if previous is not None:
        yield previous


def _is_whole(case: Case, record: Record, probabilities: bool) -> bool:
    there = not probabilities or (record.folder / probabilities_file(case)).is_file()
    return record.is_whole(case, prediction_file(case)) and there


def _made_by(trained: TrainedRun, mirror: bool, step: float) -> MadeBy:
    return MadeBy(
        dataset=trained.plan.dataset,
        run=trained.folder.name,
        configuration=trained.configuration.name,
        plan_hash=trained.plan.hash,
        checkpoints=trained.checkpoints(),
        mirror=mirror,
        step=step,
    )


def _predict(
    predictor: Predictor, case: Case, reading: Future[Ready], report: Report, advance: Advance
) -> tuple[Ready, Prediction] | None:
    """The prediction of a case; None, and an entry in the report, where something is wrong with it."""
    left = 1.0

    def go(share: float) -> None:
        nonlocal left
        left -= share
        advance(share, note=case.name)

    try:
        ready = reading.result()
        return ready, predictor.predict(ready, go)
    except MvlError as error:
        _failed(case.name, error, report)
        advance(left, note=case.name)
        return None


def _wait_for(being_written: list[tuple[Case, Future[None]]], report: Report) -> None:
    while being_written:
        case, writing = being_written.pop()
        try:
            writing.result()
        except CannotWrite:  # nor could any other
            raise
        except MvlError as error:
            _failed(case.name, error, report)
        else:
            report.done.append(case.name)


def _failed(name: str, error: MvlError, report: Report) -> None:
    log.error("%s: %s", name, error)
    report.failed[name] = str(error)
