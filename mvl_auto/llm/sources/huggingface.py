"""A model of the Hugging Face hub, file by file: from huggingface_hub's cache, or by range requests.

The first answer names a commit, and all later requests ask for this commit, so that all bytes belong to one version.
Nothing is written to disk here.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

from huggingface_hub import get_token, hf_hub_url, try_to_load_from_cache
from huggingface_hub.constants import DEFAULT_REVISION, ENDPOINT, HF_HUB_DISABLE_IMPLICIT_TOKEN, REGEX_COMMIT_OID

from mvl_auto.llm.extracted import UNKNOWN_LICENCE, Extracted
from mvl_auto.llm.formats.gguf_layers import read_gguf_layers
from mvl_auto.llm.formats.random_access import MappedFile, RandomAccess
from mvl_auto.llm.formats.repository import read_licence
from mvl_auto.llm.formats.safetensors_layers import read_safetensors_layers
from mvl_auto.llm.layers import LayerRange
from mvl_auto.llm.sources.http_file import Host, HttpFile, open_http_file
from mvl_auto.llm.sources.syntax import HubSource

log = logging.getLogger(__name__)
ENDPOINT_VARIABLE = "HF_ENDPOINT"


def extract_from_hub(source: HubSource, layers: LayerRange) -> Extracted:
    """Read layers from the hub.

    Raises MvlError when the hub cannot be reached, or the model cannot be read.
    """
    repository = HubRepository(source.repo, source.revision)
    if source.file is None:
        return read_safetensors_layers(repository, layers)
    file = repository.open(source.file)
    if file is None:
        raise repository.host.not_found(f"the file {source.file}")
    extracted = read_gguf_layers(file, layers)
    licence = extracted.licence if extracted.licence != UNKNOWN_LICENCE else read_licence(repository)
    return replace(
        extracted,
        licence=licence or UNKNOWN_LICENCE,
        revision=repository.revision,
        bytes_read=repository.bytes_read,
    )


class HubRepository:
    """The files of a model of the hub; a Repository.

    revision: a branch, tag or commit; from the first answer on, the commit.
    """

    def __init__(self, repo: str, revision: str | None = None) -> None:
        self.repo, self.revision = repo, revision or DEFAULT_REVISION
        self.name = f"hf:{repo}"
        token = None if HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
        self.host = Host(repo, (os.environ.get(ENDPOINT_VARIABLE) or ENDPOINT).rstrip("/"), token)
        self._files: list[MappedFile | HttpFile] = []

    @property
    def bytes_read(self) -> int:
        return sum(file.bytes_read for file in self._files)

    def open(self, filename: str) -> RandomAccess | None:
        """None when the repository has no such file."""
        file = self._open_cached(filename) or self._open_remote(filename)
        if file is not None:
            self._files.append(file)
        return file

    def _open_cached(self, filename: str) -> MappedFile | None:
        path = try_to_load_from_cache(self.repo, filename, revision=self.revision)
        if not isinstance(path, str):
            return None
        log.debug("%s of %s: from huggingface_hub's cache", filename, self.repo)
        self._pin(Path(path).parents[len(Path(filename).parts) - 1].name)  # .../snapshots/COMMIT/filename
        return MappedFile(Path(path))

    def _open_remote(self, filename: str) -> HttpFile | None:
        url = hf_hub_url(self.repo, filename, revision=self.revision, endpoint=self.host.endpoint)
        file = open_http_file(self.host, filename, url)
        if file is not None and file.commit:
            self._pin(file.commit)
        return file

    def _pin(self, commit: str) -> None:
        if REGEX_COMMIT_OID.fullmatch(commit):
            self.revision = commit
