"""Checks the document of alerts.yml, already parsed, and turns it into destinations. `config` reads the file.

Whatever is wrong ends the start with one line that says where, and how to mend it. The file may hold secrets, and
people put them into the wrong places: of a value that is not a plain word nothing is shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from dunetrace.alerts import pagerduty, webhook
from dunetrace.alerts.destinations import Destination, check_url
from dunetrace.alerts.entry import Entry, fault, is_plain, shown, what_it_is
from dunetrace.signals import Severity

MOST_DESTINATIONS = 100  # so that a hint to all of them fits into one NOTIFY, which takes 8,000 bytes
_NAME = re.compile(r"[a-z0-9-]{1,40}")
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9]+")


class Secret(NamedTuple):
    """Under which key a kind has its secret, and what says whether one will do: (the place, the secret)."""

    key: str
    check: Callable[[str, str], object]
    required: bool


class DestinationKind(NamedTuple):
    """What alerts.yml may say of a kind of destination, and what it goes by where the file is silent."""

    min_severity: Severity
    gathers: bool  # made for people, who are not told of each repeat
    url: str | None = None
    secret: Secret | None = None
    digest: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        own = (self.secret.key if self.secret else None, "digest" if self.digest else None)
        return (*_KEYS, *(key for key in own if key is not None))


_KEYS = ("name", "kind", "url", "min_severity", "agents", "gather", "resolved")
KINDS: Mapping[str, DestinationKind] = {
    "slack": DestinationKind(Severity.HIGH, gathers=True, digest=True),
    "webhook": DestinationKind(
        Severity.LOW, gathers=False, secret=Secret("secret", webhook.check_secret, required=False)
    ),
    "pagerduty": DestinationKind(
        Severity.HIGH,
        gathers=True,
        url=pagerduty.ENQUEUE_URL,
        secret=Secret("routing_key", pagerduty.check_routing_key, required=True),
    ),
}
_ALL_KEYS = tuple(dict.fromkeys(key for kind in KINDS.values() for key in kind.keys))


def check(
    document: object, variables: Mapping[str, str], taken: Mapping[str, str], window_s: float
) -> tuple[Destination, ...]:
    """The destinations a document lists, in its order. Raises SettingError for the first fault.

    `variables` are what ``${NAME}`` may stand for, `taken` the names that are in use and the setting that does so,
    `window_s` is how long those gather that are for people and don't say.
    """
    names = dict(taken)
    found = []
    for number, written in enumerate(_list(document), start=1):
        entry = Entry.of(written, f"destination {number}", variables)
        entry.refuse_unknown_keys(_ALL_KEYS)
        name = _name(entry)
        if name in names:
            raise entry.fault("name", f"`{name}` is the name of {names[name]} already; choose another")
        names[name] = f"destination {number}"
        found.append(_destination(name, replace(entry, where=f"`{name}`"), window_s))
    return tuple(found)


def _list(document: object) -> list[object]:
    if document is None:
        return []
    top = Entry.of(document, "the file", {})
    top.refuse_unknown_keys(("destinations",))
    listed = top.written.get("destinations")
    if listed is None:
        return []
    if not isinstance(listed, list):
        raise fault("destinations", f"must be a list (`- name: ...`), and is {what_it_is(listed)}")
    if len(listed) > MOST_DESTINATIONS:
        raise fault("destinations", f"lists {len(listed)}; at most {MOST_DESTINATIONS} are allowed")
    return listed


def _name(entry: Entry) -> str:
    name = entry.literal("name")
    if name is None:
        raise entry.fault("name", "is missing; each destination has a name of its own")
    if not _NAME.fullmatch(name):
        likely = _NOT_IN_A_NAME.sub("-", name.lower()).strip("-")
        hint = f"; write `{likely}`" if is_plain(name) and _NAME.fullmatch(likely) else ""
        raise entry.fault("name", f"{shown(name)} is not 1 to 40 of a-z, 0-9 and -{hint}")
    return name


def _destination(name: str, entry: Entry, window_s: float) -> Destination:
    kind_name = entry.one_of("kind", KINDS, entry.literal("kind"))
    if kind_name is None:
        raise entry.fault("kind", f"is missing; known are {', '.join(KINDS)}")
    kind = KINDS[kind_name]
    for key in entry.written:
        if key not in kind.keys:
            raise entry.fault(str(key), f"a {kind_name} destination has no such key; it has {', '.join(kind.keys)}")
    severity = entry.one_of("min_severity", tuple(Severity), entry.text("min_severity"))
    return Destination(
        name,
        kind_name,
        _url(entry, kind),
        _secret(entry, kind),
        min_severity=Severity(severity) if severity is not None else kind.min_severity,
        agents=entry.patterns("agents"),
        gather_s=entry.duration_s("gather", window_s if kind.gathers else 0.0),
        resolved=entry.flag("resolved", default=True),
        digest=entry.flag("digest", default=True),
    )


def _url(entry: Entry, kind: DestinationKind) -> str:
    url = entry.text("url") or kind.url
    if url is None:
        raise entry.fault("url", "is missing; it looks like https://host/path")
    check_url(entry.place("url"), url)
    return url


def _secret(entry: Entry, kind: DestinationKind) -> str | None:
    if kind.secret is None:
        return None
    secret = entry.text(kind.secret.key)
    if secret:
        kind.secret.check(entry.place(kind.secret.key), secret)
    elif kind.secret.required:
        raise entry.fault(kind.secret.key, "is missing")
    return secret or None
