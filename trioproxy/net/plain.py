"""A connected socket as a stream that goes through the scheduler only where it has to wait.

`trio.SocketStream` passes through the scheduler on every call. Where bytes are only carried from one socket to
another that is half of the work, so here calls that need not wait return at once, a bounded number of times in a row.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import NoReturn

import trio

from trioproxy.net.lent import Lent, lent
from trioproxy.net.readiness import Readiness

CALLS_IN_A_ROW = 16
"""Calls that may return at once before one lets other tasks run, and looks for a cancellation."""
RECEIVE = 64 * 1024
"""Bytes of a receive that names no bound."""
MAX_PIECES = 1024
"""Of one call to the kernel (UIO_MAXIOV)."""

Piece = bytes | bytearray | memoryview


class PlainStream(trio.abc.HalfCloseableStream):
    """Owns a connected, non-blocking stream socket, open in `sock` until it is closed here.

    One task may send and one may receive at a time. Cancelling a send leaves open how much of it was sent.
    """

    __slots__ = (
        "_left",
        "_lent",
        "_readiness",
        "_sending",
        "sock",
    )

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._left = CALLS_IN_A_ROW
        self._sending = False  # and waiting in it
        self._lent: Lent | None = None
        self._readiness = Readiness(sock)

    @classmethod
    def adopt(cls, stream: trio.SocketStream) -> PlainStream:
        """Take over the socket of a stream, which is of no more use. What trio has set on it (TCP_NODELAY) stays."""
        theirs = stream.socket
        sock = socket.socket(theirs.family, theirs.type, theirs.proto, fileno=theirs.detach())
        sock.setblocking(False)
        return cls(sock)

    @property
    def quiet(self) -> bool | None:
        """Whether a read would have to wait, as of when the kernel was last heard; None = not known."""
        return self._readiness.quiet

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next bytes, at once when they are there; b"" at the end. Raises as trio's streams do."""
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be >= 1")
        self._readiness.readable = True  # perhaps
        return await self.receive_later(max_bytes or RECEIVE)

    async def receive_later(self, max_bytes: int) -> bytes:
        """As `receive_some`, for bytes that can hardly be there yet: does not look for them before it was told."""
        readiness = self._readiness
        while True:
            try:
                if not readiness.readable or not self._left:
                    await readiness.wait_readable()
                    self._left = CALLS_IN_A_ROW
                self._left -= 1
                readiness.readable = readiness.unsure
                data = self.sock.recv(max_bytes)
            except BlockingIOError:
                readiness.readable = readiness.unsure = False
            except (OSError, ValueError) as exc:  # ValueError: its descriptor is -1
                self._raise(exc)
            else:
                if len(data) == max_bytes:
                    readiness.readable = True
                return data

    def receive_now(self, max_bytes: int) -> memoryview | None:
        """The next bytes if they are there; None when one has to wait. Raises as `receive_some`.

        They are in a buffer that all streams share (`net/lent.py`): use them before the next checkpoint. What is read
        counts per 64 KiB as a call, so that other tasks come to run between the pieces of large bodies.
        """
        if not self._left:
            return None
        readiness = self._readiness
        shared = self._lent or lent()
        room = min(max_bytes, shared.room)
        readiness.readable = readiness.unsure
        try:
            count = self.sock.recv_into(shared.buffer, room)
        except BlockingIOError:
            readiness.readable = readiness.unsure = False
            return None
        except OSError as exc:
            self._raise(exc)
        if count == room:
            readiness.readable = True
        self._lent = shared
        self._left = max(0, self._left - 1 - count // RECEIVE)
        return shared.buffer[:count]

    async def receive_lent(self, max_bytes: int) -> memoryview:
        """As `receive_now`, but wait: first, and then read. Cancelling it loses nothing."""
        while True:
            try:
                await self._readiness.wait_readable()
            except (OSError, ValueError) as exc:  # ValueError: its descriptor is -1
                self._raise(exc)
            self._left = CALLS_IN_A_ROW
            data = self.receive_now(max_bytes)
            if data is not None:
                return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, at once as far as the socket takes it. Raises as trio's streams do."""
        sent = self.send_now(data)
        if sent == len(data):
            if self._left:
                self._left -= 1
            else:
                await self._breathe()
            return
        self._sending = True
        try:
            await self._send_rest(memoryview(data)[sent:])
        finally:
            self._sending = False

    def send_now(self, data: bytes | bytearray | memoryview) -> int:
        """Send what the socket takes without waiting: so many bytes. Raises as `send_all`."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            self._raise(exc)

    async def send_pieces(self, pieces: Sequence[Piece]) -> None:
        """Send them one behind the other. Raises as `send_all`.

        Before this waits it copies what is left of them: they may lie in a buffer that is used again.
        """
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        if len(pieces) > MAX_PIECES:
            pieces = [b"".join(pieces)]
        try:
            sent = self.sock.send(pieces[0]) if len(pieces) == 1 else self.sock.sendmsg(pieces)
        except BlockingIOError:
            sent = 0
        except OSError as exc:
            await trio.lowlevel.checkpoint()
            self._raise(exc)
        if sent == sum(map(len, pieces)):
            if self._left:
                self._left -= 1
            else:
                await self._breathe()
            return
        rest, shared = _behind(pieces, sent), lent()
        self._sending = True
        shared.held += len(rest)
        try:
            await self._send_rest(memoryview(rest))
        finally:
            shared.held -= len(rest)
            self._sending = False

    async def _send_rest(self, data: memoryview) -> None:
        while data:
            await self.wait_send_all_might_not_block()
            self._readiness.writable = False
            try:
                data = data[self.sock.send(data) :]
            except BlockingIOError:
                continue
            except OSError as exc:
                self._raise(exc)
        self._readiness.writable = True  # nobody will say so: it never came to a halt

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the socket takes bytes."""
        try:
            await self._readiness.wait_writable()
        except (OSError, ValueError) as exc:
            self._raise(exc)
        self._left = CALLS_IN_A_ROW

    async def send_eof(self) -> None:
        """End the sending side."""
        await trio.lowlevel.checkpoint()
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as exc:
            self._raise(exc)

    async def aclose(self) -> None:
        """Close the socket. Who waits on it gets ClosedResourceError."""
        if self.sock.fileno() >= 0:
            self._readiness.close()
            self.sock.close()
        await trio.lowlevel.checkpoint()

    async def _breathe(self) -> None:
        await trio.lowlevel.checkpoint()
        self._left = CALLS_IN_A_ROW

    def _raise(self, exc: Exception) -> NoReturn:
        if self.sock.fileno() < 0:
            raise trio.ClosedResourceError("this socket was already closed") from None
        raise trio.BrokenResourceError(f"socket connection broken: {exc}") from exc


def _behind(pieces: Sequence[Piece], count: int) -> bytes:
    """A copy of what comes after the first `count` bytes of the pieces."""
    for index, piece in enumerate(pieces):
        if count < len(piece):
            with memoryview(piece) as view:
                return b"".join((view[count:], *pieces[index + 1 :]))
        count -= len(piece)
    return b""
