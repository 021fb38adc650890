"""What every file of the contract has: frozen models, bounded numbers, a schema version, reading and writing.

Axis order is Z, Y, X in every field, lengths are in mm, counts in voxels unless a field says otherwise.
Where a key means what nnU-Net's means, it has nnU-Net's name. Nothing here names code: a plan made
today must be readable after any refactoring.

The files may come from a stranger, so each number has a range, each tuple a longest length, and a name that becomes
part of a path is a `Name`. The ranges lie far beyond real data: they keep a damaged file from taking all memory.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from mvl_auto.errors import MvlError
from mvl_auto.files import read_json, sha256_of_json, write_json
from mvl_auto.names import fault_of_name
from mvl_auto.printable import printable
from mvl_auto.version import __version__

SCHEMA_VERSION = 1
PLAN_AGAIN = "Run mvl_plan_and_preprocess again."  # remedies
DELETE_AND_PLAN = "Delete it and run mvl_plan_and_preprocess again."

LARGEST_SIDE = 1 << 20  # voxels along one axis
MOST_VOXELS = 1 << 40
MOST_CHANNELS = 1024
MOST_CLASSES = 1024  # the finest atlases of the brain have some hundreds
MOST_CASES = 1_000_000
LONGEST_TEXT = 10_000  # characters


def _valid_name(text: str) -> str:
    if reason := fault_of_name(text):
        raise ValueError(f"this cannot be a file name: {reason}")
    return text


def _valid_text(text: str) -> str:
    """Text that UTF-8 can write: a lone surrogate ("\\ud800" in JSON) cannot be stored, hashed or printed."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("this is not valid UTF-8")
    return text


Name = Annotated[str, AfterValidator(_valid_name)]  # one part of a path
Text = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(_valid_text)]
FileEnding = Annotated[str, Field(pattern=r"^(\.[A-Za-z0-9]{1,8}){1,2}$")]
FoldName = Annotated[str, Field(pattern=r"^([0-9]{1,4}|all)$")]

Voxels = Annotated[int, Field(ge=0, le=MOST_VOXELS)]  # how many
Millimetres = Annotated[float, Field(gt=0, le=1e6)]
Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
Axis = Annotated[int, Field(ge=0, le=2)]
Shape = Annotated[tuple[Side, ...], Field(min_length=1, max_length=16)]
Axes = Annotated[tuple[Axis, ...], Field(max_length=3)]
Strides = Annotated[tuple[Annotated[int, Field(ge=1, le=256)], ...], Field(min_length=2, max_length=3)]
Vector = Annotated[tuple[Millimetres, ...], Field(min_length=1, max_length=3)]


class Frozen(BaseModel):
    """Fields may be given by their name or by their key on disk; on disk they have the key."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True, serialize_by_alias=True
    )


class Document(Frozen):
    """A model that is a file of its own."""

    schema_version: int = Field(SCHEMA_VERSION, ge=1, le=SCHEMA_VERSION)
    mvl_auto_version: Text = __version__

    @property
    def hash(self) -> str:
        """sha256 of the content, whichever version of mvl_auto wrote it."""
        return sha256_of_json(self.model_dump(mode="json", exclude={"mvl_auto_version"}))


D = TypeVar("D", bound=Document)
M = TypeVar("M", bound=BaseModel)
Json = dict[str, Any]
MIGRATIONS: dict[int, Any] = {}  # version -> function that turns its JSON into the next version's


def write_document(path: Path, document: Document) -> None:
    write_json(path, document.model_dump(mode="json"))


def read_document(path: Path, model: type[D], remedy: str = "") -> D:
    """Read a document, migrating older schemas.

    Raises MvlError when the file is missing, no JSON, of a newer schema, or does not fit the model.
    """
    return parse_document(read_json(path, remedy), path, model, remedy)


def parse_document(content: Any, path: Path, model: type[D], remedy: str = "") -> D:
    """The document in JSON that was read from `path`. Raises MvlError as `read_document` does."""
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise MvlError("has no schema_version: it is not a file of mvl_auto", file=path, remedy=remedy)
    if version > SCHEMA_VERSION:
        raise MvlError(
            f"has schema version {version:.6g}, this mvl_auto ({__version__}) knows up to {SCHEMA_VERSION}"
            if version < 10**9
            else f"has a schema version that this mvl_auto ({__version__}) does not know",
            file=path,
            remedy="Update with pip install -U mvl-auto.",
        )
    for older in range(version, SCHEMA_VERSION):
        content = MIGRATIONS[older](content)
    try:
        return model.model_validate(content | {"schema_version": SCHEMA_VERSION})
    except ValidationError as error:
        raise MvlError(f"is damaged {first_fault(error)}", file=path, remedy=remedy) from error


def build(model: type[M], file: str | PathLike[str], /, **fields: Any) -> M:
    """A model of values that a foreign `file` has. Raises MvlError where one does not fit."""
    try:
        return model(**fields)
    except ValidationError as error:
        raise MvlError(f"cannot be used {first_fault(error)}", file=file) from error


def first_fault(error: ValidationError) -> str:
    """The first thing that pydantic has against a value: where it is, and what is wrong."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = printable(".".join(map(str, first["loc"])))[:200]
    what = " ".join(printable(first["msg"].removeprefix("Value error, ")).split())[:300]
    return f"at '{where}': {what}" if where else f"({what})"
