"""Waits that must not become too long, of all connections, looked after by one task.

A cancel scope per wait would cost more than the rest of what an ordinary request needs. Here a wait is a number on its
connection, and the task wakes up for the earliest of them.
"""

from __future__ import annotations

import math

import trio

from trioproxy.proxy.live import LiveConnection, LiveConnections

LOOK_SECONDS = 20e-6
"""Per connection, between two looks at all of them: what keeps looking below a hundredth of the time."""


class Watch:
    """Cancels the scopes of connections that are late, and marks those so."""

    def __init__(self, connections: LiveConnections) -> None:
        self._connections = connections
        self._looked_at = -math.inf
        self._looks_at = -math.inf  # not before it runs
        self._nap = trio.CancelScope()

    def expect(self, connection: LiveConnection, seconds: float, now: float) -> None:
        """What the connection waits for has so many seconds from `now` on (trio's clock); 0 = for ever."""
        due = connection.due = now + seconds if seconds else math.inf
        if due < self._looks_at:
            self._look_at(due)

    def _look_at(self, due: float) -> None:
        self._looks_at = max(due, self._looked_at + len(self._connections) * LOOK_SECONDS)
        self._nap.deadline = self._looks_at

    async def run(self) -> None:
        """Look after the connections until cancelled."""
        while True:
            self._looked_at = now = trio.current_time()
            earliest = math.inf
            for connection in self._connections:
                if connection.due <= now:
                    connection.due = math.inf
                    connection.late = True
                    connection.scope.cancel()
                elif connection.due < earliest:
                    earliest = connection.due
            with trio.CancelScope() as self._nap:
                self._look_at(earliest)
                await trio.sleep_forever()
