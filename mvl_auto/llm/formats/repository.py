"""A model as Hugging Face lays it out, in a folder or on the hub: config.json and safetensors, whole or in shards."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Protocol

from mvl_auto.errors import MvlError
from mvl_auto.llm.formats.random_access import MappedFile, RandomAccess

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
README = "README.md"
LONGEST_TEXT = 64 << 20  # bytes; the index of a model of a trillion weights has a few million
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*\.safetensors")
LICENCE = re.compile(r"^license(_name)?:\s*['\"]?([^'\"\n]+?)['\"]?\s*$", re.MULTILINE)
PICKLES = (
    "pickled weights (.bin, .pt, .pth) are never read, since unpickling a file runs whatever code is in it; "
    "take a model with safetensors, or convert this one: transformers' save_pretrained writes them"
)


class Repository(Protocol):
    """The files of a model, wherever they lie."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def revision(self) -> str | None:
        """The version that the files are of, where they have one."""

    @property
    def bytes_read(self) -> int:
        """Of all files so far."""

    def open(self, filename: str) -> RandomAccess | None:
        """None when there is no such file. Raises MvlError when it can't be read."""


class Folder:
    """A model on disk."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        self._files: list[MappedFile] = []

    @property
    def revision(self) -> None:
        return None

    @property
    def bytes_read(self) -> int:
        return sum(file.bytes_read for file in self._files)

    def open(self, filename: str) -> RandomAccess | None:
        if not (self.path / filename).exists():
            return None
        self._files.append(MappedFile(self.path / filename))
        return self._files[-1]


def read_json_file(file: RandomAccess) -> Any:
    """Raises MvlError when it is no JSON, or unreasonably long."""
    try:
        return json.loads(read_text_file(file))
    except (ValueError, RecursionError) as error:
        raise MvlError("is not valid JSON", file=file.name) from error


def read_text_file(file: RandomAccess) -> str:
    if file.size > LONGEST_TEXT:
        raise MvlError(f"has {file.size:,} bytes, far too many for what it should be", file=file.name)
    return bytes(file.read(0, file.size)).decode("utf-8", errors="replace")


def stated_licence(repository: Repository) -> str | None:
    """What the front matter of the model card says: `license`, or `license_name` where that is "other"."""
    readme = repository.open(README)
    if readme is None:
        return None
    _, _, rest = read_text_file(readme).partition("---")
    stated = {bool(name): value for name, value in LICENCE.findall(rest.partition("\n---")[0])}
    licence, own_name = stated.get(False), stated.get(True)
    return own_name if licence == "other" and own_name else licence


def shards(repository: Repository) -> dict[str, str] | str:
    """Where the tensors lie: {tensor: file} for a model in shards, the file's name for one in one piece.

    Raises MvlError where there are no safetensors, and for an index that names anything but files beside it.
    """
    index = repository.open(INDEX)
    if index is None:
        return WEIGHTS
    content = read_json_file(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise MvlError("has no weight_map", file=index.name)
    for tensor, file in weight_map.items():
        if not isinstance(file, str) or not PLAIN_NAME.fullmatch(file):
            raise MvlError(f"says that {tensor[:100]} lies in {str(file)[:100]!r}, no plain file name", file=index.name)
    return weight_map


def no_safetensors(repository: Repository) -> MvlError:
    return MvlError(f"has neither {WEIGHTS} nor {INDEX}", file=repository.name, remedy=f"Note that {PICKLES}.")
