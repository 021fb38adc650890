"""The optimizer, and the average of the weights that predicts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WEIGHT_DECAY = 0.05
BETAS = (0.9, 0.98)
CLIP_NORM = 1.0
EMA_DECAY = 0.995
RATE = "rate"  # of a group of weights: factor on the learning rate
MOMENTS, STEP = ("exp_avg", "exp_avg_sq"), "step"  # AdamW's names for its state


def trainable(network: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that training changes, by name: all but the frozen block's. There are no other buffers."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def make_optimizer(network: nn.Module) -> torch.optim.AdamW:
    """AdamW over what trains; weight decay on matrices and kernels only, not on gates, scales, biases, norms.

    Each group has, as `rate`, the factor on the learning rate that its weights train with (rate_of).
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    weights = trainable(network)
    for name, p in weights.items():
        kind = (rate_of(name, network), WEIGHT_DECAY if p.ndim >= 2 else 0.0)
        groups.setdefault(kind, []).append(p)
    listed = [{"params": ps, "weight_decay": decay, RATE: rate} for (rate, decay), ps in groups.items()]
    fused = all(p.device.type in ("cpu", "cuda") for p in weights.values())
    return torch.optim.AdamW(listed, betas=BETAS, fused=fused)  # set_learning_rate gives the rate of each step


def rate_of(name: str, network: nn.Module) -> float:
    """The factor on the learning rate of one weight of the network: of the longest prefix in network.rates, else 1."""
    rates: dict[str, float] = getattr(network, "rates", {})
    fitting = [prefix for prefix in rates if name.startswith(prefix)]
    return rates[max(fitting, key=len)] if fitting else 1.0


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """For the next step: of each group, times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group[RATE]


def optimizer_tensors(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """AdamW's moments and step counters under the names of the weights: `<weight>.exp_avg` and so on."""
    return {
        f"{name}.{kind}": optimizer.state[parameter][kind]
        for name, parameter in trainable(network).items()
        for kind in (*MOMENTS, STEP)
        if parameter in optimizer.state
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """The inverse of optimizer_tensors; the moments get the memory layout of their weights."""
    for name, parameter in trainable(network).items():
        if f"{name}.{STEP}" in tensors:
            moments = {kind: torch.empty_like(parameter).copy_(tensors[f"{name}.{kind}"]) for kind in MOMENTS}
            step = tensors[f"{name}.{STEP}"].to(parameter.device if optimizer.defaults["fused"] else "cpu")
            optimizer.state[parameter] = {STEP: step, **moments}


class Average:
    """Exponential moving average of the trainable weights (Polyak and Juditsky 1992), warmed up."""

    def __init__(self, network: nn.Module) -> None:
        self.names, self.sources = zip(*trainable(network).items(), strict=True)
        self.values = [p.detach().clone() for p in self.sources]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After optimizer step `step` (from 1)."""
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.sources], 1 - decay)

    def tensors(self) -> dict[str, Tensor]:
        return dict(zip(self.names, self.values, strict=True))

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        for name, value in zip(self.names, self.values, strict=True):
            value.copy_(tensors[name])
