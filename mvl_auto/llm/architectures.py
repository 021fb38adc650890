"""The supported decoder layers: transformers' own classes, built from a block's geometry.

Two directions: from a model's config.json to the geometry of one of its layers, and from a geometry to transformers'
layer, final norm and rotary embedding. Another architecture whose layer has the inputs and outputs of Llama's needs a
line in CLASSES, a line in OWN_FIELDS, and a case in tests/llm/test_parity.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

from mvl_auto.errors import MvlError
from mvl_auto.exhausted import exhaustion
from mvl_auto.llm.card import Architecture, BlockGeometry
from mvl_auto.llm.layers import LayerRange
from mvl_auto.plans.block import MOST_LAYERS

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn
    from transformers import PreTrainedConfig

SUPPORTED: tuple[str, ...] = get_args(Architecture)
REPAIR = (
    "Install it again. It imports torchvision where there is one, which must be of the same build as torch: "
    "pip uninstall torchvision, or install the one that fits."
)
FULL, SLIDING = "full_attention", "sliding_attention"

# architecture -> package below transformers.models, prefix of the layer's classes, configuration class
CLASSES = {
    "llama": ("llama", "Llama", "LlamaConfig"),
    "mistral": ("mistral", "Mistral", "MistralConfig"),
    "qwen2": ("qwen2", "Qwen2", "Qwen2Config"),
    "qwen3": ("qwen3", "Qwen3", "Qwen3Config"),
    "gemma3_text": ("gemma3", "Gemma3", "Gemma3TextConfig"),
}
SHARED_FIELDS = (
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "rms_norm_eps",
    "max_position_embeddings",
)
# architecture -> geometry field -> name of transformers' configuration field
OWN_FIELDS = {
    "llama": {
        "head_dim": "head_dim",
        "hidden_act": "hidden_act",
        "attention_bias": "attention_bias",
        "mlp_bias": "mlp_bias",
    },
    "mistral": {"head_dim": "head_dim", "hidden_act": "hidden_act"},
    "qwen2": {"hidden_act": "hidden_act"},
    "qwen3": {"head_dim": "head_dim", "hidden_act": "hidden_act", "attention_bias": "attention_bias"},
    "gemma3_text": {
        "head_dim": "head_dim",
        "hidden_act": "hidden_activation",
        "attention_bias": "attention_bias",
        "query_pre_attn_scalar": "query_pre_attn_scalar",
    },
}


@dataclass(frozen=True)
class Parts:
    """layers: decoder layers in their order. norm: the model's final norm. rotary: cosines and sines of positions.

    rotary takes (hidden_bnd, position_ids (1, n), **rotary_arguments), gives (cos, sin), each (1, n, head_dim).
    """

    layers: list[nn.Module]
    norm: nn.Module
    rotary: nn.Module
    rotary_arguments: dict[str, str] = field(default_factory=dict)


def build_parts(geometry: BlockGeometry) -> Parts:
    """The parts of a block in transformers' own classes; weights on the meta device, rotary on the CPU."""
    import torch

    package, prefix, _ = CLASSES[geometry.architecture]
    modeling = _of_transformers(package, "modeling")
    config = transformers_config(geometry)
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        layers = [getattr(modeling, f"{prefix}DecoderLayer")(config, 0) for _ in range(geometry.layers)]
        norm = getattr(modeling, f"{prefix}RMSNorm")(geometry.hidden_size, eps=geometry.rms_norm_eps)
    with torch.device("cpu"):
        rotary = getattr(modeling, f"{prefix}RotaryEmbedding")(config)
    arguments = {"layer_type": layer_type(geometry)} if geometry.architecture == "gemma3_text" else {}
    return Parts(layers, norm, rotary, arguments)


def layer_type(geometry: BlockGeometry) -> str:
    return FULL if geometry.sliding_window is None else SLIDING


def transformers_config(geometry: BlockGeometry) -> PreTrainedConfig:
    """transformers' configuration of a model with one layer of this geometry."""
    rope = {key: list(value) if isinstance(value, tuple) else value for key, value in geometry.rope_parameters.items()}
    words: dict[str, Any] = {name: getattr(geometry, name) for name in SHARED_FIELDS}
    words |= {theirs: getattr(geometry, ours) for ours, theirs in OWN_FIELDS[geometry.architecture].items()}
    words |= {"num_hidden_layers": 1, "rope_parameters": rope}
    if geometry.architecture == "gemma3_text":
        words["rope_parameters"] = {FULL: rope, SLIDING: rope}
    if geometry.architecture not in ("llama", "mistral"):
        words["layer_types"] = [layer_type(geometry)]
    if geometry.sliding_window is not None:
        words |= {"sliding_window": geometry.sliding_window, "use_sliding_window": True}
    return _config_class(geometry.architecture)(**words)


def read_config(config_json: Any, layers: LayerRange, file: str) -> tuple[BlockGeometry, int, int]:
    """(geometry of a block, number of its last layer from 0, number of layers) from a model's config.json.

    file: its name in messages.
    Raises MvlError for an architecture that is not supported, for quantized checkpoints, for inconsistent values, for
    a layer that the model does not have, and for layers that are not alike.
    """
    from huggingface_hub.errors import StrictDataclassError

    if not isinstance(config_json, dict):
        raise MvlError("must hold a JSON object", file=file)
    architecture = check_architecture(config_json.get("model_type"), file)
    if config_json.get("quantization_config"):
        raise MvlError(
            "describes a quantized checkpoint, whose packed tensors only its own library reads",
            file=file,
            remedy="Take the original model, or a GGUF file of it.",
        )
    depth = config_json.get("num_hidden_layers")
    if isinstance(depth, int) and depth > MOST_LAYERS:  # before transformers makes lists of so many
        raise MvlError(f"has {depth:,} layers; at most {MOST_LAYERS:,} are supported", file=file)
    try:
        config = _config_class(architecture).from_dict(config_json)
        numbers = layers.numbers(config.num_hidden_layers, file)
        geometry = in_one_block([_geometry(architecture, config, each) for each in numbers], numbers[-1], file)
        return geometry, numbers[-1], config.num_hidden_layers
    except (
        StrictDataclassError,
        ValidationError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        ArithmeticError,
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MvlError(f"does not describe a supported model ({reason[:200]})", file=file) from error


def check_architecture(name: Any, file: str) -> Architecture:
    """The architecture of that name. Raises MvlError for one that is not supported."""
    for known in SUPPORTED:
        if name == known:
            return known  # type: ignore[return-value]
    hint = ""
    if name in ("gemma3", "mistral3", "llama4", "qwen2_vl", "qwen2_5_vl"):
        hint = "It is a vision-language model: take the text model of the family."
    raise MvlError(
        f"has the architecture '{name}', whose decoder layer is not supported (supported: {', '.join(SUPPORTED)})",
        file=file,
        remedy=hint or "Choose a model with a supported architecture; mvl_block list shows some.",
    )


def in_one_block(geometries: Sequence[BlockGeometry], last: int, file: str) -> BlockGeometry:
    """The geometry of a block of these layers, in their order. Raises MvlError unless they are alike.

    last: number of the last of them. file: its name in messages.
    """
    if any(geometry != geometries[-1] for geometry in geometries):
        raise MvlError(
            f"has layers of different kinds between layer {last - len(geometries) + 1} and layer {last}, "
            "which cannot stand in one block",
            file=file,
            remedy="Choose another layer, or a single one.",
        )
    return geometries[-1].model_copy(update={"layers": len(geometries)})


def _geometry(architecture: Architecture, config: Any, layer: int) -> BlockGeometry:
    kind = _layer_type(architecture, config, layer)
    rope = config.rope_parameters[kind] if architecture == "gemma3_text" else config.rope_parameters
    own = {ours: getattr(config, theirs) for ours, theirs in OWN_FIELDS[architecture].items()}
    if architecture == "gemma3_text" and (config.use_bidirectional_attention or config.attn_logit_softcapping):
        raise ValueError("bidirectional or soft-capped Gemma layers are not supported")
    return BlockGeometry(
        architecture=architecture,
        **{name: getattr(config, name) for name in SHARED_FIELDS},
        **({"head_dim": config.hidden_size // config.num_attention_heads} | own),
        rope_parameters={key: tuple(v) if isinstance(v, list) else v for key, v in rope.items()},
        sliding_window=config.sliding_window if kind == SLIDING else None,
    )


def _layer_type(architecture: Architecture, config: Any, layer: int) -> str:
    """Llama's attention is always full, Mistral's has a sliding window if the model does, others differ by layer."""
    if architecture == "llama":
        return FULL
    if architecture == "mistral":
        return FULL if config.sliding_window is None else SLIDING
    return str(config.layer_types[layer])


def _config_class(architecture: Architecture) -> Any:
    package, _, name = CLASSES[architecture]
    return getattr(_of_transformers(package, "configuration"), name)


def _of_transformers(package: str, part: str) -> ModuleType:
    """A module of transformers. Raises MvlError where it cannot be imported."""
    try:
        return import_module(f"transformers.models.{package}.{part}_{package}")
    except (ImportError, RuntimeError) as error:
        if exhaustion(error) is not None:
            raise
        reason = " ".join(str(error).split())[:200]
        raise MvlError(f"transformers cannot be imported ({reason})", remedy=REPAIR) from error
