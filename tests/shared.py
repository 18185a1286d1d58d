"""Where the shared material lies: beside the checkout, or where DUNETRACE_SHARED says."""

from __future__ import annotations

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("DUNETRACE_SHARED", CHECKOUT.parent / "shared"))


def shared(path: str) -> Path:
    """The shared file at `path`, e.g. ``data/tau-airline.jsonl.gz``."""
    found = SHARED / path
    if not found.exists():
        raise FileNotFoundError(f"{found}: set DUNETRACE_SHARED to the directory that holds data/ and captures/")
    return found
