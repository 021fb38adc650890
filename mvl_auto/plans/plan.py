"""plans.json, splits.json and dataset.json: what shall be done with a dataset."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mvl_auto.errors import MvlError
from mvl_auto.files import sha256_of_json
from mvl_auto.plans.block import LlmSettings
from mvl_auto.plans.document import (
    MOST_CHANNELS,
    Axes,
    Document,
    FileEnding,
    Frozen,
    Name,
    Shape,
    Side,
    Strides,
    Text,
    Vector,
)
from mvl_auto.plans.fingerprint import ChannelStatistics
from mvl_auto.plans.labels import Channel, LabelScheme
from mvl_auto.plans.table import plan_table
from mvl_auto.tables import Tabular

ConfigurationName = Literal["2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"]
Normalization = Literal["z_score", "ct", "rescale_to_0_1", "rgb_to_0_1", "none"]
MOST_BLOCKS, LARGEST_WIDTH, LARGEST_BATCH, MOST_STEPS = 1000, 1 << 16, 1 << 16, 10**9
MOST_STEP_VOXELS = 1 << 34  # of all patches of a training step
MOST_WEIGHTS = 1 << 32
MOST_TOKEN_SIDE = 1 << 12
PEAK_LEARNING_RATE, OF_WIDTH = 3e-3, 192  # measured on Hippocampus, with a trunk so wide (docs/experiments.md)
BY_STATISTICS: frozenset[Normalization] = frozenset({"ct"})  # normalized by the dataset's statistics, not by the case's


class NetworkSettings(Frozen):
    """Everything that decides the network's weights; docs/network.md has an equation for each part."""

    spacing: Vector = Field(description="mm of the images that it sees, per axis: positions are embedded in mm")
    stem_channels: tuple[Side, ...] = Field(
        max_length=16, description="channels of each level of the stem, finest first"
    )
    stem_strides: tuple[Strides, ...] = Field(max_length=16, description="stride into each level of the stem, per axis")
    token_stride: Strides = Field(description="stride from the last stem level to the tokens, per axis")
    width: int = Field(ge=1, le=LARGEST_WIDTH, description="channels of a token")
    depth: int = Field(ge=0, le=MOST_BLOCKS, description="ViT blocks; the LLM block is not counted")
    heads: int = Field(ge=1, le=1 << 12)
    mlp_ratio: float = Field(4.0, gt=0, le=64)
    trunk: Literal["transformer", "convolution"] = "transformer"
    attention: Literal["gate", "sum", "global", "local"] = Field(
        "gate", description="hybrid attention: how the global and the local branch are mixed"
    )
    local_branch: Literal["convolution", "attention"] = "convolution"
    decoder: Literal["fusion", "linear"] = "fusion"
    deep_supervision: bool = True
    gradient_checkpointing: bool = False
    llm: LlmSettings = LlmSettings()

    @model_validator(mode="after")
    def _consistent(self) -> NetworkSettings:
        if len(self.stem_channels) != len(self.stem_strides):
            raise ValueError("stem_channels and stem_strides must have one entry per level")
        if any(len(axes) != len(self.token_stride) for axes in (*self.stem_strides, self.spacing)):
            raise ValueError("spacing and all strides must have the same number of axes")
        if self.width % self.heads:
            raise ValueError("width must be a multiple of heads")
        if max(self.token_size) > MOST_TOKEN_SIDE:
            raise ValueError(f"a token must cover at most {MOST_TOKEN_SIDE} voxels per axis")
        return self

    @property
    def dimensions(self) -> int:
        return len(self.token_stride)

    @property
    def peak_learning_rate(self) -> float:
        """The default: PEAK_LEARNING_RATE up to a width of OF_WIDTH, beyond that inversely as the width.

        AdamW's best rate falls so when a network grows wider (Yang et al., Tensor Programs V, arXiv 2203.03466).
        """
        return PEAK_LEARNING_RATE * min(1.0, OF_WIDTH / self.width)

    @property
    def token_size(self) -> Shape:
        """Voxels that one token covers, per axis: the product of all strides."""
        size = list(self.token_stride)
        for stride in self.stem_strides:
            size = [a * b for a, b in zip(size, stride, strict=True)]
        return tuple(size)


class Configuration(Frozen):
    """How one resolution of a dataset is preprocessed, trained and predicted.

    The axes of patch_size and of the network are those of the cached arrays: Z Y X, or Y X in 2d.
    """

    name: ConfigurationName
    spacing: Vector = Field(description="mm, Z Y X after transpose_forward; the Z of 2d is unused")
    median_image_size_in_voxels: tuple[Annotated[float, Field(gt=0, le=1 << 20)], ...] = Field(
        min_length=3, max_length=3, description="at `spacing`, Z Y X after transpose_forward"
    )
    patch_size: Shape = Field(description="voxels of a training crop")
    batch_size: int = Field(ge=1, le=LARGEST_BATCH)
    batch_dice: bool = Field(
        False, description="the Dice loss sums over all patches of a batch (nnU-Net's key); false: patch by patch"
    )
    normalization_schemes: tuple[Normalization, ...] = Field(max_length=MOST_CHANNELS, description="one per channel")
    use_mask_for_norm: tuple[bool, ...] = Field(
        max_length=MOST_CHANNELS, description="one per channel: statistics from non-zero voxels only"
    )
    resample_separate_z: bool = Field(
        description="resample a case's coarse axis apart from the other two, with order 0; false: never"
    )
    network: NetworkSettings
    steps: int = Field(
        ge=1,
        le=MOST_STEPS,
        alias="iterations",
        description="training steps of a run without a budget; in a plan for a given time about as many",
    )
    oversample_foreground_percent: float = Field(
        0.33, ge=0, le=1, description="share of a batch that is sure to hold foreground"
    )
    mirror_axes: Axes = Field(description="axes of patch_size mirrored in training and averaged over in prediction")
    previous_stage: ConfigurationName | None = Field(None, description="cascade: whose prediction is extra input")
    reasons: dict[Text, Text] = Field(
        {}, max_length=1000, description="field -> the rule and the figures that chose it"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Configuration:
        if len(self.patch_size) not in (2, 3) or len(self.spacing) != 3:
            raise ValueError("patch_size must have two or three axes, spacing three")
        if self.network.dimensions != len(self.patch_size):
            raise ValueError("the network must have as many axes as patch_size")
        if len(set(self.mirror_axes)) < len(self.mirror_axes) or max(self.mirror_axes, default=0) >= self.dimensions:
            raise ValueError("mirror_axes must be axes of patch_size, each once")
        if len(self.normalization_schemes) != len(self.use_mask_for_norm):
            raise ValueError("normalization_schemes and use_mask_for_norm must have one entry per channel")
        if self.batch_size * math.prod(self.patch_size) > MOST_STEP_VOXELS:
            raise ValueError(f"patch_size and batch_size make more than {MOST_STEP_VOXELS} voxels")
        if self.network.depth * self.network.width**2 > MOST_WEIGHTS:  # of each of the matrices of its blocks
            raise ValueError(f"depth and width make more than {MOST_WEIGHTS} weights")
        return self

    @property
    def dimensions(self) -> int:
        return len(self.patch_size)


class Plan(Tabular, Document):
    """What shall be done with a dataset. Self-contained: training and prediction need nothing else."""

    dataset: Name = Field(description="Dataset004_Hippocampus")
    fingerprint_hash: Text
    channels: tuple[Channel, ...] = Field(min_length=1, max_length=MOST_CHANNELS)
    labels: LabelScheme
    file_ending: FileEnding = Field(description="of the training images, with the dot: the default for predictions")
    transpose_forward: Axes = Field(description="axes of the canonical Z Y X array in the order of the cached one")
    foreground_intensity_properties_per_channel: tuple[ChannelStatistics, ...] = Field(max_length=MOST_CHANNELS)
    memory_budget: int = Field(ge=0, le=1 << 60, description="bytes that training may take")
    time_budget: float | None = Field(
        None, gt=0, le=1e9, description="seconds that the training of a fold takes, if planned"
    )
    configurations: dict[ConfigurationName, Configuration] = Field(min_length=1)
    recommended: ConfigurationName

    @model_validator(mode="after")
    def _consistent(self) -> Plan:
        if sorted(self.transpose_forward) != [0, 1, 2]:
            raise ValueError("transpose_forward must have each of the axes 0, 1 and 2 once")
        if self.recommended not in self.configurations:
            raise ValueError("the recommended configuration is missing")
        for key, configuration in self.configurations.items():
            if configuration.name != key:
                raise ValueError(f"the configuration under '{key}' is called '{configuration.name}'")
            if len(configuration.normalization_schemes) != len(self.channels):
                raise ValueError(f"'{key}' must have one of normalization_schemes per channel")
        if len(self.foreground_intensity_properties_per_channel) not in (0, len(self.channels)):
            raise ValueError("foreground_intensity_properties_per_channel must have one entry per channel")
        return self

    @property
    def hash(self) -> str:
        """sha256 of what was decided; the words that explain it do not count."""
        without_batch_dice = {"reasons", "batch_dice"}  # plans from before the field keep their hash
        of_each = {
            name: {"reasons"} if configuration.batch_dice else without_batch_dice
            for name, configuration in self.configurations.items()
        }
        words: Any = {"mvl_auto_version": True, "configurations": of_each}
        if self.time_budget is None:
            words["time_budget"] = True  # plans of before there was one keep their hash
        return sha256_of_json(self.model_dump(mode="json", exclude=words))

    def configuration(self, name: str | None = None) -> Configuration:
        """The configuration called `name`, or the recommended one. Raises MvlError for an unknown name."""
        for configuration in self.configurations.values():
            if configuration.name == (name or self.recommended):
                return configuration
        there = ", ".join(self.configurations)
        raise MvlError(f"{self.dataset} has no configuration '{name}' (there are: {there})")

    def as_table(self) -> tuple[list[str], list[list[str]]]:
        return plan_table(self)

    def with_previous_stages(self, names: Sequence[str]) -> list[str]:
        """The configurations of these names, each behind the one whose predictions it needs, and each once.

        Raises MvlError for a name that the plan does not have.
        """
        chosen = [self.configuration(name) for name in names]
        return list(dict.fromkeys(name for each in chosen for name in (each.previous_stage, each.name) if name))

    def input_channels(self, configuration: Configuration) -> int:
        """Channels that the network sees: the image's, and in a cascade's second stage one per foreground name."""
        previous = len(self.labels.foreground_names) if configuration.previous_stage else 0
        return len(self.channels) + previous

    def preprocessing_hash(self, name: str) -> str:
        """sha256 of what decides the cached arrays of a configuration, and of nothing else."""
        mine = {"channels", "labels", "transpose_forward"}
        its = {"spacing", "normalization_schemes", "use_mask_for_norm", "resample_separate_z"}
        configuration = self.configuration(name)
        statistics = [
            of_channel.model_dump(mode="json") if scheme in BY_STATISTICS else None
            for scheme, of_channel in zip(
                configuration.normalization_schemes, self.foreground_intensity_properties_per_channel, strict=True
            )
        ]
        return sha256_of_json(
            [
                self.model_dump(mode="json", include=mine),
                configuration.model_dump(mode="json", include=its),
                statistics,
            ]
        )


class DatasetRecord(Document):
    """Where the raw dataset of a preprocessed one lies: validation reads the images as they are."""

    dataset: Name = Field(description="Dataset004_Hippocampus")
    folder: Text = Field(description="absolute path of the raw dataset")


class Splits(Document):
    """The folds: patients are never on both sides."""

    fingerprint_hash: Text
    seed: int = Field(ge=0, lt=1 << 63)
    folds: tuple[tuple[Name, ...], ...] = Field(
        max_length=10_000, description="names of the validation cases of each fold"
    )
    given: bool = Field(False, description="the folds are those of dataset.json")
