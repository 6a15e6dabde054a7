"""`Expect: 100-continue` from end to end: what the backend says decides."""

from __future__ import annotations

import pytest
from rules import both_ways, ending, get, heard, is_cut, ok, service, up

OWN = b"X-Request-Id: r1"
LENGTH = b"Content-Length: 3"
EXPECT = b"Expect: 100-continue"
POST = get(LENGTH, EXPECT, line=b"POST /s/v/ HTTP/1.1")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@both_ways
async def test_a_client_hears_100_from_the_backend_and_not_before(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(POST)
        kernel = await one.backend.accept()
        assert await heard(kernel) == up(LENGTH, EXPECT, line=b"POST / HTTP/1.1")
        assert await heard(client) == b""
        await one.say(kernel, CONTINUE)
        assert await heard(client) == CONTINUE
        await one.say(client, b"abc")
        assert await heard(kernel) == b"abc"
        await one.say(kernel, ok(b"Content-Length: 0"))
        assert await heard(client) == ok(b"Content-Length: 0", OWN)
        assert await ending(client) == "open"


@both_ways
async def test_chunks_may_be_announced_too(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get(b"Transfer-Encoding: chunked", b"eXPECT: 100-Continue", line=b"POST /s/v/ HTTP/1.1"))
        kernel = await one.backend.accept()
        assert await heard(kernel) == up(
            b"eXPECT: 100-Continue", b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.1"
        )
        await one.say(kernel, CONTINUE)
        assert await heard(client) == CONTINUE
        await one.say(client, b"3\r\nabc\r\n0\r\n\r\n")
        assert (await heard(kernel)).endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    "status", [b"401 Unauthorized", b"413 Content Too Large", b"417 Expectation Failed", b"307 Elsewhere"]
)
@both_ways
async def test_a_final_answer_instead_of_100_is_relayed_and_the_body_never_asked_for(
    status: bytes, bytewise: bool
) -> None:
    line = b"HTTP/1.1 " + status
    async with service(bytewise=bytewise) as one:
        client = await one.ask(POST)
        kernel = await one.backend.accept()
        await heard(kernel)
        await one.say(kernel, ok(b"Content-Length: 2", line=line, body=b"no"))
        assert await heard(client) == ok(b"Content-Length: 2", OWN, b"Connection: close", line=line, body=b"no")
        assert await ending(client) == "closed"
        # Whether the client sends the body nevertheless cannot be known: neither connection can go on.
        assert is_cut(kernel)


@both_ways
async def test_a_client_that_does_not_wait_is_not_kept_waiting(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(POST + b"abc")
        kernel = await one.backend.accept()
        assert await heard(kernel) == up(LENGTH, EXPECT, line=b"POST / HTTP/1.1") + b"abc"
        await one.say(kernel, CONTINUE + ok(b"Content-Length: 0"))
        assert await heard(client) == CONTINUE + ok(b"Content-Length: 0", OWN)
        assert await ending(client) == "open"


@both_ways
async def test_a_backend_that_answers_after_the_body_without_100_is_heard(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(POST)
        kernel = await one.backend.accept()
        await heard(kernel)
        await one.say(client, b"abc")  # clients wait for a while only (RFC 9110 §10.1.1)
        assert await heard(kernel) == b"abc"
        await one.say(kernel, ok(b"Content-Length: 0"))
        assert await heard(client) == ok(b"Content-Length: 0", OWN)


@both_ways
async def test_without_a_body_there_is_nothing_to_wait_for(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        got, answer = await one.answered(get(EXPECT), ok(b"Content-Length: 0"))
        assert got == up()
        assert answer == ok(b"Content-Length: 0", OWN)
