"""Memory without taking it, against what torch's allocator reports for a real training step."""

from __future__ import annotations

import pytest
from networks import tiny
from peak import real_peak

from mvl_auto.planners.estimate import TRUSTED, estimate_memory
from mvl_auto.planners.memory import training_memory
from mvl_auto.plans import LlmSettings

TEN_PERCENT = 0.1
BLOCK = LlmSettings(source="random:hidden=576,heads=9,kv_heads=3,ffn=1536,seed=0", hidden_size=576)
SMALL = {"stem_channels": (24, 48), "width": 192, "depth": 2, "heads": 6}
FLAT = {"stem_channels": (24, 48, 96), "stem_strides": ((2, 2),) * 3, "token_stride": (2, 2)}
ANISOTROPIC = {"spacing": (3.0, 1.0, 1.0), "stem_strides": ((1, 2, 2), (1, 2, 2))}

# settings, patch, batch, channels, outputs, mixed precision
STEPS = {
    "3D with a block": (tiny(**SMALL, llm=BLOCK), (40, 56, 40), 2, 1, 3, False),
    "3D mixed": (tiny(**SMALL, llm=BLOCK), (48, 48, 48), 2, 1, 3, True),
    "3D checkpointed": (tiny(**SMALL, gradient_checkpointing=True), (48, 48, 48), 2, 4, 2, False),
    "anisotropic": (tiny(**SMALL | ANISOTROPIC), (12, 96, 96), 2, 3, 4, False),
    "2D": (tiny(2, **SMALL | FLAT, llm=BLOCK), (128, 160), 3, 3, 2, False),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_a_fake_step_takes_what_a_real_one_does(step, tmp_path):
    real = real_peak(*step, tmp_path)
    assert training_memory(*step) == pytest.approx(real, rel=TEN_PERCENT)
    assert estimate_memory(*step) <= TRUSTED * real
    assert estimate_memory(*step) >= real / TRUSTED


def test_measuring_twice_gives_the_same_bytes():
    assert training_memory(*STEPS["2D"]) == training_memory(*STEPS["2D"])


def test_a_block_of_unknown_width_cannot_be_measured():
    settings = tiny(llm=LlmSettings(source="auto"))
    with pytest.raises(ValueError, match="hidden_size"):
        training_memory(settings, (16, 16, 16), 1, 1, 2)
