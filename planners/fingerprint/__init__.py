"""What a dataset is: every case examined once, and the sum of it."""

from mvl_auto.planners.fingerprint.anomalies import left_out
from mvl_auto.planners.fingerprint.dataset import changed_cases, fingerprint_dataset

__all__ = ["changed_cases", "fingerprint_dataset", "left_out"]
