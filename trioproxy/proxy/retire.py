"""What a table change ends: streams and requests of routes and backends that are gone, after their grace.

In-flight work of a removed route goes on for `worker.drain_timeout` and is then cut; a route or backend that comes
back in time is left alone, and so is every other route.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import trio

from trioproxy.proxy.balancer import Balancer
from trioproxy.proxy.live import LiveConnections
from trioproxy.routing.route import RouteKey
from trioproxy.routing.table import Table


@dataclass(frozen=True, slots=True)
class Retired:
    """A route, or one backend address of it, that the table does not have any more."""

    key: RouteKey
    backend_key: str | None  # None: the whole route

    def is_back(self, table: Table) -> bool:
        """Whether this table has it again."""
        route = table.get(self.key)
        if route is None:
            return False
        return self.backend_key is None or any(backend.key == self.backend_key for backend in route.backends)


class Retirement:
    """Remembers what was removed until its grace is over. At most one entry per route or backend in use."""

    def __init__(self, live: LiveConnections) -> None:
        self._live = live
        self._deadlines: dict[Retired, float] = {}
        self._changed = trio.Event()

    def table_changed(
        self, balancer: Balancer, table: Table, changed: Collection[RouteKey] | None = None, *, grace: float
    ) -> None:
        """Compare what is in use with the new table. Call before the balancer forgets.

        `changed`: the keys that may differ from the table before; None = any. `grace` in seconds.
        """
        # Asked of the table and not of the balancer, which may know nothing any more of what comes back.
        self._deadlines = {retired: due for retired, due in self._deadlines.items() if not retired.is_back(table)}
        due = trio.current_time() + grace
        for stats in balancer.known(changed):
            if not stats.in_flight:
                continue
            route = table.get(stats.route.key)
            if route is None:
                self._deadlines.setdefault(Retired(stats.route.key, None), due)
                continue
            kept = {backend.key for backend in route.backends}
            for backend in stats.in_use():
                if backend.key not in kept:
                    self._deadlines.setdefault(Retired(route.key, backend.key), due)
        self._changed.set()

    async def run(self) -> None:
        """End what is due; runs until cancelled."""
        while True:
            self._changed = trio.Event()
            now = trio.current_time()
            for retired in [one for one, due in self._deadlines.items() if due <= now]:
                del self._deadlines[retired]
                self._live.end_route(retired.key, retired.backend_key, "its route was removed")
            with trio.CancelScope(deadline=min(self._deadlines.values(), default=math.inf)):
                await self._changed.wait()
