"""Sources of blocks: the Hugging Face hub, the package index, a file, random numbers."""

from mvl_auto.llm.sources.syntax import FileSource, HubSource, PypiSource, RandomSource, Source, parse_source

__all__ = ["FileSource", "HubSource", "PypiSource", "RandomSource", "Source", "parse_source"]
