"""Prediction: trained networks, and images, to segmentations on the images' own grids."""

from mvl_auto.inference.cascade import FirstStage, find_first_stage, prepare_first_stage
from mvl_auto.inference.folder import Report, predict_folder
from mvl_auto.inference.models import TrainedRun, find_trained
from mvl_auto.inference.predict import Prediction, predict_case, predict_prepared
from mvl_auto.inference.sliding_window import sliding_window, stream_logits

__all__ = [
    "FirstStage",
    "Prediction",
    "Report",
    "TrainedRun",
    "find_first_stage",
    "find_trained",
    "predict_case",
    "predict_folder",
    "predict_prepared",
    "prepare_first_stage",
    "sliding_window",
    "stream_logits",
]
