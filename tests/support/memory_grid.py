"""Small networks of every kind, each with a training step, to hold the planner's memory against."""

from __future__ import annotations

from typing import Any

from networks import tiny

from mvl_auto.plans import BlockSizes, LlmSettings, NetworkSettings

Step = tuple[NetworkSettings, tuple[int, ...], int, int, int, bool]  # patch, batch, channels, outputs, mixed precision

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


def known(settings: NetworkSettings) -> BlockSizes | None:
    """What the planner would know of a network's block beyond its settings."""
    return LLAMA_1B if settings.llm.source == LLAMA_1B.source else None


def grid() -> dict[str, Step]:
    """Name -> step."""
    cube, slab, sheet = (48, 48, 48), (12, 96, 96), (128, 160)
    steps: dict[str, Step] = {}
    for precision, mixed in (("float32", False), ("mixed", True)):
        for kind, lora in (("no block", None), ("block", 0), ("block and LoRA 8", 8)):
            llm = LlmSettings(source="none") if lora is None else block(lora_rank=lora)
            steps[f"3D, {kind}, {precision}"] = (volume(llm=llm), cube, 2, 1, 3, mixed)
            steps[f"3D, {kind}, checkpointed, {precision}"] = (
                volume(llm=llm, gradient_checkpointing=True, depth=4),
                cube,
                2,
                2,
                2,
                mixed,
            )
            steps[f"3D of thick slices, {kind}, {precision}"] = (volume(**THICK, llm=llm), slab, 2, 3, 4, mixed)
            steps[f"2D, {kind}, {precision}"] = (flat(llm=llm), sheet, 3, 3, 2, mixed)
        for outputs in (20, 42, 120):
            steps[f"3D, {outputs} outputs, {precision}"] = (volume(), (40, 40, 40), 2, 1, outputs, mixed)
            steps[f"2D, {outputs} outputs, {precision}"] = (flat(), sheet, 3, 3, outputs, mixed)
        steps[f"3D, 40 channels, {precision}"] = (volume(), (40, 40, 40), 2, 40, 3, mixed)
        steps[f"3D, large trunk and block, {precision}"] = (volume(**LARGE, llm=block()), (48, 48, 48), 1, 1, 3, mixed)
        steps[f"3D, Llama-1B's block, {precision}"] = (
            volume(llm=LlmSettings(source=LLAMA_1B.source, hidden_size=LLAMA_1B.hidden_size)),
            (32, 32, 32),
            2,
            1,
            3,
            mixed,
        )
    more: dict[str, Step] = {
        "3D, 4 channels, 4 outputs": (volume(), (40, 56, 40), 2, 4, 4, False),
        "3D, deep trunk": (volume(depth=12), (40, 56, 40), 4, 1, 3, False),
        "3D, medium trunk and block": (
            volume(stem_channels=(32, 64), width=384, depth=4, llm=block()),
            (40, 56, 40),
            2,
            1,
            3,
            False,
        ),
        "3D, local attention": (volume(local_branch="attention"), (40, 56, 40), 2, 1, 3, False),
        "3D, local attention alone": (
            volume(local_branch="attention", attention="local"),
            (40, 56, 40),
            2,
            1,
            3,
            False,
        ),
        "3D, global attention alone": (volume(attention="global"), (40, 56, 40), 2, 1, 3, False),
        "3D, branches added": (volume(attention="sum"), (40, 56, 40), 2, 1, 3, False),
        "3D, trunk of convolutions": (volume(trunk="convolution"), (40, 56, 40), 2, 1, 3, False),
        "3D, without deep supervision": (volume(deep_supervision=False), (40, 56, 40), 2, 1, 3, False),
        "3D, the paper's": (tiny(**PAPER, width=64, depth=16, heads=4, llm=block()), (64, 64, 64), 2, 1, 2, False),
        "3D, MLP for the block": (volume(llm=block(control="mlp")), (40, 56, 40), 2, 1, 3, False),
        "3D, mappers only": (volume(llm=block(control="mappers_only")), (40, 56, 40), 2, 1, 3, False),
        "3D, permuted block": (volume(llm=block(control="permuted")), (40, 56, 40), 2, 1, 3, False),
        "3D, mappers of rank 16": (volume(llm=block(mapper_rank=16)), (40, 56, 40), 2, 1, 3, False),
        "3D, causal block with positions": (
            volume(llm=block(causal=True, rotary=True)),
            (40, 56, 40),
            2,
            1,
            3,
            False,
        ),
        "3D, block at the head": (volume(llm=block(placement="head")), (40, 56, 40), 2, 1, 3, False),
        "3D, LoRA 64 and causal": (volume(llm=block(lora_rank=64, causal=True)), (40, 56, 40), 2, 1, 3, False),
        "2D, 1 channel, checkpointed": (flat(gradient_checkpointing=True, depth=4), (192, 192), 4, 1, 2, False),
        "2D, 4 channels, local attention": (flat(local_branch="attention"), (128, 128), 4, 4, 3, False),
    }
    return steps | more
