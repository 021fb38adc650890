"""The cards of the cache: one preprocessed case, and what a cascade's first stage segmented in it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from mvl_auto.plans.document import (
    MOST_CLASSES,
    Axes,
    Axis,
    Document,
    FoldName,
    Frozen,
    Name,
    Shape,
    Text,
    Vector,
    Voxels,
)

Range = Annotated[tuple[Voxels, Voxels], Field(description="start and stop, voxels")]


class Trail(Frozen):
    """How an image became a network-space array, to go back the same way.

    All shapes Z Y X. Forward: canonical array -> transpose -> crop -> resample.
    """

    shape: Shape = Field(alias="size", description="voxels of the canonical array before everything")
    transpose_forward: Axes
    crop: tuple[Range, ...] = Field(max_length=3, description="start and stop per axis, after the transpose")
    spacing: Vector = Field(description="mm after the transpose, before resampling")
    resampled_shape: Shape = Field(alias="resampled_size", description="voxels of the network-space array")
    resampled_spacing: Vector = Field(description="mm of the network-space array")
    separate_axis: Axis | None = Field(description="axis that was resampled apart from the others, with order 0")

    @model_validator(mode="after")
    def _consistent(self) -> Trail:
        each = (self.shape, self.crop, self.spacing, self.resampled_shape, self.resampled_spacing)
        if sorted(self.transpose_forward) != [0, 1, 2] or any(len(axes) != 3 for axes in each):
            raise ValueError("the image, the crop and the network-space array must have three axes each")
        for (start, stop), axis in zip(self.crop, self.transpose_forward, strict=True):
            if not start < stop <= self.shape[axis]:
                raise ValueError("the crop must lie inside the image")
        return self


class CachedCase(Document):
    """Written last: a case without it is not in the cache."""

    name: Name
    shape: Shape = Field(description="C Z Y X of the image array")
    trail: Trail
    files_hash: Text = Field(description="of the raw files, as in CaseFingerprint")
    settings_hash: Text = Field(description="Plan.preprocessing_hash: the settings it was made with")
    class_voxels: tuple[Voxels, ...] = Field(
        max_length=MOST_CLASSES, description="voxels of each class in network space"
    )

    @model_validator(mode="after")
    def _consistent(self) -> CachedCase:
        if self.shape[1:] != self.trail.resampled_shape:
            raise ValueError("the shape must be that of the network-space array, behind its channels")
        return self


class PreviousCase(Document):
    """Where the previous stage's segmentation of a cached case comes from. Written last, as CachedCase is."""

    name: Name
    trail: Trail = Field(description="of the cached case: the segmentation lies on the same grid")
    run: Name = Field(description="of the previous stage")
    fold: FoldName = Field(description="whose network, which has not seen this case, made the segmentation")
    checkpoint: Text = Field(description="sha256 of that network's checkpoint.safetensors")
    prediction: Text = Field(description="sha256 of the segmentation's file in native space")
