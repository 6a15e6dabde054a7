"""Responses that no client may see, and what is a 502 besides."""

from __future__ import annotations

import json

import pytest
from refusals import BAD_RESPONSES, BadResponse
from rules import Service, both_ways, ending, get, heard, is_cut, ok, service

from trioproxy.testing import Wire


async def check_502(one: Service, client: Wire, kernel: Wire, code: str) -> None:
    """The client is told, loses nothing else, and the backend's connection is not used again."""
    head, _, body = (await heard(client)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: application/problem+json\r\n")
    assert b"\r\nX-Request-Id: r1" in head
    assert b"Connection:" not in head
    problem = json.loads(body)
    assert (problem["status"], problem["code"]) == (502, code)
    assert is_cut(kernel)
    assert one.harness.network.leaked() == []
    assert one.harness.records[-1].error == code

    await one.say(client, get())
    fresh = await one.backend.accept()
    await heard(fresh)
    await one.say(fresh, ok(b"Content-Length: 2", body=b"ok"))
    assert (await heard(client)).endswith(b"\r\n\r\nok")


@pytest.mark.parametrize("bad", BAD_RESPONSES, ids=lambda bad: bad.name)
@both_ways
async def test_a_response_that_is_none_is_502_and_the_client_is_kept(bad: BadResponse, bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get())
        kernel = await one.backend.accept()
        await heard(kernel)
        await one.say(kernel, bad.raw)
        await check_502(one, client, kernel, "upstream_protocol")


@pytest.mark.parametrize(
    "part", [b"", b"H", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"], ids=["nothing", "a byte", "half a head"]
)
@pytest.mark.parametrize("end", ["closes", "resets"])
@both_ways
async def test_a_backend_that_goes_without_a_head_is_502(part: bytes, end: str, bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get())
        kernel = await one.backend.accept()
        await heard(kernel)
        await one.say(kernel, part)
        await (kernel.aclose() if end == "closes" else kernel.abort())
        await check_502(one, client, kernel, "upstream_closed")


@both_ways
async def test_a_backend_that_hangs_up_at_once_is_502(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.harness.connect()
        await one.say(client, get(b"Content-Length: 3", line=b"POST /s/v/ HTTP/1.1"))
        kernel = await one.backend.accept()
        await kernel.abort()
        await one.say(client, b"abc")
        head = await heard(client)
        assert head.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        assert one.harness.records[-1].error == "upstream_closed"


async def test_a_response_head_over_the_limits_is_502() -> None:
    for raw in (ok(b"X: " + b"a" * 2000), ok(*[b"X: y"] * 11), b"HTTP/1.1 200 OK\r\nX: " + b"a" * 3000):
        async with service(config={"limits": {"head_bytes": 2000, "header_count": 10}}) as one:
            client = await one.ask(get())
            kernel = await one.backend.accept()
            await one.say(kernel, raw)
            await check_502(one, client, kernel, "upstream_protocol")


@both_ways
async def test_a_1xx_that_is_none_is_502(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get())
        kernel = await one.backend.accept()
        await one.say(kernel, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        assert await heard(client) == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        await one.say(kernel, b"HTTP/1.1 103 Early Hints\nLink: </a>\n\n")
        await check_502(one, client, kernel, "upstream_protocol")


async def test_a_malformed_body_that_comes_with_its_head_is_502() -> None:
    async with service() as one:
        client = await one.ask(get())
        kernel = await one.backend.accept()
        await one.say(kernel, ok(b"Transfer-Encoding: chunked", body=b"0x3\r\nabc\r\n0\r\n\r\n"))
        await check_502(one, client, kernel, "upstream_protocol")


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 204 X\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    ],
)
async def test_bytes_behind_a_response_are_nobodys_answer(raw: bytes) -> None:
    async with service() as one:
        client = await one.ask(get())
        kernel = await one.backend.accept()
        await one.say(kernel, raw)
        await heard(client)
        assert await ending(client) == "open"
        assert is_cut(kernel)
        await one.say(client, get(line=b"GET /s/v/second HTTP/1.1"))
        second = await one.backend.accept()
        assert (await heard(second)).startswith(b"GET /second ")
        assert await heard(client) == b""


@both_ways
async def test_equal_lengths_and_a_folded_field_are_mended(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        _, answer = await one.answered(
            get(), ok(b"A: 1", b"Content-Length: 2, 2", b"X-Folded: a", b"  b", b"content-length: 2", body=b"ok")
        )
        assert answer == ok(b"A: 1", b"Content-Length: 2", b"X-Folded: a b", b"X-Request-Id: r1", body=b"ok")
