"""Layers of a model on disk: a folder in the layout of Hugging Face, or a GGUF file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mvl_auto.errors import MvlError
from mvl_auto.llm.extracted import Extracted
from mvl_auto.llm.formats.random_access import MappedFile
from mvl_auto.llm.formats.repository import PICKLES, Folder
from mvl_auto.llm.layers import LayerRange

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def extract_from_disk(path: Path, layers: LayerRange) -> Extracted:
    """Read layers from a folder or a file.

    Raises MvlError for a missing, damaged or unsupported file; pickles are not supported.
    """
    if not path.exists():
        raise MvlError(
            "is missing", file=path, remedy="Give a folder with config.json and safetensors, or a GGUF file."
        )
    if path.is_dir():
        return _from_folder(path, layers)
    if path.suffix.lower() in PICKLED:
        raise MvlError("is a pickled file", file=path, remedy=f"Note that {PICKLES}.")
    if path.suffix.lower() == ".safetensors":
        raise MvlError(
            "has no description of its model",
            file=path,
            remedy=f"Give its folder, with config.json: file:{path.parent}",
        )
    from mvl_auto.llm.formats.gguf_layers import read_gguf_layers

    return replace(read_gguf_layers(MappedFile(path), layers), revision=file_revision(path))


def _from_folder(path: Path, layers: LayerRange) -> Extracted:
    from mvl_auto.llm.formats.safetensors_layers import read_safetensors_layers

    if not any(path.glob("*.safetensors")):
        ggufs = sorted(path.glob("*.gguf"))
        if ggufs:
            raise MvlError("holds GGUF files", file=path, remedy=f"Give one of them: file:{ggufs[0]}")
        if any(file.suffix in PICKLED for file in path.iterdir()):
            raise MvlError("has only pickled weights", file=path, remedy=f"Note that {PICKLES}.")
    return replace(read_safetensors_layers(Folder(path), layers), revision=file_revision(path))


def files_of_model(path: Path) -> list[Path]:
    """The files of a model that is a folder or a file."""
    return sorted([*path.glob("*.safetensors"), path / "config.json"]) if path.is_dir() else [path]


def file_revision(path: Path) -> str | None:
    """Size and time of a model's files, which change when a file is replaced. None when a file is missing."""
    try:
        stats = [file.stat() for file in files_of_model(path)]
    except OSError:
        return None
    return f"{sum(stat.st_size for stat in stats)} bytes, {max(stat.st_mtime_ns for stat in stats)} ns"
