"""Images in, segmentations out: formats, geometry, orientation (volume.py has the overview)."""

from mvl_auto.images.geometry import Geometry, check_same_geometry
from mvl_auto.images.volume import (
    FILE_ENDINGS,
    RASTER_ENDINGS,
    ROUNDING,
    Volume,
    check_finite,
    file_ending,
    known_formats,
    read_file,
    read_image,
    read_label,
    smallest_type,
    stem,
    write_file,
    write_label,
    write_probabilities,
)

__all__ = [
    "FILE_ENDINGS",
    "RASTER_ENDINGS",
    "ROUNDING",
    "Geometry",
    "Volume",
    "check_finite",
    "check_same_geometry",
    "file_ending",
    "known_formats",
    "read_file",
    "read_image",
    "read_label",
    "smallest_type",
    "stem",
    "write_file",
    "write_label",
    "write_probabilities",
]
