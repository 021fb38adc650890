"""A trained or half-trained network on disk: checkpoint.safetensors, and state.json beside it.

    checkpoint.safetensors   ema.*         what predicts: the averaged weights, without the frozen block
                             weights.*     what trains            } only while the run is unfinished
                             optimizer.*   its moments            }
                             metadata      the State, as JSON: one file is always consistent with itself
    earlier.safetensors      the checkpoint before it, while the run is unfinished
    resume.safetensors       of a finished run: all parts, for a longer run to go on from
    state.json               the same State, to read
    ../plans.json            the plan it was trained with

The frozen block is not stored again: the State has its name and sha256, and loading checks them.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from mvl_auto.errors import MvlError
from mvl_auto.files import parse_json, reading, writing
from mvl_auto.plans import Document, FoldName, Frozen, Name, Text, parse_document, write_document
from mvl_auto.plans.block import Layers

if TYPE_CHECKING:
    from torch import Tensor


log = logging.getLogger(__name__)

CHECKPOINT, STATE, PLAN = "checkpoint.safetensors", "state.json", "plans.json"
PRETRAINING = "pretraining"  # how the folder of a pretraining begins, where that of a fold is fold<k>
EARLIER, RESUME = "earlier.safetensors", "resume.safetensors"
AVERAGED, TRAINING, OPTIMIZER = "ema.", "weights.", "optimizer."
RESTORE = "Restore it, or delete it and train again."

Steps = Annotated[int, Field(ge=0, le=10**12)]
Seconds = Annotated[float, Field(ge=0, le=1e10)]
Cases = Annotated[tuple[Name, ...], Field(max_length=1_000_000)]


class BlockReference(Frozen):
    """Which frozen block a network was trained with."""

    name: Text
    source: Text
    layer: int = Field(ge=-10_000, le=10_000)
    layers: Layers = Field(1, description="how many, the last of them is `layer`")
    sha256: Text
    geometry_sha256: Text | None = Field(None, description="null in checkpoints of earlier versions")


def align_reference(block: BlockReference | None, earlier: BlockReference | None) -> BlockReference | None:
    """`block` as the version that wrote `earlier` would have written it, so that the two can be compared."""
    if block is None or earlier is None or earlier.geometry_sha256 is not None:
        return block
    return block.model_copy(update={"geometry_sha256": None})


class PreviousReference(Frozen):
    """The run whose segmentations a cascade's second stage was trained on and predicts with."""

    run: Name = Field(description="its folder, beside that of the run that refers to it")
    configuration: Name
    checkpoints: dict[FoldName, Text] = Field(description="fold -> sha256 of its checkpoint.safetensors")


class State(Document):
    """How far a run is."""

    dataset: Name
    configuration: Name
    fold: FoldName
    plan_hash: Text
    block: BlockReference | None
    previous: PreviousReference | None = Field(None, description="of a cascade's second stage: the first")
    seed: int = Field(ge=-(1 << 63), lt=1 << 64)
    training_cases: Cases
    validation_cases: Cases
    budget_steps: Steps | None
    budget_seconds: Seconds | None
    step: Steps = Field(description="optimizer steps done")
    block_since: Steps | None = Field(
        None, description="steps done when the frozen block was attached, where that was not from the first on"
    )
    elapsed: Seconds = Field(description="seconds of optimization, over all sessions")
    finished: bool
    learning_rate: float | None = Field(None, gt=0, le=1e3, description="at its peak")
    trunk_rate: float = Field(1.0, ge=0, le=1, description="factor on the learning rate of the trunk's blocks")
    objective: Literal["segmentation", "reconstruction"] = Field(
        "segmentation", description="what was learned: of a pretraining reconstruction, its outputs are channels"
    )
    images_hash: Text = Field("", description="of the images beside the dataset's own that a pretraining has seen")
    precision: str = Field("", max_length=20, description="of the steps: float32, bfloat16 or float16")
    threads: int = Field(0, ge=0, le=1 << 16, description="of torch on the CPU; 0: not known")
    processes: int = Field(1, ge=1, le=1 << 16, description="that trained together")
    scaler: dict[str, float] = Field({}, description="state of the loss scaler, where the precision is float16")


def save(folder: Path, state: State, tensors: dict[str, Tensor]) -> None:
    """Write checkpoint and state; the checkpoint that was there is kept beside it.

    A reader sees the old pair or the new checkpoint, never half a file. Raises MvlError when the folder cannot be
    written.
    """
    earlier = folder / CHECKPOINT
    if earlier.is_file() and not read_state(folder).finished:
        _keep(earlier, folder / EARLIER)
    _write(folder / CHECKPOINT, state, tensors)
    write_document(folder / STATE, state)


def save_finished(folder: Path, state: State, tensors: dict[str, Tensor]) -> None:
    """Write what predicts, and beside it what a longer run goes on from. Raises MvlError as `save` does."""
    _write(folder / RESUME, state, tensors)
    averaged = {name: tensor for name, tensor in tensors.items() if name.startswith(AVERAGED)}
    _write(folder / CHECKPOINT, state, averaged)
    write_document(folder / STATE, state)
    (folder / EARLIER).unlink(missing_ok=True)


def _keep(file: Path, name: Path) -> None:
    """Under a second name as well; the file itself is going to be replaced, not changed."""
    beside = name.with_name(f".{name.name}")
    try:
        beside.unlink(missing_ok=True)
        os.link(file, beside)
        os.replace(beside, name)
    except OSError as error:  # a file system without links
        log.debug("%s is not kept (%s)", file, error)


def _write(path: Path, state: State, tensors: dict[str, Tensor]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with writing(path) as beside:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        beside.touch()
        mode = beside.stat().st_mode  # safetensors would make it readable for the owner alone
        try:
            save_file(contiguous, beside, metadata={"state": state.model_dump_json()})
        except SafetensorError as error:  # how it reports a full disk, with the system's reason in it
            code = re.search(r"\bos error (\d+)|\bcode: (\d+)", str(error))
            if code is None:
                raise
            number = int(code[1] or code[2])
            raise OSError(number, os.strerror(number)) from error
        beside.chmod(mode)


def has_checkpoint(folder: Path) -> bool:
    """Whether the training of this fold, or this pretraining, has begun: a run that goes on needs no start."""
    return (folder / CHECKPOINT).is_file()


def find_checkpoint(source: Path) -> Path:
    """The checkpoint that a path means. Raises MvlError when there is none, or several folds have one."""
    if source.is_file():
        return source
    if has_checkpoint(source):
        return source / CHECKPOINT
    found = sorted(file for kind in ("fold", PRETRAINING) for file in source.glob(f"{kind}*/{CHECKPOINT}"))
    if len(found) == 1:
        return found[0]
    if found:
        folds = ", ".join(each.parent.name for each in found)
        raise MvlError(f"has several trained folds ({folds})", file=source, remedy="Give the folder of one of them.")
    raise MvlError(
        "holds no checkpoint", file=source, remedy="Give a checkpoint.safetensors, or the folder of a trained fold."
    )


def read_state(folder: Path, name: str = CHECKPOINT) -> State:
    """The state inside a checkpoint of a fold. Raises MvlError when it is damaged."""
    from safetensors import SafetensorError, safe_open

    path = folder / name
    if not path.exists():
        raise MvlError("is missing", file=path, remedy="Train this fold with mvl_train.")
    try:
        with reading(path, RESTORE), safe_open(path, framework="np") as stream:
            metadata = stream.metadata() or {}
    except SafetensorError as error:
        raise _damaged(path, error) from error
    if "state" not in metadata:
        raise MvlError("is no checkpoint of mvl_auto", file=path, remedy=RESTORE)
    content = parse_json(metadata["state"], path, RESTORE)
    if isinstance(content, dict):
        content.pop("optimizer_steps", None)  # always empty, in checkpoints of version 0.1
    return parse_document(content, path, State, RESTORE)


def read_tensors(file: Path, prefixes: tuple[str, ...]) -> dict[str, dict[str, Tensor]]:
    """The tensors of a checkpoint by prefix, their names without it. Raises MvlError when it is damaged."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in prefixes}
    try:
        with reading(file, RESTORE), safe_open(file, framework="pt") as stream:
            for key in stream.keys():  # noqa: SIM118 (no mapping)
                for prefix in prefixes:
                    if key.startswith(prefix):
                        found[prefix][key.removeprefix(prefix)] = stream.get_tensor(key)
    except SafetensorError as error:
        raise _damaged(file, error) from error
    return found


def check_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    """Raise MvlError unless `found`, read from `path`, has the names, shapes and types of `wanted`, and no others."""
    misfit = sorted(found.keys() ^ wanted.keys()) or [
        name
        for name, tensor in wanted.items()
        if (found[name].shape, found[name].dtype) != (tensor.shape, tensor.dtype)
    ]
    if misfit:
        raise MvlError(f"does not fit the network of its plan (first at '{misfit[0]}')", file=path, remedy=RESTORE)


def _damaged(path: Path, error: Exception) -> MvlError:
    return MvlError(f"is damaged ({error})", file=path, remedy=RESTORE)
