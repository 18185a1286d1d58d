"""What /health says: the state of each actor and of Postgres. Says nothing of secrets, addresses or exception texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

# What a port cannot do its job without; any other actor's trouble only makes it `degraded`.
NEEDED: Final[Mapping[str, frozenset[str]]] = {
    "ingest": frozenset({"ingest", "writer", "journal"}),
    "api": frozenset({"api"}),
}


JOURNAL_TAKES: Final = frozenset({"ok", "damaged", "other_version"})  # states in which it accepts


@dataclass(slots=True)
class ActorHealth:
    """`state` is starting, running, restarting or stopped; `restarts` counts crashes since the process started."""

    state: str = "starting"
    restarts: int = 0


class Health:
    """Kept by the supervisor, read by both servers."""

    def __init__(
        self,
        version: str,
        database_state: Callable[[], str],
        journal: Callable[[], dict[str, Any] | None] = lambda: None,
        *,
        spools: Callable[[], bool] = lambda: False,
    ) -> None:
        """`journal` is the journal's own state, None where there is none; `spools`: the door needs no Postgres now."""
        self.actors: dict[str, ActorHealth] = {}
        self._version = version
        self._database_state, self._journal, self._spools = database_state, journal, spools

    def actor(self, name: str) -> ActorHealth:
        return self.actors.setdefault(name, ActorHealth())

    def report(self, port: str) -> tuple[int, dict[str, Any]]:
        """Status and body for the port `ingest` or `api`. 503 only when this port can't do its job."""
        database, journal = self._database_state(), self._journal()
        down = {name for name, actor in self.actors.items() if actor.state != "running"}
        able = not NEEDED[port] & down and (database == "ok" or (port == "ingest" and self._spools()))
        well = not down and database == "ok"
        if journal is not None:
            well = well and journal["state"] == "ok"
            able = able and (port != "ingest" or journal["state"] in JOURNAL_TAKES)
        return (200 if able else 503), {
            "status": "ok" if able and well else "degraded" if able else "unavailable",
            "db": database,
            **({} if journal is None else {"journal": journal}),
            "version": self._version,
            "actors": {
                name: {"state": actor.state, "restarts": actor.restarts} for name, actor in sorted(self.actors.items())
            },
        }
