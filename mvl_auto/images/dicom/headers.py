"""The headers of DICOM files: read without their pixels, and turned into one `Frame` per image plane."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mvl_auto.errors import MvlError
from mvl_auto.files import reading
from mvl_auto.images.dicom.files import HEAD, MAGIC_AT
from mvl_auto.images.dicom.values import EXPORT_AGAIN, reading_dicom
from mvl_auto.images.nibabel_alone import import_pydicom

Vector3 = tuple[float, float, float]

GEOMETRY_TAGS = (
    "ImagePositionPatient", "ImageOrientationPatient", "SliceLocation", "PixelSpacing", "ImagerPixelSpacing",
    "NominalScannedPixelSpacing", "SliceThickness", "SpacingBetweenSlices", "DetectorInformationSequence",
)  # fmt: skip
PIXEL_TAGS = (
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated",
    "RescaleSlope", "RescaleIntercept", "FrameIncrementPointer",
)  # fmt: skip
IDENTITY_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "InstanceNumber",
    "Modality", "ImageType", "PatientName", "PatientID",
)  # fmt: skip
TELLING_TAGS = (
    "EchoNumbers", "EchoTime", "TemporalPositionIdentifier", "TriggerTime", "DiffusionBValue",
    "DiffusionGradientOrientation", "AcquisitionNumber", "AcquisitionTime", "ContentTime", "ConvolutionKernel", "KVP",
    "InversionTime", "FlipAngle", "NominalPercentageOfCardiacPhase", "ComplexImageComponent",
)  # fmt: skip
GROUPS_TAGS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
TAGS = [*IDENTITY_TAGS, *PIXEL_TAGS, *GEOMETRY_TAGS, *TELLING_TAGS, *GROUPS_TAGS]

LARGEST_META = 1 << 12  # bytes: the file meta information, which names the encoding, is shorter
META_LENGTH = 12  # bytes of the first element, which holds the length of the others
DEFLATED = b"1.2.840.10008.1.2.1.99"  # the encoding whose files are deflated as a whole
LARGEST_INFLATED = 1 << 31  # bytes
CHUNK = 1 << 16

DOSE, SEGMENTATION = "1.2.840.10008.5.1.4.1.1.481.2", "1.2.840.10008.5.1.4.1.1.66.4"
SURFACE_SEGMENTATION, DIRECTORY = "1.2.840.10008.5.1.4.1.1.66.5", "1.2.840.10008.1.3.10"
NOT_IMAGES = frozenset({DOSE, SEGMENTATION, SURFACE_SEGMENTATION, DIRECTORY})  # though some of them have pixels


@dataclass(frozen=True, eq=False)
class Frame:
    """One image plane: a file, or one frame of a multi-frame file. Positions are in mm, LPS+ (DICOM's)."""

    file: Path
    index: int  # of the frame in its file, from 0
    frames_in_file: int
    uid: str  # SOPInstanceUID
    study: str
    series: str
    series_number: int | None
    instance_number: int | None
    patient: str  # name of the patient, only to keep it out of the names of files
    patient_id: str
    modality: str
    is_localizer: bool
    is_mosaic: bool  # Siemens: all slices of a volume side by side in one picture
    shape: tuple[int, int, int]  # rows, columns, samples per pixel
    bits: int  # BitsAllocated
    syntax: str  # UID of the transfer syntax: byte order and compression
    photometric: str
    slope: float
    intercept: float
    spacing: tuple[float, float] | None  # mm between rows, between columns
    orientation: tuple[float, ...] | None  # direction cosines along a row, then along a column
    position: Vector3 | None  # centre of the first voxel
    location: float | None  # SliceLocation, mm
    thickness: float | None  # mm: SpacingBetweenSlices, else SliceThickness
    telling: Mapping[str, Any] = field(default_factory=dict)  # what may tell volumes apart: word -> value, if given


def read_header(path: Path) -> Any:
    """The pydicom data set of a file, without its pixels: only the elements that are needed.

    Files without preamble are read where what follows is DICOM.
    Raises MvlError when the file cannot be read, or is not DICOM.
    """
    pydicom = import_pydicom()

    with reading(path), open(path, "rb") as stream:
        head = stream.read(LARGEST_META)
        preamble = head[MAGIC_AT:HEAD] == b"DICM"
        if preamble and DEFLATED in head:
            _check_inflated(path)
        stream.seek(0)
        with reading_dicom(path):
            dataset = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(TAGS), force=not preamble)
    if not preamble and "SOPClassUID" not in dataset:
        raise MvlError("is damaged or cut short, or is not DICOM", file=path, remedy=EXPORT_AGAIN)
    return dataset


def kind_of_no_image(dataset: Any) -> str:
    """What a file is that holds no image to segment (`RT Structure Set Storage`); empty for an image."""
    from pydicom.uid import UID

    media = getattr(dataset, "file_meta", None)
    uid = str(dataset.get("SOPClassUID") or (media.get("MediaStorageSOPClassUID") if media else "") or "")
    if uid in NOT_IMAGES or ("Rows" not in dataset and uid and _is_known_without_pixels(uid)):
        return UID(uid).name
    return ""


def _is_known_without_pixels(uid: str) -> bool:
    """Whether DICOM's own name of a class says that its objects are no images.

    A slice that is cut short also lacks its Rows, but its class is one of images.
    """
    from pydicom.uid import UID

    name = UID(uid).name
    return name != uid and "Image Storage" not in name


def _check_inflated(path: Path) -> None:
    """Raise MvlError for a deflated file that becomes much larger than an image: pydicom inflates it whole."""
    from pydicom.filereader import read_file_meta_info

    with reading(path), open(path, "rb") as stream, reading_dicom(path):
        stream.seek(HEAD + META_LENGTH + int(read_file_meta_info(path).FileMetaInformationGroupLength))
        inflate, made = zlib.decompressobj(-zlib.MAX_WBITS), 0
        data = stream.read(CHUNK)
        while data and made <= LARGEST_INFLATED:
            made += len(inflate.decompress(data, CHUNK))
            data = inflate.unconsumed_tail or stream.read(CHUNK)
    if made > LARGEST_INFLATED:
        what = f"becomes more than {LARGEST_INFLATED >> 30} GiB when it is inflated"
        raise MvlError(what, file=path, remedy="Export it uncompressed.")
