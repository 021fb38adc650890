"""The block bank: a folder of extracted layers, each complete in two files.

    <root>/blocks/<name>-layer<k>-<hash>.safetensors   the weights, a few MB; of two layers -layer<k>-<k + 1>-
    <root>/blocks/<name>-layer<k>-<hash>.json          BlockCard, written last

The hash in the name is the beginning of the weights' sha256. Weights and card are checked whenever a block is read.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_auto.errors import MvlError
from mvl_auto.files import cannot_write, sha256_of_file
from mvl_auto.llm.card import BlockCard
from mvl_auto.llm.extracted import Extracted
from mvl_auto.llm.sources.local import files_of_model
from mvl_auto.llm.sources.syntax import FileSource, Source
from mvl_auto.outputs import check_not_read
from mvl_auto.plans import read_document, write_document

if TYPE_CHECKING:
    from mvl_auto.llm.block import FrozenBlock

log = logging.getLogger(__name__)
WEIGHTS, CARD = ".safetensors", ".json"
HASH_DIGITS = 12
UNFINISHED = ".writing-"  # what mvl_auto.files.clear_unfinished clears after a killed process
AGAIN = "Delete it: the block is fetched again when it is needed."
UNSEALED = "is from an earlier version and has no hash of its own, so that an edit would go unnoticed"


def list_blocks(folder: Path) -> list[BlockCard]:
    """The cards of the bank, by name. A damaged or edited card is left out, with a warning in the log."""
    cards = []
    for path in find_card_files(folder):
        try:
            cards.append(_read_card(path))
        except MvlError as error:
            log.warning("%s", error)
    return cards


def verify(folder: Path) -> dict[str, MvlError | None]:
    """The problem of each block, by name; None for a sound one. Reads all weights."""
    found: dict[str, MvlError | None] = {}
    for path in find_card_files(folder):
        try:
            card = _read_card(path)
            check_weights(card, folder)
            found[path.stem] = None if card.content_sha256 else MvlError(UNSEALED, file=path, remedy=AGAIN)
        except MvlError as error:
            found[path.stem] = error
    return found


def find_card_files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"[!.]*{CARD}"))


def _read_card(path: Path) -> BlockCard:
    card = read_document(path, BlockCard, AGAIN)
    if card.name != path.stem:
        raise MvlError(f"is the card of {card.name}: it was renamed or copied over", file=path, remedy=AGAIN)
    if card.is_edited:
        raise MvlError("was edited: its content does not have the hash in it", file=path, remedy=AGAIN)
    if not path.with_suffix(WEIGHTS).is_file():
        raise MvlError(f"has no {path.with_suffix(WEIGHTS).name} beside it", file=path, remedy=AGAIN)
    return card


def find_block(folder: Path, wanted: Callable[[BlockCard], bool]) -> BlockCard | None:
    return next((card for card in list_blocks(folder) if wanted(card)), None)


def find_damage(name: str, folder: Path) -> MvlError | None:
    """Why the block of this name is not among `list_blocks`, although a file of it is there; None if none is."""
    card = folder / f"{name}{CARD}"
    if not card.is_file():
        weights = card.with_suffix(WEIGHTS) if name else None
        return MvlError(f"has no {card.name} beside it", file=weights) if weights and weights.is_file() else None
    try:
        _read_card(card)
    except MvlError as error:
        return error
    return None


def find_named_block(name: str, folder: Path) -> BlockCard:
    """The block whose name is, or starts with, `name`. Raises MvlError, listing the blocks, for none or several."""
    cards = list_blocks(folder)
    matches = [card for card in cards if card.name == name] or [card for card in cards if card.name.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    listed = ", ".join(card.name for card in matches or cards) or "none"
    found = "matches several blocks" if matches else "matches no block"
    raise MvlError(f"'{name}' {found} in {folder} ({listed})", remedy="See mvl_block list.")


def read_block(card: BlockCard, folder: Path) -> FrozenBlock:
    """Read a block into memory. Raises MvlError when its weights do not have the sha256 of the card."""
    from safetensors.torch import load_file

    from mvl_auto.llm.block import FrozenBlock

    check_weights(card, folder)
    return FrozenBlock(card, load_file(weights_file(card, folder)))


def check_weights(card: BlockCard, folder: Path) -> None:
    """Raise MvlError when the weights cannot be read, or do not have the sha256 of the card."""
    path = weights_file(card, folder)
    try:
        found = sha256_of_file(path)
    except OSError as error:
        raise MvlError(f"cannot be read ({error.strerror or error})", file=path, remedy=AGAIN) from error
    if found != card.sha256:
        raise MvlError("is damaged: its sha256 is not that of its card", file=path, remedy=AGAIN)


def store(extracted: Extracted, source: Source, folder: Path) -> BlockCard:
    """Write a layer into the bank, its card last; returns the card.

    Raises MvlError when it can't be written; then nothing is left behind.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder) as scratch:
            beside = Path(scratch) / f"block{WEIGHTS}"
            beside.touch()
            mode = beside.stat().st_mode  # safetensors makes files that nobody else may read
            save_file({name: weight.contiguous() for name, weight in extracted.weights.items()}, beside)
            beside.chmod(mode)
            card = _make_card(extracted, source, sha256_of_file(beside))
            if isinstance(source, FileSource):
                written = [weights_file(card, folder), folder / f"{card.name}{CARD}"]
                check_not_read(written, files_of_model(source.path), "Move the model out of the bank's folder.")
            os.replace(beside, weights_file(card, folder))
    except OSError as error:
        raise cannot_write(folder, error) from error
    except SafetensorError as error:
        raise MvlError(f"cannot be written ({error})", file=folder, remedy="Free space on the disk.") from error
    write_document(folder / f"{card.name}{CARD}", card)
    return card


def weights_file(card: BlockCard, folder: Path) -> Path:
    return folder / f"{card.name}{WEIGHTS}"


def _make_card(extracted: Extracted, source: Source, sha256: str) -> BlockCard:
    short_name = re.sub(r"[^A-Za-z0-9._-]+", "-", source.short_name).strip("-.")
    return BlockCard(
        name=f"{short_name}-layer{extracted.geometry.layers_text(extracted.layer)}-{sha256[:HASH_DIGITS]}",
        source=str(source),
        layer=extracted.layer,
        num_layers=extracted.num_layers,
        geometry=extracted.geometry,
        parameters=sum(weight.numel() for weight in extracted.weights.values()),
        dtype=str(extracted.weights["layer.self_attn.q_proj.weight"].dtype).removeprefix("torch."),
        quantisation=extracted.quantisation,
        licence=extracted.licence,
        revision=extracted.revision,
        sha256=sha256,
        bytes_read=extracted.bytes_read,
        bytes_layer=extracted.bytes_layer,
    ).seal()
