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

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mvl_auto.dataset import Case, find_cases, hash_files, load_case, to_values
from mvl_auto.errors import MvlError
from mvl_auto.files import CannotWrite, Hashes, clear_unfinished, ensure_writable_folder, locked
from mvl_auto.images import RASTER_ENDINGS, Geometry, Volume, file_ending, write_label, write_probabilities
from mvl_auto.inference.models import TrainedRun
from mvl_auto.inference.predict import Prediction, network_input, predict_prepared
from mvl_auto.inference.record import MadeBy, Record, open_record
from mvl_auto.inference.sliding_window import STEP
from mvl_auto.logs import log_file
from mvl_auto.network.device import choose_device
from mvl_auto.plans import Configuration, Plan
from mvl_auto.preprocessing.case import PreparedCase, preprocess_case
from mvl_auto.progress import Advance, Progress, silent

log = logging.getLogger(__name__)

DEFAULT_ENDING = ".nii.gz"  # where the image is a folder of DICOM slices
PROBABILITIES = "probabilities"  # subfolder

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class Report:
    """What became of the cases of a folder, by name."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  # there already, and whole
    failed: dict[str, str] = field(default_factory=dict)  # and why


@dataclass(frozen=True, eq=False)
class Ready:
    """A case that only waits for the networks."""

    prepared: PreparedCase
    previous: PreparedCase | None  # for the first stage, where there are two
    geometry: Geometry
    files_hash: str


@dataclass(frozen=True)
class Predictor:
    """Loaded networks and how they are used: the same for all images. previous: those of a cascade's first stage."""

    networks: Sequence[nn.Module]
    plan: Plan
    configuration: Configuration
    device: str
    mirror: bool
    step: float
    probabilities: bool
    previous: Predictor | None = None

    def prepare(self, case: Case) -> Ready:
        """Read, check and preprocess a case. Raises MvlError, naming the file, for what is wrong with it."""
        hashes: Hashes = {}
        volume, _ = load_case(case, self.plan.labels, hashes=hashes)
        try:
            prepared = self._prepare(volume)
            previous = None if self.previous is None else self.previous._prepare(volume)
        except MvlError as error:
            raise MvlError(error.what, file=case.images[0], remedy=error.remedy) from error
        return Ready(prepared, previous, volume.geometry, hash_files(case, hashes))

    def predict(self, ready: Ready, advance: Callable[[float], None]) -> Prediction:
        if self.previous is None or ready.previous is None:
            return self._predict(ready.prepared, None, advance)
        first = self.previous._predict(ready.previous, None, lambda share: advance(share / 2))
        return self._predict(ready.prepared, first.classes, lambda share: advance(share / 2))

    def _prepare(self, volume: Volume) -> PreparedCase:
        return preprocess_case(volume.array, volume.spacing, None, self.plan, self.configuration)

    def _predict(
        self, prepared: PreparedCase, previous: NDArray[np.int16] | None, advance: Callable[[float], None]
    ) -> Prediction:
        return predict_prepared(
            self.networks,
            self.plan.labels,
            self.configuration,
            network_input(prepared, previous, self.plan, self.configuration),
            prepared.trail,
            device=self.device,
            mirror=self.mirror,
            step=self.step,
            keep_probabilities=self.probabilities,
            advance=advance,
        )

    def write(self, case: Case, ready: Ready, prediction: Prediction, record: Record) -> None:
        labels = self.plan.labels
        file = prediction_file(case)
        record.begin(case.name, file, ready.files_hash)
        if prediction.probabilities is not None:
            write_probabilities(record.folder / probabilities_file(case), prediction.probabilities, ready.geometry)
        values = to_values(prediction.classes, labels)
        write_label(record.folder / file, values, ready.geometry, labels.class_values)
        record.finish(case.name)


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
    progress: Progress = silent,
) -> Report:
    """Predict every image of `input` (a folder, or one image) into the folder `output`.

    trained: from `find_trained`; several folds are an ensemble. step: from one window to the next, a share of the
    patch. overwrite: also what is there already. probabilities: write them too, in output/probabilities.
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
    cases = find_cases(input, len(trained.plan.channels))
    ensure_writable_folder(output)
    with locked(output, "predicting"), log_file(output / "log.txt"):
        clear_unfinished(output)
        record = open_record(output, _made_by(trained, mirror, step), overwrite)
        whole = [] if overwrite else [case.name for case in cases if _is_whole(case, record, probabilities)]
        report = Report(skipped=whole)
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
    return report


def load_predictor(
    trained: TrainedRun, blocks_folder: Path, device: str, mirror: bool, step: float, probabilities: bool
) -> Predictor:
    """The networks of a run on their device, and those of the first stage that it goes on from, if there is one.

    Raises MvlError when one is damaged, or is not the one that the run was trained with.
    """
    previous = None
    if trained.previous is not None:
        names = ", ".join(trained.previous.fold_names)
        log.info("first stage: %s, folds %s", trained.previous.folder, names)
        previous = load_predictor(trained.previous, blocks_folder, device, mirror, step, probabilities=False)
    networks = [each.network.to(device) for each in trained.load(blocks_folder)]
    return Predictor(networks, trained.plan, trained.configuration, device, mirror, step, probabilities, previous)


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


def prediction_file(case: Case) -> str:
    """The case's name with its image's own ending."""
    return case.name + (file_ending(case.images[0]) or DEFAULT_ENDING)


def probabilities_file(case: Case) -> str:
    ending = file_ending(case.images[0])
    return f"{PROBABILITIES}/{case.name}{DEFAULT_ENDING if ending in ('', *RASTER_ENDINGS) else ending}"


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
        _failed(case, error, report)
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
            _failed(case, error, report)
        else:
            report.done.append(case.name)


def _failed(case: Case, error: MvlError, report: Report) -> None:
    log.error("%s: %s", case.name, error)
    report.failed[case.name] = str(error)
