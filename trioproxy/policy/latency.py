"""How long a backend takes to answer, lately."""

from __future__ import annotations

import math

FORGET_SECONDS = 10.0
"""What is this old counts for a third."""
UNKNOWN = 1e-6
"""Seconds; of a backend that nothing is known of, so that it is asked soon."""
PENDING = 60.0
"""Seconds; of one that was asked and has not answered yet, so that not everybody is sent there on suspicion."""


class Latency:
    """A moving average that rises at once and falls slowly (Finagle's "peak EWMA"). All in seconds, on any clock.

    It falls with time also when nobody asks: a backend that was slow once gets another chance.
    """

    __slots__ = ("_at", "_value")

    def __init__(self) -> None:
        self._value = 0.0
        self._at = -math.inf

    def observe(self, seconds: float, now: float) -> None:
        """An answer took this long."""
        kept = math.exp((self._at - now) / FORGET_SECONDS)
        lately = self._value * kept
        self._value = seconds if seconds > lately else lately + seconds * (1 - kept)
        self._at = now

    def estimate(self, now: float, in_flight: int) -> float:
        """How long the next answer will take; more than 0. `in_flight`: requests that are not answered yet."""
        if self._at == -math.inf:
            return PENDING if in_flight else UNKNOWN
        return max(UNKNOWN, self._value * math.exp((self._at - now) / FORGET_SECONDS))
