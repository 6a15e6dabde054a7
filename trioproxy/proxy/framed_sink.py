"""The client's end of a relayed WebSocket, into which the proxy can put one close frame of its own."""

from __future__ import annotations

import trio

from trioproxy.net.plain import Piece
from trioproxy.net.prefixed import PrefixedStream
from trioproxy.proxy.frames import FrameTracker, close_frame


class FramedSink:
    """Passes a backend's frames on as bytes, and knows where a frame of ours may stand (RFC 6455 §5.4)."""

    __slots__ = ("_ahead", "_farewell", "_frames", "_muted", "_sending", "_stream")

    def __init__(self, stream: PrefixedStream) -> None:
        self._stream = stream
        self._frames = FrameTracker()
        self._ahead = False  # what is sent next has been followed already
        self._sending = False
        self._farewell = b""  # our close frame, waiting for its place
        self._muted = False  # it has been sent: nothing may follow

    @property
    def closing(self) -> bool:
        """Whether a close frame has been sent, the backend's or ours: what breaks now breaks nothing."""
        return self._frames.closing or self._muted

    @property
    def between(self) -> bool:
        """Whether what has been sent ended with a frame."""
        return self._frames.between

    def send_now(self, data: Piece) -> int:
        """Send what goes without waiting: so many bytes. The rest is `send_lent`'s, at once."""
        if self._muted or self._farewell:
            return 0
        self._frames.follow(data)
        sent = self._stream.send_now(data)
        self._ahead = sent < len(data)
        return sent

    async def send_lent(self, data: Piece) -> None:
        """Send the next bytes of the backend, and then what waits for the end of the frame; drop what is behind it.

        Before this waits it copies what is left of them.
        """
        if self._muted:
            await trio.lowlevel.checkpoint()
            return
        if self._ahead:
            self._ahead = False
        elif self._farewell:
            data = data[: self._frames.advance(data, 0)]
        else:
            self._frames.follow(data)
        self._sending = True
        await self._stream.send_lent(data)
        self._sending = False
        if self._farewell and self._frames.between:
            await self._send_farewell()

    async def close(self, code: int, reason: str) -> None:
        """Send a close frame: now if no frame is open, else behind it. Not after the backend's own."""
        self._farewell = close_frame(code, reason)
        if self._frames.between and not self._sending:
            await self._send_farewell()
        else:
            await trio.lowlevel.checkpoint()

    async def _send_farewell(self) -> None:
        self._muted = True
        if not self._frames.closing:
            await self._stream.send_all(self._farewell)
