"""Self-configuration: what a dataset is (fingerprint), what shall be done with it (plan), who validates (splits)."""

from mvl_auto.planners.budget import PRESETS, Budget, budget_here
from mvl_auto.planners.by_hand import ByHand
from mvl_auto.planners.fingerprint import changed_cases, fingerprint_dataset
from mvl_auto.planners.planner import plan
from mvl_auto.planners.splits import split

__all__ = ["PRESETS", "Budget", "ByHand", "budget_here", "changed_cases", "fingerprint_dataset", "plan", "split"]
