"""The block bank: where the frozen LLM layer comes from, and how it gets to disk (docs/blocks.md).

load_block(source, layer, folder) -> FrozenBlock
load_same_block(source, layer, folder, sha256, ...) -> FrozenBlock    the block that a network was trained with
ensure_block(source, layer, folder) -> BlockCard                      into the bank, not into memory
known_sizes(source, layer, folder) -> BlockSizes | None               without reading the weights
pretrained_sizes(layer, folder) -> list[BlockSizes]                   of the blocks in the bank that `auto` may take
permuted(block, seed) -> FrozenBlock                                  the control: the same numbers, shuffled
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mvl_auto.llm.bank import list_blocks
from mvl_auto.llm.card import BlockCard, BlockGeometry
from mvl_auto.llm.known import known_sizes, pretrained_sizes
from mvl_auto.llm.load import ensure_block, load_block, load_same_block

if TYPE_CHECKING:
    from mvl_auto.llm.block import FrozenBlock, permuted

__all__ = [
    "BlockCard",
    "BlockGeometry",
    "FrozenBlock",
    "ensure_block",
    "known_sizes",
    "list_blocks",
    "load_block",
    "load_same_block",
    "permuted",
    "pretrained_sizes",
]


def __getattr__(name: str) -> Any:
    """FrozenBlock and permuted need torch and are imported at their first use; the bank is listed without torch."""
    if name in ("FrozenBlock", "permuted"):
        from mvl_auto.llm import block

        return getattr(block, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
