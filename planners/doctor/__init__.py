"""What is wrong with a dataset, and a repaired copy of it."""

from mvl_auto.planners.doctor.diagnosis import Diagnosis, Finding, examine_dataset
from mvl_auto.planners.doctor.piece import Repair
from mvl_auto.planners.doctor.repair import Repairs, repair_dataset

__all__ = [
    "Diagnosis",
    "Finding",
    "Repair",
    "Repairs",
    "examine_dataset",
    "repair_dataset",
]
