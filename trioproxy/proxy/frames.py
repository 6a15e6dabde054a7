"""WebSocket frames, as far as a proxy needs to see them: where they begin and end (RFC 6455 §5.2).

Only header bytes are looked at; payload is skipped by count. Nothing is validated here: who must obey the
peer's frames (an endpoint) judges them, who only needs a place between two of them counts.
"""

from __future__ import annotations

from itertools import cycle

from trioproxy.net.plain import Piece

_CLOSE = 0x8
_FIRST_CONTROL = 0x8
_MAX_CONTROL_PAYLOAD = 125
_KEY_SIZE = 4


def _header_size(second: int) -> int:
    extended = {126: 2, 127: 8}.get(second & 0x7F, 0)
    return 2 + extended + (_KEY_SIZE if second & 0x80 else 0)


_HEADER_SIZES = tuple(_header_size(second) for second in range(256))
"""Bytes of a whole frame header, by its second byte."""


class FrameTracker:
    """Where one direction of a WebSocket stands between frames.

    `closing`: a close frame has begun to pass. `message`: payload bytes announced so far for the message
    that is open, or that ended last; control frames inside it do not count.
    """

    __slots__ = ("_head", "_left", "_open", "closing", "message")

    def __init__(self) -> None:
        self._head = bytearray()  # of a header that is not complete yet
        self._left = 0  # payload bytes of the current frame still to come
        self._open = False  # a message is not finished
        self.closing = False
        self.message = 0

    @property
    def between(self) -> bool:
        """Whether a frame has just ended, or none has begun: a control frame may be put in here (§5.4)."""
        return not self._left and not self._head

    def advance(self, data: Piece, start: int) -> int:
        """Follow one frame, the open one or else the one that begins at `start`, as far as `data` goes.

        `start` is less than the length of `data`. Returns the position behind what was followed.
        """
        if self._left:
            return self._skip(data, start)
        if self._head:
            return self._continue(data, start)
        available = len(data) - start
        if available > 1 and (length := data[start + 1] & 0x7F) < 126:  # a small frame, most likely whole
            stop = start + _HEADER_SIZES[data[start + 1]] + length
            if stop <= len(data):
                self._note(data[start], length)
                return stop
        size = _HEADER_SIZES[data[start + 1]] if available > 1 else 2
        if available < size:
            self._head += data[start:]
            return len(data)
        self._begin(data[start : start + size])
        return self._skip(data, start + size)

    def follow(self, data: Piece, start: int = 0) -> None:
        """Follow all frames in `data` from `start` on."""
        end = len(data)
        while start < end:
            start = self.advance(data, start)

    def _continue(self, data: Piece, start: int) -> int:
        head = self._head
        if len(head) == 1:
            head.append(data[start])
            start += 1
        missing = _HEADER_SIZES[head[1]] - len(head)
        head += data[start : start + missing]
        if len(head) == _HEADER_SIZES[head[1]]:
            self._begin(head)
            self._head = bytearray()
        return self._skip(data, min(start + missing, len(data)))

    def _begin(self, head: Piece) -> None:
        length = head[1] & 0x7F
        if length == 126:
            length = int.from_bytes(head[2:4], "big")
        elif length == 127:
            length = int.from_bytes(head[2:10], "big")
        self._left = length
        self._note(head[0], length)

    def _note(self, first: int, length: int) -> None:
        opcode = first & 0x0F
        if opcode < _FIRST_CONTROL:
            self.message = self.message + length if self._open else length
            self._open = first < 0x80  # FIN is not set
        elif opcode == _CLOSE:
            self.closing = True

    def _skip(self, data: Piece, start: int) -> int:
        skipped = min(self._left, len(data) - start)
        self._left -= skipped
        return start + skipped


def close_frame(code: int, reason: str, *, key: bytes | None = None) -> bytes:
    """A close frame (§5.5.1). `key` is the mask of a client's frame: four unpredictable bytes (§5.3).

    A reason that does not fit into 123 bytes of UTF-8 is cut between characters.
    """
    text = reason.encode()[: _MAX_CONTROL_PAYLOAD - 2].decode(errors="ignore").encode()
    payload = code.to_bytes(2, "big") + text
    if key is None:
        return bytes((0x80 | _CLOSE, len(payload))) + payload
    masked = bytes(byte ^ mask for byte, mask in zip(payload, cycle(key), strict=False))
    return bytes((0x80 | _CLOSE, 0x80 | len(payload))) + key + masked
