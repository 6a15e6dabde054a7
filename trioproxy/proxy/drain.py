"""The end of a forwarder: connections that wait for a request go at once or soon, the others after what they do."""

from __future__ import annotations

import trio


class Drain:
    """Whether this forwarder is shutting down, and who may be interrupted for it."""

    def __init__(self) -> None:
        self.started = trio.Event()
        self.impatient = False
        """Whether connections that wait for a request are ended: no new one is served, nor a new stream begun."""
        self._idle: set[trio.CancelScope] = set()

    @property
    def active(self) -> bool:
        """Whether the drain has begun."""
        return self.started.is_set()

    def start(self) -> None:
        """Begin. Idle connections end now; a second call does nothing."""
        self.started.set()
        self.end_idle()

    def start_patiently(self) -> None:
        """Begin, and let idle connections bring one more request, whose answer says that it was the last."""
        self.started.set()

    def end_idle(self) -> None:
        """Patience is over: idle connections end now."""
        self.impatient = True
        for scope in self._idle:
            scope.cancel()

    def interrupts(self, scope: trio.CancelScope) -> None:
        """From now on a drain cancels the scope, at once if it is impatient. Undo it with `spare`, always."""
        if self.impatient:
            scope.cancel()
        self._idle.add(scope)

    def spare(self, scope: trio.CancelScope) -> None:
        """A drain does not cancel this scope any more: what it waits for must not be lost, or it has ended."""
        self._idle.discard(scope)
