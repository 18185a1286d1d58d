"""A destination's actor against a real Postgres and a receiver in every mood: nothing lost, nothing spent in vain."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from standardwebhooks import Webhook
from structlog.testing import capture_logs

from dunetrace import deliveries as deliveries_module
from dunetrace.actors import destination as destination_module
from dunetrace.actors import hand as hand_module
from dunetrace.actors.delivering import LEASE_S
from dunetrace.actors.destination import DestinationActor
from dunetrace.alerts import Destination
from dunetrace.alerts import post as post_module
from dunetrace.deliveries import LIFETIME_S, Outcome, State, Verdict, after, outcome_of
from dunetrace.errors import StoreUnavailableError
from dunetrace.store.gateway import Gateway, open_gateway
from dunetrace.store.writes import deliveries as writes
from dunetrace.store.writes.deliveries import Claim, Settled
from tests import slack as slack_server
from tests.alerts.ground import SECRET, Ground, courier, dispatcher_for, ground_on, slack, webhook
from tests.receiver import Mode, Received, Receiver

HOUR_S = 3600.0


async def _owe(ground: Ground, *run_ids: str) -> None:
    """Deliveries to the webhook, oldest first."""
    dispatcher = dispatcher_for(webhook("http://127.0.0.1:1/"))
    for run_id in run_ids:
        await ground.add_signal(run_id)
        await dispatcher.run_once(ground.ctx)


def _told(receiver: Receiver) -> list[str]:
    return [request.document["run_id"] for request in receiver.requests]


async def test_a_delivery_done(ground: Ground, receiver: Receiver) -> None:
    await _owe(ground, "run")
    async with courier(ground, webhook(receiver.url)) as actor:
        assert (await actor.turn()).state is State.DONE
        assert await actor.turn() == (None, None, None)  # nothing more, and nothing to wait for
    row = await ground.delivery()
    assert (row["state"], row["attempt"], row["last_status"], row["last_error"]) == ("done", 1, 200, None)
    assert row["done_at"] is not None and row["lease_until"] is None
    (signal,) = await ground.rows("SELECT alerted, extract(epoch FROM detected_at)::float8 AS at FROM failure_signals")
    assert signal["alerted"] is True
    (request,) = receiver.requests
    document = Webhook(SECRET.encode()).verify(request.body, request.headers)
    assert document["delivery_id"] == request.headers["webhook-id"] == str(row["id"])
    assert document["detected_at"] == signal["at"]
    assert document["confidence"] == 0.95
    assert document["rate_context"] == {"total_runs": 1, "affected_runs": 1, "rate": 1.0, "is_systemic": False}
    assert 0 <= request.arrived_at - document["sent_at"] < 5


def _webhook_takes(request: Received) -> None:
    document = Webhook(SECRET.encode()).verify(request.body, request.headers)
    assert document["delivery_id"] == request.headers["webhook-id"]


def _slack_takes(request: Received) -> None:
    slack_server.assert_only_says_what_it_says(slack_server.accept(request.body))


@pytest.mark.parametrize("take", [webhook, slack])
@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (Mode.OK, ("done", 200, None, 1)),
        (Mode.SLOW, ("done", 200, None, 1)),
        (Mode.HUGE_BODY, ("done", 200, None, 1)),
        (Mode.STUCK_BODY, ("done", 200, None, 1)),
        (Mode.BROKEN_BODY, ("done", 200, None, 1)),
        (Mode.BAD_REQUEST, ("refused", 400, None, 1)),
        (Mode.FORBIDDEN, ("refused", 403, None, 1)),
        (Mode.NOT_FOUND, ("refused", 404, None, 1)),
        (Mode.GONE, ("refused", 410, None, 1)),
        (Mode.REDIRECT, ("refused", 302, None, 1)),
        (Mode.ERROR, ("pending", 500, None, 3)),
        (Mode.TIMEOUT, ("pending", 408, None, 3)),
        (Mode.RATE_LIMITED, ("pending", 429, None, 3)),
        (Mode.UNAVAILABLE, ("pending", 503, None, 3)),
        (Mode.RESET, ("pending", None, "ReadError", 3)),
        (Mode.CUT, ("pending", None, "RemoteProtocolError", 3)),
        (Mode.GARBAGE, ("pending", None, "RemoteProtocolError", 3)),
        (Mode.HANG, ("pending", None, "TooSlowError", 3)),
        (Mode.TRICKLE, ("pending", None, "TooSlowError", 3)),
    ],
)
async def test_every_mood(
    ground: Ground,
    monkeypatch: pytest.MonkeyPatch,
    mode: Mode,
    expected: tuple[str, int | None, str | None, int],
    take: Callable[[str], Destination],
) -> None:
    state, status, error, attempts = expected
    if error == "TooSlowError":
        monkeypatch.setattr(post_module, "ATTEMPT_TIMEOUT_S", 0.2)
    with Receiver(slack=take is slack) as receiver:
        receiver.mode, receiver.slow_s = mode, 0.05
        destination = take(receiver.url)
        dispatcher = dispatcher_for(destination)
        await ground.add_signal("run")
        await dispatcher.run_once(ground.ctx)
        async with courier(ground, destination) as actor:
            assert len(await actor.until_idle()) == attempts
    row = await ground.delivery()
    assert (row["state"], row["last_status"], row["last_error"]) == (state, status, error)
    assert (row["round"], row["attempt"]) == ((1, 0) if state == "pending" else (0, 1))
    assert await ground.circuit_is_open() == (state == "pending")
    signals = await ground.rows("SELECT alerted FROM failure_signals")
    assert signals == [{"alerted": state == "done"}]
    assert len(receiver.requests) == attempts
    for request in receiver.requests:
        (_slack_takes if take is slack else _webhook_takes)(request)
    assert len({request.headers.get("webhook-id") for request in receiver.requests}) == 1


async def test_a_failed_round_makes_the_others_wait_and_a_probe_releases_them(
    ground: Ground, receiver: Receiver
) -> None:
    receiver.mode = Mode.ERROR
    await _owe(ground, "a", "b", "c", "d")
    async with courier(ground, webhook(receiver.url)) as actor:
        await actor.until_idle()
        assert _told(receiver) == ["a", "a", "a"]
        await ground.advance(59.0)
        assert (await actor.turn()).delivery_id is None
        await ground.advance(1.0)
        await actor.until_idle()
        assert _told(receiver)[3:] == ["b", "b", "b"]
        spent = {row["run_id"]: (row["round"], row["attempt"]) for row in await ground.deliveries()}
        assert spent == {"a": (1, 0), "b": (1, 0), "c": (0, 0), "d": (0, 0)}
        await ground.advance(299.0)
        assert (await actor.turn()).delivery_id is None
        await ground.advance(1.0)
        receiver.mode = Mode.OK
        with capture_logs() as logs:
            assert len(await actor.until_idle()) == 4
        assert [line["event"] for line in logs][:2] == ["delivery.done", "destination.circuit_closed"]
    assert _told(receiver)[6:] == ["c", "a", "b", "d"]  # the probe, then all that waited, oldest first
    assert {row["state"] for row in await ground.deliveries()} == {"done"}
    assert not await ground.circuit_is_open()


async def test_one_probe_at_a_time_whoever_asks(ground: Ground, receiver: Receiver) -> None:
    receiver.mode = Mode.ERROR
    await _owe(ground, *"abcdef")
    destination = webhook(receiver.url)
    async with courier(ground, destination) as first, courier(ground, destination) as second:
        await first.until_idle()
        await ground.advance(60.0)
        receiver.mode, receiver.slow_s = Mode.SLOW, 0.3
        seen = len(receiver.requests)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.turn)
            await trio.to_thread.run_sync(receiver.wait_for, seen + 1)
            for actor in (first, second) * 3:
                assert (await actor.turn()).delivery_id is None
        assert len(receiver.requests) == seen + 1
        assert not await ground.circuit_is_open()


async def test_attempts_in_hand_when_the_circuit_opens_do_not_make_it_worse(ground: Ground, receiver: Receiver) -> None:
    receiver.mode = Mode.ERROR
    await _owe(ground, *"abcdef")
    async with courier(ground, webhook(receiver.url)) as actor:
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                for _ in range(destination_module.FEW):
                    nursery.start_soon(actor.turn)
            await ground.advance(0.99)
    (circuit,) = await ground.rows("SELECT failed_rounds FROM destinations")
    assert circuit["failed_rounds"] == 1
    assert [row["round"] for row in await ground.deliveries()][4:] == [0, 0]


async def test_one_that_cannot_be_digested_holds_the_others_up_for_a_minute_only(
    ground: Ground, receiver: Receiver
) -> None:
    receiver.choose = lambda body: Mode.ERROR if b'"poison"' in body else None
    await _owe(ground, "poison", "a")
    async with courier(ground, webhook(receiver.url)) as actor:
        for n in range(30):
            await ground.advance(60.0)
            await actor.until_idle()
            await _owe(ground, f"later {n}")
        await ground.advance(60.0)
        await actor.until_idle()
    rows = {row["run_id"]: row for row in await ground.deliveries()}
    assert rows.pop("poison")["round"] == 3  # after 1, 5 and 30 minutes, as if it were alone
    assert {row["state"] for row in rows.values()} == {"done"}


async def test_a_receiver_that_is_gone_for_good(ground: Ground, receiver: Receiver) -> None:
    receiver.mode = Mode.ERROR
    await _owe(ground, "a", "b")
    async with courier(ground, webhook(receiver.url)) as actor:
        passed_s, attempts = 0.0, 0
        while passed_s < LIFETIME_S:
            attempts += len(await actor.until_idle())
            await ground.advance(2 * HOUR_S)
            passed_s += 2 * HOUR_S
        assert (await actor.turn()).delivery_id is None
        assert {row["state"] for row in await ground.deliveries()} == {"expired"}
        # A round whenever a probe may go, through a clock that ticks every 2 hours; the other delivery waits meanwhile.
        assert attempts == 3 * 36
        receiver.mode = Mode.OK
        await _owe(ground, "c")
        await ground.advance(2 * HOUR_S)
        assert [turn.state for turn in await actor.until_idle()] == [State.DONE]
    assert not await ground.circuit_is_open()


async def test_retry_after_holds_the_whole_destination(ground: Ground, receiver: Receiver) -> None:
    receiver.script(Mode.RATE_LIMITED)
    receiver.retry_after = "120"
    await _owe(ground, "a", "b")
    async with courier(ground, webhook(receiver.url)) as actor:
        await actor.turn()
        waiting = await actor.turn()
        assert waiting.delivery_id is None and waiting.wait_s is not None and 110 < waiting.wait_s <= 120
        await ground.advance(119.0)
        assert (await actor.turn()).delivery_id is None
        await ground.advance(1.0)
        await actor.until_idle()
    assert _told(receiver) == ["a", "a", "b"]
    assert [row["attempt"] for row in await ground.deliveries()] == [2, 1]


async def test_a_refusal_shows_the_destination_is_up(ground: Ground, receiver: Receiver) -> None:
    receiver.script(Mode.ERROR, Mode.ERROR, Mode.ERROR, Mode.BAD_REQUEST)
    await _owe(ground, "a", "b", "c")
    async with courier(ground, webhook(receiver.url)) as actor:
        await actor.until_idle()
        await ground.advance(60.0)
        await actor.until_idle()
    states = {row["run_id"]: row["state"] for row in await ground.deliveries()}
    assert states == {"a": "done", "b": "refused", "c": "done"}


async def test_killed_in_the_middle(ground: Ground, receiver: Receiver) -> None:
    """The receiver had it, we never knew: it comes again after the lease, under the same id."""
    receiver.script(Mode.HANG)
    await _owe(ground, "run")
    destination = webhook(receiver.url)
    async with courier(ground, destination) as actor, trio.open_nursery() as nursery:
        nursery.start_soon(actor.turn)
        await trio.to_thread.run_sync(receiver.wait_for, 1)
        nursery.cancel_scope.cancel()
    row = await ground.delivery()
    assert (row["state"], row["attempt"]) == ("pending", 0)
    async with courier(ground, destination) as successor:
        waiting = await successor.turn()
        assert waiting.delivery_id is None and waiting.wait_s is not None and LEASE_S - 5 < waiting.wait_s <= LEASE_S
        await ground.advance(LEASE_S)
        assert (await successor.turn()).state is State.DONE
    first, second = receiver.requests
    assert first.document["delivery_id"] == second.document["delivery_id"] == str(row["id"])


async def test_killed_again_and_again(ground: Ground, receiver: Receiver) -> None:
    rng = random.Random(20)
    run_ids = [f"run {n}" for n in range(15)]
    await _owe(ground, *run_ids)
    for _ in range(12):
        receiver.script(*rng.choices([Mode.OK, Mode.ERROR, Mode.HANG, Mode.RESET, Mode.SLOW], k=3))
        with trio.move_on_after(rng.uniform(0.01, 0.15)):
            await _run_for_ever(ground, receiver)
        await ground.advance(LEASE_S)
    receiver.choose = lambda _body: Mode.OK
    await ground.advance(8 * HOUR_S)
    async with courier(ground, webhook(receiver.url)) as actor:
        await actor.until_idle()
        await ground.advance(8 * HOUR_S)
        await actor.until_idle()
    rows = await ground.deliveries()
    assert {row["state"] for row in rows} == {"done"}
    heard = {(request.document["run_id"], request.headers["webhook-id"]) for request in receiver.requests}
    assert heard == {(row["run_id"], str(row["id"])) for row in rows}
    assert {row["run_id"] for row in rows} == set(run_ids)


async def _run_for_ever(ground: Ground, receiver: Receiver) -> None:
    async with trio.open_nursery() as nursery:
        actor = DestinationActor(webhook(receiver.url), trio.open_memory_channel[None](1)[1])
        await nursery.start(actor.run, ground.ctx)


async def test_two_side_by_side_tell_each_once(ground: Ground, receiver: Receiver) -> None:
    run_ids = [f"run {n:02}" for n in range(30)]
    await _owe(ground, *run_ids)
    destination = webhook(receiver.url)
    async with courier(ground, destination) as first, courier(ground, destination) as second:
        async with trio.open_nursery() as nursery:
            for actor in (first, second, first, second):
                nursery.start_soon(actor.until_idle)
    assert sorted(_told(receiver)) == run_ids


async def _claim(ground: Ground) -> Claim:
    ((claim,), _) = await ground.gateway.unit(writes.claim, "webhook", LEASE_S, 1)
    return claim


@pytest.mark.parametrize(
    ("late", "state"),
    [
        (outcome_of(200), "done"),
        (outcome_of(400), "refused"),
        (Outcome(Verdict.FAILED, error="ReadError"), "refused"),
    ],
)
async def test_an_outcome_that_comes_after_another_took_over(ground: Ground, late: Outcome, state: str) -> None:
    """A success is a fact, whoever reports it; anything else is the word of who holds the lease."""
    await _owe(ground, "run")
    rng = random.Random(1)
    stale = await _claim(ground)
    await ground.advance(LEASE_S)
    fresh = await _claim(ground)
    refused = outcome_of(404)
    for claimed, outcome, known in ((fresh, refused, True), (stale, late, state == "done")):
        settled = Settled(claimed, outcome, after(claimed.standing, outcome, rng))
        (kept,) = await ground.gateway.unit(writes.keep, [settled])
        assert kept.known is known
    assert (await ground.delivery())["state"] == state


async def test_keeping_an_outcome_twice_is_keeping_it_once(ground: Ground) -> None:
    """A write that was cut off may have been committed."""
    await _owe(ground, "run")
    claimed = await _claim(ground)
    failed = Outcome(Verdict.FAILED, error="ReadError")
    settled = Settled(claimed, failed, after(claimed.standing, failed, random.Random(1)))
    known = [kept.known for _ in range(2) for kept in await ground.gateway.unit(writes.keep, [settled])]
    assert known == [True, False]
    assert (await ground.delivery())["attempt"] == 1


@pytest.mark.parametrize("fate", ["DELETE FROM failure_signals", "UPDATE failure_signals SET shadow = TRUE"])
async def test_what_there_is_no_more_to_tell(ground: Ground, receiver: Receiver, fate: str) -> None:
    await _owe(ground, "gone")
    await ground.rows(fate)
    await _owe(ground, "kept")
    async with courier(ground, webhook(receiver.url)) as actor:
        await actor.until_idle()
    gone, kept = await ground.deliveries()
    assert (gone["state"], gone["last_error"], kept["state"]) == ("expired", "SignalGoneError", "done")
    assert _told(receiver) == ["kept"]


async def test_an_internal_address_is_refused_with_one_line_that_says_how_to_allow_it(
    gateway: Gateway, receiver: Receiver, tmp_path: Path
) -> None:
    ground = ground_on(gateway, tmp_path, DUNETRACE_ALLOW_PRIVATE_DESTINATIONS="false")
    await _owe(ground, "a", "b")
    with capture_logs() as logs:
        async with courier(ground, webhook(receiver.url)) as actor:
            await actor.until_idle()
    rows = await ground.deliveries()
    assert {(row["state"], row["last_status"], row["last_error"]) for row in rows} == {
        ("refused", None, "InternalAddressError")
    }
    told = [line for line in logs if line["event"] == "destination.internal_address"]
    assert [line["setting"] for line in told] == ["DUNETRACE_ALLOW_PRIVATE_DESTINATIONS"]
    assert receiver.requests == []


async def test_an_alert_that_cannot_be_put_into_words_stops_no_other(ground: Ground, receiver: Receiver) -> None:
    await _owe(ground, "run")
    unusable = webhook(receiver.url, secret="whsec_%%%")
    async with courier(ground, unusable) as actor:
        assert (await actor.turn()).state is State.REFUSED
    assert (await ground.delivery())["last_error"] == "SettingError"


async def test_neither_address_nor_secret_nor_answer_is_logged_or_stored(ground: Ground, receiver: Receiver) -> None:
    url = receiver.url + "/T0/very-secret-path?token=abc"
    await _owe(ground, "a", "b", "c", "d")
    receiver.script(Mode.BAD_REQUEST, Mode.ERROR, Mode.RESET)
    with capture_logs() as logs:
        async with courier(ground, webhook(url)) as actor:
            await actor.until_idle()
    seen = str(logs) + str(await ground.deliveries()) + str(await ground.rows("SELECT * FROM destinations"))
    for secret in ("very-secret-path", "token=abc", SECRET, "received", str(receiver.port)):
        assert secret not in seen
    assert {"delivery.refused", "delivery.failed", "delivery.done"} <= {line["event"] for line in logs}


async def test_the_loop_lives_on_hints_and_its_own_schedule(ground: Ground, receiver: Receiver) -> None:
    """With an interval of an hour: told of a new delivery, back in time for the next attempt, gone at once."""
    hint, wake = trio.open_memory_channel[None](1)
    actor = DestinationActor(webhook(receiver.url), wake)
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            await nursery.start(actor.run, ground.ctx)
            for n in range(1, 6):
                await _owe(ground, f"run {n}")
                hint.send_nowait(None)
                await trio.to_thread.run_sync(receiver.wait_for, n)
            receiver.script(Mode.ERROR, Mode.ERROR)
            await _owe(ground, "stubborn")
            hint.send_nowait(None)
            requests = await trio.to_thread.run_sync(receiver.wait_for, 8)
            ground.stopping.set()
    third, second, first = (request.monotonic for request in requests[:-4:-1])
    assert second - first >= 0.25 and third - second >= 0.5


async def test_a_request_that_hangs_holds_up_no_other(ground: Ground, receiver: Receiver) -> None:
    hint, wake = trio.open_memory_channel[None](1)
    receiver.script(Mode.HANG)
    with trio.fail_after(8):  # less than the attempt that hangs takes
        async with trio.open_nursery() as nursery:
            await nursery.start(DestinationActor(webhook(receiver.url), wake).run, ground.ctx)
            for n in range(20):
                await _owe(ground, f"run {n:02}")
                hint.send_nowait(None)
            await trio.to_thread.run_sync(receiver.wait_for, 20)
            nursery.cancel_scope.cancel()


async def test_a_lane_that_waits_for_a_retry_goes_on_when_the_receiver_shows_to_be_there(
    ground: Ground, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many that the receiver cannot digest as are attempted at first, less one, hold up nobody."""
    monkeypatch.setattr(deliveries_module, "ATTEMPT_BASE_S", 8.0)
    receiver.choose = lambda body: Mode.ERROR if b'"poison' in body else None
    poison = [f"poison {n}" for n in range(destination_module.FEW - 1)]
    await _owe(ground, *poison, *(f"run {n:02}" for n in range(30)))
    with trio.fail_after(4):  # half of what the first retry waits for at the least
        async with trio.open_nursery() as nursery:
            await _started(nursery, ground, receiver)
            await trio.to_thread.run_sync(receiver.wait_for, len(poison) + 30)
            ground.stopping.set()
    states = {row["run_id"]: row["state"] for row in await ground.deliveries()}
    assert {states.pop(run_id) for run_id in poison} == {"pending"}
    assert set(states.values()) == {"done"}


async def test_what_waits_in_the_hand_is_given_back_when_an_attempt_is_slow(
    ground: Ground, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand_module, "QUICK_S", 10.0)
    monkeypatch.setattr(post_module, "ATTEMPT_TIMEOUT_S", 0.5)
    await _owe(ground, *(f"run {n:02}" for n in range(40)))
    receiver.script(*[Mode.OK] * 8)
    receiver.mode = Mode.HANG
    async with trio.open_nursery() as nursery:
        await _started(nursery, ground, receiver)
        await trio.to_thread.run_sync(receiver.wait_for, 8 + destination_module.LANES)
        while (await _held(ground)) > destination_module.LANES:
            await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    assert {row["attempt"] for row in await ground.deliveries() if row["state"] == "pending"} <= {0, 1}


async def _held(ground: Ground) -> int:
    (row,) = await ground.rows(
        "SELECT count(*) AS held FROM deliveries WHERE state = 'pending' AND lease_until > now()"
    )
    return int(row["held"])


async def test_a_stop_gives_back_what_is_in_the_hand(
    ground: Ground, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand_module, "QUICK_S", 10.0)
    monkeypatch.setattr(destination_module, "GRACE_S", 0.2)
    await _owe(ground, *(f"run {n:02}" for n in range(40)))
    receiver.script(*[Mode.OK] * 8)
    receiver.mode = Mode.HANG
    async with trio.open_nursery() as nursery:
        await _started(nursery, ground, receiver)
        await trio.to_thread.run_sync(receiver.wait_for, 8 + destination_module.LANES)
        while (await _held(ground)) <= destination_module.LANES:  # more than the lanes have
            await trio.sleep(0.02)
        ground.stopping.set()
    assert await _held(ground) == destination_module.LANES  # those that were cut off


async def test_outcomes_are_kept_through_an_outage(ground: Ground, receiver: Receiver) -> None:
    """What was told while Postgres was away is not told again."""
    lent = Falling(ground.gateway)
    ground.gateway = cast("Gateway", lent)
    run_ids = [f"run {n}" for n in range(10)]
    await _owe(ground, *run_ids)
    lent.is_away_for = writes.keep
    async with trio.open_nursery() as nursery:
        await _started(nursery, ground, receiver)
        await trio.to_thread.run_sync(receiver.wait_for, len(run_ids))
        await lent.was_away.wait()
        lent.is_away_for = None
        while {row["state"] for row in await ground.deliveries()} != {"done"}:
            await trio.sleep(0.02)
        ground.stopping.set()
    assert sorted(_told(receiver)) == run_ids


class Falling:
    """A gateway whose Postgres is away for units of one function."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.is_away_for: Any = None
        self.was_away = trio.Event()

    async def unit(self, fn: Any, *args: Any) -> Any:
        if fn is self.is_away_for:
            self.was_away.set()
            raise StoreUnavailableError
        return await self._gateway.unit(fn, *args)


async def test_a_destination_that_hangs_holds_no_connection(ground: Ground, receiver: Receiver) -> None:
    receiver.mode = Mode.HANG
    await _owe(ground, *(f"run {n}" for n in range(10)))
    async with trio.open_nursery() as nursery:
        await _started(nursery, ground, receiver)
        await trio.to_thread.run_sync(receiver.wait_for, destination_module.FEW)
        while await ground.rows(_OTHERS_AT_WORK):
            await trio.sleep(0.02)
        nursery.cancel_scope.cancel()


_OTHERS_AT_WORK = """
    SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'dunetrace'
        AND state <> 'idle' AND pid <> pg_backend_pid()
"""


async def test_a_stop_gives_the_attempt_in_hand_its_time(
    ground: Ground, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.script(Mode.SLOW)
    receiver.slow_s = 0.3
    await _owe(ground, "run")
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await _started(nursery, ground, receiver)
            await trio.to_thread.run_sync(receiver.wait_for, 1)
            ground.stopping.set()
    assert (await ground.delivery())["state"] == "done"


async def test_a_stop_does_not_wait_for_a_receiver_that_hangs(
    ground: Ground, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destination_module, "GRACE_S", 0.2)
    receiver.mode = Mode.HANG
    await _owe(ground, "run")
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await _started(nursery, ground, receiver)
            await trio.to_thread.run_sync(receiver.wait_for, 1)
            ground.stopping.set()
    row = await ground.delivery()
    assert (row["state"], row["attempt"]) == ("pending", 0)


async def _started(nursery: trio.Nursery, ground: Ground, receiver: Receiver) -> None:
    actor = DestinationActor(webhook(receiver.url), trio.open_memory_channel[None](1)[1])
    await nursery.start(actor.run, ground.ctx)


async def test_it_outlasts_an_outage(tmp_path: Path, receiver: Receiver) -> None:
    async with open_gateway("postgresql://nobody@127.0.0.1:1/none") as away:
        ground = ground_on(away, tmp_path, DUNETRACE_ALERT_INTERVAL="0.1")
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                await _started(nursery, ground, receiver)
                ground.stopping.set()


async def test_another_destinations_trouble_is_its_own(ground: Ground, receiver: Receiver) -> None:
    receiver.mode = Mode.ERROR
    other = replace(webhook("http://127.0.0.1:1/"), name="other")
    with Receiver() as healthy:
        dispatcher = dispatcher_for(webhook(receiver.url), other)
        await ground.add_signal("run")
        await dispatcher.run_once(ground.ctx)
        async with (
            courier(ground, webhook(receiver.url)) as failing,
            courier(ground, replace(other, url=healthy.url)) as fine,
        ):
            await failing.until_idle()
            assert [turn.state for turn in await fine.until_idle()] == [State.DONE]
    assert {row["destination"]: row["state"] for row in await ground.deliveries()} == {
        "webhook": "pending",
        "other": "done",
    }
