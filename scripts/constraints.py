"""Write constraints.txt: the versions installed here of everything that `mvl-auto[test]` needs, and of nothing else.

python scripts/constraints.py          # in an environment whose test suite has just passed
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

PACKAGE, EXTRAS = "mvl-auto", ("test", "lora", "dask", "demo", "dicom", "slurm", "tensorboard")
TARGET = Path(__file__).parents[1] / "constraints.txt"
HEADER = """\
# One tested set of versions: pip install -e ".[test]" -c constraints.txt
# Written by scripts/constraints.py; a local version (torch's +cpu) is left out, any build of the same version will do.
"""


def main() -> None:
    found: dict[str, str] = {}
    collect(Requirement(f"{PACKAGE}[{','.join(EXTRAS)}]"), found)
    del found[PACKAGE]
    pins = [f"{name}=={number.split('+')[0]}" for name, number in sorted(found.items())]
    TARGET.write_text(HEADER + "\n".join(pins) + "\n", encoding="utf-8")


def collect(requirement: Requirement, found: dict[str, str]) -> None:
    """Add a requirement's installed version and those of all that it needs in turn to `found`."""
    name = re.sub(r"[-_.]+", "-", requirement.name).lower()
    try:
        number = version(name)
    except PackageNotFoundError:
        return  # for another platform
    if name in found and not requirement.extras:
        return
    found[name] = number
    for needed in needs(name, requirement.extras):
        collect(needed, found)


def needs(name: str, extras: set[str]) -> Iterator[Requirement]:
    for line in requires(name) or []:
        requirement = Requirement(line)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in ["", *extras]):
            yield requirement


if __name__ == "__main__":
    main()
