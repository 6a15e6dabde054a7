"""How many client connections a process holds at a time, in total and per client."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import trio


class ConnectionLimiter:
    """Counts the client connections of all listeners of a process, and says when there is room.

    `connections` bounds the total. `per_client` bounds those of one client address; 0 = no limit. `tell` is called
    with the total whenever it changes.
    """

    def __init__(self, connections: int, per_client: int = 0, *, tell: Callable[[int], None] | None = None) -> None:
        self._limit = connections
        self._tell = tell
        self._per_client = per_client
        self._open = 0
        self._clients: Counter[str] = Counter()
        self._waiting = trio.lowlevel.ParkingLot()

    @property
    def open(self) -> int:
        """Connections held now."""
        return self._open

    @property
    def has_room(self) -> bool:
        """Whether `acquire` would succeed."""
        return self._open < self._limit

    def set_limits(self, connections: int, per_client: int) -> None:
        """Change both limits. Connections above a lowered limit go on; new ones wait or are refused."""
        self._limit = connections
        self._per_client = per_client
        self._waiting.unpark_all()

    def acquire(self) -> bool:
        """Take one of the total; False when there is none left. Each success wants one `release`."""
        if not self.has_room:
            return False
        self._count(1)
        return True

    def release(self) -> None:
        """Give back what `acquire` took."""
        self._count(-1)
        if self.has_room:
            # All of them, at most one per listener: the one woken may be cancelled before it acquires.
            self._waiting.unpark_all()

    def _count(self, more: int) -> None:
        self._open += more
        if self._tell is not None:
            self._tell(self._open)

    async def wait_for_room(self) -> None:
        """Wait until `acquire` may succeed. Several may wait, so ask it again afterwards."""
        await trio.lowlevel.checkpoint()
        while not self.has_room:
            await self._waiting.park()

    def acquire_client(self, host: str) -> bool:
        """Count a connection of this client; False when it has as many as it may.

        Each success wants one `release_client`. Clients on unix sockets cannot be told apart and are not
        limited.
        """
        if self._per_client and host != "unix" and self._clients[host] >= self._per_client:
            return False
        self._clients[host] += 1
        return True

    def release_client(self, host: str) -> None:
        """Give back what `acquire_client` took."""
        self._clients[host] -= 1
        if not self._clients[host]:
            del self._clients[host]
