"""The supervisor's run: what starts in which order, and how it ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import trio

from trioproxy.errors import ConfigError, StartError
from trioproxy.process.custody import Management
from trioproxy.process.events import EventLog
from trioproxy.process.fleet import Fleet
from trioproxy.process.lifecycle import Lifecycle
from trioproxy.process.notify import Notifier
from trioproxy.process.publisher import Publisher
from trioproxy.process.services import Service, keep_running, run_essential, start_loudly
from trioproxy.process.settings import Settings
from trioproxy.process.sources import Sources

DRAIN_MARGIN = 5.0
"""Seconds beyond `worker.drain_timeout` that forwarders have for closing what was cut."""
PATIENCE = 10.0
"""Seconds, half of the grace at most, in which an idle connection may bring one more request, where another
generation serves already."""
MANAGEMENT_SECONDS = 5.0
"""How long calls of the management API may go on after the drain."""

_LOG = logging.getLogger("trioproxy.process.supervisor")


class Succeeding(Protocol):
    """Taking over from a worker that runs, see process.succession."""

    @property
    def failure(self) -> str | None:
        """Why that came to nothing."""
        ...

    async def take_over(self) -> bool:
        """Wait until the other one lets go, and have all it had; False when that failed."""
        ...

    async def tell_ready(self) -> None:
        """Let the other one go."""
        ...


@dataclass(frozen=True, slots=True)
class Supervisor:
    """The parts of a worker that run, and those that say when to stop.

    `release` closes the listening sockets here. `gate` lets forwarders accept connections; `succession` is what comes
    before that where this worker takes over from another one. `upgrade` hands over to the next. `warm_up` is run in a
    thread while forwarders start, for what can be done in that time. `ready` is called once everything works.
    """

    lifecycle: Lifecycle
    settings: Settings
    sources: Sources
    fleet: Fleet
    release: Callable[[], None]
    publisher: Publisher
    management: Management
    events: EventLog
    notifier: Notifier
    gate: trio.Event
    upgrade: Service
    signals: Service
    ready: Callable[[], None]
    warm_up: Callable[[], None] = lambda: None
    succession: Succeeding | None = None
    companions: Sequence[tuple[str, Service]] = ()  # what else runs along, by name, and is there before the routes

    async def run(self) -> bool:
        """Run until told to stop and drained; whether all of it ended as it was meant to.

        Raises:
            StartError: no forwarder could be started.
        """
        finished = trio.Event()
        managed = trio.Event()

        async def management(*, task_status: trio.TaskStatus[Any]) -> None:
            try:
                await self.management(shutdown_trigger=finished.wait, task_status=task_status)
            finally:
                managed.set()

        async with trio.open_nursery() as root:
            await self._start(root, "signals", self.signals)
            if await self._start_all(root, management):
                await self.lifecycle.draining.wait()
                await self._drain()
                finished.set()
                with trio.move_on_after(MANAGEMENT_SECONDS):
                    await managed.wait()
            root.cancel_scope.cancel()
        if self.fleet.failure is not None:
            raise StartError(f"no forwarder could be started; one of them {self.fleet.failure}")
        if self.succession is not None and self.succession.failure is not None:
            raise StartError(self.succession.failure)
        return self.lifecycle.clean

    async def _start_all(self, root: trio.Nursery, management: Service) -> bool:
        """Start everything, in order; False when told to stop before that was done, or when nothing can forward."""
        done = False
        async with trio.open_nursery() as starting:
            starting.start_soon(self._cancel_when_draining, starting.cancel_scope)
            await self._start(root, "watchdog", self.notifier.run_watchdog)
            for name, service in self.companions:
                await self._start(root, name, service)
            await self._start(root, "providers", self.sources.run)
            starting.start_soon(trio.to_thread.run_sync, self.warm_up)
            await self._start(root, "forwarders", self._run_fleet)
            if self.fleet.failure is None and await self._own_the_routes(root):
                self.gate.set()
                await self._start(root, "management", management)
                await self._start(root, "reload", partial(keep_running, "reload", self._reload_on_request))
                done = True
            starting.cancel_scope.cancel()
        if done:
            if self.succession is None:
                self.notifier.ready(self.settings.summary)
            else:
                await self.succession.tell_ready()  # and the other one tells the service manager
            self.ready()
            await self._start(root, "upgrade", partial(keep_running, "upgrade", self.upgrade))
        return done

    async def _own_the_routes(self, root: trio.Nursery) -> bool:
        """Bring the forwarders up to date, with what another worker leaves where there is one."""
        await self._start(root, "publisher", self.publisher.run)
        if self.succession is not None:
            return await self.succession.take_over()
        await self.publisher.publish()
        return True

    async def _cancel_when_draining(self, scope: trio.CancelScope) -> None:
        await self.lifecycle.draining.wait()
        scope.cancel()

    async def _start(self, root: trio.Nursery, name: str, service: Service) -> None:
        crashed = self.lifecycle.service_crashed
        await start_loudly(root, name, partial(run_essential, name, service, crashed))

    async def _run_fleet(self, *, task_status: trio.TaskStatus[None]) -> None:
        await self.fleet.run(task_status=task_status)
        if self.fleet.crashed:
            self.lifecycle.service_crashed()

    async def _reload_on_request(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while True:
            await self.lifecycle.reload_wanted.wait()
            self.lifecycle.reload_wanted = trio.Event()
            if self.lifecycle.draining.is_set():
                continue
            self.notifier.reloading()
            try:
                await self.settings.reload()
            except ConfigError as error:
                _LOG.error("nothing was reloaded: the configuration is wrong", extra={"problems": error.problems})
            self.notifier.ready(self.settings.summary)

    async def _drain(self) -> None:
        grace = self.settings.config.worker.drain_timeout
        patience = min(PATIENCE, grace / 2) if self.lifecycle.handed_over else 0.0
        if not self.lifecycle.handed_over:
            self.notifier.stopping("draining")
        self.events.add("drain", grace=grace)
        _LOG.info("draining", extra={"grace": grace})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cut_when_asked)
            with trio.move_on_after(grace + DRAIN_MARGIN) as limit:
                await self.fleet.drain(grace, patience)
                self.release()
                await self.fleet.wait_ended()
            nursery.cancel_scope.cancel()
        if limit.cancelled_caught:
            _LOG.error("forwarders did not end in time", extra={"grace": grace})
            with trio.move_on_after(DRAIN_MARGIN):
                await self.fleet.cut()
                await self.fleet.wait_ended()
        _LOG.info("drained")

    async def _cut_when_asked(self) -> None:
        await self.lifecycle.cut.wait()
        await self.fleet.cut()
