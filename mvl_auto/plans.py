"""The contract between the stages: what each writes for the next one to read.

    fingerprint.json   Fingerprint    what the dataset is           planners -> planners
    plans.json         Plan           what shall be done with it    planners -> everyone
    splits.json        Splits         who trains, who validates     planners -> training
    dataset.json       DatasetRecord  where the raw data lies       planners -> training
    <case>.json        CachedCase     one preprocessed case         preprocessing -> training
    previous/.../<case>.json   PreviousCase   what the stage before segmented in it   inference -> training

Axis order is Z, Y, X in every field, lengths are in mm, counts in voxels unless said otherwise.
Where a key means what nnU-Net's means, it has nnU-Net's name. Nothing here names code: a plan made
today must be readable after any refactoring.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mvl_auto.errors import MvlError
from mvl_auto.files import read_json, sha256_of_json, write_json
from mvl_auto.version import __version__

SCHEMA_VERSION = 1
IGNORE = -1  # in cached label maps: voxels that neither loss nor metrics look at

Vector = tuple[float, ...]
Shape = tuple[int, ...]
ConfigurationName = Literal["2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"]
Normalization = Literal["z_score", "ct", "rescale_to_0_1", "rgb_to_0_1", "none"]

BY_STATISTICS: frozenset[Normalization] = frozenset({"ct"})  # normalised by the dataset's statistics, not by the case's


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Document(Frozen):
    """A model that is a file of its own."""

    schema_version: int = SCHEMA_VERSION
    mvl_auto_version: str = __version__

    @property
    def hash(self) -> str:
        """sha256 of the content, whichever version of mvl_auto wrote it."""
        return sha256_of_json(self.model_dump(mode="json", exclude={"mvl_auto_version"}))


# ---------------------------------------------------------------------------------------- labels


class LabelScheme(Frozen):
    """The labels of a dataset: what their files hold, and what the network predicts.

    Files may hold any integers; the cache holds the consecutive classes 0 (background), 1, 2, ...,
    and IGNORE; predictions are written in the file's own values again. With `regions`
    (overlapping targets, nnU-Net's region-based training) the network predicts one sigmoid channel
    per region instead of a softmax over the classes.
    """

    class_values: tuple[int, ...] = Field(description="value in the files of each class; background first")
    class_names: tuple[str, ...] = Field(description="name of each class; background first")
    ignore_value: int | None = Field(None, description="value in the files of voxels nobody labelled")
    region_names: tuple[str, ...] = ()
    regions: tuple[tuple[int, ...], ...] = Field((), description="the classes that make up each region")
    regions_class_order: tuple[int, ...] = Field(
        (), description="the class written where a region is predicted; later regions overwrite earlier ones"
    )

    @model_validator(mode="after")
    def _consistent(self) -> LabelScheme:
        if len(self.class_values) != len(self.class_names) or len(set(self.class_values)) != len(self.class_values):
            raise ValueError("class_values must be distinct, one for each of class_names")
        if not len(self.regions) == len(self.region_names) == len(self.regions_class_order):
            raise ValueError("regions, region_names and regions_class_order must have one entry per region")
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
    name: str = Field(description="modality as dataset.json gives it: CT, T1, noNorm, R, ...")


# ----------------------------------------------------------------------------------- fingerprint


class ChannelStatistics(Frozen):
    """Intensities inside the labels (nnU-Net's foreground intensities)."""

    mean: float
    median: float
    std: float
    min: float
    max: float
    percentile_00_5: float
    percentile_99_5: float


class CaseFingerprint(Frozen):
    name: str
    size: Shape = Field(description="voxels as the image is stored, canonical orientation, Z Y X")
    spacing: Vector = Field(description="mm, Z Y X")
    size_after_crop: Shape = Field(description="voxels after the crop to non-zero, Z Y X")
    class_voxels: tuple[int, ...] = Field(description="voxels of each class, background first")
    components: tuple[int, ...] = Field((), description="connected components of each foreground class")
    smallest_object: tuple[int, ...] = Field((), description="voxels of its smallest component, 0 if absent")
    largest_object: tuple[int, ...] = Field((), description="voxels of its largest component, 0 if absent")
    foreground_intensity_properties_per_channel: tuple[ChannelStatistics, ...] = Field(
        (), description="of this case alone; empty where nothing is labelled"
    )
    image_hash: str = Field(description="sha256 of the voxels in canonical orientation: equal for exact duplicates")
    label_hash: str = Field(description="sha256 of the classes in canonical orientation")
    group: str = Field(description="patient; cases of one group share a fold")
    files_hash: str = Field(description="sha256 over the bytes of the case's files: changed files are noticed")


class Anomaly(Frozen):
    """Something odd that does not stop the work, or why a case is left out of it.

    file is relative to the dataset where it lies in it.
    """

    file: str
    what: str
    remedy: str


class Fingerprint(Document):
    """All that the planner knows of a dataset."""

    dataset: str = Field(description="Dataset004_Hippocampus")
    channels: tuple[Channel, ...]
    labels: LabelScheme
    file_ending: str = Field(description="of the training images, with the dot")
    cases: tuple[CaseFingerprint, ...] = Field(description="sorted by name")
    foreground_intensity_properties_per_channel: tuple[ChannelStatistics, ...] = Field(
        description="over all cases, every case counting the same"
    )
    anomalies: tuple[Anomaly, ...] = ()
    left_out: tuple[Anomaly, ...] = Field((), description="what is wrong with cases that were to be left out for it")

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


# ------------------------------------------------------------------------------------------ plan


class LlmSettings(Frozen):
    """The frozen LLM block and how it stands in the network (docs/network.md)."""

    source: str = Field("auto", description="block bank syntax: auto, none, pypi:..., hf:..., file:..., random:...")
    layer: int | Literal["last"] = "last"
    hidden_size: int | None = Field(None, description="the block's width where the planner knows it")
    control: Literal["block", "permuted", "mlp", "mappers_only"] = "block"
    placement: Literal["head", "middle", "tail"] = "tail"
    causal: bool = False
    rotary: bool = False
    final_norm: bool = True
    residual: Literal["gated", "plain", "none"] = "gated"
    mapper_rank: int | None = Field(None, description="None: full linear mappers")
    lora_rank: int = Field(0, description="0: the block stays frozen as it is")

    @property
    def present(self) -> bool:
        return self.source != "none"


class NetworkSettings(Frozen):
    """Everything that decides the network's weights; docs/network.md has an equation for each part."""

    spacing: Vector = Field(description="mm of the images that it sees, per axis: positions are embedded in mm")
    stem_channels: Shape = Field(description="channels of each level of the stem, finest first")
    stem_strides: tuple[Shape, ...] = Field(description="stride into each level of the stem, per axis")
    token_stride: Shape = Field(description="stride from the last stem level to the tokens, per axis")
    width: int = Field(description="channels of a token")
    depth: int = Field(ge=0, description="ViT blocks; the LLM block is not counted")
    heads: int
    mlp_ratio: float = 4.0
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
        return self

    @property
    def dimensions(self) -> int:
        return len(self.token_stride)

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
    median_image_size_in_voxels: Vector = Field(description="at `spacing`, Z Y X after transpose_forward")
    patch_size: Shape = Field(description="voxels of a training crop")
    batch_size: int = Field(ge=1)
    normalization_schemes: tuple[Normalization, ...] = Field(description="one per channel")
    use_mask_for_norm: tuple[bool, ...] = Field(description="one per channel: statistics from non-zero voxels only")
    resample_separate_z: bool = Field(
        description="resample a case's coarse axis apart from the other two, with order 0; false: never"
    )
    network: NetworkSettings
    iterations: int = Field(ge=1, description="training steps of a run without a budget; in a plan for a time, about")
    oversample_foreground_percent: float = Field(0.33, description="share of a batch that is sure to hold foreground")
    mirror_axes: Shape = Field(description="axes of patch_size mirrored in training and averaged over in prediction")
    previous_stage: ConfigurationName | None = Field(None, description="cascade: whose prediction is extra input")
    reasons: dict[str, str] = Field({}, description="field -> the rule and the figures that chose it")

    @property
    def dimensions(self) -> int:
        return len(self.patch_size)


class Plan(Document):
    """What shall be done with a dataset. Self-contained: training and prediction need nothing else."""

    dataset: str = Field(description="Dataset004_Hippocampus")
    fingerprint_hash: str
    channels: tuple[Channel, ...]
    labels: LabelScheme
    file_ending: str = Field(description="of the training images, with the dot: the default for predictions")
    transpose_forward: Shape = Field(description="axes of the canonical Z Y X array in the order of the cached one")
    foreground_intensity_properties_per_channel: tuple[ChannelStatistics, ...]
    memory_budget: int = Field(description="bytes that training may take")
    time_budget: float | None = Field(None, gt=0, description="seconds that the training of a fold takes, if planned")
    configurations: dict[ConfigurationName, Configuration]
    recommended: ConfigurationName

    @property
    def hash(self) -> str:
        """sha256 of what was decided; the words that explain it do not count."""
        words: Any = {"mvl_auto_version": True, "configurations": {"__all__": {"reasons"}}}
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

    dataset: str = Field(description="Dataset004_Hippocampus")
    folder: str = Field(description="absolute path of the raw dataset")


class Splits(Document):
    """The folds: patients are never on both sides."""

    fingerprint_hash: str
    seed: int
    folds: tuple[tuple[str, ...], ...] = Field(description="names of the validation cases of each fold")


# ----------------------------------------------------------------------------------------- cache


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


# ------------------------------------------------------------------------------- reading, writing

D = TypeVar("D", bound=Document)
Json = dict[str, Any]
MIGRATIONS: dict[int, Any] = {}  # version -> function that turns its JSON into the next version's


def write_document(path: Path, document: Document) -> None:
    write_json(path, document.model_dump(mode="json"))


def read_document(path: Path, model: type[D], remedy: str = "") -> D:
    """Read a document, migrating older schemas.

    Raises MvlError when the file is missing, no JSON, of a newer schema, or does not fit the model.
    """
    content = read_json(path, remedy)
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(version, int) or version < 1:
        raise MvlError("has no schema_version: it is not a file of mvl_auto", file=path, remedy=remedy)
    if version > SCHEMA_VERSION:
        raise MvlError(
            f"has schema version {version}, this mvl_auto ({__version__}) knows up to {SCHEMA_VERSION}",
            file=path,
            remedy="Update with pip install -U mvl-auto.",
        )
    for older in range(version, SCHEMA_VERSION):
        content = MIGRATIONS[older](content)
    try:
        return model.model_validate(content | {"schema_version": SCHEMA_VERSION})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise MvlError(f"is damaged at '{where}': {first['msg']}", file=path, remedy=remedy) from error
