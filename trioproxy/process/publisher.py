"""Bringing the table in force to the forwarders."""

from __future__ import annotations

import logging
from typing import Protocol

import trio

from trioproxy.errors import ProviderError
from trioproxy.process.fleet import Fleet
from trioproxy.routing.catalog import Catalog

APPLY_SECONDS = 5.0
"""How long a write waits for the forwarders."""


_LOG = logging.getLogger("trioproxy.process.publisher")


class VersionKeeper(Protocol):
    """Remembers the table's version, so that versions rise over restarts too."""

    async def save_version(self, version: int) -> None:
        """Remember it. Raises ProviderError when it cannot be kept."""
        ...


class Publisher:
    """Sends the catalog's table to every live forwarder: in the background, or while a write waits for it."""

    def __init__(self, catalog: Catalog, fleet: Fleet, keeper: VersionKeeper) -> None:
        self._catalog = catalog
        self._fleet = fleet
        self._keeper = keeper
        self._dirty = trio.Event()

    def wake(self) -> None:
        """The table changed; `run` sends it."""
        self._dirty.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send the table whenever `wake` was called, the newest one only, and have its version kept."""
        task_status.started()
        while True:
            await self._dirty.wait()
            self._dirty = trio.Event()
            await self._fleet.set_table(self._catalog.table)
            try:
                await self._keeper.save_version(self._catalog.version)
            except ProviderError as error:
                _LOG.warning("the table's version cannot be kept", extra={"error": str(error)})

    async def publish(self) -> bool:
        """Send the table now; whether every live forwarder serves it within `APPLY_SECONDS`."""
        with trio.move_on_after(APPLY_SECONDS):
            return await self._fleet.set_table(self._catalog.table)
        return False
