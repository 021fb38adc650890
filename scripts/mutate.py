"""Mutation testing: make small mistakes in a copy of the source, one at a time, and see whether a test notices.

    python scripts/mutate.py -o FOLDER --number 300 --seed 0     goes on where it was interrupted
    python scripts/mutate.py -o FOLDER --again                   what survived, once more, after tests were added
    python scripts/mutate.py -o FOLDER --planted                 the mistakes of scripts/mutation/planted.toml
    python scripts/mutate.py -o FOLDER --table                   the table of what is in FOLDER

FOLDER gets mutants.jsonl (a line per mutant), the figures of the tests' reach, and mutants.md (docs/testing.md has it).
Nothing is changed in the checkout.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from mutation.modules import GROUPS, Group, files_of
from mutation.operators import Mutant, mutants_of
from mutation.overlay import changed, enter, make_overlay, pytest_in_a_fork
from mutation.reached import Test, measure, tests_for
from mutation.results import KILLED, SURVIVED, read_equivalent, read_results, table, write_result

REPOSITORY = Path(__file__).resolve().parents[1]
PATIENCE = (20.0, 4.0)  # a mutant gets so many seconds, and so many times what its tests take


def main(words: Sequence[str] | None = None, repository: Path = REPOSITORY, groups: Sequence[Group] = GROUPS) -> int:
    given = arguments(words)
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if not given.table:
        with tempfile.TemporaryDirectory(prefix="mvl_mutate_") as place:
            overlay = make_overlay(repository, Path(place).resolve() / "copy")
            enter(overlay)
            if given.planted:
                return run_planted(overlay, folder, given.only)
            run_mutants(overlay, folder, [group for group in groups if given.only in group.name], given)
    text = table(read_results(folder).values(), read_equivalent())
    (folder / "mutants.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("-o", dest="folder", type=Path, required=True, help="where the results are, and go")
    parser.add_argument("--number", type=int, default=300, help="mutants in all, the same number for each group")
    parser.add_argument("--seed", type=int, default=0, help="which mutants are drawn")
    parser.add_argument("--seconds", type=float, default=10, help="of the tests of one mutant, the quickest of them")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="groups, or planted mistakes, with this in their name"
    )
    parser.add_argument("--again", action="store_true", help="those that survived, once more")
    parser.add_argument("--planted", action="store_true", help="the mistakes of scripts/mutation/planted.toml instead")
    parser.add_argument("--table", action="store_true", help="only the table of what was found before")
    return parser.parse_args(words)


def draw(group: Group, overlay: Path, number: int, seed: int) -> list[Mutant]:
    """So many of the group's mutants; the files are drawn with the share that their mutants have."""
    found = []
    for file in files_of(group.files, overlay):
        found += mutants_of(file, (overlay / file).read_text(encoding="utf-8"))
    return random.Random(f"{seed} {group.name}").sample(found, min(number, len(found)))


def run_mutants(overlay: Path, folder: Path, groups: Sequence[Group], given: argparse.Namespace) -> None:
    known = read_results(folder)
    each = -(-given.number // len(groups))
    for group in groups:
        mutants = draw(group, overlay, each, given.seed)
        if given.again:
            wanted = [m for m in mutants if known.get(m.key, {}).get("outcome") == SURVIVED]
        else:
            wanted = [m for m in mutants if m.key not in known]
        if not wanted:
            continue
        reach = folder / "reach"
        reach.mkdir(exist_ok=True)
        tests = measure(overlay, files_of(group.tests, overlay), reach)
        for mutant in wanted:
            result = {
                "key": mutant.key,
                "group": group.name,
                **asdict(mutant),
                **outcome(mutant, tests, overlay, folder, given.seconds),
            }
            write_result(folder, result)
            change = f"{' '.join(mutant.before.split())[:60]} -> {' '.join(mutant.after.split())[:60]}"
            print(
                f"{result['outcome']:9} {result['seconds']:5.1f} s  {mutant.file}:{mutant.line}  {change}", flush=True
            )


def outcome(mutant: Mutant, tests: Sequence[Test], overlay: Path, folder: Path, most_seconds: float) -> dict[str, Any]:
    """Whether the tests that reach the mutant's lines notice it: killed, or survived."""
    lines = range(mutant.line, mutant.last_line + 1)
    chosen = tests_for(tests, mutant.file, lines, most_seconds)
    file = overlay / mutant.file
    seconds = PATIENCE[0] + PATIENCE[1] * sum(test.seconds for test in chosen)
    with changed(file, mutant.applied(file.read_text(encoding="utf-8"))):
        code, spent = pytest_in_a_fork(["-x", *(test.name for test in chosen)], folder / "said.txt", seconds)
    return {
        "outcome": SURVIVED if code == 0 else KILLED,
        "code": code,
        "seconds": round(spent, 2),
        "tests": len(chosen),
    }


def run_planted(overlay: Path, folder: Path, only: str) -> int:
    """Each mistake of planted.toml: whether a test notices. The exit code is the number of those that none notices."""
    unnoticed, found = 0, {}
    for planted in tomllib.loads((Path(__file__).parent / "mutation" / "planted.toml").read_text(encoding="utf-8"))[
        "planted"
    ]:
        if only not in planted["name"]:
            continue
        file = overlay / planted["file"]
        text = file.read_text(encoding="utf-8")
        if text.count(planted["old"]) != 1:
            raise SystemExit(
                f"{planted['name']}: {planted['file']} has its text {text.count(planted['old'])} times, not once"
            )
        with changed(file, text.replace(planted["old"], planted["new"])):
            code, spent = pytest_in_a_fork(["-x", *planted["tests"]], folder / "said.txt", 300.0)
        said = (folder / "said.txt").read_text(encoding="utf-8", errors="replace")
        by = next((line.split(" - ")[0] for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))), "")
        noticed = code in (1, None)
        unnoticed += not noticed
        found[planted["name"]] = {"noticed": noticed, "code": code, "by": by}
        print(f"{'noticed' if noticed else 'NOT SEEN':9} {spent:5.1f} s  {planted['name']}  {by}", flush=True)
    (folder / "planted.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    return unnoticed


if __name__ == "__main__":
    sys.exit(main())
