"""Packages that only some functions need: asked for by name, with the command that installs them."""

from __future__ import annotations

from importlib.util import find_spec

from mvl_auto.errors import MvlError

# package -> the extra of setup.py that has it
EXTRAS = {"nilearn": "demo", "matplotlib": "demo", "submitit": "slurm", "tensorboard": "tensorboard"}


def is_installed(package: str) -> bool:
    return find_spec(package) is not None


def need(package: str, what: str) -> None:
    """Raise MvlError unless a package of an extra is installed. what: what needs it, for the message: "The demo"."""
    if not is_installed(package):
        raise MvlError(
            f"{what} needs {package}, which is not installed",
            remedy=f"Run pip install 'mvl-auto[{EXTRAS[package]}]'.",
        )
