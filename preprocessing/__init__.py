"""Preprocessing: cases on one grid, in one range of intensities, cached for training."""

from mvl_auto.preprocessing.case import PreparedCase, preprocess_case, preprocess_label
from mvl_auto.preprocessing.dataset import PreprocessingReport, preprocess_dataset
from mvl_auto.preprocessing.resample import resample_channel, resample_labels

__all__ = [
    "PreparedCase",
    "PreprocessingReport",
    "preprocess_case",
    "preprocess_dataset",
    "preprocess_label",
    "resample_channel",
    "resample_labels",
]
