"""A final answer while the upload still runs."""

from __future__ import annotations

import pytest
import trio
from rules import both_ways, ending, get, heard, is_cut, ok, service
from trio.testing import MockClock

OWN = b"X-Request-Id: r1"
CLOSE = b"Connection: close"
POST = get(b"Content-Length: 1000", line=b"POST /s/v/ HTTP/1.1")
CHUNKS = get(b"Transfer-Encoding: chunked", line=b"POST /s/v/ HTTP/1.1")


@pytest.mark.parametrize(("head", "part"), [(POST, b"abc"), (CHUNKS, b"3\r\nabc\r\n")], ids=["length", "chunked"])
@pytest.mark.parametrize("status", [b"200 OK", b"413 Content Too Large", b"500 Oops"])
@both_ways
async def test_it_is_relayed_at_once_and_the_connection_ends(
    head: bytes, part: bytes, status: bytes, bytewise: bool
) -> None:
    line = b"HTTP/1.1 " + status
    async with service(bytewise=bytewise) as one:
        client = await one.ask(head + part)
        kernel = await one.backend.accept()
        assert (await heard(kernel)).partition(b"\r\n\r\n")[2] != b""
        await one.say(kernel, ok(b"Content-Length: 5", line=line, body=b"early"))
        assert await heard(client) == ok(b"Content-Length: 5", OWN, CLOSE, line=line, body=b"early")
        assert await ending(client) == "closed"
        assert is_cut(kernel)
        # What the client still sends is read and thrown away, and never taken for a request.
        await one.say(client, get(line=b"GET /s/v/second HTTP/1.1"))
        assert await heard(client) == b""
        assert one.backend.dials == 1


@both_ways
async def test_upload_and_download_overlap(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(CHUNKS)
        kernel = await one.backend.accept()
        await heard(kernel)
        await one.say(kernel, ok(b"Transfer-Encoding: chunked"))
        assert await heard(client) == ok(b"Transfer-Encoding: chunked", OWN, CLOSE)
        for piece in (b"1\r\na\r\n", b"1\r\nb\r\n"):
            await one.say(client, piece)
            assert await heard(kernel) == piece
            await one.say(kernel, piece)
            assert await heard(client) == piece
        await one.say(client, b"0\r\n\r\n")
        assert await heard(kernel) == b"0\r\n\r\n"
        await one.say(kernel, b"0\r\n\r\n")
        assert await heard(client) == b"0\r\n\r\n"
        assert await ending(client) == "closed"


@both_ways
async def test_a_backend_that_answers_and_hangs_up_is_heard(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(POST + b"abc")
        kernel = await one.backend.accept()
        await heard(kernel)
        await one.say(kernel, ok(b"Content-Length: 2", line=b"HTTP/1.1 413 X", body=b"no"))
        await kernel.aclose()
        await one.say(client, b"d" * 20)
        assert await heard(client) == ok(b"Content-Length: 2", OWN, CLOSE, line=b"HTTP/1.1 413 X", body=b"no")


async def test_an_answer_that_a_backend_left_behind_when_it_hung_up_is_heard() -> None:
    async with service() as one:
        client = await one.ask(POST + b"abc")
        kernel = await one.backend.accept()
        await heard(kernel)
        await kernel.send(ok(b"Content-Length: 2", line=b"HTTP/1.1 413 X", body=b"no"))
        await kernel.aclose()
        assert await heard(client) == ok(b"Content-Length: 2", OWN, CLOSE, line=b"HTTP/1.1 413 X", body=b"no")


async def test_the_rest_of_the_upload_is_read_for_a_bounded_time(autojump_clock: MockClock) -> None:
    async with service(config={"timeouts": {"close": "3s"}}) as one:
        client = await one.ask(POST)
        kernel = await one.backend.accept()
        await kernel.send(ok(b"Content-Length: 0"))
        await heard(client)
        assert await ending(client) == "closed"
        await client.send(b"more")
        await trio.sleep(2)
        assert not is_cut(client)
        await trio.sleep(2)
        assert is_cut(client)


@both_ways
async def test_a_refusal_of_ours_before_the_body_ends_the_connection(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get(b"Content-Length: 1000", line=b"POST /nowhere/at/all HTTP/1.1") + get())
        answer = await heard(client)
        assert answer.startswith(b"HTTP/1.1 404 Not Found\r\n")
        assert b"\r\nConnection: close\r\n" in answer
        assert answer.count(b"HTTP/1.1") == 1
        assert await ending(client) == "closed"
        assert one.backend.dials == 0
