"""A folder of images to a folder of segmentations.

Each segmentation is written on the grid of its image, under its image's name, with the label values of the training
data. While the networks work on one image, one thread reads and preprocesses the next and another writes the last one.
Complete predictions are not done again (record.py). An image that cannot be read is reported, the others are done.
A cascade's first stage segments each image just before the second does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from mvl_auto.alike import lines_of_reasons
from mvl_auto.datasets import Case, cases_to_predict
from mvl_auto.errors import MvlError, all_noted
from mvl_auto.files import CannotWrite, clear_unfinished, ensure_writable_folder
from mvl_auto.images.remarks import Remarks, remark_on, tell_remarks
from mvl_auto.inference.label_files import ITK_SNAP, LABELS, SLICER, write_label_names
from mvl_auto.inference.output import check_output_folder
from mvl_auto.inference.predict import Prediction
from mvl_auto.inference.predictor import Predictor, PreparedImage, load_predictor, prediction_file, probabilities_file
from mvl_auto.inference.record import RECORD, MadeBy, Record, open_record
from mvl_auto.inference.volumes import VOLUMES
from mvl_auto.inference.windows import PredictionSettings
from mvl_auto.locks import locked
from mvl_auto.logs import LOG, log_file
from mvl_auto.network.device import choose_device
from mvl_auto.outputs import TRACES, leaving_no_trace
from mvl_auto.progress import ONLY_IN_FILE, Advance, Progress, silent
from mvl_auto.runs import TrainedRun
from mvl_auto.tables import Tabular
from mvl_auto.text import count_text

OF_THE_FOLDER = (RECORD, LABELS, LOG, ITK_SNAP, SLICER, VOLUMES)  # files that belong to no single case

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class PredictionReport(Tabular):
    """Names of the cases, by outcome."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  # complete from an earlier run
    failed: dict[str, str] = field(default_factory=dict)  # name -> reason, in one line

    def as_table(self) -> tuple[list[str], list[list[str]]]:
        done = [[name, "predicted"] for name in self.done] + [[name, "existed already"] for name in self.skipped]
        return ["case", "outcome"], done + [[name, reason] for name, reason in self.failed.items()]


def predict_folder(
    input: Path,
    output: Path,
    trained: TrainedRun,
    blocks_folder: Path,
    settings: PredictionSettings | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
) -> PredictionReport:
    """Predict every image of `input` (a folder, or one image) into the folder `output`.

    trained: from `find_trained`; several folds are an ensemble. settings: None for the defaults. Probabilities go to
    output/probabilities. overwrite: predict images again whose predictions exist.
    labels.json has the names of the labels. A case whose channels are incomplete is in the report, the others are done.
    Raises MvlError, before anything is written, when there is no image, `output` is the folder of the images or holds
    other predictions, or the device does not exist; before the first image, when `output` cannot be written or a
    network is damaged; CannotWrite at once when the disk is full.
    """
    input, output, settings = Path(input), Path(output), settings or PredictionSettings()
    settings = replace(settings, device=str(choose_device(settings.device)))
    problems: list[MvlError] = []
    cases = cases_to_predict(input, trained.plan.channels, problems)
    if not cases:
        raise all_noted(problems)
    made_by = _describe_maker(trained, settings)
    names = _names_of_results(cases, settings)
    check_output_folder(input, output, cases, names, trained, blocks_folder)
    _check_earlier(output, cases, made_by, overwrite)
    with (
        leaving_no_trace(output, traces={*TRACES, LABELS}),
        locked(ensure_writable_folder(output), "predicting"),
        log_file(output / LOG),
    ):
        clear_unfinished(output)
        record = open_record(output, made_by, overwrite)
        skipped = [] if overwrite else [case for case in cases if _is_complete(case, record, settings)]
        for case in skipped:
            record.complete(case.name)
        report = PredictionReport(skipped=[case.name for case in skipped])
        for problem in problems:
            _report_failure(Path(problem.file or input).name, problem, report)
        write_label_names(output, trained.plan.labels)
        todo = [case for case in cases if case.name not in set(report.skipped)]
        log.info(
            "%s: %s to predict, %d complete already; %s, fold%s %s, on %s",
            input, count_text(len(todo), "image"), len(skipped), trained.folder, "s" * (len(trained.folds) > 1),
            ", ".join(trained.fold_names), settings.device,
        )  # fmt: skip
        if todo:
            predictor = load_predictor(trained, blocks_folder, settings)
            with progress("predicting", len(cases), done=len(skipped)) as advance:
                predict_cases(predictor, todo, record, report, advance)
        for line in lines_of_reasons(report.failed):
            log.error("%s", line)
    return report


def predict_cases(
    predictor: Predictor, cases: Sequence[Case], record: Record, report: PredictionReport, advance: Advance
) -> None:
    """Predict and write cases. Adds each to `report`."""
    remarks: Remarks = {}
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        being_written: list[tuple[Case, Future[None]]] = []
        for case, reading in compute_ahead(reader, predictor.prepare, cases):
            predicted = _predict(predictor, case, reading, report, advance)
            if predicted is None:
                continue
            _wait_for(being_written, report)
            image, prediction = predicted
            remarks.setdefault(remark_on(image.geometry.file), []).append(case.images[0])
            being_written.append((case, writer.submit(predictor.write, case, image, prediction, record)))
        _wait_for(being_written, report)
    tell_remarks(log, remarks)


def compute_ahead(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[Item, Future[Result]]]:
    """Yield each item with the future of its result, after the next item was given to the pool."""
    previous: tuple[Item, Future[Result]] | None = None
    for item in items:
        current = item, pool.submit(function, item)
        if previous is not None:
            yield previous
        previous = current
    if previous is not None:
        yield previous


def _names_of_results(cases: Sequence[Case], settings: PredictionSettings) -> list[str]:
    """The files that may be written, relative to the folder of the predictions."""
    more = [probabilities_file(case) for case in cases] if settings.probabilities else []
    return [*OF_THE_FOLDER, *(prediction_file(case) for case in cases), *more]


def _check_earlier(output: Path, cases: Sequence[Case], made_by: MadeBy, overwrite: bool) -> None:
    """Raise MvlError, with nothing written, where `output` holds other predictions than these networks'."""
    record = open_record(output, made_by, overwrite)
    if not overwrite:
        for case in cases:
            record.check_file(case, prediction_file(case))


def _is_complete(case: Case, record: Record, settings: PredictionSettings) -> bool:
    record.check_file(case, prediction_file(case))
    lacks_probabilities = settings.probabilities and not (record.folder / probabilities_file(case)).is_file()
    return not lacks_probabilities and record.is_complete(case, prediction_file(case))


def _describe_maker(trained: TrainedRun, settings: PredictionSettings) -> MadeBy:
    return MadeBy(
        dataset=trained.plan.dataset,
        run=trained.folder.name,
        configuration=trained.configuration.name,
        plan_hash=trained.plan.hash,
        checkpoints=trained.checkpoints(),
        mirror=settings.mirror,
        step_size=settings.step_size,
    )


def _predict(
    predictor: Predictor, case: Case, reading: Future[PreparedImage], report: PredictionReport, advance: Advance
) -> tuple[PreparedImage, Prediction] | None:
    """The prepared image of a case and its prediction; None, and an entry in the report, when that failed."""
    left = 1.0

    def advance_case(share: float) -> None:
        nonlocal left
        left -= share
        advance(share, note=case.name)

    try:
        image = reading.result()
        return image, predictor.predict(image, advance_case)
    except MvlError as error:
        _report_failure(case.name, error, report)
        advance(left, note=case.name)
        return None


def _wait_for(being_written: list[tuple[Case, Future[None]]], report: PredictionReport) -> None:
    while being_written:
        case, writing = being_written.pop()
        try:
            writing.result()
        except CannotWrite:  # no other file could be written either
            raise
        except MvlError as error:
            _report_failure(case.name, error, report)
        else:
            report.done.append(case.name)


def _report_failure(name: str, error: MvlError, report: PredictionReport) -> None:
    log.error("%s: %s", name, error, extra={ONLY_IN_FILE: True})  # at the end it is told with its like
    report.failed[name] = str(error)
