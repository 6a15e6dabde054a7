"""The data plane of one forwarder, without its sockets: connections go in, commands go in, figures come out."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import assert_never

import trio

from trioproxy.config.schema import Config
from trioproxy.control.messages import (
    Activity,
    Answer,
    Applied,
    CloseConnection,
    Done,
    GetNews,
    GetReport,
    PlaneCommand,
    Report,
    SetBackend,
    SetConfig,
    SetEjected,
    SetHealth,
    SetTable,
    StartDrain,
)
from trioproxy.net.dialer import Dialer, dial
from trioproxy.net.peer import Peer
from trioproxy.net.prefixed import PrefixedStream
from trioproxy.net.readiness import start_watching
from trioproxy.observe.access_log import AccessLog
from trioproxy.observe.metrics import Metrics
from trioproxy.proxy.balancer import Balancer
from trioproxy.proxy.connection import Connection
from trioproxy.proxy.drain import Drain
from trioproxy.proxy.live import LiveConnections
from trioproxy.proxy.plane import Plane
from trioproxy.proxy.pool import Pool
from trioproxy.proxy.retire import Retirement
from trioproxy.proxy.router import Router
from trioproxy.proxy.watch import Watch
from trioproxy.routing.table import Table

POLITE_SECONDS = 2.0  # before the end of the grace, at which WebSockets are told that we go away


class Proxy:
    """One forwarder's data plane. Runs where it is told to; several may live in one program.

    `dial` opens connections to backends (tests pass their own network). `access_log` and `metrics` are shared
    with whoever made them. `rng` tells numbers from 0 to 1, for all that is left to chance. `index`: which forwarder of
    a worker this is.
    """

    def __init__(
        self,
        config: Config,
        *,
        dial: Dialer = dial,
        access_log: AccessLog | None = None,
        metrics: Metrics | None = None,
        rng: Callable[[], float] = random.random,
        index: int = 0,
    ) -> None:
        self.metrics = metrics or Metrics()
        self.drain = Drain()
        self.live = LiveConnections()
        self.router = Router(Table.build((), version=0, synced=False))
        self._plane = Plane(
            config=config,
            router=self.router,
            balancer=Balancer(config, rng=rng, index=index),
            pool=Pool(dial, lambda: self._plane.config.pool, rng=rng),
            metrics=self.metrics,
            access_log=access_log,
            drain=self.drain,
            live=self.live,
            watch=Watch(self.live),
            rng=rng,
        )
        self._retirement = Retirement(self.live)
        self._grace, self._patience = config.worker.drain_timeout, 0.0

    @property
    def pool(self) -> Pool:
        """The connections to backends."""
        return self._plane.pool

    @property
    def balancer(self) -> Balancer:
        """What is known of the backends."""
        return self._plane.balancer

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep house until cancelled: idle connections, removed routes, the polite end of streams in a drain."""
        start_watching()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._plane.pool.reap)
                nursery.start_soon(self._plane.watch.run)
                nursery.start_soon(self._retirement.run)
                nursery.start_soon(self._say_goodbye)
                task_status.started()
        finally:
            with trio.move_on_after(1, shield=True):
                await self._plane.pool.aclose()

    async def _say_goodbye(self) -> None:
        await self.drain.started.wait()
        begun = trio.current_time()
        patience = min(self._patience, max(0.0, self._grace - POLITE_SECONDS))
        await trio.sleep(patience)
        self.drain.end_idle()
        await trio.sleep_until(max(trio.current_time(), begun + self._grace - POLITE_SECONDS))
        self.live.end_streams("this worker is shutting down", error="draining")

    async def serve_connection(self, stream: PrefixedStream, peer: Peer) -> None:
        """Serve one client connection until it ends. The caller closes the stream."""
        await Connection(self._plane, stream, peer).serve()

    def execute(self, command: PlaneCommand) -> Answer:
        """Carry out a command of the supervisor; takes effect before it returns."""
        match command:
            case SetTable(table):
                return self._set_table(table)
            case SetConfig(config):
                self._plane.config = config
                self._plane.balancer.configure(config)
                return Done()
            case SetBackend(key, backend_id, state):
                route = self.router.table.get(key)
                return Done(route is not None and self._plane.balancer.set_admin(route, backend_id, state))
            case SetHealth(states, whole):
                self._plane.balancer.set_health(states, whole=whole)
                for state in states:
                    if state.up:
                        self._plane.pool.forgive(state.address)
                return Done()
            case SetEjected(key, backend_id, until, reason):
                route = self.router.table.get(key)
                ejected = self._plane.balancer.set_ejected
                return Done(route is not None and ejected(route, backend_id, until, reason))
            case GetNews():
                return self._plane.balancer.news()
            case CloseConnection(connection_id):
                return Done(self.live.end(connection_id))
            case StartDrain(grace, patience):
                self._grace, self._patience = grace, patience
                if patience > 0:
                    self.drain.start_patiently()
                else:
                    self.drain.start()
                return Done()
            case GetReport():
                return self._report(command)
            case _:
                assert_never(command)

    def _set_table(self, table: Table) -> Applied:
        before = self.router.table
        if table.version >= before.version:
            changed = table.changes_since(before.version) if table.version > before.version else None
            grace = self._plane.config.worker.drain_timeout
            self._retirement.table_changed(self._plane.balancer, table, changed, grace=grace)
            self.router.table = table
            self._plane.balancer.forget(table, changed)
        return Applied(self.router.table.version)

    def _report(self, wanted: GetReport) -> Report:
        self.live.note_activity()
        metrics = copy.deepcopy(self.metrics)
        metrics.pool = self._plane.pool.statistics()
        return Report(
            table_version=self.router.table.version,
            draining=self.drain.active,
            metrics=metrics,
            backends=self._plane.balancer.describe() if wanted.backends else (),
            activity={
                stats.route.key: Activity(
                    last_activity=stats.last_activity,
                    requests=stats.requests,
                    bytes=stats.bytes,
                    connections=stats.in_flight,
                )
                for stats in self._plane.balancer.routes()
                if stats.last_activity >= wanted.active_since
            },
            connections=tuple(one.describe() for one in self.live) if wanted.connections else (),
        )
