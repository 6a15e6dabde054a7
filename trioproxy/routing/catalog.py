"""The catalog: the routes of every provider, merged into one table with a version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from trioproxy.routing.route import Route, RouteKey
from trioproxy.routing.table import Table


class Catalog:
    """Merges providers. A key that several of them know belongs to the first in `priority`.

    Has one writer. Everything it hands out is a snapshot that later changes leave alone. `version` is where
    counting starts, so that versions go on rising over a restart; each change of the merged table adds one.
    Naming a provider that is not in `priority` is a KeyError.
    """

    def __init__(self, priority: Sequence[str], *, version: int = 0) -> None:
        self._held: dict[str, dict[RouteKey, Route]] = {name: {} for name in priority}
        self._table = Table.build((), version=version, synced=False)

    @property
    def table(self) -> Table:
        """The merged table of this instant."""
        return self._table

    @property
    def version(self) -> int:
        """The version of `table`."""
        return self._table.version

    def replace(self, provider: str, routes: Iterable[Route]) -> bool:
        """Take a full snapshot of one provider. Returns whether it made a new version.

        The first snapshot of any provider always does, even an empty one: from then on the table is synced.
        """
        old = self._held[provider]
        new = {route.key: route for route in routes}
        touched = [key for key in old if key not in new]
        for key, route in new.items():
            known = old.get(key)
            if known is None or (known is not route and known != route):
                touched.append(key)
            else:
                new[key] = known  # the object that is in use stays in use
        self._held[provider] = new
        return self._merge(touched, synced=True)

    def change(self, provider: str, *, upsert: Iterable[Route] = (), remove: Iterable[RouteKey] = ()) -> bool:
        """Take a delta of one provider: `remove` first, then `upsert`. Returns whether it made a new version."""
        added = {route.key: route for route in upsert}
        gone = [key for key in dict.fromkeys(remove) if key not in added]
        held = {**self._held[provider], **added}
        for key in gone:
            held.pop(key, None)
        self._held[provider] = held
        return self._merge([*gone, *added], synced=self._table.synced)

    def provider_of(self, key: RouteKey) -> str | None:
        """Name the provider whose route is in the table."""
        return next((name for name, held in self._held.items() if key in held), None)

    def of_provider(self, provider: str) -> Mapping[RouteKey, Route]:
        """Return what one provider holds, routes hidden by a higher provider included."""
        return MappingProxyType(self._held[provider])

    def counts(self) -> dict[str, int]:
        """Count what each provider holds, hidden routes included."""
        return {name: len(held) for name, held in self._held.items()}

    def _merge(self, touched: Iterable[RouteKey], *, synced: bool) -> bool:
        upsert: list[Route] = []
        remove: list[RouteKey] = []
        shown = self._table.routes
        for key in touched:
            for held in self._held.values():
                route = held.get(key)
                if route is not None:
                    if route != shown.get(key):
                        upsert.append(route)
                    break
            else:
                if key in shown:
                    remove.append(key)
        if not upsert and not remove and synced == self._table.synced:
            return False
        self._table = self._table.changed(upsert=upsert, remove=remove, version=self.version + 1, synced=synced)
        return True
