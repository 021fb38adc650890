"""DICOM: folders of slices or multi-frame files, read with pydicom.

files.py     which files of a folder are DICOM, by their first bytes
headers.py   what the headers say: one `Frame` per image plane
frames.py    the frames of one file, also of a multi-frame one
values.py    numbers and text out of a pydicom data set, and its errors as one line
sorting.py   frames to volumes: every position once, one orientation, one size
grid.py      where a volume lies in the patient; refuses gaps
pixels.py    decoding, slopes, colours, into one array
folder.py    all of it together: `read_dicom`, `scan_folder`, names of cases
"""

from mvl_auto.images.dicom.files import dicom_files, is_dicom_folder
from mvl_auto.images.dicom.folder import files_of_volume, named_volumes, read_dicom, scan_folder

__all__ = [
    "dicom_files",
    "files_of_volume",
    "is_dicom_folder",
    "named_volumes",
    "read_dicom",
    "scan_folder",
]
