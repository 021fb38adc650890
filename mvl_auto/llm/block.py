"""A frozen block: one decoder layer of a language model, or several consecutive ones, and the model's final norm.

    y = RMSNorm_final(layer(x)),   layer(x) = h + MLP(norm(h)),   h = x + Attention(norm(x))
    with two layers   y = RMSNorm_final(layer2(layer(x)))

The layers are transformers' own. Weights are kept in the dtype they are stored in. They are cast to the dtype of the
input for the computation, or used as they are under autocast, which casts. So the same tokens give the same result on
every device, and a GPU under bfloat16 autocast multiplies bfloat16 weights without a copy.

Shape letters: b batch, n tokens, d hidden_size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mvl_auto.llm.architectures import build_parts
from mvl_auto.llm.card import BlockCard, BlockGeometry


class FrozenBlock(nn.Module):
    """Frozen decoder layers with the final norm: gradients pass through them, their weights get none.

    Always in evaluation mode. Keys of `weights`: one of geometry.layer_names or "norm", a dot, then transformers' own
    names.
    """

    def __init__(self, card: BlockCard, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        parts = build_parts(card.geometry)
        self.card = card
        for name, layer in zip(card.geometry.layer_names, parts.layers, strict=True):
            self.add_module(name, layer)
        self.norm, self.rotary = parts.norm, parts.rotary
        self.rotary_arguments = parts.rotary_arguments
        self.load_state_dict(dict(weights), strict=True, assign=True)
        self.requires_grad_(False)
        self.eval()

    def forward(
        self, hidden_bnd: Tensor, *, causal: bool = False, rotary: bool = False, final_norm: bool = True
    ) -> Tensor:
        """(b, n, d) -> (b, n, d), of the input's dtype.

        causal: a token attends to itself and to those before it, within the layer's sliding window; else to all.
        rotary: tokens get the positions 0, 1, ..., n - 1; else their order has no effect.
        final_norm: apply the model's final norm after the last layer.
        """
        hidden = hidden_bnd
        mask, positions = self._window_mask(hidden_bnd) if causal else None, self._positions(hidden_bnd, rotary)
        for name in self.card.geometry.layer_names:
            hidden = self._compute(
                getattr(self, name),
                hidden,
                attention_mask=mask,
                position_embeddings=positions,
                is_causal=causal,  # transformers' default is causal attention whenever there is no mask
            )
        if final_norm:
            hidden = self._compute(self.norm, hidden)
        return hidden.to(hidden_bnd.dtype)

    def train(self, mode: bool = True) -> FrozenBlock:
        """Stay in evaluation mode when the network around it changes its mode."""
        return super().train(False)

    def _compute(self, module: nn.Module, hidden_bnd: Tensor, **arguments: Any) -> Tensor:
        """Run a module with its weights in the input's dtype, or as they are where autocast casts."""
        weights = dict(module.named_parameters())
        if torch.is_autocast_enabled(hidden_bnd.device.type) or all(
            weight.dtype == hidden_bnd.dtype for weight in weights.values()
        ):
            return module(hidden_bnd, **arguments)
        cast = {name: weight.to(hidden_bnd.dtype) for name, weight in weights.items()}
        return functional_call(module, cast, (hidden_bnd,), arguments)

    def _positions(self, hidden_bnd: Tensor, rotary: bool) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the rotation; without rotary those of no rotation, (1, 1, head_dim)."""
        if not rotary:
            ones = hidden_bnd.new_ones(1, 1, self.card.geometry.head_dim)
            return ones, torch.zeros_like(ones)
        positions_1n = torch.arange(hidden_bnd.shape[1], device=hidden_bnd.device)[None]
        return self.rotary(hidden_bnd, positions_1n, **self.rotary_arguments)

    def _window_mask(self, hidden_bnd: Tensor) -> Tensor | None:
        """(1, 1, n, n), true where a query attends to a key; None where the window holds all tokens."""
        window, tokens = self.card.geometry.sliding_window, hidden_bnd.shape[1]
        if window is None or tokens <= window:
            return None
        place = torch.arange(tokens, device=hidden_bnd.device)
        back = place[:, None] - place[None, :]
        return ((back >= 0) & (back < window))[None, None]


def weight_shapes(geometry: BlockGeometry) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of a block, without making one."""
    parts = build_parts(geometry)
    modules = (*zip(geometry.layer_names, parts.layers, strict=True), ("norm", parts.norm))
    return {f"{prefix}.{name}": tuple(w.shape) for prefix, module in modules for name, w in module.named_parameters()}
