"""Messages that must be refused, byte for byte. Requests are for the service /s/v, whose host is "hub"."""

from __future__ import annotations

from typing import NamedTuple


class Refusal(NamedTuple):
    """A request that no backend may see, and the status it is answered with."""

    name: str
    raw: bytes
    status: int = 400


def _lines(*lines: bytes) -> bytes:
    return b"\r\n".join((b"GET /s/v/ HTTP/1.1", *lines)) + b"\r\n\r\n"


def _get(*lines: bytes) -> bytes:
    return _lines(b"Host: hub", *lines)


def _post(*lines: bytes, body: bytes = b"abc") -> bytes:
    return b"\r\n".join((b"POST /s/v/ HTTP/1.1", b"Host: hub", *lines)) + b"\r\n\r\n" + body


def _line(line: bytes) -> bytes:
    return line + b"\r\nHost: hub\r\n\r\n"


LAST = b"0\r\n\r\n"

LENGTHS = [
    Refusal("length and coding", _post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=LAST)),
    Refusal("coding and length", _post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=LAST)),
    Refusal("length 0 and coding", _post(b"Content-Length: 0", b"Transfer-Encoding: chunked", body=LAST)),
    Refusal("two equal lengths", _post(b"Content-Length: 3", b"Content-Length: 3")),
    Refusal("two different lengths", _post(b"Content-Length: 3", b"Content-Length: 4")),
    Refusal("two lengths, spelled differently", _post(b"Content-Length: 3", b"content-length: 3")),
    Refusal(
        "two equal lengths and an expectation",
        _post(b"Content-Length: 3", b"Content-Length: 3", b"Expect: 100-continue"),
    ),
    Refusal(
        "two different lengths and an expectation",
        _post(b"Content-Length: 3", b"Content-Length: 4", b"Expect: 100-continue"),
    ),
    Refusal("a list of equal lengths", _post(b"Content-Length: 3, 3")),
    Refusal("a list of different lengths", _post(b"Content-Length: 3, 4")),
    Refusal("a length with a plus sign", _post(b"Content-Length: +3")),
    Refusal("a length with a minus sign", _post(b"Content-Length: -3")),
    Refusal("a length in hex", _post(b"Content-Length: 0x3")),
    Refusal("a length with a space behind it", _post(b"Content-Length: 3 ")),
    Refusal("a length with a tab behind it", _post(b"Content-Length:3\t")),
    Refusal("a length of 0 with a space behind it", _post(b"content-length: 0 ", body=b"")),
    Refusal("a length with a space inside", _post(b"Content-Length: 3 3")),
    Refusal("a length with a fraction", _post(b"Content-Length: 3.0")),
    Refusal("a length with an underscore", _post(b"Content-Length: 1_0")),
    Refusal("a length in other digits", _post(b"Content-Length: \xd9\xa3")),
    Refusal("a length in quotes", _post(b'Content-Length: "3"')),
    Refusal("an empty length", _post(b"Content-Length:")),
    Refusal("a blank length", _post(b"Content-Length:  ")),
    Refusal("a length of 2**63", _post(b"Content-Length: 9223372036854775808")),
    Refusal("a length of 2**64 + 3", _post(b"Content-Length: 18446744073709551619")),
]

CODINGS = [
    Refusal("an empty coding before chunked", _post(b"Transfer-Encoding: ,chunked", body=LAST), 501),
    Refusal("an empty coding after chunked", _post(b"Transfer-Encoding: chunked,", body=LAST), 501),
    Refusal("chunked twice", _post(b"Transfer-Encoding: chunked,chunked", body=LAST), 501),
    Refusal(
        "chunked on two lines", _post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=LAST), 501
    ),
    Refusal(
        "gzip and chunked on two lines",
        _post(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked", body=LAST),
        501,
    ),
    Refusal("xchunked", _post(b"Transfer-Encoding: xchunked", body=LAST), 501),
    Refusal("identity", _post(b"Transfer-Encoding: identity", body=LAST), 501),
    Refusal("gzip", _post(b"Transfer-Encoding: gzip", body=LAST), 501),
    Refusal("gzip, chunked", _post(b"Transfer-Encoding: gzip, chunked", body=LAST), 501),
    Refusal("chunked, gzip", _post(b"Transfer-Encoding: chunked, gzip", body=LAST), 501),
    Refusal("chunked, identity", _post(b"Transfer-Encoding: chunked, identity", body=LAST), 501),
    Refusal("chunked with a parameter", _post(b"Transfer-Encoding: chunked;q=1", body=LAST), 501),
    Refusal("chunked in quotes", _post(b'Transfer-Encoding: "chunked"', body=LAST), 501),
    Refusal("an empty coding", _post(b"Transfer-Encoding:", body=LAST), 501),
    Refusal("chunked behind a vertical tab", _post(b"Transfer-Encoding: \x0bchunked", body=LAST)),
    Refusal("chunked behind a NUL", _post(b"Transfer-Encoding: chunked\0", body=LAST)),
    Refusal("a coding with a space before its colon", _post(b"Transfer-Encoding : chunked", body=LAST)),
    Refusal("a coding on HTTP/1.0", b"POST /s/v/ HTTP/1.0\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST),
]

LINES = [
    Refusal("LF-only lines", b"GET /s/v/ HTTP/1.1\nHost: hub\n\n"),
    Refusal("an LF-only request line", b"GET /s/v/ HTTP/1.1\nHost: hub\r\n\r\n"),
    Refusal("an LF-only header line", b"GET /s/v/ HTTP/1.1\r\nHost: hub\nX: y\r\n\r\n"),
    Refusal("an LF-only last line", b"GET /s/v/ HTTP/1.1\r\nHost: hub\r\n\n"),
    Refusal("LF CR", b"GET /s/v/ HTTP/1.1\n\rHost: hub\n\r\n\r"),
    Refusal("CR-only lines", b"GET /s/v/ HTTP/1.1\rHost: hub\r\r"),
    Refusal("a CR-only header line", b"GET /s/v/ HTTP/1.1\r\nHost: hub\rX: y\r\n\r\n"),
    Refusal("CR CR LF", b"GET /s/v/ HTTP/1.1\r\r\nHost: hub\r\r\n\r\r\n"),
    Refusal("a space before the colon", _get(b"X : y")),
    Refusal("a tab before the colon", _get(b"X\t: y")),
    Refusal("a leading space on the first header", b"GET /s/v/ HTTP/1.1\r\n Host: hub\r\nX: y\r\n\r\n"),
    Refusal("a leading tab on the first header", b"GET /s/v/ HTTP/1.1\r\n\tX: y\r\nHost: hub\r\n\r\n"),
    Refusal("a folded line, by a space", _get(b"X: y", b" z")),
    Refusal("a folded line, by a tab", _get(b"X: y", b"\tz")),
    Refusal("a folded line of blanks", _get(b"X: y", b" ")),
    Refusal("a NUL in a value", _get(b"X: a\0b")),
    Refusal("a CR in a value", _get(b"X: a\rb")),
    Refusal("an LF in a value", _get(b"X: a\nb")),
    Refusal("an escape in a value", _get(b"X: \x1b[0m")),
    Refusal("a DEL in a value", _get(b"X: \x7f")),
    Refusal("a vertical tab in a value", _get(b"X: a\x0bb")),
    Refusal("an empty name", _get(b": y")),
    Refusal("a name with a space", _get(b"X Y: z")),
    Refusal("a name with a slash", _get(b"X/Y: z")),
    Refusal("a name with a parenthesis", _get(b"X(Y: z")),
    Refusal("a name in quotes", _get(b'"X": z')),
    Refusal("a name with a high byte", _get(b"X\xe9: z")),
    Refusal("a name with a NUL", _get(b"X\0: z")),
    Refusal("a line without a colon", _get(b"X")),
]

HOSTS = [
    Refusal("no Host", _lines()),
    Refusal("no Host, but other fields", _lines(b"X: y")),
    Refusal("no Host, and an absolute target", b"GET http://hub/s/v/ HTTP/1.1\r\n\r\n"),
    Refusal("two equal Hosts", _get(b"Host: hub")),
    Refusal("two different Hosts", _get(b"Host: other")),
    Refusal("two Hosts on HTTP/1.0", b"GET /s/v/ HTTP/1.0\r\nHost: hub\r\nHost: hub\r\n\r\n"),
    *(
        Refusal(f"a Host that is not a host: {host.decode('latin-1')!r}", _lines(b"Host: " + host))
        for host in (
            b"", b"hub/", b"hub/s", b"hub?", b"hub#", b"user@hub", b"user:pw@hub", b"http://hub", b"hub name",
            b"hub\t.org", b"hub:80:80", b"hub:http", b"hub:-1", b"hub:123456", b":80", b"hub\\", b"h\xc3\xbcb",
            b"hub%", b"hub%2", b"hub%zz", b"<hub>", b'"hub"', b"[hub]", b"[::1", b"::1", b"[1.2.3.4]", b"[:::]",
            b"[::1]x", b"[]", b"[::1%25eth0]", b"x" * 256,
        )
    ),
]  # fmt: skip

TARGETS = [
    Refusal("another authority in the target", b"GET http://other/s/v/ HTTP/1.1\r\nHost: hub\r\n\r\n"),
    Refusal("the authority with a port", b"GET http://hub:80/s/v/ HTTP/1.1\r\nHost: hub\r\n\r\n"),
    Refusal("the authority with a user", b"GET http://user@hub/s/v/ HTTP/1.1\r\nHost: hub\r\n\r\n"),
    Refusal("an empty authority", b"GET http:///s/v/ HTTP/1.1\r\nHost: hub\r\n\r\n"),
    Refusal("an authority that is no host, HTTP/1.0", b"GET http://a@b/s/v/ HTTP/1.0\r\n\r\n"),
    Refusal("another scheme", _line(b"GET ftp://hub/s/v/ HTTP/1.1")),
    Refusal("a scheme alone", _line(b"GET http: HTTP/1.1")),
    Refusal("no slash", _line(b"GET s/v/ HTTP/1.1")),
    Refusal("authority form", _line(b"GET hub:80 HTTP/1.1")),
    Refusal("an asterisk for GET", _line(b"GET * HTTP/1.1")),
    Refusal("a query alone", _line(b"GET ?q HTTP/1.1")),
    Refusal("a fragment", _line(b"GET /s/v/#top HTTP/1.1")),
    Refusal("a fragment in the query", _line(b"GET /s/v/?q#top HTTP/1.1")),
    Refusal("a fragment in an absolute target", _line(b"GET http://hub/s/v/#top HTTP/1.1")),
    Refusal("a high byte", _line(b"GET /s/v/\xff HTTP/1.1")),
    Refusal("UTF-8", _line("GET /s/v/ü HTTP/1.1".encode())),
    Refusal("a high byte in the query", _line(b"GET /s/v/?\xe9 HTTP/1.1")),
    Refusal("a NUL", _line(b"GET /s/v/\0 HTTP/1.1")),
    Refusal("a tab", _line(b"GET /s/v/\tx HTTP/1.1")),
    Refusal("a DEL", _line(b"GET /s/v/\x7f HTTP/1.1")),
    Refusal("an escape byte", _line(b"GET /s/v/\x1b HTTP/1.1")),
    Refusal("a space", _line(b"GET /s/v/ x HTTP/1.1")),
    Refusal("a CR", _line(b"GET /s/v/\rx HTTP/1.1")),
    Refusal("an LF", _line(b"GET /s/v/\nx HTTP/1.1")),
]

REQUEST_LINES = [
    Refusal("HTTP/0.9", b"GET /s/v/\r\n"),
    Refusal("HTTP/0.9 with headers", _line(b"GET /s/v/")),
    Refusal("a space where the version should be", _line(b"GET /s/v/ ")),
    Refusal("version 0.9", _line(b"GET /s/v/ HTTP/0.9")),
    Refusal("version 2.0", _line(b"GET /s/v/ HTTP/2.0")),
    Refusal("version 2", _line(b"GET /s/v/ HTTP/2")),
    Refusal("version 1", _line(b"GET /s/v/ HTTP/1")),
    Refusal("version 1.10", _line(b"GET /s/v/ HTTP/1.10")),
    Refusal("version 01.1", _line(b"GET /s/v/ HTTP/01.1")),
    Refusal("version 1,1", _line(b"GET /s/v/ HTTP/1,1")),
    Refusal("version 1.x", _line(b"GET /s/v/ HTTP/1.x")),
    Refusal("a lower-case version", _line(b"GET /s/v/ http/1.1")),
    Refusal("another protocol", _line(b"GET /s/v/ ICY/1.1")),
    Refusal("junk behind the version", _line(b"GET /s/v/ HTTP/1.1x")),
    Refusal("a space behind the version", _line(b"GET /s/v/ HTTP/1.1 ")),
    Refusal("two spaces before the target", _line(b"GET  /s/v/ HTTP/1.1")),
    Refusal("two spaces before the version", _line(b"GET /s/v/  HTTP/1.1")),
    Refusal("a tab before the target", _line(b"GET\t/s/v/ HTTP/1.1")),
    Refusal("a space before the method", _line(b" GET /s/v/ HTTP/1.1")),
    Refusal("no method", _line(b"/s/v/ HTTP/1.1")),
    Refusal("a method with a slash", _line(b"G/T /s/v/ HTTP/1.1")),
    Refusal("a method with a high byte", _line(b"G\xc9T /s/v/ HTTP/1.1")),
    Refusal("two empty lines first", b"\r\n\r\nGET /s/v/ HTTP/1.1\r\nHost: hub\r\n\r\n"),
    Refusal("an LF first", b"\nGET /s/v/ HTTP/1.1\r\nHost: hub\r\n\r\n"),
    Refusal("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Refusal("a TLS ClientHello", bytes.fromhex("16030100c8010000c40303") + bytes(32)),
    Refusal("CONNECT", b"CONNECT hub:443 HTTP/1.1\r\nHost: hub:443\r\n\r\n", 405),
    Refusal("CONNECT to a path", _line(b"CONNECT /s/v/ HTTP/1.1"), 405),
    Refusal("TRACE", _line(b"TRACE /s/v/ HTTP/1.1"), 405),
    Refusal("TRACE, HTTP/1.0", _line(b"TRACE /s/v/ HTTP/1.0"), 405),
]

EXPECTATIONS = [
    Refusal("another expectation", _post(b"Content-Length: 3", b"Expect: 200-ok"), 417),
    Refusal("another expectation besides", _post(b"Content-Length: 3", b"Expect: 100-continue, x"), 417),
    Refusal(
        "another expectation on a line of its own",
        _post(b"Content-Length: 3", b"Expect: 100-continue", b"Expect: x"),
        417,
    ),
    Refusal("an expectation with a parameter", _post(b"Content-Length: 3", b"Expect: 100-continue;q=1"), 417),
    Refusal("another expectation without a body", _get(b"Expect: x"), 417),
]

HEADS = [*LENGTHS, *CODINGS, *LINES, *HOSTS, *TARGETS, *REQUEST_LINES, *EXPECTATIONS]
"""Refused by their heads."""

OWN_SEGMENTS = [
    Refusal("an escape without digits in the session", _line(b"GET /s%/v/ HTTP/1.1")),
    Refusal("an escape with one digit in the session", _line(b"GET /s%4/v/ HTTP/1.1")),
    Refusal("an escape that is not hex in the service", _line(b"GET /s/v%zz/ HTTP/1.1")),
    Refusal("an escape without digits in the service", _line(b"GET /s/% HTTP/1.1")),
    Refusal("a path that climbs out", _line(b"GET /s/v/.. HTTP/1.1")),
    Refusal("a path that climbs out and in again", _line(b"GET /s/v/../w/ HTTP/1.1")),
    Refusal("a path that climbs out in the end", _line(b"GET /s/v/a/../.. HTTP/1.1")),
    Refusal("a path that climbs out by escapes", _line(b"GET /s/v/%2e%2E/x HTTP/1.1")),
    Refusal("a path that climbs out by half an escape", _line(b"GET /s/v/.%2e/x HTTP/1.1")),
    Refusal("a path that climbs out over single dots", _line(b"GET /s/v/a/.././%2e/../x HTTP/1.1")),
]
"""Refused by what the path means here."""


def _chunks(body: bytes) -> bytes:
    return _post(b"Transfer-Encoding: chunked", body=body)


CHUNKS = [
    Refusal("an empty size", _chunks(b"\r\nabc\r\n" + LAST)),
    Refusal("a hex prefix", _chunks(b"0x3\r\nabc\r\n" + LAST)),
    Refusal("a plus sign", _chunks(b"+3\r\nabc\r\n" + LAST)),
    Refusal("a minus sign", _chunks(b"-3\r\nabc\r\n" + LAST)),
    Refusal("a blank before the size", _chunks(b" 3\r\nabc\r\n" + LAST)),
    Refusal("a blank after the size", _chunks(b"3 \r\nabc\r\n" + LAST)),
    Refusal("a letter beyond f", _chunks(b"3g\r\nabc\r\n" + LAST)),
    Refusal("a size that overflows", _chunks(b"10000000000000003\r\nabc\r\n" + LAST)),
    Refusal("an LF-only chunk line", _chunks(b"3\nabc\r\n" + LAST)),
    Refusal("an LF-only chunk line with an extension", _chunks(b"3;x\nabc\r\n" + LAST)),
    Refusal("a CR-only chunk line", _chunks(b"3\rabc\r\n" + LAST)),
    Refusal("no CRLF after chunk data", _chunks(b"3\r\nabc" + LAST)),
    Refusal("LF after chunk data", _chunks(b"3\r\nabc\n" + LAST)),
    Refusal("more chunk data than announced", _chunks(b"3\r\nabcd\r\n" + LAST)),
    Refusal("less chunk data than announced", _chunks(b"4\r\nabc\r\n" + LAST)),
    Refusal("an LF-only last chunk", _chunks(b"3\r\nabc\r\n0\n\r\n")),
    Refusal("an LF-only end", _chunks(b"3\r\nabc\r\n0\r\n\n")),
    Refusal("a trailer without a colon", _chunks(b"0\r\nX\r\n\r\n")),
    Refusal("a trailer with a space before its colon", _chunks(b"0\r\nX : y\r\n\r\n")),
    Refusal("a folded trailer", _chunks(b"0\r\nX: y\r\n z\r\n\r\n")),
    Refusal("a NUL in a trailer", _chunks(b"0\r\nX: \0\r\n\r\n")),
]
"""Refused by their bodies."""


class BadResponse(NamedTuple):
    """A response that no client may see: 502."""

    name: str
    raw: bytes


OK = b"HTTP/1.1 200 OK\r\n"

BAD_RESPONSES = [
    BadResponse("length and coding", OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST),
    BadResponse("length and coding, 304", b"HTTP/1.1 304 X\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
    BadResponse("two different lengths", OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    BadResponse("a list of different lengths", OK + b"Content-Length: 1, 2\r\n\r\nab"),
    BadResponse("a length that is no number", OK + b"Content-Length: two\r\n\r\nab"),
    BadResponse("a length with a sign", OK + b"Content-Length: +2\r\n\r\nab"),
    BadResponse("a length that overflows", OK + b"Content-Length: 18446744073709551618\r\n\r\nab"),
    BadResponse("an empty length", OK + b"Content-Length:\r\n\r\nab"),
    BadResponse("gzip, chunked", OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + LAST),
    BadResponse("chunked, identity", OK + b"Transfer-Encoding: chunked, identity\r\n\r\n" + LAST),
    BadResponse("identity", OK + b"Transfer-Encoding: identity\r\n\r\nab"),
    BadResponse(
        "chunked on two lines", OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST
    ),
    BadResponse("chunked on HTTP/1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST),
    BadResponse("version 2", b"HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n"),
    BadResponse("version 2.0", b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
    BadResponse("version 0.9", b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n"),
    BadResponse("version 1.10", b"HTTP/1.10 200 OK\r\nContent-Length: 0\r\n\r\n"),
    BadResponse("a lower-case version", b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    BadResponse("another protocol", b"ICY 200 OK\r\nContent-Length: 0\r\n\r\n"),
    BadResponse("no version", b"200 OK\r\nContent-Length: 0\r\n\r\n"),
    BadResponse("a page without a head", b"<html><body>hello</body></html>\r\n\r\n"),
    BadResponse("a status of two digits", b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
    BadResponse("a status of four digits", b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"),
    BadResponse("a status that begins with 0", b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n"),
    BadResponse("no status", b"HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n"),
    BadResponse("two spaces before the status", b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n"),
    BadResponse("a NUL in the reason", b"HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n"),
    BadResponse("an empty line first", b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    BadResponse("LF-only lines", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
    BadResponse("an LF-only status line", b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n"),
    BadResponse("an LF-only header line", OK + b"X: y\nContent-Length: 0\r\n\r\n"),
    BadResponse("a CR-only header line", OK + b"X: y\rContent-Length: 0\r\n\r\n"),
    BadResponse("a space before the colon", OK + b"Content-Length : 0\r\n\r\n"),
    BadResponse("a fold without a field", OK + b" X: y\r\nContent-Length: 0\r\n\r\n"),
    BadResponse("a NUL in a value", OK + b"X: \0\r\nContent-Length: 0\r\n\r\n"),
    BadResponse("an empty name", OK + b": y\r\nContent-Length: 0\r\n\r\n"),
    BadResponse("a line without a colon", OK + b"X\r\nContent-Length: 0\r\n\r\n"),
    BadResponse("a 101 that nobody asked for", b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
    BadResponse("a 101 without a protocol", b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\n\r\n"),
    BadResponse("a 101 without Connection", b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n"),
]
"""To a plain GET."""
