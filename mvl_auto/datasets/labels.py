"""Labels: from the words and values of dataset.json to consecutive classes, and back.

Three dialects are understood: MSD's `{"0": "background", "1": "Anterior"}`, nnU-Net v2's
`{"background": 0, "Anterior": 1}`, and its regions `{"whole tumour": [1, 2, 3]}` with
`regions_class_order`. Values may be any integers; the background is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from mvl_auto.arrays import Array
from mvl_auto.errors import MvlError
from mvl_auto.images import smallest_type
from mvl_auto.plans import IGNORE, MOST_CLASSES, LabelScheme, build
from mvl_auto.text import list_text

BACKGROUND_VALUE = 0
IGNORE_NAME = "ignore"  # nnU-Net's name for voxels that nobody labelled
TABLE_SIZE = 1 << 16  # value ranges up to this are translated by a table, others by binary search
UNKNOWN = np.int16(IGNORE - 1)  # the class of a value that dataset.json does not name
PICTURE_MASKS = (255, 65535)  # white in a picture of 8 and of 16 bits
LARGEST_SIGNED, LARGEST_UNSIGNED = np.iinfo(np.int64).max, np.iinfo(np.uint64).max
LISTED = 10  # values named in a message
NAME_EACH = 'Name each label, such as "labels": {"background": 0, "tumour": 1}.'

Refuse = Callable[..., NoReturn]  # what is wrong with dataset.json, and optionally the remedy


def read_scheme(content: dict[str, Any], file: str | PathLike[str]) -> LabelScheme:
    """The label scheme of a dataset.json's content.

    Raises MvlError naming `file` when labels are missing, ambiguous, or contradict each other.
    """

    def refuse(what: str, remedy: str = NAME_EACH) -> NoReturn:
        raise MvlError(what, file=file, remedy=remedy)

    named = _values_by_name(content.get("labels"), refuse)
    ignore_value = _ignore_value(named, refuse)
    values = sorted({value for group in named.values() for value in _as_list(group)} - {BACKGROUND_VALUE})
    if BACKGROUND_VALUE not in named.values():
        refuse("has no label of value 0, the background")
    if not values:
        refuse("has no label but the background")
    if len(values) >= MOST_CLASSES:
        refuse(f"has {len(values)} labels, at most {MOST_CLASSES - 1} are possible")
    everything = [*values, *([] if ignore_value is None else [ignore_value])]
    if min(everything) < 0 and max(everything) > LARGEST_SIGNED:
        refuse(f"has the labels {min(everything)} and {max(everything)}, which no integer type holds together")
    class_values = (BACKGROUND_VALUE, *values)
    regions = _regions(content, named, class_values, ignore_value, refuse)
    return build(
        LabelScheme,
        file,
        class_values=class_values,
        class_names=tuple(_class_name(value, named) for value in class_values),
        ignore_value=ignore_value,
        **regions,
    )


def to_classes(values: Array, scheme: LabelScheme, file: str | PathLike[str]) -> NDArray[np.int16]:
    """Translate a file's label values into classes 0, 1, 2, ... and IGNORE.

    values: integers of any shape. Raises MvlError, naming them, for values that the scheme does not know.
    """
    known = {value: number for number, value in enumerate(scheme.class_values)}
    if scheme.ignore_value is not None:
        known[scheme.ignore_value] = IGNORE
    classes = np.asarray(_translate(values, known))
    strange = classes == UNKNOWN
    if strange.any():
        raise _unknown_values([int(value) for value in np.unique(values[strange])], values, scheme, file)
    return classes


def _translate(values: Array, known: dict[int, int]) -> NDArray[np.int16]:
    """The number of each value, UNKNOWN for those without one.

    Every comparison is made in the type of `values`: a named value that the type cannot hold is not in the file.
    """
    limits = np.iinfo(values.dtype)
    possible = {value: number for value, number in sorted(known.items()) if limits.min <= value <= limits.max}
    if not values.size or not possible:
        return np.full(values.shape, UNKNOWN)
    lowest, highest = int(values.min()), int(values.max())
    if lowest >= 0 and highest < TABLE_SIZE:
        table = np.full(highest + 1, UNKNOWN)
        for value, number in possible.items():
            if 0 <= value <= highest:
                table[value] = number
        return np.asarray(table[values])
    ordered = np.array(list(possible), dtype=values.dtype)
    numbers = np.array(list(possible.values()), dtype=np.int16)
    places = np.searchsorted(ordered, values).clip(max=len(ordered) - 1)
    return np.where(ordered[places] == values, numbers[places], UNKNOWN)


def _unknown_values(found: list[int], values: Array, scheme: LabelScheme, file: str | PathLike[str]) -> MvlError:
    """found: the values of a file that dataset.json does not name."""
    named = sorted([*scheme.class_values, *([] if scheme.ignore_value is None else [scheme.ignore_value])])
    if is_picture_mask(found, values, scheme):
        return MvlError(
            f"holds {BACKGROUND_VALUE} and {found[0]}, dataset.json names {named[0]} and {named[1]}: "
            "a mask saved as a picture",
            file=file,
            remedy=f"Run mvl_doctor --fix FOLDER: in the copy that it writes, {found[0]} becomes {named[1]}.",
        )
    remedy = f"Add {'it' if len(found) == 1 else 'them'} to dataset.json's labels, or correct the file."
    if len(found) == 1 and found[0] < 0 and scheme.ignore_value is None:
        remedy = f'If nobody labelled these voxels, add "ignore": {found[0]} to dataset.json\'s labels.'
    return MvlError(
        f"has the label value{'s' * (len(found) > 1)} {list_text(found, LISTED)}, "
        f"which dataset.json does not name (it names {', '.join(map(str, named))})",
        file=file,
        remedy=remedy,
    )


def is_picture_mask(found: Sequence[int], values: Array, scheme: LabelScheme) -> bool:
    """Whether a label map is a mask as pictures hold it: 255 (or 65535) in the place of the dataset's only label.

    found: its values that the scheme does not name.
    """
    single = len(scheme.class_values) == 2 and not scheme.has_regions
    return single and len(found) == 1 and found[0] in PICTURE_MASKS and not (values == scheme.class_values[1]).any()


def to_values(classes: Array, scheme: LabelScheme) -> Array:
    """Translate classes back into the file's values, in the smallest type that holds all values of the scheme.

    Raises ValueError for IGNORE where the scheme has no ignore label.
    """
    values = scheme.class_values if scheme.ignore_value is None else (*scheme.class_values, scheme.ignore_value)
    dtype = smallest_type(min(values), max(values))
    if scheme.ignore_value is None and (classes < 0).any():
        raise ValueError("classes hold IGNORE, their scheme has no ignore label")
    return np.array(values, dtype=dtype)[classes]  # IGNORE is -1: the last entry


def one_hot(classes: Array, scheme: LabelScheme) -> NDArray[np.float32]:
    """(K, *shape) of 0 and 1: for each of foreground_names, the voxels that belong to it. Regions may overlap.

    classes: integers of any shape; background and IGNORE belong to none.
    """
    return np.stack([np.isin(classes, members) for members in scheme.foreground_classes]).astype(np.float32)


def _values_by_name(labels: Any, refuse: Refuse) -> dict[str, int | list[int]]:
    """Name -> value, or -> values of a region, in the order of the file."""
    if not isinstance(labels, dict) or not labels:
        refuse("has no labels")
    if all(str(value).lstrip("-").isdigit() for value in labels):  # MSD: {"1": "Anterior"}
        names = list(map(str, labels.values()))
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            refuse(f"gives the name '{sorted(twice)[0]}' to two labels", "Give each label a name of its own.")
        labels = {str(name): value for value, name in labels.items()}
    named = {str(name): _number_or_list(value, name, refuse) for name, value in labels.items()}
    single = [value for name, value in named.items() if isinstance(value, int) and name != IGNORE_NAME]
    if len(set(single)) < len(single):
        refuse("gives one label value two names", "Give each label a value of its own.")
    return named


def _number_or_list(value: Any, name: Any, refuse: Refuse) -> int | list[int]:
    if isinstance(value, list):
        if not value:
            refuse(f"the region '{name}' is made of no label", "List the label values that make it up.")
        return [_number(item, name, refuse) for item in value]
    return _number(value, name, refuse)


def _number(value: Any, name: Any, refuse: Refuse) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):  # OverflowError: Infinity
        refuse(f"the label '{name}' has the value {value!r}, which is no whole number")
    if isinstance(value, bool) or (isinstance(value, float) and number != value):
        refuse(f"the label '{name}' has the value {value!r}, which is no whole number")
    if not -LARGEST_SIGNED - 1 <= number <= LARGEST_UNSIGNED:
        refuse(f"the label '{name}' has the value {value!r:.30}, too large for 64 bits")
    return number


def _ignore_value(named: dict[str, int | list[int]], refuse: Refuse) -> int | None:
    """Take the ignore label out of `named` and return its value."""
    value = named.pop(IGNORE_NAME, None)
    if isinstance(value, list):
        refuse("the label 'ignore' is a region", "Give it one value of its own.")
    if value is not None and any(value in _as_list(group) for group in named.values()):
        refuse(f"the ignore value {value} is also part of a label or region", "Give 'ignore' a value of its own.")
    return value


def _regions(
    content: dict[str, Any],
    named: dict[str, int | list[int]],
    class_values: tuple[int, ...],
    ignore_value: int | None,
    refuse: Refuse,
) -> dict[str, Any]:
    """The fields of LabelScheme about regions; empty for plain labels."""
    if not any(isinstance(group, list) for group in named.values()):
        return {}
    groups = {name: _as_list(group) for name, group in named.items() if group != BACKGROUND_VALUE}
    for name, group in groups.items():
        if BACKGROUND_VALUE in group:
            refuse(f"the region '{name}' contains the background", "Take 0 out of it.")
    order = content.get("regions_class_order")
    if not isinstance(order, list) or len(order) != len(groups):
        refuse(
            f"has {len(groups)} regions, so regions_class_order must have {len(groups)} label values",
            "Give for each region the value to write where it is predicted; later ones overwrite earlier ones.",
        )
    values = [_number(value, "regions_class_order", refuse) for value in order]
    for value in values:
        if value not in class_values or value in (BACKGROUND_VALUE, ignore_value):
            refuse(
                f"regions_class_order has {value}, which is no label", f"Use {', '.join(map(str, class_values[1:]))}."
            )
    return {
        "region_names": tuple(groups),
        "regions": tuple(tuple(sorted(class_values.index(value) for value in set(group))) for group in groups.values()),
        "regions_class_order": tuple(class_values.index(value) for value in values),
    }


def _class_name(value: int, named: dict[str, int | list[int]]) -> str:
    """The name of the label that has this value alone; a value known only from regions gets a plain one."""
    alone = (name for name, group in named.items() if group == value or group == [value])
    return next(alone, f"label {value}")


def _as_list(group: int | list[int]) -> list[int]:
    return group if isinstance(group, list) else [group]
