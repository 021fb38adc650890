"""Masked reconstruction: the loss of a pretraining, over what the network was not shown.

The whole network learns, decoder too: it gets the image with the hidden voxels at 0 and gives back the image, one
output for each channel; the loss is the mean squared error in the hidden voxels alone. So do Wald et al. 2025 (arXiv
2410.23132) for networks with skips, after He et al. 2022 (arXiv 2111.06377); the hidden tokens stay in the sequence, as
in SimMIM (Xie et al. 2022, arXiv 2111.09886), because the stem's skips need the whole grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mvl_auto.network.loss import Targets


def reconstruction_loss(
    network: nn.Module, image_bczyx: Tensor, hidden_bzyx: Tensor, targets: Targets | None = None
) -> Tensor:
    """The mean squared error over the hidden voxels and all channels, a scalar; 0 where none is hidden.

    image: (b, c, z, y, x), whole. hidden: (b, z, y, x), 1 for a voxel that the network is not shown. targets: of a
    segmentation, not needed.
    """
    hidden = (hidden_bzyx > 0).unsqueeze(1)
    shown = torch.where(hidden, 0.0, image_bczyx)
    outputs = network(shown)
    restored = outputs[0] if isinstance(outputs, list) else outputs
    error = torch.where(hidden, restored.float() - image_bczyx.float(), 0.0).square()
    return error.sum() / (hidden.sum() * image_bczyx.shape[1]).clamp(min=1)
