"""Clients that ask without end and forgive nothing: every request must be answered with 200."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from processes import eventually

from trioproxy.testing import Wire

PAUSE = 0.004
"""Seconds between two requests of a client, so that several of them leave the machine some room."""
ANSWER_SECONDS = 20.0


@dataclass(frozen=True)
class Target:
    """What to ask: a path at a port of the loopback address, over TLS with a context."""

    port: int
    path: str
    tls: ssl.SSLContext | None = None

    async def dial(self) -> Wire:
        if self.tls is None:
            return Wire(await trio.open_tcp_stream("127.0.0.1", self.port))
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        encrypted = trio.SSLStream(stream, self.tls, server_hostname="localhost", https_compatible=True)
        try:
            await encrypted.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(encrypted)
            raise
        return Wire(encrypted)  # pyright: ignore[reportArgumentType] - TLS has no half-close, and nobody here asks for one


@dataclass
class Client:
    """One client. `keeps` = it uses its connection until it is told that it ends."""

    target: Target
    keeps: bool
    served: int = 0
    connections: int = 0
    failures: list[str] = field(default_factory=list[str])
    stopped: bool = False

    async def run(self) -> None:
        while not self.stopped:
            try:
                with trio.fail_after(ANSWER_SECONDS):
                    wire = await self.target.dial()
            except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
                self.failures.append(f"connecting to {self.target.port}: {error!r} {error.__cause__!r}")
                return
            self.connections += 1
            try:
                await self._use(wire)
            except (EOFError, OSError, AssertionError, trio.BrokenResourceError, trio.TooSlowError) as error:
                self.failures.append(f"request {self.served} at {self.target.port}: {error!r} {error.__cause__!r}")
                return
            finally:
                await trio.aclose_forcefully(wire.stream)

    async def _use(self, wire: Wire) -> None:
        while not self.stopped:
            close = b"" if self.keeps else b"Connection: close\r\n"
            with trio.fail_after(ANSWER_SECONDS):
                await wire.send(b"GET %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n" % (self.target.path.encode(), close))
                answer = await wire.read_response()
            assert answer.status == 200, (answer.status, answer.body)
            self.served += 1
            await trio.sleep(PAUSE)
            if not self.keeps or b"close" in answer.values("connection"):
                return


class Load:
    """All the clients of a block."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self.clients = clients

    @property
    def failures(self) -> list[str]:
        return [failure for client in self.clients for failure in client.failures]

    async def more(self, count: int = 5) -> None:
        """Wait until every client has been served so many times more."""
        goals = [(client, client.served + count) for client in self.clients]

        def served() -> bool:
            assert self.failures == []
            return all(client.served >= goal for client, goal in goals)

        await eventually(served, seconds=40)


@asynccontextmanager
async def under_load(*targets: Target, keeping: int = 3, fresh: int = 2) -> AsyncGenerator[Load]:
    """Load for the time of the block: per target so many clients with a kept connection and with a new one each time.

    They are at work before the block begins, and still at its end; none of their requests may fail.
    """
    kinds = (True,) * keeping + (False,) * fresh
    load = Load([Client(target, keeps) for target in targets for keeps in kinds])
    async with trio.open_nursery() as nursery:
        for client in load.clients:
            nursery.start_soon(client.run)
        await load.more()
        yield load
        await load.more()
        for client in load.clients:
            client.stopped = True
    assert load.failures == []
