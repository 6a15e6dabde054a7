"""The stream under one trio-websocket connection whose handshake was made by somebody else.

trio-websocket starts every connection with a handshake of its own. Ours took place on the HTTP path, so
this stream plays the other side of a second one in memory, and then passes bytes through. On the way it
notes what the library does not tell.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Literal

import trio
from wsproto.utilities import generate_accept_token

from trioproxy.net.prefixed import PrefixedStream
from trioproxy.proxy.frames import FrameTracker

Side = Literal["client", "backend"]

PIECE = 64 * 1024
"""Bytes: larger writes are cut, to see the peer take them, and so that pings and pongs get in soon."""

_REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %b\r\n\r\n"
)
_KEY = re.compile(rb"(?i)\r\nsec-websocket-key: *([^\r]+)\r\n")
_CLOSE = 0x88  # first byte of a close frame: FIN and opcode 8


class LegStream(trio.abc.Stream):
    """The connection to the `side` that trio-websocket talks to, behind an opening handshake in memory.

    Facing a client it hands out a request and swallows the answer to it; facing a backend it swallows the
    request and hands out the answer. The real stream is not touched before that is over: wsproto forgets
    bytes that come between the request and its answer.

    `close_sent`: trio-websocket has sent a close frame. `too_big`: the peer announced a message of more than
    `max_message` bytes (0 = no limit); its bytes are kept back, and what is read then looks like the end.
    `reading`: trio-websocket waits for bytes. Once `refused` says that it does not want the peer's bytes any
    more, it gets none: as a client it would go on collecting them.
    """

    def __init__(self, stream: trio.abc.Stream, side: Side, *, max_message: int, refused: Callable[[], bool]) -> None:
        self.close_sent = False
        self.too_big = False
        self.reading = False
        self._stream = stream
        # Messages come one by one: asking before waiting would find nothing.
        self._receive = stream.receive_later if isinstance(stream, PrefixedStream) else stream.receive_some
        self._side = side
        self._max_message = max_message
        self._refused = refused
        self._frames = FrameTracker()
        self._canned = _REQUEST if side == "client" else b""
        self._answered = trio.Event()
        self._open = False
        self._closed = False
        self._whole = True  # no write is going on, and none was cut short
        self._patience = math.inf
        self._pong: trio.CancelScope | None = None

    @property
    def busy(self) -> bool:
        """Whether trio-websocket still works on what it has read: it neither waits for bytes nor is done."""
        return not (self.reading or self._closed)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Bytes for trio-websocket: those of the handshake first, then the real ones."""
        if not self._open:
            canned = await self._receive_handshake()
            if canned:
                return canned
        if self._closed or self._refused():
            self._closed = True
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError("this side is being closed")
        if self.too_big:
            await trio.lowlevel.checkpoint()
            return b""
        self.reading = True
        self._alive()
        try:
            data = await self._receive(max_bytes or PIECE)
        finally:
            self.reading = False
            if self._pong is not None:
                self._pong.deadline = math.inf
        return self._admit(data) if self._max_message else data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send one frame of trio-websocket, which is what each of its calls is. The first one is its handshake."""
        if not self._answered.is_set():
            await trio.lowlevel.checkpoint()
            self._swallow_handshake(bytes(data))
            return
        if not self._whole:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError("a frame was cut short")
        if data[0] == _CLOSE:
            self.close_sent = True
        self._whole = False
        if len(data) <= PIECE:
            await self._stream.send_all(data)
            self._alive()
        else:
            with memoryview(data) as view:
                for start in range(0, len(view), PIECE):
                    await self._stream.send_all(view[start : start + PIECE])
                    self._alive()
        self._whole = True

    async def wait_send_all_might_not_block(self) -> None:
        """Wait on the real stream."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """End trio-websocket's use of it. The real stream stays open, for `finish` or `linger`."""
        self.stop()
        await trio.lowlevel.checkpoint()

    def stop(self) -> None:
        """Let trio-websocket find the stream closed when it reads again."""
        self._closed = True

    @contextmanager
    def expecting_pong(self, patience: float) -> Generator[trio.CancelScope]:
        """Give up the inside after `patience` seconds in which the peer neither sent nor took a byte.

        Time does not count while nobody reads: when the other side is slow, the pong waits in line.
        """
        self._patience = patience
        with trio.CancelScope() as scope:
            self._pong = scope
            self._alive()
            try:
                yield scope
            finally:
                self._pong = None

    async def finish(self) -> None:
        """Close the real stream after both close frames; a backend goes first, being the server (RFC 6455 §7.1.1).

        Only after trio-websocket's tasks are gone, as with `linger`. Raises BrokenResourceError.
        """
        if not self._whole:
            return  # the peer will not know what we said last: no clean end
        if self._side == "backend":
            await self._discard()
        await self._stream.aclose()

    async def linger(self, farewell: bytes = b"") -> None:
        """Close the real stream after our close frame; `farewell` is one that trio-websocket did not send.

        Waits for the peer's end, since closing with unread bytes would be a reset, which destroys what is on
        its way. Raises BrokenResourceError when the peer is gone.
        """
        if farewell and self._whole:
            await self._stream.send_all(farewell)
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()
        await self._discard()
        await self._stream.aclose()

    async def _receive_handshake(self) -> bytes:
        if self._side == "backend" or not self._canned:
            await self._answered.wait()
        else:
            await trio.lowlevel.checkpoint()
        canned, self._canned = self._canned, b""
        self._open = not canned
        return canned

    def _swallow_handshake(self, head: bytes) -> None:
        if self._side == "backend":
            key = _KEY.search(head)
            assert key is not None, "trio-websocket sent something else than a handshake"
            self._canned = _RESPONSE % generate_accept_token(key[1])
        self._answered.set()

    def _alive(self) -> None:
        if self._pong is not None and self.reading:
            self._pong.deadline = trio.current_time() + self._patience

    def _admit(self, data: bytes | bytearray) -> bytes | bytearray:
        position = 0
        while position < len(data):
            behind = self._frames.advance(data, position)
            if self._frames.message > self._max_message:
                self.too_big = True
                self._frames.follow(data, behind)
                return data[:position]
            position = behind
        return data

    async def _discard(self) -> None:
        while data := await self._stream.receive_some(PIECE):
            if self.too_big:  # else nobody has counted, or nobody can
                self._frames.follow(data)
                if self._frames.closing:
                    return
