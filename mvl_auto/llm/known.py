"""What can be said of a block before it is read: its sizes, from the bank, the catalogue, or its own words.

For those who plan with it: nothing is fetched, and torch is not needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mvl_auto.llm.auto import fits
from mvl_auto.llm.bank import list_blocks
from mvl_auto.llm.card import BlockCard, Layer
from mvl_auto.llm.catalogue import BYTES_PER_WEIGHT, CATALOGUE
from mvl_auto.llm.load import stored_block
from mvl_auto.llm.sources import HubSource, RandomSource, Source, parse_source

BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
RANDOM_BYTES = 4


@dataclass(frozen=True)
class Sizes:
    """A decoder layer. source, layer: the words by which it is loaded. weight_bytes: of one weight as it is stored."""

    source: str
    layer: Layer
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    weight_bytes: int


def pretrained_sizes(layer: Layer, folder: Path) -> list[Sizes]:
    """The pretrained blocks of the bank that are this layer of their models."""
    return [_of_card(card) for card in list_blocks(folder) if fits(card, layer)]


def known_sizes(source: str, layer: Layer, folder: Path) -> Sizes | None:
    """The block that `source` and `layer` name; None where it would have to be read first."""
    parsed = parse_source(source)
    if isinstance(parsed, RandomSource):
        head_dim = parsed.hidden // parsed.heads
        return Sizes(source, layer, parsed.hidden, parsed.heads, parsed.kv_heads, head_dim, parsed.ffn, RANDOM_BYTES)
    if card := stored_block(parsed, layer, folder):
        return _of_card(card)
    return _of_catalogue(parsed, layer)


def _of_card(card: BlockCard) -> Sizes:
    geometry = card.geometry
    return Sizes(
        source=card.source,
        layer=card.layer,
        hidden_size=geometry.hidden_size,
        heads=geometry.num_attention_heads,
        kv_heads=geometry.num_key_value_heads,
        head_dim=geometry.head_dim,
        ffn=geometry.intermediate_size,
        weight_bytes=BYTES[card.dtype],
    )


def _of_catalogue(source: Source, layer: Layer) -> Sizes | None:
    if not isinstance(source, HubSource):
        return None
    for entry in CATALOGUE:
        if entry.source == f"hf:{source.repo}":
            return Sizes(
                source=str(source),
                layer=layer,
                hidden_size=entry.hidden_size,
                heads=entry.num_attention_heads,
                kv_heads=entry.num_key_value_heads,
                head_dim=entry.head_dim,
                ffn=entry.intermediate_size,
                weight_bytes=BYTES_PER_WEIGHT,
            )
    return None
