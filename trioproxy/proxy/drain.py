"""The end of a forwarder: connections that wait for a request go at once, the others after what they do."""

from __future__ import annotations

import trio


class Drain:
    """Whether this forwarder is shutting down, and who may be interrupted for it."""

    def __init__(self) -> None:
        self.started = trio.Event()
        self._idle: set[trio.CancelScope] = set()

    @property
    def active(self) -> bool:
        """Whether the drain has begun."""
        return self.started.is_set()

    def start(self) -> None:
        """Begin. Idle connections end now; a second call does nothing."""
        self.started.set()
        for scope in self._idle:
            scope.cancel()

    def interrupts(self, scope: trio.CancelScope) -> None:
        """From now on a drain cancels the scope, at once if it has begun. Undo it with `spare`, always."""
        if self.active:
            scope.cancel()
        self._idle.add(scope)

    def spare(self, scope: trio.CancelScope) -> None:
        """A drain does not cancel this scope any more: what it waits for must not be lost, or it has ended."""
        self._idle.discard(scope)
