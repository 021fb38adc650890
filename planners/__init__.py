"""Self-configuration: what a dataset is (fingerprint), what shall be done with it (plan), who validates (splits).

And what is wrong with it (examine_dataset), and a copy of it where that is mended (repair_dataset).
"""

from mvl_auto.planners.budget import PRESETS, Budget, budget_here, preset_budget
from mvl_auto.planners.cost.timing import step_seconds_on
from mvl_auto.planners.doctor.diagnosis import Diagnosis, Finding, examine_dataset
from mvl_auto.planners.doctor.piece import Repair
from mvl_auto.planners.doctor.repair import Repairs, repair_dataset
from mvl_auto.planners.fingerprint.anomalies import left_out
from mvl_auto.planners.fingerprint.dataset import changed_cases, fingerprint_dataset
from mvl_auto.planners.overrides import ByHand
from mvl_auto.planners.planner import plan
from mvl_auto.planners.splits import split
from mvl_auto.plans import BlockSizes

__all__ = [
    "PRESETS",
    "BlockSizes",
    "Budget",
    "ByHand",
    "Diagnosis",
    "Finding",
    "Repair",
    "Repairs",
    "budget_here",
    "changed_cases",
    "examine_dataset",
    "fingerprint_dataset",
    "left_out",
    "plan",
    "preset_budget",
    "repair_dataset",
    "split",
    "step_seconds_on",
]
