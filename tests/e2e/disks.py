"""A small file system of a test's own, that can be full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


class Disk:
    """Mounted at `path`. What `fill` takes, `make_room` gives back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    @property
    def free_bytes(self) -> int:
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self, left_bytes: int = 0) -> None:
        """Take all the room there is, but for `left_bytes`. Who uses the disk meanwhile may take some of it first."""
        with self._ballast.open("ab") as file:
            while (wanted := self.free_bytes - left_bytes) > 0:
                with suppress(OSError):
                    os.posix_fallocate(file.fileno(), 0, self._ballast.stat().st_size + wanted)

    def make_room(self) -> None:
        self._ballast.unlink()


@contextmanager
def small_disk(path: Path, size_bytes: int) -> Iterator[Disk]:
    """For the length of the block. Skips the test where this account may not mount."""
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=755", "tmpfs", str(path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("this account may not mount a file system")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
