"""Loaded networks that predict one image after another: what a Python user holds in hand."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mvl_auto.datasets import Case, hash_files, load_case, to_values
from mvl_auto.errors import MvlError
from mvl_auto.files import Hashes
from mvl_auto.images import RASTER_ENDINGS, Geometry, Volume, file_ending, write_label, write_probabilities
from mvl_auto.inference.label_files import value_names
from mvl_auto.inference.predict import Prediction, network_input, predict_prepared
from mvl_auto.inference.record import Record
from mvl_auto.plans import Configuration, Plan
from mvl_auto.preprocessing.case import PreparedCase, preprocess_case
from mvl_auto.runs import TrainedRun

log = logging.getLogger(__name__)
DEFAULT_ENDING = ".nii.gz"  # where the image is a folder of DICOM slices
PROBABILITIES = "probabilities"  # subfolder


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
        write_label(record.folder / file, values, ready.geometry, labels.class_values, value_names(labels))
        record.finish(case.name)


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


def prediction_file(case: Case) -> str:
    """The case's name with its image's own ending."""
    return case.name + (file_ending(case.images[0]) or DEFAULT_ENDING)


def probabilities_file(case: Case) -> str:
    ending = file_ending(case.images[0])
    return f"{PROBABILITIES}/{case.name}{DEFAULT_ENDING if ending in ('', *RASTER_ENDINGS) else ending}"
