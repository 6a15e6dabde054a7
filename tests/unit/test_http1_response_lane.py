"""A response head that comes again on a connection is taken as known, and only where it would come out the same."""

from __future__ import annotations

from trioproxy.http1.canonical import MAX_REMEMBERED, ResponseLane, canonical_response

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nSet-Cookie: a=b\r\n\r\n"


def test_one_that_comes_again_is_the_same() -> None:
    lane = ResponseLane()
    first = lane.take(HEAD, method=b"GET", header_count=10)
    assert first == canonical_response(HEAD, method=b"GET", header_count=10)
    assert lane.take(bytes(bytearray(HEAD)), method=b"GET", header_count=10) is first


def test_another_head_or_method_is_looked_at_anew() -> None:
    lane = ResponseLane()
    for raw, method in [(HEAD, b"GET"), (HEAD, b"HEAD"), (HEAD, b"GET"), (HEAD.replace(b"3", b"4"), b"GET")]:
        assert lane.take(raw, method=method, header_count=10) == canonical_response(raw, method=method, header_count=10)


def test_a_lower_limit_holds_for_a_head_that_is_known() -> None:
    lane = ResponseLane()
    assert lane.take(HEAD, method=b"GET", header_count=2) is not None
    assert lane.take(HEAD, method=b"GET", header_count=1) is None


def test_one_that_was_declined_is_declined_again() -> None:
    lane = ResponseLane()
    for _ in range(2):
        assert lane.take(HEAD.replace(b": a", b":  a"), method=b"GET", header_count=10) is None


def test_a_large_one_is_not_kept() -> None:
    lane = ResponseLane()
    large = HEAD.replace(b"a=b", b"a=" + b"b" * MAX_REMEMBERED)
    first = lane.take(large, method=b"GET", header_count=10)
    assert first is not None
    assert lane.take(large, method=b"GET", header_count=10) == first
    assert lane.take(large, method=b"GET", header_count=10) is not first
