from __future__ import annotations

import subprocess
import sys

from dunetrace.detectors.docs import page
from dunetrace.detectors.registry import DETECTORS
from tests.shared import CHECKOUT


def test_the_page_is_current() -> None:
    assert (CHECKOUT / "docs" / "detectors.md").read_text(encoding="utf-8") == page()


def test_the_command_writes_the_page() -> None:
    written = subprocess.run([sys.executable, "-m", "dunetrace.detectors.docs"], capture_output=True, check=True)
    assert written.stdout.decode() == page()


def test_every_detector_has_its_section() -> None:
    for detector in DETECTORS:
        assert f"\n## {detector.failure_type}\n" in page()
