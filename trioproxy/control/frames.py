"""Pieces of bytes on a stream, each with its length before it."""

from __future__ import annotations

import struct

import trio

from trioproxy.errors import ControlError

MAX_FRAME = 64 * 1024 * 1024
"""Bytes of the largest frame, either way."""
RECEIVE = 256 * 1024

_LENGTH = struct.Struct("!I")


def with_length(frame: bytes) -> bytes:
    """A frame as it travels. Raises ControlError when it is larger than `MAX_FRAME`."""
    if len(frame) > MAX_FRAME:
        raise ControlError(f"a record of {len(frame)} bytes is too large for the control channel")
    return _LENGTH.pack(len(frame)) + frame


class FrameStream(trio.abc.AsyncResource):
    """Sends and receives frames: four bytes of length (big-endian), then so many bytes."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._received = bytearray()

    async def send(self, frame: bytes) -> None:
        """Send one frame. When cancelled, the stream is of no more use.

        Raises:
            ControlError: it is larger than `MAX_FRAME`; nothing was sent.
            BrokenResourceError: the other end is gone.
        """
        await self._stream.send_all(with_length(frame))

    async def receive(self) -> bytes | None:
        """The next frame; None when the other end is gone, with or without the end of a frame.

        Raises:
            ControlError: the length is larger than `MAX_FRAME`.
        """
        if not await self._fill(_LENGTH.size):
            return None
        (length,) = _LENGTH.unpack_from(self._received)
        if length > MAX_FRAME:
            raise ControlError(f"a record of {length} bytes is announced on the control channel")
        if not await self._fill(_LENGTH.size + length):
            return None
        frame = bytes(self._received[_LENGTH.size : _LENGTH.size + length])
        del self._received[: _LENGTH.size + length]
        return frame

    async def _fill(self, size: int) -> bool:
        await trio.lowlevel.checkpoint()
        try:
            while len(self._received) < size:
                data = await self._stream.receive_some(RECEIVE)
                if not data:
                    return False
                self._received += data
        except trio.BrokenResourceError:  # it went with bytes of ours unread
            return False
        return True

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()
