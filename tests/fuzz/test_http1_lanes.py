"""The two lanes for heads: whatever the canonical one takes, the other one takes as well, and means the same by it."""

from __future__ import annotations

from dataclasses import replace

from http_strategies import (
    Edits,
    canonical_requests,
    canonical_responses,
    edits,
    mutate,
    request_heads,
    response_heads,
    sound_requests,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from trioproxy.http1.canonical import canonical_request, canonical_response
from trioproxy.http1.forward import mapped_response_head, request_head
from trioproxy.http1.forwarded import Origin
from trioproxy.http1.head import RequestHead, ResponseHead
from trioproxy.http1.parse import odd_request, odd_response
from trioproxy.http1.rewrite import Mapping

MANY = 1000
MAPPINGS = [None, Mapping(b"/s/web", b"hub", b"kernel:8888")]
SEEN_IN_RESPONSES = (b"connection", b"content-length", b"transfer-encoding", b"keep-alive", b"x-request-id")

often = settings(max_examples=400)


def forwarded(head: RequestHead, prefix: bytes) -> bytes:
    origin = Origin("192.0.2.1", ("192.0.2.1",), "https", head.authority, 443)
    target = head.path + head.query
    return request_head(
        head, target=target, backend=b"kernel:1", origin=origin, request_id=b"r1", prefix=prefix, upgrade=None
    )


@given(canonical_requests | request_heads | sound_requests, edits, st.sampled_from([b"", b"/s/web"]))
@often
def test_requests_are_declined_or_mean_the_same_in_both_lanes(sound: bytes, edits: Edits, prefix: bytes) -> None:
    raw = mutate(sound, edits)
    head = canonical_request(raw, header_count=MANY)
    if head is None:
        return
    other = odd_request(raw, header_count=MANY)
    assert replace(head, plain=None) == other
    assert forwarded(head, prefix) == forwarded(other, prefix)


@given(canonical_requests, st.integers(0, 4))
@often
def test_plain_requests_are_taken_up_to_the_allowed_number_of_fields(raw: bytes, spare: int) -> None:
    count = raw.count(b"\r\n") - 2
    assert canonical_request(raw, header_count=count + spare) is not None
    assert canonical_request(raw, header_count=count - 1 - spare) is None


@given(
    canonical_responses | response_heads,
    edits,
    st.sampled_from([b"GET", b"HEAD"]),
    st.sampled_from(MAPPINGS),
    st.booleans(),
    st.booleans(),
)
@often
def test_responses_are_declined_or_mean_the_same_in_both_lanes(
    sound: bytes, edits: Edits, method: bytes, mapping: Mapping | None, chunked: bool, close: bool
) -> None:
    raw = mutate(sound, edits)
    head = canonical_response(raw, method=method, header_count=MANY)
    if head is None:
        return
    other = odd_response(raw, method=method, header_count=MANY)
    assert replace(head, plain=None, special={}) == replace(other, special={})
    assert [head.special.get(name) for name in SEEN_IN_RESPONSES] == [
        other.special.get(name) for name in SEEN_IN_RESPONSES
    ]

    def sent(one: ResponseHead) -> bytes:
        return mapped_response_head(one, mapping, chunked=chunked, close=close, request_id=b"r1")

    assert sent(head) == sent(other)


@given(canonical_responses)
@often
def test_plain_responses_are_taken(raw: bytes) -> None:
    assert canonical_response(raw, method=b"GET", header_count=MANY) is not None
