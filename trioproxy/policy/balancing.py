"""Choosing among a route's backends.

Every way of balancing is a Chooser. It is told of the candidates when they change (`arrange`), so that a choice is
cheap, and can also choose among some of them only: those that a request has not tried yet, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from trioproxy.policy.client_hash import ClientHash
from trioproxy.policy.random_two import RandomTwo
from trioproxy.routing.route import Balance


class Candidate(Protocol):
    """What the choosers look at, all of them together."""

    credit: float
    """Kept here for RoundRobin."""

    @property
    def id(self) -> str:
        """Name of the backend within its route."""
        ...

    @property
    def share(self) -> float:
        """Part of the traffic, relative to the others; more than 0."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests that it serves now."""
        ...

    def slowness(self, now: float) -> float:
        """Expected seconds until it answers one more request; more than 0."""
        ...


C = TypeVar("C", bound=Candidate)


class Chooser(Protocol[C]):
    """One way of balancing, for one route."""

    def arrange(self, candidates: Sequence[C]) -> None:
        """Choose among these from now on. Called again when their shares have changed."""
        ...

    def choose(self, client: str) -> C:
        """The one whose turn it is, for a request of this client. There has to be a candidate."""
        ...

    def choose_among(self, candidates: Sequence[C], client: str) -> C:
        """The same among these, which need not be all that were arranged. There has to be one."""
        ...


class RoundRobin(Generic[C]):
    """Weighted round robin without bursts: 5:1:1 gives a a b a c a a, not a a a a a b c.

    Each choice adds every candidate's share to its credit, takes the richest, and charges it the sum (as nginx does).
    Among equals that is simply one after the other, and done so. The credit of a backend that left is forgotten, so
    that it does not come back with a claim.
    """

    __slots__ = ("_candidates", "_even", "_total", "_turn")

    def __init__(self) -> None:
        self._candidates: Sequence[C] = ()
        self._even = True
        self._total = 0.0
        self._turn = -1

    def arrange(self, candidates: Sequence[C]) -> None:
        """See Chooser."""
        before = self._candidates
        self._turn = _turn_in(candidates, before, self._turn)
        self._even = len({one.share for one in candidates}) <= 1
        total = sum(one.share for one in candidates)
        # What is owed stays the same number of turns.
        owed = {one.id: one.credit / self._total * total for one in before} if self._total else {}
        for one in candidates:
            one.credit = 0.0 if self._even else owed.get(one.id, 0.0)
        self._candidates, self._total = candidates, total

    def choose(self, client: str) -> C:  # noqa: ARG002 - see Chooser
        """See Chooser."""
        if not self._even:
            return self._richest(self._candidates)
        turn = self._turn + 1
        if turn == len(self._candidates):
            turn = 0
        self._turn = turn
        return self._candidates[turn]

    def choose_among(self, candidates: Sequence[C], client: str) -> C:  # noqa: ARG002 - see Chooser
        """See Chooser."""
        if not self._even:
            return self._richest(candidates)
        wanted = {one.id for one in candidates}
        count = len(self._candidates)
        for step in range(1, count + 1):
            turn = (self._turn + step) % count
            if self._candidates[turn].id in wanted:
                self._turn = turn
                return self._candidates[turn]
        return candidates[0]

    @staticmethod
    def _richest(candidates: Sequence[C]) -> C:
        total = 0.0
        best = candidates[0]
        most = float("-inf")
        for one in candidates:
            share = one.share
            total += share
            one.credit = credit = one.credit + share
            if credit > most:
                best, most = one, credit
        best.credit -= total
        return best


class LeastConnections(Generic[C]):
    """The one with the fewest requests in flight for its share; among equals, one after the other."""

    __slots__ = ("_candidates", "_turn")

    def __init__(self) -> None:
        self._candidates: Sequence[C] = ()
        self._turn = -1

    def arrange(self, candidates: Sequence[C]) -> None:
        """See Chooser."""
        self._turn = _turn_in(candidates, self._candidates, self._turn)
        self._candidates = candidates

    def choose(self, client: str) -> C:
        """See Chooser."""
        return self.choose_among(self._candidates, client)

    def choose_among(self, candidates: Sequence[C], client: str) -> C:  # noqa: ARG002 - see Chooser
        """See Chooser."""
        # The turns are those of all candidates, or the same one would get what another one failed at, each time.
        wanted = None if candidates is self._candidates else {one.id for one in candidates}
        turn, best, least = self._turn, candidates[0], float("inf")
        for at in range(turn + 1 - len(self._candidates), turn + 1):  # from behind the last one, around the end
            one = self._candidates[at]
            load = (one.in_flight + 1) / one.share
            if load < least and (wanted is None or one.id in wanted):
                best, least, self._turn = one, load, at
        if self._turn < 0:
            self._turn += len(self._candidates)
        return best


def _turn_in(candidates: Sequence[C], before: Sequence[C], turn: int) -> int:
    """Where to go on: behind the last one that was chosen, or else the nearest before it; -1 = at the first one."""
    places = {one.id: at for at, one in enumerate(candidates)}
    return next((places[one.id] for one in reversed(before[: turn + 1]) if one.id in places), -1)


def make_chooser(balance: Balance, *, rng: Callable[[], float], clock: Callable[[], float]) -> Chooser[Any]:
    """The chooser of this name. `rng` tells a number from 0 to 1, `clock` seconds, of which only differences matter."""
    match balance:
        case "round_robin":
            return RoundRobin()
        case "least_connections":
            return LeastConnections()
        case "random_two":
            return RandomTwo(rng, clock)
        case "client_hash":
            return ClientHash()
