from __future__ import annotations

import pytest
from http_heads import cut

from trioproxy.http1.fields import Fields, make_field
from trioproxy.http1.framing import (
    CHUNKED,
    MAX_CHUNK_LINE,
    MAX_TRAILER_BYTES,
    MAX_TRAILERS,
    NO_BODY,
    UNTIL_CLOSE,
    Body,
    ChunkedBody,
    CloseBody,
    Coding,
    CountedBody,
    Framing,
    MalformedBody,
    NoBody,
    chunk,
    last_chunk,
    open_body,
)


def fed(body: Body, data: bytes, size: int) -> bytes:
    return b"".join(body.feed(piece) for piece in cut(data, size))


@pytest.mark.parametrize(
    ("framing", "kind"),
    [
        (NO_BODY, NoBody),
        (CHUNKED, ChunkedBody),
        (UNTIL_CLOSE, CloseBody),
        (Framing(Coding.LENGTH, 3), CountedBody),
    ],
)
def test_each_framing_has_its_receiver(framing: Framing, kind: type[Body]) -> None:
    assert type(open_body(framing)) is kind


def test_no_body_is_done_and_takes_nothing() -> None:
    body = NoBody()
    assert body.done
    assert body.feed(b"GET ") == b""
    assert body.feed(b"/") == b""
    assert body.rest == b"GET /"
    body.end_of_stream()


@pytest.mark.parametrize("size", [1, 2, 5, 6, 100])
def test_a_counted_body_ends_at_its_length_and_keeps_what_follows(size: int) -> None:
    body = CountedBody(5)
    assert fed(body, b"12345GET / HTTP/1.1", size) == b"12345"
    assert (body.done, body.rest) == (True, b"GET / HTTP/1.1")
    body.end_of_stream()


def test_a_counted_body_of_nothing_is_done_at_once() -> None:
    assert CountedBody(0).done


def test_a_counted_body_that_ends_early_is_malformed() -> None:
    body = CountedBody(5)
    assert body.feed(b"1234") == b"1234"
    with pytest.raises(MalformedBody, match="inside the body"):
        body.end_of_stream()
    assert not body.done


def test_a_body_until_close_takes_everything_and_is_done_when_the_connection_ends() -> None:
    body = CloseBody()
    assert fed(body, b"all of it", 4) == b"all of it"
    assert not body.done
    body.end_of_stream()
    assert (body.done, body.rest) == (True, b"")


CHUNKS: list[tuple[str, bytes, bytes, Fields]] = [
    ("nothing", b"0\r\n\r\n", b"", []),
    ("one chunk", b"3\r\nabc\r\n0\r\n\r\n", b"abc", []),
    ("several chunks", b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde", []),
    ("sizes in hex of both cases", b"a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", b"01234567890123456789a", []),
    ("leading zeros", b"0003\r\nabc\r\n000\r\n\r\n", b"abc", []),
    ("sixteen digits", b"0000000000000003\r\nabc\r\n0\r\n\r\n", b"abc", []),
    ("line ends as payload", b"6\r\n\r\n0\r\n\r\r\n0\r\n\r\n", b"\r\n0\r\n\r", []),
    ("an extension", b"3;name\r\nabc\r\n0;last\r\n\r\n", b"abc", []),
    ("an extension with a value", b'3;a=1;b="x; y"\r\nabc\r\n0\r\n\r\n', b"abc", []),
    ("an extension with blanks", b"3; a = 1 \r\nabc\r\n0\r\n\r\n", b"abc", []),
    ("an extension with high bytes", b"3;a=\xff\r\nabc\r\n0\r\n\r\n", b"abc", []),
    (
        "trailers",
        b"0\r\nX-Sum: 1\r\nx-sum:2 \t\r\nX-Empty:\r\nX-Blank: \t \r\n\r\n",
        b"",
        [
            make_field(b"X-Sum", b"1"),
            make_field(b"x-sum", b"2"),
            make_field(b"X-Empty", b""),
            make_field(b"X-Blank", b""),
        ],
    ),
    (
        "a trailer with blanks and high bytes inside",
        b"0\r\nX: a\t b\xff\r\n\r\n",
        b"",
        [make_field(b"X", b"a\t b\xff")],
    ),
]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize(
    ("raw", "payload", "trailers"), [case[1:] for case in CHUNKS], ids=[case[0] for case in CHUNKS]
)
def test_a_chunked_body_is_the_same_in_any_pieces(raw: bytes, payload: bytes, trailers: Fields, size: int) -> None:
    body = ChunkedBody()
    assert fed(body, raw + b"GET / HTTP/1.1", size) == payload
    assert body.done
    assert body.trailers == trailers
    assert body.rest == b"GET / HTTP/1.1"
    body.end_of_stream()


REFUSED_CHUNKS = [
    ("an empty size", b"\r\nabc\r\n"),
    ("a hex prefix", b"0x3\r\nabc\r\n"),
    ("a plus sign", b"+3\r\nabc\r\n"),
    ("a minus sign", b"-3\r\nabc\r\n"),
    ("a blank before the size", b" 3\r\nabc\r\n"),
    ("a blank after the size", b"3 \r\nabc\r\n"),
    ("a blank before an extension", b"3 ;a\r\nabc\r\n"),
    ("an underscore", b"1_0\r\nabc\r\n"),
    ("a letter beyond f", b"g\r\nabc\r\n"),
    ("seventeen digits", b"00000000000000003\r\nabc\r\n"),
    ("a comma", b"3,3\r\nabc\r\n"),
    ("a NUL in an extension", b"3;a=\0\r\nabc\r\n"),
    ("a bare CR in an extension", b"3;a\rb\r\nabc\r\n"),
    ("a size line that ends with LF", b"3\nabc\r\n"),
    ("a size line that ends with CR CR LF", b"3\r\r\nabc\r\n"),
    ("an extension that ends with LF", b"3;a\nabc\r\n"),
    ("no CRLF after the data", b"3\r\nabc0\r\n\r\n"),
    ("LF after the data", b"3\r\nabc\n0\r\n\r\n"),
    ("CR and something after the data", b"3\r\nabc\rX0\r\n\r\n"),
    ("too much data", b"3\r\nabcd\r\n0\r\n\r\n"),
    ("a last chunk that ends with LF", b"0\n\r\n"),
    ("a trailer section that ends with LF", b"0\r\n\n"),
    ("a trailer that ends with LF", b"0\r\nX: 1\n\r\n"),
    ("a trailer with a bare CR", b"0\r\nX: 1\r2\r\n\r\n"),
    ("a trailer without a colon", b"0\r\nX\r\n\r\n"),
    ("a trailer without a name", b"0\r\n: 1\r\n\r\n"),
    ("a trailer with a blank before its colon", b"0\r\nX : 1\r\n\r\n"),
    ("a folded trailer", b"0\r\nX: 1\r\n 2\r\n\r\n"),
    ("a NUL in a trailer", b"0\r\nX: \0\r\n\r\n"),
    ("a request where the trailers should end", b"0\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize("raw", [case[1] for case in REFUSED_CHUNKS], ids=[case[0] for case in REFUSED_CHUNKS])
def test_a_malformed_chunked_body_is_refused_in_any_pieces(raw: bytes, size: int) -> None:
    body = ChunkedBody()
    with pytest.raises(MalformedBody):
        fed(body, raw, size)
    assert not body.done


@pytest.mark.parametrize("size", [1, 100_000])
@pytest.mark.parametrize(
    ("raw", "accepted"),
    [
        (b"3;" + b"a" * (MAX_CHUNK_LINE - 2) + b"\r\nabc\r\n0\r\n\r\n", True),
        (b"3;" + b"a" * (MAX_CHUNK_LINE - 1) + b"\r\nabc\r\n0\r\n\r\n", False),
        (b"0\r\nX:" + b"a" * (MAX_TRAILER_BYTES - 2) + b"\r\n\r\n", True),
        (b"0\r\nX:" + b"a" * (MAX_TRAILER_BYTES - 1) + b"\r\n\r\n", False),
        (b"0\r\n" + b"X: 1\r\n" * MAX_TRAILERS + b"\r\n", True),
        (b"0\r\n" + b"X: 1\r\n" * (MAX_TRAILERS + 1) + b"\r\n", False),
        (b"0\r\n" + (b"X:" + b"a" * 998 + b"\r\n") * 17 + b"\r\n", False),
    ],
)
def test_chunk_lines_and_trailers_are_bounded_wherever_they_are_cut(raw: bytes, accepted: bool, size: int) -> None:
    body = ChunkedBody()
    if accepted:
        fed(body, raw, size)
        assert body.done
    else:
        with pytest.raises(MalformedBody):
            fed(body, raw, size)


@pytest.mark.parametrize("part", [b"3;" + b"a" * 2000, b"0\r\nX:" + b"a" * 20_000])
def test_a_line_that_never_ends_is_refused_without_its_end(part: bytes) -> None:
    with pytest.raises(MalformedBody, match="too long"):
        ChunkedBody().feed(part)


@pytest.mark.parametrize("end", range(len(b"3;x\r\nabc\r\n0\r\nA: b\r\n\r\n")))
def test_a_chunked_body_that_ends_early_is_malformed(end: int) -> None:
    body = ChunkedBody()
    body.feed(b"3;x\r\nabc\r\n0\r\nA: b\r\n\r\n"[:end])
    with pytest.raises(MalformedBody, match="inside the body"):
        body.end_of_stream()


def test_payload_is_handed_out_as_it_comes() -> None:
    body = ChunkedBody()
    assert body.feed(b"5\r\nab") == b"ab"
    assert body.feed(b"c") == b"c"
    assert body.feed(b"de\r\n1\r\nf") == b"def"


def test_what_comes_after_a_chunked_body_is_kept() -> None:
    body = ChunkedBody()
    body.feed(b"0\r\n\r\nGET")
    assert body.feed(b" /") == b""
    assert body.rest == b"GET /"


def test_blanks_in_a_trailer_are_read_in_linear_time() -> None:
    # Shared out in every possible way between three repetitions, these would take minutes.
    with pytest.raises(MalformedBody):
        ChunkedBody().feed(b"0\r\nX:" + b" " * (MAX_TRAILER_BYTES - 10) + b"\0\r\n\r\n")


def test_chunks_are_written_so_that_they_are_read_back() -> None:
    trailers = [make_field(b"X-Sum", b"1"), make_field(b"X-Empty", b"")]
    raw = chunk(b"x" * 300) + chunk(b"y") + last_chunk(trailers)
    assert raw == b"12c\r\n" + b"x" * 300 + b"\r\n1\r\ny\r\n0\r\nX-Sum: 1\r\nX-Empty: \r\n\r\n"
    body = ChunkedBody()
    assert body.feed(raw) == b"x" * 300 + b"y"
    assert body.trailers == trailers
    assert last_chunk([]) == b"0\r\n\r\n"
