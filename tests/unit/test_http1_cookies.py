"""A route's own cookie is taken out of a request, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.http1.canonical import RequestLane, canonical_request
from trioproxy.http1.cookies import CookieTaker, cookie_field, take_cookie
from trioproxy.http1.head import RequestHead
from trioproxy.http1.parse import parse_request


def both(*lines: bytes) -> list[RequestHead]:
    """A head with these lines, as each of the two lanes takes it."""
    raw = b"\r\n".join([b"GET / HTTP/1.1", b"Host: h", *lines, b"Accept: */*", b"", b""])
    fast = canonical_request(raw, header_count=100)
    assert fast is not None
    return [fast, parse_request(raw, header_count=100)]


@pytest.mark.parametrize(
    ("given", "left", "values"),
    [
        (b"Cookie: us=1", b"", [b"1"]),
        (b"cookie: us=1; a=b", b"Cookie: a=b", [b"1"]),
        (b"Cookie: a=b; us=1", b"Cookie: a=b", [b"1"]),
        (b"Cookie: a=b; us=1; c=d; us=2", b"Cookie: a=b; c=d", [b"1", b"2"]),
        (b"Cookie: a=b;us=1;c=d", b"Cookie: a=b; c=d", [b"1"]),
        (b"Cookie: us=", b"", [b""]),
        (b"Cookie: us=a=b", b"", [b"a=b"]),
        (b"Cookie: us", b"Cookie: us", []),
        (b"Cookie: xus=1; usx=2; US=3", b"Cookie: xus=1; usx=2; US=3", []),
        (b"Cookie: a=us; b=us=1", b"Cookie: a=us; b=us=1", []),
        (b"X-Cookie: us=1", b"X-Cookie: us=1", []),
        (b"Set-Cookie: us=1", b"Set-Cookie: us=1", []),
    ],
)
def test_it_is_taken_out_and_the_others_stay(given: bytes, left: bytes, values: list[bytes]) -> None:
    for head in both(given):
        assert take_cookie(head, b"us") == values
        expected = b"\r\nHost: h" + (b"\r\n" + left if left else b"") + b"\r\nAccept: */*"
        assert head.block == expected
        assert head.plain in (expected, None)


def test_it_is_taken_out_of_every_line() -> None:
    for head in both(b"Cookie: us=1", b"Cookie: a=b", b"Cookie: us=2; c=d"):
        assert take_cookie(head, b"us") == [b"1", b"2"]
        assert [field[2] for field in head.fields if field[0] == b"cookie"] == [b"a=b", b"c=d"]


def test_a_connection_s_heads_are_gone_through_once_and_each_is_without_it() -> None:
    lane, taker = RequestLane(), CookieTaker()
    for path, cookie, values in [
        (b"/a", b"us=1; a=b", ("1",)),
        (b"/b", b"us=1; a=b", ("1",)),
        (b"/c", b"us=2; a=b", ("2",)),
        (b"/d", b"a=b", ()),
        (b"/e", b"us=1; a=b", ("1",)),
    ]:
        head = lane.take(b"GET %b HTTP/1.1\r\nHost: h\r\nCookie: %b\r\n\r\n" % (path, cookie), header_count=100)
        assert head is not None
        assert taker.take(head, b"us") == values
        assert head.path == path
        assert head.plain == head.block == b"\r\nHost: h\r\nCookie: a=b"
    assert taker.take(head, b"a") == ("b",)
    assert head.plain == b"\r\nHost: h"


names = st.sampled_from(["us", "a", "us2", "x"])
pairs = st.lists(st.tuples(names, st.from_regex(r"[!-+\--:<-~]{0,5}", fullmatch=True)), min_size=1, max_size=5)


@given(st.lists(pairs, max_size=3))
def test_whatever_comes_nothing_of_it_is_left_and_all_else_is(lines: list[list[tuple[str, str]]]) -> None:
    given_lines = [b"Cookie: " + "; ".join(f"{name}={value}" for name, value in line).encode() for line in lines]
    flat = [pair for line in lines for pair in line]
    for head in both(*given_lines):
        taken = take_cookie(head, b"us")
        assert taken == [value.encode() for name, value in flat if name == "us"]
        left = b"; ".join(field[2] for field in head.fields if field[0] == b"cookie")
        assert left == "; ".join(f"{name}={value}" for name, value in flat if name != "us").encode()
        assert take_cookie(head, b"us") == []


def test_a_cookie_is_set_with_all_its_attributes() -> None:
    assert (
        cookie_field("us", "v", path=b"/s/web", secure=True, max_age=90.0)
        == b"us=v; Path=/s/web; Max-Age=90; HttpOnly; SameSite=Lax; Secure"
    )
    assert cookie_field("us", "v", path=b"", secure=False, max_age=0) == b"us=v; Path=/; HttpOnly; SameSite=Lax"


@pytest.mark.parametrize(("path", "said"), [(b"/a;b/c", b"/"), (b"/a/b;c", b"/a"), (b"/a,b", b"/a,b")])
def test_a_path_that_an_attribute_cannot_say_is_said_as_far_as_it_can(path: bytes, said: bytes) -> None:
    assert b"; Path=" + said + b"; " in cookie_field("us", "v", path=path, secure=False, max_age=0)


def test_a_short_age_is_not_rounded_to_nothing() -> None:
    assert b"Max-Age=1;" in cookie_field("us", "v", path=b"/", secure=False, max_age=0.2)
