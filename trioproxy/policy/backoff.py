"""How long to wait before trying again what has failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Pauses that double from `first` to `longest`, and begin anew after `steady` of success. All in seconds.

    `rng` tells a number from 0 to 1: each pause is longer by up to half of itself, so that those who failed together
    do not come back together.
    """

    first: float
    longest: float
    steady: float
    rng: Callable[[], float]
    _next: float = 0.0

    def pause(self, worked: float) -> float:
        """The pause after a try that went well for `worked` seconds before it failed."""
        base = self.first if worked >= self.steady or not self._next else self._next
        self._next = min(base * 2, self.longest)
        return min(base * (1 + self.rng() / 2), self.longest)
