"""What the supervisor knows of backends, without processes: a table, checks as a test says, one reader's commands."""

from __future__ import annotations

from typing import Any

import trio

from trioproxy.control.messages import BackendChange, Command, News
from trioproxy.health.probe import Finding
from trioproxy.health.prober import Prober
from trioproxy.process.care import Care
from trioproxy.process.events import EventLog
from trioproxy.routing.route import Backend, Health, Route
from trioproxy.routing.table import Table

KEY = ("s", "v")


def ejected(until: float, state: Any = "ejected", previous: Any = "healthy") -> News:
    return News((BackendChange(KEY, "h:1", state, previous, "3 failures in a row", 1.0, until),))


class CareScene:
    """`errors` is what checks find, by port."""

    def __init__(self) -> None:
        self.errors: dict[int, str] = {}
        self.table = Table.build((), version=1)
        self.events = EventLog(clock=trio.current_time)
        self.care = Care(
            lambda: self.table,
            self.events,
            defaults=Health(interval=1.0),
            prober=lambda changed: Prober(changed, probe=self._probe, clock=trio.current_time, rng=lambda: 0.5),
            clock=trio.current_time,
        )
        self.reader = self.care.bulletin.reader(0)

    async def _probe(self, backend: Backend, spec: Health) -> Finding:
        await trio.lowlevel.checkpoint()
        return Finding(self.errors.get(backend.port))

    def route(self, *backends: dict[str, Any], **fields: Any) -> None:
        """Have this route, and no other; none without backends."""
        routes = [Route.model_validate({"session_id": "s", "service": "v", "backends": backends, **fields})]
        self.table = Table.build(routes if backends else (), version=self.table.version + 1)
        self.care.routes_changed([KEY], self.table)

    async def told(self) -> list[Command]:
        """What a forwarder is told within a second."""
        with trio.move_on_after(1):
            return await self.reader.commands()
        return []

    def said(self) -> list[tuple[str, str]]:
        """What the events say: who became what."""
        return [(event.detail["backend_id"], event.detail["state"]) for event in self.events._events]
