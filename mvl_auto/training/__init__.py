"""Training: from the cache of a fold to a checkpoint and its validation."""

from mvl_auto.network.team import together
from mvl_auto.training.pretrain import PretrainingResult, pretrain
from mvl_auto.training.train import TrainingOptions, TrainingResult, train

__all__ = ["PretrainingResult", "TrainingOptions", "TrainingResult", "pretrain", "together", "train"]
