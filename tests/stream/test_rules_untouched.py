"""What goes through as it came, byte for byte."""

from __future__ import annotations

import pytest
from rules import FORWARDED, Service, both_ways, ending, get, heard, ok, service, up

from trioproxy.testing import Wire

OWN = b"X-Request-Id: r1"
OK_0 = ok(b"Content-Length: 0")
NO, SAME, RESET = b"HTTP/1.1 404 Not Found", b"HTTP/1.1 304 Not Modified", b"HTTP/1.1 205 Reset Content"

TAILS = [
    b"",
    b"a",
    b"a/",
    b"a%2Fb",
    b"a%2fb",
    b"%2F",
    b"a;v=1/b;w=2",
    b"/",
    b"//a///b",
    b".",
    b"./a",
    b"a/../b",
    b"a/./..",
    b"a/b/../../c",
    b"a/%2e%2e/b",
    b"..a",
    b"a..",
    b"...",
    b"%2e%2e%2e",
    b'a|b^c`d{e}f\\g"h<i>',
    b"~user/!$&'()*+,=:@-._",
    b"%",
    b"%zz",
    b"%C3%BC%00%0d%0a",
    b"?",
    b"??",
    b"?a=b&c=%2F;d#".removesuffix(b"#"),
    b"?a=http://x/../..?y",
    b"?%",
    b"?|{}",
    b"a?../../..",
    b"s/v/",
    b"a" * 5000,
]


@pytest.mark.parametrize("tail", TAILS, ids=lambda tail: tail.decode()[:20] or "nothing")
@both_ways
async def test_path_and_query_go_through_byte_for_byte(tail: bytes, bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        got, _ = await one.answered(get(line=b"GET /s/v/" + tail + b" HTTP/1.1"), OK_0)
        assert got == up(line=b"GET /" + tail + b" HTTP/1.1")


@pytest.mark.parametrize("tail", TAILS, ids=lambda tail: tail.decode()[:20] or "nothing")
async def test_a_kept_path_and_its_query_go_through_byte_for_byte(tail: bytes) -> None:
    async with service(path="keep") as one:
        got, _ = await one.answered(get(line=b"GET /s/v/" + tail + b" HTTP/1.1"), OK_0)
        assert got.startswith(b"GET /s/v/" + tail + b" HTTP/1.1\r\n")


@both_ways
async def test_an_absolute_target_becomes_its_path(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        got, _ = await one.answered(get(line=b"GET http://HUB/s/v/a?b HTTP/1.1"), OK_0)
        assert got == up(line=b"GET /a?b HTTP/1.1")


FIELDS = [
    b"accept: text/html",
    b"ACCEPT: */*",
    b"x-b: 2",
    b"X-A: 1",
    b"Accept: a, b;q=0.5",
    b"X-Empty: ",
    b"X-High: \xe4\xff",
    b"X-Inner:  two  spaces\tand a tab".replace(b":  ", b": "),
    b"Cookie: a=b",
    b"cookie: c=d",
    b"Authorization: Bearer t",
    b'If-None-Match: "x", W/"y"',
    b"Trailer: X-Sum",
    b"Via: 1.1 front",
    b"X-Long: " + b"a" * 3000,
    b"!#$%&'*+-.^_`|~: token",
]


@both_ways
async def test_order_case_and_duplicates_of_fields_are_kept_in_requests(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        got, _ = await one.answered(get(*FIELDS), OK_0)
        assert got == up(*FIELDS)


@both_ways
async def test_order_case_and_duplicates_of_fields_are_kept_in_responses(bytewise: bool) -> None:
    fields = [
        b"Set-Cookie: a=1; Path=/s/v/",
        b"SERVER: x",
        b"set-cookie: b=2",
        b"Set-Cookie: a=1; Path=/s/v/",
        *FIELDS,
        b"content-length: 0",
    ]
    async with service(bytewise=bytewise) as one:
        _, answer = await one.answered(get(), ok(*fields))
        assert answer == ok(*fields, OWN)


@pytest.mark.parametrize(
    "line",
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 200 ", b"HTTP/1.1 404 Nicht \xfcberall\t!", b"HTTP/1.1 599 X", b"HTTP/1.1 999 Y"],
)
@both_ways
async def test_status_and_reason_go_through(line: bytes, bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        _, answer = await one.answered(get(), ok(b"Content-Length: 0", line=line))
        assert answer == ok(b"Content-Length: 0", OWN, line=line)


@pytest.mark.parametrize(
    "method", [b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"PROPFIND", b"M-SEARCH", b"get", b"X!#$"]
)
@pytest.mark.parametrize("body", [b"", b"abc"])
@both_ways
async def test_any_method_goes_through_with_its_body(method: bytes, body: bytes, bytewise: bool) -> None:
    length = b"Content-Length: %d" % len(body)
    async with service(bytewise=bytewise) as one:
        got, answer = await one.answered(get(length, line=method + b" /s/v/ HTTP/1.1") + body, OK_0)
        assert got == up(length, line=method + b" / HTTP/1.1") + body
        assert answer == ok(b"Content-Length: 0", OWN)


@pytest.mark.parametrize("method", [b"GET", b"POST", b"DELETE"])
@both_ways
async def test_any_method_goes_through_with_its_chunks(method: bytes, bytewise: bool) -> None:
    body = b"3\r\nabc\r\n" if bytewise else b"5;x=y\r\nab\r\nc\r\n0A\r\n0123456789\r\n"
    payload = b"abc" if bytewise else b"ab\r\nc0123456789"
    async with service(bytewise=bytewise) as one:
        client = await one.ask(
            get(b"Transfer-Encoding: chunked", line=method + b" /s/v/ HTTP/1.1") + body + b"0\r\n\r\n"
        )
        kernel = await one.backend.accept()
        assert await kernel.read_head() == up(b"Transfer-Encoding: chunked", line=method + b" / HTTP/1.1")
        assert await kernel.read_chunked() == (payload, b"")
        assert await heard(kernel) == b""
        await one.say(kernel, OK_0)
        assert (await client.read_response()).status == 200


@both_ways
async def test_trailers_of_a_request_go_through_but_for_those_of_framing_and_authentication(bytewise: bool) -> None:
    trailers = [
        b"X-Sum: 1",
        b"Content-Length: 5",
        b"X-Forwarded-For: 8.8.8.8",
        b"x-sum: \xff",
        b"Authorization: x",
        b"Host: x",
    ]
    body = b"\r\n".join([b"0", *trailers, b"", b""])
    async with service(bytewise=bytewise) as one:
        request = (
            get(b"Trailer: X-Sum", b"Transfer-Encoding: chunked", line=b"POST /s/v/ HTTP/1.1") + b"3\r\nabc\r\n" + body
        )
        await one.ask(request)
        kernel = await one.backend.accept()
        assert b"\r\nTrailer: X-Sum\r\n" in await kernel.read_head()
        assert await kernel.read_chunked() == (b"abc", b"X-Sum: 1\r\nx-sum: \xff\r\n")


@both_ways
async def test_trailers_of_a_response_go_through_but_for_those_of_framing(bytewise: bool) -> None:
    body = (
        b"3\r\nabc\r\n0\r\nGrpc-Status: 0\r\nTransfer-Encoding: gzip\r\nSet-Cookie: a=b\r\ngrpc-message: \xff\r\n\r\n"
    )
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get(b"TE: trailers"))
        kernel = await one.backend.accept()
        await heard(kernel)
        await one.say(kernel, ok(b"Transfer-Encoding: chunked", b"Trailer: Grpc-Status", body=body))
        assert await client.read_head() == ok(b"Trailer: Grpc-Status", b"Transfer-Encoding: chunked", OWN)
        assert await client.read_chunked() == (b"abc", b"Grpc-Status: 0\r\ngrpc-message: \xff\r\n")
        assert await ending(client) == "open"


@both_ways
async def test_informational_responses_go_through_in_order(bytewise: bool) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nlink: </b>\r\n\r\n"
    some = [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\nX: \xff\r\n\r\n",
        hints,
        hints,
        b"HTTP/1.1 199 \r\n\r\n",
    ]
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get())
        kernel = await one.backend.accept()
        await heard(kernel)
        for informational in some:
            await one.say(kernel, informational)
            assert await heard(client) == informational
        await one.say(kernel, b"".join(some) + ok(b"Content-Length: 2", body=b"ok"))
        assert await heard(client) == b"".join(some) + ok(b"Content-Length: 2", OWN, body=b"ok")


async def answer_and_next(one: Service, request: bytes, response: bytes) -> tuple[bytes, Wire]:
    client = await one.ask(request)
    kernel = await one.backend.accept()
    await heard(kernel)
    await one.say(kernel, response)
    answer = await heard(client)
    # Whatever was taken for a body would be missing here.
    await one.say(client, get(line=b"GET /s/v/next HTTP/1.1"))
    assert (await heard(kernel)).startswith(b"GET /next ")
    await one.say(kernel, ok(b"Content-Length: 4", body=b"next"))
    assert await heard(client) == ok(b"Content-Length: 4", OWN, body=b"next")
    return answer, client


@pytest.mark.parametrize(
    ("method", "response", "expected"),
    [
        (b"HEAD", ok(b"Content-Length: 5"), ok(b"Content-Length: 5", OWN)),
        (b"HEAD", ok(b"Transfer-Encoding: chunked"), ok(OWN)),
        (b"HEAD", ok(b"A: b"), ok(b"A: b", OWN)),
        (b"HEAD", ok(b"Content-Length: 9", line=NO), ok(b"Content-Length: 9", OWN, line=NO)),
        (b"GET", ok(b"A: b", line=b"HTTP/1.1 204 No Content"), ok(b"A: b", OWN, line=b"HTTP/1.1 204 No Content")),
        (b"GET", ok(b"Content-Length: 0", line=b"HTTP/1.1 204 X"), ok(OWN, line=b"HTTP/1.1 204 X")),
        (b"GET", ok(b"ETag: x", line=SAME), ok(b"ETag: x", OWN, line=SAME)),
        (b"GET", ok(b"Content-Length: 5", line=SAME), ok(b"Content-Length: 5", OWN, line=SAME)),
        (b"GET", ok(b"Content-Length: 0", line=RESET), ok(b"Content-Length: 0", OWN, line=RESET)),
        (b"POST", ok(line=SAME), ok(OWN, line=SAME)),
    ],
)  # fmt: skip
@both_ways
async def test_responses_without_a_body_have_none(
    method: bytes, response: bytes, expected: bytes, bytewise: bool
) -> None:
    async with service(bytewise=bytewise) as one:
        answer, _ = await answer_and_next(one, get(line=method + b" /s/v/ HTTP/1.1"), response)
        assert answer == expected


@pytest.mark.parametrize(
    "body",
    [b"", b"x", bytes(range(256)) * 8, b"0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"],
    ids=["none", "a byte", "all bytes", "a trap"],
)
@both_ways
async def test_a_body_of_known_length_goes_through(body: bytes, bytewise: bool) -> None:
    length = b"Content-Length: %d" % len(body)
    async with service(bytewise=bytewise) as one:
        answer, _ = await answer_and_next(one, get(), ok(length, body=body))
        assert answer == ok(length, OWN, body=body)


@both_ways
async def test_a_chunked_body_goes_through_with_its_bytes(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get())
        kernel = await one.backend.accept()
        await heard(kernel)
        body = b"5;ext=1\r\nab\r\nc\r\n1\r\n0\r\n00A\r\n0123456789\r\n0;last\r\n\r\n"
        await one.say(kernel, ok(b"transfer-encoding: CHUNKED", body=body))
        assert await client.read_head() == ok(b"Transfer-Encoding: chunked", OWN)
        assert await client.read_chunked() == (b"ab\r\nc00123456789", b"")
        assert await ending(client) == "open"


@both_ways
async def test_pipelined_requests_are_answered_in_their_order(bytewise: bool) -> None:
    post = get(b"Content-Length: 3", line=b"POST /s/v/b HTTP/1.1") + b"abc"
    chunked = get(b"Transfer-Encoding: chunked", line=b"PUT /s/v/c HTTP/1.1") + b"3\r\nabc\r\n0\r\n\r\n"
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get(line=b"GET /s/v/a HTTP/1.1") + post + chunked + get(line=b"GET /s/v/d HTTP/1.1"))
        kernel = await one.backend.accept()
        for name in (b"a", b"b", b"c", b"d"):
            assert (await heard(kernel)).split(b" ")[1] == b"/" + name
            assert await heard(client) == b""
            await one.say(kernel, ok(b"Content-Length: 1", body=name))
            assert await heard(client) == ok(b"Content-Length: 1", OWN, body=name)
        assert await ending(client) == "open"
        assert one.backend.dials == 1


@both_ways
async def test_a_request_of_a_later_minor_version_goes_on_as_1_1(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        got, answer = await one.answered(
            get(line=b"GET /s/v/ HTTP/1.2"), ok(b"Content-Length: 0", line=b"HTTP/1.3 200 OK")
        )
        assert got == up()
        assert answer == ok(b"Content-Length: 0", OWN)


@both_ways
async def test_options_for_the_whole_server_reaches_a_service_with_its_own_host(bytewise: bool) -> None:
    for target in (b"*", b"http://hub"):
        async with service(bytewise=bytewise, host="hub") as one:
            got, _ = await one.answered(get(line=b"OPTIONS " + target + b" HTTP/1.1"), OK_0)
            assert got.startswith(b"OPTIONS * HTTP/1.1\r\n")
            assert FORWARDED.replace(b"X-Forwarded-Prefix: /s/v\r\n", b"") in got
