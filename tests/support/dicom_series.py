"""DICOM on disk, for tests of reading it: series of slices, multi-frame files, and what lies beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

CT, MR, PET = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.128"
XRAY, PHOTO = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.7"
ENHANCED_CT, NUCLEAR = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.20"
STRUCTURES, DOSE = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.840.10008.5.1.4.1.1.481.2"
REPORT = "1.2.840.10008.5.1.4.1.1.88.22"
PRESENTATION, DIRECTORY = "1.2.840.10008.5.1.4.1.1.11.1", "1.2.840.10008.1.3.10"
MODALITIES = {CT: "CT", MR: "MR", PET: "PT", XRAY: "CR", ENHANCED_CT: "CT", NUCLEAR: "NM"}
AXIAL, SAGITTAL, CORONAL = (1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1)
Edit = Callable[[Any, int], None]


def new_dataset(kind: str = CT, uid: str = "1.2.3.1", series: str = "1.2.3", study: str = "1.2.9") -> FileDataset:
    """A DICOM object without pixels."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, uid
    meta.TransferSyntaxUID, meta.ImplementationClassUID = ExplicitVRLittleEndian, "1.2.8"
    made = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    made.SOPClassUID, made.SOPInstanceUID = kind, uid
    made.StudyInstanceUID, made.SeriesInstanceUID = study, series
    made.Modality = MODALITIES.get(kind, "OT")
    made.PatientName, made.PatientID = "Doe^John", "P7"
    return made


def put_pixels(dataset: Any, stored: Any, bits: int | None = None, photometric: str = "MONOCHROME2") -> None:
    """Uncompressed pixels (Y, X), (frames, Y, X) or (Y, X, 3). bits: BitsStored, where it is not all of the type's."""
    dtype = stored.dtype
    is_colour = stored.shape[-1] == 3
    rows, columns = stored.shape[-3:-1] if is_colour else stored.shape[-2:]
    dataset.Rows, dataset.Columns = rows, columns
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3 if is_colour else 1, photometric
    if is_colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dtype.itemsize * 8
    dataset.BitsStored = bits or dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(dtype.kind == "i")
    dataset.PixelData = np.ascontiguousarray(stored, dtype.newbyteorder("<")).tobytes()
    dataset["PixelData"].VR = "OW" if dtype.itemsize > 1 else "OB"


def save(dataset: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dcmwrite(path, dataset, enforce_file_format=True)
    return path


def write_slices(
    folder: Path,
    image_zyx: Any,
    *,
    spacing: Sequence[float] = (2.5, 0.8, 0.7),
    origin: Sequence[float] = (-20.0, -30.0, 10.0),
    orientation: Sequence[float] = AXIAL,
    kind: str = CT,
    series: int = 1,
    first: int = 1,
    name: str = "IM{:04d}.dcm",
    edit: Edit | None = None,
) -> Path:
    """A series, one file a slice, along the normal. first: number of the first slice. edit: changes slice k.

    spacing: mm, Z Y X. origin: mm, LPS+, of the first voxel of the first slice.
    """
    normal = np.cross(orientation[:3], orientation[3:])
    for k, pixels in enumerate(image_zyx):
        number = first + k
        made = new_dataset(kind, uid=f"1.2.3.{series}.{number}", series=f"1.2.3.{series}")
        made.SeriesNumber, made.InstanceNumber = series, number
        made.ImageOrientationPatient = [float(value) for value in orientation]
        made.ImagePositionPatient = [round(float(value), 6) for value in np.add(origin, normal * spacing[0] * k)]
        made.PixelSpacing, made.SliceThickness = [spacing[1], spacing[2]], spacing[0]
        put_pixels(made, np.asarray(pixels))
        if edit:
            edit(made, k)
        made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
        save(made, folder / name.format(number))
    return folder


def write_frames(
    path: Path,
    stored: Any,
    heights: Sequence[float],
    *,
    slopes: Sequence[float] | None = None,
    echoes: Sequence[float] | None = None,
    edit: Callable[[Any], None] | None = None,
) -> Path:
    """An enhanced multi-frame file, axial, 0.8 x 0.7 mm: frame n (of (n, Y, X)) lies at z = heights[n] mm."""
    made = new_dataset(ENHANCED_CT)
    made.SeriesNumber, made.InstanceNumber, made.NumberOfFrames = 1, 1, len(stored)
    shared = Dataset()
    shared.PixelMeasuresSequence = [_item(PixelSpacing=[0.8, 0.7], SliceThickness=9.0)]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=[float(value) for value in AXIAL])]
    made.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for n, height in enumerate(heights):
        group = Dataset()
        group.PlanePositionSequence = [_item(ImagePositionPatient=[-20.0, -30.0, float(height)])]
        group.FrameContentSequence = [_item(FrameAcquisitionNumber=1)]
        if slopes is not None:
            values = _item(RescaleSlope=f"{slopes[n]:.10g}", RescaleIntercept="0", RescaleType="US")
            group.PixelValueTransformationSequence = [values]
        if echoes is not None:
            group.MREchoSequence = [_item(EffectiveEchoTime=float(echoes[n]))]
        groups.append(group)
    made.PerFrameFunctionalGroupsSequence = groups
    put_pixels(made, np.asarray(stored))
    if edit:
        edit(made)
    return save(made, path)


def write_other(path: Path, kind: str) -> Path:
    """A DICOM object that is no image: a structure set, a report, a presentation state, a dose grid."""
    made = new_dataset(kind, uid=f"1.2.4.{len(path.name)}.{sum(path.name.encode())}", series="1.2.4")
    if kind == DOSE:
        made.ImagePositionPatient, made.ImageOrientationPatient = [0, 0, 0], list(AXIAL)
        made.PixelSpacing, made.NumberOfFrames = [3, 3], 2
        put_pixels(made, np.ones((2, 4, 5), np.uint16))
    return save(made, path)


def affine_of(spacing: Sequence[float], origin: Sequence[float], orientation: Sequence[float]) -> Any:
    """(4, 4): index i, j, k of a series of `write_slices` -> mm, RAS+."""
    affine = np.eye(4)
    along_row, along_column = np.array(orientation[:3], float), np.array(orientation[3:], float)
    affine[:3, 0], affine[:3, 1] = along_row * spacing[2], along_column * spacing[1]
    affine[:3, 2] = np.cross(along_row, along_column) * spacing[0]
    affine[:3, 3] = origin
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def save_series(folder: Path, image_zyx: Any, positions: list[float], series: str = "1.2.3", lean: float = 0.0) -> Path:
    """A CT-like DICOM series, axial, 0.5 mm pixels, slices at `positions` (mm along z). lean: mm along y for each."""

    def place(dataset: Any, k: int) -> None:
        dataset.SOPInstanceUID, dataset.SeriesInstanceUID = f"{series}.{k + 1}", series
        dataset.ImagePositionPatient = [-10.0, round(-20 + lean * positions[k], 5), float(positions[k])]
        del dataset.SeriesNumber

    image = np.asarray(image_zyx).astype(np.int16)
    return write_slices(
        folder, image, spacing=(1.0, 0.5, 0.5), name=f"{series}.{{}}.dcm", first=0, edit=place
    )  # fmt: skip


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item
