"""Forks while its drain thread reads the body of an answer. Arguments: endpoint, a file that says that it does."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from dunetrace import Dunetrace
from tests.sdk.programs.work import one_run

dt = Dunetrace(sys.argv[1], flush_interval_ms=5)
one_run(dt, "parent")
while not Path(sys.argv[2]).exists():
    time.sleep(0.01)
time.sleep(0.05)  # for the drain thread to go from the head to the body
pid = os.fork()
if pid == 0:
    one_run(dt, "child")
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
