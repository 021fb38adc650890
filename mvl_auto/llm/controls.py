"""What stands in a frozen block's place to ask what its weights bring: the same numbers shuffled, random ones, a turn.

    permuted     the rows of each weight shuffled
    randomised   the matrices drawn anew, with the mean and the standard deviation of each; the norms as they are
    Rotated      the same function in another basis: whatever it changes is rounding

The first two ask whether the function that the language model has learned matters. The third must change nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mvl_auto.errors import MvlError
from mvl_auto.llm.block import FrozenBlock

NORMS = {  # norm of a layer -> the matrices that read what it gives
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}
WRITERS = ("self_attn.o_proj", "mlp.down_proj")  # matrices that write into the hidden axes
FINAL_NORM = "norm.weight"
PLAIN = ("llama", "mistral", "qwen2", "qwen3")  # architectures whose norms are those of NORMS and FINAL_NORM


def permuted(block: FrozenBlock, seed: int) -> FrozenBlock:
    """The block with the rows of each of its weights shuffled: the same numbers, another function.

    The control for the claim that any weights of this distribution would help as much: every matrix keeps its entries
    and its singular values; only the relation between the matrices is lost.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = {
        name: weight[torch.randperm(len(weight), generator=generator).to(weight.device)]
        for name, weight in sorted(block.state_dict().items())
    }
    return FrozenBlock(block.card.model_copy(update={"name": f"{block.card.name}-permuted{seed}"}), shuffled)


def randomised(block: FrozenBlock, seed: int) -> FrozenBlock:
    """The block with random matrices: normal numbers of each matrix's own mean and standard deviation.

    Norms and biases stay as they are, so that the sizes of what passes through are those of the language model's block.
    """
    generator = torch.Generator().manual_seed(seed)

    def drawn(weight: Tensor) -> Tensor:
        if weight.ndim < 2:
            return weight
        sd, mean = torch.std_mean(weight.float())
        return (torch.randn(weight.shape, generator=generator) * sd.cpu() + mean.cpu()).to(weight)

    weights = {name: drawn(weight) for name, weight in sorted(block.state_dict().items())}
    return FrozenBlock(block.card.model_copy(update={"name": f"{block.card.name}-random{seed}"}), weights)


class Rotated(nn.Module):
    """The block in a turned basis of its hidden axes, with a block's signature: the same function up to rounding.

        B'(x) = w * (R(x Q) Q^T),    R: the block with the weights of its norms moved into the matrices behind them,
                                     and each matrix turned by the orthogonal Q on its hidden side

    RMSNorm without weights keeps any turn, w is the final norm's weight. Computed in float32.
    Raises MvlError for a block whose norms are of another kind.
    """

    def __init__(self, block: FrozenBlock, seed: int) -> None:
        super().__init__()
        if block.card.geometry.architecture not in PLAIN:
            raise MvlError(
                f"the control 'rotated' is not written for blocks of {block.card.geometry.architecture}",
                file=block.card.name,
                remedy=f"Choose a block of one of these: {', '.join(PLAIN)}.",
            )
        turn = orthogonal(block.card.hidden_size, seed)
        weights = {name: weight.double() for name, weight in block.state_dict().items()}
        self.scale = _frozen(weights[FINAL_NORM])
        weights[FINAL_NORM] = torch.ones_like(weights[FINAL_NORM])
        for layer in block.card.geometry.layer_names:
            _turn_layer(weights, layer, turn)
        turned = {name: weight.float() for name, weight in weights.items()}
        self.block = FrozenBlock(block.card.model_copy(update={"name": f"{block.card.name}-rotated{seed}"}), turned)
        self.turn = _frozen(turn)

    def forward(self, hidden_bnd: Tensor, causal: bool, rotary: bool, final_norm: bool) -> Tensor:
        turned = self.block(hidden_bnd @ self.turn, causal=causal, rotary=rotary, final_norm=final_norm)
        back = turned @ self.turn.T
        return back * self.scale if final_norm else back


def _turn_layer(weights: dict[str, Tensor], layer: str, turn: Tensor) -> None:
    """Turn the hidden side of each matrix of one layer, and move the weights of its norms into the matrices, in place.

    layer: its name in the block. turn: (d, d).
    """
    for norm, readers in NORMS.items():
        scale = f"{layer}.{norm}.weight"
        for reader in readers:
            name = f"{layer}.{reader}.weight"
            weights[name] = weights[name] * weights[scale] @ turn
        weights[scale] = torch.ones_like(weights[scale])
    for writer in WRITERS:
        name = f"{layer}.{writer}.weight"
        weights[name] = turn.T @ weights[name]
        if (bias := f"{layer}.{writer}.bias") in weights:
            weights[bias] = weights[bias] @ turn


def orthogonal(size: int, seed: int) -> Tensor:
    """A random orthogonal matrix (size, size), float64: Q of a normal matrix's QR, its signs fixed (Mezzadri 2007)."""
    normal = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    q, r = torch.linalg.qr(normal)
    return q * r.diagonal().sign()


def _frozen(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.float(), requires_grad=False)
