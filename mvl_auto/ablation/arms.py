"""The arms of an ablation: how each changes the planned network. Everything else is the same in all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mvl_auto.plans import NetworkSettings

if TYPE_CHECKING:
    from mvl_auto.llm import BlockGeometry

LORA_RANK = 8
OTHER_SEED = 10_000  # added to the seed of an a/a run

TRAINED_WITH_BLOCK = 0.5  # share of the run of train-only; the rest lets the network do without it

Change = Callable[[NetworkSettings, "BlockGeometry"], NetworkSettings]


@dataclass(frozen=True)
class Arm:
    """what: in words. change: the arm's network, from the planned one and the geometry of its block.

    seed_shift: added to the seed of weights and batches.
    """

    what: str
    change: Change
    seed_shift: int = 0


def with_llm(**changes: object) -> Change:
    """The planned network with fields of its LlmSettings changed."""

    def change(planned: NetworkSettings, geometry: BlockGeometry) -> NetworkSettings:
        return planned.model_copy(update={"llm": planned.llm.model_copy(update=changes)})

    return change


def without_llm(planned: NetworkSettings, geometry: BlockGeometry) -> NetworkSettings:
    from mvl_auto.network.presets import vit  # torch, which looking an arm up does not need

    return vit(planned)


def without_trunk(planned: NetworkSettings, geometry: BlockGeometry) -> NetworkSettings:
    return without_llm(planned, geometry).model_copy(update={"depth": 0})


def deeper(planned: NetworkSettings, geometry: BlockGeometry) -> NetworkSettings:
    from mvl_auto.network.presets import compute_matched

    key_value_size = geometry.num_key_value_heads * geometry.head_dim
    return compute_matched(planned, geometry.hidden_size, geometry.intermediate_size, key_value_size)


ARMS = {
    "vit": Arm("without the LLM part", without_llm),
    "vit+compute": Arm("without the LLM part, deeper by what it costs", deeper),
    "mappers": Arm("the mappers alone, nothing between them", with_llm(control="mappers_only")),
    "mlp": Arm("a GELU in the block's place: as many trainable weights", with_llm(control="mlp")),
    "random": Arm("a frozen block of random numbers with the donor's norms", with_llm(control="random")),
    "permuted": Arm("the donor's numbers, shuffled", with_llm(control="permuted")),
    "pretrained": Arm("the frozen block as planned", with_llm()),
    "lora": Arm("the block with low-rank adapters that train", with_llm(lora_rank=LORA_RANK)),
    "lora-random": Arm("the random block with such adapters", with_llm(control="random", lora_rank=LORA_RANK)),
    "head": Arm("the block before the trunk", with_llm(placement="head")),
    "middle": Arm("the block in the middle of the trunk", with_llm(placement="middle")),
    "train-only": Arm(
        "the block for the first half of the training, then none: none predicts", with_llm(end=TRAINED_WITH_BLOCK)
    ),
    "all-tokens": Arm("the block on every token", with_llm(tokens="all")),
    "pooled": Arm("the block on averages of 2x2x2 tokens", with_llm(tokens="pooled")),
    "queries": Arm("the block on 16 learned queries", with_llm(tokens="queries")),
    "two-layers": Arm("two consecutive layers of the donor", with_llm(layers=2)),
    "no-trunk": Arm("neither the LLM part nor the trunk: what the trunk itself brings", without_trunk),
    "aa": Arm("the frozen block again, with another seed: no difference is expected", with_llm(), OTHER_SEED),
    "rotated": Arm(
        "the block in another basis: the same function, no difference is expected", with_llm(control="rotated")
    ),
}
DEFAULT_ARMS = ("vit", "vit+compute", "mappers", "mlp", "random", "permuted", "pretrained", "lora")
WITHOUT_BLOCK = ("vit", "vit+compute", "no-trunk")
