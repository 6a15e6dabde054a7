"""A proxy that runs on memory streams, and the tests' ways into it."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from trioproxy.config.schema import Config
from trioproxy.control.messages import GetReport, Report, SetTable
from trioproxy.net.peer import Peer
from trioproxy.net.prefixed import PrefixedStream
from trioproxy.observe.access_log import AccessLog, RequestRecord
from trioproxy.observe.metrics import Metrics
from trioproxy.proxy.proxy import Proxy
from trioproxy.routing.route import Route
from trioproxy.routing.table import Table
from trioproxy.testing.network import MemoryNetwork
from trioproxy.testing.pipe import open_pipe
from trioproxy.testing.wire import Wire


class RecordingLog(AccessLog):
    """An access log that keeps its records in a list."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__("off", metrics)
        self.records: list[RequestRecord] = []

    def write(self, record: RequestRecord) -> None:
        """Keep it."""
        self.records.append(record)


class Harness:
    """A running proxy with its network. Made by `open_proxy`."""

    def __init__(
        self, config: Config, network: MemoryNetwork, handler_nursery: trio.Nursery, rng: Callable[[], float]
    ) -> None:
        """`handler_nursery` holds one task per client connection."""
        metrics = Metrics()
        self.network = network
        self.log = RecordingLog(metrics)
        self.proxy = Proxy(config, dial=network.dial, access_log=self.log, metrics=metrics, rng=rng)
        self._handler_nursery = handler_nursery
        self._version = 0
        self._ended = trio.Event()

    @property
    def records(self) -> list[RequestRecord]:
        """The record of every request that has ended, in order."""
        return self.log.records

    def set_routes(self, routes: Iterable[Route]) -> None:
        """Replace the proxy's table."""
        self._version += 1
        self.proxy.execute(SetTable(Table.build(routes, version=self._version)))

    def report(self, *, connections: bool = False) -> Report:
        """The proxy's figures."""
        report = self.proxy.execute(GetReport(connections=connections))
        assert isinstance(report, Report)
        return report

    async def connect(
        self,
        *,
        host: str = "192.0.2.1",
        port: int = 40000,
        listener: str = "web",
        tls: bool = False,
        capacity: int = 256 * 1024,
    ) -> Wire:
        """Connect as a client from this address. `capacity`: bytes the connection holds each way."""
        await trio.lowlevel.checkpoint()
        theirs, ours = open_pipe(capacity)
        peer = Peer(
            host=host,
            port=port,
            local_host="192.0.2.100",
            local_port=5050,
            listener=listener,
            tls=tls,
            server_name=None,
        )

        async def serve() -> None:
            try:
                await self.proxy.serve_connection(PrefixedStream(theirs), peer)
            finally:
                with trio.move_on_after(1, shield=True):
                    await trio.aclose_forcefully(theirs)
                self._ended.set()
                self._ended = trio.Event()

        self._handler_nursery.start_soon(serve)
        return Wire(ours)

    async def send(self, raw: bytes, **client: Any) -> Wire:
        """Connect as a client and send these bytes; `client` as for `connect`."""
        wire = await self.connect(**client)
        await wire.send(raw)
        return wire

    async def all_ended(self) -> None:
        """Wait until the proxy serves no client connection any more."""
        await trio.lowlevel.checkpoint()
        while self.proxy.live:
            await self._ended.wait()


@asynccontextmanager
async def open_proxy(
    routes: Iterable[Route] = (),
    *,
    config: Mapping[str, Any] | None = None,
    network: MemoryNetwork | None = None,
    rng: Callable[[], float] = random.random,
) -> AsyncGenerator[Harness]:
    """Run a proxy while inside.

    `config` holds sections as in the configuration file: `{"timeouts": {"head": "1s"}}`. When the block ends,
    connections that are still open are cut. `rng` tells the numbers from 0 to 1 that pauses and choices depend on.
    An exception of the block leaves it as it is, without a group around it.
    """
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        harness = Harness(Config.model_validate(config or {}), network or MemoryNetwork(), nursery, rng)
        await nursery.start(harness.proxy.run)
        harness.set_routes(routes)
        try:
            yield harness
        except Exception as error:  # noqa: BLE001 - kept from the nursery, which would put it into a group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
