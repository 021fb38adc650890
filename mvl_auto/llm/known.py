"""The sizes of a block before its weights are read, for the planner: from the bank, the catalogue, or its source text.

Nothing is fetched, and torch is not needed.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from mvl_auto.errors import MvlError
from mvl_auto.llm.auto import is_candidate
from mvl_auto.llm.bank import list_blocks
from mvl_auto.llm.card import BlockCard
from mvl_auto.llm.catalogue import BYTES_PER_WEIGHT, CATALOGUE
from mvl_auto.llm.fetch import stored_block
from mvl_auto.llm.layers import Layer, LayerRange, layer_range
from mvl_auto.llm.sources.syntax import HubSource, RandomSource, Source, parse_source
from mvl_auto.plans import PLANNED_TOKENS, BlockSizes, LlmSettings, Tokens

BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
RANDOM_BYTES = 4


def known_blocks(llm: LlmSettings, folder: Path) -> list[BlockSizes]:
    """The sizes of the planned block, where known without fetching it; for `auto`, of all candidates in the bank."""
    if not llm.present:
        return []
    if llm.source == "auto":
        return pretrained_sizes(planned_layers(llm), folder)
    known = known_sizes(llm.source, planned_layers(llm), folder)
    return [] if known is None else [known]


def llm_settings(llm: str, layers: LayerRange | Layer, tokens: Tokens | None = None) -> LlmSettings:
    """The settings for `--llm` and the options that begin with it.

    Raises MvlError for a source of unknown syntax and for numbers that no model has.
    """
    chosen = layer_range(layers)
    source = llm if llm in ("auto", "none") else str(parse_source(llm))
    try:
        return LlmSettings(source=source, layer=chosen.last, layers=chosen.count, tokens=tokens or PLANNED_TOKENS)
    except ValidationError as error:
        first = error.errors()[0]
        raise MvlError(f"--llm-{first['loc'][0]} {first['input']}: {first['msg'].lower()}") from error


def planned_layers(llm: LlmSettings) -> LayerRange:
    return LayerRange(llm.layer, llm.layers)


def pretrained_sizes(layers: LayerRange | Layer, folder: Path) -> list[BlockSizes]:
    """The sizes of the pretrained blocks in the bank that are these layers of their models."""
    wanted = layer_range(layers)
    return [_read_sizes(card) for card in list_blocks(folder) if is_candidate(card, wanted)]


def known_sizes(source: str, layers: LayerRange | Layer, folder: Path) -> BlockSizes | None:
    """The sizes of the block that `source` and `layers` name; None where it would have to be fetched first."""
    parsed, wanted = parse_source(source), layer_range(layers)
    if isinstance(parsed, RandomSource):
        head_dim = parsed.hidden // parsed.heads
        return BlockSizes(
            source=source,
            layer=wanted.last,
            hidden_size=parsed.hidden,
            heads=parsed.heads,
            kv_heads=parsed.kv_heads,
            head_dim=head_dim,
            ffn=parsed.ffn,
            weight_bytes=RANDOM_BYTES,
            layers=wanted.count,
        )
    if card := stored_block(parsed, wanted, folder):
        return _read_sizes(card)
    return _look_up_sizes(parsed, wanted)


def _read_sizes(card: BlockCard) -> BlockSizes:
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
        layers=geometry.layers,
    )


def _look_up_sizes(source: Source, layers: LayerRange) -> BlockSizes | None:
    if not isinstance(source, HubSource):
        return None
    for entry in CATALOGUE:
        if entry.source == f"hf:{source.repo}":
            return BlockSizes(
                source=str(source),
                layer=layers.last,
                hidden_size=entry.hidden_size,
                heads=entry.num_attention_heads,
                kv_heads=entry.num_key_value_heads,
                head_dim=entry.head_dim,
                ffn=entry.intermediate_size,
                weight_bytes=BYTES_PER_WEIGHT,
                layers=layers.count,
            )
    return None
