"""Two connected in-memory streams that behave like the two ends of a TCP connection."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from operator import index

import trio


class _Flow:
    """Bytes under way in one direction, as in the kernel's buffers."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.buffer = bytearray()
        self.ended = False  # the sender sends no more
        self.refused = False  # the receiver closed
        self.broken = False  # reset
        self._changed = trio.Event()

    def change(self) -> None:
        """Wake whoever waits."""
        self._changed.set()
        self._changed = trio.Event()

    async def wait_change(self) -> None:
        """Wait for anything to be different."""
        await self._changed.wait()


class _OneAtATime:
    """Refuses a second task in the same direction, as trio's own streams do."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._busy = False

    @contextmanager
    def claim(self) -> Generator[None]:
        if self._busy:
            raise trio.BusyResourceError(f"another task {self._what} on this end")
        self._busy = True
        try:
            yield
        finally:
            self._busy = False


class PipeEnd(trio.abc.HalfCloseableStream):
    """One end. Besides reading and writing it can tell whether a read would wait, and be reset.

    `send_all` waits while the other end has the pipe's capacity unread.
    """

    def __init__(self, incoming: _Flow, outgoing: _Flow) -> None:
        self._in = incoming
        self._out = outgoing
        self._sends = _OneAtATime("sends")
        self._receives = _OneAtATime("receives")
        self.closed = False

    @property
    def peer_closed(self) -> bool:
        """Whether the other end was closed or reset."""
        return self._out.refused

    @property
    def unread(self) -> int:
        """Bytes that the other end has sent and nobody has read here."""
        return len(self._in.buffer)

    def readable_now(self) -> bool:
        """Whether `receive_some` would return or raise at once."""
        flow = self._in
        return self.closed or flow.broken or flow.ended or bool(flow.buffer)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send. Raises BrokenResourceError when the other end is gone, ClosedResourceError when this one has ended."""
        with self._sends.claim():
            await trio.lowlevel.checkpoint()
            flow, view = self._out, memoryview(data)
            while True:
                self._check_may_send()
                if flow.broken or flow.refused:
                    raise trio.BrokenResourceError("the other end is gone")
                room = flow.capacity - len(flow.buffer)
                if room > 0:
                    flow.buffer += view[:room]
                    view = view[room:]
                    flow.change()
                if not view:
                    return
                await flow.wait_change()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room."""
        with self._sends.claim():
            await trio.lowlevel.checkpoint()
            flow = self._out
            self._check_may_send()
            while len(flow.buffer) >= flow.capacity and not (flow.broken or flow.refused):
                await flow.wait_change()
                self._check_may_send()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive; b"" at the end. Raises BrokenResourceError after a reset, ClosedResourceError when closed."""
        if max_bytes is not None and index(max_bytes) < 1:
            raise ValueError("max_bytes must be >= 1")
        with self._receives.claim():
            await trio.lowlevel.checkpoint()
            flow = self._in
            while True:
                if self.closed:
                    raise trio.ClosedResourceError("this end was closed")
                if flow.buffer:
                    data = bytes(flow.buffer[:max_bytes])
                    del flow.buffer[: len(data)]
                    flow.change()
                    return data
                if flow.broken:
                    raise trio.BrokenResourceError("the connection was reset")
                if flow.ended:
                    return b""
                await flow.wait_change()

    def _check_may_send(self) -> None:
        if self.closed or self._out.ended:
            raise trio.ClosedResourceError("this end sends no more")

    async def send_eof(self) -> None:
        """End the sending side; a second time does nothing. Raises ClosedResourceError when this end was closed."""
        with self._sends.claim():
            await trio.lowlevel.checkpoint()
            self.end()

    def end(self) -> None:
        """End the sending side without a checkpoint."""
        if self.closed:
            raise trio.ClosedResourceError("this end was closed")
        self._out.ended = True
        self._out.change()

    async def aclose(self) -> None:
        """Close both directions. The other end reads what is under way, then the end.

        Closing with bytes unread is a reset, as it is with TCP.
        """
        if self._in.buffer:
            self.reset()
        self._close()
        await trio.lowlevel.checkpoint()

    def reset(self) -> None:
        """Break the connection, as a TCP reset does: what the other end has not read yet it may still read.

        A connection that was closed before is not broken any more.
        """
        if not self.closed:
            self._in.broken = self._out.broken = True
            self._close()

    def _close(self) -> None:
        self.closed = True
        self._out.ended = True
        self._in.refused = True
        self._in.change()
        self._out.change()


def open_pipe(capacity: int = 256 * 1024) -> tuple[PipeEnd, PipeEnd]:
    """Make both ends; `capacity` bytes fit into each direction."""
    there, back = _Flow(capacity), _Flow(capacity)
    return PipeEnd(back, there), PipeEnd(there, back)
