"""Where a message body ends, and what of the received bytes is its payload (RFC 9112 §6 and §7).

A `Body` is fed what arrives and hands out payload, as parts of what it was fed; it never reads beyond the message,
what follows stays in `rest`. Chunked coding is decoded here and not by h11, which tolerates blanks after a chunk size
and gives one event per chunk; that what is accepted here is a subset of what h11 accepts is tested as a property.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum, auto
from typing import NamedTuple

from trioproxy.errors import TrioproxyError
from trioproxy.http1.fields import Field, Fields

MAX_CHUNK_LINE = 1024  # size and extensions; nobody is known to send more than a few dozen bytes
MAX_TRAILER_BYTES = 16 * 1024
MAX_TRAILERS = 128

SMALL_PIECE = 4096  # bytes: less is copied, for a part of its own costs more

Piece = bytes | bytearray | memoryview

_LINE_END = re.compile(rb"\n")
_NEXT_CHUNK = re.compile(rb"\r\n([0-9A-Fa-f]{1,16})\r\n")  # the end of one and the size of the next, as most have it
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t -~\x80-\xff]*)?")
# Blanks around the value are cut off afterwards: an expression that does it would try every way of sharing them out.
_FIELD_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t -~\x80-\xff]*)")


class MalformedBody(TrioproxyError):
    """The body's framing is broken, or the stream ended inside it. The text is safe to show."""


class Coding(Enum):
    """How a body is delimited."""

    NONE = auto()
    LENGTH = auto()
    CHUNKED = auto()
    CLOSE = auto()  # responses only: ends with the connection


class Framing(NamedTuple):
    """How a message's body is delimited; `length` in bytes, with LENGTH only."""

    coding: Coding
    length: int = 0


NO_BODY = Framing(Coding.NONE)
CHUNKED = Framing(Coding.CHUNKED)
UNTIL_CLOSE = Framing(Coding.CLOSE)


class Body(ABC):
    """A body being received. `feed` until `done`; a body without bytes is done at once."""

    def __init__(self) -> None:
        self.done = False
        self.rest = b""  # what came after the body
        self.trailers: Fields = []

    @abstractmethod
    def split(self, data: Piece) -> list[Piece]:
        """Take received bytes, return the payload among them (maybe none). Raises MalformedBody.

        The pieces may be parts of `data`, and nothing else keeps it: who uses its memory again must be done with them.
        """

    def feed(self, data: bytes) -> bytes:
        """As `split`, in one piece."""
        return b"".join(self.split(data))

    def end_of_stream(self) -> None:
        """The peer sends no more. Raises MalformedBody unless that is how this body ends."""
        if not self.done:
            raise MalformedBody("the connection ended inside the body")


class NoBody(Body):
    """No body at all."""

    def __init__(self) -> None:
        super().__init__()
        self.done = True

    def split(self, data: Piece) -> list[Piece]:
        """Everything belongs to what follows."""
        self.rest += data
        return []


class CountedBody(Body):
    """Content-Length bytes."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.remaining = length
        self.done = length == 0

    def split(self, data: Piece) -> list[Piece]:
        """Payload up to the announced length."""
        if len(data) < self.remaining:
            self.remaining -= len(data)
            return [data]
        payload, self.rest = data[: self.remaining], self.rest + data[self.remaining :]
        self.remaining = 0
        self.done = True
        return [payload]


class CloseBody(Body):
    """Everything until the connection ends."""

    def split(self, data: Piece) -> list[Piece]:
        """All of it."""
        return [data]

    def end_of_stream(self) -> None:
        """The one way for this body to be complete."""
        self.done = True


class _Part(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILER = auto()


class ChunkedBody(Body):
    """Chunked transfer coding with trailers; extensions are checked for shape and dropped (RFC 9112 §7.1)."""

    def __init__(self) -> None:
        super().__init__()
        self._part = _Part.SIZE
        self._line = b""  # an unfinished line
        self._remaining = 0
        self._trailer_bytes = 0

    def split(self, data: Piece) -> list[Piece]:
        """Decode what arrived."""
        if self.done:
            self.rest += data
            return []
        view = memoryview(data)
        pieces: list[Piece] = []
        at, end = 0, len(view)
        while at < end and not self.done:
            if self._part is _Part.DATA:
                stop = min(at + self._remaining, end)
                _add(pieces, view[at:stop])
                self._remaining -= stop - at
                at = stop
                if not self._remaining:
                    self._part = _Part.DATA_END
            elif self._part is _Part.DATA_END and not self._line and (found := _NEXT_CHUNK.match(view, at)):
                self._begin_chunk(found[1])
                at = found.end()
            else:
                at = self._read_line(view, at)
        if self.done:
            self.rest = bytes(view[at:])
        return pieces

    def _read_line(self, view: memoryview, at: int) -> int:
        found = _LINE_END.search(view, at)
        stop = found.end() if found else len(view)
        line, self._line = self._line + view[at:stop], b""
        if found:
            self._take_line(line)
        else:
            self._keep_unfinished(line)
        return stop

    def _keep_unfinished(self, line: bytes) -> None:
        if self._part is _Part.DATA_END and line != b"\r":
            raise MalformedBody("chunk data is not followed by CRLF")
        limit = MAX_TRAILER_BYTES if self._part is _Part.TRAILER else MAX_CHUNK_LINE
        if len(line) > limit + 1:  # with the CR of its end
            raise MalformedBody("a chunk line or trailer is too long")
        if b"\r" in line[:-1]:
            raise MalformedBody("a chunk line has a bare CR")
        self._line = line

    def _take_line(self, line: bytes) -> None:
        if not line.endswith(b"\r\n"):
            raise MalformedBody("a chunk line ends with a bare LF")
        line = line[:-2]
        if self._part is _Part.DATA_END:
            if line:
                raise MalformedBody("chunk data is not followed by CRLF")
            self._part = _Part.SIZE
        elif self._part is _Part.SIZE:
            found = _CHUNK_LINE.fullmatch(line) if len(line) <= MAX_CHUNK_LINE else None
            if found is None:
                raise MalformedBody("a chunk size is malformed")
            self._begin_chunk(found[1])
        elif line:
            self._take_trailer(line)
        else:
            self.done = True

    def _begin_chunk(self, size: bytes) -> None:
        self._remaining = int(size, 16)
        self._part = _Part.DATA if self._remaining else _Part.TRAILER

    def _take_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line)
        if self._trailer_bytes > MAX_TRAILER_BYTES or len(self.trailers) >= MAX_TRAILERS:
            raise MalformedBody("the trailer section is too large")
        self.trailers.append(parse_field_line(line))


def _add(pieces: list[Piece], payload: memoryview) -> None:
    if len(payload) >= SMALL_PIECE:
        pieces.append(payload)
    elif pieces and isinstance(last := pieces[-1], bytearray):
        last += payload
    else:
        pieces.append(bytearray(payload))


def parse_field_line(line: bytes) -> Field:
    """One field line without its CRLF. Raises MalformedBody when it is not one (RFC 9112 §5)."""
    found = _FIELD_LINE.fullmatch(line)
    if found is None:
        raise MalformedBody("a trailer is malformed")
    return (found[1].lower(), found[1], found[2].strip(b" \t"))


def open_body(framing: Framing) -> Body:
    """The receiver for a body framed like this."""
    if framing.coding is Coding.LENGTH:
        return CountedBody(framing.length)
    if framing.coding is Coding.CHUNKED:
        return ChunkedBody()
    return CloseBody() if framing.coding is Coding.CLOSE else NoBody()


def chunk(data: bytes) -> bytes:
    """One chunk. `data` must not be empty: an empty chunk ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunked(pieces: Sequence[Piece]) -> list[Piece]:
    """One chunk of all the pieces; none when they are empty."""
    size = sum(map(len, pieces))
    return [b"%x\r\n" % size, *pieces, b"\r\n"] if size else []


def last_chunk(trailers: Fields) -> bytes:
    """The end of a chunked body."""
    if not trailers:
        return b"0\r\n\r\n"
    return b"0\r\n" + b"".join(b"%b: %b\r\n" % (name, value) for _, name, value in trailers) + b"\r\n"
