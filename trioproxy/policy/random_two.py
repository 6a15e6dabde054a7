"""The power of two choices: two at random, and the better one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar


class Measured(Protocol):
    """What is looked at, see balancing.Candidate."""

    @property
    def share(self) -> float:
        """Part of the traffic."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests that it serves now."""
        ...

    def slowness(self, now: float) -> float:
        """Expected seconds until it answers one more request."""
        ...


M = TypeVar("M", bound=Measured)


class RandomTwo(Generic[M]):
    """Draws two different ones and takes the one with less to do: time to answer times requests in flight, by share.

    It avoids the worst without all requests running to the best one at once, which several forwarders that do not
    know of each other's would do (Mitzenmacher 2001; linkerd and Envoy do the same).
    """

    def __init__(self, rng: Callable[[], float], clock: Callable[[], float]) -> None:
        self._random = rng
        self._clock = clock
        self._candidates: Sequence[M] = ()

    def arrange(self, candidates: Sequence[M]) -> None:
        """See balancing.Chooser."""
        self._candidates = candidates

    def choose(self, client: str) -> M:
        """See balancing.Chooser."""
        return self.choose_among(self._candidates, client)

    def choose_among(self, candidates: Sequence[M], client: str) -> M:  # noqa: ARG002 - see Chooser
        """See balancing.Chooser."""
        count = len(candidates)
        if count == 1:
            return candidates[0]
        first = int(self._random() * count)
        second = int(self._random() * (count - 1))
        if second >= first:
            second += 1
        one, other = candidates[first], candidates[second]
        now = self._clock()
        load = one.slowness(now) * (one.in_flight + 1) * other.share
        return one if load <= other.slowness(now) * (other.in_flight + 1) * one.share else other
