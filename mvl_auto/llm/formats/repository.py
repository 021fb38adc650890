"""A model in the layout of Hugging Face, in a folder or on the hub: config.json and safetensors, whole or in shards."""

from __future__ import annotations

import json
import logging
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
PICKLES = (
    "pickled weights (.bin, .pt, .pth) are never read, because unpickling a file runs the code in it; "
    "choose a model with safetensors, or convert this one: transformers' save_pretrained writes them"
)

log = logging.getLogger(__name__)


class Repository(Protocol):
    """The files of a model, on disk or on the hub."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def revision(self) -> str | None:
        """The version of the files; None for a folder."""

    @property
    def bytes_read(self) -> int:
        """Bytes read so far, of all files."""

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
    """The content of a JSON file. Raises MvlError when it is not valid JSON, or longer than LONGEST_TEXT."""
    try:
        return json.loads(read_text_file(file))
    except (ValueError, RecursionError) as error:
        raise MvlError("is not valid JSON", file=file.name) from error


def read_text_file(file: RandomAccess) -> str:
    """The content of a text file. Raises MvlError when it is longer than LONGEST_TEXT."""
    if file.size > LONGEST_TEXT:
        raise MvlError(f"has {file.size:,} bytes; at most {LONGEST_TEXT:,} are expected", file=file.name)
    return bytes(file.read(0, file.size)).decode("utf-8", errors="replace")


def read_licence(repository: Repository) -> str | None:
    """The licence in the metadata of the model card: `license`, or `license_name` where that is "other".

    None where there is no model card, or where it has no valid metadata.
    """
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    readme = repository.open(README)
    text = "" if readme is None else read_text_file(readme)
    if readme is None or not text.lstrip().startswith("---"):
        return None
    try:
        data = ModelCard(text, ignore_metadata_errors=True).data
    except (YAMLError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        log.warning("%s: its metadata cannot be read (%s); the licence is unknown", readme.name, type(error).__name__)
        return None
    stated, named = getattr(data, "license", None), getattr(data, "license_name", None)
    licence = named if stated == "other" and named else stated
    return licence if isinstance(licence, str) else None


def locate_tensors(repository: Repository) -> dict[str, str] | str:
    """The file of each tensor, {tensor: file}, for a model in shards; the file's name for a model in one file.

    Raises MvlError for an index that is damaged, or names anything but files beside it.
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
            raise MvlError(
                f"places {tensor[:100]} in {str(file)[:100]!r}, which is not a plain file name", file=index.name
            )
    return weight_map


def no_safetensors(repository: Repository) -> MvlError:
    """The error for a model without safetensors."""
    return MvlError(f"has neither {WEIGHTS} nor {INDEX}", file=repository.name, remedy=f"Note that {PICKLES}.")
