"""A rough estimate of the memory and the work of a training step, in microseconds and without torch.

Where the estimate says that memory is ample, nothing is measured (planners.cost.memory); a test holds it within 25 %
of the measurement. The estimate of work says which candidate to time next (planners.cost.timing).
"""

from __future__ import annotations

import math

from mvl_auto.planners.cost.block import block_from_settings
from mvl_auto.planners.cost.step import TrainingStep
from mvl_auto.plans import BFLOAT16

FLOAT32 = 4  # bytes
TRUSTED = 1.25  # the factor that the estimate may be wrong by
WEIGHT_COPIES = 5  # weight, gradient, two moments of Adam, moving average
LEVEL_TENSORS = 17  # of a stem level's channels: two residual pairs of convolutions, and what is fused
BLOCK_TENSORS = 12.0  # of a ViT block's width: norms, q k v, both branches, projection, residuals
MLP_TENSORS = 2.0  # of its inner width: before and after the nonlinearity
LLM_TENSORS = 14.0  # of the hidden size, in the block and its mappers
LLM_FFN_TENSORS = 4.0  # of the block's inner width
READ_TENSORS = 2.0  # of the width, where not all tokens pass the block: what is read from, and what is written back
MIXED = 0.72  # of the activations' bytes in mixed precision: half of them, but for norms and what follows them
LOGIT_TENSORS = 4.3  # logits, log-softmax, softmax, a gradient, and the coarser levels (network/loss.py)
LOGIT_TENSORS_MIXED = 3.85  # the same in float32, but for the logits
MASKED_LOGIT_TENSORS = 1.0  # softmax once more, without the ignored voxels
CONVOLUTION_TENSORS = 7.0  # of the width of a trunk of convolutions: a residual pair


def estimate_memory(step: TrainingStep) -> int:
    """Bytes of tensors at the peak of a training step."""
    settings, voxels, channels = step.settings, float(step.patch_voxels), step.channels
    kernel = 3**settings.dimensions
    logit_tensors = LOGIT_TENSORS_MIXED if step.mixed_precision else LOGIT_TENSORS
    logits = voxels * step.outputs * (logit_tensors + (MASKED_LOGIT_TENSORS if step.is_masked else 0.0))
    image = voxels * channels * (1.0 if channels == 1 else 2.0)  # as it comes, and channels last
    activations = 0.0
    weights = 0.0
    before, level = channels, voxels
    for width, stride in zip(settings.stem_channels, settings.stem_strides, strict=True):
        level /= math.prod(stride)
        activations += level * width * LEVEL_TENSORS
        weights += before * width * math.prod(stride) + 4 * kernel * width * width
        weights += 2 * settings.width * width * math.prod(settings.token_size) * level / voxels
        before = width
    inner = settings.width * settings.mlp_ratio
    if settings.trunk == "transformer":
        kept = BLOCK_TENSORS + MLP_TENSORS * settings.mlp_ratio
        weights += settings.depth * settings.width * (4 * settings.width + 2 * inner + kernel)
    else:
        kept = CONVOLUTION_TENSORS
        weights += settings.depth * settings.width * settings.width * 2 * kernel
    activations += step.tokens * settings.width * (1.0 if settings.gradient_checkpointing else kept) * settings.depth
    frozen = 0.0
    if (block := step.block or block_from_settings(settings.llm)) is not None:
        hidden = block.hidden_size
        weights += 2 * hidden * settings.width
        activations += step.block_tokens * 2 * hidden
        if settings.llm.tokens != "all":
            activations += step.tokens * settings.width * READ_TENSORS
        if settings.llm.control in ("block", "permuted"):
            kept = hidden * (LLM_TENSORS - 2) + block.ffn * LLM_FFN_TENSORS
            activations += step.block_tokens * block.layers * kept
            frozen += block.parameters * (BFLOAT16 if step.mixed_precision else FLOAT32)
    if step.mixed_precision:
        activations *= MIXED
        image += voxels * channels / 2  # in bfloat16
    return math.ceil(FLOAT32 * ((image + activations + logits) * step.batch_size + weights * WEIGHT_COPIES) + frozen)


def estimate_work(step: TrainingStep) -> float:
    """Multiplications of a forward pass, about: stem and decoder, trunk, frozen block."""
    settings, tokens, width = step.settings, step.tokens, step.settings.width
    kernel = 3**settings.dimensions
    before, level, work = step.channels, float(step.patch_voxels), 0.0
    for channels, stride in zip(settings.stem_channels, settings.stem_strides, strict=True):
        work += level * before * channels
        level /= math.prod(stride)
        work += level * channels * channels * 4 * kernel
        before = channels
    work += settings.depth * tokens * width * (4 * width + 2 * width * settings.mlp_ratio + 2 * tokens)
    if (block := step.block) is not None:
        passing = step.block_tokens
        work += passing * (block.parameters + 2 * passing * block.layers * block.heads * block.head_dim)
    return step.batch_size * work
