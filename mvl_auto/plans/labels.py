"""Labels and channels of a dataset, as the contract has them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from mvl_auto.plans.document import MOST_CLASSES, Frozen, Text

IGNORE = -1  # in cached label maps: voxels that neither loss nor metrics look at

Value = Annotated[int, Field(ge=-(1 << 63), lt=1 << 64)]  # in a label file
ClassNumber = Annotated[int, Field(ge=0, lt=MOST_CLASSES)]
Numbers = Annotated[tuple[ClassNumber, ...], Field(max_length=MOST_CLASSES)]
Words = Annotated[tuple[Text, ...], Field(max_length=MOST_CLASSES)]


class LabelScheme(Frozen):
    """The labels of a dataset: what their files hold, and what the network predicts.

    Files may hold any integers; the cache holds the consecutive classes 0 (background), 1, 2, ...,
    and IGNORE; predictions are written in the file's own values again. With `regions`
    (overlapping targets, nnU-Net's region-based training) the network predicts one sigmoid channel
    per region instead of a softmax over the classes.
    """

    class_values: tuple[Value, ...] = Field(
        min_length=1, max_length=MOST_CLASSES, description="value in the files of each class; background first"
    )
    class_names: Words = Field(description="name of each class; background first")
    ignore_value: Value | None = Field(None, description="value in the files of voxels nobody labelled")
    region_names: Words = ()
    regions: tuple[Numbers, ...] = Field(
        (), max_length=MOST_CLASSES, description="the classes that make up each region"
    )
    regions_class_order: Numbers = Field(
        (), description="the class written where a region is predicted; later regions overwrite earlier ones"
    )

    @model_validator(mode="after")
    def _consistent(self) -> LabelScheme:
        if len(self.class_values) != len(self.class_names) or len(set(self.class_values)) != len(self.class_values):
            raise ValueError("class_values must be distinct, one for each of class_names")
        if not len(self.regions) == len(self.region_names) == len(self.regions_class_order):
            raise ValueError("regions, region_names and regions_class_order must have one entry per region")
        named = {*self.regions_class_order, *(number for region in self.regions for number in region)}
        if named and max(named) >= len(self.class_values):
            raise ValueError("regions and regions_class_order must consist of class numbers")
        return self

    @property
    def has_regions(self) -> bool:
        return bool(self.regions)

    @property
    def num_outputs(self) -> int:
        """Channels of the network's output: classes with background, or regions."""
        return len(self.regions) if self.has_regions else len(self.class_values)

    @property
    def foreground_names(self) -> tuple[str, ...]:
        """What is scored: the regions, or the classes without the background."""
        return self.region_names if self.has_regions else self.class_names[1:]

    @property
    def foreground_classes(self) -> tuple[tuple[int, ...], ...]:
        """For each of foreground_names, the classes whose voxels belong to it."""
        return self.regions if self.has_regions else tuple((k,) for k in range(1, len(self.class_values)))


class Channel(Frozen):
    name: Text = Field(description="modality as dataset.json gives it: CT, T1, noNorm, R, ...")
