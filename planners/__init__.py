"""Self-configuration: what a dataset is (fingerprint), what shall be done with it (plan), who validates (splits).

And what is wrong with it (examine_dataset), and a copy of it where that is mended (repair_dataset).
"""

from mvl_auto.planners.block import Block
from mvl_auto.planners.budget import PRESETS, Budget, budget_here, preset_budget
from mvl_auto.planners.by_hand import ByHand
from mvl_auto.planners.doctor import Diagnosis, Finding, examine_dataset
from mvl_auto.planners.fingerprint import changed_cases, fingerprint_dataset, left_out
from mvl_auto.planners.planner import plan
from mvl_auto.planners.repair import Repairs, repair_dataset
from mvl_auto.planners.repair_case import Repair
from mvl_auto.planners.splits import split
from mvl_auto.planners.timing import step_seconds_on

__all__ = [
    "PRESETS",
    "Block",
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
