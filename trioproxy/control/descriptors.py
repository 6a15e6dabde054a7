"""Frames between processes that also bring open file descriptors (unix(7), SCM_RIGHTS)."""

from __future__ import annotations

import array
import errno
import os
import socket
from collections import deque

import trio

from trioproxy.control.frames import FrameStream, with_length

RECEIVE = 64 * 1024
MAX_WAITING = 1024
"""Descriptors that may wait for the frame they belong to; what comes beyond is closed."""
LOST = -1
"""Stands for a descriptor that was sent, and for which this process had no room."""


class DescriptorStream(trio.abc.Stream):
    """A connected unix stream socket, which it owns. One descriptor may go along with some bytes."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = trio.socket.from_stdlib_socket(sock)
        self._bytes = trio.SocketStream(self._socket)
        self._arrived: deque[int] = deque()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes. Raises BrokenResourceError, ClosedResourceError."""
        await self._bytes.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """See SendStream."""
        await self._bytes.wait_send_all_might_not_block()

    async def send_with(self, data: bytes, descriptor: int) -> None:
        """Send bytes and a descriptor, which stays the caller's. Raises BrokenResourceError, ClosedResourceError."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        try:
            sent = await self._socket.sendmsg([data], rights)
        except OSError as error:
            raise _trio_error(error) from error
        await self._bytes.send_all(memoryview(data)[sent:])

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive bytes, b"" at the end. Raises BrokenResourceError, ClosedResourceError."""
        try:
            data, ancillary, flags, _ = await self._socket.recvmsg(
                max_bytes or RECEIVE, socket.CMSG_SPACE(array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            raise _trio_error(error) from error
        found = array.array("i")
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                found.frombytes(payload[: len(payload) - len(payload) % found.itemsize])
        # Where the process is out of descriptors the kernel drops it, and says so. Those that follow keep their order.
        self._arrived += found.tolist() or ([LOST] if flags & socket.MSG_CTRUNC else [])
        while len(self._arrived) > MAX_WAITING:
            _close(self._arrived.pop())
        return data

    def take(self) -> int:
        """The descriptor that came first and was not taken yet, not inheritable; LOST when there is none."""
        return self._arrived.popleft() if self._arrived else LOST

    async def aclose(self) -> None:
        """Close the socket, and what nobody has taken."""
        while self._arrived:
            _close(self._arrived.popleft())
        await self._bytes.aclose()


class DescriptorFrames(FrameStream):
    """Frames, some of which bring a descriptor."""

    def __init__(self, sock: socket.socket) -> None:
        self._carrier = DescriptorStream(sock)
        super().__init__(self._carrier)

    async def send_with(self, frame: bytes, descriptor: int) -> None:
        """Send a frame and a descriptor, which stays the caller's. Raises as `send` does."""
        await self._carrier.send_with(with_length(frame), descriptor)

    def take(self) -> int:
        """The descriptor that came with the frame just received, if one was sent with it; or LOST."""
        return self._carrier.take()


class Arrivals:
    """Sockets that another process has sent, by the handles it calls them by, until somebody takes them."""

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}

    def put(self, handle: int, descriptor: int) -> None:
        """Keep what came; LOST is nothing to keep."""
        if descriptor != LOST:
            known = self._sockets.get(handle)
            if known is not None:
                known.close()
            self._sockets[handle] = socket.socket(fileno=descriptor)

    def take(self, handle: int) -> socket.socket | None:
        """The socket, the caller's from now on; None when it did not come."""
        return self._sockets.pop(handle, None)

    def clear(self) -> None:
        """Close what nobody took."""
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()


def _trio_error(error: OSError) -> Exception:
    if error.errno == errno.EBADF:
        return trio.ClosedResourceError("it was closed")
    return trio.BrokenResourceError(str(error))


def _close(descriptor: int) -> None:
    if descriptor != LOST:
        os.close(descriptor)
