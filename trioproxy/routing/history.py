"""What changed from version to version, as far back as is worth knowing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from trioproxy.routing.route import RouteKey

MAX_CHANGES = 256
MAX_KEYS = 10_000
"""Bounds of the history. Who is further behind is better served with everything."""


@dataclass(frozen=True, slots=True)
class History:
    """Which keys were touched by which version: complete for everything after version `base`."""

    base: int
    changes: tuple[tuple[int, frozenset[RouteKey]], ...] = ()
    """(version, keys), in the order they came about."""
    size: int = 0
    """Keys of all changes together."""

    def and_then(self, version: int, touched: Collection[RouteKey]) -> History:
        """The history one change later; the oldest changes are forgotten where it would grow beyond its bounds.

        A change that does not raise the version leaves nothing that could be told apart, so the history begins anew.
        """
        if version <= self._latest or len(touched) > MAX_KEYS:
            return History(version)
        base, changes, size = self.base, (*self.changes, (version, frozenset(touched))), self.size + len(touched)
        while len(changes) > MAX_CHANGES or size > MAX_KEYS:
            (base, keys), *rest = changes
            changes, size = tuple(rest), size - len(keys)
        return History(base, changes, size)

    def since(self, version: int) -> frozenset[RouteKey] | None:
        """The keys touched after this version; None when that is not known (any more, or yet)."""
        if not self.base <= version <= self._latest:
            return None
        return frozenset[RouteKey]().union(*(keys for later, keys in self.changes if later > version))

    @property
    def _latest(self) -> int:
        return self.changes[-1][0] if self.changes else self.base
