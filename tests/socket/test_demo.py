from __future__ import annotations

import json
import socket

import httpx
import pytest
import trio
from trio_websocket import ConnectionClosed, open_websocket_url

from trioproxy.process.demo import bind_demo, demo_route, serve_demo


@pytest.fixture
async def port(nursery: trio.Nursery) -> int:
    sock = bind_demo()
    await nursery.start(serve_demo, sock)
    return sock.getsockname()[1]


def test_its_route_leads_to_where_it_listens() -> None:
    with bind_demo() as sock:
        route = demo_route(sock)
        assert route.key == ("demo", "hello")
        assert (route.backends[0].host, route.backends[0].port) == sock.getsockname()


async def test_the_page_shows_the_request_it_saw_and_nothing_of_it_is_markup(port: int) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{port}/?<b>", headers={"X-Evil": "<script>alert(1)</script>"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<th>X-Evil</th><td>&lt;script&gt;alert(1)&lt;/script&gt;</td>" in answer.text
    assert "<script>alert(1)" not in answer.text
    assert "<code>GET /?%3Cb%3E</code>" in answer.text


async def test_programs_get_the_headers_as_json(port: int) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{port}/headers?a=b", headers={"X-One": "1"})
    assert answer.json()["target"] == "/headers?a=b"
    assert ["X-One", "1"] in answer.json()["headers"]


async def test_one_connection_serves_many_requests_of_every_kind(port: int) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        requests = (
            b"POST /headers HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
            b"POST /headers HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
            b"GET /headers HTTP/1.1\r\nHost: last\r\nConnection: close\r\n\r\n"
        )
        await stream.send_all(requests)
        received = b"".join([chunk async for chunk in stream])
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 4
    assert json.loads(received.rpartition(b"\r\n\r\n")[2])["headers"] == [["Host", "last"], ["Connection", "close"]]


async def test_a_client_that_waits_for_100_continue_gets_it(port: int) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 100 ")
        await stream.send_all(b"ok")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    "sent",
    [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nHost", b"", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx"],
)
async def test_a_client_that_talks_nonsense_or_leaves_harms_nobody(port: int, sent: bytes) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        if sent:
            await stream.send_all(sent)
        await stream.send_eof()
        with trio.fail_after(10):
            assert [chunk async for chunk in stream] == []
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 200


async def test_its_websocket_echoes_text_and_bytes(port: int) -> None:
    async with open_websocket_url(f"ws://127.0.0.1:{port}/ws") as websocket:
        await websocket.send_message("hello")
        assert await websocket.get_message() == "hello"
        await websocket.send_message(b"\x00\xff")
        assert await websocket.get_message() == b"\x00\xff"


async def test_a_websocket_client_that_vanishes_harms_nobody(port: int) -> None:
    for _ in range(2):
        async with open_websocket_url(f"ws://127.0.0.1:{port}/ws") as websocket:
            await websocket.send_message("hello")
            assert await websocket.get_message() == "hello"
            await trio.aclose_forcefully(websocket._stream)
            with pytest.raises(ConnectionClosed):
                await websocket.get_message()


def test_it_is_reachable_from_this_machine_only() -> None:
    with bind_demo() as sock:
        assert sock.family == socket.AF_INET
        assert sock.getsockname()[0] == "127.0.0.1"
