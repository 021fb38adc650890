"""The LLM block inside the network: mapped in, through the frozen layer, mapped back, gated.

    y = x + a * M_out(B(M_in(LN(x)))),    a = 0 at the start

B is one frozen layer of a language model (mvl_auto.llm), or what a control puts in its place; with a = 0
the network is the plain ViT, so training decides how much of the block it wants.

The controls, each with exactly as many trainable weights as the real thing:

    block          B as it came from the bank (pretrained, or random: with a source of that kind)
    permuted       B with the rows of each weight shuffled: the same numbers, another function
    random         B with random numbers for its matrices, of each one's mean and standard deviation; its norms stay
    rotated        B with its hidden axes turned, and turned back behind it: the same function, to check the method
    mlp            a GELU in its place: the mappers become an MLP
    mappers_only   the identity in its place: the mappers alone, a linear map
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvl_auto.plans import LlmSettings

if TYPE_CHECKING:
    from mvl_auto.llm import FrozenBlock

CONTROL_SEED = 0
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Enrich(nn.Module):
    """(b, n, d) -> (b, n, d)."""

    def __init__(self, settings: LlmSettings, width: int, hidden_size: int, block: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.map_in = mapper(width, hidden_size, settings.mapper_rank)
        self.block = block
        self.map_out = mapper(hidden_size, width, settings.mapper_rank)
        self.switches = {"causal": settings.causal, "rotary": settings.rotary, "final_norm": settings.final_norm}
        self.gate = nn.Parameter(torch.zeros(width)) if settings.residual == "gated" else None
        self.residual = settings.residual != "none"

    def forward(self, x_bnd: Tensor) -> Tensor:
        y_bnd = self.map_out(self.block(self.map_in(self.norm(x_bnd)), **self.switches))
        if self.gate is not None:
            y_bnd = self.gate * y_bnd
        return x_bnd + y_bnd if self.residual else y_bnd


class Gelu(nn.Module):
    """The MLP control's nonlinearity, with the block's signature."""

    def forward(self, hidden_bnd: Tensor, causal: bool, rotary: bool, final_norm: bool) -> Tensor:
        return F.gelu(hidden_bnd)


class Nothing(nn.Module):
    """The identity, with the block's signature."""

    def forward(self, hidden_bnd: Tensor, causal: bool, rotary: bool, final_norm: bool) -> Tensor:
        return hidden_bnd


def enrich(settings: LlmSettings, width: int, block: FrozenBlock | None) -> Enrich | None:
    """The LLM part of a network of this width, or None where the settings want none.

    block: from mvl_auto.llm.load_block; its card tells the width of the language model.
    """
    if not settings.present:
        return None
    if block is None:
        raise ValueError(f"settings.llm.source is '{settings.source}', but no block was given")
    return Enrich(settings, width, block.card.hidden_size, in_its_place(settings, block))


def in_its_place(settings: LlmSettings, block: FrozenBlock) -> nn.Module:
    """What stands between the mappers: the block, with adapters where wanted, or a control."""
    if settings.control == "mlp":
        return Gelu()
    if settings.control == "mappers_only":
        return Nothing()
    if settings.control != "block":
        from mvl_auto.llm import controls

        block = {
            "permuted": controls.permuted,
            "random": controls.randomised,
            "rotated": controls.Rotated,
        }[settings.control](block, CONTROL_SEED)
    return with_adapters(block, settings.lora_rank) if settings.lora_rank else block


def with_adapters(block: nn.Module, rank: int) -> nn.Module:
    """Low-rank adapters (LoRA, Hu et al. 2021) on all projections of the block; they train, it does not.

    In float32 whatever the block is stored in: bfloat16 would lose the small steps of training.
    """
    from peft import LoraConfig, inject_adapter_in_model

    adapted = inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(LORA_TARGETS)), block)
    for name, parameter in adapted.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # peft gives them the block's dtype
    return adapted


def mapper(inputs: int, outputs: int, rank: int | None) -> nn.Module:
    """The linear way into or out of the LLM's width; through `rank` channels where that is given."""
    if rank is None:
        return nn.Linear(inputs, outputs)
    return nn.Sequential(nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs))
