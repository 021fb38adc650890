"""The tables of docs/evidence.md, from the records of finished runs in docs/evidence/.

python scripts/evidence.py             writes them between their markers in docs/evidence.md
python scripts/evidence.py --check     exit code 1 when the page is not what the records say
python scripts/evidence.py --add DIR   first copies the records of a study (mvl_ablate -o DIR) to docs/evidence/
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mvl_auto.ablation.evidence import tables_of
from mvl_auto.ablation.record import RECORDS, read_records
from mvl_auto.ablation.tables import markdown
from mvl_auto.plans import write_document

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, EVIDENCE = DOCS / "evidence.md", DOCS / "evidence"
START, END = "<!-- tables: written by scripts/evidence.py -->\n", "<!-- end of the tables -->\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--add", type=Path, nargs="+", metavar="DIR", default=[])
    args = parser.parse_args()
    for study in args.add:
        for record in read_records(study / RECORDS):
            length = record.basis.length
            long = f"{length.steps}steps" if length.steps else f"{length.seconds:g}s"
            folder = EVIDENCE / f"{record.basis.dataset}-{record.basis.plan_hash[:8]}-{long}"
            folder.mkdir(parents=True, exist_ok=True)
            write_document(folder / f"{record.name}.json", record)
    text = PAGE.read_text(encoding="utf-8")
    new = with_tables(text)
    if args.check:
        return int(new != text)
    PAGE.write_text(new, encoding="utf-8")
    return 0


def with_tables(text: str) -> str:
    """The page with the tables that docs/evidence/ gives."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    records = [record for folder in sorted(EVIDENCE.iterdir()) if folder.is_dir() for record in read_records(folder)]
    return f"{before}{START}\n{markdown(tables_of(records), level=3)}\n{END}{after}"


if __name__ == "__main__":
    sys.exit(main())
