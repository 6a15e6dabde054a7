from __future__ import annotations

import json

import pytest
from http_heads import raw_head, request

from trioproxy.errors import BadRequest, ClientGone, NoBackend, NoRoute, ProxyError
from trioproxy.http1.head import RequestHead
from trioproxy.http1.reply import error_reply, prefers_html, redirect_reply


def answered(error: ProxyError, head: RequestHead | None = None, *, close: bool = False) -> tuple[list[bytes], bytes]:
    """Head lines and body."""
    raw = error_reply(error, head, request_id=b"r1", close=close)
    head_part, _, body = raw.partition(b"\r\n\r\n")
    return head_part.split(b"\r\n"), body


def test_an_error_is_a_problem_document() -> None:
    lines, body = answered(NoRoute("no session or service has this address"), request())
    assert lines == [
        b"HTTP/1.1 404 Not Found",
        b"Content-Type: application/problem+json",
        b"Cache-Control: no-store",
        b"Content-Length: %d" % len(body),
        b"X-Request-Id: r1",
    ]
    assert json.loads(body) == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "code": "no_route",
        "detail": "no session or service has this address",
        "request_id": "r1",
    }


def test_an_error_brings_its_fields_and_says_that_the_connection_ends() -> None:
    lines, _ = answered(NoBackend("none", retry_after=3), request(), close=True)
    assert lines[3] == b"Retry-After: 3"
    assert lines[-1] == b"Connection: close"
    lines, _ = answered(BadRequest("no", status=405, headers=((b"Allow", b"GET"),)), None)
    assert lines[0] == b"HTTP/1.1 405 Method Not Allowed"
    assert lines[3] == b"Allow: GET"


def test_an_error_without_a_readable_head_is_a_problem_document() -> None:
    lines, body = answered(BadRequest("the first line is not that of an HTTP/1.1 message"))
    assert lines[1] == b"Content-Type: application/problem+json"
    assert json.loads(body)["code"] == "bad_request"


def test_a_status_without_a_name_of_its_own_is_an_error() -> None:
    lines, body = answered(ClientGone("left"), request())
    assert lines[0] == b"HTTP/1.1 499 Error"
    assert json.loads(body)["title"] == "Error"


def test_a_person_gets_a_page_in_which_nothing_is_markup() -> None:
    lines, body = answered(NoRoute('<script>"x"</script>'), request(b"Accept: text/html"))
    assert lines[1] == b"Content-Type: text/html; charset=utf-8"
    assert lines[3] == b"Content-Length: %d" % len(body)
    assert b"404 Not Found" in body
    assert b"no_route" in body
    assert b"request r1" in body
    assert b"<script>" not in body
    assert b"&lt;script&gt;" in body


@pytest.mark.parametrize("accept", [b"text/html", b"application/json"])
def test_head_gets_the_length_of_the_body_and_no_body(accept: bytes) -> None:
    field = b"Accept: " + accept
    lines, body = answered(NoRoute("x"), request(field, method=b"HEAD"))
    assert body == b""
    assert b"Content-Length: %d" % len(answered(NoRoute("x"), request(field))[1]) in lines


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        ([], False),
        ([b""], False),
        ([b"*/*"], False),
        ([b"text/html"], True),
        ([b"TEXT/HTML"], True),
        ([b"text/*"], True),
        ([b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], True),
        ([b"application/json"], False),
        ([b"application/json, text/html"], False),
        ([b"application/problem+json, text/html;q=0.9"], False),
        ([b"application/json;q=0.5, text/html"], True),
        ([b"application/json;q=0.5", b"text/html"], True),
        ([b"text/html;q=0"], False),
        ([b"text/html;q=0, */*"], False),
        ([b"text/html ; level=1 ; q = 0.9 , */*;q=0.1"], True),
        ([b"text/html;q=high"], False),
        ([b"text/html;q=nan, application/json"], False),
        ([b"application/*, text/html;q=0.5"], False),
        ([b"text/html;q=0.5, text/html"], True),
        ([b"image/*"], False),
        ([b";;;,,="], False),
        ([b"\xff"], False),
    ],
)
def test_accept_decides_between_page_and_document(accept: list[bytes], html: bool) -> None:
    assert prefers_html(request(*[b"Accept: " + value for value in accept]).fields) is html


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_a_redirect_keeps_the_method(method: bytes) -> None:
    head = request(method=method)
    assert redirect_reply(b"/s/v/?x", head, request_id=b"r1", close=False) == raw_head(
        b"HTTP/1.1 308 Permanent Redirect", b"Location: /s/v/?x", b"Content-Length: 0", b"X-Request-Id: r1"
    )
    assert redirect_reply(b"/", head, request_id=b"r1", close=True).endswith(b"\r\nConnection: close\r\n\r\n")
