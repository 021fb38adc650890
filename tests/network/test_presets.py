"""A compute-matched ViT does the work of the network with the block, as torch counts it where it is done."""

from __future__ import annotations

import pytest
import torch
from networks import tiny, tiny_llm
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mvl_auto.llm import load_block
from mvl_auto.llm.layers import LayerRange
from mvl_auto.network import build_network
from mvl_auto.network.presets import compute_matched, vit

HIDDEN, HEADS, KV_HEADS, FFN = 576, 9, 3, 1536  # SmolLM2-135M
SMOLLM2 = f"random:hidden={HIDDEN},heads={HEADS},kv_heads={KV_HEADS},ffn={FFN},seed=0"


def work_of_a_step(settings, block=None) -> int:
    """Floating-point operations of one forward and backward pass over 64 tokens."""
    network = build_network(settings, 1, 3, block).train()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # it counts no other attention
        sum(logits.sum() for logits in network(torch.zeros(1, 1, 32, 32, 32))).backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(("tokens", "layers", "least"), [("all", 1, 3), ("all", 2, 6), ("pooled", 1, 0.3)])
def test_a_compute_matched_vit_works_as_much_as_the_network_with_the_block(tmp_path, tokens, layers, least):
    # the global branch alone: torch's counter takes the gradient of a depthwise convolution for that of a full one
    llm = tiny_llm(source=SMOLLM2, tokens=tokens, layers=layers)
    planned = tiny(width=192, heads=6, depth=1, attention="global", llm=llm)
    with_block = work_of_a_step(planned, load_block(SMOLLM2, LayerRange("last", layers), tmp_path))
    matched = work_of_a_step(compute_matched(planned, HIDDEN, FFN, HIDDEN // HEADS * KV_HEADS))
    shallow, deeper = (work_of_a_step(vit(planned).model_copy(update={"depth": depth})) for depth in (1, 2))
    nearest = max(1.0, round((with_block - shallow) / (deeper - shallow)))
    assert matched == pytest.approx(shallow + nearest * (deeper - shallow)), "no other depth is nearer"
    assert with_block - shallow > least * (deeper - shallow), "the block costs several ViT blocks, or a part of one"
