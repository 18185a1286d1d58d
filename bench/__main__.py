"""``python -m bench`` (`make bench`): what Dunetrace costs on this machine, beside what was asked of it.

Without a part: ``ingest``, whose table can be written into docs/performance.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from bench.ingest import ROWS, Row, cores, measure

BUSY_LOAD = 0.5  # a bench is alone on its machine, or it measures the others too
BEGIN, END = "<!-- the table of `make bench` -->", "<!-- its end -->"


def ingest(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench ingest", description="How much the ingest door takes.")
    parser.add_argument("--rows", default=",".join(ROWS), help="which, with commas between (%(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each short row (%(default)s)")
    parser.add_argument("--sustained", type=float, default=60.0, help="for the long ones (%(default)s)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the table of this page")
    given = parser.parse_args(arguments)
    rows = given.rows.split(",")
    if unknown := set(rows) - set(ROWS):
        parser.error(f"no such rows: {', '.join(sorted(unknown))}")
    lines = [
        f"On {cores()} cores that client, server and Postgres share.",
        "",
        "| what | asked | seen |",
        "|---|---|---|",
    ]
    if (load := os.getloadavg()[0]) > BUSY_LOAD:
        print(f"The machine is busy (load {load:.1f} before the start): all figures will be too low.", file=sys.stderr)
    print("\n".join(lines), flush=True)
    for row in measure(rows, given.seconds, given.sustained):
        lines.append(_line(row))
        print(lines[-1], flush=True)
    if given.write:
        before, _, rest = given.write.read_text("utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        given.write.write_text("\n".join([f"{before}{BEGIN}", "", *lines, "", f"{END}{after}"]), "utf-8")


def _line(row: Row) -> str:
    return f"| {row.what} | {row.asked} | {row.seen} |"


def main() -> None:
    ingest(sys.argv[2:] if sys.argv[1:2] == ["ingest"] else sys.argv[1:])


if __name__ == "__main__":
    main()
