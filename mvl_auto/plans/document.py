"""What every file of the contract has: frozen models, a schema version, reading and writing.

Axis order is Z, Y, X in every field, lengths are in mm, counts in voxels unless said otherwise.
Where a key means what nnU-Net's means, it has nnU-Net's name. Nothing here names code: a plan made
today must be readable after any refactoring.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mvl_auto.errors import MvlError
from mvl_auto.files import read_json, sha256_of_json, write_json
from mvl_auto.version import __version__

SCHEMA_VERSION = 1
Vector = tuple[float, ...]
Shape = tuple[int, ...]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Document(Frozen):
    """A model that is a file of its own."""

    schema_version: int = SCHEMA_VERSION
    mvl_auto_version: str = __version__

    @property
    def hash(self) -> str:
        """sha256 of the content, whichever version of mvl_auto wrote it."""
        return sha256_of_json(self.model_dump(mode="json", exclude={"mvl_auto_version"}))


D = TypeVar("D", bound=Document)
Json = dict[str, Any]
MIGRATIONS: dict[int, Any] = {}  # version -> function that turns its JSON into the next version's


def write_document(path: Path, document: Document) -> None:
    write_json(path, document.model_dump(mode="json"))


def read_document(path: Path, model: type[D], remedy: str = "") -> D:
    """Read a document, migrating older schemas.

    Raises MvlError when the file is missing, no JSON, of a newer schema, or does not fit the model.
    """
    content = read_json(path, remedy)
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(version, int) or version < 1:
        raise MvlError("has no schema_version: it is not a file of mvl_auto", file=path, remedy=remedy)
    if version > SCHEMA_VERSION:
        raise MvlError(
            f"has schema version {version}, this mvl_auto ({__version__}) knows up to {SCHEMA_VERSION}",
            file=path,
            remedy="Update with pip install -U mvl-auto.",
        )
    for older in range(version, SCHEMA_VERSION):
        content = MIGRATIONS[older](content)
    try:
        return model.model_validate(content | {"schema_version": SCHEMA_VERSION})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise MvlError(f"is damaged at '{where}': {first['msg']}", file=path, remedy=remedy) from error
