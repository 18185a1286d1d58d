"""What /health says: the state of each actor and of Postgres. Says nothing of secrets, addresses or exception texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

# What a port cannot do its job without; any other actor's trouble only makes it `degraded`.
NEEDED: Final[Mapping[str, frozenset[str]]] = {
    "ingest": frozenset({"ingest", "writer"}),
    "api": frozenset({"api"}),
}


@dataclass(slots=True)
class ActorHealth:
    """`state` is starting, running, restarting or stopped; `restarts` counts crashes since the process started."""

    state: str = "starting"
    restarts: int = 0


class Health:
    """Kept by the supervisor, read by both servers."""

    def __init__(self, version: str, database_state: Callable[[], str]) -> None:
        self.actors: dict[str, ActorHealth] = {}
        self._version = version
        self._database_state = database_state

    def actor(self, name: str) -> ActorHealth:
        return self.actors.setdefault(name, ActorHealth())

    def report(self, port: str) -> tuple[int, dict[str, Any]]:
        """Status and body for the port `ingest` or `api`. 503 only when this port can't do its job."""
        database = self._database_state()
        down = {name for name, actor in self.actors.items() if actor.state != "running"}
        able = database == "ok" and not NEEDED[port] & down
        return (200 if able else 503), {
            "status": "ok" if able and not down else "degraded" if able else "unavailable",
            "db": database,
            "version": self._version,
            "actors": {
                name: {"state": actor.state, "restarts": actor.restarts} for name, actor in sorted(self.actors.items())
            },
        }
