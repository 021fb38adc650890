"""The logits of a whole image: the slabs of mvl_auto.inference.sliding_window, put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mvl_auto.inference.sliding_window import cheapest_axis, stream_logits
from mvl_auto.inference.windows import WindowSettings


def predict_logits(
    network: nn.Module, image_czyx: Tensor, shape: Sequence[int], num_outputs: int, **settings: Any
) -> Tensor:
    """Logits (k, z, y, x) from windows of `shape`. settings: the other fields of WindowSettings."""
    windows = WindowSettings(tuple(shape), **settings)
    axis = cheapest_axis(image_czyx.shape[1:], windows.shape)
    slabs = [slab for _, slab in stream_logits(network, image_czyx, num_outputs, windows, axis)]
    return torch.cat(slabs, dim=axis + 1)
