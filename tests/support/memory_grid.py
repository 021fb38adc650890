"""Small networks of every kind, each with a training step, to hold the planner's memory against."""

from __future__ import annotations

from typing import Any

from networks import tiny

from mvl_auto.planners import TrainingStep
from mvl_auto.plans import BlockSizes, LabelScheme, LlmSettings, NetworkSettings

SMOLLM2 = "random:hidden=576,heads=9,kv_heads=3,ffn=1536,seed=0"
LLAMA_1B = BlockSizes("random:hidden=2048,heads=32,kv_heads=8,ffn=8192,seed=0", "last", 2048, 32, 8, 64, 8192)
SMALL = {"stem_channels": (24, 48), "width": 192, "depth": 2, "heads": 6}
LARGE = {"stem_channels": (48, 96), "width": 768, "depth": 12, "heads": 12}
FLAT = {"stem_channels": (24, 48, 96), "stem_strides": ((2, 2),) * 3, "token_stride": (2, 2)}
THICK = {"spacing": (3.0, 1.0, 1.0), "stem_strides": ((1, 2, 2), (1, 2, 2))}
PAPER = {"stem_channels": (), "stem_strides": (), "token_stride": (8, 8, 8), "decoder": "linear", "attention": "global"}


def block(**changes: Any) -> LlmSettings:
    return LlmSettings(**({"source": SMOLLM2, "hidden_size": 576} | changes))


def volume(**changes: Any) -> NetworkSettings:
    return tiny(**(SMALL | changes))


def flat(**changes: Any) -> NetworkSettings:
    return tiny(2, **(SMALL | FLAT | changes))


def labels_of(outputs: int, ignore: bool = False) -> LabelScheme:
    """So many classes; `ignore`: and a label for voxels that the loss leaves out."""
    classes = tuple(range(outputs))
    return LabelScheme(
        class_values=classes, class_names=tuple(map(str, classes)), ignore_value=outputs if ignore else None
    )


def step_of(
    network: NetworkSettings, patch: tuple[int, ...], batch: int, channels: int, outputs: int, mixed: bool
) -> TrainingStep:
    """A training step with what the planner would know of the block; in mixed precision with an ignore label."""
    block = LLAMA_1B if network.llm.source == LLAMA_1B.source else None
    return TrainingStep(network, patch, batch, channels, labels_of(outputs, ignore=mixed), block, mixed)


def grid() -> dict[str, TrainingStep]:
    """Name -> step."""
    cube, slab, sheet = (48, 48, 48), (12, 96, 96), (128, 160)
    steps: dict[str, TrainingStep] = {}
    for precision, mixed in (("float32", False), ("mixed", True)):
        for kind, lora in (("no block", None), ("block", 0), ("block and LoRA 8", 8)):
            llm = LlmSettings(source="none") if lora is None else block(lora_rank=lora)
            steps[f"3D, {kind}, {precision}"] = step_of(volume(llm=llm), cube, 2, 1, 3, mixed)
            steps[f"3D, {kind}, checkpointed, {precision}"] = step_of(
                volume(llm=llm, gradient_checkpointing=True, depth=4),
                cube,
                2,
                2,
                2,
                mixed,
            )
            steps[f"3D of thick slices, {kind}, {precision}"] = step_of(volume(**THICK, llm=llm), slab, 2, 3, 4, mixed)
            steps[f"2D, {kind}, {precision}"] = step_of(flat(llm=llm), sheet, 3, 3, 2, mixed)
        for outputs in (20, 42, 120):
            steps[f"3D, {outputs} outputs, {precision}"] = step_of(volume(), (40, 40, 40), 2, 1, outputs, mixed)
            steps[f"2D, {outputs} outputs, {precision}"] = step_of(flat(), sheet, 3, 3, outputs, mixed)
        steps[f"3D, 40 channels, {precision}"] = step_of(volume(), (40, 40, 40), 2, 40, 3, mixed)
        steps[f"3D, large trunk and block, {precision}"] = step_of(
            volume(**LARGE, llm=block()), (48, 48, 48), 1, 1, 3, mixed
        )
        steps[f"3D, Llama-1B's block, {precision}"] = step_of(
            volume(llm=LlmSettings(source=LLAMA_1B.source, hidden_size=LLAMA_1B.hidden_size)),
            (32, 32, 32),
            2,
            1,
            3,
            mixed,
        )
    more: dict[str, TrainingStep] = {
        "3D, 4 channels, 4 outputs": step_of(volume(), (40, 56, 40), 2, 4, 4, False),
        "3D, deep trunk": step_of(volume(depth=12), (40, 56, 40), 4, 1, 3, False),
        "3D, medium trunk and block": step_of(
            volume(stem_channels=(32, 64), width=384, depth=4, llm=block()),
            (40, 56, 40),
            2,
            1,
            3,
            False,
        ),
        "3D, local attention": step_of(volume(local_branch="attention"), (40, 56, 40), 2, 1, 3, False),
        "3D, local attention alone": step_of(
            volume(local_branch="attention", attention="local"),
            (40, 56, 40),
            2,
            1,
            3,
            False,
        ),
        "3D, global attention alone": step_of(volume(attention="global"), (40, 56, 40), 2, 1, 3, False),
        "3D, branches added": step_of(volume(attention="sum"), (40, 56, 40), 2, 1, 3, False),
        "3D, trunk of convolutions": step_of(volume(trunk="convolution"), (40, 56, 40), 2, 1, 3, False),
        "3D, without deep supervision": step_of(volume(deep_supervision=False), (40, 56, 40), 2, 1, 3, False),
        "3D, the paper's": step_of(
            tiny(**PAPER, width=64, depth=16, heads=4, llm=block()), (64, 64, 64), 2, 1, 2, False
        ),
        "3D, MLP for the block": step_of(volume(llm=block(control="mlp")), (40, 56, 40), 2, 1, 3, False),
        "3D, mappers only": step_of(volume(llm=block(control="mappers_only")), (40, 56, 40), 2, 1, 3, False),
        "3D, permuted block": step_of(volume(llm=block(control="permuted")), (40, 56, 40), 2, 1, 3, False),
        "3D, mappers of rank 16": step_of(volume(llm=block(mapper_rank=16)), (40, 56, 40), 2, 1, 3, False),
        "3D, causal block with positions": step_of(
            volume(llm=block(causal=True, rotary=True)),
            (40, 56, 40),
            2,
            1,
            3,
            False,
        ),
        "3D, block on pooled tokens": step_of(volume(llm=block(tokens="pooled")), (40, 56, 40), 2, 1, 3, False),
        "3D, block on queries": step_of(volume(llm=block(tokens="queries")), (40, 56, 40), 2, 1, 3, False),
        "2D, block on pooled tokens, mixed": step_of(flat(llm=block(tokens="pooled")), (160, 160), 4, 1, 2, True),
        "3D, block at the head": step_of(volume(llm=block(placement="head")), (40, 56, 40), 2, 1, 3, False),
        "3D, LoRA 64 and causal": step_of(volume(llm=block(lora_rank=64, causal=True)), (40, 56, 40), 2, 1, 3, False),
        "2D, 1 channel, checkpointed": step_of(flat(gradient_checkpointing=True, depth=4), (192, 192), 4, 1, 2, False),
        "2D, 4 channels, local attention": step_of(flat(local_branch="attention"), (128, 128), 4, 4, 3, False),
    }
    return steps | more
