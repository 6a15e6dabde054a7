"""The client's side of a connection, with its errors named."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from trioproxy.errors import ClientGone
from trioproxy.http1.framing import Piece
from trioproxy.net.peer import Peer
from trioproxy.net.prefixed import PrefixedStream

MAX_READ_AHEAD = 64 * 1024  # bytes a client may send ahead while its answer is awaited
MAX_LINGER = 1024 * 1024  # bytes of a refused body that are read and thrown away


class Client:
    """A client's connection."""

    __slots__ = (
        "peer",
        "stream",
    )

    def __init__(self, stream: PrefixedStream, peer: Peer) -> None:
        self.stream = stream
        self.peer = peer

    async def send(self, data: bytes | memoryview) -> None:
        """Send all of it. Raises ClientGone."""
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ClientGone("the client left while its answer was being sent") from exc

    def send_now(self, data: bytes) -> int:
        """Send what goes without waiting: so many bytes. Raises ClientGone."""
        try:
            return self.stream.send_now(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ClientGone("the client left while its answer was being sent") from exc

    async def send_pieces(self, pieces: Sequence[Piece]) -> None:
        """Send all of them, as `PrefixedStream.send_pieces`. Raises ClientGone."""
        try:
            await self.stream.send_pieces(pieces)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ClientGone("the client left while its answer was being sent") from exc

    async def receive_lent(self, max_bytes: int) -> bytes | memoryview:
        """The next bytes, of use until the next checkpoint; empty at the end. Raises ClientGone on a reset."""
        try:
            data = self.stream.receive_now(max_bytes)
            return data if data is not None else await self.stream.receive_lent(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ClientGone("the client reset the connection") from exc

    async def wait_gone(self) -> None:
        """Return when the client hangs up. What it sends meanwhile (pipelined requests) is kept, up to a bound.

        Beyond the bound nothing more is read, and its leaving shows when the answer is sent.
        """
        while self.stream.pending < MAX_READ_AHEAD:
            try:
                if not await self.stream.read_ahead(MAX_READ_AHEAD):
                    return
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
        await trio.sleep_forever()

    async def linger(self, seconds: float) -> None:
        """End our side and read what the client still sends, for `seconds` at most.

        Closing with unread bytes in the kernel's buffer resets the connection, and the reset may overtake the
        answer (RFC 9112 §9.6).
        """
        with trio.move_on_after(seconds):
            try:
                await self.stream.send_eof()
                left = MAX_LINGER
                while left > 0 and (data := await self.stream.receive_some(64 * 1024)):
                    left -= len(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
