from __future__ import annotations

from typing import Any

import pytest
import trio

from trioproxy.errors import Overloaded
from trioproxy.health.http_check import MAX_BODY, MAX_HEAD
from trioproxy.health.probe import Finding, probe
from trioproxy.routing.route import Backend, Health, parse_statuses
from trioproxy.testing.network import MemoryNetwork

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
HTTP: dict[str, Any] = {"kind": "http", "path": "/up?x=1", "timeout": 2}


async def check(answer: bytes, *, close: bool = True, **spec: Any) -> tuple[Finding, bytes]:
    """What a check finds of a backend that answers so, and what it was asked."""
    network = MemoryNetwork()
    server = network.listen("h", 80)
    head = b""

    async def serve() -> None:
        nonlocal head
        wire = await server.accept()
        head = await wire.read_head()
        try:
            await wire.send(answer)
            if close:
                await wire.send_eof()
        except trio.BrokenResourceError:
            await wire.aclose()  # it has read enough

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        found = await probe(server.as_backend(), Health.model_validate(HTTP | spec), dialer=network.dial)
    assert network.leaked() == []
    return found, head


async def test_a_get_asks_for_what_it_should(autojump_clock: trio.abc.Clock) -> None:
    found, head = await check(b"HTTP/1.1 204 No Content\r\n\r\n", host="app.example")
    assert found == Finding()
    assert head.startswith(b"GET /up?x=1 HTTP/1.1\r\nHost: app.example\r\n")
    assert b"Host: h:80\r\n" in (await check(b"HTTP/1.1 200 OK\r\n\r\n"))[1]


@pytest.mark.parametrize(
    ("answer", "spec", "error"),
    [
        (b"HTTP/1.1 503 No\r\n\r\n", {}, "answered 503"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", {}, None),
        (b"HTTP/1.1 404 No\r\n\r\n", {"statuses": "200,404"}, None),
        (b"HTTP/1.1 200 OK\r\n\r\nall is o" + b"k now", {"body": "ok"}, None),
        (b"HTTP/1.1 200 OK\r\n\r\nbad", {"body": "ok"}, "answered 200 without the text it should have in its body"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * MAX_BODY + b"ok", {"body": "ok"}, "answered 200 without the text"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_BODY - 2) + b"okok", {"body": "ok"}, None),
        (CHUNKED + b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n", {"body": "ok"}, None),
        (CHUNKED + b"3\r\noko\r\n2\r\nko\r\n0\r\n\r\n", {"body": "kok"}, None),
        # So many chunks keep a core busy for a second: that is not read to its end.
        (CHUNKED + b"1\r\nx\r\n" * 60000 + b"2\r\nok\r\n0\r\n\r\n", {"body": "ok"}, "answered 200 without the text"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", {}, "has answered what is not HTTP"),
        (b"", {}, "has broken the connection before it answered"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2 * MAX_HEAD, {}, "has answered what is not HTTP"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 4000, {}, "and no head of an answer"),
    ],
)
async def test_what_is_wrong_with_an_answer_is_said(
    autojump_clock: trio.abc.Clock, answer: bytes, spec: dict[str, Any], error: str | None
) -> None:
    found, _ = await check(answer, **spec)
    assert found.decided
    assert (found.error is None) if error is None else (error in (found.error or ""))


async def test_one_that_never_answers_costs_the_timeout(autojump_clock: trio.abc.Clock) -> None:
    begun = trio.current_time()
    found, _ = await check(b"HTTP/1.1 200", close=False)
    assert found.error == "has not answered within 2s"
    assert trio.current_time() - begun == 2


async def test_tcp_connects_and_nothing_else(autojump_clock: trio.abc.Clock) -> None:
    network = MemoryNetwork()
    server, spec = network.listen("h", 80), Health(timeout=2)
    assert await probe(server.as_backend(), spec, dialer=network.dial) == Finding()
    assert await (await server.accept()).read_all() == b""
    server.answering = False
    assert (await probe(server.as_backend(), spec, dialer=network.dial)).error == "has not connected within 2s"
    server.accepting = False
    assert "refused" in ((await probe(server.as_backend(), spec, dialer=network.dial)).error or "")


async def test_want_of_files_here_says_nothing_of_the_backend(autojump_clock: trio.abc.Clock) -> None:
    async def exhausted(_: Backend) -> trio.abc.HalfCloseableStream:
        await trio.lowlevel.checkpoint()
        raise Overloaded("no files left")

    found = await probe(Backend(host="h", port=1), Health(), dialer=exhausted)
    assert found == Finding("no files left", decided=False)


def test_lists_of_statuses() -> None:
    assert [status in parse_statuses("200-299,404") for status in (199, 200, 299, 300, 404)] == [
        False,
        True,
        True,
        False,
        True,
    ]
