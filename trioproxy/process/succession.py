"""The new generation's side of an upgrade: it gets ready, takes the routes over, and says when it serves."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import trio

from trioproxy.control.descriptors import DescriptorFrames
from trioproxy.errors import ControlError, ProviderError
from trioproxy.process.bequest import take_over
from trioproxy.process.care import Care
from trioproxy.process.fleet import Fleet
from trioproxy.process.inheritance import Inheritance, dump, parse
from trioproxy.process.intake import Intake
from trioproxy.process.publisher import Publisher
from trioproxy.process.state import note_holder
from trioproxy.process.writes import PROVIDER
from trioproxy.providers.store import RouteStore
from trioproxy.routing.catalog import Catalog

TRIES = 4
"""How often forwarders are given their time to take the routes: a large table takes longer than a write waits."""


class Succession:
    """Takes over from a running worker. `failure` says why that came to nothing."""

    def __init__(
        self,
        inheritance: Inheritance,
        *,
        store: RouteStore,
        catalog: Catalog,
        intake: Intake,
        care: Care,
        fleet: Fleet,
        publisher: Publisher,
    ) -> None:
        self._inheritance = inheritance
        self._frames = DescriptorFrames(inheritance.channel.dup())
        self._store = store
        self._catalog = catalog
        self._intake = intake
        self._care = care
        self._fleet = fleet
        self._publisher = publisher
        self.failure: str | None = None

    async def take_over(self) -> bool:
        """Ask the other generation to let go, and take over what it had; False when that comes to nothing.

        Forwarders must be there. Afterwards they have all routes, and may accept connections.
        """
        try:
            await self._frames.send(dump({"state": "prepared"}))
            frame = await self._frames.receive()
            if frame is None:
                self.failure = "the worker that runs called the upgrade off"
                return False
            await self._take(parse(frame))
        except trio.BrokenResourceError:
            self.failure = "the worker that runs is gone"
        except (ControlError, ProviderError) as error:
            self.failure = str(error)
        return self.failure is None

    async def _take(self, left: dict[str, Any]) -> None:
        await self._store.resume()
        async with self._intake.turn:
            self._catalog.count_from(max(self._store.version, int(left.get("version", 0))))
        await self._intake.replace(PROVIDER, await self._store.load())
        take_over(self._care, left)
        await self._care.catch_up()
        await self._spread()
        for command in self._care.commands():
            await self._fleet.ask(command)
        note_holder(self._inheritance.state)

    async def _spread(self) -> None:
        for _ in range(TRIES):
            if await self._publisher.publish():
                return
        raise ControlError("the new forwarders did not take the routes in time")

    async def tell_ready(self) -> None:
        """This generation serves: the other one may go."""
        with suppress(trio.BrokenResourceError):  # it has gone already, and we serve
            await self._frames.send(dump({"state": "ready"}))
        await self._frames.aclose()
