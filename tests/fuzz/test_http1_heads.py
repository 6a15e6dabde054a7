"""The parser of heads: it accepts or refuses, nothing else, and it accepts nothing that h11 reads differently."""

from __future__ import annotations

from collections.abc import Sequence

import h11
from http_strategies import Edits, cuts, edits, mutate, pieces, request_heads, response_heads, sound_requests
from hypothesis import given, settings
from hypothesis import strategies as st

from trioproxy.errors import BadRequest, HeadTooLarge, ProxyError, UpstreamProtocol
from trioproxy.http1.framing import open_body
from trioproxy.http1.head import REQUEST_LINE, STATUS_LINE, HeadBuffer, RequestHead, ResponseHead
from trioproxy.http1.parse import parse_request, parse_response

MANY = 1000
# Read after each head: as a length's first bytes, as chunks, or as what follows.
AFTER = b"1\r\nZ\r\n0\r\n\r\nGET / HTTP/1.1\r\n"

often = settings(max_examples=200)


def our_request(raw: bytes) -> RequestHead | None:
    try:
        return parse_request(raw, header_count=MANY)
    except (BadRequest, HeadTooLarge):
        return None


def our_response(raw: bytes, method: bytes) -> ResponseHead | None:
    try:
        return parse_response(raw, method=method, header_count=MANY)
    except UpstreamProtocol:
        return None


def h11_client(method: bytes, status: bytes) -> h11.Connection:
    """An h11 client that has sent its whole request, and asked for an upgrade if it will be told of one."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=2**20)
    upgrade = [("Connection", "upgrade"), ("Upgrade", "any")] if status == b"101" else []
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "hub"), *upgrade]))
    connection.send(h11.EndOfMessage())
    return connection


def h11_message(connection: h11.Connection, raw: bytes) -> tuple[h11.Event | None, bytes, bytes | None]:
    """The head h11 reads, the payload after it, and what it leaves; None when the body has not ended."""
    try:
        connection.receive_data(raw + AFTER)
        head = connection.next_event()
    except h11.RemoteProtocolError:
        return None, b"", None
    assert isinstance(head, h11.Request | h11.Response | h11.InformationalResponse)
    payload = b""
    while isinstance(head, h11.Request | h11.Response):
        event = connection.next_event()
        if isinstance(event, h11.EndOfMessage):
            break
        if event is h11.NEED_DATA:
            return head, payload, None
        assert isinstance(event, h11.Data)
        payload += bytes(event.data)
    return head, payload, connection.trailing_data[0]


def our_body(head: RequestHead | ResponseHead) -> tuple[bytes, bytes | None]:
    body = open_body(head.framing)
    payload = body.feed(AFTER)
    return payload, body.rest if body.done else None


def without_lengths(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """As h11 shows them: it merges equal lengths and writes codings in lower case."""
    return [
        (name, value.lower() if name.lower() == b"transfer-encoding" else value)
        for name, value in fields
        if name.lower() != b"content-length"
    ]


@given(request_heads, edits)
@often
def test_what_is_taken_for_a_request_is_the_same_request_to_h11(sound: bytes, edits: Edits) -> None:
    raw = mutate(sound, edits)
    head = our_request(raw)
    if head is None:
        return
    event, payload, rest = h11_message(h11.Connection(h11.SERVER, max_incomplete_event_size=2**20), raw)
    assert isinstance(event, h11.Request)
    assert head.method == event.method
    assert head.http11 is (event.http_version != b"1.0")
    if event.target.startswith(b"/") or event.target == b"*":
        assert head.path + head.query == event.target
    else:
        scheme, _, after = event.target.partition(b"://")
        assert scheme.lower() in (b"http", b"https")
        assert after.lower().startswith(head.authority.lower())
        path = b"" if head.path == b"*" else head.path
        assert after[len(head.authority) :].removeprefix(b"/") == path.removeprefix(b"/") + head.query
    assert [(name, value) for _, name, value in head.fields if name.lower() != b"transfer-encoding"] == [
        (name, value) for name, value in event.headers.raw_items() if name.lower() != b"transfer-encoding"
    ]
    assert all(lower == name.lower() for lower, name, _ in head.fields)
    assert our_body(head) == (payload, rest)


@given(response_heads, edits, st.sampled_from([b"GET", b"HEAD"]))
@often
def test_what_is_taken_for_a_response_is_the_same_response_to_h11(sound: bytes, edits: Edits, method: bytes) -> None:
    raw = mutate(sound, edits)
    head = our_response(raw, method)
    if head is None:
        return
    event, payload, rest = h11_message(h11_client(method, b"%d" % head.status), raw)
    assert isinstance(event, h11.Response | h11.InformationalResponse)
    assert (head.status, head.reason) == (event.status_code, event.reason)
    assert head.http11 is (event.http_version != b"1.0")
    ours = [(name, value) for _, name, value in head.fields]
    assert without_lengths(ours) == without_lengths(event.headers.raw_items())
    if isinstance(event, h11.Response):
        assert our_body(head) == (payload, rest)


@given(st.binary(max_size=200))
@often
def test_any_bytes_are_accepted_or_refused_and_nothing_else(raw: bytes) -> None:
    for tail in (b"", b"\r\n\r\n"):
        our_request(raw + tail)
        our_response(raw + tail, b"GET")


@given(request_heads | response_heads | sound_requests, edits)
@often
def test_mutated_heads_are_accepted_or_refused_and_nothing_else(sound: bytes, edits: Edits) -> None:
    raw = mutate(sound, edits)
    our_request(raw)
    our_response(raw, b"GET")


@given(sound_requests)
@often
def test_heads_that_may_be_forwarded_are_accepted(raw: bytes) -> None:
    assert our_request(raw) is not None


# --- pieces ----------------------------------------------------------------------------------------------------

Outcome = tuple[str, bytes, bytes]


def read_request(parts: Sequence[bytes], limit: int) -> Outcome:
    buffer = HeadBuffer(limit, first_line=REQUEST_LINE, too_large=HeadTooLarge, malformed=BadRequest, empty_line=True)
    outcome = read_head(buffer, parts)
    if outcome[0] == "head" and our_request(outcome[1]) is None:
        return ("BadRequest", b"", b"")
    return outcome


def read_response(parts: Sequence[bytes], limit: int) -> Outcome:
    buffer = HeadBuffer(limit, first_line=STATUS_LINE, too_large=UpstreamProtocol, malformed=UpstreamProtocol)
    outcome = read_head(buffer, parts)
    if outcome[0] == "head" and our_response(outcome[1], b"GET") is None:
        return ("UpstreamProtocol", b"", b"")
    return outcome


def read_head(buffer: HeadBuffer, parts: Sequence[bytes]) -> Outcome:
    for at, part in enumerate(parts):
        try:
            head = buffer.feed(part)
        except ProxyError as error:
            return (type(error).__name__, b"", b"")
        if head is not None:
            return ("head", head, buffer.rest + b"".join(parts[at + 1 :]))
    return ("incomplete", b"", b"")


messages = st.builds(
    lambda before, head, after: before + head + after,
    st.sampled_from([b"", b"", b"", b"\r\n", b"\r\n\r\n", b"\n", b"\r"]),
    request_heads | response_heads | sound_requests,
    st.sampled_from([b"", b"body", AFTER]),
)


@given(messages, edits, cuts)
@often
def test_a_request_head_is_the_same_in_any_pieces(sound: bytes, edits: Edits, cuts: Sequence[int]) -> None:
    raw = mutate(sound, edits)
    assert read_request(pieces(raw, cuts), 10_000) == read_request([raw], 10_000)


@given(messages, edits, cuts)
@often
def test_a_response_head_is_the_same_in_any_pieces(sound: bytes, edits: Edits, cuts: Sequence[int]) -> None:
    raw = mutate(sound, edits)
    assert read_response(pieces(raw, cuts), 10_000) == read_response([raw], 10_000)


@given(messages, edits, cuts, st.integers(10, 200))
@often
def test_a_head_that_is_both_too_large_and_malformed_is_refused_in_any_pieces(
    sound: bytes, edits: Edits, cuts: Sequence[int], limit: int
) -> None:
    raw = mutate(sound, edits)
    whole, cut = read_request([raw], limit), read_request(pieces(raw, cuts), limit)
    # Which of the two is noticed first depends on the pieces.
    assert whole == cut or {whole[0], cut[0]} == {"BadRequest", "HeadTooLarge"}


@given(st.lists(st.binary(max_size=20), max_size=10))
@often
def test_any_bytes_in_any_pieces_are_a_head_or_a_refusal_or_not_enough(parts: list[bytes]) -> None:
    assert read_request(parts, 100) == read_request(parts, 100)
    assert read_request(parts, 100)[0] in ("head", "incomplete", "BadRequest", "HeadTooLarge")
    assert read_response(parts, 100)[0] in ("head", "incomplete", "UpstreamProtocol")
