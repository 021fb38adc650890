"""Cases brought to one orientation, size of voxel and range of intensities, cached for training, and the way back."""

from mvl_auto.preprocessing.case import PreparedCase, preprocess_case, preprocess_label
from mvl_auto.preprocessing.dataset import PreprocessingReport, preprocess_dataset
from mvl_auto.preprocessing.inverse import labels_in_native_space, to_native
from mvl_auto.preprocessing.resample import resample_image, resample_labels, resample_probabilities

__all__ = [
    "PreparedCase",
    "PreprocessingReport",
    "labels_in_native_space",
    "preprocess_case",
    "preprocess_dataset",
    "preprocess_label",
    "resample_image",
    "resample_labels",
    "resample_probabilities",
    "to_native",
]
