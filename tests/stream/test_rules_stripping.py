"""What is for one hop only stays there, both ways; and what a client can not have removed."""

from __future__ import annotations

import pytest
from rules import both_ways, get, heard, ok, service, up

OWN = b"X-Request-Id: r1"


def split(raw: bytes) -> list[bytes]:
    return raw.split(b"\r\n")


@both_ways
async def test_a_request_goes_on_without_its_hop_by_hop_fields(bytewise: bool) -> None:
    request = get(
        b"Connection: keep-alive, X-One, x-two",
        b"X-One: 1",
        b"A: 1",
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: keep-alive",
        b"X-TWO: 2",
        b"B: 2",
        b"Proxy-Authenticate: Basic",
        b"Proxy-Authorization: Basic eDp5",
        b"connection: X-Three",
        b"TE: gzip",
        b"Upgrade: websocket",
        b"x-three: 3",
        b"a: 3",
    )
    async with service(bytewise=bytewise) as one:
        got, _ = await one.answered(request, ok(b"Content-Length: 0"))
        assert got == up(b"A: 1", b"B: 2", b"a: 3")


@both_ways
async def test_a_response_goes_on_without_its_hop_by_hop_fields(bytewise: bool) -> None:
    response = ok(
        b"Connection: keep-alive, X-One",
        b"x-one: 1",
        b"A: 1",
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: keep-alive",
        b"Proxy-Authenticate: Basic",
        b"Proxy-Authorization: Basic eDp5",
        b"connection: X-Two, Set-Cookie, Content-Length",
        b"TE: gzip",
        b"Upgrade: h2c",
        b"X-Two: 2",
        b"Set-Cookie: a=b",
        b"Content-Length: 2",
        body=b"ok",
    )
    async with service(bytewise=bytewise) as one:
        _, answer = await one.answered(get(), response)
        assert answer == ok(b"A: 1", b"Set-Cookie: a=b", b"Content-Length: 2", OWN, body=b"ok")


@pytest.mark.parametrize(
    "name",
    [
        b"Connection: close",
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: close",
        b"Proxy-Authenticate: Basic",
        b"Proxy-Authorization: x",
        b"TE: gzip",
        b"Upgrade: h2c",
        b"Upgrade: foo",
    ],
)
@both_ways
async def test_each_hop_by_hop_field_is_dropped_both_ways(name: bytes, bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        got, answer = await one.answered(get(name), ok(name, b"Content-Length: 0"))
        assert got == up()
        expected = [b"Content-Length: 0", OWN]
        if name == b"Connection: close":
            expected.append(b"Connection: close")  # the client's wish, and our answer to it
        assert answer == ok(*expected)


@pytest.mark.parametrize(
    "field",
    [
        b"Host: hub",
        b"Authorization: Bearer t",
        b"Cookie: a=b",
        b"X-Forwarded-User: alice",
        b"Content-Length: 0",
    ],
)
@both_ways
async def test_a_client_can_not_have_these_removed(field: bytes, bytewise: bool) -> None:
    name = field.partition(b":")[0]
    listed = (
        b"Connection: " + name + b", X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, X-Forwarded-Port, Forwarded"
    )
    fields = [] if name == b"Host" else [field]
    async with service(bytewise=bytewise) as one:
        got, _ = await one.answered(get(listed, *fields), ok(b"Content-Length: 0"))
        assert got == up(*fields)


@pytest.mark.parametrize("framing", [b"Content-Length: 3", b"Transfer-Encoding: chunked"])
@both_ways
async def test_a_client_can_not_have_its_framing_removed(framing: bytes, bytewise: bool) -> None:
    body = b"abc" if framing.startswith(b"C") else b"3\r\nabc\r\n0\r\n\r\n"
    request = get(b"Connection: Content-Length, Transfer-Encoding", framing, line=b"POST /s/v/ HTTP/1.1") + body
    async with service(bytewise=bytewise) as one:
        client = await one.ask(request)
        kernel = await one.backend.accept()
        assert await kernel.read_head() == up(framing, line=b"POST / HTTP/1.1")
        payload = await kernel.read_exactly(3) if framing.startswith(b"C") else (await kernel.read_chunked())[0]
        assert payload == b"abc"
        await one.say(kernel, ok(b"Content-Length: 0"))
        assert (await client.read_response()).status == 200


@pytest.mark.parametrize("te", [b"TE: trailers", b"TE: gzip;q=0.5, Trailers"])
@both_ways
async def test_trailers_may_be_asked_for(te: bytes, bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        got, _ = await one.answered(get(b"Connection: TE", te), ok(b"Content-Length: 0"))
        assert got == up(b"TE: trailers", b"Connection: TE")


@both_ways
async def test_a_request_id_is_the_clients_if_it_is_one_and_the_backends_answer_may_bring_its_own(
    bytewise: bool,
) -> None:
    async with service(bytewise=bytewise) as one:
        got, answer = await one.answered(get(), ok(b"Content-Length: 0", b"x-request-id: theirs"))
        assert got == up()
        assert answer == ok(b"Content-Length: 0", b"x-request-id: theirs")
        assert one.harness.records[0].id == "r1"


@pytest.mark.parametrize("given", [b"", b"has space", b"a" * 129, b"\xff", b"<x>"])
async def test_a_request_id_that_is_none_is_replaced(given: bytes) -> None:
    async with service() as one:
        got, answer = await one.answered(
            b"GET /s/v/ HTTP/1.1\r\nHost: hub\r\nX-Request-Id: " + given + b"\r\n\r\n", ok(b"Content-Length: 0")
        )
        mine = b"X-Request-Id: " + one.harness.records[0].id.encode()
        assert [line for line in split(got) if line.lower().startswith(b"x-request-id")] == [mine]
        assert [line for line in split(answer) if line.lower().startswith(b"x-request-id")] == [mine]
        assert mine != b"X-Request-Id: " + given


async def test_a_request_trailer_named_in_connection_is_for_this_hop_only() -> None:
    async with service() as one:
        head = get(b"Connection: X-Sum", b"Transfer-Encoding: chunked", line=b"POST /s/v/ HTTP/1.1")
        await one.ask(head + b"0\r\nX-Sum: 1\r\n\r\n")
        kernel = await one.backend.accept()
        await kernel.read_head()
        assert await kernel.read_chunked() == (b"", b"")


async def test_a_response_trailer_named_in_connection_is_for_this_hop_only() -> None:
    async with service() as one:
        client = await one.ask(get())
        kernel = await one.backend.accept()
        await heard(kernel)
        await one.say(kernel, ok(b"Connection: X-Sum", b"Transfer-Encoding: chunked", body=b"0\r\nX-Sum: 1\r\n\r\n"))
        await client.read_head()
        assert await client.read_chunked() == (b"", b"")
