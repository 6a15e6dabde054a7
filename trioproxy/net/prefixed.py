"""A stream whose reader may give back what it read too far."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

import trio

from trioproxy.net.lent import SMALL, lent
from trioproxy.net.plain import RECEIVE, Piece, PlainStream


class PrefixedStream(trio.abc.HalfCloseableStream):
    """A stream with bytes that were read too far pushed back in front.

    Whoever ends one protocol on a connection (the PROXY header, an HTTP head before an upgrade) gives the
    surplus back with `unread`, and the next reader need not know. It reads no more than `inner` delivers
    in one piece, so the surplus is bounded by whoever read it.
    """

    __slots__ = (
        "_plain",
        "_prefix",
        "inner",
    )

    def __init__(self, stream: trio.abc.Stream, prefix: bytes = b"") -> None:
        self.inner = stream
        self._plain = stream if isinstance(stream, PlainStream) else None
        self._prefix = bytes(prefix)

    def unread(self, data: bytes | bytearray) -> None:
        """Put bytes back: the next `receive_some` returns these first."""
        if data:
            self._prefix = bytes(data) + self._prefix

    @property
    def pending(self) -> int:
        """How many pushed-back bytes wait to be read again."""
        return len(self._prefix)

    @property
    def quiet(self) -> bool | None:
        """As `PlainStream.quiet`; None also for any other stream."""
        return None if self._plain is None else not self._prefix and self._plain.quiet

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return pushed-back bytes, else what the inner stream has; b"" at its end. Always a checkpoint.

        Cancellation loses nothing. Raises what the inner stream raises, and ValueError for `max_bytes` < 1.
        """
        if not self._prefix:
            return await self._receive(max_bytes)
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be >= 1")
        await trio.lowlevel.checkpoint()
        data = self._prefix[:max_bytes]
        self._prefix = self._prefix[len(data) :]
        return data

    def receive_later(self, max_bytes: int = RECEIVE) -> Awaitable[bytes]:
        """As `receive_some`, for bytes that can hardly be there yet; pushed-back ones come first all the same."""
        if self._plain is None or self._prefix:
            return self.receive_some(max_bytes)
        return self._plain.receive_later(max_bytes)

    def receive_now(self, max_bytes: int) -> memoryview | None:
        """As `PlainStream.receive_now`; None also where one cannot know without waiting (TLS, pushed-back bytes)."""
        if self._plain is None or self._prefix:
            return None
        return self._plain.receive_now(max_bytes)

    def receive_lent(self, max_bytes: int) -> Awaitable[bytes | memoryview]:
        """As `receive_later`; what it returns is of use until the next checkpoint."""
        if self._plain is None or self._prefix:
            return self.receive_some(max_bytes)
        return self._plain.receive_lent(max_bytes)

    async def read_ahead(self, max_bytes: int) -> int:
        """Read once from the inner stream and keep the bytes behind those already pending; how many came.

        0 means the inner stream ended. Raises what it raises.
        """
        data = await self._receive(max_bytes)
        self._prefix += data
        return len(data)

    async def _receive(self, max_bytes: int | None) -> bytes:
        received = await self.inner.receive_some(max_bytes)
        return received if isinstance(received, bytes) else bytes(received)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send on the inner stream."""
        await self.inner.send_all(data)

    def send_now(self, data: Piece) -> int:
        """Send what goes without waiting: so many bytes, none where the inner stream cannot tell."""
        return self._plain.send_now(data) if self._plain is not None else 0

    def send_pieces(self, pieces: Sequence[Piece]) -> Awaitable[None]:
        """Send them one behind the other. Before this waits it copies what is left of them."""
        if self._plain is not None:
            return self._plain.send_pieces(pieces)
        return self._send_copy(b"".join(pieces))

    async def _send_copy(self, data: bytes) -> None:
        shared = lent()
        shared.held += len(data)
        try:
            with memoryview(data) as view:
                # In parts, since TLS keeps what it has encrypted beside it until the peer takes it.
                for start in range(0, len(data), SMALL):
                    await self.inner.send_all(view[start : start + SMALL])
        finally:
            shared.held -= len(data)

    def send_lent(self, data: Piece) -> Awaitable[None]:
        """Send what was received with `receive_lent`."""
        return self.send_pieces((data,))

    async def wait_send_all_might_not_block(self) -> None:
        """Wait on the inner stream."""
        await self.inner.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """End the sending side, where the inner stream can; where it cannot (TLS), do nothing.

        TLS has no half-close that peers agree on: many answer a close_notify by closing (RFC 5246 §7.2.1
        demanded it). So its end of sending is its `aclose`.
        """
        if isinstance(self.inner, trio.abc.HalfCloseableStream):
            await self.inner.send_eof()
        else:
            await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close the inner stream and forget pushed-back bytes."""
        self._prefix = b""
        await self.inner.aclose()
