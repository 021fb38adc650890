"""Named networks: what the planner's settings become as the paper's network, a plain ViT, or a U-Net.

mvl     the settings as planned
vit     without the LLM part: what mvl is while its gate is zero
unet    convolutions for the trunk, without the LLM part: the honest convolutional rival
paper   as MedVisionLlama describes itself (arXiv 2410.02458): 8-voxel linear patch embedding, plain
        attention, 16 blocks of width 64 with 4 heads, linear decoder, the LLM block at the tail
"""

from __future__ import annotations

from mvl_auto.plans import LlmSettings, NetworkSettings

PAPER_TOKEN, PAPER_WIDTH, PAPER_DEPTH, PAPER_HEADS = 8, 64, 16, 4
NO_LLM = LlmSettings(source="none")


def preset(name: str, planned: NetworkSettings) -> NetworkSettings:
    """The network called `name` for the data that `planned` was planned for. Raises KeyError."""
    return {"mvl": mvl, "vit": vit, "unet": unet, "paper": paper}[name](planned)


def mvl(planned: NetworkSettings) -> NetworkSettings:
    return planned


def vit(planned: NetworkSettings) -> NetworkSettings:
    return planned.model_copy(update={"llm": NO_LLM})


def unet(planned: NetworkSettings) -> NetworkSettings:
    return planned.model_copy(update={"llm": NO_LLM, "trunk": "convolution"})


def paper(planned: NetworkSettings) -> NetworkSettings:
    named = planned.llm
    llm = LlmSettings(source=named.source, layer=named.layer, layers=named.layers, hidden_size=named.hidden_size)
    return NetworkSettings(
        spacing=planned.spacing,
        stem_channels=(),
        stem_strides=(),
        token_stride=(PAPER_TOKEN,) * planned.dimensions,
        width=PAPER_WIDTH,
        depth=PAPER_DEPTH,
        heads=PAPER_HEADS,
        attention="global",
        decoder="linear",
        deep_supervision=False,
        llm=llm,
    )


def compute_matched(
    planned: NetworkSettings, hidden_size: int, intermediate_size: int, key_value_size: int
) -> NetworkSettings:
    """A ViT without LLM, deeper by as many blocks as cost what the LLM part costs (multiplications per token).

    The attention over n tokens is left out on both sides: it is small next to the matrices here. A block on pooled
    tokens costs a share of that; learned queries are counted as if every token passed.
    """
    d, h = planned.width, hidden_size
    layer = 2 * h * h + 2 * h * key_value_size + 3 * h * intermediate_size
    llm = 2 * d * h + planned.llm.layers * layer
    block = 4 * d * d + 2 * d * round(d * planned.mlp_ratio)
    # a frozen block needs no gradients of its weights: two thirds of a trained one's work
    passing = 1 / planned.llm.cell**planned.dimensions
    more = max(1, round(passing * llm * 2 / 3 / block))
    return vit(planned).model_copy(update={"depth": planned.depth + more})
