"""Where a message body ends, and what of the received bytes is its payload (RFC 9112 §6 and §7).

A `Body` is fed what arrives and hands out payload; it never reads beyond the message, what follows stays in
`rest`. Chunked coding is decoded here and not by h11, which tolerates blanks after a chunk size and gives one
event per chunk; that what is accepted here is a subset of what h11 accepts is tested as a property.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import NamedTuple

from trioproxy.errors import TrioproxyError
from trioproxy.http1.fields import Field, Fields

MAX_CHUNK_LINE = 1024  # size and extensions; nobody is known to send more than a few dozen bytes
MAX_TRAILER_BYTES = 16 * 1024
MAX_TRAILERS = 128

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


class Body:
    """A body being received. `feed` until `done`; a body without bytes is done at once."""

    def __init__(self) -> None:
        self.done = False
        self.rest = b""  # what came after the body
        self.trailers: Fields = []

    def feed(self, data: bytes) -> bytes:
        """Take received bytes, return the payload among them (maybe none). Raises MalformedBody."""
        raise NotImplementedError  # pragma: no cover - the subclasses below are all there is

    def end_of_stream(self) -> None:
        """The peer sends no more. Raises MalformedBody unless that is how this body ends."""
        if not self.done:
            raise MalformedBody("the connection ended inside the body")


class NoBody(Body):
    """No body at all."""

    def __init__(self) -> None:
        super().__init__()
        self.done = True

    def feed(self, data: bytes) -> bytes:
        """Everything belongs to what follows."""
        self.rest += data
        return b""


class CountedBody(Body):
    """Content-Length bytes."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.remaining = length
        self.done = length == 0

    def feed(self, data: bytes) -> bytes:
        """Payload up to the announced length."""
        if len(data) < self.remaining:
            self.remaining -= len(data)
            return data
        payload, self.rest = data[: self.remaining], self.rest + data[self.remaining :]
        self.remaining = 0
        self.done = True
        return payload


class CloseBody(Body):
    """Everything until the connection ends."""

    def feed(self, data: bytes) -> bytes:
        """All of it."""
        return data

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

    def feed(self, data: bytes) -> bytes:
        """Decode what arrived."""
        if self.done:
            self.rest += data
            return b""
        if self._line:
            data, self._line = self._line + data, b""
        pieces: list[bytes] = []
        at = 0
        while not self.done and at < len(data):
            if self._part is _Part.DATA:
                piece = data[at : at + self._remaining]
                pieces.append(piece)
                at += len(piece)
                self._remaining -= len(piece)
                if not self._remaining:
                    self._part = _Part.DATA_END
                continue
            end = data.find(b"\n", at)
            if end < 0:
                self._keep_unfinished(data[at:])
                at = len(data)
                break
            self._take_line(data[at : end + 1])
            at = end + 1
        if self.done:
            self.rest = data[at:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

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
            self._remaining = int(found[1], 16)
            self._part = _Part.DATA if self._remaining else _Part.TRAILER
        elif line:
            self._take_trailer(line)
        else:
            self.done = True

    def _take_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line)
        if self._trailer_bytes > MAX_TRAILER_BYTES or len(self.trailers) >= MAX_TRAILERS:
            raise MalformedBody("the trailer section is too large")
        self.trailers.append(parse_field_line(line))


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


def last_chunk(trailers: Fields) -> bytes:
    """The end of a chunked body."""
    if not trailers:
        return b"0\r\n\r\n"
    return b"0\r\n" + b"".join(b"%b: %b\r\n" % (name, value) for _, name, value in trailers) + b"\r\n"
