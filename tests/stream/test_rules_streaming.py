"""Every piece is passed on as it comes, and nothing is piled up."""

from __future__ import annotations

import pytest
import trio
from rules import both_ways, ending, get, heard, is_cut, ok, service, up
from trio.testing import MockClock, wait_all_tasks_blocked

OWN = b"X-Request-Id: r1"
PIECES = [b"data: 1\n\n", b"d", b"ata: 2\n", b"\n", b": keep-alive\n\n", bytes(range(256))]


@pytest.mark.parametrize("coding", ["length", "chunked", "close"])
async def test_each_piece_of_a_response_is_passed_on_at_once(coding: str) -> None:
    total = sum(map(len, PIECES))
    field = {"length": b"Content-Length: %d" % total, "chunked": b"Transfer-Encoding: chunked", "close": b"A: b"}[
        coding
    ]
    async with service() as one:
        client = await one.ask(get(b"Accept: text/event-stream"))
        kernel = await one.backend.accept()
        await heard(kernel)
        await kernel.send(ok(b"Content-Type: text/event-stream", field))
        assert (await heard(client)).startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
        for piece in PIECES:
            framed = b"%x\r\n%b\r\n" % (len(piece), piece)
            await kernel.send(framed if coding == "chunked" else piece)
            assert await heard(client) == (piece if coding == "length" else framed)
        assert await ending(client) == "open"


@pytest.mark.parametrize("coding", ["length", "chunked"])
async def test_each_piece_of_a_request_is_passed_on_at_once(coding: str) -> None:
    total = sum(map(len, PIECES))
    field = b"Content-Length: %d" % total if coding == "length" else b"Transfer-Encoding: chunked"
    async with service() as one:
        client = await one.ask(get(field, line=b"POST /s/v/ HTTP/1.1"))
        kernel = await one.backend.accept()
        assert await heard(kernel) == up(field, line=b"POST / HTTP/1.1")
        for piece in PIECES:
            framed = piece if coding == "length" else b"%x\r\n%b\r\n" % (len(piece), piece)
            await client.send(framed)
            assert await heard(kernel) == framed


async def test_a_chunk_that_comes_in_pieces_is_passed_on_in_pieces() -> None:
    async with service() as one:
        client = await one.ask(get())
        kernel = await one.backend.accept()
        await heard(kernel)
        await kernel.send(ok(b"Transfer-Encoding: chunked", body=b"6\r\nab"))
        assert await heard(client) == ok(b"Transfer-Encoding: chunked", OWN, body=b"2\r\nab\r\n")
        await kernel.send(b"c")
        assert await heard(client) == b"1\r\nc\r\n"
        await kernel.send(b"def\r")
        assert await heard(client) == b"3\r\ndef\r\n"
        await kernel.send(b"\n1")
        assert await heard(client) == b""
        await kernel.send(b"\r\ng\r\n0\r\n\r\n")
        assert await heard(client) == b"1\r\ng\r\n0\r\n\r\n"


async def send_until_stuck(wire: trio.abc.SendStream, piece: bytes) -> int:
    """How much it takes before sending waits for a reader."""
    sent = 0
    with trio.move_on_after(50):
        while True:
            await wire.send_all(piece)
            sent += len(piece)
    return sent


HELD = 2 * 2**20
"""Bytes: two pipes of 256 KiB, a relay buffer, and what is under way between them; far less than the body."""


async def test_a_client_that_does_not_read_stops_the_backend(autojump_clock: MockClock) -> None:
    async with service() as one:
        await one.ask(get())
        kernel = await one.backend.accept()
        await kernel.send(ok(b"Content-Length: 1000000000"))
        assert await send_until_stuck(kernel.stream, bytes(100_000)) < HELD


async def test_a_backend_that_does_not_read_stops_the_client(autojump_clock: MockClock) -> None:
    async with service() as one:
        client = await one.ask(get(b"Content-Length: 1000000000", line=b"POST /s/v/ HTTP/1.1"))
        assert await send_until_stuck(client.stream, bytes(100_000)) < HELD


@both_ways
async def test_a_client_that_leaves_takes_its_request_with_it(bytewise: bool, autojump_clock: MockClock) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get())
        kernel = await one.backend.accept()
        await heard(kernel)
        await client.aclose()
        await trio.sleep(2)
        assert is_cut(kernel)
        assert one.harness.network.leaked() == []
        assert [(record.status, record.error) for record in one.harness.records] == [(499, "client_gone")]


@pytest.mark.parametrize("framing", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_a_client_that_leaves_inside_its_upload_leaves_no_complete_request(framing: bytes, leave: str) -> None:
    async with service() as one:
        client = await one.ask(get(framing, line=b"POST /s/v/ HTTP/1.1") + b"3\r\nabc\r\n")
        kernel = await one.backend.accept()
        assert (await heard(kernel)).endswith(b"3\r\nabc\r\n")
        await (client.aclose() if leave == "close" else client.abort())
        await wait_all_tasks_blocked()
        assert await heard(kernel) == b""
        assert is_cut(kernel)
        assert [(record.status, record.error) for record in one.harness.records] == [(499, "client_gone")]


@pytest.mark.parametrize("framing", [b"Content-Length: 1000", b"Transfer-Encoding: chunked", b"A: b"])
async def test_a_client_that_leaves_inside_its_download_takes_the_backends_connection_with_it(framing: bytes) -> None:
    async with service() as one:
        client = await one.ask(get())
        kernel = await one.backend.accept()
        await heard(kernel)
        await kernel.send(ok(framing, body=b"3\r\nabc\r\n"))
        await heard(client)
        await client.aclose()
        await kernel.send(b"3\r\ndef\r\n")
        await wait_all_tasks_blocked()
        assert is_cut(kernel)
        assert [record.error for record in one.harness.records] == ["client_gone"]
