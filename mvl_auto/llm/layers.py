"""Which layers of a model stand in a block: one, or several consecutive ones, named by the last of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mvl_auto.errors import MvlError

Layer = int | Literal["last"]


@dataclass(frozen=True)
class LayerRange:
    """last: number of the last of them: from 0, negative from the end, or "last". count: how many there are."""

    last: Layer = "last"
    count: int = 1

    def numbers(self, num_layers: int, source: str) -> range:
        """Their numbers from 0. num_layers: of the model. source: its name in messages.

        Raises MvlError when the model has no such layer, or too few before it.
        """
        number = num_layers - 1 if self.last == "last" else self.last + num_layers if self.last < 0 else self.last
        if not 0 <= number < num_layers:
            raise MvlError(
                f"has {num_layers} layers, but no layer {self.last}",
                file=source,
                remedy=f"Choose 0 to {num_layers - 1}, -{num_layers} to -1, or last.",
            )
        if number < self.count - 1:
            raise MvlError(
                f"has no {self.count} layers that end with layer {number} of its {num_layers}, "
                "which are counted from 0",
                file=source,
                remedy="Choose a later layer, or fewer of them.",
            )
        return range(number - self.count + 1, number + 1)

    def __str__(self) -> str:
        return f"layer {self.last}" if self.count == 1 else f"{self.count} layers up to layer {self.last}"


def layer_range(layers: LayerRange | Layer) -> LayerRange:
    """The range itself; for the number of a layer, or "last", that layer alone."""
    return layers if isinstance(layers, LayerRange) else LayerRange(layers)
