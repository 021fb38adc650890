"""A dummy frozen block: the same tensors as the real one, with arbitrary numbers in them.

The planner measures networks whose block it does not have; what a block costs depends on its shapes alone.

Shape letters: b batch, n tokens, d hidden size, h heads.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from mvl_auto.planners.cost.block import block_from_settings
from mvl_auto.planners.cost.step import TrainingStep
from mvl_auto.plans import BFLOAT16, BlockSizes, NetworkSettings


def settings_for_dummy(settings: NetworkSettings) -> NetworkSettings:
    """The settings of a network around a dummy block, which brings its own adapters and has no weights to shuffle."""
    control = settings.llm.control if settings.llm.control in ("mlp", "mappers_only") else "block"
    return settings.model_copy(update={"llm": settings.llm.model_copy(update={"control": control, "lora_rank": 0})})


class DummyBlock(nn.Module):
    """Frozen Llama layers and final norm (as mvl_auto.llm.block): weights as they are stored, cast when used.

    lora_rank: of the trainable adapters on its projections; 0 for none.
    """

    def __init__(self, block: BlockSizes, lora_rank: int = 0) -> None:
        super().__init__()
        self.card = SimpleNamespace(hidden_size=block.hidden_size)
        dtype = torch.bfloat16 if block.weight_bytes == BFLOAT16 else torch.float32
        self.layers = nn.ModuleList(_Layer(block, dtype, lora_rank) for _ in range(block.layers))
        self.norm = _Norm(block.hidden_size, dtype)
        for name, weight in self.named_parameters():
            weight.requires_grad_("lora" in name)

    @classmethod
    def for_step(cls, step: TrainingStep) -> DummyBlock | None:
        """The frozen block of a step's network, with its adapters; None where it has none.

        Raises ValueError when not even the block's width is known.
        """
        llm = step.settings.llm
        known = step.block or block_from_settings(llm)
        return None if known is None or not llm.present else cls(known, llm.lora_rank)

    def forward(
        self, hidden_bnd: Tensor, *, causal: bool = False, rotary: bool = False, final_norm: bool = True
    ) -> Tensor:
        x = hidden_bnd
        for layer in self.layers:
            x = _with_weights_cast(layer, x, causal, rotary)
        return _with_weights_cast(self.norm, x) if final_norm else x


class _Layer(nn.Module):
    def __init__(self, block: BlockSizes, dtype: torch.dtype, lora_rank: int) -> None:
        super().__init__()
        hidden, wide, narrow = block.hidden_size, block.heads * block.head_dim, block.kv_heads * block.head_dim
        self.head_dim = block.head_dim
        self.norm_1, self.norm_2 = _Norm(hidden, dtype), _Norm(hidden, dtype)
        self.query = _Projection(hidden, wide, dtype, lora_rank)
        self.key = _Projection(hidden, narrow, dtype, lora_rank)
        self.value = _Projection(hidden, narrow, dtype, lora_rank)
        self.out = _Projection(wide, hidden, dtype, lora_rank)
        self.gate = _Projection(hidden, block.ffn, dtype, lora_rank)
        self.up = _Projection(hidden, block.ffn, dtype, lora_rank)
        self.down = _Projection(block.ffn, hidden, dtype, lora_rank)

    def forward(self, hidden_bnd: Tensor, causal: bool, rotary: bool) -> Tensor:
        x = self.norm_1(hidden_bnd)
        q, k, v = (
            part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for part in (self.query(x), self.key(x), self.value(x))
        )
        places = q.shape[2] if rotary else 1
        q, k = self._rotate(q, places), self._rotate(k, places)
        k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], dim=1) for part in (k, v))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)
        x = hidden_bnd + self.out(attended)
        y = self.norm_2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))

    def _rotate(self, x_bhnd: Tensor, places: int) -> Tensor:
        """Rotary positions, which are computed even where the angle is zero."""
        ones = x_bhnd.new_ones(1, 1, places, self.head_dim)
        first, second = x_bhnd.chunk(2, dim=-1)
        return x_bhnd * ones + torch.cat((-second, first), dim=-1) * ones


class _Projection(nn.Module):
    """A linear layer; with a low-rank adapter as peft computes it (LoRA, Hu et al. 2021): y + s B(A(x))."""

    def __init__(self, inputs: int, outputs: int, dtype: torch.dtype, lora_rank: int) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs, bias=False, dtype=dtype)
        self.lora_a = nn.Linear(inputs, lora_rank, bias=False) if lora_rank else None
        self.lora_b = nn.Linear(lora_rank, outputs, bias=False) if lora_rank else None

    def forward(self, x_bnd: Tensor) -> Tensor:
        y = self.base(x_bnd)
        if self.lora_a is None or self.lora_b is None:
            return y
        return y + self.lora_b(self.lora_a(x_bnd.to(self.lora_a.weight.dtype))) * 2.0


class _Norm(nn.Module):
    """RMSNorm as transformers computes it, in float32."""

    def __init__(self, hidden: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden, dtype=dtype))

    def forward(self, x_bnd: Tensor) -> Tensor:
        x = x_bnd.float()
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)
        return self.weight * x.to(x_bnd.dtype)


def _with_weights_cast(module: nn.Module, hidden_bnd: Tensor, *words: bool) -> Tensor:
    """Run a module with its weights in the input's dtype, or as they are where autocast casts."""
    if torch.is_autocast_enabled(hidden_bnd.device.type):
        return module(hidden_bnd, *words)
    cast = {name: weight.to(hidden_bnd.dtype) for name, weight in module.named_parameters()}
    return functional_call(module, cast, (hidden_bnd, *words))
