"""The processor that a figure was measured on."""

from __future__ import annotations

from pathlib import Path


def cpu() -> str:
    """The processor's name, and which vectors and which bfloat16 it multiplies."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split("\t", 1) for line in lines if "\t" in line)
    name = fields.get("model name", "unknown CPU").strip("\t: ")
    flags = fields.get("flags", "").split()
    names = [each for each in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if each in flags]
    return f"{name} ({', '.join(names) or 'no AVX2'})"
