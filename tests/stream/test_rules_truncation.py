"""Honesty about truncation: what is not whole never looks whole."""

from __future__ import annotations

import pytest
from rules import both_ways, ending, get, heard, ok, service

from trioproxy.http1.framing import ChunkedBody

OWN = b"X-Request-Id: r1"
LENGTH = b"Content-Length: 10"
CHUNKED = b"Transfer-Encoding: chunked"

# Whether the backend's connection ends or is reset makes no difference, except where the end is the end.
BROKEN = [
    ("length, no body", [LENGTH], b"", "closes"),
    ("length, a part", [LENGTH], b"abc", "closes"),
    ("length, a part, reset", [LENGTH], b"abc", "resets"),
    ("length, all but a byte", [LENGTH], b"012345678", "closes"),
    ("chunked, no body", [CHUNKED], b"", "closes"),
    ("chunked, half a size line", [CHUNKED], b"3", "closes"),
    ("chunked, half a chunk", [CHUNKED], b"4\r\nabc", "closes"),
    ("chunked, no CRLF", [CHUNKED], b"3\r\nabc", "closes"),
    ("chunked, half a CRLF", [CHUNKED], b"3\r\nabc\r", "closes"),
    ("chunked, no last chunk", [CHUNKED], b"3\r\nabc\r\n", "closes"),
    ("chunked, reset", [CHUNKED], b"3\r\nabc\r\n", "resets"),
    ("chunked, half a last chunk", [CHUNKED], b"3\r\nabc\r\n0\r\n", "closes"),
    ("chunked, half an end", [CHUNKED], b"3\r\nabc\r\n0\r\n\r", "closes"),
    ("chunked, half a trailer", [CHUNKED], b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n", "closes"),
    ("until close, reset", [], b"abc", "resets"),
]
MALFORMED = [
    ("chunked, a malformed size", [CHUNKED], b"0x3\r\n", "goes on"),
    ("chunked, no CRLF after data", [CHUNKED], b"3\r\nabcdef", "goes on"),
    ("chunked, an LF-only end", [CHUNKED], b"3\r\nabc\r\n0\r\n\n", "goes on"),
    ("chunked, a malformed trailer", [CHUNKED], b"3\r\nabc\r\n0\r\nX : 1\r\n", "goes on"),
]


def of(cases: list[tuple[str, list[bytes], bytes, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("fields", "body", "end"), [case[1:] for case in cases], ids=[case[0] for case in cases]
    )


@of([*BROKEN, *MALFORMED])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@both_ways
async def test_a_response_that_breaks_off_is_a_reset_for_the_client(
    fields: list[bytes], body: bytes, end: str, version: bytes, bytewise: bool
) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get(line=b"GET /s/v/ HTTP/" + version))
        kernel = await one.backend.accept()
        await heard(kernel)
        await one.say(kernel, ok(*fields))
        head = await heard(client)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        await one.say(kernel, body)
        if end == "closes":
            await kernel.aclose()
        elif end == "resets":
            await kernel.abort()
        got = await heard(client)
        assert await ending(client) == "reset"
        if b"\r\nTransfer-Encoding: chunked\r\n" in head:
            received = ChunkedBody()
            received.feed(got)
            assert not received.done
        elif LENGTH in fields:
            assert len(got) < 10
        assert one.harness.network.leaked() == []
        record = one.harness.records[0]
        assert (record.status, record.error) == (200, "body_truncated")


@both_ways
async def test_what_came_before_the_break_has_been_passed_on(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get())
        kernel = await one.backend.accept()
        await heard(kernel)
        await one.say(kernel, ok(LENGTH, body=b"abc"))
        await kernel.aclose()
        assert await heard(client) == ok(LENGTH, OWN, body=b"abc")
        assert await ending(client) == "reset"


@both_ways
async def test_a_pipelined_request_behind_a_broken_response_is_not_served(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get() + get(line=b"GET /s/v/second HTTP/1.1"))
        kernel = await one.backend.accept()
        await heard(kernel)
        await one.say(kernel, ok(LENGTH))
        await kernel.aclose()
        assert await heard(client) == ok(LENGTH, OWN)
        assert await ending(client) == "reset"
        assert one.backend.dials == 1


@both_ways
async def test_a_broken_response_to_head_can_not_be(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get(line=b"HEAD /s/v/ HTTP/1.1"))
        kernel = await one.backend.accept()
        await heard(kernel)
        await one.say(kernel, ok(LENGTH))
        await kernel.aclose()
        assert await heard(client) == ok(LENGTH, OWN)
        assert await ending(client) == "open"
