"""Frozen blocks as the planner sees them: how wide and how heavy each is, and which of them a plan may name.

The planner does not read the block bank (mvl_auto.llm): its caller says which blocks there are, in plain numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from mvl_auto.plans import BlockSizes, LlmSettings

SMOLLM2 = BlockSizes("auto", "last", 576, 9, 3, 64, 1536)  # SmolLM2-135M: the smallest block; no model hub is needed


def like_smollm2(source: str, layer: int | Literal["last"], hidden_size: int, layers: int = 1) -> BlockSizes:
    """A block of which only the width and the number of layers are known, in SmolLM2-135M's proportions."""
    head_dim = SMOLLM2.head_dim if hidden_size % SMOLLM2.head_dim == 0 else hidden_size
    heads = hidden_size // head_dim
    kv_heads = max(1, heads * SMOLLM2.kv_heads // SMOLLM2.heads)
    ffn = round(hidden_size * SMOLLM2.ffn / SMOLLM2.hidden_size)
    kv_heads = kv_heads if heads % kv_heads == 0 else heads
    return BlockSizes(source, layer, hidden_size, heads, kv_heads, head_dim, ffn, layers=layers)


def block_from_settings(llm: LlmSettings) -> BlockSizes | None:
    """The block's sizes as far as the settings tell them; None for a network without a block.

    Raises ValueError where the settings have no width.
    """
    if not llm.present:
        return None
    if llm.hidden_size is None:
        raise ValueError("the block's hidden_size must be known to say what a network with it costs")
    return like_smollm2(llm.source, llm.layer, llm.hidden_size, llm.layers)


def eligible_blocks(llm: LlmSettings, known: Sequence[BlockSizes]) -> tuple[BlockSizes, ...]:
    """The blocks that a plan may name, each wider than the one before and heavier in every respect.

    known: for `auto` the pretrained blocks of the bank, of the layers that `llm` names; for any other source what is
    known of that block, if anything. With `auto` SmolLM2-135M comes first, then the wider ones of the bank.
    Returns () for a network without a block.
    """
    if not llm.present:
        return ()
    if llm.source != SMOLLM2.source:
        assumed = like_smollm2(llm.source, llm.layer, llm.hidden_size or SMOLLM2.hidden_size, llm.layers)
        return (replace(known[0], source=llm.source, layer=llm.layer) if known else assumed,)
    first = replace(SMOLLM2, layer=llm.layer, layers=llm.layers)
    chain: list[BlockSizes] = []
    for block in sorted(known, key=lambda each: (-each.hidden_size, each.heaviness, each.source)):
        heavier = chain[-1].heaviness if chain else None
        wider = first.hidden_size < block.hidden_size and (not chain or block.hidden_size < chain[-1].hidden_size)
        if wider and _is_at_most(first.heaviness, block.heaviness) and _is_at_most(block.heaviness, heavier):
            chain.append(block)
    return (first, *reversed(chain))


def _is_at_most(lighter: tuple[int, ...], heavier: tuple[int, ...] | None) -> bool:
    return heavier is None or all(a <= b for a, b in zip(lighter, heavier, strict=True))
