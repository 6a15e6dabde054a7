from __future__ import annotations

import pytest
from http_heads import cut, response

from trioproxy.errors import BadRequest, HeadTooLarge, UpstreamProtocol
from trioproxy.http1.head import REQUEST_LINE, STATUS_LINE, HeadBuffer

GET = b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n"


def for_requests(limit: int = 1000) -> HeadBuffer:
    return HeadBuffer(limit, first_line=REQUEST_LINE, too_large=HeadTooLarge, malformed=BadRequest, empty_line=True)


def for_responses(limit: int = 1000) -> HeadBuffer:
    return HeadBuffer(limit, first_line=STATUS_LINE, too_large=UpstreamProtocol, malformed=UpstreamProtocol)


def fed(buffer: HeadBuffer, data: bytes, size: int) -> bytes | None:
    """What the buffer says at last; what is not fed any more is added to `rest`."""
    pieces = cut(data, size)
    for at, piece in enumerate(pieces):
        if (head := buffer.feed(piece)) is not None:
            buffer.rest += b"".join(pieces[at + 1 :])
            return head
    return None


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_head_and_what_follows_are_told_apart_in_any_pieces(size: int) -> None:
    buffer = for_requests()
    assert fed(buffer, GET + b"body\r\n\r\n", size) == GET
    assert buffer.rest == b"body\r\n\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_one_empty_line_may_come_before_a_request(size: int) -> None:
    assert fed(for_requests(), b"\r\n" + GET, size) == GET


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_a_second_empty_line_is_no_part_of_a_request(size: int) -> None:
    # In one piece the buffer only measures; the parser refuses what it then finds.
    try:
        head = fed(for_requests(), b"\r\n\r\n" + GET, size)
    except BadRequest:
        return
    assert head is not None
    assert not REQUEST_LINE.match(head)


@pytest.mark.parametrize("size", [1, 2])
def test_no_empty_line_may_come_before_a_response(size: int) -> None:
    with pytest.raises(UpstreamProtocol):
        fed(for_responses(), b"\r\nHTTP/1.1 200 OK\r\n\r\n", size)


def test_a_head_has_begun_with_its_first_byte_and_not_with_the_empty_line_before_it() -> None:
    buffer = for_requests()
    assert not buffer.started
    assert buffer.feed(b"\r\n") is None
    assert not buffer.started
    assert buffer.feed(b"G") is None
    assert buffer.started


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1\r\nHost: hub\n",
        b"GET / HTTP/1.1\r\rH",
        b"GET / HTTP/1.1\r\nHost: hub\rX",
        b"\n",
        b"\x16\x03\x01",  # a TLS ClientHello
        b"GET / HTTP/1.1\r\nA: \0",
        b"GET / HTTP/1.1\r\nA: \x7f",
        b"GET /\r\n",  # HTTP/0.9
        b"GET / HTTP/2.0\r\n",
        b"PRI * HTTP/2.0\r\n",
        b"GET / http/1.1\r\n",
        b"GET  / HTTP/1.1\r\n",
        b"HELO hub\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_what_cannot_become_a_request_is_refused_before_it_is_complete(start: bytes, size: int) -> None:
    with pytest.raises(BadRequest):
        fed(for_requests(), start, size)


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize(
    "start", [b"HTTP/2 200\r\n", b"ICY 200 OK\r\n", b"HTTP/1.1 20\r\n", b"HTTP/1.1 200 OK\n", b"<html>\r\n", b"\0"]
)
def test_what_cannot_become_a_response_is_refused_before_it_is_complete(start: bytes, size: int) -> None:
    with pytest.raises(UpstreamProtocol):
        fed(for_responses(), start, size)


@pytest.mark.parametrize(
    "start", [b"HTTP/1.1 200\r\n", b"HTTP/1.1 200 \r\n", b"HTTP/1.0 999 \xff\t!\r\n", b"HTTP/1.2 200 OK\r\n"]
)
def test_a_status_line_may_lack_its_reason_and_have_a_later_minor_version(start: bytes) -> None:
    assert fed(for_responses(), start, 1) is None


@pytest.mark.parametrize("size", [1, 10, 1000])
def test_a_head_may_be_as_large_as_the_limit_and_no_larger(size: int) -> None:
    assert fed(for_requests(len(GET)), GET + b"body", size) == GET
    with pytest.raises(HeadTooLarge, match=str(len(GET) - 1)):
        fed(for_requests(len(GET) - 1), GET, size)


def test_a_head_that_never_ends_is_refused_at_the_limit() -> None:
    with pytest.raises(HeadTooLarge):
        for_requests(100).feed(b"GET / HTTP/1.1\r\nA: " + b"a" * 100)


@pytest.mark.parametrize(
    ("status", "informational"), [(b"100", True), (b"199", True), (b"101", False), (b"200", False)]
)
def test_another_response_follows_a_1xx_other_than_101(status: bytes, informational: bool) -> None:
    assert response(b"Connection: Upgrade", b"Upgrade: x", status=status).informational is informational
