"""One connection to a backend, with its errors named."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Sequence
from typing import TypeVar

import trio

from trioproxy.errors import StaleConnection, UpstreamClosed, UpstreamError
from trioproxy.http1.canonical import ResponseLane
from trioproxy.http1.framing import Piece
from trioproxy.http1.head import ResponseHead
from trioproxy.net.prefixed import PrefixedStream
from trioproxy.net.stream import readable_probe

_Received = TypeVar("_Received", bytes, bytes | memoryview)
_KEEP_ALIVE_TIMEOUT = re.compile(rb"(?:^|,)\s*timeout\s*=\s*(\d{1,6})", re.IGNORECASE)


class Upstream:
    """A connection to a backend. `key` is the backend's address in the pool."""

    __slots__ = (
        "_expires",
        "_readable",
        "keep_seconds",
        "kept",
        "key",
        "lane",
        "silent",
        "stream",
    )

    def __init__(self, stream: trio.abc.Stream, key: str) -> None:
        self.stream = PrefixedStream(stream)
        self.key = key
        self.lane = ResponseLane()
        self.kept = False  # served a request before
        self.silent = True  # no byte came back since the current request was sent
        self.keep_seconds: float | None = None  # what the backend said in Keep-Alive: timeout=
        self._expires = 0.0
        self._readable = readable_probe(stream)

    def usable(self, now: float, *, sure: bool = True) -> bool:
        """Whether a parked connection may serve again: not expired, and nothing readable, which could only be EOF.

        Who is not `sure` may take it for alive when it died since the kernel was last heard, some milliseconds ago.
        """
        if now >= self._expires:
            return False
        quiet = None if sure else self.stream.quiet
        return quiet if quiet is not None else not self.stream.pending and not self._readable()

    def heed(self, head: ResponseHead) -> None:
        """Remember how long the backend said it would keep the connection."""
        lines = head.special.get(b"keep-alive")
        found = _KEEP_ALIVE_TIMEOUT.search(lines[0]) if lines else None
        self.keep_seconds = float(found[1]) if found else None

    def park(self, now: float, idle_seconds: float) -> None:
        """Between two requests. It is given up a second before the backend said it would hang up."""
        keep = idle_seconds if self.keep_seconds is None else min(idle_seconds, self.keep_seconds - 1.0)
        self._expires = now + keep
        self.kept = True
        self.silent = True

    async def send(self, data: bytes | memoryview) -> None:
        """Send all of it. Raises UpstreamClosed."""
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise self._closed("closed the connection while the request was being sent") from exc

    def send_now(self, data: bytes) -> int:
        """Send what goes without waiting: so many bytes. Raises UpstreamClosed."""
        try:
            return self.stream.send_now(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise self._closed("closed the connection while the request was being sent") from exc

    async def send_pieces(self, pieces: Sequence[Piece]) -> None:
        """Send all of them, as `PrefixedStream.send_pieces`. Raises UpstreamClosed."""
        try:
            await self.stream.send_pieces(pieces)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise self._closed("closed the connection while the request was being sent") from exc

    async def receive(self, max_bytes: int) -> bytes:
        """The next bytes; empty at the end of the stream. Raises UpstreamClosed on a reset."""
        return await self._received(self.stream.receive_some(max_bytes))

    async def receive_later(self, max_bytes: int) -> bytes:
        """As `receive`, for an answer that can hardly be there yet."""
        return await self._received(self.stream.receive_later(max_bytes))

    def receive_now(self, max_bytes: int) -> memoryview | None:
        """The next bytes if they are there, of use until the next checkpoint. Raises as `receive`."""
        try:
            data = self.stream.receive_now(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise self._closed("reset the connection") from exc
        if data:
            self.silent = False
        return data

    async def receive_lent(self, max_bytes: int) -> bytes | memoryview:
        """As `receive_later`; what it returns is of use until the next checkpoint."""
        return await self._received(self.stream.receive_lent(max_bytes))

    async def _received(self, reading: Awaitable[_Received]) -> _Received:
        try:
            data = await reading
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise self._closed("reset the connection") from exc
        if data:
            self.silent = False
        return data

    def closed_early(self) -> UpstreamError:
        """The error for an end of stream where a response head should be."""
        return self._closed("closed the connection without a response")

    def _closed(self, what: str) -> UpstreamClosed:
        error = StaleConnection if self.kept and self.silent else UpstreamClosed
        return error(f"the backend {what}")

    async def close(self) -> None:
        """End it at once; nothing is owed to a backend whose response is complete or useless."""
        await trio.aclose_forcefully(self.stream)
