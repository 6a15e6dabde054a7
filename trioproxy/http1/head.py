"""Message heads: how one is found in a stream of bytes, and what is kept of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from trioproxy.errors import ProxyError
from trioproxy.http1.fields import Fields, split_block
from trioproxy.http1.framing import Framing

# A bare LF, a bare CR (the last byte may still get its LF), a control byte: looked for while a head is incomplete,
# so that a client speaking something else (TLS, HTTP/0.9 …) has its answer at once and not at the deadline.
_NEVER_IN_A_HEAD = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
REQUEST_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [!-~]+ HTTP/1\.[0-9]")
STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] [1-9][0-9][0-9](?: [\t -~\x80-\xff]*)?")


class HeadBuffer:
    """Collects bytes until a head is complete. Refuses what can no longer become one as early as it can tell.

    `limit` is in bytes. `empty_line`: whether one may come first, as before a request (RFC 9112 §2.2).
    """

    def __init__(
        self,
        limit: int,
        *,
        first_line: re.Pattern[bytes],
        too_large: type[ProxyError],
        malformed: type[ProxyError],
        empty_line: bool = False,
    ) -> None:
        self.rest = b""  # what came after the head
        self._data = b""
        self._limit = limit
        self._first_line = first_line
        self._line_checked = False
        self._empty_line = empty_line  # not yet seen, and may still come
        self._too_large = too_large
        self._malformed = malformed

    @property
    def started(self) -> bool:
        """Whether a byte of a head has come; the one empty line that may precede it does not count."""
        return bool(self._data)

    def feed(self, data: bytes) -> bytes | None:
        """Take received bytes; the whole head when it is complete, else None. Raises the given error types.

        A head that is complete has only been measured: its shape is for the parser to judge.
        """
        scan_from = max(0, len(self._data) - 3)
        received = self._data + data if self._data else data
        if self._empty_line and len(received) > 1:
            # Old clients send one after the body of a POST. Only one, or a client could go on with them for ever.
            self._empty_line = False
            if received.startswith(b"\r\n"):
                received = received[2:]
                scan_from = 0
        end = received.find(b"\r\n\r\n", scan_from)
        if end >= 0:
            if end + 4 > self._limit:
                raise self._too_large(f"the head is larger than {self._limit} bytes")
            self._data = received[: end + 4]
            self.rest = received[end + 4 :]
            return self._data
        if _NEVER_IN_A_HEAD.search(received, scan_from):
            raise self._malformed("the head has a bare CR, a bare LF or a control byte")
        if len(received) > self._limit:
            raise self._too_large(f"the head is larger than {self._limit} bytes")
        self._data = received
        if not self._line_checked and (line_end := received.find(b"\r\n")) >= 0:
            if not self._first_line.fullmatch(received, 0, line_end):
                raise self._malformed("the first line is not that of an HTTP/1.1 message")
            self._line_checked = True
        return None


@dataclass(slots=True)
class RequestHead:
    """A request head that may be forwarded."""

    method: bytes
    path: bytes  # encoded, without query; b"*" for OPTIONS *
    query: bytes  # with its "?", or empty
    authority: bytes  # Host as sent; empty on HTTP/1.0 without one
    http11: bool
    block: bytes  # the field lines as they came, each with its CRLF before it
    special: Mapping[bytes, list[bytes]]  # values of the fields that the path asks for, by lower-case name
    framing: Framing
    keep_alive: bool
    expect_continue: bool
    upgrade: list[bytes]  # protocols asked for, lower case; empty = none
    plain: bytes | None = None  # of `block`, what goes on as it is; None: to be chosen field by field

    @property
    def fields(self) -> Fields:
        """All fields, taken apart anew at each call."""
        return split_block(self.block)


@dataclass(slots=True)
class ResponseHead:
    """A response head from a backend that may be passed on."""

    status: int
    reason: bytes
    http11: bool
    block: bytes  # as in RequestHead; folded lines are unfolded
    special: Mapping[bytes, list[bytes]]
    framing: Framing
    keep_alive: bool
    upgrade: bytes | None  # of a 101: the protocol chosen, lower case
    plain: bytes | None = None  # as in RequestHead

    @property
    def fields(self) -> Fields:
        """All fields, taken apart anew at each call."""
        return split_block(self.block)

    @property
    def informational(self) -> bool:
        """1xx other than 101: another response follows."""
        return self.status < 200 and self.status != 101
