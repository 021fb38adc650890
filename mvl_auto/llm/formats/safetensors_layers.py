"""Layers out of a model in safetensors: only the headers, and the byte ranges of the layers' own tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mvl_auto.errors import MvlError
from mvl_auto.llm.architectures import read_config
from mvl_auto.llm.extracted import UNKNOWN_LICENCE, Extracted, check_names, check_shape, expected_shapes
from mvl_auto.llm.formats.random_access import AGAIN, RandomAccess, read_ranges
from mvl_auto.llm.formats.repository import (
    CONFIG,
    WEIGHTS,
    Repository,
    locate_tensors,
    no_safetensors,
    read_json_file,
    read_licence,
)
from mvl_auto.llm.formats.safetensors_header import StoredTensor, read_header
from mvl_auto.llm.layers import LayerRange

PREFIXES = ("model.", "")  # of a model with its head, and without
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
KNOWN_EXTRAS = (".rotary_emb.inv_freq",)  # in old checkpoints; computed from the configuration anyway


def read_safetensors_layers(repository: Repository, layers: LayerRange) -> Extracted:
    """Read layers of a model and its final norm.

    Raises MvlError for a missing, damaged or unsupported file.
    """
    config = repository.open(CONFIG)
    if config is None:
        raise MvlError(
            f"has no {CONFIG}", file=repository.name, remedy="Give a folder with config.json and safetensors."
        )
    geometry, number, num_layers = read_config(read_json_file(config), layers, config.name)
    shapes = expected_shapes(geometry, config.name)
    headers: dict[str, tuple[RandomAccess, dict[str, StoredTensor]]] = {}
    places = locate_tensors(repository)
    if isinstance(places, str):
        headers[places] = _open(repository, places)
        places = dict.fromkeys(headers[places][1], places)
    names = _map_names(shapes, places, geometry.layer_numbers(number), repository.name)
    weights: dict[str, Tensor] = {}
    for filename in sorted({places[theirs] for theirs in names}):
        file, tensors = headers.get(filename) or _open(repository, filename)
        here = {ours: theirs for theirs, ours in names.items() if places[theirs] == filename}
        weights |= _read(file, tensors, here, shapes)
    licence = read_licence(repository) or UNKNOWN_LICENCE
    return Extracted(
        geometry=geometry,
        layer=number,
        num_layers=num_layers,
        weights=weights,
        bytes_read=repository.bytes_read,
        bytes_layer=sum(weight.numel() * weight.element_size() for weight in weights.values()),
        licence=licence,
        revision=repository.revision,
    )


def _open(repository: Repository, filename: str) -> tuple[RandomAccess, dict[str, StoredTensor]]:
    file = repository.open(filename)
    if file is None and filename == WEIGHTS:
        raise no_safetensors(repository)
    if file is None:
        raise MvlError(f"lacks {filename}, which its index names", file=repository.name, remedy=AGAIN)
    return file, read_header(file)


def _map_names(
    shapes: Mapping[str, object], there: Mapping[str, str], numbers: Mapping[str, int], file: str
) -> dict[str, str]:
    """{name in the model: name in FrozenBlock} of the weights of the layers and the final norm.

    numbers: BlockGeometry.layer_numbers. Raises MvlError unless the model has exactly these.
    """
    prefix = next((prefix for prefix in PREFIXES if f"{prefix}norm.weight" in there), PREFIXES[0])
    begins = {ours: f"{prefix}layers.{number}." for ours, number in numbers.items()}
    names = {}
    for ours in shapes:
        layer, _, rest = ours.partition(".")
        names[begins[layer] + rest if layer in begins else prefix + ours] = ours
    found = [name for name in there if name.startswith(tuple(begins.values())) or name == f"{prefix}norm.weight"]
    check_names(names, found, KNOWN_EXTRAS, file)
    return names


def _read(
    file: RandomAccess,
    tensors: Mapping[str, StoredTensor],
    names: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, Tensor]:
    """The tensors of one file. names: {name in FrozenBlock: name in the model}."""
    for ours, theirs in names.items():
        if theirs not in tensors:
            raise MvlError(f"lacks {theirs}, which is in it according to the index", file=file.name)
        check_shape(theirs, tensors[theirs].shape, shapes[ours], file.name)
        if tensors[theirs].dtype not in DTYPES:
            raise MvlError(
                f"holds {theirs} as {tensors[theirs].dtype}: a quantized checkpoint, which only its own library reads",
                file=file.name,
                remedy="Take the original model, or a GGUF file of it.",
            )
    ranges = {ours: (tensors[theirs].start, tensors[theirs].length) for ours, theirs in names.items()}
    raw = read_ranges(file, ranges)
    return {ours: _tensor(raw[ours], tensors[names[ours]]) for ours in names}


def _tensor(raw: memoryview, stored: StoredTensor) -> Tensor:
    """The bytes as a tensor; without a copy where the buffer is writable and aligned."""
    dtype = DTYPES[stored.dtype]
    own = bytearray(raw) if raw.readonly else raw
    flat = torch.frombuffer(own, dtype=torch.uint8)
    if flat.data_ptr() % dtype.itemsize:
        flat = flat.clone()
    return flat.view(dtype).reshape(stored.shape)
