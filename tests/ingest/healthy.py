"""``python -m tests.ingest.healthy PORT``: a well-behaved client in a process of its own.

Posts one event after the other on one connection until its stdin ends, then prints how long each answer took and how
often it was which. `test_attacks.py` runs it beside every attack.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import sys
import time
from collections import Counter

from tests.ingest.door_server import event

PAUSE_S = 0.005
EVENTS_A_RUN = 20


def main() -> None:
    client = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=20)
    statuses: Counter[int] = Counter()
    waits_ms = []
    while not select.select([sys.stdin], [], [], PAUSE_S)[0]:
        sent = event(timestamp=time.time(), run_id=f"run-{len(waits_ms) // EVENTS_A_RUN}-{os.getpid()}")
        body = json.dumps({"agent_id": "agent", "events": [sent]})
        began_s = time.perf_counter()
        client.request("POST", "/v1/ingest", body, {"Content-Type": "application/json"})
        answer = client.getresponse()
        answer.read()
        waits_ms.append((time.perf_counter() - began_s) * 1000)
        statuses[answer.status] += 1
        if len(waits_ms) == 1:
            print("answered", flush=True)
    print(json.dumps({"statuses": statuses, "waits_ms": waits_ms}))


if __name__ == "__main__":
    main()
