"""Routes that stand in the configuration itself."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from trioproxy.providers.provider import Sink
from trioproxy.routing.route import Route


class StaticProvider:
    """Delivers the `[[routes]]` of the configuration once, and again when a reload brings others."""

    name = "static"

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self._routes = tuple(routes)
        self._sink: Sink | None = None

    async def set(self, routes: Iterable[Route]) -> None:
        """Deliver these routes from now on: at once while `run` runs, else when it starts."""
        self._routes = tuple(routes)
        if self._sink is None:
            await trio.lowlevel.checkpoint()
        else:
            await self._sink.replace(self.name, self._routes)

    async def run(self, sink: Sink, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Deliver the routes, then wait to be cancelled."""
        self._sink = sink
        try:
            await sink.replace(self.name, self._routes)
            task_status.started()
            await trio.sleep_forever()
        finally:
            self._sink = None

    async def refresh(self) -> None:
        """Do nothing: whoever read the configuration again hands the routes to `set`."""
        await trio.lowlevel.checkpoint()
