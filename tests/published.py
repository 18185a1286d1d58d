"""The published clients, each in an environment of its own, to be run and never read.

They are installed once into `.cache/clients/` of the checkout, which is not part of the project.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.shared import CHECKOUT

CLIENTS = CHECKOUT / ".cache" / "clients"
INSTALL_TIMEOUT_S = 300


def python_of(version: str, package: str = "dunetrace") -> Path:
    """The interpreter of an environment that holds nothing but the published client of this version."""
    environment = CLIENTS / (version if package == "dunetrace" else f"{package}-{version}")
    python = environment / "bin" / "python"
    done = environment / "installed"
    if not done.exists():
        subprocess.run(
            [sys.executable, "-m", "venv", "--clear", str(environment)], check=True, timeout=INSTALL_TIMEOUT_S
        )
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{package}=={version}"],
            check=True, capture_output=True, timeout=INSTALL_TIMEOUT_S,
        )  # fmt: skip
        done.touch()
    return python
