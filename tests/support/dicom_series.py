"""DICOM series on disk, for tests of reading them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk


def save_series(folder: Path, image_zyx: Any, positions: list[float], series: str = "1.2.3", lean: float = 0.0) -> Path:
    """A CT-like DICOM series, axial, 0.5 mm pixels, slices at `positions` (mm along z). lean: mm along y for each."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for n, (pixels, z) in enumerate(zip(image_zyx, positions, strict=True)):
        image = sitk.GetImageFromArray(pixels[None].astype(np.int16))
        image.SetSpacing((0.5, 0.5, 1.0))
        tags = {
            "0008|0060": "CT",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{series}.{n + 1}",
            "0020|000d": "1.2.9",
            "0020|000e": series,
            "0020|0013": str(n),
            "0020|0032": f"-10\\{-20 + lean * z:.5f}\\{z}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{series}.{n}.dcm"))
        writer.Execute(image)
    return folder
