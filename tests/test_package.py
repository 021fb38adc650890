"""The package as it is installed: extras, metadata, documents."""

from __future__ import annotations

import re
import runpy
from importlib.metadata import metadata, requires
from pathlib import Path
from typing import Any

import pytest
import setuptools

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


@pytest.fixture
def setup_script(monkeypatch) -> dict[str, Any]:
    """The names of setup.py, with what it gives to setuptools under `given`."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **words: given.update(words))
    return runpy.run_path(str(REPOSITORY / "setup.py")) | {"given": given}


README = """\
![A picture (old)](docs/demo.png)

[![A badge](docs/badge.svg)](docs/report.md#curves) and ![one elsewhere](https://example.org/a.png)

See [the guide](docs/dataset.md), [a part](#below), [a site](https://example.org/a_(b)).
"""


def test_links_of_the_readme_are_absolute_where_the_repository_is_public(setup_script):
    text = setup_script["index_readme"](README, "https://host/repo")
    assert "![A picture (old)](https://host/repo/raw/main/docs/demo.png)" in text
    assert (
        "[![A badge](https://host/repo/raw/main/docs/badge.svg)](https://host/repo/blob/main/docs/report.md#curves)"
        in text
    )
    assert "![one elsewhere](https://example.org/a.png)" in text
    assert (
        "[the guide](https://host/repo/blob/main/docs/dataset.md), [a part](#below), [a site](https://example.org/a_(b))"
        in text
    )
    own = setup_script["index_readme"]((REPOSITORY / "README.md").read_text(encoding="utf-8"), "https://host/repo")
    for kind, path in re.findall(r"\]\(https://host/repo/(raw|blob)/main/([^)#]+)", own):
        assert (REPOSITORY / path).exists()
        assert kind == ("raw" if path.endswith(".png") else "blob")
    assert not re.findall(r"\]\((?!https?://|#)", own)


def test_links_of_the_readme_become_words_where_it_is_not(setup_script):
    text = setup_script["index_readme"](README, "")
    assert "docs/" not in text
    assert "See the guide, [a part](#below), [a site](https://example.org/a_(b))" in text
    assert "![one elsewhere](https://example.org/a.png)" in text


def test_the_index_is_told_where_the_project_is(setup_script):
    assert setup_script["project_urls"]("") == {}
    urls = setup_script["project_urls"]("https://host/repo")
    assert urls["Source"] == "https://host/repo"
    for name in ("Documentation", "Changelog"):
        assert (REPOSITORY / urls[name].split("/main/")[1]).exists()
    assert setup_script["given"]["url"] == (setup_script["REPOSITORY"] or None)


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
