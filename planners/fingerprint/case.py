"""The fingerprint of one case, read once: shape, objects, intensities, hashes, and its anomalies.

The unit of work of a dataset's fingerprint: a plain function of a case that runs in worker processes, without torch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mvl_auto.arrays import Box
from mvl_auto.datasets import Case, hash_files, load_case
from mvl_auto.errors import MvlError
from mvl_auto.files import Hashes
from mvl_auto.images import Volume
from mvl_auto.images.crop import nonzero_box, slices
from mvl_auto.images.geometry import skew_degrees
from mvl_auto.images.remarks import remark_on
from mvl_auto.images.spacing import round_spacing
from mvl_auto.planners.fingerprint.intensities import Sketch, sketch
from mvl_auto.plans import Anomaly, CaseFingerprint, LabelScheme
from mvl_auto.text import shape_text

FINGERPRINT_VERSION = 6  # raised whenever the same files get another fingerprint than before


@dataclass(frozen=True)
class FingerprintedCase:
    """What one case contributes to the fingerprint of its dataset.

    sketches: intensities inside the labels, one per channel; empty where nothing is labelled.
    """

    fingerprint: CaseFingerprint
    sketches: tuple[Sketch, ...]
    anomalies: tuple[Anomaly, ...]


def fingerprint_case(case: Case, labels: LabelScheme, channels: int, folder: Path) -> FingerprintedCase:
    """Read a labelled case and compute all that the fingerprint needs of it; it is the only case of its group.

    channels: the number in dataset.json. folder: of the dataset; anomalies name their files relative to it.
    Raises MvlError for a case that cannot be used.
    """
    if case.label is None:
        raise MvlError("has no label", file=case.images[0], remedy="Add the label, or remove the image.")
    hashes: Hashes = {}
    volume, classes = load_case(case, labels, channels, hashes)
    assert classes is not None
    image = volume.array
    spacing = round_spacing(volume.spacing)

    box = nonzero_box(image)
    class_voxels = count_classes(classes, len(labels.class_values))
    objects = [object_sizes(classes, box_of, k) for k, box_of in _class_boxes(classes, len(labels.class_values))]
    foreground = classes > 0
    found = [sketch(channel[foreground]) for channel in image]
    sketches = tuple(each for each in found if each is not None)
    return FingerprintedCase(
        CaseFingerprint(
            name=case.name,
            shape=image.shape[1:],
            spacing=spacing,
            shape_after_crop=tuple(stop - start for start, stop in box),
            class_voxels=class_voxels,
            components=tuple(len(sizes) for sizes in objects),
            smallest_object=tuple(int(sizes.min()) if sizes.size else 0 for sizes in objects),
            largest_object=tuple(int(sizes.max(initial=0)) for sizes in objects),
            foreground_intensity_properties_per_channel=tuple(each.statistics() for each in sketches),
            image_hash=array_hash(image),
            label_hash=array_hash(classes),
            group=case.name,
            files_hash=hash_files(case, hashes),
        ),
        sketches,
        tuple(_anomalies(case, volume, classes, box, folder)),
    )


def count_classes(classes: npt.NDArray[np.int16], number: int) -> tuple[int, ...]:
    """Voxels of each class, background first; ignored voxels are not counted."""
    shifted = classes.ravel().astype(np.int64) + 1  # IGNORE is -1
    return tuple(int(n) for n in np.bincount(shifted, minlength=number + 1)[1 : number + 1])


def object_sizes(classes: npt.NDArray[np.int16], box: tuple[slice, ...] | None, k: int) -> npt.NDArray[np.int64]:
    """Voxels of each connected component of class k, which lies in `box`; voxels that share a corner are neighbours."""
    from scipy import ndimage

    if box is None:
        return np.zeros(0, np.int64)
    mask = classes[box] == k
    numbered, _ = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    return np.bincount(numbered[mask])[1:]


def array_hash(array: npt.NDArray[np.generic]) -> str:
    """sha256 of an array's shape and values."""
    digest = hashlib.sha256(repr((array.shape, array.dtype.str)).encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def name_in(folder: Path, file: Path) -> str:
    """The file as messages name it: relative to the dataset's folder where it lies inside."""
    return str(file.relative_to(folder)) if file.is_relative_to(folder) else str(file)


def _class_boxes(classes: npt.NDArray[np.int16], number: int) -> list[tuple[int, tuple[slice, ...] | None]]:
    from scipy import ndimage

    boxes = ndimage.find_objects(np.maximum(classes, 0), max_label=number - 1)
    return list(enumerate(boxes, start=1))


def _anomalies(
    case: Case,
    volume: Volume,
    classes: npt.NDArray[np.int16],
    box: Box,
    folder: Path,
) -> list[Anomaly]:
    """What does not prevent the use of a case, but should be looked at."""
    assert case.label is not None
    image = volume.array
    image_file, label_file = name_in(folder, case.images[0]), name_in(folder, case.label)
    found = []
    if not (classes > 0).any():
        found.append(Anomaly(file=label_file, what="has no labelled voxel", remedy="Check that this is intended."))
    if not (classes >= 0).any():
        found.append(Anomaly(file=label_file, what="has only ignored voxels", remedy="Remove the case."))
    for channel, values in enumerate(image):
        if values.min() == values.max():
            what = f"channel {channel} has the value {values.flat[0]:g} everywhere"
            found.append(Anomaly(file=image_file, what=what, remedy="Check the export of this image."))
    if sorted(image.shape[1:])[1] == 1:
        what = f"is {shape_text(image.shape[1:])} voxels"
        found.append(Anomaly(file=image_file, what=what, remedy="Remove the case if this is not an image."))
    if degrees := skew_degrees(volume.geometry.affine):
        what = f"has axes that are {degrees:.3g} degrees off a right angle (a tilted gantry?); ITK refuses such NIfTI"
        if volume.geometry.file.tilt_degrees:
            what = f"was taken with the gantry tilted by {degrees:.3g} degrees: its slices do not lie above each other"
        found.append(Anomaly(file=image_file, what=what, remedy="Resample it, as mvl_doctor --fix does."))
    if volume.geometry.file.unknown_unit:
        remedy = 'Write {"spacing": [z, y, x]}, in mm, into a JSON file of the case\'s name beside each image.'
        found.append(Anomaly(file=image_file, what=remark_on(volume.geometry.file), remedy=remedy))
    inside = classes[slices(box)]
    if outside := int((classes > 0).sum() - (inside > 0).sum()):
        what = f"has {outside} labelled voxels outside the non-zero part of the image: they are cropped away"
        found.append(Anomaly(file=label_file, what=what, remedy="Check that image and label belong together."))
    return found
