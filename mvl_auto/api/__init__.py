"""The functions that the commands call, and anyone's own Python:

    plan_and_preprocess -> train -> predict -> evaluate, and beside them doctor before, explain after

Each finds its folders under one root, calls one stage, and leaves the result on disk for the next.
What is in the stages is not repeated here, and nothing is decided here but which files belong together.
"""

from mvl_auto.api.ablation import ablate
from mvl_auto.api.planning import doctor, plan_and_preprocess
from mvl_auto.api.prediction import explain, free_looks, predict
from mvl_auto.api.scoring import audit, compare, evaluate, evaluate_raters, report
from mvl_auto.api.training import choose_folds, pretrain, train

__all__ = [
    "ablate",
    "audit",
    "choose_folds",
    "compare",
    "doctor",
    "evaluate",
    "evaluate_raters",
    "explain",
    "free_looks",
    "plan_and_preprocess",
    "predict",
    "pretrain",
    "report",
    "train",
]
