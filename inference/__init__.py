"""Prediction: trained networks, and images, to segmentations on the images' own grids."""

from mvl_auto.inference.folder import Report, predict_folder
from mvl_auto.inference.predict import Prediction, predict_case, predict_prepared
from mvl_auto.inference.sliding_window import sliding_window, stream_logits

__all__ = [
    "Prediction",
    "Report",
    "predict_case",
    "predict_folder",
    "predict_prepared",
    "sliding_window",
    "stream_logits",
]
