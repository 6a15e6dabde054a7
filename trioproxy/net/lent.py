"""The buffer that bodies are received into, one for all streams, and what streams keep of it while they wait.

A stream that waits for bytes holds none. A stream whose peer does not take what was read has to copy and hold it, so
when much is held already, less is read at a time.
"""

from __future__ import annotations

import trio

LARGE = 1024 * 1024
"""Bytes of the buffer."""
SMALL = 64 * 1024
"""Bytes read at a time while more than `HELD` are held."""
HELD = 64 * 1024 * 1024
"""Bytes; with n streams that wait, no more than this, one `LARGE` and n times `SMALL` are held.

Where a peer is reached over TLS, `SMALL` more of it each, encrypted.
"""


class Lent:
    """The buffer of one `trio.run`. `held`: bytes of it that were copied and wait for a peer."""

    __slots__ = ("buffer", "held")

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(LARGE))
        self.held = 0

    @property
    def room(self) -> int:
        """How many bytes to read at a time."""
        return LARGE if self.held < HELD else SMALL


_current: trio.lowlevel.RunVar[Lent | None] = trio.lowlevel.RunVar("lent buffer", None)


def lent() -> Lent:
    """The one of this run. What is in its buffer is of use until the next checkpoint."""
    current = _current.get()
    if current is None:
        current = Lent()
        _current.set(current)
    return current
