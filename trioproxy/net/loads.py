"""How many connections each forwarder of a worker holds, in memory that they share.

Forwarders accept from the same sockets, and whoever is awake first takes whatever has come: of a burst, one of them
would get nearly all. So each tells its number here, and one that has more than another lets that one go first.
"""

from __future__ import annotations

import mmap
import os

FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.1
"""Seconds without courtesy after it was in vain; they double with each further time."""
FORGIVEN_AFTER = 1.0
"""Seconds after which it is forgotten that it was in vain."""

_CELL = 8  # bytes: written and read in one piece, so no lock is needed
_ABSENT = -1


class Loads:
    """One number per forwarder. The supervisor makes it and has no place in it; each forwarder opens its own."""

    def __init__(self, descriptor: int, places: int, *, mine: int | None = None) -> None:
        """Open the memory behind a descriptor, which stays its owner's. Raises OSError."""
        self._memory = mmap.mmap(descriptor, places * _CELL)
        self._cells = memoryview(self._memory).cast("q")
        self._mine = mine
        self._left = False

    @staticmethod
    def create(places: int) -> int:
        """New memory for so many forwarders, all of them absent; its descriptor, not inheritable. Raises OSError."""
        descriptor = os.memfd_create("trioproxy-loads")
        os.write(descriptor, b"\xff" * _CELL * places)
        return descriptor

    def close(self) -> None:
        """Let go of the memory. Nothing else may be called afterwards."""
        self._cells.release()
        self._memory.close()

    def tell(self, connections: int) -> None:
        """This forwarder holds so many connections now. Says nothing after `leave`."""
        assert self._mine is not None
        if not self._left:
            self._cells[self._mine] = connections

    def leave(self) -> None:
        """This forwarder accepts no more: nobody is to wait for it."""
        assert self._mine is not None
        self._left = True
        self._cells[self._mine] = _ABSENT

    def clear(self, place: int) -> None:
        """The forwarder that was in this place is gone."""
        self._cells[place] = _ABSENT

    def fewest(self) -> int:
        """How many connections the forwarder holds that holds fewest."""
        return min((count for count in self._cells.tolist() if count != _ABSENT), default=0)

    def exceed(self, fewest: int) -> bool:
        """Whether this forwarder holds clearly more connections than that: by more than an eighth."""
        assert self._mine is not None
        return self._cells[self._mine] > fewest + fewest // 8


class Courtesy:
    """Says when to let a forwarder with fewer connections go first; less and less often while it does not go.

    So it does when it hangs, and also when its connections end as fast as others begin: neither is worth waiting for.
    `now` is any clock that rises, in seconds.
    """

    def __init__(self, loads: Loads) -> None:
        self._loads = loads
        self._fewest = 0
        self._pause = 0.0
        self._not_before = 0.0

    def is_due(self, now: float) -> bool:
        """Whether to let another one go first, now. When so, say afterwards that it was `done`."""
        if now < self._not_before:
            return False
        self._fewest = self._loads.fewest()
        return self._loads.exceed(self._fewest)

    def done(self, now: float) -> None:
        """The other one had its time."""
        if self._loads.fewest() > self._fewest or now > self._not_before + FORGIVEN_AFTER:
            self._pause = 0.0
        else:
            self._pause = min(2 * self._pause + FIRST_PAUSE, LONGEST_PAUSE)
        self._not_before = now + self._pause
