"""What the door hashes content with: the key that was set, else the installation's random one, once it is known.

The supervisor owns it; the actor that looks after the database teaches it the installation's key.
"""

from __future__ import annotations

from dunetrace.errors import StoreUnavailableError
from dunetrace.hashing import Hasher


class HashKey:
    """A hasher that may have to wait for Postgres: `set_key` is DUNETRACE_HASH_KEY, None when it is unset."""

    def __init__(self, set_key: bytes | None) -> None:
        self._is_set = bool(set_key)
        self._hasher = Hasher(set_key) if set_key else None

    def learn(self, installation_key: bytes) -> None:
        """The installation's key, as Postgres keeps it; a key that was set stays."""
        if not self._is_set:
            self._hasher = Hasher(installation_key)

    def hasher(self) -> Hasher:
        """Raises StoreUnavailableError while no key is known: unkeyed digests must not be stored beside keyed ones."""
        if self._hasher is None:
            raise StoreUnavailableError
        return self._hasher
