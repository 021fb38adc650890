"""The package as it is installed: extras, metadata, documents."""

from __future__ import annotations

import re
from importlib.metadata import metadata, requires
from pathlib import Path

import pytest

from mvl_auto import extras
from mvl_auto.errors import MvlError
from mvl_auto.paths import guide

REPOSITORY = Path(__file__).parents[1]


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_page_of_dependencies_has_each_with_its_extra():
    page = (REPOSITORY / "docs" / "dependencies.md").read_text(encoding="utf-8")
    told = {normalized(name): extra.strip() for name, extra in re.findall(r"^\| ([\w-]+) \| ([^|]*) \|", page, re.M)}
    wanted: dict[str, set[str]] = {}
    for line in requires("mvl-auto") or []:
        name = normalized(re.match(r"[\w.-]+", line)[0])
        extra = re.search(r"extra == ['\"](\w+)['\"]", line)
        wanted.setdefault(name, set()).add(extra[1] if extra else "always")
    assert told.keys() - {"package"} == wanted.keys()
    for name, where in wanted.items():
        assert set(told[name].split(", ")) == ({"always"} if "always" in where else where), name


def test_the_index_shows_no_link_that_leads_nowhere():
    about = metadata("mvl-auto")
    description = about["Description"] or str(about.get_payload())  # older versions of setuptools: behind the fields
    assert "mvl_train 4 fold0" in description
    assert not re.findall(r"\]\((?!https?://|#)", description)


def test_messages_point_to_a_page_that_is_there():
    assert guide("dataset.md").is_file()
    assert guide("dataset.md").read_bytes() == (REPOSITORY / "docs" / "dataset.md").read_bytes()


def test_a_package_of_an_extra_is_asked_for_with_the_command_that_installs_it(monkeypatch):
    extras.need("matplotlib", "the demo")
    monkeypatch.setattr(extras, "EXTRAS", {"no_such_package": "demo"})
    with pytest.raises(MvlError, match=r"the demo needs no_such_package.* Run pip install 'mvl-auto\[demo\]'"):
        extras.need("no_such_package", "the demo")


def test_every_package_that_is_asked_for_is_in_its_extra():
    listed = [line for line in requires("mvl-auto") or [] if "extra == " in line]
    for package, extra in extras.EXTRAS.items():
        assert any(line.startswith(package) and f'"{extra}"' in line.replace("'", '"') for line in listed)
