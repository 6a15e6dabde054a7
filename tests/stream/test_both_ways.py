"""The short way does what the long way does: clients, backends, records and counters show no difference."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from both_ways import (
    Act,
    Deed,
    Play,
    assert_same,
    by_client,
    drain,
    end,
    hang_up,
    no_routes,
    operator,
    other_config,
    refusing,
    reset,
)
from path_scene import CHUNKED, GET, OK, chunks, get, post
from trio.testing import MockClock

LAST = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
POST = post(b"abc")


def fields(count: int) -> bytes:
    return b"".join(b"A%d: b\r\n" % number for number in range(count))


def response(first: bytes, *lines: bytes, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 " + b"\r\n".join((first, *lines)) + b"\r\n\r\n" + body


FIT = b"x" * (2048 - len(GET) - 5)  # a field A of it makes a head as large as the limit
REQUESTS = {
    "GET": GET,
    "HEAD": get(method="HEAD"),
    "POST": POST,
    "another method": get(method="FOO"),
    "empty body": post(b""),
    "body as large as the limit": post(bytes(1024)),
    "body beyond the limit": post(bytes(1025)),
    "body that does not come": post(b"a", length=3),
    "GET with a body": get(fields=b"Content-Length: 3\r\n") + b"abc",
    "chunked": get(fields=CHUNKED, method="POST") + chunks(b"abc") + b"0\r\n\r\n",
    "two lengths": post(b"abc", fields=b"Content-Length: 3\r\n"),
    "length and coding": post(b"abc", fields=CHUNKED),
    "negative length": get(fields=b"Content-Length: -3\r\n", method="POST"),
    "huge length": get(fields=b"Content-Length: 99999999999999999999\r\n", method="POST"),
    "expects": post(b"abc", fields=b"Expect: 100-continue\r\n"),
    "last": get(fields=b"Connection: close\r\n"),
    "keep-alive": get(fields=b"Connection: keep-alive\r\n"),
    "names a field": get(fields=b"Connection: A\r\nA: b\r\n"),
    "upgrade": get(fields=b"Connection: upgrade\r\nUpgrade: foo\r\n"),
    "HTTP/1.0": GET.replace(b"1.1", b"1.0"),
    "without Host": GET.replace(b"Host: hub\r\n", b""),
    "unknown route": get("/no/web/"),
    "without its slash": get("/s/web"),
    "climbs": get("/s/web/../../x"),
    "bad escape": get("/s%2/web/"),
    "query": get("/s/web/a?b=c"),
    "absolute": GET.replace(b"/s/web/", b"http://hub/s/web/"),
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: hub\r\n\r\n",
    "CONNECT": b"CONNECT hub:1 HTTP/1.1\r\nHost: hub\r\n\r\n",
    "id": get(fields=b"X-Request-Id: abc\r\n"),
    "odd id": get(fields=b"X-Request-Id: a b\r\n"),
    "forwarded": get(fields=b"X-Forwarded-For: 198.51.100.1\r\nForwarded: for=198.51.100.1\r\n"),
    "as many fields as the limit": get(fields=fields(19)),
    "too many fields": get(fields=fields(20)),
    "as large as the limit": get(fields=b"A: " + FIT + b"\r\n"),
    "too large": get(fields=b"A: " + FIT + b"x\r\n"),
    "empty line before": b"\r\n" + GET,
    "blank at the end": get(fields=b"A: b \r\n"),
    "bare line feeds": GET.replace(b"\r\n", b"\n"),
    "not HTTP": b"\x16\x03\x01\x02\r\n\r\n",
}
ANSWERS: dict[str, Sequence[Act]] = {
    "ok": [OK],
    "last": [LAST],
    "no content": [response(b"204 No Content")],
    "no content, with its length": [response(b"204 No Content", b"Content-Length: 0")],
    "not modified": [response(b"304 Not Modified", b"Content-Length: 7")],
    "a length and no body": [response(b"200 OK", b"Content-Length: 5")],
    "empty": [response(b"200 OK", b"Content-Length: 0")],
    "no reason": [response(b"200", b"Content-Length: 2", body=b"ok")],
    "chunked": [response(b"200 OK", b"Transfer-Encoding: chunked", body=chunks(b"ok") + b"0\r\n\r\n")],
    "until the end": [response(b"200 OK", body=b"ok"), end],
    "HTTP/1.0": [OK.replace(b"1.1", b"1.0")],
    "continue": [response(b"100 Continue") + OK],
    "hints": [response(b"103 Early Hints"), OK],
    "switches": [response(b"101 Switching Protocols", b"Upgrade: foo", b"Connection: upgrade")],
    "odd status": [response(b"099 Low", b"Content-Length: 0")],
    "odd length": [response(b"200 OK", b"Content-Length: x")],
    "large head": [response(b"200 OK", b"A: " + bytes(3000).replace(b"\0", b"x"), b"Content-Length: 2", body=b"ok")],
    "redirect": [
        response(b"302 Found", b"Location: http://kernel0:8888/x", b"Set-Cookie: a=b; Path=/", b"Content-Length: 0")
    ],
    "names a field": [response(b"200 OK", b"Connection: A", b"A: b", b"Content-Length: 2", body=b"ok")],
    "kept for a second": [response(b"200 OK", b"Keep-Alive: timeout=1", b"Content-Length: 2", body=b"ok")],
    "large": [response(b"200 OK", b"Content-Length: 300000", body=bytes(300_000))],
    "more than that": [OK + b"more"],
    "more, later": [OK, b"more"],
    "twice": [OK + OK],
    "not HTTP": [b"SSH-2.0\r\n\r\n"],
    "nothing": [end],
    "a reset": [reset],
    "part of a head": [OK[:20], end],
    "part of a body": [OK[:-1], end],
    "part of a body, a reset": [OK[:-1], reset],
    "the end behind it": [OK, end],
    "a reset behind it": [OK, reset],
    "slow": [1.5, OK],
    "in a second": [1.0, OK],
    "slow body": [OK[:-2], 1.5, b"ok"],
    "too slow": [31.0, OK],
    "too slow inside": [OK[:-1], 51.0, b"k"],
}
with_answers = pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
with_requests = pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)


@with_requests
async def test_a_request_of_any_kind(request_: bytes, autojump_clock: MockClock) -> None:
    await assert_same(Play([request_, 2.0, GET], [[OK], [OK]]))
    await assert_same(Play([request_, 2.0, GET], [[LAST], [OK]]))
    await assert_same(Play([GET + request_ + GET], [[OK]] * 3))


@with_answers
async def test_an_answer_of_any_kind(answer: Sequence[Act], autojump_clock: MockClock) -> None:
    for request in (GET, POST, REQUESTS["HEAD"], REQUESTS["last"]):
        assert await assert_same(Play([request, 2.0, GET], [answer, [OK]])) >= 1
    assert await assert_same(Play([GET + GET + POST + GET], [answer, [OK], answer, [OK]])) >= 1


@with_answers
async def test_an_answer_of_any_kind_on_a_kept_connection(answer: Sequence[Act], autojump_clock: MockClock) -> None:
    for request in (GET, POST):
        assert await assert_same(Play([GET, 0.1, request, 0.1, GET], [[OK], answer, [OK], [OK]])) >= 2
    assert await assert_same(Play([GET, 0.1, GET, 0.1, GET, 0.1, GET], [[OK], answer, [OK], [OK]], backends=2)) >= 2


@pytest.mark.parametrize("request_", [GET, POST, GET + POST], ids=["GET", "POST", "both"])
async def test_a_request_in_two_pieces(request_: bytes, autojump_clock: MockClock) -> None:
    for at in range(1, len(request_), 2):
        await assert_same(Play([request_[:at], 0.5, request_[at:], 1.0, GET], [[OK]] * 3))


@pytest.mark.parametrize("pause", [[], [0.5], [2.0]])
async def test_an_answer_in_two_pieces(pause: list[Act], autojump_clock: MockClock) -> None:
    for at in range(1, len(OK)):
        assert await assert_same(Play([GET, 3.0, GET], [[OK[:at], *pause, OK[at:]], [OK]])) == 2


DEEDS: dict[str, Deed] = {
    "end": end,
    "reset": reset,
    "hang up": hang_up,
    "the client's end": by_client(end),
    "the client's reset": by_client(reset),
    "the client hangs up": by_client(hang_up),
    "operator": operator,
    "drain": drain,
    "no routes": no_routes,
    "other config": other_config,
    "refusing": refusing,
}
with_deeds = pytest.mark.parametrize("deed", DEEDS.values(), ids=DEEDS)
KEPT = pytest.mark.parametrize("kept", [False, True])


@with_deeds
@KEPT
async def test_something_happens_around_a_request(deed: Deed, kept: bool, autojump_clock: MockClock) -> None:
    before: list[Act] = [GET, 0.1] if kept else []
    for at in (0, 5, len(GET)):
        pieces = [piece for piece in (GET[:at], deed, GET[at:]) if piece]
        await assert_same(Play([*before, *pieces, 1.0, GET], [[OK]] * 3))


@with_deeds
@pytest.mark.parametrize("pause", [[], [0.4], [1.5]])
async def test_something_happens_around_an_answer(deed: Deed, pause: list[Act], autojump_clock: MockClock) -> None:
    for answer in (OK, LAST):
        for at in (0, 5, len(answer) - 2, len(answer)):
            pieces = [piece for piece in (answer[:at], deed, answer[at:]) if piece]
            acts: list[Act] = []
            for piece in pieces:
                acts += [*pause, piece]
            await assert_same(Play([GET, 7.1, GET], [acts, [OK]]))
            await assert_same(Play([GET, 0.1, GET + GET, 7.1, GET], [[OK], acts, [OK], [OK]]))


# Less one: the short way gives the backend's connection back before the answer is sent, so it may have expired then.
@pytest.mark.parametrize("deed", [deed for deed in DEEDS.values() if deed is not refusing])
@pytest.mark.parametrize("answer", [OK, LAST])
async def test_something_happens_while_the_client_does_not_read(
    deed: Deed, answer: bytes, autojump_clock: MockClock
) -> None:
    for reads_after in (0.5, 49.0, 60.0):
        for ahead in ([], [GET]):
            acts: list[Act] = [GET, 0.1, GET, *ahead, 0.2, deed, 70.6, GET]
            await assert_same(Play(acts, [[OK], [answer], [OK], [OK]], capacity=100, reads_after=reads_after))
