from __future__ import annotations

import pytest

from trioproxy.http1.fields import first, make_field, split_list, values, write

FIELDS = [make_field(b"Set-Cookie", b"a=1"), make_field(b"X-One", b"1"), make_field(b"SET-COOKIE", b"b=2")]


def test_values_are_all_of_a_name_in_order_whatever_its_case() -> None:
    assert values(FIELDS, b"set-cookie") == [b"a=1", b"b=2"]
    assert values(FIELDS, b"x-two") == []


def test_first_is_the_first_or_none() -> None:
    assert first(FIELDS, b"set-cookie") == b"a=1"
    assert first(FIELDS, b"x-two") is None


@pytest.mark.parametrize(
    ("lines", "tokens"),
    [
        ([], []),
        ([b""], []),
        ([b"close"], [b"close"]),
        ([b" Keep-Alive ,\tUpgrade"], [b"keep-alive", b"upgrade"]),
        ([b",, a,,b ,"], [b"a", b"b"]),
        ([b"a, b", b"C"], [b"a", b"b", b"c"]),
    ],
)
def test_a_list_is_joined_over_its_lines_without_empty_elements(lines: list[bytes], tokens: list[bytes]) -> None:
    assert split_list(lines) == tokens


def test_a_head_is_written_with_names_and_order_as_they_came() -> None:
    assert write(b"HTTP/1.1 200 OK", FIELDS) == (
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX-One: 1\r\nSET-COOKIE: b=2\r\n\r\n"
    )
    assert write(b"HTTP/1.1 200 OK", []) == b"HTTP/1.1 200 OK\r\n\r\n"
