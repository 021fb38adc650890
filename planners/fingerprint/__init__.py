"""The fingerprint of a dataset: every case is read once and summarized."""

from mvl_auto.planners.fingerprint.anomalies import left_out
from mvl_auto.planners.fingerprint.dataset import changed_cases, fingerprint_dataset
from mvl_auto.planners.fingerprint.grouping import AnomalyGroup, group_anomalies

__all__ = ["AnomalyGroup", "changed_cases", "fingerprint_dataset", "group_anomalies", "left_out"]
