"""nibabel, imported without pydicom."""

from __future__ import annotations

import importlib
import sys
import threading
from types import ModuleType

IMPORTING = threading.Lock()  # held while pydicom cannot be imported


def import_nibabel() -> ModuleType:
    """nibabel. Where neither is imported yet, pydicom stays out: importing it costs every process time and memory.

    nibabel imports it, with all its decoders, to parse one kind of header extension (DICOM headers inside a NIfTI
    file), which nothing here looks at: such extensions stay bytes. `import_pydicom` is how other
    threads get it meanwhile.
    """
    with IMPORTING:
        if "nibabel" in sys.modules or "pydicom" in sys.modules:
            return importlib.import_module("nibabel")
        sys.modules["pydicom"] = None  # type: ignore[assignment]  # the import system's word for "not there"
        try:
            return importlib.import_module("nibabel")
        finally:
            del sys.modules["pydicom"]


def import_pydicom() -> ModuleType:
    """pydicom, never at the moment in which `import_nibabel` keeps it out."""
    with IMPORTING:
        return importlib.import_module("pydicom")
