"""Prediction: trained networks segment images on the images' own grids."""

from mvl_auto.inference.folder import PredictionReport, predict_folder
from mvl_auto.inference.predict import Prediction, predict_case, predict_prepared
from mvl_auto.inference.sliding_window import stream_logits
from mvl_auto.inference.windows import PredictionSettings, WindowSettings

__all__ = [
    "Prediction",
    "PredictionReport",
    "PredictionSettings",
    "WindowSettings",
    "predict_case",
    "predict_folder",
    "predict_prepared",
    "stream_logits",
]
