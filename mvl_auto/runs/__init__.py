"""What a run is on disk: checkpoints, trained networks, folds, and how a run is found."""

from mvl_auto.runs.checkpoint import PRETRAINING, BlockReference, PreviousReference, State
from mvl_auto.runs.find import find_trained
from mvl_auto.runs.folds import ALL, SUMMARY, VALIDATION, choose_folds, fold_folder
from mvl_auto.runs.history import COLUMNS, HISTORY, read_curves, read_history
from mvl_auto.runs.run import TrainedRun, read_run, short_name
from mvl_auto.runs.trained import Trained, load_trained, network_of

__all__ = [
    "ALL",
    "COLUMNS",
    "HISTORY",
    "PRETRAINING",
    "SUMMARY",
    "VALIDATION",
    "BlockReference",
    "PreviousReference",
    "State",
    "Trained",
    "TrainedRun",
    "choose_folds",
    "find_trained",
    "fold_folder",
    "load_trained",
    "network_of",
    "read_curves",
    "read_history",
    "read_run",
    "short_name",
]
