"""The contract between the stages: what each writes for the next one to read.

fingerprint.json   Fingerprint    what the dataset is           planners -> planners
plans.json         Plan           what shall be done with it    planners -> everyone
splits.json        Splits         who trains, who validates     planners -> training
dataset.json       DatasetRecord  where the raw data lies       planners -> training
<case>.json        CachedCase     one preprocessed case         preprocessing -> training
previous/.../<case>.json   PreviousCase   what the stage before segmented in it   inference -> training
"""

from mvl_auto.plans.block import BFLOAT16, PLANNED_TOKENS, POOLED_CELL, BlockSizes, LlmSettings, Tokens
from mvl_auto.plans.cache import CachedCase, PreviousCase, Trail
from mvl_auto.plans.document import (
    DELETE_AND_PLAN,
    LARGEST_SIDE,
    MOST_CHANNELS,
    MOST_CLASSES,
    PLAN_AGAIN,
    SCHEMA_VERSION,
    Document,
    FileEnding,
    FoldName,
    Frozen,
    Name,
    Shape,
    Text,
    Vector,
    build,
    first_fault,
    parse_document,
    read_document,
    write_document,
)
from mvl_auto.plans.fingerprint import Anomaly, CaseFingerprint, ChannelStatistics, Fingerprint
from mvl_auto.plans.labels import IGNORE, Channel, LabelScheme
from mvl_auto.plans.plan import (
    BY_STATISTICS,
    LARGEST_BATCH,
    LARGEST_WIDTH,
    MOST_BLOCKS,
    MOST_STEPS,
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
    "DELETE_AND_PLAN",
    "IGNORE",
    "LARGEST_BATCH",
    "LARGEST_SIDE",
    "LARGEST_WIDTH",
    "MOST_BLOCKS",
    "MOST_CHANNELS",
    "MOST_CLASSES",
    "MOST_STEPS",
    "PLANNED_TOKENS",
    "PLAN_AGAIN",
    "POOLED_CELL",
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
    "FileEnding",
    "Fingerprint",
    "FoldName",
    "Frozen",
    "LabelScheme",
    "LlmSettings",
    "Name",
    "NetworkSettings",
    "Normalization",
    "Plan",
    "PreviousCase",
    "Shape",
    "Splits",
    "Text",
    "Tokens",
    "Trail",
    "Vector",
    "build",
    "first_fault",
    "parse_document",
    "read_document",
    "write_document",
]
