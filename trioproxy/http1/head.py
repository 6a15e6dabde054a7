"""Message heads: found in the bytes, checked for shape, parsed by h11, checked for meaning.

h11 is the authority on what a head says. It is lenient where a proxy must not be (bare LF, folded lines, equal
duplicates of Content-Length), because what we pass on is read again by another parser: a request that two
parsers split differently is a smuggled request. So the shape is checked on the raw bytes first, and a head that
h11 would repair is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import h11

from trioproxy.errors import BadRequest, HeadTooLarge, ProxyError, UpstreamProtocol
from trioproxy.http1.fields import Fields, first, tokens, values
from trioproxy.http1.framing import CHUNKED, NO_BODY, UNTIL_CLOSE, Coding, Framing

# A bare LF, a bare CR (the last byte may still get its LF), a control byte: refused before the head is complete,
# so that a client speaking something else (TLS, HTTP/0.9 …) has its answer at once and not at the deadline.
_NEVER_IN_A_HEAD = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_FIELD_SHAPE = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*\r\n"
_REQUEST_SHAPE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [!-~]+ HTTP/1\.[0-9]\r\n(?:" + _FIELD_SHAPE + rb")*\r\n")
REQUEST_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [!-~]+ HTTP/1\.[0-9]")
STATUS_LINE = re.compile(rb"HTTP/1\.[01] [1-9][0-9][0-9](?: [\t -~\x80-\xff]*)?")
# RFC 9112 §5.2 lets a proxy unfold folded lines of a response, which h11 does; everything else is as strict.
_RESPONSE_SHAPE = re.compile(
    rb"HTTP/1\.[01] [1-9][0-9][0-9](?: [\t -~\x80-\xff]*)?\r\n(?:"
    + _FIELD_SHAPE
    + rb"(?:[ \t][\t -~\x80-\xff]*\r\n)*)*\r\n"
)
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_DIGITS = re.compile(rb"[0-9]{1,18}")  # 18 digits stay below 2**63
_ABSOLUTE = re.compile(rb"(https?)://([^/?#]*)([^#]*)", re.IGNORECASE)
# RFC 3986 §3.2: reg-name or IPv4 (unreserved, sub-delims, escapes), or a bracketed IP literal, and a port.
_HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2}){1,255})(?::[0-9]{0,5})?"
)
_HEX_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
NO_METHODS = frozenset({b"CONNECT", b"TRACE"})


class HeadBuffer:
    """Collects bytes until a head is complete. Refuses what can no longer become one as early as it can tell."""

    def __init__(
        self, limit: int, *, first_line: re.Pattern[bytes], too_large: type[ProxyError], malformed: type[ProxyError]
    ) -> None:
        self.rest = b""  # what came after the head
        self._data = b""
        self._limit = limit
        self._first_line = first_line
        self._line_checked = False
        self._too_large = too_large
        self._malformed = malformed

    @property
    def started(self) -> bool:
        """Whether a byte of a head has come; the one empty line that may precede it does not count."""
        return bool(self._data)

    def feed(self, data: bytes) -> bytes | None:
        """Take received bytes; the whole head when it is complete, else None. Raises the given error types."""
        scan_from = max(0, len(self._data) - 3)
        received = self._data + data
        if not self._line_checked and received.startswith(b"\r\n"):
            # One empty line may come before a request (RFC 9112 §2.2); old clients send it after a POST.
            received = received[2:]
            scan_from = 0
        end = received.find(b"\r\n\r\n", scan_from)
        checked = received if end < 0 else received[: end + 4]
        if _NEVER_IN_A_HEAD.search(checked, scan_from):
            raise self._malformed("the head has a bare CR, a bare LF or a control byte")
        if len(checked) > self._limit:
            raise self._too_large(f"the head is larger than {self._limit} bytes")
        self._data = checked
        if end >= 0:
            self.rest = received[end + 4 :]
            return checked
        if not self._line_checked and (line_end := checked.find(b"\r\n")) >= 0:
            if not self._first_line.fullmatch(checked, 0, line_end):
                raise self._malformed("the first line is not that of an HTTP/1.1 message")
            self._line_checked = True
        return None


@dataclass(slots=True)
class RequestHead:
    """A request head that may be forwarded."""

    method: bytes
    target: bytes  # as sent
    path: bytes  # encoded, without query; b"*" for OPTIONS *
    query: bytes  # with its "?", or empty
    authority: bytes  # Host as sent; empty on HTTP/1.0 without one
    http11: bool
    fields: Fields
    framing: Framing
    keep_alive: bool
    expect_continue: bool
    upgrade: list[bytes]  # protocols asked for, lower case; empty = none


@dataclass(slots=True)
class ResponseHead:
    """A response head from a backend that may be passed on."""

    status: int
    reason: bytes
    http11: bool
    fields: Fields
    framing: Framing
    keep_alive: bool
    upgrade: bytes | None  # of a 101: the protocol chosen, lower case

    @property
    def informational(self) -> bool:
        """1xx other than 101: another response follows."""
        return self.status < 200 and self.status != 101


def parse_request(raw: bytes, *, header_count: int) -> RequestHead:
    """Parse a complete request head. Raises BadRequest, HeadTooLarge."""
    line_end = raw.index(b"\r\n")
    if raw.count(b"\r\n") - 2 > header_count:
        raise HeadTooLarge(f"the head has more than {header_count} fields")
    if not _REQUEST_SHAPE.fullmatch(raw):
        raise BadRequest(_why_request_shape(raw, line_end))
    event = _parse_with_h11(raw, h11.Connection(h11.SERVER, max_incomplete_event_size=len(raw) + 1), BadRequest)
    assert isinstance(event, h11.Request)
    fields: Fields = [(name.lower(), name, value) for name, value in event.headers.raw_items()]
    http11 = event.http_version != b"1.0"
    if event.method in NO_METHODS:
        raise BadRequest(
            f"the method {event.method.decode()} is not served here",
            status=405,
            headers=((b"Allow", b"GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS"),),
        )
    framing = _request_framing(raw, fields, http11=http11)
    path, query, authority = _split_target(event.method, event.target, fields)
    connection = tokens(fields, b"connection")
    expect = tokens(fields, b"expect")
    if expect and expect != [b"100-continue"]:
        raise BadRequest("only the expectation 100-continue is understood", status=417)
    return RequestHead(
        method=event.method,
        target=event.target,
        path=path,
        query=query,
        authority=authority,
        http11=http11,
        fields=fields,
        framing=framing,
        # HTTP/1.0 clients get one response per connection: that is what all of them can read.
        keep_alive=http11 and b"close" not in connection,
        # RFC 9110 §10.1.1: the expectation of an HTTP/1.0 client is ignored.
        expect_continue=bool(expect) and http11 and framing.coding is not Coding.NONE,
        upgrade=_asked_upgrade(fields, connection, http11=http11, framing=framing),
    )


def parse_response(raw: bytes, *, method: bytes, header_count: int) -> ResponseHead:
    """Parse a complete response head to a request with this method. Raises UpstreamProtocol."""
    if raw.count(b"\r\n") - 2 > header_count:
        raise UpstreamProtocol(f"the backend's response head has more than {header_count} fields")
    if not _RESPONSE_SHAPE.fullmatch(raw):
        raise UpstreamProtocol("the backend's response head is malformed")
    event = _parse_with_h11(raw, _h11_client(raw), UpstreamProtocol)
    assert isinstance(event, h11.Response | h11.InformationalResponse)
    fields: Fields = [(name.lower(), name, value) for name, value in event.headers.raw_items()]
    http11 = event.http_version != b"1.0"
    connection = tokens(fields, b"connection")
    upgrade = None
    if event.status_code == 101:
        chosen = tokens(fields, b"upgrade")
        if b"upgrade" not in connection or len(chosen) != 1:
            raise UpstreamProtocol("the backend switched protocols without naming one")
        upgrade = chosen[0]
    return ResponseHead(
        status=event.status_code,
        reason=event.reason,
        http11=http11,
        fields=fields,
        framing=_response_framing(event.status_code, fields, method=method, http11=http11),
        keep_alive=b"close" not in connection and (http11 or b"keep-alive" in connection),
        upgrade=upgrade,
    )


def valid_host(value: bytes) -> bool:
    """Whether a Host field value or authority is a host with an optional port (RFC 3986 §3.2)."""
    return _HOST.fullmatch(value) is not None


def bad_escape(path: bytes) -> bool:
    """Whether a "%" is not followed by two hex digits."""
    return _HEX_ESCAPE.search(path) is not None


def _parse_with_h11(raw: bytes, connection: h11.Connection, error: type[ProxyError]) -> object:
    try:
        connection.receive_data(raw)
        return connection.next_event()
    except h11.RemoteProtocolError as exc:
        # h11's hint is 501 for codings it does not know, 400 or 431 else.
        status = 501 if exc.error_status_hint == 501 and error is BadRequest else None
        raise error(f"malformed head: {exc}", status=status) from None


_ANY_REQUEST = h11.Request(method="GET", target="/", headers=[("Host", "backend")])
_ANY_UPGRADE = h11.Request(
    method="GET", target="/", headers=[("Host", "backend"), ("Connection", "upgrade"), ("Upgrade", "any")]
)


def _h11_client(raw: bytes) -> h11.Connection:
    # h11 reads a response only after it wrote a request. What we send is written by ourselves, so any request
    # will do: framing is decided below, from the fields. Only a 101 must have been asked for.
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=len(raw) + 1)
    connection.send(_ANY_UPGRADE if raw.startswith(b"101", 9) else _ANY_REQUEST)
    return connection


def _why_request_shape(raw: bytes, line_end: int) -> str:
    line = raw[:line_end]
    parts = line.split(b" ")
    if len(parts) != 3:
        return "the request line is not: method, target, version, with one space between"
    if not _VERSION.fullmatch(parts[2]) or not parts[2].startswith(b"HTTP/1."):
        return "the protocol version is not HTTP/1.1 or HTTP/1.0"
    if not re.fullmatch(rb"[!-~]+", parts[1]):
        return "the target has bytes that must be percent-encoded"
    if raw[line_end + 2 : line_end + 3] in (b" ", b"\t") or b"\r\n " in raw or b"\r\n\t" in raw:
        return "a header line is folded or begins with a blank"
    return "a header line is malformed"


def _request_framing(raw: bytes, fields: Fields, *, http11: bool) -> Framing:
    # RFC 9112 §6.3. h11 merges equal Content-Length lines and drops them beside Transfer-Encoding, so both are
    # counted in the bytes it was given.
    lengths = _count_lines(raw, b"content-length")
    codings = _count_lines(raw, b"transfer-encoding")
    if codings:
        if lengths:
            raise BadRequest("both Content-Length and Transfer-Encoding are given")
        if not http11:
            raise BadRequest("Transfer-Encoding is not part of HTTP/1.0")
        coding = values(fields, b"transfer-encoding")
        if codings != 1 or [value.lower() for value in coding] != [b"chunked"]:
            raise BadRequest("Transfer-Encoding must be exactly: chunked", status=501)
        return CHUNKED
    if not lengths:
        return NO_BODY
    if lengths != 1:
        raise BadRequest("Content-Length is given more than once")
    length = _parse_length(raw)
    if length is None:
        raise BadRequest("Content-Length is not a number")
    return Framing(Coding.LENGTH, length) if length else NO_BODY


def _count_lines(raw: bytes, name: bytes) -> int:
    return raw.lower().count(b"\r\n" + name + b":")


def _parse_length(raw: bytes) -> int | None:
    # Taken from the raw line: h11 hands on "5" for "5, 5".
    start = raw.lower().index(b"\r\ncontent-length:") + 17
    value = raw[start : raw.index(b"\r\n", start)].strip(b" \t")
    return int(value) if _DIGITS.fullmatch(value) else None


def _response_framing(status: int, fields: Fields, *, method: bytes, http11: bool) -> Framing:
    # RFC 9112 §6.3, in its order. Ambiguity is refused before it is asked whether there is a body at all.
    coding = values(fields, b"transfer-encoding")
    lengths = {value.strip(b" \t") for line in values(fields, b"content-length") for value in line.split(b",")}
    if coding and lengths:
        raise UpstreamProtocol("the backend gave both Content-Length and Transfer-Encoding")
    if coding and ([value.lower() for value in coding] != [b"chunked"] or not http11):
        raise UpstreamProtocol("the backend used a Transfer-Encoding other than chunked")
    if len(lengths) > 1 or not all(_DIGITS.fullmatch(value) for value in lengths):
        raise UpstreamProtocol("the backend's Content-Length is not one number")
    if method == b"HEAD" or status < 200 or status in (204, 304):
        return NO_BODY
    if coding:
        return CHUNKED
    if lengths:
        length = int(lengths.pop())
        return Framing(Coding.LENGTH, length) if length else NO_BODY
    return UNTIL_CLOSE


def _split_target(method: bytes, target: bytes, fields: Fields) -> tuple[bytes, bytes, bytes]:
    authority = first(fields, b"host") or b""
    if first(fields, b"host") is not None and not valid_host(authority):
        raise BadRequest("the Host field is not a host name with an optional port")
    if b"#" in target:
        raise BadRequest("the target has a fragment")
    if target == b"*":
        if method != b"OPTIONS":
            raise BadRequest('the target "*" is for OPTIONS only')
        return b"*", b"", authority
    if not target.startswith(b"/"):
        found = _ABSOLUTE.fullmatch(target)
        if found is None:
            raise BadRequest("the target is neither a path nor an http URL")
        # RFC 9112 §3.2.2 lets the authority win over a different Host; a proxy in front that thinks otherwise
        # makes that a way around its rules, so a difference is refused.
        if authority and found[2].lower() != authority.lower():
            raise BadRequest("the target's authority differs from Host")
        if not valid_host(found[2]):
            raise BadRequest("the target's authority is not a host name with an optional port")
        authority = found[2]
        target = found[3]
        if not target.startswith(b"/"):
            target = b"/" + target
    path, mark, query = target.partition(b"?")
    return path, mark + query, authority


def _asked_upgrade(fields: Fields, connection: list[bytes], *, http11: bool, framing: Framing) -> list[bytes]:
    # An upgrade with a body is served without the upgrade, which RFC 9110 §7.8 allows: no backend reads a
    # request body and another protocol from one connection. h2c never crosses us: we would relay frames blindly.
    if not http11 or framing.coding is not Coding.NONE or b"upgrade" not in connection:
        return []
    return [protocol for protocol in tokens(fields, b"upgrade") if protocol not in (b"h2c", b"h2")]
