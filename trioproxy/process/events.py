"""The event log: the last things worth telling an operator, and who listens."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from trioproxy.control.worker import Event

KEPT = 1000
"""Events that are kept for those who come later or read slowly."""


class EventLog:
    """Keeps the last `kept` events. Subscribers read from it at their own pace, so none of them needs a buffer.

    `clock` tells seconds since the epoch.
    """

    def __init__(self, *, kept: int = KEPT, clock: Callable[[], float] = time.time) -> None:
        self._events: deque[Event] = deque(maxlen=kept)
        self._clock = clock
        self._last_id = 0
        self._added = trio.Event()

    def add(self, kind: str, **detail: Any) -> None:
        """Record an event and wake whoever listens."""
        self._last_id += 1
        self._events.append(Event(self._last_id, self._clock(), kind, detail))
        self._added.set()
        self._added = trio.Event()

    @asynccontextmanager
    async def subscribe(self, *, after: int | None = None) -> AsyncGenerator[AsyncIterator[Event]]:
        """Events as they happen, after the kept ones with an id above `after`; slow readers lose the oldest.

        An `after` that is yet to come is from before a restart: then all kept events are new to the reader.
        """
        position = self._last_id if after is None else after if after <= self._last_id else 0
        await trio.lowlevel.checkpoint()
        yield _Subscription(self, position)

    async def next_after(self, position: int) -> Event:
        """The oldest kept event with an id above `position`, once there is one."""
        await trio.lowlevel.checkpoint()
        while self._last_id <= position:
            await self._added.wait()
        missing = self._events[0].id - position - 1
        return self._events[0] if missing > 0 else self._events[-missing]


class _Subscription:
    def __init__(self, log: EventLog, position: int) -> None:
        self._log = log
        self._position = position

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        event = await self._log.next_after(self._position)
        self._position = event.id
        return event
