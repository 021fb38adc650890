"""What can be said of a block before it is read: its sizes, from the bank, the catalogue, or its own words.

For those who plan with it: nothing is fetched, and torch is not needed.
"""

from __future__ import annotations

from pathlib import Path

from mvl_auto.llm.auto import fits
from mvl_auto.llm.bank import list_blocks
from mvl_auto.llm.card import BlockCard, Layer
from mvl_auto.llm.catalogue import BYTES_PER_WEIGHT, CATALOGUE
from mvl_auto.llm.fetch import stored_block
from mvl_auto.llm.sources.syntax import HubSource, RandomSource, Source, parse_source
from mvl_auto.plans import BlockSizes, LlmSettings

BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
RANDOM_BYTES = 4


def known_blocks(llm: LlmSettings, folder: Path) -> list[BlockSizes]:
    """What is known of the block without reading it; of `auto`, the pretrained blocks of the bank."""
    if not llm.present:
        return []
    if llm.source == "auto":
        return pretrained_sizes(llm.layer, folder)
    known = known_sizes(llm.source, llm.layer, folder)
    return [] if known is None else [known]


def llm_settings(llm: str, layer: Layer) -> LlmSettings:
    """The settings that the words of `--llm` and `--llm-layer` mean. Raises MvlError for a source that is none."""
    return LlmSettings(source=llm if llm in ("auto", "none") else str(parse_source(llm)), layer=layer)


def pretrained_sizes(layer: Layer, folder: Path) -> list[BlockSizes]:
    """The pretrained blocks of the bank that are this layer of their models."""
    return [_of_card(card) for card in list_blocks(folder) if fits(card, layer)]


def known_sizes(source: str, layer: Layer, folder: Path) -> BlockSizes | None:
    """The block that `source` and `layer` name; None where it would have to be read first."""
    parsed = parse_source(source)
    if isinstance(parsed, RandomSource):
        head_dim = parsed.hidden // parsed.heads
        return BlockSizes(
            source, layer, parsed.hidden, parsed.heads, parsed.kv_heads, head_dim, parsed.ffn, RANDOM_BYTES
        )
    if card := stored_block(parsed, layer, folder):
        return _of_card(card)
    return _of_catalogue(parsed, layer)


def _of_card(card: BlockCard) -> BlockSizes:
    geometry = card.geometry
    return BlockSizes(
        source=card.source,
        layer=card.layer,
        hidden_size=geometry.hidden_size,
        heads=geometry.num_attention_heads,
        kv_heads=geometry.num_key_value_heads,
        head_dim=geometry.head_dim,
        ffn=geometry.intermediate_size,
        weight_bytes=BYTES[card.dtype],
    )


def _of_catalogue(source: Source, layer: Layer) -> BlockSizes | None:
    if not isinstance(source, HubSource):
        return None
    for entry in CATALOGUE:
        if entry.source == f"hf:{source.repo}":
            return BlockSizes(
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
