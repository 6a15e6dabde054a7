"""The usual scene of a request path test: one route to one backend, and what must hold when all is over."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioproxy.observe.access_log import RequestRecord
from trioproxy.testing import Harness, MemoryBackend, Response, Wire, open_proxy

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET /s/web/ HTTP/1.1\r\nHost: hub\r\n\r\n"
PATIENCE = 50_000  # seconds of virtual time; longer than any test takes
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def get(path: str = "/s/web/", fields: bytes = b"", method: str = "GET") -> bytes:
    """A request without a body."""
    return f"{method} {path} HTTP/1.1\r\nHost: hub\r\n".encode() + fields + b"\r\n"


def post(body: bytes = b"", *, length: int | None = None, fields: bytes = b"", path: str = "/s/web/") -> bytes:
    """A POST with these first bytes of its body; `length` defaults to theirs."""
    size = len(body) if length is None else length
    return get(path, b"Content-Length: %d\r\n" % size + fields, "POST") + body


def chunks(*pieces: bytes) -> bytes:
    """Pieces in chunked coding, without the end."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


@asynccontextmanager
async def proxy(
    config: Mapping[str, Any] | None = None, *, rng: Callable[[], float] = random.random
) -> AsyncGenerator[Harness]:
    """A proxy without routes. What waits for ever fails."""
    with trio.fail_after(PATIENCE):
        async with open_proxy(config=config, rng=rng) as harness:
            yield harness


@asynccontextmanager
async def scene(config: Mapping[str, Any] | None = None, **route: Any) -> AsyncGenerator[tuple[Harness, MemoryBackend]]:
    """A proxy with the route /s/web to one backend; `route` are further keys of the route object."""
    async with proxy(config) as harness:
        backend = harness.network.listen("kernel", 8888)
        harness.set_routes([backend.route("s", "web", **route)])
        yield harness, backend


async def answer(wire: Wire, response: bytes = OK) -> bytes:
    """Read the head of a request without a body and answer it; the head."""
    head = await wire.read_head()
    await wire.send(response)
    return head


async def begun(wire: Wire, count: int) -> bytes:
    """Read a head and this many bytes behind it; those bytes."""
    await wire.read_head()
    return await wire.read_exactly(count)


async def exchange(harness: Harness, backend: MemoryBackend, raw: bytes = GET) -> tuple[Wire, Wire, Response]:
    """One request over a new connection to a new backend connection: client, backend, what the client got."""
    client = await harness.send(raw)
    served = await backend.accept()
    await answer(served)
    return client, served, await client.read_response()


async def last_record(harness: Harness) -> RequestRecord:
    """The newest record, once everybody waits for something; there has to be one."""
    await wait_all_tasks_blocked()
    return harness.records[-1]


def route_to(harness: Harness, count: int, weights: tuple[int, ...] = (), **route: Any) -> list[MemoryBackend]:
    """The route /s/web to this many new backends, a:1, b:1 …"""
    backends = [harness.network.listen(name, 1) for name in "abcdefgh"[:count]]
    targets = [
        backend.as_backend(weight=weight) for backend, weight in zip(backends, weights or (1,) * count, strict=True)
    ]
    harness.set_routes([backends[0].route("s", "web", **{"backends": targets, **route})])
    return backends


def failures_of(harness: Harness) -> dict[str, int]:
    """What counts against each backend of the only route, in a row."""
    [route] = harness.proxy.balancer.routes()
    return {one.id: one.failures for one in route.backends.values()}


def failures(harness: Harness) -> int:
    """What counts against the only backend of the only route, in a row."""
    [route] = harness.proxy.balancer.routes()
    [backend] = route.backends.values()
    return backend.failures


async def send_into_reset(wire: Wire, data: bytes) -> None:
    """Send what cannot all be taken before the proxy cuts the connection."""
    with pytest.raises(trio.BrokenResourceError):
        await wire.send(data)


def in_use(harness: Harness) -> dict[str, int]:
    """What the proxy holds for requests now: all zero when nothing is going on."""
    pool = harness.proxy.pool.statistics()
    routes = list(harness.proxy.balancer.routes())
    return {
        "active": pool["active"],
        "dialing": pool["dialing"],
        "waiting": pool["waiting"],
        "route in-flight": sum(route.in_flight for route in routes),
        "backend in-flight": sum(
            one.in_flight for route in routes for one in (*route.backends.values(), *route.leaving)
        ),
        "connections": len(harness.proxy.live),
        "not idle": len(harness.network.leaked()) - pool["idle"],
        "bugs": harness.proxy.metrics.errors["internal_error"],
    }


async def assert_all_over(harness: Harness) -> None:
    """Wait for the last client connection to end, and check that nothing is left of it."""
    await harness.all_ended()
    await wait_all_tasks_blocked()
    assert {name: count for name, count in in_use(harness).items() if count} == {}
