"""Fixtures of the alert tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dunetrace.store.gateway import Gateway
from tests.alerts.ground import Ground, ground_on
from tests.receiver import Receiver


@pytest.fixture
def ground(gateway: Gateway, tmp_path: Path) -> Ground:
    """Internal addresses allowed, no interval that could help a lost hint."""
    return ground_on(gateway, tmp_path)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture
def slack_receiver() -> Iterator[Receiver]:
    with Receiver(slack=True) as running:
        yield running


@pytest.fixture
def pager() -> Iterator[Receiver]:
    with Receiver(pagerduty=True) as running:
        yield running
