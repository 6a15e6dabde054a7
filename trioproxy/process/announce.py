"""Every change of a backend's state: an event, a line in the log, a count, and a word to whoever reports it on."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence

from trioproxy.control.messages import BackendChange
from trioproxy.health.outbox import Outbox
from trioproxy.process.events import EventLog

MAX_NAMED = 100
"""Backends that events name when many change for one reason; beyond it, one event tells how many."""

_LOG = logging.getLogger("trioproxy.process.announce")
_BAD = ("unhealthy", "ejected")


class Announcer:
    """Tells of changes. `counts` are how often backends became what, since the start."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._outboxes: list[Outbox] = []
        self.counts = Counter[str]()

    def outbox(self, standing: Iterable[BackendChange]) -> Outbox:
        """A stream of all changes from now on, that begins with what stands. It lives as long as this."""
        outbox = Outbox()
        outbox.add(standing)
        self._outboxes.append(outbox)
        return outbox

    def tell(self, changes: Sequence[BackendChange]) -> None:
        """Of these, which have one reason."""
        for change in changes:
            self.counts[change.state] += 1
        for change in changes[:MAX_NAMED]:
            self._events.add("health", **describe(change))
        if len(changes) > MAX_NAMED:
            more, last = len(changes) - MAX_NAMED, changes[-1]
            self._events.add("health", state=last.state, reason=last.reason, more=more)
        if changes:
            _log(changes)
        for outbox in self._outboxes:
            outbox.add(changes)


def describe(change: BackendChange) -> dict[str, str]:
    """What an event says of it."""
    session_id, service = change.route
    return {
        "session_id": session_id,
        "service": service,
        "backend_id": change.backend_id,
        "state": change.state,
        "previous": change.previous,
        "reason": change.reason,
    }


def _log(changes: Sequence[BackendChange]) -> None:
    level = logging.WARNING if changes[0].state in _BAD else logging.INFO
    told = {**describe(changes[0]), "more": len(changes) - 1} if len(changes) > 1 else describe(changes[0])
    _LOG.log(level, "a backend is %s", changes[0].state, extra=told)
