"""A trained or half-trained network on disk: checkpoint.safetensors, and state.json beside it.

    checkpoint.safetensors   ema.*         what predicts: the averaged weights, without the frozen block
                             weights.*     what trains            } only while the run is unfinished
                             optimizer.*   its moments            }
                             metadata      the State, as JSON: one file is always consistent with itself
    state.json               the same State, to read
    ../plans.json            the plan it was trained with

The frozen block is not stored again: the State has its name and sha256, and loading checks them.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError

from mvl_auto.errors import MvlError
from mvl_auto.files import writing
from mvl_auto.plans import Document, Frozen, write_document

if TYPE_CHECKING:
    from torch import Tensor


CHECKPOINT, STATE, PLAN = "checkpoint.safetensors", "state.json", "plans.json"
AVERAGED, TRAINING, OPTIMIZER = "ema.", "weights.", "optimizer."


class BlockReference(Frozen):
    """Which frozen block a network was trained with."""

    name: str
    source: str
    layer: int
    sha256: str
    geometry_sha256: str | None = Field(None, description="null in checkpoints of earlier versions")


def align_reference(block: BlockReference | None, earlier: BlockReference | None) -> BlockReference | None:
    """`block` as the version that wrote `earlier` would have written it, so that the two can be compared."""
    if block is None or earlier is None or earlier.geometry_sha256 is not None:
        return block
    return block.model_copy(update={"geometry_sha256": None})


class PreviousReference(Frozen):
    """The run whose segmentations a cascade's second stage was trained on, and predicts with."""

    run: str = Field(description="its folder, beside that of the run that refers to it")
    configuration: str
    checkpoints: dict[str, str] = Field(description="fold -> sha256 of its checkpoint.safetensors")


class State(Document):
    """How far a run is."""

    dataset: str
    configuration: str
    fold: str
    plan_hash: str
    block: BlockReference | None
    previous: PreviousReference | None = Field(None, description="of a cascade's second stage: the first")
    seed: int
    training_cases: tuple[str, ...]
    validation_cases: tuple[str, ...]
    budget_steps: int | None
    budget_seconds: float | None
    step: int = Field(description="optimizer steps done")
    elapsed: float = Field(description="seconds of optimisation, over all sittings")
    finished: bool
    optimizer_steps: dict[str, float] = Field({}, description="AdamW's own step counter")


def save(folder: Path, state: State, tensors: dict[str, Tensor]) -> None:
    """Write checkpoint and state; a reader sees the old pair or the new checkpoint, never half a file.

    Raises MvlError when the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with writing(folder / CHECKPOINT) as beside:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        beside.touch()
        mode = beside.stat().st_mode  # safetensors would make it readable for the owner alone
        try:
            save_file(contiguous, beside, metadata={"state": state.model_dump_json()})
        except SafetensorError as error:  # its only word for a full disk, with the system's in it
            code = re.search(r"\bos error (\d+)|\bcode: (\d+)", str(error))
            if code is None:
                raise
            number = int(code[1] or code[2])
            raise OSError(number, os.strerror(number)) from error
        beside.chmod(mode)
    write_document(folder / STATE, state)


def read_state(folder: Path) -> State:
    """The state inside the checkpoint of a fold. Raises MvlError when it is damaged."""
    from safetensors import SafetensorError, safe_open

    path = folder / CHECKPOINT
    try:
        with safe_open(path, framework="np") as stream:
            metadata = stream.metadata() or {}
        return State.model_validate(json.loads(metadata["state"]))
    except FileNotFoundError as error:
        raise MvlError("is missing", file=path, remedy="Train this fold with mvl_train.") from error
    except (SafetensorError, KeyError, json.JSONDecodeError, ValidationError) as error:
        raise _damaged(path, error) from error


def read_tensors(folder: Path, prefixes: tuple[str, ...]) -> dict[str, dict[str, Tensor]]:
    """The tensors of a checkpoint by prefix, their names without it."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in prefixes}
    try:
        with safe_open(folder / CHECKPOINT, framework="pt") as stream:
            for key in stream.keys():  # noqa: SIM118 (no mapping)
                for prefix in prefixes:
                    if key.startswith(prefix):
                        found[prefix][key.removeprefix(prefix)] = stream.get_tensor(key)
    except (SafetensorError, OSError) as error:
        raise _damaged(folder / CHECKPOINT, error) from error
    return found


def _damaged(path: Path, error: Exception) -> MvlError:
    return MvlError(f"is damaged ({error})", file=path, remedy="Restore it, or delete it and train again.")
