"""One training step: everything that its memory and its time depend on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mvl_auto.plans import BlockSizes, LabelScheme, NetworkSettings, Shape


@dataclass(frozen=True)
class TrainingStep:
    """A network and its input in one training step.

    patch_size: voxels per axis. channels: of the image. block: what is known of the frozen block beyond the settings;
    None where nothing more is. mixed_precision: bfloat16 where a GPU's autocast uses it.
    """

    settings: NetworkSettings
    patch_size: Shape
    batch_size: int
    channels: int
    labels: LabelScheme
    block: BlockSizes | None = None
    mixed_precision: bool = False

    @property
    def outputs(self) -> int:
        """Channels of the logits."""
        return self.labels.num_outputs

    @property
    def is_masked(self) -> bool:
        """Whether the loss leaves out ignored voxels."""
        return self.labels.ignore_value is not None

    @property
    def patch_voxels(self) -> int:
        return math.prod(self.patch_size)

    @property
    def tokens(self) -> float:
        """Of one patch."""
        return self.patch_voxels / math.prod(self.settings.token_size)

    @property
    def block_tokens(self) -> float:
        """Of one patch, those that pass the frozen block."""
        sizes = zip(self.patch_size, self.settings.token_size, strict=True)
        return self.settings.llm.tokens_of_block([voxels / size for voxels, size in sizes])

    def without_names(self) -> TrainingStep:
        """The step without what makes no difference to its cost, so that equal steps are measured once."""
        llm = self.settings.llm
        if self.block is not None:
            llm = llm.model_copy(update={"source": "auto"})
        spacing = (1.0,) * self.settings.dimensions
        return replace(self, settings=self.settings.model_copy(update={"spacing": spacing, "llm": llm}))
