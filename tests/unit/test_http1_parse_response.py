from __future__ import annotations

import pytest
from http_heads import raw_head, response
from refusals import BAD_RESPONSES, BadResponse

from trioproxy.errors import UpstreamProtocol
from trioproxy.http1.fields import make_field
from trioproxy.http1.framing import CHUNKED, NO_BODY, UNTIL_CLOSE, Coding, Framing
from trioproxy.http1.parse import parse_response

SWITCHED = {"a 101 that nobody asked for"}  # for `check_switch`, which knows the request, to judge


@pytest.mark.parametrize(
    "bad",
    [bad for bad in BAD_RESPONSES if b"\r\n\r\n" in bad.raw and bad.name not in SWITCHED],
    ids=lambda bad: bad.name,
)
def test_a_response_that_may_not_go_on_is_refused(bad: BadResponse) -> None:
    with pytest.raises(UpstreamProtocol) as caught:
        parse_response(bad.raw[: bad.raw.index(b"\r\n\r\n") + 4], method=b"GET", header_count=128)
    assert caught.value.status == 502
    assert caught.value.detail.isascii()
    assert caught.value.detail.isprintable()


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        (b"HTTP/1.1 200 OK", 200, b"OK"),
        (b"HTTP/1.1 200", 200, b""),
        (b"HTTP/1.1 200 ", 200, b""),
        (b"HTTP/1.1 404 Not \xfc\t Here ", 404, b"Not \xfc\t Here "),
        (b"HTTP/1.1 999 X", 999, b"X"),
    ],
)
def test_status_and_reason_are_kept_as_sent(line: bytes, status: int, reason: bytes) -> None:
    head = parse_response(raw_head(line), method=b"GET", header_count=8)
    assert (head.status, head.reason) == (status, reason)


def test_fields_are_kept_in_order_with_their_names_and_values_as_sent() -> None:
    head = response(b"set-cookie: a=1", b"X-Odd:\xff \t", b"Set-Cookie:b=2")
    assert head.fields == [
        make_field(b"set-cookie", b"a=1"),
        make_field(b"X-Odd", b"\xff"),
        make_field(b"Set-Cookie", b"b=2"),
    ]


def test_a_folded_line_of_a_response_is_unfolded() -> None:
    # RFC 9112 §5.2: a gateway replaces each fold in a response with a space.
    head = response(b"x-folded: a", b" \t b", b"\tc", b"Content-Length: 3")
    assert head.fields == [make_field(b"x-folded", b"a b c"), make_field(b"Content-Length", b"3")]
    assert head.framing == Framing(Coding.LENGTH, 3)


def test_a_folded_response_is_refused_for_what_h11_refuses() -> None:
    with pytest.raises(UpstreamProtocol, match="malformed head"):
        response(b"x-folded: a", b" b", b"Transfer-Encoding: gzip")


def test_a_head_may_have_as_many_fields_as_the_limit_and_no_more() -> None:
    raw = raw_head(b"HTTP/1.1 200 OK", *[b"X: y"] * 9)
    assert len(parse_response(raw, method=b"GET", header_count=9).fields) == 9
    with pytest.raises(UpstreamProtocol, match="more than 8"):
        parse_response(raw, method=b"GET", header_count=8)


LENGTH_3 = Framing(Coding.LENGTH, 3)


@pytest.mark.parametrize(
    ("status", "method", "version", "fields", "framing"),
    [
        (b"200", b"GET", b"1.1", [b"Content-Length: 3"], LENGTH_3),
        (b"200", b"GET", b"1.1", [b"Content-Length: 3", b"Content-Length:3"], LENGTH_3),
        (b"200", b"GET", b"1.1", [b"Content-Length: 3,\t3"], LENGTH_3),
        (b"200", b"GET", b"1.1", [b"Content-Length: 3 "], LENGTH_3),
        (b"200", b"GET", b"1.1", [b"Content-Length: 0"], NO_BODY),
        (b"200", b"GET", b"1.1", [b"Transfer-Encoding: Chunked"], CHUNKED),
        (b"200", b"GET", b"1.2", [b"Transfer-Encoding: chunked"], CHUNKED),
        (b"200", b"GET", b"1.1", [], UNTIL_CLOSE),
        (b"200", b"GET", b"1.0", [], UNTIL_CLOSE),
        (b"200", b"GET", b"1.0", [b"Content-Length: 3"], LENGTH_3),
        (b"500", b"POST", b"1.1", [b"Content-Length: 3"], LENGTH_3),
        (b"200", b"HEAD", b"1.1", [b"Content-Length: 3"], NO_BODY),
        (b"200", b"HEAD", b"1.1", [b"Transfer-Encoding: chunked"], NO_BODY),
        (b"200", b"HEAD", b"1.1", [], NO_BODY),
        (b"204", b"GET", b"1.1", [], NO_BODY),
        (b"204", b"GET", b"1.1", [b"Content-Length: 3"], NO_BODY),
        (b"204", b"GET", b"1.1", [b"Transfer-Encoding: chunked"], NO_BODY),
        (b"304", b"GET", b"1.1", [b"Content-Length: 3"], NO_BODY),
        (b"100", b"GET", b"1.1", [], NO_BODY),
        (b"103", b"GET", b"1.1", [b"Content-Length: 3"], NO_BODY),
    ],
)
def test_where_a_body_ends_follows_from_head_and_request(
    status: bytes, method: bytes, version: bytes, fields: list[bytes], framing: Framing
) -> None:
    assert response(*fields, status=status, version=version, method=method).framing == framing


@pytest.mark.parametrize(
    ("version", "fields", "keep_alive"),
    [
        (b"1.1", [], True),
        (b"1.1", [b"Connection: close"], False),
        (b"1.1", [b"Connection: a, Close"], False),
        (b"1.0", [], False),
        (b"1.0", [b"Connection: Keep-Alive"], True),
        (b"1.0", [b"Connection: keep-alive, close"], False),
        (b"1.2", [], True),
    ],
)
def test_a_backend_connection_may_serve_again_by_its_version_and_word(
    version: bytes, fields: list[bytes], keep_alive: bool
) -> None:
    assert response(*fields, version=version).keep_alive is keep_alive


def test_a_101_names_the_protocol_it_switches_to() -> None:
    head = response(b"Connection: keep-alive, Upgrade", b"Upgrade: WebSocket", status=b"101 X")
    assert head.upgrade == b"websocket"
    assert not head.informational
    assert response(b"Upgrade: websocket").upgrade is None


@pytest.mark.parametrize(
    "fields",
    [
        [b"Upgrade: websocket"],
        [b"Connection: Upgrade"],
        [b"Connection: Upgrade", b"Upgrade:"],
        [b"Connection: Upgrade", b"Upgrade: a, b"],
        [b"Connection: Upgrade", b"Upgrade: a", b"Upgrade: b"],
    ],
)
def test_a_101_that_does_not_name_one_protocol_is_refused(fields: list[bytes]) -> None:
    with pytest.raises(UpstreamProtocol, match="without naming one"):
        response(*fields, status=b"101 X")
