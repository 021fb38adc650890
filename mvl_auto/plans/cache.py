"""The cards of the cache: one preprocessed case, and what a cascade's first stage segmented in it."""

from __future__ import annotations

from pydantic import Field

from mvl_auto.plans.document import Document, Frozen, Shape, Vector


class Trail(Frozen):
    """How an image became a network-space array, to go back the same way.

    All shapes Z Y X. Forward: canonical array -> transpose -> crop -> resample.
    """

    size: Shape = Field(description="voxels of the canonical array before everything")
    transpose_forward: Shape
    crop: tuple[tuple[int, int], ...] = Field(description="start and stop per axis, after the transpose")
    spacing: Vector = Field(description="mm after the transpose, before resampling")
    resampled_size: Shape = Field(description="voxels of the network-space array")
    resampled_spacing: Vector = Field(description="mm of the network-space array")
    separate_axis: int | None = Field(description="axis that was resampled apart from the others, with order 0")


class CachedCase(Document):
    """Written last: a case without it is not in the cache."""

    name: str
    shape: Shape = Field(description="C Z Y X of the image array")
    trail: Trail
    files_hash: str = Field(description="of the raw files, as in CaseFingerprint")
    settings_hash: str = Field(description="Plan.preprocessing_hash: the settings it was made with")
    class_voxels: tuple[int, ...] = Field(description="voxels of each class in network space")


class PreviousCase(Document):
    """Where the previous stage's segmentation of a cached case comes from. Written last, as CachedCase is."""

    name: str
    trail: Trail = Field(description="of the cached case: the segmentation lies on the same grid")
    run: str = Field(description="of the previous stage")
    fold: str = Field(description="whose network, which has not seen this case, made the segmentation")
    checkpoint: str = Field(description="sha256 of that network's checkpoint.safetensors")
    prediction: str = Field(description="sha256 of the segmentation's file in native space")
