"""From a source to a block: out of the bank, or first into it.

What is in the bank is used as it lies; only what isn't there is fetched. One process fetches at a time,
the others wait and then find it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mvl_auto.errors import MvlError
from mvl_auto.llm.bank import find_block, read_block
from mvl_auto.llm.card import BlockCard, Layer
from mvl_auto.llm.sources.syntax import parse_source

if TYPE_CHECKING:
    from mvl_auto.llm.block import FrozenBlock
from mvl_auto.llm.fetch import ensure_source


def load_block(source: str, layer: Layer, folder: Path, hidden_size: int | None = None) -> FrozenBlock:
    """The block that `source` and `layer` name, out of the bank in `folder`; fetched into it if it isn't there.

    source: as in mvl_auto.llm.sources. layer: "last", a number, or a negative number from the end. hidden_size: the
    width that it must have, if any: of several, `auto` takes one that has it.
    Raises MvlError when it can't be had, telling what was tried.
    """
    return read_block(ensure_block(source, layer, folder, hidden_size), folder)


def load_same_block(source: str, layer: Layer, sha256: str, folder: Path) -> FrozenBlock:
    """The block whose weights have this sha256: out of the bank wherever it came from, else fetched once more.

    Raises MvlError when the source gives other weights by now, or none.
    """
    card = find_block(folder, lambda card: card.sha256 == sha256) or ensure_block(source, layer, folder)
    if card.sha256 != sha256:
        raise MvlError(
            f"{source} gives a block with sha256 {card.sha256[:12]}..., not the {sha256[:12]}... that was asked for",
            file=folder,
            remedy="Copy the block's two files from the machine that has it.",
        )
    return read_block(card, folder)


def ensure_block(source: str, layer: Layer, folder: Path, hidden_size: int | None = None) -> BlockCard:
    """Have the block in the bank, without making a network of it. Raises MvlError as load_block does."""
    if source == "auto":
        from mvl_auto.llm.auto import ensure_auto

        return ensure_auto(layer, folder, hidden_size)
    if source == "none":
        raise MvlError("'none' asks for no block, so there is none to load")
    card = ensure_source(parse_source(source), layer, folder)
    if hidden_size not in (None, card.hidden_size):
        raise MvlError(
            f"{source} has width {card.hidden_size}, the plan was made for a block of width {hidden_size}",
            remedy="Run mvl_plan_and_preprocess again: now that the bank has the block, its width is known.",
        )
    return card
