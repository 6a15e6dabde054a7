"""One service behind a proxy, for tests of what goes over the wire: /s/v/, served by "kernel", on memory streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioproxy.testing import Harness, MemoryBackend, Wire, open_proxy
from trioproxy.testing.pipe import PipeEnd

PATIENCE = 60.0  # seconds, after which a test is not slow but stuck

both_ways = pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "byte by byte"])
"""Run with messages sent in one piece, and again in pieces of one byte, each of which the proxy reads alone."""

FORWARDED = (
    b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: hub\r\nX-Forwarded-Port: 80\r\n"
    b"X-Forwarded-Prefix: /s/v\r\nX-Request-Id: r1\r\n\r\n"
)
"""How every head ends that a backend gets of a request with `Host: hub` and `X-Request-Id: r1`."""


def get(*fields: bytes, line: bytes = b"GET /s/v/ HTTP/1.1") -> bytes:
    """A request head with these field lines after Host and id."""
    return b"\r\n".join((line, b"Host: hub", b"X-Request-Id: r1", *fields)) + b"\r\n\r\n"


def up(*fields: bytes, line: bytes = b"GET / HTTP/1.1") -> bytes:
    """The head that the backend gets for it."""
    return b"\r\n".join((line, b"Host: hub", *fields, FORWARDED))


def ok(*fields: bytes, line: bytes = b"HTTP/1.1 200 OK", body: bytes = b"") -> bytes:
    """A response."""
    return b"\r\n".join((line, *fields)) + b"\r\n\r\n" + body


async def heard(wire: Wire) -> bytes:
    """Everything that has arrived by the time nothing moves any more; `ending` tells what came after it."""
    stream = wire.stream
    assert isinstance(stream, PipeEnd)
    data = b""
    await wait_all_tasks_blocked()
    with suppress(trio.BrokenResourceError):
        while stream.readable_now() and (piece := await wire.receive()):
            data += piece
            await wait_all_tasks_blocked()
    return data


async def ending(wire: Wire) -> Literal["open", "closed", "reset"]:
    """What the proxy did after all that was `heard`: nothing, an orderly end of sending, or a reset."""
    assert isinstance(wire.stream, PipeEnd)
    await wait_all_tasks_blocked()
    if not wire.stream.readable_now():
        return "open"
    try:
        assert await wire.receive() == b""
    except trio.BrokenResourceError:
        return "reset"
    return "closed"


def is_cut(wire: Wire) -> bool:
    """Whether the proxy has closed the connection, so that nothing more can be sent either."""
    assert isinstance(wire.stream, PipeEnd)
    return wire.stream.peer_closed


async def say(wire: Wire, data: bytes, *, bytewise: bool) -> None:
    """Send, and wait until the proxy has done what it can with it. It may have closed the connection meanwhile."""
    for piece in [data[at : at + 1] for at in range(len(data))] if bytewise else [data]:
        if is_cut(wire):
            return
        await wire.send(piece)
        await wait_all_tasks_blocked()


@dataclass
class Service:
    """A running proxy and its one backend."""

    harness: Harness
    backend: MemoryBackend
    bytewise: bool

    async def ask(self, raw: bytes, **client: Any) -> Wire:
        """Connect as a client and send this; `client` as for `Harness.connect`."""
        wire = await self.harness.connect(**client)
        await self.say(wire, raw)
        return wire

    async def say(self, wire: Wire, raw: bytes) -> None:
        """Send this on a connection of either side."""
        await say(wire, raw, bytewise=self.bytewise)

    async def answered(self, request: bytes, response: bytes, **client: Any) -> tuple[bytes, bytes]:
        """Have a request answered; what the backend got, and what the client got."""
        asker = await self.ask(request, **client)
        kernel = await self.backend.accept()
        got = await heard(kernel)
        await self.say(kernel, response)
        return got, await heard(asker)


@asynccontextmanager
async def service(
    *, bytewise: bool = False, config: Mapping[str, Any] | None = None, **route: Any
) -> AsyncIterator[Service]:
    """Run a proxy with the route /s/v while inside; `route` holds further keys of the route object."""
    with trio.fail_after(PATIENCE):
        async with open_proxy(config=config) as harness:
            backend = harness.network.listen("kernel", 8888)
            harness.set_routes([backend.route("s", "v", **route)])
            yield Service(harness, backend, bytewise)
