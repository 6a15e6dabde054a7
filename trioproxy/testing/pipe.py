"""Two connected in-memory streams that behave like the two ends of a TCP connection."""

from __future__ import annotations

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


class PipeEnd(trio.abc.HalfCloseableStream):
    """One end. Besides reading and writing it can tell whether a read would wait, and be reset.

    `send_all` waits while the other end has the pipe's capacity unread.
    """

    def __init__(self, incoming: _Flow, outgoing: _Flow) -> None:
        self._in = incoming
        self._out = outgoing
        self._sending = False
        self._receiving = False
        self.closed = False

    @property
    def peer_closed(self) -> bool:
        """Whether the other end was closed or reset."""
        return self._out.refused

    def readable_now(self) -> bool:
        """Whether `receive_some` would return or raise at once."""
        flow = self._in
        return self.closed or flow.broken or flow.ended or bool(flow.buffer)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send. Raises BrokenResourceError when the other end is gone, ClosedResourceError when this one is."""
        if self._sending:
            raise trio.BusyResourceError("another task sends on this end")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            flow, view = self._out, memoryview(data)
            while True:
                self._check_open()
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
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room."""
        await trio.lowlevel.checkpoint()
        flow = self._out
        while len(flow.buffer) >= flow.capacity and not (flow.broken or flow.refused or self.closed):
            await flow.wait_change()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive; b"" at the end. Raises BrokenResourceError after a reset, ClosedResourceError when closed."""
        if self._receiving:
            raise trio.BusyResourceError("another task receives on this end")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            flow = self._in
            while True:
                self._check_open()
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
        finally:
            self._receiving = False

    def _check_open(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError("this end was closed")

    async def send_eof(self) -> None:
        """End the sending side."""
        await trio.lowlevel.checkpoint()
        self._check_open()
        self._out.ended = True
        self._out.change()

    async def aclose(self) -> None:
        """Close both directions; the other end reads what is under way, then the end."""
        self._close()
        await trio.lowlevel.checkpoint()

    def reset(self) -> None:
        """Break the connection, as a TCP reset does: what the other end has not read yet it may still read."""
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
