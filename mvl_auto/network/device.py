"""Where a network runs, and in which precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mvl_auto.errors import MvlError
from mvl_auto.network.layers import keep_in_float32
from mvl_auto.ranks import SINGLE, Rank
from mvl_auto.text import DEVICE, count_text

if TYPE_CHECKING:
    from mvl_auto.network.model import MedVisionLlama


def choose_device(name: str, rank: Rank = SINGLE) -> torch.device:
    """auto: the NVIDIA GPU where there is one. Raises MvlError when the wanted one is not there.

    rank: of this process; of several on one machine each gets a GPU of its own.
    """
    if not DEVICE.fullmatch(name):
        raise MvlError(f"'{name}' is no device", remedy="Use auto, cpu, cuda, cuda:1 or mps.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "mps":
        if not torch.backends.mps.is_available():
            raise MvlError("device mps was asked for, torch sees no Apple GPU", remedy="Use --device cpu.")
        if rank.ranks > 1:
            raise MvlError("several processes cannot train on mps", remedy="Start one, or use --device cpu.")
    if device.type == "cuda":
        there = torch.cuda.device_count()
        if (device.index or 0) >= there:
            raise MvlError(
                f"device {name} was asked for, torch sees {count_text(there, 'GPU')}",
                remedy="Use --device cpu." if not there else "Use --device cuda.",
            )
        if rank.ranks > 1:
            return _own_gpu(device, rank, there)
    return device


def _own_gpu(device: torch.device, rank: Rank, there: int) -> torch.device:
    if device.index is not None:
        raise MvlError(f"{rank.ranks} processes cannot share {device}", remedy="Use --device cuda: each gets its own.")
    if rank.local_ranks > there:
        raise MvlError(
            f"{rank.local_ranks} processes were started on a machine where torch sees {count_text(there, 'GPU')}",
            remedy=f"Start at most {there} with torchrun --nproc-per-node, or use --device cpu.",
        )
    return torch.device("cuda", rank.local)


def place(network: MedVisionLlama, device: torch.device) -> MedVisionLlama:
    """The network on the device that it is to be trained on, laid out as that device computes it fastest."""
    network = network.to(device)
    store_block(network, autocast(device, training=True))
    if device.type == "cpu":
        keep_in_float32(network)
    else:
        # torch's group normalization returns contiguous tensors on CUDA (pytorch issue 111824): channels last would be
        # restored, and lost again, at every layer; mps does not know it in three dimensions
        network.memory_format = torch.contiguous_format
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # torch's stub lacks it
    return network


@torch.no_grad()
def store_block(network: MedVisionLlama, precision: torch.autocast) -> None:
    """Keep the frozen block in the type that it is computed in, instead of casting its weights in every step.

    The results stay the same to the last bit: autocast would cast the same matrices, and leave the norms as they are.
    """
    if network.llm is None:
        return
    dtype = precision.fast_dtype if precision._enabled else torch.float32
    for weight in network.llm.block.parameters():
        if (weight.ndim >= 2 or dtype == torch.float32) and not weight.requires_grad:
            weight.data = weight.data.to(dtype)


def autocast(device: torch.device, training: bool = False) -> torch.autocast:
    """Mixed precision on a GPU, bfloat16 where it has it, else float16.

    A CPU trains in bfloat16 where its cores multiply it, a third faster (docs/experiments.md), and predicts as it is.
    """
    if device.type == "cpu":
        return torch.autocast("cpu", torch.bfloat16, enabled=training and cpu_multiplies_bfloat16())
    if device.type != "cuda":
        return torch.autocast(device.type, enabled=False)
    in_hardware = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast("cuda", torch.bfloat16 if in_hardware else torch.float16)


def cpu_multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for it: where it has to be emulated it is slower than float32.

    False where torch is too old to say.
    """
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    can = {} if capabilities is None else capabilities()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))
