"""The chunked decoder: the same in any pieces, and nothing that h11 would read differently."""

from __future__ import annotations

from collections.abc import Sequence

import h11
from http_strategies import chunked_bodies, cuts, edits, mutate, pieces
from hypothesis import given, settings
from hypothesis import strategies as st

from trioproxy.http1.fields import Fields
from trioproxy.http1.framing import SMALL_PIECE, ChunkedBody, MalformedBody, chunk, chunked, last_chunk

often = settings(max_examples=200)

POST = b"POST / HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n\r\n"


class Decoded:
    """What becomes of a body fed in these pieces. `verdict` is "done", "incomplete" or "refused"."""

    def __init__(self, parts: Sequence[bytes]) -> None:
        body = ChunkedBody()
        self.payload = b""
        self.verdict = "incomplete"
        try:
            for part in parts:
                self.payload += body.feed(part)
        except MalformedBody:
            self.verdict = "refused"
        else:
            self.verdict = "done" if body.done else "incomplete"
        self.rest = body.rest
        self.trailers: Fields = body.trailers


bodies = st.builds(mutate, chunked_bodies, edits)


@given(bodies, cuts)
@often
def test_a_chunked_body_is_the_same_in_any_pieces(raw: bytes, cuts: Sequence[int]) -> None:
    whole, cut = Decoded([raw]), Decoded(pieces(raw, cuts))
    assert cut.verdict == whole.verdict
    if whole.verdict == "refused":
        return  # in pieces, what came before the mistake has been handed out
    assert (cut.payload, cut.rest, cut.trailers) == (whole.payload, whole.rest, whole.trailers)


@given(bodies)
@often
def test_what_is_taken_for_a_chunked_body_is_the_same_body_to_h11(raw: bytes) -> None:
    ours = Decoded([raw])
    if ours.verdict == "refused":
        return
    if any(lower in (b"content-length", b"transfer-encoding") for lower, _, _ in ours.trailers):
        return  # h11 judges them; they never go on
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
    connection.receive_data(POST + raw)
    assert isinstance(connection.next_event(), h11.Request)
    payload = b""
    while isinstance(event := connection.next_event(), h11.Data):
        payload += bytes(event.data)
    assert payload == ours.payload
    if ours.verdict == "incomplete":
        assert event is h11.NEED_DATA
        return
    assert isinstance(event, h11.EndOfMessage)
    assert event.headers.raw_items() == [(name, value) for _, name, value in ours.trailers]
    assert connection.trailing_data[0] == ours.rest


@given(st.lists(st.binary(max_size=40), max_size=8))
@often
def test_any_bytes_are_a_body_or_a_refusal_or_not_enough(parts: list[bytes]) -> None:
    decoded = Decoded(parts)
    assert len(decoded.payload) + len(decoded.rest) <= sum(map(len, parts))


@given(st.lists(st.binary(min_size=1, max_size=100)), cuts)
@often
def test_what_was_cut_into_chunks_comes_out_whole(parts: list[bytes], cuts: Sequence[int]) -> None:
    raw = b"".join(chunk(part) for part in parts) + last_chunk([(b"x-sum", b"X-Sum", b"1")]) + b"rest"
    decoded = Decoded(pieces(raw, cuts))
    assert (decoded.verdict, decoded.payload, decoded.rest) == ("done", b"".join(parts), b"rest")
    assert decoded.trailers == [(b"x-sum", b"X-Sum", b"1")]


@given(bodies, cuts)
@often
def test_what_is_split_depends_on_its_memory_only_until_the_next_bytes(raw: bytes, cuts: Sequence[int]) -> None:
    whole = Decoded([raw])
    body = ChunkedBody()
    buffer = bytearray(len(raw))
    payload = b""
    try:
        for part in pieces(raw, cuts):
            buffer[: len(part)] = part
            payload += b"".join(body.split(memoryview(buffer)[: len(part)]))
            buffer[:] = b"\n" * len(buffer)
    except MalformedBody:
        assert whole.verdict == "refused"
        return
    assert whole.verdict == ("done" if body.done else "incomplete")
    assert (payload, body.rest, body.trailers) == (whole.payload, whole.rest, whole.trailers)


@given(st.lists(st.binary(min_size=1, max_size=3).map(lambda part: part * 4000), min_size=1, max_size=4), cuts)
@often
def test_large_pieces_are_handed_on_without_a_copy_and_come_out_as_one_chunk(
    parts: list[bytes], cuts: Sequence[int]
) -> None:
    raw = b"".join(chunk(part) for part in parts) + last_chunk([])
    body = ChunkedBody()
    again: list[bytes] = []
    for part in pieces(raw, cuts):
        found = body.split(part)
        views = [one for one in found if isinstance(one, memoryview)]
        assert all(view.obj is part and len(view) >= SMALL_PIECE for view in views)
        assert sum(map(len, found)) - sum(map(len, views)) < SMALL_PIECE * 2 * len(parts)
        again.append(b"".join(chunked(found)))
    decoded = Decoded([b"".join(again) + last_chunk([])])
    assert (decoded.verdict, decoded.payload) == ("done", b"".join(parts))
