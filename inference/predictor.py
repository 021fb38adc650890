"""Loaded networks that predict one image after another, for Python users and for folders."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mvl_auto.arguments import Folds, list_of_folds
from mvl_auto.datasets import Case, hash_files, load_case, to_values
from mvl_auto.errors import MvlError
from mvl_auto.files import Hashes
from mvl_auto.images import RASTER_ENDINGS, Geometry, Volume, file_ending, stem, write_label, write_probabilities
from mvl_auto.images.remarks import remark_on, tell_remarks
from mvl_auto.inference.label_files import value_names
from mvl_auto.inference.predict import Prediction, make_network_input, predict_prepared
from mvl_auto.inference.record import Record
from mvl_auto.inference.windows import PredictionSettings
from mvl_auto.network.device import choose_device
from mvl_auto.paths import blocks_folder, find_root
from mvl_auto.plans import Configuration, Plan
from mvl_auto.preprocessing.case import PreparedCase, preprocess_case
from mvl_auto.runs import TrainedRun, find_trained

log = logging.getLogger(__name__)
DEFAULT_ENDING = ".nii.gz"  # where the image is a folder of DICOM slices
PROBABILITIES = "probabilities"  # subfolder


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """A case that is read and preprocessed."""

    prepared: PreparedCase
    previous: PreparedCase | None  # the same image for the first stage of a cascade
    geometry: Geometry
    files_hash: str


@dataclass(frozen=True)
class Predictor:
    """Loaded networks and the settings that all images share. previous: the first stage of a cascade."""

    networks: Sequence[nn.Module]
    plan: Plan
    configuration: Configuration
    settings: PredictionSettings
    previous: Predictor | None = None

    @classmethod
    def load(
        cls,
        dataset: str | int | Path | None = None,
        *,
        root: Path | str | None = None,
        configuration: str | None = None,
        run: str | None = None,
        folds: Folds | None = None,
        settings: PredictionSettings | None = None,
    ) -> Predictor:
        """The trained networks of a run, on their device; the arguments are as in `mvl_auto.predict`.

        Raises MvlError when no run or several fit the arguments, or a network is damaged.
        """
        settings = settings or PredictionSettings()
        settings = replace(settings, device=str(choose_device(settings.device)))
        found = find_root(root)
        chosen = None if folds is None else list_of_folds(folds)
        trained = find_trained(found, dataset, configuration, run, chosen)
        return load_predictor(trained, blocks_folder(found), settings)

    def segment(self, *images: Path | str) -> NDArray[np.generic]:
        """The label values (Z, Y, X) of one image, turned to RAS+ as `mvl_auto.images.read_image` turns it.

        images: one file or DICOM folder, or one file per channel. Raises MvlError when it cannot be read.
        """
        paths = tuple(Path(image) for image in images)
        image = self.prepare(Case(stem(paths[0]), paths))
        tell_remarks(log, {remark_on(image.geometry.file): paths[:1]})
        found = self.predict(image, lambda share: None)
        values: NDArray[np.generic] = to_values(found.classes, self.plan.labels)
        return values

    def prepare(self, case: Case) -> PreparedImage:
        """Read, check and preprocess a case. Raises MvlError, naming the file, when something is wrong with it."""
        hashes: Hashes = {}
        volume, _ = load_case(case, self.plan.labels, hashes=hashes)
        try:
            prepared = self._prepare(volume)
            previous = None if self.previous is None else self.previous._prepare(volume)
        except MvlError as error:
            raise MvlError(error.what, file=case.images[0], remedy=error.remedy) from error
        return PreparedImage(prepared, previous, volume.geometry, hash_files(case, hashes))

    def predict(self, image: PreparedImage, advance: Callable[[float], None]) -> Prediction:
        """advance: called with the share of the work that was done since its last call."""
        if self.previous is None or image.previous is None:
            return self._predict(image.prepared, None, advance)
        first = self.previous._predict(image.previous, None, lambda share: advance(share / 2))
        return self._predict(image.prepared, first.classes, lambda share: advance(share / 2))

    def _prepare(self, volume: Volume) -> PreparedCase:
        return preprocess_case(volume.array, volume.spacing, None, self.plan, self.configuration)

    def _predict(
        self, prepared: PreparedCase, previous: NDArray[np.int16] | None, advance: Callable[[float], None]
    ) -> Prediction:
        return predict_prepared(
            self.networks,
            self.plan.labels,
            self.configuration,
            make_network_input(prepared, previous, self.plan, self.configuration),
            prepared.trail,
            self.settings,
            advance,
        )

    def write(self, case: Case, image: PreparedImage, prediction: Prediction, record: Record) -> None:
        """Write the prediction into the record's folder, on the grid of the image."""
        labels = self.plan.labels
        file = prediction_file(case)
        record.begin(case.name, file, image.files_hash)
        if prediction.probabilities is not None:
            write_probabilities(record.folder / probabilities_file(case), prediction.probabilities, image.geometry)
        values = to_values(prediction.classes, labels)
        write_label(record.folder / file, values, image.geometry, labels.class_values, value_names(labels))
        record.finish(case.name)


def load_predictor(trained: TrainedRun, blocks: Path, settings: PredictionSettings) -> Predictor:
    """The networks of a run on their device, and those of its first stage, in a cascade.

    settings.device: not "auto". Raises MvlError when a network is damaged, or the first stage is not the one that the
    run was trained with.
    """
    previous = None
    if trained.previous is not None:
        names = ", ".join(trained.previous.fold_names)
        log.info("first stage: %s, folds %s", trained.previous.folder, names)
        previous = load_predictor(trained.previous, blocks, replace(settings, probabilities=False))
    networks = [each.network.to(settings.device) for each in trained.load(blocks)]
    return Predictor(networks, trained.plan, trained.configuration, settings, previous)


def prediction_file(case: Case) -> str:
    """File name of a prediction: the case's name with the ending of its image."""
    return case.name + (file_ending(case.images[0]) or DEFAULT_ENDING)


def probabilities_file(case: Case) -> str:
    """File name of the probabilities, relative to the folder of the predictions."""
    ending = file_ending(case.images[0])
    return f"{PROBABILITIES}/{case.name}{DEFAULT_ENDING if ending in ('', *RASTER_ENDINGS) else ending}"
