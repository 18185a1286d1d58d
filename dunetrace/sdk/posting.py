"""HTTP: batches of events, and deploy marks, to a Dunetrace server. Called by its shipper's drain thread only.

One kept connection, no proxies, no redirects, certificates verified. An answer that will not change by itself is told
to a person once, with its remedy; every other trouble is tried again by the shipper, with the same bytes under the
same Idempotency-Key, so that a batch whose answer was lost counts once.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from dunetrace.sdk import lifecycle
from dunetrace.sdk.outputs import Outcome, Parcel, Verdict, payload, written
from dunetrace.sdk.ring import Taken

if TYPE_CHECKING:
    import http.client

INGEST_PATH, DEPLOY_PATH = "/v1/ingest", "/v1/deploy"
_LARGEST_ANSWER_BYTES = 1024 * 1024
_LONGEST_RETRY_AFTER_S = 300.0

_REMEDIES = {
    400: "the server did not understand the batch; check that DUNETRACE_ENDPOINT is a Dunetrace ingest server",
    401: "the API key is unknown or inactive; set DUNETRACE_API_KEY or api_key= to one from `dunetrace keys create`",
    403: "the API key may not write for this agent; use a key made for this agent or for all ('*')",
    404: "there is no ingest API there; set DUNETRACE_ENDPOINT or endpoint= to the server, by default on port 8001",
    422: "the server found the whole batch malformed; client and server versions do not fit together, update the older",
}


class _Address(NamedTuple):
    secure: bool
    host: str
    port: int | None
    prefix: str


class HttpOutput:
    """Posts to `endpoint`. Never raises; every outcome is told by its `Outcome`."""

    name = "http"
    batch_size = 100
    largest_batch = 500
    slow_modules: tuple[str, ...] = ("http.client", "urllib.parse", "encodings.idna")

    def __init__(self, endpoint: str, api_key: str | None, version: str) -> None:
        self._endpoint = endpoint
        self._api_key = api_key
        self._user_agent = f"dunetrace-python/{version}"
        self._connection: http.client.HTTPConnection | None = None

    def pack(self, taken: list[Taken], lost: int) -> tuple[Parcel, list[Taken]]:
        """One request's body, in the first event's agent's name."""
        lines, good, bad = written(taken, _wire)
        agent_id = taken[0].record.key.agent_id
        head = {"agent_id": agent_id} | ({"dropped_events": lost} if lost else {})
        body = f'{json.dumps(head)[:-1]},"events":[{",".join(lines)}]}}'.encode()
        return Parcel(body, good, agent_id, os.urandom(16).hex(), INGEST_PATH, lost), bad

    def deploy(self, agent_id: str, version: str) -> Parcel:
        """The mark of a new version, a parcel without events."""
        body = json.dumps({"agent_id": agent_id, "version": version}).encode()
        return Parcel(body, [], agent_id, os.urandom(16).hex(), DEPLOY_PATH)

    def attempt(self, parcel: Parcel, timeout_s: float) -> Outcome:
        """Send once. A kept connection that was closed meanwhile is opened anew, once."""
        if parcel.path == INGEST_PATH and not parcel.taken:
            return Outcome(Verdict.DONE)
        was_kept = self._connection is not None
        try:
            try:
                return self._exchange(parcel, timeout_s)
            except ConnectionError:
                self.reset()
                if not was_kept:
                    raise
                return self._exchange(parcel, timeout_s)
        except OSError as error:  # refused, reset, timed out, a bad certificate: all may pass
            self.reset()
            self._mention(error)
            somebody = isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError)
            return Outcome(Verdict.AGAIN, answered=somebody)
        except ValueError as error:
            self.reset()
            lifecycle.warn_once(
                "endpoint",
                f"nothing can be sent to the endpoint that is set ({type(error).__name__}); set DUNETRACE_ENDPOINT or "
                "endpoint= to an address such as http://localhost:8001, and check the API key for stray characters",
            )
            return Outcome(Verdict.REFUSED)
        except Exception as error:  # what answered does not speak HTTP
            self.reset()
            self._mention(error)
            return Outcome(Verdict.AGAIN)

    def reset(self) -> None:
        """Close the connection; a forked child closes its copy, the parent's stays open.

        The descriptor only: the buffer over it may be locked, in a child, by a thread the child has not got.
        """
        connection, self._connection = self._connection, None
        sock = None if connection is None else connection.sock
        if sock is not None:
            with suppress(OSError):
                os.close(sock.detach())

    def _mention(self, error: Exception) -> None:
        lifecycle.debug(f"the server could not be reached: {type(error).__name__}", once=f"unreached {type(error)}")
        if type(error).__name__ == "SSLCertVerificationError":
            lifecycle.warn_once(
                "certificate",
                "the endpoint's certificate cannot be verified, events wait; set SSL_CERT_FILE to the file of the "
                "authority that signed it, and use the host name it was made for",
            )
        elif getattr(error, "reason", None) == "WRONG_VERSION_NUMBER":
            lifecycle.warn_once(
                "no TLS", "the endpoint does not speak TLS, events wait; set DUNETRACE_ENDPOINT to an http:// address"
            )

    def _exchange(self, parcel: Parcel, timeout_s: float) -> Outcome:
        import http.client  # noqa: PLC0415 - on the drain thread, at the first batch: it is half of the import time

        address = _address(self._endpoint)
        if self._connection is None:
            kind = http.client.HTTPSConnection if address.secure else http.client.HTTPConnection
            self._connection = kind(address.host, address.port, timeout=timeout_s)
        if self._connection.sock is not None:
            self._connection.sock.settimeout(timeout_s)
        self._connection.timeout = timeout_s
        self._connection.request("POST", address.prefix + parcel.path, parcel.body, self._headers(parcel))
        response = self._connection.getresponse()
        answer = response.read(_LARGEST_ANSWER_BYTES)
        if response.will_close or not response.isclosed():
            self.reset()
        return _outcome(response.status, response.headers.get("Retry-After"), answer)

    def _headers(self, parcel: Parcel) -> dict[str, str]:
        from urllib.parse import quote  # noqa: PLC0415 - as above

        headers = {
            "Content-Type": "application/json",
            "User-Agent": self._user_agent,
            "X-Dunetrace-Agent": quote(parcel.agent_id, safe=" !#$&'()*+,/:;=?@[]", errors="replace"),
            "Idempotency-Key": parcel.key,
        }
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        return headers


def _outcome(status: int, retry_after: str | None, answer: bytes) -> Outcome:
    if 200 <= status < 300:
        return Outcome(Verdict.DONE, rejected=_rejected(answer))
    if status >= 500 or status in {408, 425, 429}:
        return Outcome(Verdict.AGAIN, retry_after_s=_retry_after_s(retry_after))
    if status == 413:
        return Outcome(Verdict.TOO_LARGE)
    told = _REMEDIES.get(status, "set DUNETRACE_ENDPOINT or endpoint= to the server's own address")
    lifecycle.warn_once(f"status {status}", f"events are lost, the server answered {status}: {told}")
    return Outcome(Verdict.REFUSED)


def _rejected(answer: bytes) -> int:
    try:
        rejected = json.loads(answer).get("rejected", ())
    except (ValueError, AttributeError, RecursionError):
        return 0
    return len(rejected) if isinstance(rejected, list) else 0


def _retry_after_s(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        wait_s = float(value)
    except ValueError:
        wait_s = _until_s(value)
    return min(wait_s, _LONGEST_RETRY_AFTER_S) if wait_s > 0 else None


def _until_s(date: str) -> float:
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - servers rarely answer with a date

    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except ValueError:
        return 0.0


def _address(endpoint: str) -> _Address:
    """Where to connect. ValueError when this is no http or https address."""
    from urllib.parse import urlsplit  # noqa: PLC0415 - as above

    parts = urlsplit(endpoint)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not endpoint.isprintable() or " " in endpoint:
        raise ValueError("not an http address")
    prefix = parts.path.rstrip("/").removesuffix(INGEST_PATH)
    return _Address(parts.scheme == "https", parts.hostname, parts.port, prefix)


def _wire(one: Taken) -> dict[str, Any]:
    record = one.record
    return {
        "event_type": record.event_type,
        "run_id": record.key.run_id,
        "agent_id": record.key.agent_id,
        "agent_version": record.key.agent_version,
        "step_index": record.step_index,
        "timestamp": record.timestamp,
        "payload": payload(one),
        "parent_run_id": record.key.parent_run_id,
        "event_id": f"{lifecycle.process.token}-{record.number}",
    }
