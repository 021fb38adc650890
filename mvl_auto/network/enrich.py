"""The LLM block inside the network: mapped in, through the frozen layer, mapped back, gated.

    y = x + a * M_out(B(M_in(LN(x)))),    a = 0 at the start

B is one frozen layer of a language model or several (mvl_auto.llm), or what a control puts in its place; with a = 0
the network is the plain ViT, so training decides how much of the block it wants.

The controls, each with exactly as many trainable weights as the real thing:

    block          B as it came from the bank (pretrained, or random: with a source of that kind)
    permuted       B with the rows of each weight shuffled: the same numbers, another function
    random         B with random numbers for its matrices, of each one's mean and standard deviation; its norms stay
    rotated        B with its hidden axes turned, and turned back behind it: the same function, to check the method
    mlp            a GELU in its place: the mappers become an MLP
    mappers_only   the identity in its place: the mappers alone, a linear map

Which tokens pass the block (`tokens`), R reading them from those of the image and W writing back what comes out:

    y = x + a * W(M_out(B(M_in(R(LN(x))))))

    all       all of them: R and W are the identity
    pooled    R averages over cells of 2x2x2 tokens (2D: 2x2), W interpolates linearly between the cells
    queries   R and W are attention between the tokens and a few learned queries q, over the same scores
              S = q LN(x)^T:  R(x) = softmax_tokens(S) x,  W(y) = softmax_queries(S)^T y   (Soft MoE's dispatch and
              combine, Puigcerver et al. 2024, with slots for queries)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvl_auto.network.layers import to_grid, to_tokens
from mvl_auto.plans import POOLED_CELL, LlmSettings, Shape

if TYPE_CHECKING:
    from mvl_auto.llm import FrozenBlock

CONTROL_SEED = 0
POOL: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}  # torch's names of the interpolation
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Enrich(nn.Module):
    """(b, n, d) -> (b, n, d); grid is the token grid, n = z * y * x.

    While `attached` is false the tokens pass as they are; in eval mode also where the block is for training only.
    """

    attached = True

    def __init__(self, settings: LlmSettings, width: int, hidden_size: int, block: nn.Module) -> None:
        super().__init__()
        self.settings = settings
        self.norm = nn.LayerNorm(width)
        self.map_in = mapper(width, hidden_size, settings.mapper_rank)
        self.block = block
        self.map_out = mapper(hidden_size, width, settings.mapper_rank)
        self.switches = {"causal": settings.causal, "rotary": settings.rotary, "final_norm": settings.final_norm}
        self.gate = nn.Parameter(torch.zeros(width)) if settings.residual == "gated" else None
        self.residual = settings.residual != "none"
        self.way = WAYS[settings.tokens](settings, width)

    def forward(self, x_bnd: Tensor, grid: Shape) -> Tensor:
        if not self.attached or not (self.training or self.settings.predicts):
            return x_bnd
        read_bmd, write = self.way(self.norm(x_bnd), grid)
        y_bmd = self.map_out(self.block(self.map_in(read_bmd), **self.switches))
        if self.gate is not None:
            y_bmd = self.gate * y_bmd
        y_bnd = write(y_bmd)
        return x_bnd + y_bnd if self.residual else y_bnd


class AllTokens(nn.Module):
    """Every token passes the block. Like each of WAYS: (b, n, d) -> (b, m, d), and the way back (b, m, d) -> (b, n, d).

    m: of the tokens that pass the block.
    """

    def __init__(self, settings: LlmSettings, width: int) -> None:
        super().__init__()

    def forward(self, x_bnd: Tensor, grid: Shape) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        return x_bnd, _as_it_is


class Pooled(nn.Module):
    """The means of cells of POOLED_CELL tokens a side, at the border of those that are there; interpolated back."""

    def __init__(self, settings: LlmSettings, width: int) -> None:
        super().__init__()

    def forward(self, x_bnd: Tensor, grid: Shape) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        pool, cell = POOL[len(grid)], [min(POOLED_CELL, tokens) for tokens in grid]
        cells_bdzyx = pool(to_grid(x_bnd, grid), cell, ceil_mode=True)
        return to_tokens(cells_bdzyx), partial(self.write, cells=tuple(cells_bdzyx.shape[2:]), grid=grid)

    def write(self, y_bmd: Tensor, cells: Shape, grid: Shape) -> Tensor:
        finer = F.interpolate(to_grid(y_bmd, cells), scale_factor=POOLED_CELL, mode=LINEAR[len(grid)])
        for axis, tokens in enumerate(grid):
            finer = finer.narrow(2 + axis, 0, tokens)
        return to_tokens(finer)


class Queries(nn.Module):
    """Learned queries, each of which reads a mean of the tokens; a token gets back a mean of them."""

    def __init__(self, settings: LlmSettings, width: int) -> None:
        super().__init__()
        # scores of normalized tokens have variance 1 at first
        self.queries = nn.Parameter(torch.randn(settings.queries, width) / width**0.5)

    def forward(self, x_bnd: Tensor, grid: Shape) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        scores_bmn = self.queries @ x_bnd.transpose(1, 2)
        reading_bmn, writing_bnm = scores_bmn.softmax(dim=2), scores_bmn.softmax(dim=1).transpose(1, 2)
        return reading_bmn.to(x_bnd.dtype) @ x_bnd, lambda y_bmd: writing_bnm.to(y_bmd.dtype) @ y_bmd


WAYS: dict[str, type[AllTokens | Pooled | Queries]] = {"all": AllTokens, "pooled": Pooled, "queries": Queries}


def _as_it_is(y_bmd: Tensor) -> Tensor:
    return y_bmd


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
    placed: nn.Module = block
    if settings.control != "block":
        from mvl_auto.llm import controls

        make = {"permuted": controls.permuted, "random": controls.randomised, "rotated": controls.Rotated}
        placed = make[settings.control](block, CONTROL_SEED)
    return with_adapters(placed, settings.lora_rank) if settings.lora_rank else placed


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
