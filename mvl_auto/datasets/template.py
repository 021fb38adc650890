"""A dataset.json to start from, filled in from the files that lie in the folder, for messages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mvl_auto.datasets.case_folders import KEY, find_pattern
from mvl_auto.datasets.cases import CHANNEL_NAME
from mvl_auto.errors import MvlError, noting
from mvl_auto.files import entries
from mvl_auto.images import file_ending, read_label, stem

LABELS_READ = 3
LARGEST_READ = 1 << 23  # bytes of a label file: a message must not be waited for
MOST_LABELS = 150


def propose_description(folder: Path) -> dict[str, Any]:
    """channel_names, labels and file_ending as far as the files of a folder tell; empty where there are no images.

    Names are made up: files hold none.
    """
    images = list(_images_in(folder / "imagesTr"))
    labels = list(_images_in(folder / "labelsTr"))
    content: dict[str, Any] = {}
    if images:
        numbers = {int(match["channel"]) for path in images if (match := CHANNEL_NAME.match(stem(path)))}
        count = len(numbers) if numbers == set(range(len(numbers))) and numbers else 1
        ending = file_ending(images[0])
    else:
        pattern, _ = find_pattern(folder, ["channel 0"]) if folder.is_dir() else (None, None)
        if pattern is None:
            return {}
        count, ending = len(pattern.images), file_ending(pattern.images[0])
        content[KEY] = {"images": list(pattern.images), "label": pattern.label}
        labels = sorted(folder.glob(pattern.label.replace("{case}", "*")))
    channels = ["CT or MRI"] if count == 1 else [f"channel {n}" for n in range(count)]
    return {
        "channel_names": {str(n): name for n, name in enumerate(channels)},
        "labels": {"background": 0, **{f"label {value}": value for value in _values(labels) or [1]}},
        "file_ending": ending,
    } | content


def _images_in(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in entries(folder) if file_ending(path) and not path.name.startswith("."))


def _values(labels: list[Path]) -> list[int]:
    """The values but 0 of the first few label files; none where there are so many that they are no labels."""
    found: set[int] = set()
    small = [path for path in labels if path.is_file() and path.stat().st_size < LARGEST_READ]
    for path in small[:LABELS_READ]:
        problems: list[MvlError] = []
        with noting(problems):
            found |= {int(value) for value in np.unique(read_label(path)[0])}
    values = sorted(found - {0})
    return values if len(values) <= MOST_LABELS else []
