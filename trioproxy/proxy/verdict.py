"""The first cause of an upgraded stream's end, and the wait for it."""

from __future__ import annotations

import math

import trio

from trioproxy.proxy.closer import GOING_AWAY, Closer, Ended


class Verdict:
    """Why an upgraded stream ends, as its own tasks settle it, its closer asks for it, or `idle` seconds pass.

    `idle` 0 is never. Whoever sees something move writes the time into `moved`: that costs less than moving a
    deadline, and there are many of them.
    """

    __slots__ = ("_closer", "_ended", "_idle", "_settled", "moved")

    def __init__(self, closer: Closer, idle: float) -> None:
        self.moved = trio.current_time()
        self._closer = closer
        self._idle = idle or math.inf
        self._settled = trio.Event()
        self._ended: Ended | None = None

    def settle(self, ended: Ended) -> None:
        """Say why it is over. What comes second is a consequence, and ignored."""
        if self._ended is None:
            self._ended = ended
            self._settled.set()

    async def reached(self) -> Ended:
        """Return the cause as soon as there is one."""
        self._closer.listen(self._asked)
        try:
            while self._ended is None:
                with trio.move_on_at(self.moved + self._idle):
                    await self._settled.wait()
                if trio.current_time() >= self.moved + self._idle:
                    self.settle(Ended(GOING_AWAY, "idle", "proxy", "idle"))
        finally:
            self._closer.listen(None)
        return self._ended

    def _asked(self) -> None:
        asked = self._closer.requested
        if asked is not None:
            self.settle(Ended(asked.code, asked.reason, "proxy", asked.error))
