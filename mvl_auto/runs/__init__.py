"""What a run is on disk: checkpoints, trained networks, folds, and how a run is found."""

from mvl_auto.runs.checkpoint import BlockReference, PreviousReference, State
from mvl_auto.runs.find import find_trained
from mvl_auto.runs.run import TrainedRun, read_run, short_name
from mvl_auto.runs.trained import Trained, load_trained, network_of

__all__ = [
    "BlockReference",
    "PreviousReference",
    "State",
    "Trained",
    "TrainedRun",
    "find_trained",
    "load_trained",
    "network_of",
    "read_run",
    "short_name",
]
