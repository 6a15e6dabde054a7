from __future__ import annotations

import pytest
from http_heads import raw_head, request
from refusals import HEADS, Refusal

from trioproxy.errors import BadRequest, HeadTooLarge
from trioproxy.http1.fields import make_field
from trioproxy.http1.framing import CHUNKED, NO_BODY, Coding, Framing
from trioproxy.http1.parse import parse_request
from trioproxy.http1.target import bad_escape, valid_host


@pytest.mark.parametrize("refusal", [one for one in HEADS if b"\r\n\r\n" in one.raw], ids=lambda one: one.name)
def test_a_head_that_may_not_go_on_is_refused(refusal: Refusal) -> None:
    raw = refusal.raw[: refusal.raw.index(b"\r\n\r\n") + 4]
    with pytest.raises(BadRequest) as caught:
        parse_request(raw, header_count=128)
    assert caught.value.status == refusal.status
    assert caught.value.close
    assert caught.value.detail.isascii()
    assert caught.value.detail.isprintable()


@pytest.mark.parametrize(
    "raw", [b"", b"\r\n", b"\r\n\r\n", b"GET", b"GET / HTTP/1.1", b"GET / HTTP/1.1\r\nHost: hub\r\n"]
)
def test_what_is_not_a_head_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_request(raw, header_count=128)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (raw_head(b"GET / HTTP/2.0", b"Host: hub"), "version"),
        (raw_head(b"GET / JUNK/1.1", b"Host: hub"), "version"),
        (raw_head(b"GET /", b"Host: hub"), "request line"),
        (raw_head(b"GET /\xff HTTP/1.1", b"Host: hub"), "percent-encoded"),
        (raw_head(b"GET / HTTP/1.1", b"Host: hub", b"X: y", b" z"), "folded"),
        (raw_head(b"GET / HTTP/1.1", b"Host: hub", b"X: y", b"\tz"), "folded"),
        (raw_head(b"GET / HTTP/1.1", b"Host: hub", b"X : y"), "header line"),
    ],
)
def test_a_refusal_says_what_is_wrong(raw: bytes, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        parse_request(raw, header_count=128)


def test_fields_are_kept_in_order_with_their_names_and_values_as_sent() -> None:
    head = request(b"b:  two words \t", b"A:1", b"B: \xff", b"x-empty:", b"!#$%&'*+-.^_`|~: token")
    assert head.fields == [
        make_field(b"Host", b"hub"),
        make_field(b"b", b"two words"),
        make_field(b"A", b"1"),
        make_field(b"B", b"\xff"),
        make_field(b"x-empty", b""),
        make_field(b"!#$%&'*+-.^_`|~", b"token"),
    ]


def test_a_head_may_have_as_many_fields_as_the_limit_and_no_more() -> None:
    raw = raw_head(b"GET / HTTP/1.1", b"Host: hub", *[b"X: y"] * 9)
    assert len(parse_request(raw, header_count=10).fields) == 10
    with pytest.raises(HeadTooLarge, match="more than 9"):
        parse_request(raw, header_count=9)


@pytest.mark.parametrize("method", [b"GET", b"PURGE", b"M-SEARCH", b"get", b"connect", b"!#$%&'*+-.^_`|~09AZaz"])
def test_any_other_token_is_a_method(method: bytes) -> None:
    assert request(method=method).method == method


def test_what_is_refused_as_a_method_is_told_what_is_served() -> None:
    with pytest.raises(BadRequest) as caught:
        request(method=b"TRACE")
    assert caught.value.headers == ((b"Allow", b"GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS"),)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", b"/", b""),
        (b"/a//b;c/%2F/../x", b"/a//b;c/%2F/../x", b""),
        (b"/?", b"/", b"?"),
        (b"/a?b=c?d&e=%zz", b"/a", b"?b=c?d&e=%zz"),
        (b"/%", b"/%", b""),
        (b"/!\"$&'()*+,-.:;<=>@[\\]^_`{|}~", b"/!\"$&'()*+,-.:;<=>@[\\]^_`{|}~", b""),
        (b"//hub/x", b"//hub/x", b""),
        (b"http://hub", b"/", b""),
        (b"http://hub/", b"/", b""),
        (b"HTTP://HUB/a?b", b"/a", b"?b"),
        (b"https://hub?q", b"/", b"?q"),
        (b"http://hub//x", b"//x", b""),
    ],
)
def test_a_target_is_taken_apart_and_kept_byte_for_byte(target: bytes, path: bytes, query: bytes) -> None:
    head = request(target=target)
    assert (head.path, head.query) == (path, query)


def test_an_asterisk_is_a_target_for_options() -> None:
    assert request(method=b"OPTIONS", target=b"*").path == b"*"
    # RFC 9112 §3.2.4: what a client says to a proxy as a URL without a path is an asterisk to the server.
    assert request(method=b"OPTIONS", target=b"http://hub").path == b"*"
    assert request(method=b"OPTIONS", target=b"http://hub?q").path == b"/"


@pytest.mark.parametrize(
    "host",
    [
        b"hub",
        b"HUB.example.org.",
        b"hub:",
        b"hub:5050",
        b"a_b~c",
        b"10.0.0.1:80",
        b"[::1]",
        b"[2001:db8::1]:80",
        b"%41",
        b"!$&'()*+,;=",
    ],
)
def test_a_host_is_a_name_or_an_address_with_an_optional_port(host: bytes) -> None:
    assert valid_host(host)
    assert request(host=host).authority == host


def test_http_1_0_needs_no_host_and_takes_the_one_in_its_target() -> None:
    head = request(version=b"1.0", host=None)
    assert (head.http11, head.authority) == (False, b"")
    assert request(version=b"1.0", host=None, target=b"http://hub:80/s/v/").authority == b"hub:80"
    assert request(version=b"1.0").authority == b"hub"


@pytest.mark.parametrize(("version", "http11"), [(b"1.0", False), (b"1.1", True), (b"1.2", True), (b"1.9", True)])
def test_a_later_minor_version_is_treated_as_1_1(version: bytes, http11: bool) -> None:
    assert request(version=version).http11 is http11


@pytest.mark.parametrize(
    ("fields", "framing"),
    [
        ([], NO_BODY),
        ([b"Content-Length: 0"], NO_BODY),
        ([b"Content-Length: 3"], Framing(Coding.LENGTH, 3)),
        ([b"Content-Length:\t 003"], Framing(Coding.LENGTH, 3)),
        ([b"Content-Length: 999999999999999999"], Framing(Coding.LENGTH, 10**18 - 1)),
        ([b"Content-Length: 3", b"X-Content-Length: 3 "], Framing(Coding.LENGTH, 3)),
        ([b"X-Content-Length: 3 ", b"CONTENT-LENGTH:3"], Framing(Coding.LENGTH, 3)),
        ([b"Transfer-Encoding: chunked"], CHUNKED),
        ([b"transfer-encoding:\tCHUNKED "], CHUNKED),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"POST", b"DELETE"])
def test_any_method_may_have_a_body(fields: list[bytes], framing: Framing, method: bytes) -> None:
    assert request(*fields, method=method).framing == framing


@pytest.mark.parametrize(
    ("version", "fields", "keep_alive"),
    [
        (b"1.1", [], True),
        (b"1.1", [b"Connection: keep-alive"], True),
        (b"1.1", [b"Connection: close"], False),
        (b"1.1", [b"Connection: x, CLOSE"], False),
        (b"1.1", [b"Connection: x", b"Connection: close"], False),
        (b"1.1", [b"Connection: closed"], True),
        (b"1.0", [], False),
        (b"1.0", [b"Connection: keep-alive"], False),
    ],
)
def test_a_connection_is_kept_unless_it_is_said_or_old(version: bytes, fields: list[bytes], keep_alive: bool) -> None:
    assert request(*fields, version=version).keep_alive is keep_alive


@pytest.mark.parametrize(
    ("version", "fields", "expects"),
    [
        (b"1.1", [b"Expect: 100-continue", b"Content-Length: 3"], True),
        (b"1.1", [b"Expect: 100-Continue", b"Transfer-Encoding: chunked"], True),
        (b"1.1", [b"Expect: 100-continue"], False),
        (b"1.1", [b"Expect: 100-continue", b"Content-Length: 0"], False),
        (b"1.1", [b"Expect:", b"Content-Length: 3"], False),
        (b"1.1", [b"Content-Length: 3"], False),
        (b"1.0", [b"Expect: 100-continue", b"Content-Length: 3"], False),
    ],
)
def test_a_client_waits_for_100_only_with_a_body_and_on_1_1(version: bytes, fields: list[bytes], expects: bool) -> None:
    assert request(*fields, version=version).expect_continue is expects


@pytest.mark.parametrize(
    ("version", "fields", "upgrade"),
    [
        (b"1.1", [], []),
        (b"1.1", [b"Connection: Upgrade", b"Upgrade: WebSocket"], [b"websocket"]),
        (b"1.1", [b"Connection: keep-alive, upgrade", b"Upgrade: a/1, B"], [b"a/1", b"b"]),
        (b"1.1", [b"Connection: Upgrade", b"Upgrade: a", b"Upgrade: b"], [b"a", b"b"]),
        (b"1.1", [b"Upgrade: websocket"], []),
        (b"1.1", [b"Connection: Upgrade"], []),
        (b"1.1", [b"Connection: Upgrade", b"Upgrade: h2c"], []),
        (b"1.1", [b"Connection: Upgrade", b"Upgrade: H2C, h2, websocket"], [b"websocket"]),
        (b"1.1", [b"Connection: Upgrade", b"Upgrade: websocket", b"Content-Length: 0"], [b"websocket"]),
        (b"1.1", [b"Connection: Upgrade", b"Upgrade: websocket", b"Content-Length: 1"], []),
        (b"1.0", [b"Connection: Upgrade", b"Upgrade: websocket"], []),
    ],
)
def test_an_upgrade_is_asked_for_by_both_fields_without_a_body_and_never_to_http2(
    version: bytes, fields: list[bytes], upgrade: list[bytes]
) -> None:
    assert request(*fields, version=version).upgrade == upgrade


@pytest.mark.parametrize(
    ("path", "bad"),
    [
        (b"", False),
        (b"a%2Fb", False),
        (b"%aF", False),
        (b"%", True),
        (b"%2", True),
        (b"%2x", True),
        (b"%41%", True),
    ],
)
def test_an_escape_is_two_hex_digits(path: bytes, bad: bool) -> None:
    assert bad_escape(path) is bad
