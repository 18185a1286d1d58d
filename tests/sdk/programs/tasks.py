"""A Celery application whose broker is a directory, DIRECTORY; run as a program it sends that many tasks."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from celery import Celery

from dunetrace import Dunetrace
from tests.sdk.programs.work import one_run

directory = Path(os.environ["DIRECTORY"])
app = Celery("tests.sdk.programs.tasks", broker="filesystem://")
for folder in ("data", "control"):
    (directory / folder).mkdir(exist_ok=True)
app.conf.broker_transport_options = {
    "data_folder_in": str(directory / "data"),
    "data_folder_out": str(directory / "data"),
    "control_folder": str(directory / "control"),
    "polling_interval": 0.02,  # seconds
}
dt = Dunetrace(flush_interval_ms=60_000)


@app.task(name="work")
def work() -> None:
    run_id = one_run(dt, "celery")
    with (directory / "done").open("a") as done:
        done.write(f"{run_id}\n")


if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        app.send_task("work")
