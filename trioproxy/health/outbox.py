"""The stream of changes for somebody elsewhere, a coordinator say: kept until they were taken, the last one counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import trio

from trioproxy.control.messages import BackendChange
from trioproxy.routing.route import RouteKey

KEPT = 10_000
"""Backends whose changes wait to be taken; beyond it the oldest are lost, and counted."""
BATCH = 500
"""Changes in one report, at most."""
PAUSE = 1.0
"""Seconds between the first change and the report that brings it along with others."""


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What has become of some backends, in the order in which it did; one entry for each."""

    changes: tuple[BackendChange, ...]


class Outbox:
    """Changes that wait for one taker.

    A backend that changes again before it was told has one entry, the last one: who reads it wants to know what holds.
    """

    def __init__(self, *, kept: int = KEPT) -> None:
        self._kept = kept
        self._waiting: dict[tuple[RouteKey, str], BackendChange] = {}
        self._more = trio.Event()
        self.lost = 0
        """Changes that nobody took and there was no room for."""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, changes: Iterable[BackendChange]) -> None:
        """Have these told."""
        for change in changes:
            key = (change.route, change.backend_id)
            self._waiting.pop(key, None)
            self._waiting[key] = change
        while len(self._waiting) > self._kept:
            del self._waiting[next(iter(self._waiting))]
            self.lost += 1
        if self._waiting:
            self._more.set()

    async def next_report(self) -> HealthReport:
        """The oldest changes, once there are some and `PAUSE` is over. They stay until they are `taken`."""
        while not self._waiting:
            self._more = trio.Event()
            await self._more.wait()
        await trio.sleep(PAUSE)
        return HealthReport(tuple(list(self._waiting.values())[:BATCH]))

    def taken(self, report: HealthReport) -> None:
        """The other side has it: forget these changes, but for backends that have changed since."""
        for change in report.changes:
            key = (change.route, change.backend_id)
            if self._waiting.get(key) is change:
                del self._waiting[key]
