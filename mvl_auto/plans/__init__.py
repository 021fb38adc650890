"""The contract between the stages: what each writes for the next one to read.

fingerprint.json   Fingerprint    what the dataset is           planners -> planners
plans.json         Plan           what shall be done with it    planners -> everyone
splits.json        Splits         who trains, who validates     planners -> training
dataset.json       DatasetRecord  where the raw data lies       planners -> training
<case>.json        CachedCase     one preprocessed case         preprocessing -> training
previous/.../<case>.json   PreviousCase   what the stage before segmented in it   inference -> training
"""

from mvl_auto.plans.block import BFLOAT16, BlockSizes, LlmSettings
from mvl_auto.plans.cache import CachedCase, PreviousCase, Trail
from mvl_auto.plans.document import SCHEMA_VERSION, Document, Frozen, Shape, Vector, read_document, write_document
from mvl_auto.plans.fingerprint import Anomaly, CaseFingerprint, ChannelStatistics, Fingerprint
from mvl_auto.plans.labels import IGNORE, Channel, LabelScheme
from mvl_auto.plans.plan import (
    BY_STATISTICS,
    Configuration,
    ConfigurationName,
    DatasetRecord,
    NetworkSettings,
    Normalization,
    Plan,
    Splits,
)

__all__ = [
    "BFLOAT16",
    "BY_STATISTICS",
    "IGNORE",
    "SCHEMA_VERSION",
    "Anomaly",
    "BlockSizes",
    "CachedCase",
    "CaseFingerprint",
    "Channel",
    "ChannelStatistics",
    "Configuration",
    "ConfigurationName",
    "DatasetRecord",
    "Document",
    "Fingerprint",
    "Frozen",
    "LabelScheme",
    "LlmSettings",
    "NetworkSettings",
    "Normalization",
    "Plan",
    "PreviousCase",
    "Shape",
    "Splits",
    "Trail",
    "Vector",
    "read_document",
    "write_document",
]
