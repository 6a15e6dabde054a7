"""The same backend for the same client, without remembering any: rendezvous hashing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import Generic, Protocol, TypeVar

MAX_KNOWN = 4096
"""Clients whose choice is kept at hand."""


class Named(Protocol):
    """What is looked at, see balancing.Candidate."""

    @property
    def id(self) -> str:
        """Name of the backend within its route."""
        ...

    @property
    def share(self) -> float:
        """Part of the clients."""
        ...


N = TypeVar("N", bound=Named)


class ClientHash(Generic[N]):
    """Every backend draws a number for each client, and the one with the best one, for its share, has the client.

    When a backend goes, only its own clients move; when one comes, or its share grows, clients move to it and nowhere
    else (Thaler and Ravishankar 1998; weighted as by Schindelhauer and Schomaker 2005). All forwarders and workers draw
    the same numbers.
    """

    def __init__(self) -> None:
        self._candidates: Sequence[N] = ()
        self._known: dict[str, N] = {}

    def arrange(self, candidates: Sequence[N]) -> None:
        """See balancing.Chooser."""
        self._candidates = candidates
        self._known = {}

    def choose(self, client: str) -> N:
        """See balancing.Chooser."""
        known = self._known.get(client)
        if known is None:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            known = self._known[client] = self.choose_among(self._candidates, client)
        return known

    def choose_among(self, candidates: Sequence[N], client: str) -> N:
        """See balancing.Chooser."""
        return min(candidates, key=lambda one: _waiting_time(client, one))


def _waiting_time(client: str, one: Named) -> float:
    """Exponentially distributed with the share as its rate: who is first is so in proportion to the shares."""
    digest = blake2b(client.encode(), key=blake2b(one.id.encode(), digest_size=32).digest(), digest_size=8).digest()
    drawn = (int.from_bytes(digest, "big") + 0.5) / 2**64
    return -math.log(drawn) / one.share
