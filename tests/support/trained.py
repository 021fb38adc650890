"""Plans and trained runs made by hand, for tests of prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from networks import tiny

from mvl_auto.network.optimizer import trainable
from mvl_auto.plans import Channel, ChannelStatistics, Configuration, LabelScheme, Plan, write_document
from mvl_auto.runs import checkpoint as ckpt
from mvl_auto.runs import network_of

STATISTICS = ChannelStatistics(mean=0, median=0, std=1, min=-3, max=3, percentile_00_5=-2, percentile_99_5=2)


def make_labels(values: Sequence[int] = (0, 1, 2), **regions: Any) -> LabelScheme:
    return LabelScheme(class_values=tuple(values), class_names=tuple(f"label {value}" for value in values), **regions)


def make_configuration(
    patch_size: Sequence[int] = (16, 16, 16),
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    channels: int = 1,
    normalization: str = "none",
    **changes: Any,
) -> Configuration:
    dimensions = len(patch_size)
    fields: dict[str, Any] = {
        "name": "3d_fullres" if dimensions == 3 else "2d",
        "spacing": tuple(spacing),
        "median_image_size_in_voxels": (20.0, 24.0, 22.0),
        "patch_size": tuple(patch_size),
        "batch_size": 2,
        "normalization_schemes": (normalization,) * channels,
        "use_mask_for_norm": (False,) * channels,
        "resample_separate_z": False,
        "network": tiny(dimensions),
        "iterations": 10,
        "mirror_axes": tuple(range(dimensions)),
    }
    return Configuration(**(fields | changes))


def make_plan(
    *configurations: Configuration,
    labels: LabelScheme | None = None,
    transpose_forward: Sequence[int] = (0, 1, 2),
    dataset: str = "Dataset007_Tiny",
) -> Plan:
    configurations = configurations or (make_configuration(),)
    channels = len(configurations[0].normalization_schemes)
    return Plan(
        dataset=dataset,
        fingerprint_hash="0" * 64,
        channels=(Channel(name="MRI"),) * channels,
        labels=labels or make_labels(),
        file_ending=".nii.gz",
        transpose_forward=tuple(transpose_forward),
        foreground_intensity_properties_per_channel=(STATISTICS,) * channels,
        memory_budget=10**9,
        configurations={configuration.name: configuration for configuration in configurations},
        recommended=configurations[0].name,
    )


def write_trained(
    root: Path,
    plan: Plan | None = None,
    configuration: str | None = None,
    run: str | None = None,
    folds: Sequence[str] = ("0",),
    finished: bool = True,
    seed: int = 0,
    validation: Mapping[str, Sequence[str]] | None = None,
    previous: ckpt.PreviousReference | None = None,
) -> Path:
    """A run under root/results with untrained networks that label every image in patches; returns its folder.

    The fold's number and `seed` draw the weights. validation: the cases that a fold says it validates. previous: for
    the second stage of a cascade, which first one it says it was trained after.
    """
    plan = plan or make_plan()
    chosen = plan.configuration(configuration)
    folder = root / "results" / plan.dataset / (run or chosen.name)
    write_document(folder / ckpt.PLAN, plan)
    for number, fold in enumerate(folds):
        network = network_of(plan, chosen, None)
        state = ckpt.State(
            dataset=plan.dataset,
            configuration=chosen.name,
            fold=fold,
            plan_hash=plan.hash,
            block=None,
            seed=seed,
            training_cases=(),
            validation_cases=tuple((validation or {}).get(fold, ())),
            previous=previous,
            budget_steps=10,
            budget_seconds=None,
            step=10 if finished else 4,
            elapsed=1.0,
            finished=finished,
        )
        tensors = {ckpt.AVERAGED + name: tensor for name, tensor in _loud(network, seed * 100 + number).items()}
        ckpt.save(folder / (f"fold{fold}" if fold != "all" else "fold_all"), state, tensors)
    return folder


def _loud(network: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Random weights, also where the network starts from zero: its classes follow the image's texture."""
    random = torch.Generator().manual_seed(seed)
    return {name: 0.3 * torch.randn(weight.shape, generator=random) for name, weight in trainable(network).items()}
