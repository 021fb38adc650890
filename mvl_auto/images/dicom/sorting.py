"""Frames to volumes: each has every position once, one orientation and one size.

Frames of different series are different volumes. Within a series, frames at one place are told apart by the first of
echo, diffusion weighting, time and so on that gives every position once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mvl_auto.arrays import Array
from mvl_auto.images.dicom.headers import Frame
from mvl_auto.images.geometry import DIRECTION_TOLERANCE

SAME_PLACE = 0.1  # of a pixel: frames this close to each other are at one place
SAME_PLACE_MM = 0.05
ALWAYS_APART = ("echo", "b", "stack")  # frames that differ in these are never of one volume
TELLING = ("time", "phase", "trigger", "type", "inversion", "flip", "kvp", "kernel", "acquisition")
TIMES = ("acquired", "written")  # tried last: slices of one volume mostly differ in them
IN_ORDER = ("trigger", "acquired", "written")  # their values differ from place to place; their order does not
SHOWN = {"acquired": "time", "written": "time", "trigger": "time"}  # words in names
PLANES = ("sagittal", "coronal", "axial")  # by the patient's axis that the normal is nearest to
SPACING_DIGITS = 4  # significant ones, in which frames of one volume agree
FEW = 3  # slices of another orientation beside a volume: a localizer
MANY = 5  # slices of a volume that has such a localizer


@dataclass(frozen=True, eq=False)
class DicomVolume:
    """Frames that make up one image, in order along their normal where they have positions.

    name: what tells it from the other volumes in its folder, such as `series2_echo1`; empty for the only one.
    differs: the same in DICOM's words, for messages.
    """

    name: str
    differs: str
    frames: tuple[Frame, ...]

    @property
    def is_localizer(self) -> bool:
        return all(frame.is_localizer for frame in self.frames)

    @property
    def has_place(self) -> bool:
        return all(frame.position is not None or frame.location is not None for frame in self.frames)


@dataclass(frozen=True)
class _Part:
    """Frames that differ from those of other parts by `words` (for names) and `values` (for messages)."""

    frames: tuple[Frame, ...]
    words: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


def unique_frames(frames: Iterable[Frame]) -> tuple[list[Frame], list[Path]]:
    """Frames without copies (same SOP instance, same place), and the files that are copies of another."""
    kept: dict[Hashable, Frame] = {}
    copies = []
    for frame in frames:
        identity = (
            frame.uid or frame.file, frame.index, frame.series, frame.instance_number, frame.position, frame.shape,
        )  # fmt: skip
        if kept.setdefault(identity, frame) is not frame:
            copies.append(frame.file)
    return list(kept.values()), copies


def sort_volumes(frames: Sequence[Frame]) -> tuple[list[DicomVolume], dict[str, list[Path]]]:
    """The volumes of a folder, each with a name of its own where there are several, and the files that lie beside.

    Those are localizers, and pictures without a position beside volumes that have one: reason -> files.
    """
    volumes = _volumes(frames)
    beside: dict[str, list[Path]] = {}
    left: list[Frame] = []
    for volume in volumes:
        if reason := _beside(volume, volumes):
            beside.setdefault(reason, []).extend(dict.fromkeys(frame.file for frame in volume.frames))
        else:
            left += volume.frames
    return (_volumes(left) if beside else volumes), beside


def _volumes(frames: Sequence[Frame]) -> list[DicomVolume]:
    parts = [part for series in _by_series(frames) for grid in _by_grid(series) for part in _by_place(grid)]
    names = _distinct_names(parts) if len(parts) > 1 else [""]
    return [
        DicomVolume(name, ", ".join(part.values), _in_order(part.frames))
        for name, part in zip(names, parts, strict=True)
    ]


def _beside(volume: DicomVolume, others: Sequence[DicomVolume]) -> str:
    """Why a volume is not one of those that are meant; empty where it is."""
    rest = [other for other in others if other is not volume]
    if volume.is_localizer and not all(other.is_localizer for other in others):
        return "localizer"
    if not volume.has_place and any(other.has_place for other in rest):
        return "picture without a position"
    largest = max((len(other.frames) for other in rest), default=0)
    is_small = len(volume.frames) <= FEW and largest >= MANY and volume.has_place
    if is_small and all(_turned(volume, other) for other in rest if len(other.frames) == largest):
        return "localizer"
    return ""


def normal_of(frame: Frame) -> Array | None:
    """Unit vector at right angles to a frame, LPS+; None where its orientation is not known."""
    if frame.orientation is None:
        return None
    normal = np.cross(frame.orientation[:3], frame.orientation[3:])
    length = float(np.linalg.norm(normal))
    return normal / length if length > DIRECTION_TOLERANCE else None


def places(frames: Sequence[Frame]) -> Array | None:
    """Where frames lie along their normal, in mm, (n,); None where their headers do not say.

    SliceLocation stands in for missing positions; it grows towards left, posterior, superior (DICOM leaves its zero
    and sign open; scanners do so).
    """
    normal = normal_of(frames[0])
    if normal is None:
        return None
    if all(frame.position is not None for frame in frames):
        return np.array([frame.position for frame in frames], dtype=float) @ normal
    if any(frame.location is None for frame in frames):
        return None
    sign = float(np.sign(normal[np.abs(normal).argmax()]))
    return sign * np.array([frame.location for frame in frames], dtype=float)


def _by_series(frames: Sequence[Frame]) -> list[_Part]:
    groups = _grouped(frames, lambda frame: frame.series)
    ordered = sorted(groups.values(), key=_series_order)
    if len(ordered) == 1:
        return [_Part(tuple(ordered[0]))]
    parts = []
    for rank, group in enumerate(ordered, start=1):
        told = group[0].series_number
        says = "no SeriesNumber" if told is None else f"SeriesNumber {told}"
        parts.append(_Part(tuple(group), (f"series{rank if told is None else told}",), (says,)))
    return parts


def _series_order(frames: list[Frame]) -> Any:
    return (frames[0].study, _or_last(frames[0].series_number), frames[0].series)


def _by_grid(part: _Part) -> list[_Part]:
    """Frames of one size and pixel spacing, and of one orientation."""
    sizes = _grouped(part.frames, lambda frame: (frame.shape, _rounded(frame.spacing), frame.is_localizer))
    found = []
    for rank, ((shape, spacing, _), frames) in enumerate(sizes.items(), start=1):
        told = f"{shape[1]}x{shape[0]} pixels" + (f" of {spacing[1]:g}x{spacing[0]:g} mm" if spacing else "")
        sized = _extended(part, frames, (f"size{rank}",), (told,)) if len(sizes) > 1 else part
        turned = _by_orientation(sized.frames)
        names = [_plane(frames[0]) for frames in turned]
        for turn, frames in enumerate(turned):
            name = names[turn] if names.count(names[turn]) == 1 else f"orientation{turn + 1}"
            found.append(_extended(sized, frames, (name,), (names[turn],)) if len(turned) > 1 else sized)
    return found


def _by_orientation(frames: Sequence[Frame]) -> list[list[Frame]]:
    groups: list[list[Frame]] = []
    for frame in frames:
        for group in groups:
            if _same_orientation(frame, group[0]):
                group.append(frame)
                break
        else:
            groups.append([frame])
    return groups


def _by_place(part: _Part) -> list[_Part]:
    """Split until every position is there once, by as few elements as do it."""
    for word in ALWAYS_APART:
        groups = _grouped(part.frames, _value_of(word))
        if len(groups) > 1:
            return [inner for each in _told_by(part, word, groups) for inner in _by_place(each)]
    where = places(part.frames)
    if where is None or len(part.frames) == 1:
        return [part]
    cluster = _clusters(where, part.frames)
    most = max(Counter(cluster).values())
    if most == 1 or contradicts_itself(where, part.frames):
        return [part]
    at = {id(frame): place for frame, place in zip(part.frames, cluster, strict=True)}
    return _split(part, most, at)


def _split(part: _Part, most: int, at: dict[int, int]) -> list[_Part]:
    """Parts of frames of which up to `most` lie at one place. at: frame's id -> number of its place."""
    for word in (*TELLING, *TIMES):
        groups = _grouped(part.frames, _value_of(word))
        left = max(_multiplicity(group, at) for group in groups.values())
        if 1 < len(groups) <= most and len(groups) * left == most:
            parts = _told_by(part, word, groups)
            return parts if left == 1 else [inner for each in parts for inner in _split(each, left, at)]
    here: dict[int, list[Frame]] = defaultdict(list)
    for frame in part.frames:
        here[at[id(frame)]].append(frame)
    if all(len(frames) == most for frames in here.values()):
        for word, key in [*((word, _rank_by(word)) for word in IN_ORDER), ("volume", _instance)]:
            if all(len({key(frame) for frame in frames}) == most for frames in here.values()):
                ordered = [sorted(frames, key=key) for frames in here.values()]
                groups = {rank: [frames[rank] for frames in ordered] for rank in range(most)}
                return _told_by(part, word, groups)
    return [part]  # grid.py refuses it, with the files that are at one place


def _told_by(part: _Part, word: str, groups: dict[Any, list[Frame]]) -> list[_Part]:
    """Parts for groups of frames that differ in what `word` stands for."""
    ordered = sorted(groups.items(), key=lambda item: _sortable(item[0]))
    numbers = [_own_number(word, frames) for _, frames in ordered]
    if None in numbers or len(set(numbers)) < len(numbers):
        numbers = [f"{rank:0{len(str(len(ordered)))}d}" for rank in range(1, len(ordered) + 1)]
    shown = SHOWN.get(word, word)
    return [
        _extended(part, frames, (f"{shown}{number}",), (_difference(word, frames, ordered),))
        for number, (_, frames) in zip(numbers, ordered, strict=True)
    ]


def _own_number(word: str, frames: list[Frame]) -> str | None:
    """The number that DICOM itself gives: of the echo, or of the diffusion weighting."""
    keyword = {"echo": "EchoNumbers", "b": "DiffusionBValue"}.get(word)
    values = dict(frames[0].telling.get(word) or ())
    value = values.get(keyword)
    return f"{value:g}" if isinstance(value, (int, float)) and value >= 0 and value == int(value) else None


def _difference(word: str, frames: list[Frame], ordered: list[tuple[Any, list[Frame]]]) -> str:
    """`EchoTime 20`: the elements in which the first frames of the groups differ."""
    own = dict(frames[0].telling.get(word) or ())
    others = [dict(group[0].telling.get(word) or ()) for _, group in ordered]
    differing = [key for key in own if any(other.get(key) != own[key] for other in others)]
    if not differing:
        return f"InstanceNumber {frames[0].instance_number} and on" if word == "volume" else word
    return ", ".join(f"{key} {_shown(own[key])}" for key in differing)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return "\\".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _distinct_names(parts: list[_Part]) -> list[str]:
    names = ["_".join(part.words) for part in parts]
    taken: Counter[str] = Counter()
    for n, name in enumerate(names):
        taken[name] += 1
        if names.count(name) > 1:
            names[n] = f"{name}_{taken[name]}"
    return names


def _in_order(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    where = places(frames)
    return frames if where is None else tuple(frames[n] for n in np.argsort(where, kind="stable"))


def _clusters(where: Array, frames: Sequence[Frame]) -> list[int]:
    """The number of the place of each frame, from below."""
    spacing = min(frames[0].spacing) if frames[0].spacing else 1.0
    order = np.argsort(where, kind="stable")
    steps = np.diff(where[order]) > min(SAME_PLACE * spacing, SAME_PLACE_MM)
    cluster = np.empty(len(where), int)
    cluster[order] = np.concatenate([[0], np.cumsum(steps)])
    return cluster.tolist()


def same_place(where: Array, frames: Sequence[Frame]) -> list[tuple[Frame, Frame]]:
    """Pairs of frames that lie at one place."""
    first: dict[int, Frame] = {}
    pairs = []
    for frame, place in zip(frames, _clusters(where, frames), strict=True):
        if first.setdefault(place, frame) is not frame:
            pairs.append((first[place], frame))
    return pairs


def contradicts_itself(where: Array, frames: Sequence[Frame]) -> bool:
    """Whether all frames lie at one place by their positions, and at as many as there are by their SliceLocations."""
    locations = [frame.location for frame in frames]
    if len(frames) == 1 or any(location is None for location in locations) or max(_clusters(where, frames)) > 0:
        return False
    return max(_clusters(np.array(locations, dtype=float), frames)) == len(frames) - 1


def _multiplicity(frames: list[Frame], at: dict[int, int]) -> int:
    return max(Counter(at[id(frame)] for frame in frames).values())


def _value_of(word: str) -> Callable[[Frame], Any]:
    return lambda frame: frame.telling.get(word)


def _rank_by(word: str) -> Callable[[Frame], Any]:
    return lambda frame: _sortable(frame.telling.get(word))


def _instance(frame: Frame) -> Any:
    return (_or_last(frame.instance_number), frame.index)


def _rounded(spacing: tuple[float, float] | None) -> tuple[float, ...] | None:
    return None if spacing is None else tuple(float(f"{length:.{SPACING_DIGITS}g}") for length in spacing)


def _same_orientation(a: Frame, b: Frame) -> bool:
    if a.orientation is None or b.orientation is None:
        return a.orientation is b.orientation
    return float(np.abs(np.subtract(a.orientation, b.orientation)).max()) <= DIRECTION_TOLERANCE


def _turned(a: DicomVolume, b: DicomVolume) -> bool:
    return not _same_orientation(a.frames[0], b.frames[0])


def _plane(frame: Frame) -> str:
    normal = normal_of(frame)
    return "unknown orientation" if normal is None else PLANES[int(np.abs(normal).argmax())]


def _grouped(frames: Iterable[Frame], key: Callable[[Frame], Any]) -> dict[Any, list[Frame]]:
    groups: dict[Any, list[Frame]] = {}
    for frame in frames:
        groups.setdefault(key(frame), []).append(frame)
    return groups


def _extended(part: _Part, frames: Iterable[Frame], words: tuple[str, ...], values: tuple[str, ...]) -> _Part:
    return replace(part, frames=tuple(frames), words=part.words + words, values=part.values + values)


def _or_last(value: int | None) -> tuple[bool, int]:
    return (value is None, value or 0)


def _sortable(value: Any) -> Any:
    """A key that compares numbers as numbers, text as text, and sorts nothing last."""
    if isinstance(value, tuple):
        return (1, tuple(map(_sortable, value)))
    if isinstance(value, (int, float)):
        return (0, float(value))
    return (3, "") if value is None else (2, str(value))
