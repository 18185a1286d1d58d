"""`alerts test` and `alerts retry`, as a person at a terminal meets them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from dunetrace.alerts.trial import Tried
from dunetrace.deliveries import outcome_of
from tests import pagerduty as pagerduty_server
from tests import slack as slack_server
from tests.alerts.ground import Ground, courier, dispatcher_for, pagerduty, slack
from tests.pagerduty import ROUTING_KEY
from tests.receiver import Mode, Receiver
from tests.test_cli import dunetrace, one_line

HOUR_S = 3600.0
TOOK = r"\d+\.\d\d s"


def test_a_test_reaches_every_destination(tmp_path: Path, receiver: Receiver, slack_receiver: Receiver) -> None:
    done = dunetrace(
        tmp_path, "alerts", "test",
        WEBHOOK_URL=receiver.url, WEBHOOK_SECRET="a secret", SLACK_WEBHOOK_URL=slack_receiver.url,
        DUNETRACE_ALLOW_PRIVATE_DESTINATIONS="true",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(rf"webhook: delivered, HTTP 200, {TOOK}\nslack: delivered, HTTP 200, {TOOK}\n", done.stdout)
    assert receiver.requests[0].document["event"] == "test"
    assert "Test alert" in slack_server.accept(slack_receiver.requests[0].body)["text"]


def test_a_test_that_fails_says_what_came_back(tmp_path: Path, receiver: Receiver, slack_receiver: Receiver) -> None:
    slack_receiver.mode = Mode.NOT_FOUND
    urls = {"WEBHOOK_URL": receiver.url, "WEBHOOK_SECRET": "a secret", "SLACK_WEBHOOK_URL": slack_receiver.url}
    done = dunetrace(tmp_path, "alerts", "test", DUNETRACE_ALLOW_PRIVATE_DESTINATIONS="true", **urls)
    assert done.returncode == 1
    assert re.fullmatch(
        rf"webhook: delivered, HTTP 200, {TOOK}\nslack: failed, HTTP 404 \(nothing is at this address\), {TOOK}\n",
        done.stdout,
    )
    guarded = dunetrace(tmp_path, "alerts", "test", **urls)
    assert guarded.returncode == 1
    assert "slack: failed, it is an internal address, and DUNETRACE_ALLOW_PRIVATE_DESTINATIONS" in guarded.stdout
    for said in (done.stdout, done.stderr, guarded.stdout, guarded.stderr):
        assert slack_receiver.path not in said and receiver.path not in said
    receiver.close()
    gone = dunetrace(tmp_path, "alerts", "test", DUNETRACE_ALLOW_PRIVATE_DESTINATIONS="true", **urls)
    assert "webhook: failed, no answer (ConnectError)" in gone.stdout


def _list(directory: Path, slack_url: str, pager_url: str) -> dict[str, str]:
    """An alerts.yml of two; the environment it needs."""
    (directory / "alerts.yml").write_text(
        f"""
        destinations:
          - {{name: ops, kind: slack, url: "${{SLACK_URL}}"}}
          - {{name: pager, kind: pagerduty, routing_key: "${{PAGER_KEY}}", url: "{pager_url}"}}
        """
    )
    return {"SLACK_URL": slack_url, "PAGER_KEY": ROUTING_KEY, "DUNETRACE_ALLOW_PRIVATE_DESTINATIONS": "true"}


def test_a_test_reaches_what_the_file_lists(tmp_path: Path, slack_receiver: Receiver, pager: Receiver) -> None:
    environ = _list(tmp_path, slack_receiver.url, pager.url)
    done = dunetrace(tmp_path, "alerts", "test", **environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(rf"ops: delivered, HTTP 200, {TOOK}\npager: delivered, HTTP 202, {TOOK}\n", done.stdout)
    assert pagerduty_server.accept(pager.requests[0].body)["dedup_key"] == "dunetrace-test"
    one = dunetrace(tmp_path, "alerts", "test", "--destination", "pager", **environ)
    assert one.returncode == 0 and one.stdout.startswith("pager: ") and "ops" not in one.stdout
    assert (len(slack_receiver.requests), len(pager.requests)) == (1, 2)
    mistyped = one_line(dunetrace(tmp_path, "alerts", "test", "--destination", "paper", **environ))
    assert mistyped == "dunetrace: --destination: there is no 'paper'; the nearest is pager. Known: ops, pager"


def test_a_key_pagerduty_does_not_know_is_said_and_not_shown(
    tmp_path: Path, slack_receiver: Receiver, pager: Receiver
) -> None:
    pager.mode = Mode.BAD_REQUEST
    done = dunetrace(tmp_path, "alerts", "test", **_list(tmp_path, slack_receiver.url, pager.url))
    assert done.returncode == 1
    assert "pager: failed, HTTP 400 (it did not like the request; is the key" in done.stdout
    assert ROUTING_KEY not in done.stdout + done.stderr and pager.path not in done.stdout + done.stderr


@pytest.mark.parametrize("status", [200, 202, 299, 301, 308, 399, 400, 404, 418, 429, 451, 499, 500, 503, 599])
def test_every_status_is_said_and_a_wrong_one_with_its_way_out(status: int) -> None:
    said = str(Tried(outcome_of(status), 0.123))
    assert said.startswith("delivered, " if status < 300 else "failed, ") and said.endswith(", 0.12 s")
    assert f"HTTP {status}" in said
    assert ("redirects" in said) == (300 <= status < 400)
    assert ("tried again" in said) == (status == 429 or status >= 500)


def test_the_help_names_the_way_out(tmp_path: Path) -> None:
    said = " ".join(dunetrace(tmp_path, "alerts", "test", "--help").stdout.split())
    for word in ("--destination NAME", "SLACK_WEBHOOK_URL", "WEBHOOK_URL", "alerts.yml", "3xx and 4xx"):
        assert word in said


@pytest.mark.parametrize("command", ["test", "retry"])
def test_nothing_to_try(tmp_path: Path, command: str) -> None:
    assert "no destination is configured" in one_line(dunetrace(tmp_path, "alerts", command))


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("SLACK_WEBHOOK_URL", "hooks.slack.com/services/T0/B0/secret-part", "https://host/path"),
        ("SLACK_WEBHOOK_URL", "https://host:0/secret-part", "the port must be 1..65535"),
        ("SLACK_MIN_SEVERITY", "urgent", "LOW, MEDIUM, HIGH, CRITICAL"),
    ],
    ids=["no scheme", "no port", "no severity"],
)
def test_a_bad_setting_ends_the_start_with_one_line(tmp_path: Path, setting: str, value: str, said: str) -> None:
    line = one_line(dunetrace(tmp_path, **{setting: value}))
    assert line.startswith(f"dunetrace: {setting}: ") and said in line and "secret-part" not in line


async def test_a_retry_sends_what_was_refused_and_what_expired(
    ground: Ground, database: str, tmp_path: Path, slack_receiver: Receiver
) -> None:
    to_slack = slack(slack_receiver.url)
    dispatcher = dispatcher_for(to_slack)
    for run_id in ("refused", "expired", "gone", "done"):
        await ground.add_signal(run_id)
    await dispatcher.run_once(ground.ctx)
    await ground.rows("UPDATE deliveries SET state = 'done' WHERE run_id = 'done'")
    await ground.rows("UPDATE deliveries SET state = 'refused', attempt = 1 WHERE run_id = 'refused'")
    await ground.rows("UPDATE deliveries SET state = 'expired', round = 9 WHERE run_id IN ('expired', 'gone')")
    await ground.rows("DELETE FROM failure_signals WHERE run_id = 'gone'")
    await ground.advance(100 * HOUR_S)
    environ = {"DATABASE_URL": database, "SLACK_WEBHOOK_URL": slack_receiver.url}
    done = dunetrace(tmp_path, "alerts", "retry", **environ)
    assert (done.returncode, done.stdout) == (0, "2 deliveries and 0 digests are due again\n"), done.stderr
    async with courier(ground, to_slack) as actor:
        await actor.until_idle()
    states = {row["run_id"]: (row["state"], row["round"], row["attempt"]) for row in await ground.deliveries()}
    assert states == {
        "refused": ("done", 0, 1), "expired": ("done", 0, 1), "gone": ("expired", 9, 0), "done": ("done", 0, 0)
    }  # fmt: skip
    assert len(slack_receiver.requests) == 2
    assert "0 deliveries" in dunetrace(tmp_path, "alerts", "retry", **environ).stdout


async def test_a_retry_of_one_destination_leaves_the_others(
    ground: Ground, database: str, tmp_path: Path, slack_receiver: Receiver, pager: Receiver
) -> None:
    both = replace(slack(slack_receiver.url), name="ops"), pagerduty(pager.url)
    dispatcher = dispatcher_for(*both)
    await ground.add_signal()
    await dispatcher.run_once(ground.ctx)
    await ground.rows("UPDATE deliveries SET state = 'refused', done_at = now()")
    environ = {**_list(tmp_path, slack_receiver.url, pager.url), "DATABASE_URL": database}
    done = dunetrace(tmp_path, "alerts", "retry", "--destination", "pager", **environ)
    assert (done.returncode, done.stdout) == (0, "1 deliveries and 0 digests are due again\n"), done.stderr
    for destination in both:
        async with courier(ground, destination) as actor:
            await actor.until_idle()
    assert {row["destination"]: row["state"] for row in await ground.deliveries()} == {
        "ops": "refused",
        "pager": "done",
    }
