"""Fingerprints and a block bank made by hand, and what nnU-Net plans for the ten tasks of the Decathlon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mvl_auto.planners import BlockSizes
from mvl_auto.plans import CaseFingerprint, Channel, ChannelStatistics, Fingerprint, LabelScheme

STATISTICS = ChannelStatistics(
    mean=100.0, median=100.0, std=20.0, min=0.0, max=255.0, percentile_00_5=10.0, percentile_99_5=200.0
)

# sizes from the models' own configurations (docs/blocks.md)
SMOLLM2_360M = BlockSizes("hf:HuggingFaceTB/SmolLM2-360M", 31, 960, 15, 5, 64, 2560)
QWEN_05B = BlockSizes("hf:Qwen/Qwen2.5-0.5B", 23, 896, 14, 2, 64, 4864)
LLAMA_1B = BlockSizes("hf:meta-llama/Llama-3.2-1B", 15, 2048, 32, 8, 64, 8192)
LLAMA_8B = BlockSizes("hf:meta-llama/Llama-3.1-8B", 31, 4096, 32, 8, 128, 14336)
BANK = (LLAMA_8B, SMOLLM2_360M, QWEN_05B, LLAMA_1B)


def case_of(name: str, size: Sequence[int], spacing: Sequence[float], **more: Any) -> CaseFingerprint:
    """A case that is like no other. more: other fields than these."""
    fields: dict[str, Any] = {
        "name": name,
        "shape": tuple(size),
        "spacing": tuple(spacing),
        "shape_after_crop": tuple(size),
        "class_voxels": (10, 5),
        "image_hash": f"image {name}",
        "label_hash": f"label {name}",
        "group": name,
        "files_hash": f"files {name}",
    }
    return CaseFingerprint(**(fields | more))


def fingerprint_of(
    size: Sequence[int] = (36, 50, 35),
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    cases: int = 20,
    channels: Sequence[str] = ("MRI",),
    labels: Sequence[str] = ("background", "thing"),
    **more: Any,
) -> Fingerprint:
    """A dataset of equal cases. more: fields of every case."""
    return Fingerprint(
        dataset="Dataset007_Made",
        channels=tuple(Channel(name=name) for name in channels),
        labels=LabelScheme(class_values=tuple(range(len(labels))), class_names=tuple(labels)),
        file_ending=".nii.gz",
        cases=tuple(case_of(f"case_{n:04d}", size, spacing, **more) for n in range(cases)),
        foreground_intensity_properties_per_channel=(STATISTICS,) * len(channels),
    )


@dataclass(frozen=True)
class Published:
    """What nnU-Net 2 planned for a task: median spacing and size of the raw cases, and its 3d_fullres and 3d_lowres."""

    task: str
    cases: int
    raw_spacing: tuple[float, ...]
    raw_size: tuple[int, ...]
    spacing: tuple[float, ...]
    size: tuple[float, ...]
    channels: tuple[str, ...] = ("CT",)
    masked: bool = False
    patch: tuple[int, ...] = ()
    low_spacing: tuple[float, ...] | None = None
    low_size: tuple[int, ...] | None = None
    low_patch: tuple[int, ...] | None = None


# the plans of nnU-Net 2 as automl/AutoNNUnet stored them (output/baseline/*/3d_fullres/fold_0/debug.json)
DECATHLON = (
    Published(
        "BrainTumour",
        484,
        (1.0, 1.0, 1.0),
        (138, 169, 138),
        (1.0, 1.0, 1.0),
        (138, 169, 138),
        ("FLAIR", "T1w", "t1gd", "T2w"),
        masked=True,
        patch=(128, 128, 128),
    ),
    Published(
        "Heart",
        20,
        (1.3700000047683716, 1.25, 1.25),
        (115, 320, 232),
        (1.3700000047683716, 1.25, 1.25),
        (115, 320, 232),
        ("MRI",),
        masked=True,
        patch=(80, 192, 160),
    ),
    Published(
        "Liver",
        131,
        (1.0, 0.767578125, 0.767578125),
        (432, 512, 512),
        (1.0, 0.767578125, 0.767578125),
        (482, 512, 512),
        patch=(128, 128, 128),
        low_spacing=(2.5000803453253524, 1.9190069838141859, 1.9190069838141859),
        low_size=(193, 205, 205),
        low_patch=(128, 128, 128),
    ),
    Published(
        "Hippocampus",
        260,
        (1.0, 1.0, 1.0),
        (36, 50, 35),
        (1.0, 1.0, 1.0),
        (36, 50, 35),
        ("MRI",),
        patch=(40, 56, 40),
    ),
    Published(
        "Prostate",
        32,
        (3.5999999046325684, 0.625, 0.625),
        (20, 320, 320),
        (3.5999999046325684, 0.625, 0.625),
        (20, 320, 319),
        ("T2", "ADC"),
        patch=(20, 320, 256),
    ),
    Published(
        "Lung",
        63,
        (1.244979977607727, 0.78515625, 0.78515625),
        (252, 512, 512),
        (1.244979977607727, 0.78515625, 0.78515625),
        (252, 512, 512),
        patch=(80, 192, 160),
        low_spacing=(2.3855103790575867, 1.5044405671133478, 1.5044405671133478),
        low_size=(132, 267, 267),
        low_patch=(80, 192, 160),
    ),
    Published(
        "Pancreas",
        281,
        (2.5, 0.8027340173721313, 0.8027340173721313),
        (93, 512, 512),
        (2.5, 0.8027340173721313, 0.8027340173721313),
        (96, 512, 512),
        patch=(40, 224, 224),
        low_spacing=(2.6522500000000004, 1.3267970199575188, 1.3267970199575188),
        low_size=(90, 310, 310),
        low_patch=(64, 192, 192),
    ),
    Published(
        "HepaticVessel",
        303,
        (5.0, 0.7988280057907104, 0.7988280057907104),
        (49, 512, 512),
        (1.5, 0.7988280057907104, 0.7988280057907104),
        (150, 512, 512),
        patch=(64, 192, 192),
        low_spacing=(2.479271448407627, 1.3203409779635416, 1.3203409779635416),
        low_size=(91, 310, 310),
        low_patch=(64, 192, 192),
    ),
    Published(
        "Spleen",
        41,
        (5.0, 0.7929689884185791, 0.7929689884185791),
        (90, 512, 512),
        (1.6000100374221802, 0.7929689884185791, 0.7929689884185791),
        (187, 512, 512),
        patch=(64, 192, 160),
        low_spacing=(2.7239099860232163, 1.390475921094405, 1.390475921094405),
        low_size=(110, 292, 292),
        low_patch=(64, 192, 192),
    ),
    Published(
        "Colon",
        126,
        (5.0, 0.78125, 0.78125),
        (95, 512, 512),
        (3.0, 0.78125, 0.78125),
        (150, 512, 512),
        patch=(56, 192, 192),
        low_spacing=(3.09, 1.58812039567219, 1.58812039567219),
        low_size=(146, 252, 252),
        low_patch=(96, 160, 160),
    ),
)
