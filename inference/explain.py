"""The effect of the LLM block on an image, as maps in the image's own space.

    before     norm of each token at the input of the LLM part
    after      norm of each token at its output
    change     norm of the difference that the LLM part makes to each token, relative to `before`
    rollout    attention that each token gets from all others, through all blocks of the trunk

The maps are the outputs of a network that wraps the trained one, so windows and the way back to native space are those
of prediction (sliding_window.py, restore.py).

Attention rollout: Abnar and Zuidema 2020, arXiv 2005.00928. Each block is R <- (A + I) / 2 R, A the mean over heads. In
hybrid attention the global branch counts with the mean of its gate; the local branch counts as the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mvl_auto.datasets import cases_to_predict, load_case
from mvl_auto.errors import MvlError
from mvl_auto.extras import need
from mvl_auto.files import ensure_writable_folder, write_json, writing
from mvl_auto.images import Volume, write_probabilities
from mvl_auto.inference.output import check_output_folder
from mvl_auto.inference.predict import make_network_input, predict_case
from mvl_auto.inference.restore import native_slabs, paste_slab
from mvl_auto.inference.sliding_window import cheapest_axis, stream_logits
from mvl_auto.inference.windows import WindowSettings
from mvl_auto.network import MedVisionLlama
from mvl_auto.network.device import choose_device
from mvl_auto.network.layers import pad_to_multiple, to_grid
from mvl_auto.network.trunk import VitBlock
from mvl_auto.outputs import leaving_no_trace
from mvl_auto.plans import Configuration, Plan, Shape
from mvl_auto.preprocessing import preprocess_case
from mvl_auto.progress import Progress, silent
from mvl_auto.runs import TrainedRun, load_trained

MAPS = ("before", "after", "change", "rollout")


@dataclass(frozen=True, eq=False)
class Explanation:
    """Maps in the image's own space, and the gate of the LLM part."""

    maps: dict[str, NDArray[np.float32]]  # name -> (Z, Y, X), canonical
    gate: NDArray[np.float32] | None  # (d,): the factor of each channel of the block's output


def explain_folder(
    input: Path,
    output: Path,
    run: TrainedRun,
    blocks_folder: Path,
    *,
    device: str = "auto",
    progress: Progress = silent,
) -> list[Path]:
    """Explain every image of a folder by the first network of a run; returns the files that were written.

    Raises MvlError when `output` is the folder of the images, and, naming the file, for the first image that cannot be
    read.
    """
    need("matplotlib", "the picture of an explanation")
    trained = load_trained(run.folds[0][0], blocks_folder)
    network, on = trained.network, choose_device(device)
    first = [] if run.previous is None else [each.network.to(on) for each in run.previous.load(blocks_folder)]
    cases = cases_to_predict(input, trained.plan.channels)
    names = [name for case in cases for name in files_written(case.name)]
    check_output_folder(input, output, cases, names, run, blocks_folder)
    paths: list[Path] = []
    with leaving_no_trace(output), progress("explaining", len(cases)) as advance:
        ensure_writable_folder(output)
        for case in cases:
            volume, _ = load_case(case, trained.labels, len(trained.plan.channels))
            previous = None
            if run.previous is not None:
                previous = predict_case(first, run.previous.plan, run.previous.configuration, volume, device=on)
            explanation = explain_case(network, trained.plan, trained.configuration, volume, on, previous)
            paths += write_explanation(explanation, volume, output, case.name)
            advance(1, note=case.name)
    return paths


def explain_case(
    network: MedVisionLlama,
    plan: Plan,
    configuration: Configuration,
    volume: Volume,
    device: torch.device,
    previous: NDArray[np.int16] | None = None,
) -> Explanation:
    """The maps of one image as it was read. Raises MvlError for a network without an LLM block or a ViT.

    previous: for the second stage of a cascade, the classes (Z, Y, X) that the first found.
    """
    if network.llm is None or configuration.network.trunk != "transformer":
        raise MvlError(
            f"the network of {plan.dataset} has no LLM block to explain",
            remedy="Plan with --llm, then train that plan.",
        )
    prepared = preprocess_case(volume.array, volume.spacing, None, plan, configuration)
    axis = cheapest_axis(prepared.image.shape[1:], configuration.patch_size)
    slabs = stream_logits(
        Maps(network).eval().to(device),
        torch.from_numpy(np.ascontiguousarray(make_network_input(prepared, previous, plan, configuration))),
        len(MAPS),
        WindowSettings(configuration.patch_size, device=device),
        axis,
    )
    maps = np.zeros((len(MAPS), *prepared.trail.shape), np.float32)
    for first, slab in native_slabs(slabs, prepared.trail, axis):
        paste_slab(maps, slab.cpu().numpy(), prepared.trail, axis, first)
    gate = None if network.llm.gate is None else network.llm.gate.detach().cpu().numpy()
    return Explanation(dict(zip(MAPS, maps, strict=True)), gate)


def files_written(name: str) -> list[str]:
    """Names of the files of an image: <name>_<map>.nii.gz for each map, <name>_gate.json and <name>.png."""
    return [*(f"{name}_{key}.nii.gz" for key in MAPS), f"{name}_gate.json", f"{name}.png"]


def write_explanation(explanation: Explanation, volume: Volume, folder: Path, name: str) -> list[Path]:
    """Write `files_written`, without the gate where the network has none; returns their paths."""
    *paths, about_gate, picture = [folder / file for file in files_written(name)]
    for path, key in zip(paths, MAPS, strict=True):
        write_probabilities(path, explanation.maps[key][None], volume.geometry)
    gate = explanation.gate
    if gate is not None:
        about = {"mean_absolute": float(np.abs(gate).mean()), "largest_absolute": float(np.abs(gate).max())}
        write_json(about_gate, about | {"values": [float(value) for value in gate]})
        paths.append(about_gate)
    paths.append(draw_maps(explanation, volume, picture))
    return paths


def draw_maps(explanation: Explanation, volume: Volume, path: Path) -> Path:
    """Draw the middle slice of the image, and each map over it, as a PNG; returns its path."""
    from matplotlib.figure import Figure

    middle = volume.array.shape[1] // 2
    grey = volume.array[0, middle]
    figure = Figure((3 * (1 + len(MAPS)), 3.4), layout="constrained")
    axes = figure.subplots(1, 1 + len(MAPS))
    spacing = volume.spacing
    for panel, title in zip(axes, ("image", *MAPS), strict=True):
        panel.imshow(grey, cmap="gray", origin="lower", aspect=spacing[1] / spacing[2])
        panel.set_title(title)
        panel.set_axis_off()
        if title in explanation.maps:
            drawn = panel.imshow(
                explanation.maps[title][middle],
                alpha=0.6,
                cmap="inferno",
                origin="lower",
                aspect=spacing[1] / spacing[2],
            )
            figure.colorbar(drawn, ax=panel, shrink=0.7)
    with writing(path) as beside:
        figure.savefig(beside, dpi=120)
    return path


class Maps(nn.Module):
    """The network, with the maps as its outputs: (b, c, z, y, x) -> (b, len(MAPS), z, y, x)."""

    def __init__(self, network: MedVisionLlama) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_bczyx: Tensor) -> Tensor:
        network, shape = self.network, image_bczyx.shape[2:]
        token_size = network.settings.token_size
        grid = tuple(
            voxels // step
            for voxels, step in zip(pad_to_multiple(image_bczyx, token_size).shape[2:], token_size, strict=True)
        )
        seen: dict[str, Tensor] = {}
        into_blocks: list[Tensor] = []
        assert network.llm is not None
        hooks = [
            block.register_forward_pre_hook(lambda _, args: into_blocks.append(args[0])) for block in network.trunk
        ]
        hooks.append(network.llm.register_forward_hook(lambda _, args, out: seen.update(before=args[0], after=out)))
        try:
            network(image_bczyx)
        finally:
            for hook in hooks:
                hook.remove()
        before, after = seen["before"], seen["after"]
        tokens_bnm = torch.stack(
            [
                before.norm(dim=-1),
                after.norm(dim=-1),
                (after - before).norm(dim=-1) / before.norm(dim=-1).clamp_min(1e-6),
                compute_rollout(list(network.trunk), into_blocks),
            ],
            dim=-1,
        )
        return _spread_over_voxels(to_grid(tokens_bnm.float(), grid), token_size, shape)


def compute_rollout(blocks: Sequence[nn.Module], inputs_bnd: Sequence[Tensor]) -> Tensor:
    """(b, n): the attention that each token gets from all tokens together; its mean over the tokens is 1."""
    tokens = inputs_bnd[0].shape[1]
    identity = torch.eye(tokens, device=inputs_bnd[0].device)
    total = identity.expand(len(inputs_bnd[0]), -1, -1)
    for block, x_bnd in zip(blocks, inputs_bnd, strict=True):
        assert isinstance(block, VitBlock)
        total = (compute_attention(block, x_bnd) + identity) / 2 @ total
    return total.mean(dim=1) * tokens


def compute_attention(block: VitBlock, x_bnd: Tensor) -> Tensor:
    """(b, n, n): attention of the global branch, the mean over heads, times the gate; the rest on the diagonal."""
    layer = block.attention
    q, k, _ = (
        part.unflatten(-1, (layer.heads, -1)).transpose(1, 2)
        for part in layer.qkv(block.norm_1(x_bnd)).chunk(3, dim=-1)
    )
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1).mean(dim=1)
    without_gate = {"global": 1.0, "sum": 0.5, "local": 0.0}
    share = layer.gate.sigmoid().mean() if layer.mode == "gate" else torch.tensor(without_gate[layer.mode])
    return share * weights + (1 - share) * torch.eye(weights.shape[-1], device=weights.device)


def _spread_over_voxels(maps_bmzyx: Tensor, token_size: Shape, shape: Sequence[int]) -> Tensor:
    """Each voxel gets the value of its token. shape: voxels of the image, without the padding of the network."""
    finer = F.interpolate(maps_bmzyx, scale_factor=list(map(float, token_size)), mode="nearest")
    inside: tuple[EllipsisType | slice, ...] = (..., *(slice(0, voxels) for voxels in shape))
    return finer[inside]
