"""Backends as the choosers see them, and what they choose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from trioproxy.policy.balancing import Chooser


@dataclass(eq=False)
class One:
    """A candidate. `seconds` is how long it takes to answer."""

    id: str
    share: float = 1.0
    in_flight: int = 0
    seconds: float = 1.0
    credit: float = 0.0

    def slowness(self, now: float) -> float:
        """See Candidate."""
        return self.seconds


def turns(chooser: Chooser[One], count: int, client: str = "") -> str:
    """The ids of so many choices in a row."""
    return "".join(chooser.choose(client).id for _ in range(count))


def shares(picks: Sequence[str]) -> dict[str, float]:
    """The part that each one has of them."""
    return {name: count / len(picks) for name, count in Counter(picks).items()}
