"""What each arm changes of the planned network, and nothing else."""

from __future__ import annotations

import argparse

import pytest
from networks import tiny, tiny_llm

from mvl_auto.ablation.arms import ARMS, OTHER_SEED
from mvl_auto.cli import ablate
from mvl_auto.llm import BlockGeometry
from mvl_auto.network.presets import compute_matched, vit

PLANNED = tiny(llm=tiny_llm(mapper_rate=3.0))
GEOMETRY = BlockGeometry(
    architecture="llama",
    hidden_size=32,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    intermediate_size=64,
    rms_norm_eps=1e-5,
    rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
)
OF_THE_BLOCK = {  # arm -> the fields of LlmSettings that differ from the plan's
    "mappers": {"control": "mappers_only"},
    "mlp": {"control": "mlp"},
    "random": {"control": "random"},
    "permuted": {"control": "permuted"},
    "pretrained": {},
    "lora": {"lora_rank": 8},
    "lora-random": {"control": "random", "lora_rank": 8},
    "head": {"placement": "head"},
    "middle": {"placement": "middle"},
    "train-only": {"end": 0.5},
    "all-tokens": {"tokens": "all"},
    "pooled": {"tokens": "pooled"},
    "queries": {"tokens": "queries"},
    "two-layers": {"layers": 2},
    "aa": {},
    "rotated": {"control": "rotated"},
}
WITHOUT = {
    "vit": vit(PLANNED),
    "vit+compute": compute_matched(PLANNED, hidden_size=32, intermediate_size=64, key_value_size=16),
    "no-trunk": vit(PLANNED).model_copy(update={"depth": 0}),
}


@pytest.mark.parametrize("name", OF_THE_BLOCK)
def test_an_arm_of_the_block_changes_its_settings_alone(name):
    changed = PLANNED.llm.model_copy(update=OF_THE_BLOCK[name])
    assert ARMS[name].change(PLANNED, GEOMETRY) == PLANNED.model_copy(update={"llm": changed})


@pytest.mark.parametrize("name", WITHOUT)
def test_an_arm_without_the_block(name):
    assert ARMS[name].change(PLANNED, GEOMETRY) == WITHOUT[name]


def test_only_the_check_of_chance_has_another_seed_and_every_arm_says_what_it_is():
    assert {name: arm.seed_shift for name, arm in ARMS.items() if arm.seed_shift} == {"aa": OTHER_SEED}
    assert ARMS.keys() == OF_THE_BLOCK.keys() | WITHOUT.keys()
    assert len({arm.what for arm in ARMS.values()}) == len(ARMS)
    assert all(isinstance(arm.what, str) for arm in ARMS.values())


def test_the_help_names_every_arm():
    parser = argparse.ArgumentParser()
    ablate.add_arguments(parser)
    words = next(action.help for action in parser._actions if action.dest == "arms")
    assert {word.strip("(,)") for word in words.split()} >= set(ARMS)
