"""The fingerprint of a dataset: every case is read once and summarised."""

from mvl_auto.planners.fingerprint.anomalies import left_out
from mvl_auto.planners.fingerprint.dataset import changed_cases, fingerprint_dataset

__all__ = ["changed_cases", "fingerprint_dataset", "left_out"]
