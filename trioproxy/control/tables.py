"""Tables of routes on their way to another process: what has changed if that is known, else everything, in parts.

A part is small enough for neither side to be kept from its traffic by it.
"""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trioproxy.control.codec import encode
from trioproxy.errors import ControlError
from trioproxy.routing.route import Route, RouteKey
from trioproxy.routing.rows import Row, from_rows, to_rows
from trioproxy.routing.table import Draft, Table

PART = 500
"""Backends of one part, or routes without one: some 100 KB, and a few milliseconds for whoever reads it."""
KEPT_BYTES = 16 * 1024 * 1024
"""Of encoded parts, for the next forwarder: those that need the same ones need them at about the same time."""

Entry = tuple[RouteKey, Route | None]
"""A key that is part of a change, and its route if the table has one."""


@dataclass(frozen=True, slots=True)
class TablePart:
    """A part of the way from one version to another. `base` is None when the way begins with no routes at all."""

    base: int | None
    version: int
    synced: bool
    upsert: tuple[Route, ...]
    remove: tuple[RouteKey, ...]
    last: bool

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        # As rows, because pickle would call Python code for each route and each backend.
        return _revive, (self.base, self.version, self.synced, to_rows(self.upsert), self.remove, self.last)


def _revive(
    base: int | None, version: int, synced: bool, rows: list[Row], remove: tuple[RouteKey, ...], last: bool
) -> TablePart:
    return TablePart(base, version, synced, from_rows(rows), remove, last)


class TableEncoder:
    """Encodes tables of one catalog, for any number of forwarders."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int | None, int, int], bytes] = OrderedDict()
        self._kept_bytes = 0

    def encode(self, table: Table, base: int | None) -> Iterator[bytes]:
        """The parts, as records of `control.codec`, that turn version `base` (None = nothing) into this table."""
        changed = None if base is None else table.changes_since(base)
        if changed is None:
            base = None
        # In the same order for everybody: parts are kept by their number.
        entries = iter(table.routes.items()) if changed is None else ((key, table.get(key)) for key in sorted(changed))
        number, part = 0, _take(entries)
        while True:
            after = _take(entries)
            yield self._part(table, base, number, part, last=not after)
            if not after:
                return
            number, part = number + 1, after

    def _part(self, table: Table, base: int | None, number: int, entries: Sequence[Entry], *, last: bool) -> bytes:
        name = (base, table.version, number)
        found = self._kept.get(name)
        if found is None:
            upsert = tuple([route for _, route in entries if route is not None])
            remove = tuple([key for key, route in entries if route is None])
            found = encode(TablePart(base, table.version, table.synced, upsert, remove, last))
            self._kept[name] = found
            self._kept_bytes += len(found)
            while self._kept_bytes > KEPT_BYTES:
                _, oldest = self._kept.popitem(last=False)
                self._kept_bytes -= len(oldest)
        return found


def _take(entries: Iterator[Entry]) -> list[Entry]:
    """The entries of the next part."""
    taken: list[Entry] = []
    weight = 0
    for entry in entries:
        taken.append(entry)
        route = entry[1]
        weight += (route is not None and len(route.backends)) or 1
        if weight >= PART:
            break
    return taken


class TableAssembler:
    """Puts parts together. `table` is the last one that was whole, to begin with the one that is `known`."""

    def __init__(self, known: Table | None = None) -> None:
        self.table = known or Table.build((), version=0, synced=False)
        self._draft: Draft | None = None

    def add(self, part: TablePart) -> Table | None:
        """Take the next part; the table, when it was the last one. Raises ControlError for one that does not fit."""
        if self._draft is None:
            self._draft = Draft(self._base(part))
        self._draft.change(((route.key, route) for route in part.upsert), part.remove)
        if part.base is None:
            # A table lives long and has no cycles: looking for some in it costs more than all else here.
            gc.freeze()
        if not part.last:
            return None
        draft, self._draft = self._draft, None
        self.table = draft.finish(version=part.version, synced=part.synced)
        return self.table

    def _base(self, part: TablePart) -> Table:
        if part.base is None:
            # Of this very version: what differs from the table before is not known, and must not look as if it were.
            return Table.build((), version=part.version)
        if part.base != self.table.version:
            raise ControlError(f"a table based on version {part.base} came on top of {self.table.version}")
        return self.table
