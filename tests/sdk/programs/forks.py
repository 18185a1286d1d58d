"""Forks again and again while other threads emit and the drain thread works. Arguments: endpoint, forks, outputs.

Every child does a run of its own, says something in the run that was open at its fork, and exits in order; it must not
hang on a lock its parent's threads held, and send nothing of theirs.
"""

from __future__ import annotations

import os
import sys
import threading

from dunetrace import Dunetrace
from tests.sdk.programs.work import one_run

endpoint, forks, as_json = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "json"
dt = Dunetrace(endpoint, flush_interval_ms=5, buffer_size=100_000, emit_as_json=as_json)
enough = threading.Event()


def busy() -> None:
    while not enough.is_set():
        one_run(dt, "parent")
        enough.wait(0.001)


threads = [threading.Thread(target=busy) for _ in range(3)]
for thread in threads:
    thread.start()
with dt.run("shared") as shared:
    for number in range(forks):
        shared.tool_called(f"before {number}")
        pid = os.fork()
        if pid == 0:
            shared.tool_called(f"in {number}")
            one_run(dt, "child")
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    enough.set()
    for thread in threads:
        thread.join()
assert dt.flush(30)
assert {name: counts["dropped"] for name, counts in dt.stats().items()} == dict.fromkeys(dt.stats(), 0)
