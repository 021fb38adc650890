"""File formats of models: safetensors and GGUF. Only the bytes of one layer are read."""
