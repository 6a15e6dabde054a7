"""Which target is to be checked next: one heap for all of them, on whatever clock its user has."""

from __future__ import annotations

import heapq
import itertools

from trioproxy.health.target import Target

KEPT_GONE = 1000
"""Entries of targets that are gone which may wait for their turn to be dropped."""


class Schedule:
    """Targets by the time they are due. One that is gone is skipped, and costs nothing to take out."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Target]] = []
        self._numbers = itertools.count()
        self._gone = 0

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, target: Target, due: float) -> None:
        """Have it checked then. A target must be in here once at most."""
        heapq.heappush(self._heap, (due, next(self._numbers), target))

    def note_gone(self) -> None:
        """A target that may be in here is gone: many of those are cleared out at once."""
        self._gone += 1
        if self._gone > KEPT_GONE and self._gone * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].gone]
            heapq.heapify(self._heap)
            self._gone = 0

    def next_due(self) -> float | None:
        """When the next one is due; None when there is none."""
        while self._heap and self._heap[0][2].gone:
            heapq.heappop(self._heap)
            self._gone = max(0, self._gone - 1)
        return self._heap[0][0] if self._heap else None

    def pop(self) -> Target:
        """Take out the one that is due next; `next_due` has said that there is one."""
        return heapq.heappop(self._heap)[2]
