"""Choosing among a route's backends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """What an algorithm looks at. Identity is by `id` within one route."""

    @property
    def id(self) -> str:
        """Name of the backend within its route."""
        ...

    @property
    def weight(self) -> int:
        """Share of the traffic, relative to the others; 0 = only when nothing else is left."""
        ...


C = TypeVar("C", bound=Candidate)


class SmoothWeighted:
    """Weighted round robin without bursts: 5:1:1 gives a a b a c a a, not a a a a a b c.

    Each choice adds every candidate's weight to its credit, takes the richest, and charges it the sum. The credit
    of a backend that left the set is forgotten, so that it does not come back with a claim.
    """

    def __init__(self) -> None:
        self._credit: dict[str, int] = {}

    def choose(self, candidates: Sequence[C]) -> C | None:
        """The next one, or None of none. Ties go to the first in order."""
        if len(candidates) <= 1:
            self._credit.clear()
            return candidates[0] if candidates else None
        heavy = [candidate for candidate in candidates if candidate.weight > 0] or candidates
        total = 0
        best: C | None = None
        credit: dict[str, int] = {}
        for candidate in heavy:
            weight = candidate.weight or 1
            total += weight
            credit[candidate.id] = self._credit.get(candidate.id, 0) + weight
            if best is None or credit[candidate.id] > credit[best.id]:
                best = candidate
        assert best is not None
        credit[best.id] -= total
        self._credit = credit
        return best
