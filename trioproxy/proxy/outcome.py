"""How a try on a backend's connection came out, when it was no error."""

from __future__ import annotations

from dataclasses import dataclass

from trioproxy.errors import ProxyError
from trioproxy.http1.head import ResponseHead


@dataclass(frozen=True, slots=True)
class Outcome:
    """Decided once, at the end of a try: may the two connections serve again?"""

    keep_client: bool
    keep_upstream: bool


@dataclass(frozen=True, slots=True)
class Switched:
    """The backend has answered 101: its head, and the bytes that came after it. No byte of it went to the client."""

    head: ResponseHead
    rest: bytes


@dataclass(frozen=True, slots=True)
class Declined:
    """The backend's answer is not passed on: another one is asked. No byte of it went to the client."""

    error: ProxyError
    status: int
    keep_upstream: bool


Result = Outcome | Switched | Declined
