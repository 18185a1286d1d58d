"""What processes cost, read from /proc: the benches look at the server and its Postgres from outside."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int, *, children: bool = False) -> float:
    """Processor time of a process; with `children`, of the children it has waited for instead. 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    first = 13 if children else 11
    return (int(fields[first]) + int(fields[first + 1])) / _TICKS


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def memory_mib(*pids: int) -> float:
    """Memory of processes together, what they share counted once. 0 for those that are gone."""
    total = 0
    for pid in pids:
        try:
            rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(row.split()[1]) for row in rows if row.startswith("Pss:"))
    return total / 1024


def written_bytes(pid: int) -> int:
    """What a process has had written to disks so far. Sockets do not count."""
    rows = dict(row.split(": ") for row in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(rows["write_bytes"])


@dataclass
class Memory:
    """One entry a second."""

    server_mib: list[float] = field(default_factory=list)
    postgres_mib: list[float] = field(default_factory=list)


@contextmanager
def memory_watched(memory: Memory, server: int, postmaster: int) -> Iterator[None]:
    """Looks each second of the block, and at its begin and end."""
    over = threading.Event()

    def look() -> None:
        memory.server_mib.append(memory_mib(server))
        memory.postgres_mib.append(memory_mib(postmaster, *children_of(postmaster)))

    def watch() -> None:
        while not over.wait(1):
            look()

    look()
    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()
        look()
