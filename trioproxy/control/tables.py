"""Tables of routes on their way to another process: what has changed if that is known, else everything, in parts.

A part is small enough for neither side to be kept from its traffic by it.
"""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trioproxy.control.codec import encode
from trioproxy.errors import ControlError
from trioproxy.routing.route import Route, RouteKey
from trioproxy.routing.table import Draft, Table

PART = 500
"""Backends of one part, or routes without one: some 100 KB, and a few milliseconds for whoever reads it."""
KEPT_BYTES = 16 * 1024 * 1024
"""Of encoded parts, for the next forwarder: those that need the same ones need them at about the same time."""


@dataclass(frozen=True, slots=True)
class TablePart:
    """A part of the way from one version to another. `base` is None when the way begins with no routes at all."""

    base: int | None
    version: int
    synced: bool
    upsert: tuple[Route, ...]
    remove: tuple[RouteKey, ...]
    last: bool


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
        keys = iter(table.routes if changed is None else sorted(changed))
        number, part = 0, _take(keys, table)
        while True:
            after = _take(keys, table)
            yield self._part(table, base, number, part, last=not after)
            if not after:
                return
            number, part = number + 1, after

    def _part(self, table: Table, base: int | None, number: int, keys: Sequence[RouteKey], *, last: bool) -> bytes:
        name = (base, table.version, number)
        found = self._kept.get(name)
        if found is None:
            upsert = tuple(route for key in keys if (route := table.get(key)) is not None)
            remove = tuple(key for key in keys if table.get(key) is None)
            found = encode(TablePart(base, table.version, table.synced, upsert, remove, last))
            self._kept[name] = found
            self._kept_bytes += len(found)
            while self._kept_bytes > KEPT_BYTES:
                _, oldest = self._kept.popitem(last=False)
                self._kept_bytes -= len(oldest)
        return found


def _take(keys: Iterator[RouteKey], table: Table) -> list[RouteKey]:
    """The keys of the next part."""
    taken: list[RouteKey] = []
    weight = 0
    for key in keys:
        taken.append(key)
        route = table.get(key)
        weight += max(1, len(route.backends)) if route is not None else 1
        if weight >= PART:
            break
    return taken


class TableAssembler:
    """Puts parts together. `table` is the last one that was whole."""

    def __init__(self) -> None:
        self.table = Table.build((), version=0, synced=False)
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
            return Table.build((), version=0)
        if part.base != self.table.version:
            raise ControlError(f"a table based on version {part.base} came on top of {self.table.version}")
        return self.table
