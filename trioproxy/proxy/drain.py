"""The end of a forwarder: connections that wait for a request go at once, the others after what they do."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

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

    @contextmanager
    def interrupts(self, scope: trio.CancelScope) -> Generator[trio.CancelScope]:
        """While inside, a drain cancels the scope. Leave it before reading what must not be lost."""
        if self.active:
            scope.cancel()
        self._idle.add(scope)
        try:
            yield scope
        finally:
            self._idle.discard(scope)

    def keep(self, scope: trio.CancelScope) -> None:
        """This scope is not idle any more."""
        self._idle.discard(scope)
