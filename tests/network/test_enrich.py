"""The LLM part against its equation, y = x + a * M_out(B(M_in(LN(x)))), written out in numpy."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from formulas import layer_norm
from networks import RANDOM_BLOCK, tiny_llm
from scipy.special import erf

from mvl_auto.llm import load_block
from mvl_auto.network.enrich import Enrich, enrich

WIDTH, TOKENS, RANK = 24, 12, 5
GRID = (2, 2, 3)
BIDIRECTIONAL = {"causal": False, "rotary": False, "final_norm": True}
AS_IN_THE_MODEL = {"causal": True, "rotary": True, "final_norm": False}


@pytest.fixture(scope="module")
def block(tmp_path_factory):
    return load_block(RANDOM_BLOCK, "last", tmp_path_factory.mktemp("blocks"))


def drawn(block, **settings) -> Enrich:
    """In float64, every weight that trains at random: gates, norms and biases start at 0 and 1 and would not show."""
    part = enrich(tiny_llm(**settings), WIDTH, copy.deepcopy(block)).double()
    generator = torch.Generator().manual_seed(0)
    for weight in part.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, generator=generator)
    return part


def mapped(x: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    """A linear map, or the two thin ones that a mapper of low rank is made of."""
    if f"{name}.weight" in weights:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    thin, wide = weights[f"{name}.0.weight"], weights[f"{name}.1.weight"]
    assert len(thin) == wide.shape[1] == RANK
    return x @ (wide @ thin).T + weights[f"{name}.1.bias"]


def by_hand(part: Enrich, x: np.ndarray, middle, residual: str) -> np.ndarray:
    weights = {name: value.detach().numpy() for name, value in part.named_parameters()}
    inside = mapped(layer_norm(x, weights["norm.weight"], weights["norm.bias"]), weights, "map_in")
    added = mapped(middle(inside), weights, "map_out")
    return {"gated": lambda: x + weights["gate"] * added, "plain": lambda: x + added, "none": lambda: added}[residual]()


def tokens() -> torch.Tensor:
    return torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("rank", [None, RANK])
@pytest.mark.parametrize("residual", ["gated", "plain", "none"])
@pytest.mark.parametrize("control", ["mappers_only", "mlp"])
def test_with_a_control_the_llm_part_is_its_equation(control, residual, rank, block):
    part = drawn(block, control=control, residual=residual, mapper_rank=rank)
    middle = {"mappers_only": lambda h: h, "mlp": lambda h: h * (1 + erf(h / np.sqrt(2))) / 2}[control]
    expected = by_hand(part, tokens().numpy(), middle, residual)
    np.testing.assert_allclose(part(tokens(), GRID).detach().numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rank", [None, RANK])
@pytest.mark.parametrize("residual", ["gated", "plain", "none"])
@pytest.mark.parametrize("switches", [BIDIRECTIONAL, AS_IN_THE_MODEL])
def test_with_the_block_the_llm_part_is_its_equation(switches, residual, rank, block):
    """B is the frozen block, called directly with the switches written out."""
    part = drawn(block, residual=residual, mapper_rank=rank, **switches)
    expected = by_hand(part, tokens().numpy(), lambda h: block(torch.from_numpy(h), **switches).numpy(), residual)
    np.testing.assert_allclose(part(tokens(), GRID).detach().numpy(), expected, rtol=1e-9, atol=1e-9)
