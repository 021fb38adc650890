"""Layers that were read from a source and are not yet in the bank; and the checks that all sources share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mvl_auto.errors import MvlError
from mvl_auto.llm.card import BlockGeometry

if TYPE_CHECKING:
    from torch import Tensor

UNKNOWN_LICENCE = "unknown"


@dataclass(frozen=True)
class Extracted:
    """weights: by the names of FrozenBlock. layer, bytes_read, bytes_layer: as in BlockCard."""

    geometry: BlockGeometry
    layer: int
    num_layers: int
    weights: Mapping[str, Tensor]
    bytes_read: int
    bytes_layer: int
    quantisation: str | None = None
    licence: str = UNKNOWN_LICENCE
    revision: str | None = None


def expected_shapes(geometry: BlockGeometry, file: str) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of a block. Raises MvlError where transformers cannot build such a layer."""
    from huggingface_hub.errors import StrictDataclassError

    from mvl_auto.llm.block import weight_shapes

    try:
        return weight_shapes(geometry)
    except (StrictDataclassError, ValueError, TypeError, KeyError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MvlError(f"describes a layer that cannot be built ({reason})", file=file) from error


def check_names(expected: Iterable[str], there: Iterable[str], known_extras: tuple[str, ...], file: str) -> None:
    """Raise MvlError unless the tensors of a layer are those of its architecture.

    known_extras: endings of names of tensors that are not needed.
    """
    wanted, found = set(expected), {name for name in there if not name.endswith(known_extras)}
    if missing := sorted(wanted - found):
        raise MvlError(
            f"lacks {', '.join(missing)}", file=file, remedy="The file is incomplete, or of another architecture."
        )
    if unexpected := sorted(found - wanted):
        raise MvlError(
            f"holds {', '.join(unexpected)}, which its architecture doesn't have",
            file=file,
            remedy="The model is a variant, and its output would differ: choose another.",
        )


def check_shape(name: str, found: tuple[int, ...], expected: tuple[int, ...], file: str) -> None:
    if found != expected:
        raise MvlError(f"holds {name} of shape {found}, its geometry needs {expected}", file=file)
