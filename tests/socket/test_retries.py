"""Second tries over real sockets: backends that refuse, reset, go silent, hang up; a POST is never sent twice."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from backends import Serve, raw_backend
from path_scene import GET, OK, get, post

from trioproxy.config.schema import Config
from trioproxy.control.messages import SetTable
from trioproxy.net.peer import Peer
from trioproxy.net.plain import PlainStream
from trioproxy.net.prefixed import PrefixedStream
from trioproxy.observe.metrics import Metrics
from trioproxy.proxy.proxy import Proxy
from trioproxy.routing.route import Backend, Route
from trioproxy.routing.table import Table
from trioproxy.testing import Response, Wire

PEER = Peer(
    host="192.0.2.1", port=1, local_host="192.0.2.2", local_port=80, listener="web", tls=False, server_name=None
)
BUSY = b"HTTP/1.1 503 Busy\r\nRetry-After: 60\r\nContent-Length: 4\r\n\r\nbusy"


class Served:
    """A backend that does as it is told, and the heads that it has read."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.heads: list[bytes] = []
        self.connections = 0
        self.port = 0

    async def serve(self, wire: Wire) -> None:
        self.connections += 1
        while True:
            self.heads.append(await wire.read_head())
            match self.how:
                case "resets":
                    return await wire.abort()
                case "resets inside":
                    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Len")
                    return await wire.abort()
                case "closes":
                    return await wire.aclose()
                case "is busy":
                    await wire.send(BUSY)
                case "is silent":
                    await wire.receive()
                    return None
                case _:
                    await wire.send(OK)


@dataclass
class Scene:
    proxy: Proxy
    client: Wire
    first: Served
    second: Served

    async def ask(self, raw: bytes = GET, method: str = "GET") -> Response:
        await self.client.send(raw)
        return await self.client.read_response(method=method)


@asynccontextmanager
async def scene(how: str, config: dict[str, Any] | None = None, **route: Any) -> AsyncGenerator[Scene]:
    """A client of a proxy with two backends: the first does this, the second answers."""
    first, second = Served(how), Served("answers")
    proxy = Proxy(Config.model_validate(config or {}), metrics=Metrics())
    theirs, ours = socket.socketpair()
    with trio.fail_after(30):
        async with AsyncExitStack() as stack:
            for one in (first, second):
                serve: Serve = one.serve
                one.port = await stack.enter_async_context(raw_backend(serve))
            if how == "refuses":
                with socket.socket() as free:
                    free.bind(("127.0.0.1", 0))
                    first.port = free.getsockname()[1]
            backends = [
                Backend(host="127.0.0.1", port=one.port, weight=weight) for one, weight in ((first, 1), (second, 0))
            ]
            given = {"session_id": "s", "service": "web", "backends": backends, **route}
            proxy.execute(SetTable(Table.build([Route.model_validate(given)], version=1)))
            async with trio.open_nursery() as nursery:
                await nursery.start(proxy.run)
                stream = PlainStream.adopt(trio.SocketStream(trio.socket.from_stdlib_socket(theirs)))
                nursery.start_soon(proxy.serve_connection, PrefixedStream(stream), PEER)
                client = Wire(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
                yield Scene(proxy, client, first, second)
                nursery.cancel_scope.cancel()
            await stream.aclose()
            await client.aclose()


@pytest.mark.parametrize("how", ["refuses", "resets", "resets inside", "closes", "is busy"])
async def test_an_idempotent_request_is_answered_whatever_a_backend_does(how: str) -> None:
    async with scene(how, retry={"statuses": "503"}) as between:
        for count in range(1, 4):
            assert (await between.ask()).status == 200
            assert len(between.second.heads) == count


async def test_a_backend_that_is_silent_is_left_after_per_try() -> None:
    async with scene("is silent", retry={"per_try": "100ms"}) as between:
        assert (await between.ask()).status == 200
        assert (len(between.first.heads), len(between.second.heads)) == (1, 1)


@pytest.mark.parametrize("how", ["resets", "resets inside", "closes", "is busy"])
async def test_a_post_is_never_sent_twice(how: str) -> None:
    async with scene(how, retry={"statuses": "503"}) as between:
        assert (await between.ask(post(b"pay"))).status == (503 if how == "is busy" else 502)
        assert (len(between.first.heads), len(between.second.heads)) == (1, 0)


async def test_a_post_that_was_not_sent_is_sent_elsewhere_once() -> None:
    async with scene("refuses") as between:
        assert (await between.ask(post(b"pay"))).status == 200
        assert len(between.second.heads) == 1


async def test_a_post_on_a_kept_connection_that_closes_is_never_sent_twice() -> None:
    async with scene("answers") as between:
        assert (await between.ask()).status == 200
        between.first.how = "closes"
        assert (await between.ask(post(b"pay"))).status == 502
        assert [head.split()[0] for head in between.first.heads] == [b"GET", b"POST"]
        assert between.second.heads == []


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_an_idempotent_request_on_a_kept_connection_that_closes_is_sent_again(method: str) -> None:
    async with scene("answers") as between:
        assert (await between.ask()).status == 200
        between.first.how = "closes"
        assert (await between.ask(get(method=method), method)).status == 200
        assert between.first.connections + between.second.connections >= 2


async def test_a_refusing_backend_is_not_dialled_for_every_request() -> None:
    async with scene("refuses", {"pool": {"refused_for": "1h"}, "health": {"passive": {"failures": 0}}}) as between:
        for _ in range(20):
            assert (await between.ask()).status == 200
        [stats] = between.proxy.balancer.routes()
        assert [(one.requests, one.outcomes) for one in stats.backends.values()] == [(20, 1), (20, 20)]
