"""The whole network: shapes, switches, controls, and what trains."""

from __future__ import annotations

import copy
import warnings
from itertools import product
from pathlib import Path

import pytest
import torch
from llm_models import make_model, save_model
from networks import RANDOM_BLOCK, tiny, tiny_llm

from mvl_auto.llm import load_block
from mvl_auto.network import build_network
from mvl_auto.network.layers import keep_in_float32
from mvl_auto.network.optimizer import trainable
from mvl_auto.network.presets import compute_matched, paper, preset, unet, vit

NETWORK_PAGE = Path(__file__).parents[2] / "docs/network.md"


@pytest.fixture(scope="module")
def block(tmp_path_factory):
    return load_block(RANDOM_BLOCK, "last", tmp_path_factory.mktemp("blocks"))


def image(*size: int, channels: int = 1) -> torch.Tensor:
    return torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("dimensions", "channels", "outputs", "size"),
    [(3, 1, 3, (16, 24, 8)), (3, 4, 2, (13, 9, 21)), (2, 3, 5, (24, 16)), (2, 1, 2, (17, 31))],
)
def test_logits_have_the_size_of_any_image(dimensions, channels, outputs, size, block):
    network = build_network(tiny(dimensions, llm=tiny_llm()), channels, outputs, block).eval()
    assert network(image(*size, channels=channels)).shape == (1, outputs, *size)


def test_anisotropic_strides_give_anisotropic_tokens():
    settings = tiny(stem_strides=((1, 2, 2), (2, 2, 2)), token_stride=(1, 2, 2), spacing=(5.0, 1.0, 1.0))
    assert settings.token_size == (2, 8, 8)
    assert build_network(settings, 1, 2).eval()(image(6, 24, 16)).shape == (1, 2, 6, 24, 16)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_stem_at_full_resolution_and_odd_strides_work(stride):
    settings = tiny(stem_strides=((1, 1, 1), (stride,) * 3), token_stride=(2, 2, 2))
    assert build_network(settings, 1, 2).eval()(image(12, 12, 12)).shape == (1, 2, 12, 12, 12)


def test_with_the_gate_at_zero_the_network_is_the_plain_vit_bit_for_bit(block):
    settings = tiny(llm=tiny_llm())
    with_block, without = build_network(settings, 1, 3, block).eval(), build_network(vit(settings), 1, 3).eval()
    x = image(16, 16, 16)
    assert torch.equal(with_block(x), without(x))
    torch.nn.init.ones_(with_block.llm.gate)
    assert not torch.allclose(with_block(x), without(x), atol=1e-3)


@pytest.mark.parametrize("placement", ["head", "middle", "tail"])
def test_the_block_stands_where_it_is_placed(placement, block):
    network = build_network(tiny(llm=tiny_llm(placement=placement)), 1, 2, block)
    order = []
    for name, module in [("vit", network.trunk[0]), ("vit", network.trunk[1]), ("llm", network.llm)]:
        module.register_forward_hook(lambda *_, name=name: order.append(name))
    network.eval()(image(8, 8, 8))
    expected = {"head": ["llm", "vit", "vit"], "middle": ["vit", "llm", "vit"], "tail": ["vit", "vit", "llm"]}
    assert order == expected[placement]


@pytest.mark.parametrize(
    "switch", [{"causal": True}, {"rotary": True}, {"final_norm": False}, {"residual": "plain"}, {"residual": "none"}]
)
def test_every_switch_of_the_block_changes_the_function(switch, block):
    plain, switched = (build_network(tiny(llm=tiny_llm(**s)), 1, 2, block).eval() for s in ({}, switch))
    for network in (plain, switched):
        if network.llm.gate is not None:
            torch.nn.init.constant_(network.llm.gate, 20.0)  # a random block's attention hardly depends on its switches
    x = image(16, 16, 16)
    assert not torch.allclose(plain(x), switched(x), atol=1e-4)


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in trainable(network).values())


def test_the_controls_have_as_many_trainable_weights_as_the_block(block):
    counts = {
        control: count(build_network(tiny(llm=tiny_llm(control=control)), 1, 3, block))
        for control in ("block", "permuted", "mlp", "mappers_only")
    }
    assert len(set(counts.values())) == 1, counts
    assert counts["block"] > count(build_network(tiny(), 1, 3))


def test_a_random_block_is_a_control_for_a_pretrained_one_of_its_shape(block, tmp_path):
    """The language model of these tests is of the random block's geometry, and comes the way a pretrained one does."""
    source = f"file:{save_model(tmp_path / 'model', make_model())}"
    pretrained = load_block(source, "last", tmp_path / "blocks")
    of_model = build_network(tiny(llm=tiny_llm(source=source)), 1, 3, pretrained)
    of_chance = build_network(tiny(llm=tiny_llm(source=RANDOM_BLOCK)), 1, 3, block)
    assert count(of_model) == count(of_chance)
    assert weights_of(pretrained) == weights_of(block)
    assert all(torch.equal(weight, of_chance.get_parameter(name)) for name, weight in trainable(of_model).items())
    for network in (of_model, of_chance):
        torch.nn.init.ones_(network.eval().llm.gate)
    assert not torch.allclose(of_model(image(16, 16, 16)), of_chance(image(16, 16, 16)), atol=1e-3)


def weights_of(module: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in module.named_parameters()}


def test_permuted_has_the_same_numbers_and_another_function(block):
    real, shuffled = (build_network(tiny(llm=tiny_llm(control=c)), 1, 3, block).eval() for c in ("block", "permuted"))
    for (name, a), (_, b) in zip(real.llm.block.named_parameters(), shuffled.llm.block.named_parameters(), strict=True):
        assert torch.equal(a.flatten().sort().values, b.flatten().sort().values), name
    for network in (real, shuffled):
        torch.nn.init.ones_(network.llm.gate)
    assert not torch.allclose(real(image(16, 16, 16)), shuffled(image(16, 16, 16)), atol=1e-3)


def test_only_what_should_train_gets_a_gradient(block):
    network = build_network(tiny(llm=tiny_llm()), 1, 3, block).train()
    torch.nn.init.ones_(network.llm.gate)
    before = {name: p.clone() for name, p in network.llm.block.named_parameters()}
    sum(out.square().mean() for out in network(image(16, 16, 16))).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert without, "the frozen block gets none"
    assert all(name.startswith("llm.block.") for name in without)
    assert {name for name, _ in network.named_parameters()} - set(without) == trainable(network).keys()
    assert network.llm.map_in.weight.grad.abs().sum() > 0, "the gradient passes through the block"
    assert all(torch.equal(before[name], p) for name, p in network.llm.block.named_parameters())


def test_adapters_are_float32_over_a_block_in_bfloat16(block):
    pytest.importorskip("peft", reason="LoRA needs the extra [lora]")
    half = copy.deepcopy(block).to(torch.bfloat16)
    network = build_network(tiny(llm=tiny_llm(lora_rank=2)), 1, 3, half).train()
    torch.nn.init.ones_(network.llm.gate)
    sum(out.square().mean() for out in network(image(16, 16, 16))).backward()
    adapters = [p for name, p in network.llm.block.named_parameters() if "lora_" in name]
    assert adapters
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in adapters)
    assert {p.dtype for p in network.llm.block.parameters()} == {torch.float32, torch.bfloat16}


def test_adapters_train_and_the_block_under_them_does_not(block):
    pytest.importorskip("peft", reason="LoRA needs the extra [lora]")
    network = build_network(tiny(llm=tiny_llm(lora_rank=2)), 1, 3, copy.deepcopy(block)).train()
    names = [name for name in trainable(network) if name.startswith("llm.block.")]
    assert names
    assert all("lora_" in name for name in names)
    sum(out.square().mean() for out in network(image(16, 16, 16))).backward()
    assert all(p.grad is None for name, p in network.named_parameters() if name not in trainable(network))


def test_presets_are_what_they_are_called(block):
    settings = tiny(llm=tiny_llm())
    of_paper = build_network(paper(settings), 1, 2, block).eval()
    assert len(of_paper.stem.levels) == 0
    assert of_paper.settings.token_size == (8, 8, 8)
    assert of_paper(image(17, 16, 9)).shape == (1, 2, 17, 16, 9)
    convolutional = build_network(unet(settings), 1, 2).eval()
    assert not any(isinstance(m, torch.nn.Linear) for m in convolutional.trunk.modules())
    assert convolutional(image(16, 16, 16)).shape == (1, 2, 16, 16, 16)
    assert compute_matched(settings, 32, 64, 16).depth > settings.depth


@pytest.mark.parametrize("name", ["mvl", "vit", "unet", "paper"])
def test_presets_have_as_many_weights_as_documented(name, tmp_path):
    """docs/network.md, for the planner's network of Hippocampus and a block of SmolLM2-135M's size."""
    block = load_block("random:hidden=576,heads=9,kv_heads=3,ffn=1536,seed=0", "last", tmp_path)
    planned = tiny(stem_channels=(24, 48), width=192, depth=6, heads=6, llm=tiny_llm())
    chosen = preset(name, planned)
    network = build_network(chosen, 1, 3, block if chosen.llm.present else None)
    row = next(line for line in NETWORK_PAGE.read_text().splitlines() if line.startswith(f"| `{name}` |"))
    documented = [int(cell.replace(",", "")) for cell in row.split("|")[3:5]]
    assert [count(network), sum(p.numel() for p in network.parameters() if not p.requires_grad)] == documented


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_away_from_the_border_a_moved_image_gives_moved_logits(axis):
    """Without positions and with attention that only looks near, all parts are the same everywhere."""
    network = build_network(tiny(attention="local", depth=1), 1, 2).eval()
    torch.nn.init.zeros_(network.tokens.scale)
    for norm in (module for module in network.modules() if isinstance(module, torch.nn.GroupNorm)):
        norm.forward = lambda x: x  # the only part that sees the whole image at once
    x = image(*(104 if n == axis else 16 for n in range(3)))
    whole, moved = network(x), network(x.narrow(2 + axis, 8, 96))
    torch.testing.assert_close(moved.narrow(2 + axis, 40, 16), whole.narrow(2 + axis, 48, 16), atol=1e-5, rtol=1e-4)


def test_the_same_seed_gives_the_same_weights_with_and_without_the_block(block):
    settings = tiny(llm=tiny_llm())
    first, again, other = (build_network(settings, 1, 2, block, seed) for seed in (0, 0, 1))
    plain = build_network(vit(settings), 1, 2, seed=0)
    for name, p in plain.named_parameters():
        assert torch.equal(p, first.get_parameter(name))
        assert torch.equal(p, again.get_parameter(name))
    assert not torch.equal(first.tokens.embed.body.weight, other.tokens.embed.body.weight)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_trunk_compiles_without_graph_breaks(dimensions, block):
    network = build_network(tiny(dimensions, llm=tiny_llm()), 1, 2, block).eval()
    torch.nn.init.ones_(network.llm.gate)
    x = image(*(16,) * dimensions)
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), network(x), atol=1e-5, rtol=1e-4)


def test_it_compiles_without_graph_breaks_as_a_cpu_trains_it(block):
    """In train mode, in bfloat16 but for what is kept in float32: logits of all levels and gradients are the same."""
    network = build_network(tiny(depth=1, llm=tiny_llm()), 1, 2, block).train()
    torch.nn.init.ones_(network.llm.gate)
    keep_in_float32(network)
    x = image(16, 16, 16)
    results = []
    for run in (torch.compile(network, fullgraph=True, backend="eager"), network):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = run(x)
        sum(out.float().square().mean() for out in logits).backward()
        results.append((logits, {name: p.grad for name, p in trainable(network).items()}))
    assert len(results[0][0]) == 2
    torch.testing.assert_close(*results)


def test_the_network_exports_for_a_fixed_patch(block):
    network = build_network(tiny(llm=tiny_llm()), 1, 2, block).eval()
    torch.nn.init.ones_(network.llm.gate)
    x = image(16, 16, 16)
    exported = torch.export.export(network, (x,)).module()
    torch.testing.assert_close(exported(x), network(x), atol=1e-5, rtol=1e-4)


def test_what_is_kept_in_float32_is_not_rounded(block):
    network = build_network(tiny(llm=tiny_llm()), 1, 2, block).eval()
    keep_in_float32(network)
    x = torch.randn(1, 8, 4, 4, 4)
    norm = network.stem.levels[0][1].body[1]
    with torch.autocast("cpu", torch.bfloat16):
        kept, rounded = norm(x.bfloat16()), network(image(16, 16, 16))
    torch.testing.assert_close(kept, torch.nn.functional.group_norm(x.bfloat16().float(), norm.num_groups))
    full = network(image(16, 16, 16))
    assert (rounded.float() - full).abs().max() < 0.1 * full.abs().max()


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_mixed_precision_stays_near_full_precision(precision, block):
    network = build_network(tiny(llm=tiny_llm()), 1, 2, block).eval()
    torch.nn.init.ones_(network.llm.gate)
    x = image(16, 16, 16)
    full = network(x)
    with torch.autocast("cpu", precision):
        mixed = network(x)
    assert (mixed.float() - full).abs().max() < 0.1 * full.abs().max()


def test_checkpointing_changes_memory_not_gradients(block):
    gradients = []
    for checkpointing in (False, True):
        network = build_network(tiny(llm=tiny_llm(), gradient_checkpointing=checkpointing), 1, 2, block).train()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # torch's, about the older kind of checkpoints
            network(image(16, 16, 16))[0].square().mean().backward()
        gradients.append({name: p.grad for name, p in trainable(network).items() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name in gradients[0]:
        torch.testing.assert_close(gradients[0][name], gradients[1][name])


def test_the_gradient_is_the_derivative():
    network = build_network(tiny(stem_channels=(2, 2), width=6, heads=1, depth=1), 1, 2).double().eval()
    x = image(8, 8, 8).double().requires_grad_()
    network(x).square().sum().backward()
    step, voxels = 1e-5, list(product((1, 6), repeat=3))
    for z, y, v in voxels:
        shift = torch.zeros_like(x)
        shift[0, 0, z, y, v] = step
        with torch.no_grad():
            numeric = (network(x + shift).square().sum() - network(x - shift).square().sum()) / (2 * step)
        torch.testing.assert_close(x.grad[0, 0, z, y, v], numeric, atol=1e-6, rtol=1e-5)
