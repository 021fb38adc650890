"""nibabel comes without pydicom, which stays importable before, after and meanwhile."""

from __future__ import annotations

import subprocess
import sys

import pytest

ALONE = "from mvl_auto.images.nibabel_alone import import_nibabel, import_pydicom\nimport sys\n"


def answer(code: str) -> str:
    return subprocess.run([sys.executable, "-c", ALONE + code], capture_output=True, text=True, check=True).stdout


def test_nibabel_does_not_bring_pydicom():
    assert answer("import_nibabel(); print('pydicom' in sys.modules, 'nibabel' in sys.modules)") == "False True\n"


@pytest.mark.parametrize("order", ["import_nibabel(); import_pydicom()", "import_pydicom(); import_nibabel()"])
def test_pydicom_can_be_imported_before_and_after(order):
    assert answer(f"{order}; import pydicom; print(pydicom.Dataset.__name__)") == "Dataset\n"


def test_a_thread_that_imports_pydicom_meanwhile_gets_it():
    code = (
        "import threading; found = []\n"
        "threads = [threading.Thread(target=lambda f=f: found.append(f().__name__)) "
        "for f in (import_nibabel, import_pydicom, import_pydicom)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "print(sorted(found))"
    )
    assert answer(code) == "['nibabel', 'pydicom', 'pydicom']\n"


def test_a_file_with_a_dicom_extension_is_read(tmp_path):
    """Code 2: nibabel parses it with pydicom; without, it stays bytes."""
    import nibabel
    import numpy as np

    from mvl_auto.images import read_label

    image = nibabel.Nifti1Image(np.ones((3, 4, 5), np.uint8), np.eye(4))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(2, b"no DICOM"))
    path = tmp_path / "case.nii.gz"
    nibabel.save(image, path)
    assert read_label(path)[0].shape == (5, 4, 3)
    code = f"from mvl_auto.images import read_label; print(read_label({str(path)!r})[0].sum())"
    assert answer(code) == "60\n"
