"""What a request keeps of its body, so that it can be sent a second time."""

from __future__ import annotations

import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.http1.forwarded import find_origin
from trioproxy.http1.framing import open_body
from trioproxy.http1.parse import parse_request
from trioproxy.net.prefixed import PrefixedStream
from trioproxy.observe.access_log import RequestRecord
from trioproxy.proxy.request import Request

HEAD = b"PUT / HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def upload(pieces: list[bytes], *, keeps: int) -> Request:
    """A chunked request of which these pieces were taken, one by one, after the head."""
    head = parse_request(HEAD, header_count=128)
    origin = find_origin("192.0.2.1", {}, tls=False, authority=b"hub", trusted=(), local_peer=False)
    record = RequestRecord("id", "192.0.2.1", "web", 0.0, 0.0)
    request = Request(head, origin, open_body(head.framing), b"", record, keeps=keeps)
    stream = PrefixedStream(trio.testing.memory_stream_pair()[0])
    request.begin_body(stream, b"", limit=0)
    for piece in pieces:
        request.take(stream, memoryview(bytearray(chunk(piece))), limit=0)
        assert len(request.early) <= keeps
    return request


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=20), st.integers(0, 500))
def test_the_body_is_kept_whole_or_not_at_all(pieces: list[bytes], keeps: int) -> None:
    request, body = upload(pieces, keeps=keeps), b"".join(pieces)
    assert request.consumed is (len(body) > keeps)
    assert request.early == (b"" if request.consumed else body)
    assert request.record.bytes_in == len(body)


def test_coding_without_payload_takes_nothing_away() -> None:
    request = upload([], keeps=0)
    request.take(PrefixedStream(trio.testing.memory_stream_pair()[0]), b"5\r\n", limit=0)
    assert not request.consumed
