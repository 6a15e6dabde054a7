"""Old clients and old backends."""

from __future__ import annotations

import pytest
from rules import FORWARDED, both_ways, ending, get, heard, is_cut, ok, service, up

OLD = b"GET /s/v/ HTTP/1.0"
OWN = b"X-Request-Id: r1"
CLOSE = b"Connection: close"


@pytest.mark.parametrize("connection", [[], [b"Connection: keep-alive"], [b"Connection: close"]])
@both_ways
async def test_an_old_client_is_closed_after_its_answer(connection: list[bytes], bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get(*connection, line=OLD))
        kernel = await one.backend.accept()
        assert await heard(kernel) == up()
        await one.say(kernel, ok(b"Content-Length: 2", body=b"ok"))
        assert await heard(client) == ok(b"Content-Length: 2", OWN, CLOSE, body=b"ok")
        assert await ending(client) == "closed"
        assert one.harness.proxy.pool.statistics()["idle"] == 1  # the backend's connection serves others


@both_ways
async def test_an_old_client_needs_no_host(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        got, _ = await one.answered(b"GET /s/v/a HTTP/1.0\r\nX-Request-Id: r1\r\n\r\n", ok(b"Content-Length: 0"))
        assert got == b"GET /a HTTP/1.1\r\nHost: kernel:8888\r\n" + FORWARDED.replace(b"hub", b"kernel:8888")


@both_ways
async def test_chunks_are_taken_apart_for_an_old_client_and_its_answer_ends_with_the_connection(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get(line=OLD))
        kernel = await one.backend.accept()
        await heard(kernel)
        await one.say(kernel, ok(b"Transfer-Encoding: chunked", b"Trailer: X-Sum"))
        assert await heard(client) == ok(b"Trailer: X-Sum", OWN, CLOSE)
        await one.say(kernel, b"3\r\nabc\r\n")
        assert await heard(client) == b"abc"
        await one.say(kernel, b"4;x\r\n\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n")
        assert await heard(client) == b"\r\nde"
        assert await ending(client) == "closed"


@both_ways
async def test_an_old_client_hears_no_informational_responses(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        raw = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 X\r\nLink: </a>\r\n\r\n" + ok(b"Content-Length: 0")
        _, answer = await one.answered(get(line=OLD), raw)
        assert answer == ok(b"Content-Length: 0", OWN, CLOSE)


@both_ways
async def test_the_expectation_of_an_old_client_is_ignored(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        post = get(b"Expect: 100-continue", b"Content-Length: 3", line=b"POST /s/v/ HTTP/1.0") + b"abc"
        got, _ = await one.answered(post, ok(b"Content-Length: 0"))
        assert got == up(b"Content-Length: 3", line=b"POST / HTTP/1.1") + b"abc"


@both_ways
async def test_an_old_client_is_not_served_a_second_request(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get(b"Connection: keep-alive", line=OLD) + get(line=b"GET /s/v/second HTTP/1.1"))
        kernel = await one.backend.accept()
        await heard(kernel)
        await one.say(kernel, ok(b"Content-Length: 0"))
        assert await heard(client) == ok(b"Content-Length: 0", OWN, CLOSE)
        assert await ending(client) == "closed"
        assert await heard(kernel) == b""
        assert one.backend.dials == 1


@both_ways
async def test_an_old_client_gets_no_upgrade(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        got, _ = await one.answered(
            get(b"Connection: Upgrade", b"Upgrade: websocket", line=OLD),
            ok(b"Content-Length: 0", line=b"HTTP/1.1 426 X"),
        )
        assert got == up()


@both_ways
async def test_an_old_client_is_told_of_errors_and_closed(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get(line=b"GET /nowhere/ HTTP/1.0"))
        answer = await heard(client)
        assert answer.startswith(b"HTTP/1.1 404 Not Found\r\n")
        assert b"\r\nConnection: close\r\n" in answer
        assert await ending(client) == "closed"


# --- backends --------------------------------------------------------------------------------------------------

OLD_OK = b"HTTP/1.0 200 OK"


@both_ways
async def test_an_old_backend_with_a_length_is_relayed_and_not_used_again(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get())
        kernel = await one.backend.accept()
        await heard(kernel)
        await one.say(kernel, ok(b"Content-Length: 2", line=OLD_OK, body=b"ok"))
        assert await heard(client) == ok(b"Content-Length: 2", OWN, body=b"ok")
        assert await ending(client) == "open"
        assert is_cut(kernel)


@both_ways
async def test_an_old_backend_that_offers_to_keep_its_connection_is_used_again(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get())
        kernel = await one.backend.accept()
        await heard(kernel)
        await one.say(kernel, ok(b"Content-Length: 2", b"Connection: keep-alive", line=OLD_OK, body=b"ok"))
        assert await heard(client) == ok(b"Content-Length: 2", OWN, body=b"ok")
        await one.say(client, get())
        assert await heard(kernel) == up()


@pytest.mark.parametrize("line", [OLD_OK, b"HTTP/1.1 200 OK"])
@both_ways
async def test_a_body_until_close_becomes_chunks_and_the_client_is_kept(line: bytes, bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get())
        kernel = await one.backend.accept()
        await heard(kernel)
        await one.say(kernel, ok(b"A: b", line=line))
        assert await heard(client) == ok(b"A: b", b"Transfer-Encoding: chunked", OWN)
        await one.say(kernel, b"x")
        assert await heard(client) == b"1\r\nx\r\n"
        await kernel.send(b"yz\r\n0\r\n\r\n")
        assert await heard(client) == b"9\r\nyz\r\n0\r\n\r\n\r\n"
        await kernel.aclose()
        assert await heard(client) == b"0\r\n\r\n"
        assert await ending(client) == "open"
        assert one.harness.network.leaked() == []


@pytest.mark.parametrize("line", [OLD_OK, b"HTTP/1.1 200 OK"])
@both_ways
async def test_a_body_until_close_for_an_old_client_is_one_for_it_too(line: bytes, bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get(line=OLD))
        kernel = await one.backend.accept()
        await heard(kernel)
        await one.say(kernel, ok(b"A: b", line=line, body=b"xyz"))
        assert await heard(client) == ok(b"A: b", OWN, CLOSE, body=b"xyz")
        assert await ending(client) == "open"
        await kernel.aclose()
        assert await heard(client) == b""
        assert await ending(client) == "closed"


@both_ways
async def test_a_body_until_close_that_never_comes_is_empty(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get())
        kernel = await one.backend.accept()
        await heard(kernel)
        await one.say(kernel, ok(line=OLD_OK))
        await kernel.aclose()
        assert await heard(client) == ok(b"Transfer-Encoding: chunked", OWN, body=b"0\r\n\r\n")
