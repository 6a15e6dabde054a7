"""Retry-After: how long somebody asks to be left alone (RFC 9110 §10.2.3)."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

from trioproxy.http1.fields import first
from trioproxy.http1.head import ResponseHead

LONGEST = 300.0
"""Seconds that are believed: a server's clock, or its idea of a pause, may be wrong."""


def retry_after(head: ResponseHead, now: float) -> float | None:
    """The seconds that a response asks for, at most `LONGEST`; None when it does not say, or nonsense.

    `now` is in seconds since the epoch, for those that name a date.
    """
    value = first(head.fields, b"retry-after")
    if value is None or not value.isascii():
        return None
    text = value.decode("ascii").strip()
    if text.isdigit():
        return min(float(text[:9]), LONGEST)
    try:
        seconds = parsedate_to_datetime(text).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), LONGEST)
