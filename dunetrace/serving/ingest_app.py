"""The ingest door: what agents send, and the few other calls their clients make.

`actors/ingest.py` serves it on `engine.py`. It has no framework under it because every event comes this way. What it
was given to work with (`Promise`, `Gate`, hash key, clocks) it asks for in its constructor and nowhere else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from dunetrace.batches import Promise
from dunetrace.errors import QueueFullError, StoreUnavailableError
from dunetrace.events import MAX_NAME_CHARS
from dunetrace.serving.answers import OVERLOAD_HOLD_S, Answer, RefusedError, invalid, overloaded, store_away
from dunetrace.serving.auth import Gate, Principal, bearer
from dunetrace.serving.limits import BodyBudget, RateLimit
from dunetrace.serving.requests import Request
from dunetrace.serving.rows import Admitted, Receipt, admit
from dunetrace.serving.turns import Turns
from dunetrace.serving.wire import SentBatch, decode, required_text, tolerant_json

if TYPE_CHECKING:
    from dunetrace.hashing import Hasher

BODIES_IN_HAND_BYTES: Final = 128 << 20  # of all requests together, received and inflated
THREAD_BODY_BYTES: Final = 256 << 10  # about 5 ms of work: more would be felt by the other requests
# Of bodies between decoding and promise: those decoded on the loop, so that it comes round every few milliseconds, and
# those decoded in threads, of which a large one becomes several times its size in memory and so is decoded alone.
LOOP_BODIES_BYTES: Final = 256 << 10
THREAD_BODIES_BYTES: Final = 4 << 20
MAX_REQUESTS_IN_HAND: Final = 1_024  # the engine bounds connections only, and those are ten times as many
MAX_SMALL_BODY_BYTES: Final = 1 << 20  # of the calls that carry no events
MAX_KEY_HEADER_CHARS: Final = 255
PROMISE_TIMEOUT_S: Final = 10.0  # well below the engine's limit for a whole request
MAX_FAULTS_SHOWN: Final = 100
DETECTOR_CONFIG_TTL_S: Final = 60

_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}  # of a UUID: RFC 4122

T = TypeVar("T")
Health = Callable[[str], tuple[int, dict[str, Any]]]
# (customer_id, agent_id, version) → (id, deployed_at in Unix seconds)
MarkDeploy = Callable[[str, str, str], Awaitable[tuple[int, float]]]
Handler = Callable[[Request], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class IngestLimits:
    """The settings the door needs. `rate_limit_rpm` 0 is no limit."""

    max_body_bytes: int = 64 << 20
    max_events: int = 50_000
    rate_limit_rpm: int = 60_000


@dataclass(slots=True)
class Counters:
    """What went through since the start of this attempt."""

    accepted_events: int = 0
    rejected_events: int = 0
    dropped_keys: int = 0


class IngestApp:
    """See the module. What a request can be refused for ends in a JSON answer here."""

    def __init__(
        self,
        *,
        limits: IngestLimits,
        promise: Promise,
        gate: Gate,
        hasher: Callable[[], Hasher],
        mark_deploy: MarkDeploy,
        health: Health,
        clock: Callable[[], float] = time.time,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`hasher` raises StoreUnavailableError while the hash key is not known; `clock` is Unix seconds."""
        self.counters = Counters()
        self._limits, self._promise, self._gate, self._hasher = limits, promise, gate, hasher
        self._mark_deploy, self._health, self._clock, self._now_s = mark_deploy, health, clock, now_s
        self._bodies = BodyBudget(BODIES_IN_HAND_BYTES)
        self._rate = RateLimit(limits.rate_limit_rpm)
        self._threads = trio.CapacityLimiter(2)
        self._turns, self._thread_turns = Turns(LOOP_BODIES_BYTES), Turns(THREAD_BODIES_BYTES)
        self._in_hand = 0
        self._routes: Mapping[str, Mapping[str, Handler]] = {
            "/v1/ingest": {"POST": self._ingest},
            "/v1/deploy": {"POST": self._deploy},
            "/v1/policies": {"GET": self._policies},
            "/v1/detector-config": {"GET": self._detector_config},
            "/health": {"GET": self._get_health},
        }

    async def answer(self, request: Request) -> Answer:
        """The engine's entry. Raises what it doesn't expect: the engine answers that with 500."""
        answer = await self._answer(request)
        if answer.status == 503 and request.path != "/health":
            await trio.sleep(OVERLOAD_HOLD_S)
        return answer

    async def _answer(self, request: Request) -> Answer:
        self._in_hand += 1
        try:
            self._gate.check_origin(request.headers)
            return await self._route(request)(request)
        except RefusedError as refused:
            return refused.answer()
        except QueueFullError as full:
            return overloaded(str(full)).answer()
        except StoreUnavailableError:
            return store_away().answer()
        finally:
            self._in_hand -= 1

    def _route(self, request: Request) -> Handler:
        if self._in_hand > MAX_REQUESTS_IN_HAND:
            raise overloaded("Too many requests in hand; try again")
        if request.path.startswith(("/v1/orgs/", "/v1/approvals")):
            raise RefusedError(404, "Organisations and approvals are not offered by this server")
        methods = self._routes.get(request.path)
        if methods is None:
            raise RefusedError(404, "Not found")
        handler = methods.get(request.method)
        if handler is not None:
            return handler
        allowed = ", ".join(sorted({*methods, "OPTIONS", *(["HEAD"] if "GET" in methods else [])}))
        if request.method == "OPTIONS":
            return _options(allowed)
        if request.method == "HEAD" and "GET" in methods:
            return methods["GET"]
        raise RefusedError(405, f"Method not allowed; use {', '.join(methods)}", allow=allowed)

    async def _admit(self, request: Request, key: str) -> Principal:
        principal = await self._gate.admit(request.headers, scope="ingest", key=key)
        request.came_with(principal.key_hash)
        self._rate.take(principal.key_hash or principal.customer_id, self._now_s())
        return principal

    # -- POST /v1/ingest

    async def _ingest(self, request: Request) -> Answer:
        request.check_json()
        idempotency_key = _idempotency_key(request)
        principal = None
        if bearer(request.headers) or not self._gate.asks_for_key:
            principal = await self._admit(request, "")  # known before the body is read
        self._promise.check_room()
        with self._bodies.lease() as lease:
            body = await request.body(self._limits.max_body_bytes, lease)
            turns = self._turns if len(body) <= THREAD_BODY_BYTES else self._thread_turns
            await turns.take(request.flow, len(body))
            try:
                return await self._accept(request, body, principal, idempotency_key)
            finally:
                turns.give_back(len(body))

    async def _accept(
        self, request: Request, body: bytes, principal: Principal | None, idempotency_key: str | None
    ) -> Answer:
        batch = await self._work(len(body), decode, body, self._limits.max_events)
        principal = principal or await self._admit(request, batch.api_key)
        receipt = Receipt(new_batch_id(), idempotency_key, body, self._clock())
        admitted = await self._work(len(body), admit, batch, principal, self._hasher(), receipt)
        return await self._keep(request, batch, admitted, receipt)

    async def _work(self, size_bytes: int, work: Callable[..., T], *args: Any) -> T:
        """Run `work` here when the body is small, else in a thread."""
        if size_bytes <= THREAD_BODY_BYTES:
            return work(*args)
        return await trio.to_thread.run_sync(work, *args, limiter=self._threads)

    async def _keep(self, request: Request, batch: SentBatch, admitted: Admitted, receipt: Receipt) -> Answer:
        self.counters.rejected_events += len(batch.malformed) + len(admitted.foreign)
        if not admitted.events:
            if admitted.foreign:
                raise RefusedError(403, "This key may not write for any of these agents")
            raise RefusedError(422, [fault.detail for fault in batch.malformed[:MAX_FAULTS_SHOWN]])
        request.answer_within(PROMISE_TIMEOUT_S)
        await self._promise.keep(admitted.batch)
        self.counters.accepted_events += admitted.events
        self.counters.dropped_keys += admitted.dropped_keys
        answer: dict[str, Any] = {
            "accepted": admitted.events,
            "batch_id": receipt.batch_id,
            "queued_at": receipt.received_at,
        }
        rejected = [(fault.position, fault.error) for fault in batch.malformed]
        rejected += [(position, "agent_id: this key may not write for this agent") for position in admitted.foreign]
        if rejected:
            answer["rejected"] = [{"index": position, "error": error} for position, error in sorted(rejected)]
        return Answer(202, answer)

    # -- the other calls of published clients

    async def _deploy(self, request: Request) -> Answer:
        request.check_json()
        with self._bodies.lease() as lease:
            sent = tolerant_json(await request.body(MAX_SMALL_BODY_BYTES, lease))
        if not isinstance(sent, dict):
            raise invalid(["body"], "must be an object", "dict_type")
        offered = sent.get("api_key")
        principal = await self._admit(request, offered if isinstance(offered, str) else "")
        agent_id = required_text(sent, "agent_id", MAX_NAME_CHARS)
        version = required_text(sent, "version", MAX_NAME_CHARS)
        if not principal.may_write(agent_id):
            raise RefusedError(403, "This key may not write for this agent")
        mark_id, deployed_at = await self._mark_deploy(principal.customer_id, agent_id, version)
        return Answer(202, {"id": mark_id, "agent_id": agent_id, "version": version, "deployed_at": deployed_at})

    async def _policies(self, request: Request) -> Answer:
        await self._admit(request, request.query("api_key"))
        return Answer(200, {"policies": []})

    async def _detector_config(self, request: Request) -> Answer:
        await self._admit(request, request.query("api_key"))
        return Answer(
            200,
            {
                "schema_version": 1,
                "agent_id": request.query("agent_id"),
                "agent_version": request.query("agent_version"),
                "generated_at": self._clock(),
                "ttl_s": DETECTOR_CONFIG_TTL_S,
                "detectors": {},
                "packs": [],
                "baselines": None,
            },
        )

    async def _get_health(self, _request: Request) -> Answer:
        status, body = self._health("ingest")
        return Answer(status, body)


def new_batch_id() -> str:
    """A UUID4 as text, made in half the time it takes `uuid`."""
    text = os.urandom(16).hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:]}"


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key", "").strip()
    if len(key) > MAX_KEY_HEADER_CHARS:
        raise invalid(
            ["header", "Idempotency-Key"], f"must be at most {MAX_KEY_HEADER_CHARS} characters", "string_too_long"
        )
    return key or None


def _options(allowed: str) -> Handler:
    async def answer(_request: Request) -> Answer:
        await trio.lowlevel.checkpoint()
        return Answer(200, {"allow": allowed.split(", ")}, {"Allow": allowed})

    return answer
