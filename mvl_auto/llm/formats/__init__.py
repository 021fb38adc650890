"""Files that models are stored in: safetensors and GGUF, of which only the bytes of one layer are read."""
