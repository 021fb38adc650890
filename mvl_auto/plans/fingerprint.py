"""fingerprint.json: what a dataset is."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from mvl_auto.files import sha256_of_json
from mvl_auto.plans.document import (
    MOST_CASES,
    MOST_CHANNELS,
    MOST_CLASSES,
    Document,
    FileEnding,
    Frozen,
    Name,
    Shape,
    Text,
    Vector,
    Voxels,
)
from mvl_auto.plans.labels import Channel, LabelScheme

PerClass = Annotated[tuple[Voxels, ...], Field(max_length=MOST_CLASSES)]
Anomalies = Annotated[tuple["Anomaly", ...], Field(max_length=100 * MOST_CASES)]


class ChannelStatistics(Frozen):
    """Intensities inside the labels (nnU-Net's foreground intensities)."""

    mean: float
    median: float
    std: float = Field(ge=0)
    min: float
    max: float
    percentile_00_5: float
    percentile_99_5: float


class CaseFingerprint(Frozen):
    name: Name
    shape: Shape = Field(alias="size", description="voxels as the image is stored, canonical orientation, Z Y X")
    spacing: Vector = Field(description="mm, Z Y X")
    shape_after_crop: Shape = Field(alias="size_after_crop", description="voxels after the crop to non-zero, Z Y X")
    class_voxels: PerClass = Field(description="voxels of each class, background first")
    components: PerClass = Field((), description="connected components of each foreground class")
    smallest_object: PerClass = Field((), description="voxels of its smallest component, 0 if absent")
    largest_object: PerClass = Field((), description="voxels of its largest component, 0 if absent")
    foreground_intensity_properties_per_channel: tuple[ChannelStatistics, ...] = Field(
        (), max_length=MOST_CHANNELS, description="of this case alone; empty where nothing is labelled"
    )
    image_hash: Text = Field(description="sha256 of the voxels in canonical orientation: equal for exact duplicates")
    label_hash: Text = Field(description="sha256 of the classes in canonical orientation")
    group: Text = Field(description="patient; cases of one group share a fold")
    files_hash: Text = Field(description="sha256 over the bytes of the case's files: changed files are noticed")


class Anomaly(Frozen):
    """Something unusual that does not stop the work, or why a case is left out of it.

    file is relative to the dataset where it lies in it.
    """

    file: Text
    what: Text
    remedy: Text


class Fingerprint(Document):
    """All that the planner knows of a dataset."""

    dataset: Name = Field(description="Dataset004_Hippocampus")
    channels: tuple[Channel, ...] = Field(min_length=1, max_length=MOST_CHANNELS)
    labels: LabelScheme
    file_ending: FileEnding = Field(description="of the training images, with the dot")
    cases: tuple[CaseFingerprint, ...] = Field(max_length=MOST_CASES, description="sorted by name")
    foreground_intensity_properties_per_channel: tuple[ChannelStatistics, ...] = Field(
        max_length=MOST_CHANNELS, description="over all cases, every case counting the same"
    )
    anomalies: Anomalies = ()
    left_out: Anomalies = Field((), description="what is wrong with cases that were to be left out for it")

    @property
    def hash(self) -> str:
        """sha256 of what the data are, however they are stored: turned or copied files leave it as it is."""
        stored: Any = {
            "mvl_auto_version": True,
            "anomalies": True,
            "left_out": True,
            "file_ending": True,
            "cases": {"__all__": {"files_hash"}},
        }
        return sha256_of_json(self.model_dump(mode="json", exclude=stored))
