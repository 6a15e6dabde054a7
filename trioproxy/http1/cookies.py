"""One cookie of a route: taken out of what the client sends, set in what it gets."""

from __future__ import annotations

import re
from functools import lru_cache

from trioproxy.http1.head import RequestHead

_LINE = re.compile(rb"\r\ncookie:[ \t]*([^\r]*)", re.IGNORECASE)


class CookieTaker:
    """Takes cookies out of the heads of one connection; fields that stay the same are gone through once."""

    __slots__ = ("_block", "_name", "_rest", "_values")

    def __init__(self) -> None:
        self._block: bytes = b""
        self._name: bytes = b""
        self._rest: tuple[bytes, bytes | None] = (b"", None)
        self._values: tuple[str, ...] = ()

    def take(self, head: RequestHead, name: bytes) -> tuple[str, ...]:
        """As `take_cookie`, as text."""
        block = head.block
        if block is not self._block or name != self._name:  # the canonical lane hands out the same object
            self._values = tuple(value.decode("latin-1") for value in take_cookie(head, name))
            self._block, self._name, self._rest = block, name, (head.block, head.plain)
        head.block, head.plain = self._rest
        return self._values


def take_cookie(head: RequestHead, name: bytes) -> list[bytes]:
    """Take every cookie of this name out of the head; their values, in order."""
    taken: list[bytes] = []
    if name not in head.block:
        return taken
    head.block = _without(head.block, name, taken)
    if taken and head.plain is not None:
        head.plain = _without(head.plain, name, [])
    return taken


def _without(block: bytes, name: bytes, taken: list[bytes]) -> bytes:
    def rest(line: re.Match[bytes]) -> bytes:
        kept: list[bytes] = []
        found = len(taken)
        for part in line[1].split(b";"):
            key, sign, value = part.partition(b"=")
            if sign and key.strip(b" \t") == name:
                taken.append(value.strip(b" \t"))
            else:
                kept.append(part.strip(b" \t"))
        if len(taken) == found:
            return line[0]
        return b"\r\nCookie: " + b"; ".join(kept) if any(kept) else b""

    return _LINE.sub(rest, block)


@lru_cache(maxsize=1024)
def cookie_field(name: str, value: str, *, path: bytes, secure: bool, max_age: float) -> bytes:
    """The value of a Set-Cookie field. `max_age` in seconds; 0 = until the browser is closed."""
    return b"; ".join(
        [
            f"{name}={value}".encode("ascii"),
            b"Path=" + _cookie_path(path),
            *([b"Max-Age=%d" % max(1, round(max_age))] if max_age else []),
            b"HttpOnly",
            b"SameSite=Lax",
            *([b"Secure"] if secure else []),
        ]
    )


def _cookie_path(path: bytes) -> bytes:
    """The path, or as much of it as an attribute can say: a semicolon would end that (RFC 6265 §4.1.1)."""
    if b";" in path:
        path = path.partition(b";")[0].rpartition(b"/")[0]
    return path or b"/"
