"""From a source to a block in memory. A block that is not in the bank is fetched into it first.

One process fetches at a time; the others wait and then find the block in the bank.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mvl_auto.errors import MvlError
from mvl_auto.llm.auto import ensure_auto
from mvl_auto.llm.bank import CARD, WEIGHTS, find_block, find_damage, read_block
from mvl_auto.llm.card import BlockCard
from mvl_auto.llm.fetch import ensure_source
from mvl_auto.llm.layers import Layer, LayerRange, layer_range
from mvl_auto.llm.sources.syntax import parse_source

if TYPE_CHECKING:
    from mvl_auto.llm.block import FrozenBlock


def load_block(source: str, layers: LayerRange | Layer, folder: Path, hidden_size: int | None = None) -> FrozenBlock:
    """The block that `source` and `layers` name, from the bank in `folder`; fetched into the bank if it isn't there.

    source: as in mvl_auto.llm.sources.syntax. layers: several layers, or one: "last", a number, or a negative number
    from the end. hidden_size: the width that the block must have; `auto` chooses among blocks of this width.
    Raises MvlError, listing what was tried, when the block is not available.
    """
    return read_block(ensure_block(source, layers, folder, hidden_size), folder)


def load_same_block(
    source: str,
    layers: LayerRange | Layer,
    folder: Path,
    sha256: str,
    geometry_sha256: str | None = None,
    name: str = "",
) -> FrozenBlock:
    """The block with these weights and this geometry: from the bank, whatever its source was, else fetched again.

    sha256, geometry_sha256, name: as in BlockCard. geometry_sha256 None: any geometry, for checkpoints that do not name
    it. name: for messages, which say the two files to copy.
    Raises MvlError when the source now gives another block, or none.
    """

    def is_same(card: BlockCard) -> bool:
        return card.sha256 == sha256 and geometry_sha256 in (None, card.geometry_sha256)

    files = f"{name}{CARD} and {name}{WEIGHTS}" if name else "the block's two files"
    copy = f"Copy {files} to {folder} from the folder '{folder.name}' of the root where the network was trained."
    card = find_block(folder, is_same)
    if card is None:
        damage = find_damage(name, folder)
        try:
            card = ensure_block(source, layers, folder)
        except MvlError as error:
            lost = "is not there" if damage is None else f"cannot be used ({damage.file}: {damage.what})"
            cause = error.what if error.file is None else f"{error.file}: {error.what}"
            what = f"the LLM block {name or source} of the network {lost}, and cannot be fetched again: {cause}"
            raise MvlError(what, file=folder, remedy=copy) from error
    if card.sha256 != sha256:
        raise MvlError(
            f"{source} gives a block with sha256 {card.sha256[:12]}..., not {sha256[:12]}... as in the checkpoint",
            file=folder,
            remedy=copy,
        )
    if not is_same(card):
        raise MvlError(
            f"{card.name} has the weights of the checkpoint's block, but another geometry: its card was edited",
            file=folder,
            remedy="Delete its two files: the block is fetched again when it is needed.",
        )
    return read_block(card, folder)


def ensure_block(source: str, layers: LayerRange | Layer, folder: Path, hidden_size: int | None = None) -> BlockCard:
    """Make sure that the bank has the block; returns its card. Arguments and errors are those of load_block."""
    if source == "auto":
        return ensure_auto(layer_range(layers), folder, hidden_size)
    if source == "none":
        raise MvlError("'none' stands for no block: there is nothing to load")
    card = ensure_source(parse_source(source), layer_range(layers), folder)
    if hidden_size not in (None, card.hidden_size):
        raise MvlError(
            f"{source} has width {card.hidden_size}, the plan was made for a block of width {hidden_size}",
            remedy="Run mvl_plan_and_preprocess again: now that the bank has the block, its width is known.",
        )
    return card
