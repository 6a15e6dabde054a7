"""The catalog: the routes of every provider, merged into one table with a version."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from immutables import Map

from trioproxy.routing.compact import compact
from trioproxy.routing.route import Route, RouteKey
from trioproxy.routing.table import Draft, Table

Held = Map[RouteKey, Route]
"""What one provider holds."""


@dataclass(frozen=True, slots=True)
class Step:
    """From one state of a catalog to the next, worked out and not yet made: see `Catalog.take`."""

    provider: str
    base: Table
    base_held: Held
    table: Table
    held: Held
    upserted: Sequence[RouteKey]
    """Keys whose routes are new to the provider or differ, also where a higher provider hides them."""
    removed: Sequence[RouteKey]

    @property
    def changes_table(self) -> bool:
        """Whether it makes a new version."""
        return self.table is not self.base


class Catalog:
    """Merges providers. A key that several of them know belongs to the first in `priority`.

    Routes are kept as equal ones in less memory, see `compact`.

    Has one writer. Everything it hands out is a snapshot that later changes leave alone. `version` is where
    counting starts, so that versions go on rising over a restart; each change of the merged table adds one.
    Naming a provider that is not in `priority` is a KeyError.
    """

    def __init__(self, priority: Sequence[str], *, version: int = 0) -> None:
        self._held: dict[str, Held] = {name: Map() for name in priority}
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
        return self.take(self.plan_replace(provider, routes))

    def change(self, provider: str, *, upsert: Iterable[Route] = (), remove: Iterable[RouteKey] = ()) -> bool:
        """Take a delta of one provider: `remove` first, then `upsert`. Returns whether it made a new version."""
        return self.take(self.plan_change(provider, upsert=upsert, remove=remove))

    def plan_replace(self, provider: str, routes: Iterable[Route]) -> Step:
        """Work out what `replace` would do, and change nothing: in any thread, as it takes its time for many routes."""
        before = self._held[provider]
        added: dict[RouteKey, Route] = {}
        kept: set[RouteKey] = set()
        for key, route in {route.key: route for route in routes}.items():
            known = before.get(key)
            if known is not None and (known is route or known == route):
                kept.add(key)  # the object that is in use stays in use
            else:
                added[key] = compact(route)
        removed = [key for key in before if key not in kept and key not in added]
        return self._plan(provider, added, removed, synced=True)

    def plan_change(self, provider: str, *, upsert: Iterable[Route] = (), remove: Iterable[RouteKey] = ()) -> Step:
        """Work out what `change` would do, and change nothing. Costs the change, however many routes there are."""
        added = {route.key: compact(route) for route in upsert}
        removed = [key for key in dict.fromkeys(remove) if key not in added]
        return self._plan(provider, added, removed, synced=self._table.synced)

    def take(self, step: Step) -> bool:
        """Make a step that was worked out. Returns whether it made a new version.

        Raises ValueError when another step was made since: what was worked out is out of date.
        """
        if self._table is not step.base or self._held[step.provider] is not step.base_held:
            raise ValueError("the catalog has changed since this step was worked out")
        self._held[step.provider] = step.held
        self._table = step.table
        return step.changes_table

    def count_from(self, version: int) -> None:
        """Let versions rise from there, when they have not come so far. A step worked out before is out of date."""
        if version > self.version:
            self._table = Draft(self._table).finish(version=version, synced=self._table.synced)

    def provider_of(self, key: RouteKey) -> str | None:
        """Name the provider whose route is in the table."""
        return next((name for name, held in self._held.items() if key in held), None)

    def of_provider(self, provider: str) -> Held:
        """Return what one provider holds, routes hidden by a higher provider included."""
        return self._held[provider]

    def counts(self) -> dict[str, int]:
        """Count what each provider holds, hidden routes included."""
        return {name: len(held) for name, held in self._held.items()}

    def _plan(self, provider: str, added: dict[RouteKey, Route], removed: Sequence[RouteKey], *, synced: bool) -> Step:
        base = self._table
        next_held = self._held[provider].mutate()
        for key in removed:
            next_held.pop(key, None)
        for key, route in added.items():
            next_held[key] = route
        held = next_held.finish()
        layers = [layer for layer in (self._held | {provider: held}).values() if layer]
        alone = len(layers) == 1 and layers[0] is held
        fresh = alone and not base.routes
        upsert: dict[RouteKey, Route] = added if fresh else {}
        remove: list[RouteKey] = []
        for key in () if fresh else (*removed, *added):
            route = (
                added.get(key)
                if alone
                else next((found for layer in layers if (found := layer.get(key)) is not None), None)
            )
            known = base.routes.get(key)
            if route is None:
                if known is not None:
                    remove.append(key)
            elif known is None or known != route:
                upsert[key] = route
        table = base
        if upsert or remove or synced != base.synced:
            draft = Draft(base)
            draft.change(upsert.items(), remove)
            table = draft.finish(version=base.version + 1, synced=synced)
        return Step(provider, base, self._held[provider], table, held, tuple(added), tuple(removed))
