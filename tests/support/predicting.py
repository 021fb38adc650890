"""Prediction of a folder, in one call, and how to read the result without the product."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from mvl_auto.inference import PredictionSettings, predict_folder
from mvl_auto.progress import silent
from mvl_auto.runs import find_trained

VALUES = (0, 7, 255)  # of the labels in a file


def predicted(images: Path, output: Path, root: Path, folds=None, overwrite=False, progress=silent, **settings):
    """The report. settings: of PredictionSettings."""
    trained, on_cpu = find_trained(root, folds=folds), PredictionSettings("cpu", **settings)
    return predict_folder(images, output, trained, root / "blocks", on_cpu, overwrite=overwrite, progress=progress)


def values(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
