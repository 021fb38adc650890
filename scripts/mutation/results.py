"""What became of the mutants: one JSON line each, and the table of them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

KILLED, SURVIVED, EQUIVALENT = "killed", "survived", "equivalent"
HERE = Path(__file__).parent


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """By the mutant's key; of several lines of one mutant the last."""
    file = folder / "mutants.jsonl"
    if not file.exists():
        return {}
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return {line["key"]: line for line in lines}


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    with open(folder / "mutants.jsonl", "a", encoding="utf-8") as stream:
        stream.write(json.dumps(result) + "\n")


def read_equivalent(file: Path = HERE / "equivalent.toml") -> list[dict[str, str]]:
    """Mutants that no test can notice, each with its reason: file, line (its text), before, after, reason."""
    return tomllib.loads(file.read_text(encoding="utf-8")).get("equivalent", []) if file.exists() else []


def reason_of(result: Mapping[str, Any], equivalent: Iterable[Mapping[str, str]]) -> str | None:
    for known in equivalent:
        if (known["file"], known["after"]) == (result["file"], result["after"]) and known["line"] == result[
            "source_line"
        ]:
            return known["reason"]
    return None


def table(results: Iterable[Mapping[str, Any]], equivalent: Sequence[Mapping[str, str]]) -> str:
    """Markdown: a row per module, then what survived, each with where it is."""
    rows: dict[str, dict[str, int]] = {}
    alive, same = [], []
    for result in results:
        row = rows.setdefault(result["group"], {"mutants": 0, KILLED: 0, SURVIVED: 0, EQUIVALENT: 0})
        reason = reason_of(result, equivalent) if result["outcome"] == SURVIVED else None
        row["mutants"] += 1
        row[EQUIVALENT if reason else result["outcome"]] += 1
        if result["outcome"] == SURVIVED:
            place = f"`{result['file']}:{result['line']}` {result['operator']}"
            change = f"{place}: {_code(result['before'])} → {_code(result['after'])}"
            (same if reason else alive).append(f"- {change}" + (f": {reason}" if reason else ""))
    total = {name: sum(row[name] for row in rows.values()) for name in ("mutants", KILLED, SURVIVED, EQUIVALENT)}
    text = "| modules | mutants | killed | survived | equivalent |\n|---|---:|---:|---:|---:|\n"
    for name, row in [*sorted(rows.items()), ("all", total)]:
        text += f"| {name} | {row['mutants']} | {row[KILLED]} | {row[SURVIVED]} | {row[EQUIVALENT]} |\n"
    for title, lines in (("Survived", alive), ("Equivalent", same)):
        if lines:
            text += f"\n{title}:\n\n" + "\n".join(sorted(lines)) + "\n"
    return text


def _code(text: str) -> str:
    short = " ".join(text.split())
    return f"`{short if len(short) <= 70 else short[:67] + '...'}`"
