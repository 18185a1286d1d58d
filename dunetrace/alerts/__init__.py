"""How an alert looks to each kind of destination, and how it gets there.

A new kind of destination is a `Form` in `FORMS` and an entry in `listing.KINDS`, never a branch elsewhere.
Used by the dispatcher, the destination actors, the weekly digest and the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from dunetrace.alerts import digest, pagerduty, slack, webhook
from dunetrace.alerts.destinations import Destination, destinations_from
from dunetrace.alerts.webhook import Message

if TYPE_CHECKING:
    from uuid import UUID

    from dunetrace.deliveries import Alert
    from dunetrace.weekly import Span, Week

    # (the week, when it was, the page's address)
    DigestForm = Callable[[Week, Span, str | None], Message]


class Form(NamedTuple):
    """What is POSTed to one kind of destination."""

    message: Callable[[Alert, str | None, float], Message]  # (alert, the destination's secret, Unix seconds now)
    test_message: Callable[[UUID, str | None, float], Message]  # (an id of its own, secret, Unix seconds now)
    digest: DigestForm | None = None


FORMS: Mapping[str, Form] = {
    "webhook": Form(webhook.message, webhook.test_message),
    "slack": Form(slack.message, slack.test_message, digest.message),
    "pagerduty": Form(pagerduty.message, pagerduty.test_message),
}

__all__ = ["FORMS", "Destination", "Form", "Message", "destinations_from"]
