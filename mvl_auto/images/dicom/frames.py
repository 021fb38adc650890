"""The image planes of one DICOM file.

A multi-frame file says where each frame lies, and with which slope its values are stored, in its functional groups:
those of the frame first, then those that all frames share, then the top level of the file (DICOM PS3.3 C.7.6.16).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mvl_auto.errors import MvlError
from mvl_auto.images.dicom.headers import Frame, Vector3
from mvl_auto.images.dicom.values import EXPORT_AGAIN, number, numbers, reading_dicom, text, whole

FRAME_TIME_TAGS = {0x00181063, 0x00181065}  # FrameTime, FrameTimeVector: the frames are of one place, one after another
MOST_FRAMES = 1 << 16
PROJECTED_SPACINGS = ("ImagerPixelSpacing", "NominalScannedPixelSpacing")  # of X-rays and digitised films
THICKNESSES = ("SpacingBetweenSlices", "SliceThickness")
POSITION, ORIENTATION = "ImagePositionPatient", "ImageOrientationPatient"
DECIMALS = 3  # of echo times in ms and the like, when they are compared
# word in names of volumes -> elements that may tell them apart: macro of the functional groups, or "", and keyword
TELLING: dict[str, tuple[tuple[str, str], ...]] = {
    "echo": (("", "EchoNumbers"), ("", "EchoTime"), ("MREchoSequence", "EffectiveEchoTime")),
    "b": (
        ("", "DiffusionBValue"),
        ("", "DiffusionGradientOrientation"),
        ("MRDiffusionSequence", "DiffusionBValue"),
        ("MRDiffusionSequence", "DiffusionGradientDirectionSequence"),
    ),
    "stack": (("FrameContentSequence", "StackID"),),
    "time": (("", "TemporalPositionIdentifier"), ("FrameContentSequence", "TemporalPositionIndex")),
    "phase": (
        ("", "NominalPercentageOfCardiacPhase"),
        ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
    ),
    "trigger": (("", "TriggerTime"), ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime")),
    "type": (
        ("", "ImageType"),
        ("", "ComplexImageComponent"),
        ("MRImageFrameTypeSequence", "FrameType"),
        ("MRImageFrameTypeSequence", "ComplexImageComponent"),
        ("CTImageFrameTypeSequence", "FrameType"),
    ),
    "inversion": (("", "InversionTime"),),
    "flip": (("", "FlipAngle"), ("MRTimingAndRelatedParametersSequence", "FlipAngle")),
    "kvp": (("", "KVP"), ("CTXRayDetailsSequence", "KVP")),
    "kernel": (("", "ConvolutionKernel"), ("CTReconstructionSequence", "ConvolutionKernel")),
    "acquisition": (("", "AcquisitionNumber"), ("FrameContentSequence", "FrameAcquisitionNumber")),
    "acquired": (("", "AcquisitionTime"), ("FrameContentSequence", "FrameAcquisitionDateTime")),
    "written": (("", "ContentTime"),),
}


def frames_of(dataset: Any, path: Path) -> list[Frame]:
    """One `Frame` per image plane of a file, in its order. dataset: from `read_header`.

    Raises MvlError when the header is damaged or lacks what every image has.
    """
    with reading_dicom(path):
        top = {element.keyword: element.value for element in dataset}  # each value is converted once
        count = int(number(top, "NumberOfFrames") or 1)
        if not 0 < count <= MOST_FRAMES:
            raise MvlError(f"has a damaged header (NumberOfFrames is {count})", file=path, remedy=EXPORT_AGAIN)
        per_frame = top.get("PerFrameFunctionalGroupsSequence") or []
        if per_frame and len(per_frame) != count:
            what = f"has a damaged header ({len(per_frame)} functional groups for {count} frames)"
            raise MvlError(what, file=path, remedy=EXPORT_AGAIN)
        common = _common(top, path, count) | {"syntax": _transfer_syntax(dataset)}
        return [_frame(_Groups(top, n), n, common) for n in range(count)]


class _Groups:
    """What the header says of one frame: its own functional groups, the shared ones, the top level."""

    def __init__(self, top: dict[str, Any], index: int) -> None:
        self.top = top
        per_frame = top.get("PerFrameFunctionalGroupsSequence") or []
        shared = top.get("SharedFunctionalGroupsSequence") or []
        self.items = [*per_frame[index : index + 1], *shared[:1]]

    def macro(self, name: str, keyword: str) -> Any:
        """The item of a macro that has `keyword`; None where there is none."""
        for item in self.items:
            for inner in item.get(name) or []:
                if keyword in inner:
                    return inner
        return None

    def where(self, name: str, keyword: str) -> Any:
        """As `macro`, but the top level of the file where no functional group has it."""
        found = self.macro(name, keyword)
        return self.top if found is None else found


def _common(dataset: dict[str, Any], path: Path, count: int) -> dict[str, Any]:
    """What all frames of a file have in common."""
    number_or_none = {key: number(dataset, key) for key in ("SeriesNumber", "InstanceNumber")}
    series, instance = (None if value is None else int(value) for value in number_or_none.values())
    samples = int(number(dataset, "SamplesPerPixel") or 1)
    shape = (whole(dataset, "Rows"), whole(dataset, "Columns"), samples)
    if min(shape) < 1:
        raise ValueError(f"{shape[0]} rows, {shape[1]} columns")
    return {
        "file": path,
        "frames_in_file": count,
        "uid": text(dataset, "SOPInstanceUID"),
        "study": text(dataset, "StudyInstanceUID"),
        "series": text(dataset, "SeriesInstanceUID"),
        "series_number": series,
        "instance_number": instance,
        "patient": text(dataset, "PatientName"),
        "patient_id": text(dataset, "PatientID"),
        "modality": text(dataset, "Modality"),
        "is_localizer": "LOCALIZER" in _words(dataset.get("ImageType")),
        "is_mosaic": "MOSAIC" in _words(dataset.get("ImageType")),
        "shape": shape,
        "bits": whole(dataset, "BitsAllocated"),
        "photometric": text(dataset, "PhotometricInterpretation").upper(),
    }


def _transfer_syntax(dataset: Any) -> str:
    """The UID of the encoding; where a file has no file meta information, the one that it was readable in.

    Raises ValueError.
    """
    from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    meta = getattr(dataset, "file_meta", None)
    told = text(meta, "TransferSyntaxUID") if meta is not None else ""
    if told:
        if not UID(told).is_transfer_syntax:
            raise ValueError("unknown TransferSyntaxUID")
        return told
    is_implicit, is_little = dataset.original_encoding
    if is_implicit:
        return str(ImplicitVRLittleEndian)
    return str(ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian)


def _frame(groups: _Groups, index: int, common: dict[str, Any]) -> Frame:
    count = common["frames_in_file"]
    spacing = numbers(groups.where("PixelMeasuresSequence", "PixelSpacing"), "PixelSpacing", 2)
    for keyword in () if spacing else PROJECTED_SPACINGS:
        spacing = spacing or numbers(groups.top, keyword, 2)
    orientation = numbers(_plane(groups, "PlaneOrientationSequence", ORIENTATION), ORIENTATION, 6)
    transformation = groups.where("PixelValueTransformationSequence", "RescaleSlope")
    slope, intercept = number(transformation, "RescaleSlope"), number(transformation, "RescaleIntercept")
    steps = [number(groups.where("PixelMeasuresSequence", keyword), keyword) for keyword in THICKNESSES]
    return Frame(
        index=index,
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
        spacing=None if spacing is None else (spacing[0], spacing[1]),
        orientation=orientation,
        position=_position(groups, index, count, orientation),
        location=number(groups.top, "SliceLocation") if count == 1 else None,
        thickness=next((abs(step) for step in steps if step), None),
        telling={word: _values(groups, places) for word, places in TELLING.items()},
        **common,
    )


def _position(groups: _Groups, index: int, count: int, orientation: tuple[float, ...] | None) -> Vector3 | None:
    """Centre of a frame's first voxel, mm, LPS+; None where the header does not say.

    Where only the top level has a position, it is that of the first frame: the others follow at SpacingBetweenSlices
    along the normal, or are of the same place where FrameIncrementPointer says that they differ in time.
    """
    own = groups.macro("PlanePositionSequence", POSITION)
    if own is not None:
        return _vector(numbers(own, POSITION, 3))
    first = _vector(numbers(_plane(groups, "PlanePositionSequence", POSITION), POSITION, 3))
    if first is None or count == 1:
        return first
    pointers = groups.top.get("FrameIncrementPointer") or []
    if FRAME_TIME_TAGS & {int(tag) for tag in ([pointers] if isinstance(pointers, int) else pointers)}:
        return first
    step = number(groups.where("PixelMeasuresSequence", "SpacingBetweenSlices"), "SpacingBetweenSlices")
    if not step or orientation is None:
        return None
    place = groups.macro("FrameContentSequence", "InStackPositionNumber")
    steps = index if place is None else whole(place, "InStackPositionNumber") - 1
    normal = np.cross(orientation[:3], orientation[3:])
    return _vector(tuple(np.add(first, normal * step * steps).tolist()))


def _plane(groups: _Groups, macro: str, keyword: str) -> Any:
    """What says where the plane lies: a functional group, the top level, or the detector of nuclear medicine."""
    found = groups.where(macro, keyword)
    detectors = groups.top.get("DetectorInformationSequence") or []
    return detectors[0] if keyword not in found and detectors else found


def _vector(values: tuple[float, ...] | None) -> Vector3 | None:
    return None if values is None else (values[0], values[1], values[2])


def _values(groups: _Groups, places: tuple[tuple[str, str], ...]) -> tuple[Any, ...]:
    """What an image says at `places`, so that it can be compared; empty for nothing."""
    found = []
    for macro, keyword in places:
        holder = groups.macro(macro, keyword) if macro else groups.top
        value = None if holder is None else holder.get(keyword)
        if value is not None and value != "":
            found.append((keyword, _comparable(value)))
    return tuple(found)


def _comparable(value: Any) -> Any:
    """A number rounded, text, or a tuple of these."""
    if isinstance(value, float):
        return round(float(value), DECIMALS)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        return value
    if hasattr(value, "DiffusionGradientOrientation"):
        return _comparable(value.DiffusionGradientOrientation)
    return tuple(_comparable(item) for item in value) if hasattr(value, "__iter__") else str(value)


def _words(value: Any) -> set[str]:
    if value is None:
        return set()
    return {str(item).upper() for item in ([value] if isinstance(value, str) else value)}
