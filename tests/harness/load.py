"""The load generator: clients that post as real ones do, and the ledger of what they were promised."""

from __future__ import annotations

import itertools
import json
import math
import random
import socket
import struct
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import httpx
import trio

from tests.harness.shapes import Event, run_events

RETRY_S = 0.05
ANSWER_TIMEOUT_S = 15.0
EventName = tuple[str, float]  # (run_id, timestamp): see shapes


@dataclass
class Ledger:
    """What was sent and what was promised. `accepted` holds what a 202 promised, each event once."""

    sent: set[EventName] = field(default_factory=set)
    accepted: set[EventName] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)  # by status, or by the error's name when none came
    retry_after_missing: int = 0  # 503 and 429 that did not say when to come back

    @property
    def unsettled(self) -> set[EventName]:
        """Sent, but never promised: stored or not, both are right."""
        return self.sent - self.accepted


async def drive(
    url: str,
    ledger: Ledger,
    *,
    clients: int = 4,
    runs: int | None = 50,
    seed: int = 0,
    agents: Sequence[str] = ("agent-a", "agent-b", "agent-c"),
    api_key: str | None = None,
    stop: trio.Event | None = None,
    give_up_s: float = 60.0,
    others: Sequence[str] = (),
    repeat_share: float = 0.0,
) -> Ledger:
    """`clients` at once send `runs` runs each (None: until `stop`) to the ingest address `url`.

    A batch is sent again, with the same body and Idempotency-Key, until it is answered by something else than 429 or
    5xx, or until `give_up_s` seconds after its first attempt. Where there are `others`, each attempt goes to the next
    address. `repeat_share` of the batches are sent once more after their 202, as if it had been lost on its way.
    """
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=ANSWER_TIMEOUT_S) as http:
        stop = trio.Event() if stop is None else stop
        sender = _Sender(http, [url, *others], ledger, agents, runs, stop, give_up_s, repeat_share)
        async with trio.open_nursery() as nursery:
            for number in range(clients):
                nursery.start_soon(sender.client, random.Random(f"{seed}/{number}"))
    return ledger


async def hang_up(url: str, ledger: Ledger, *, seed: int, stop: trio.Event) -> None:
    """Until `stop`, clients come to the ingest address `url` and leave too soon.

    Most leave in the middle of their body, in every way there is: nothing of that may be stored, so it isn't in the
    ledger. Some leave after its last byte, without their answer: that may be stored or not.
    """
    rng = random.Random(seed)
    host, _, port = url.removeprefix("http://").partition(":")
    while not stop.is_set():
        whole = rng.random() < 0.25
        events = run_events(rng, "agent-gone", time.time())
        body = json.dumps({"agent_id": "agent-gone", "events": events}).encode()
        sent = body if whole else body[: rng.randrange(len(body))]
        if whole:
            ledger.sent.update(_name(event) for event in events)
        with suppress(OSError, trio.BrokenResourceError):
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                await stream.send_all(_request(sent, None if rng.random() < 0.5 and not whole else len(body)))
                await trio.sleep(rng.choice((0.0, 0.01, 0.1)))
                if rng.random() < 0.5:  # lingering for 0 seconds makes the end a reset
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            ledger.answers["left"] += 1


def _request(body: bytes, length: int | None) -> bytes:
    """A request whose body has `length` bytes, or, with None, goes on in chunks, of which this is the first."""
    head = b"POST /v1/ingest HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    if length is None:
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + f"{len(body) + 1:x}\r\n".encode() + body
    return head + f"Content-Length: {length}\r\n\r\n".encode() + body


def _name(event: Event) -> EventName:
    return str(event["run_id"]), float(event["timestamp"])


@dataclass
class _Sender:
    """What the clients of one `drive` share."""

    http: httpx.AsyncClient
    urls: Sequence[str]
    ledger: Ledger
    agents: Sequence[str]
    runs: int | None
    stop: trio.Event
    give_up_s: float
    repeat_share: float

    async def client(self, rng: random.Random) -> None:
        left = math.inf if self.runs is None else self.runs
        while left > 0 and not self.stop.is_set():
            # A few runs side by side, in batches that cut through them, as an agent process with several tasks sends.
            together = int(min(rng.randint(1, 4), left))
            left -= together
            start = time.time() - rng.uniform(0.5, 3.0)
            events = [event for _ in range(together) for event in run_events(rng, rng.choice(self.agents), start)]
            events.sort(key=lambda event: float(event["timestamp"]))
            while events:
                size = rng.choice((3, 10, 40, 100))
                batch, events = events[:size], events[size:]
                await self.deliver(batch)

    async def deliver(self, batch: list[Event]) -> None:
        """One batch, until there is an answer that stands."""
        body = json.dumps({"agent_id": batch[0]["agent_id"], "events": batch}).encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        names = [_name(event) for event in batch]
        self.ledger.sent.update(names)
        deadline = trio.current_time() + self.give_up_s
        rng = random.Random(body)
        urls = itertools.cycle(rng.sample(self.urls, len(self.urls)))
        repeats = rng.random() < self.repeat_share
        while trio.current_time() < deadline:
            wait_s = RETRY_S
            try:
                answer = await self.http.post(f"{next(urls)}/v1/ingest", content=body, headers=headers)
            except httpx.TransportError as error:
                self.ledger.answers[type(error).__name__] += 1
            else:
                self.ledger.answers[str(answer.status_code)] += 1
                if answer.status_code == 202:
                    refused = {refusal["index"] for refusal in answer.json().get("rejected", ())}
                    self.ledger.accepted.update(name for index, name in enumerate(names) if index not in refused)
                    if not repeats:
                        return
                    repeats = False
                elif answer.status_code != 429 and answer.status_code < 500:
                    return
                wait_s = self._asked_wait_s(answer)
            await trio.sleep(wait_s)

    def _asked_wait_s(self, answer: httpx.Response) -> float:
        if answer.status_code in (429, 503) and "Retry-After" not in answer.headers:
            self.ledger.retry_after_missing += 1
        # A test can't wait as long as a patient client would.
        return min(float(answer.headers.get("Retry-After", RETRY_S)), 0.25)
