"""Self-configuration: the fingerprint of a dataset, the plan for it, and the folds of its cross-validation.

Also what is wrong with a dataset (examine_dataset), and a repaired copy of it (repair_dataset).
"""

from mvl_auto.planners.budget import PRESETS, Budget, budget_here, preset_budget
from mvl_auto.planners.cost.step import TrainingStep
from mvl_auto.planners.cost.timing import time_step
from mvl_auto.planners.doctor.diagnosis import Diagnosis, Finding, examine_dataset
from mvl_auto.planners.doctor.piece import Repair
from mvl_auto.planners.doctor.repair import Repairs, repair_dataset
from mvl_auto.planners.fingerprint.anomalies import left_out
from mvl_auto.planners.fingerprint.dataset import changed_cases, fingerprint_dataset
from mvl_auto.planners.overrides import Overrides
from mvl_auto.planners.planner import plan
from mvl_auto.planners.splits import split
from mvl_auto.plans import BlockSizes

__all__ = [
    "PRESETS",
    "BlockSizes",
    "Budget",
    "Diagnosis",
    "Finding",
    "Overrides",
    "Repair",
    "Repairs",
    "TrainingStep",
    "budget_here",
    "changed_cases",
    "examine_dataset",
    "fingerprint_dataset",
    "left_out",
    "plan",
    "preset_budget",
    "repair_dataset",
    "split",
    "time_step",
]
