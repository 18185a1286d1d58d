"""Whose rows a read may see. Every read function takes a `Scope`; there is no unscoped signature."""

from __future__ import annotations

from typing import NamedTuple


class Scope(NamedTuple):
    """One customer's rows, all agents' (`agents` None) or only the named agents'."""

    customer_id: str
    agents: frozenset[str] | None = None

    @property
    def agent_list(self) -> list[str] | None:
        """For SQL: ``($n::text[] IS NULL OR agent_id = ANY($n))``."""
        return None if self.agents is None else sorted(self.agents)

    def sees(self, agent_id: str) -> bool:
        return self.agents is None or agent_id in self.agents
