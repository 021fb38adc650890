"""Which tokens pass the LLM block: their shapes, what the forms have in common, and what trains."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from networks import RANDOM_BLOCK, tiny, tiny_llm

from mvl_auto.llm import load_block
from mvl_auto.network import build_network
from mvl_auto.network.device import store_block
from mvl_auto.network.enrich import Enrich, Pooled, Queries, enrich
from mvl_auto.network.optimizer import make_optimizer, set_learning_rate, trainable
from mvl_auto.network.presets import vit
from mvl_auto.plans import LlmSettings, NetworkSettings

WIDTH = 24
FORMS = ["all", "pooled", "queries"]
GRIDS = [(4, 6, 2), (3, 5, 1), (4, 3), (1, 7)]


@pytest.fixture(scope="module")
def block(tmp_path_factory):
    return load_block(RANDOM_BLOCK, "last", tmp_path_factory.mktemp("blocks"))


def drawn(block, tokens: str) -> Enrich:
    """In float64, every weight that trains at random: gates, norms and biases start at 0 and 1 and would not show."""
    torch.manual_seed(0)
    part = enrich(tiny_llm(tokens=tokens, queries=5), WIDTH, copy.deepcopy(block)).double()
    for name, weight in sorted(part.named_parameters()):
        if weight.requires_grad and "queries" not in name:
            torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(len(name)))
    return part


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def open_gate(network):
    torch.nn.init.constant_(network.llm.gate, 0.5)
    return network


@pytest.mark.parametrize("tokens", FORMS)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_every_form_keeps_the_shape_and_changes_the_tokens(grid, tokens, block):
    part, x = drawn(block, tokens), random(2, int(np.prod(grid)), WIDTH)
    y = part(x, grid)
    assert y.shape == x.shape
    assert not torch.allclose(x, y, atol=1e-3)


@pytest.mark.parametrize("tokens", ["pooled", "queries"])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_tokens_that_are_all_the_same_get_from_every_form_what_the_full_one_gives(grid, tokens, block):
    """A mean of equal tokens is that token, and so is a mean of what comes back."""
    x = random(2, 1, WIDTH).expand(2, int(np.prod(grid)), WIDTH)
    torch.testing.assert_close(drawn(block, tokens)(x, grid), drawn(block, "all")(x, grid), rtol=1e-9, atol=1e-9)


def test_pooling_takes_the_mean_of_each_cell_and_at_the_border_of_what_is_there():
    grid = (2, 3)
    x = torch.arange(6.0).reshape(1, 6, 1)  # 0 1 2 / 3 4 5
    read, write = Pooled(LlmSettings(tokens="pooled"), 1)(x, grid)
    assert read.flatten().tolist() == [2.0, 3.5]  # (0 + 1 + 3 + 4) / 4, (2 + 5) / 2
    # centres of the cells at 0.5 and 2.5, tokens at 0, 1, 2: beyond the first centre its value, then a straight line
    assert write(torch.tensor([[[0.0], [4.0]]])).flatten().tolist() == [0.0, 1.0, 3.0, 0.0, 1.0, 3.0]


def test_queries_read_and_write_by_softmax_over_the_same_scores():
    part = Queries(LlmSettings(tokens="queries", queries=4), WIDTH).double()
    x, y = random(2, 9, WIDTH), random(2, 4, WIDTH)
    read, write = part(x, (3, 3))
    scores = np.exp(np.einsum("md,bnd->bmn", part.queries.detach().numpy(), x.numpy()))
    reading, writing = scores / scores.sum(2, keepdims=True), scores / scores.sum(1, keepdims=True)
    expected = np.einsum("bmn,bnd->bmd", reading, x.numpy())
    np.testing.assert_allclose(read.detach().numpy(), expected, rtol=1e-9)
    np.testing.assert_allclose(write(y).detach().numpy(), np.einsum("bmn,bmd->bnd", writing, y.numpy()), rtol=1e-9)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("tokens", FORMS)
def test_with_the_gate_at_zero_or_detached_every_form_is_the_plain_vit(tokens, dimensions, block):
    settings = tiny(dimensions, llm=tiny_llm(tokens=tokens))
    network = build_network(settings, 1, 3, block).eval()
    x = random(1, 1, *(24,) * dimensions).float()
    plain = build_network(vit(settings), 1, 3).eval()(x)
    assert torch.equal(network(x), plain)
    assert not torch.allclose(open_gate(network)(x), plain, atol=1e-3)
    network.llm.attached = False
    assert torch.equal(network(x), plain)


@pytest.mark.parametrize("tokens", FORMS)
def test_gradients_reach_mappers_gate_and_queries_and_the_block_stays(tokens, block):
    network = open_gate(build_network(tiny(llm=tiny_llm(tokens=tokens)), 1, 3, block).train())
    before = {name: p.clone() for name, p in network.llm.block.named_parameters()}
    optimizer = make_optimizer(network)
    sum(out.square().mean() for out in network(random(1, 1, 24, 24, 24).float())).backward()
    ours = {name: p for name, p in trainable(network).items() if name.startswith("llm.")}
    assert all(p.grad.abs().sum() > 0 for p in ours.values())
    assert ("llm.way.queries" in ours) == (tokens == "queries")
    optimizer.step()
    assert all(torch.equal(before[name], p) for name, p in network.llm.block.named_parameters())


def test_the_pooled_form_has_the_weights_of_the_full_one(block):
    shapes = [
        {name: p.shape for name, p in build_network(tiny(llm=tiny_llm(tokens=t)), 1, 3, block).named_parameters()}
        for t in ("all", "pooled", "queries")
    ]
    assert shapes[0] == shapes[1] == {k: v for k, v in shapes[2].items() if k != "llm.way.queries"}


def test_mappers_gate_and_queries_learn_at_their_own_rate_and_all_else_at_the_common_one(block):
    network = build_network(tiny(llm=tiny_llm(tokens="queries", mapper_rate=10.0)), 1, 3, block)
    optimizer = make_optimizer(network)
    set_learning_rate(optimizer, 1e-3)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, p in trainable(network).items():
        assert rates[id(p)] == pytest.approx(1e-2 if name.startswith("llm.") else 1e-3), name


@pytest.mark.parametrize("tokens", FORMS)
@pytest.mark.parametrize("enabled", [False, True])
def test_a_block_in_the_type_of_its_products_gives_the_same_bits(tokens, enabled, block):
    """It is stored in bfloat16 and multiplied in float32, or the other way round under autocast."""
    stored = copy.deepcopy(block).to(torch.float32 if enabled else torch.bfloat16)
    network = open_gate(build_network(tiny(llm=tiny_llm(tokens=tokens)), 1, 3, stored).eval())
    x, precision = random(1, 1, 24, 24, 24).float(), torch.autocast("cpu", torch.bfloat16, enabled=enabled)
    with precision:
        before = network(x)
    store_block(network, precision)
    matrices = {p.dtype for p in network.llm.block.parameters() if p.ndim > 1}
    assert matrices == {torch.bfloat16 if enabled else torch.float32}
    with precision:
        assert torch.equal(network(x), before)


def test_settings_of_before_are_read_written_and_hashed_as_they_were():
    old = NetworkSettings(**tiny(llm=tiny_llm()).model_dump())
    assert (old.llm.tokens, old.llm.mapper_rate, old.llm.start) == ("all", 1.0, 0.0)
    assert not {"tokens", "queries", "mapper_rate", "start"} & old.model_dump()["llm"].keys()
    new = tiny(llm=tiny_llm(tokens="queries", queries=4, mapper_rate=10.0, start=0.5))
    assert NetworkSettings(**new.model_dump()) == new
    assert new.model_dump()["llm"]["start"] == 0.5


def test_a_block_that_comes_later_must_have_a_gate():
    with pytest.raises(ValueError, match="must be gated"):
        LlmSettings(start=0.5, residual="plain")
