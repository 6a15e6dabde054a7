"""Bringing the table in force to the forwarders."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import trio

from trioproxy.errors import ProviderError
from trioproxy.process.slot import Slot
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

    def __init__(self, catalog: Catalog, slots: Sequence[Slot], keeper: VersionKeeper) -> None:
        self._catalog = catalog
        self._slots = slots
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
            await self._send()
            try:
                await self._keeper.save_version(self._catalog.version)
            except ProviderError as error:
                _LOG.warning("the table's version cannot be kept", extra={"error": str(error)})

    async def publish(self) -> bool:
        """Send the table now; whether every live forwarder serves it within `APPLY_SECONDS`."""
        with trio.move_on_after(APPLY_SECONDS):
            return await self._send()
        return False

    async def _send(self) -> bool:
        table = self._catalog.table
        live = [slot for slot in self._slots if slot.live]
        applied: list[bool] = []

        async def send(slot: Slot) -> None:
            applied.append(await slot.set_table(table))

        async with trio.open_nursery() as nursery:
            for slot in live:
                nursery.start_soon(send, slot)
        return bool(live) and all(applied)
