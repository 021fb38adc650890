"""The card of a block: its source, its geometry, its hashes.

    <name>-layer<k>-<hash>.safetensors     the weights
    <name>-layer<k>-<hash>.json            BlockCard

The geometry has all that transformers needs to build the layer (`mvl_auto.llm.architectures`), so a block is complete
without its model. It decides the output as much as the weights do: the card has a hash of its own content, and
checkpoints name the hash of the geometry beside that of the weights.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mvl_auto.files import sha256_of_json
from mvl_auto.llm.layers import LayerRange
from mvl_auto.plans import Document, Frozen
from mvl_auto.plans.block import Layers

Architecture = Literal["llama", "mistral", "qwen2", "qwen3", "gemma3_text"]
Activation = Literal["silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu"]
RopeValue = bool | int | float | str | tuple[float, ...] | None

ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")
LARGEST_WIDTH = 1 << 20  # far above every known model; a header with more is damaged


class BlockGeometry(Frozen):
    """A decoder layer of a Llama-like model, or several alike; fields are named as in transformers' configurations."""

    architecture: Architecture = Field(description="transformers' model_type")
    hidden_size: int = Field(ge=1, le=LARGEST_WIDTH, description="d: channels of a token")
    num_attention_heads: int = Field(ge=1, le=LARGEST_WIDTH)
    num_key_value_heads: int = Field(ge=1, le=LARGEST_WIDTH, description="fewer than heads: grouped-query attention")
    head_dim: int = Field(ge=2, le=LARGEST_WIDTH, description="channels of one head")
    intermediate_size: int = Field(ge=1, le=LARGEST_WIDTH, description="channels inside the SwiGLU")
    rms_norm_eps: float = Field(gt=0)
    hidden_act: Activation = Field("silu", description="inside the gated MLP, transformers' name")
    attention_bias: bool = Field(False, description="q, k, v (and o but for qwen2) have a bias")
    mlp_bias: bool = False
    max_position_embeddings: int = Field(2048, ge=1, description="longest sequence of the model's training")
    rope_parameters: dict[str, RopeValue] = Field(description="rope_type, rope_theta, and the type's other parameters")
    sliding_window: int | None = Field(None, ge=1, description="tokens that causal attention reaches back; null: all")
    query_pre_attn_scalar: int | None = Field(
        None, description="gemma: attention scores are divided by its root, not by that of head_dim"
    )
    layers: Layers = Field(1, description="how many layers, one after the other, each like this")

    @model_validator(mode="after")
    def _consistent(self) -> BlockGeometry:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads must be a multiple of num_key_value_heads")
        if self.head_dim % 2:
            raise ValueError("head_dim must be even")
        if self.rope_parameters.get("rope_type") not in ROPE_TYPES:
            raise ValueError(f"rope_type must be one of {', '.join(ROPE_TYPES)}")
        return self

    @property
    def layer_names(self) -> list[str]:
        """What the layers are called in a block, the first of them first: layer, layer2, ..."""
        return ["layer", *(f"layer{place}" for place in range(2, self.layers + 1))]

    def layer_numbers(self, last: int) -> dict[str, int]:
        """Which layers of the model these are, by their names in the block. last: the number of the last of them."""
        return {name: last - self.layers + place for place, name in enumerate(self.layer_names, start=1)}

    def layers_text(self, last: int) -> str:
        """Their numbers for people: 29, or 28-29."""
        return f"{last}" if self.layers == 1 else f"{last - self.layers + 1}-{last}"


class BlockCard(Document):
    """One block of the bank."""

    name: str = Field(description="file name in the bank without its ending")
    source: str = Field(description="in the syntax of mvl_auto.llm.sources.syntax")
    layer: int = Field(ge=0, description="which decoder layer, counted from 0; of several the last")
    num_layers: int = Field(ge=1, description="decoder layers of the model")
    geometry: BlockGeometry
    parameters: int = Field(ge=1, description="weights of the layers and the final norm")
    dtype: str = Field(description="of the projections as stored: float32, bfloat16, float16")
    quantisation: str | None = Field(None, description="GGUF type that the projections were dequantized from")
    licence: str = Field(description="as stated by the source, else 'unknown'")
    revision: str | None = Field(
        None, description="commit of the hub, version of the package, size and time of the file"
    )
    sha256: str = Field(description="of the safetensors file")
    bytes_read: int = Field(ge=0, description="bytes of the source that were read, headers included")
    bytes_layer: int = Field(ge=0, description="bytes of the layers and the final norm in the source")
    content_sha256: str | None = Field(
        None, description="of all other fields, so that an edit is noticed; null in cards of earlier versions"
    )

    @property
    def hidden_size(self) -> int:
        return self.geometry.hidden_size

    def is_of(self, layers: LayerRange) -> bool:
        """Whether these are those layers of the model. Raises MvlError when it does not have them."""
        return self.layers == layers.count and self.layer == layers.numbers(self.num_layers, self.source)[-1]

    @property
    def layers(self) -> int:
        """How many there are, the last of them is `layer`."""
        return self.geometry.layers

    @property
    def layers_text(self) -> str:
        """The numbers of its layers: 29, or 28-29."""
        return self.geometry.layers_text(self.layer)

    @property
    def architecture(self) -> Architecture:
        return self.geometry.architecture

    @property
    def pretrained(self) -> bool:
        return not self.source.startswith("random:")

    @property
    def geometry_sha256(self) -> str:
        """Hash of the geometry, the other half of what decides the block's output. Fields at their default are left
        out, so that a later version may add some."""
        return sha256_of_json(self.geometry.model_dump(mode="json", exclude_defaults=True))

    def seal(self) -> BlockCard:
        """The card with the hash of its content."""
        return self.model_copy(update={"content_sha256": self._hash_content()})

    @property
    def is_edited(self) -> bool:
        """Whether the content differs from the one that was sealed. False for a card that never was."""
        return self.content_sha256 not in (None, self._hash_content())

    def _hash_content(self) -> str:
        left_out = {"content_sha256", "schema_version", "mvl_auto_version"}
        return sha256_of_json(self.model_dump(mode="json", exclude=left_out, exclude_defaults=True))
