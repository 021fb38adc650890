"""Folders of DICOM with several volumes: each volume is a case of its own when a network predicts.

For training a folder must hold one volume, since its label belongs to one: reading it refuses several by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from mvl_auto.datasets.cases import Case, find_cases
from mvl_auto.errors import MvlError
from mvl_auto.plans import Channel


def cases_to_predict(
    folder: Path, channels: Sequence[Channel], problems: list[MvlError] | None = None
) -> tuple[Case, ...]:
    """The cases of a folder (or of one image) for a network with these channels; problems: as in `find_cases`."""
    names = [channel.name for channel in channels]
    return split_volumes(find_cases(folder, len(names), problems=problems, channels=names))


def split_volumes(cases: Iterable[Case]) -> tuple[Case, ...]:
    """Cases by name, with every volume of a DICOM folder as a case: `knee_echo1`, `knee_echo2`.

    `mvl_auto.images.dicom.named_volumes` has the rule of the names. Cases of several files or folders are left alone. A
    folder that cannot be read stays one case, so that reading it tells why.
    Raises MvlError when two cases get one name.
    """
    found: dict[str, Case] = {}
    for case in cases:
        for volume in _volumes_of(case):
            if (other := found.setdefault(volume.name, volume)) is not volume:
                what = f"and {other.images[0]} give the same case '{volume.name}'"
                raise MvlError(what, file=case.images[0], remedy="Rename or remove one of them.")
    return tuple(sorted(found.values(), key=lambda case: case.name))


def _volumes_of(case: Case) -> list[Case]:
    if len(case.images) > 1 or not case.images[0].is_dir():
        return [case]
    from mvl_auto.images.dicom import named_volumes

    try:
        named = named_volumes(case.images[0], case.name)
    except MvlError:  # reported when it is read
        return [case]
    return [Case(name, case.images, case.label, volume) for name, volume in named]
