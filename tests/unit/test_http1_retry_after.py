from __future__ import annotations

import pytest

from trioproxy.http1.parse import parse_response
from trioproxy.http1.retry_after import LONGEST, retry_after

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"20", 20.0),
        (b" 0 ", 0.0),
        (b"100000", LONGEST),
        (b"9" * 400, LONGEST),
        (b"Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        (b"Tue, 14 Nov 2023 22:12:20 GMT", 0.0),
        (b"Tue, 14 Nov 2043 22:12:20 GMT", LONGEST),
        (b"-5", None),
        (b"1.5", None),
        (b"soon", None),
        (b"", None),
        (b"\xb2", None),
        (b"Tue, 99 Nov 2023 22:14:20 GMT", None),
    ],
)
def test_seconds_and_dates_are_understood_and_bounded(value: bytes, seconds: float | None) -> None:
    raw = b"HTTP/1.1 503 Busy\r\nRetry-After: " + value + b"\r\nContent-Length: 0\r\n\r\n"
    assert retry_after(parse_response(raw, method=b"GET", header_count=128), NOW) == seconds


def test_an_answer_that_does_not_say_is_not_waited_for() -> None:
    raw = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    assert retry_after(parse_response(raw, method=b"GET", header_count=128), NOW) is None
