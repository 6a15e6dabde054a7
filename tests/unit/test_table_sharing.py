"""A change costs what it changes: shown by what the next version shares with the one before, not by the clock."""

from __future__ import annotations

import gc
from collections.abc import Iterable

import pytest
from immutables import Map

from trioproxy.control.codec import decode
from trioproxy.control.tables import TableAssembler, TableEncoder, TablePart
from trioproxy.routing.catalog import Catalog
from trioproxy.routing.route import Backend, Route
from trioproxy.routing.table import Table

SIZE = 10_000
CHANGED = 2
DEPTH = 8
"""Most nodes on the way to a key: five bits of a 32-bit hash each, and one for equal hashes."""


def make(number: int, *, port: int = 80) -> Route:
    return Route(
        session_id=f"s{number}",
        service="v",
        backends=(Backend(host="h", port=port),),
        host=f"h{number}.example",
        prefix=f"/p/{number}",
    )


def nodes(maps: Iterable[Map[object, object]]) -> dict[int, object]:
    """The nodes of these hash trees, as the collector sees them."""
    found: dict[int, object] = {}
    todo: list[object] = list(maps)
    while todo:
        for node in gc.get_referents(todo.pop()):
            if "node" in type(node).__name__.lower() and id(node) not in found:
                found[id(node)] = node
                todo.append(node)
    return found


def maps_of(table: Table) -> list[Map[object, object]]:
    return [value for name in Table.__slots__ if isinstance(value := getattr(table, name), Map)]


def assert_shared(before: list[Map[object, object]], after: list[Map[object, object]]) -> None:
    known, now = nodes(before), nodes(after)
    assert len(known) > len(before) * SIZE / 100  # or nothing was looked at
    assert 0 < len(now.keys() - known.keys()) <= len(after) * CHANGED * DEPTH


def test_the_next_table_shares_what_a_change_does_not_touch() -> None:
    table = Table.build(map(make, range(SIZE)), version=1)
    later = table.changed(upsert=[make(7, port=81)], remove=[("s9", "v")], version=2)
    assert len(maps_of(table)) == 4  # routes, and the indexes of paths, hosts and prefixes
    assert_shared(maps_of(table), maps_of(later))


@pytest.mark.parametrize("provider", ["store", "file"])
def test_a_change_of_one_provider_copies_nothing_of_it_or_of_others(provider: str) -> None:
    catalog = Catalog(["store", "file"])
    catalog.replace("store", map(make, range(SIZE)))
    catalog.replace("file", map(make, range(SIZE, 2 * SIZE)))
    before = [*maps_of(catalog.table), catalog.of_provider("store"), catalog.of_provider("file")]
    first = 0 if provider == "store" else SIZE
    assert catalog.change(provider, upsert=[make(first + 7, port=81)], remove=[(f"s{first + 9}", "v")])
    after = [*maps_of(catalog.table), catalog.of_provider("store"), catalog.of_provider("file")]
    assert_shared(before, after)


def test_a_forwarder_copies_nothing_for_a_change() -> None:
    encoder, assembler = TableEncoder(), TableAssembler()
    table = Table.build(map(make, range(SIZE)), version=1)
    for part in encoder.encode(table, None):
        assembler.add(decode(part, TablePart))
    before = assembler.table
    later = table.changed(upsert=[make(7, port=81)], remove=[("s9", "v")], version=2)
    (part,) = encoder.encode(later, 1)
    assert assembler.add(decode(part, TablePart)) is not None
    assert_shared(maps_of(before), maps_of(assembler.table))


def test_a_snapshot_that_changes_little_keeps_the_rest() -> None:
    catalog = Catalog(["store"])
    catalog.replace("store", map(make, range(SIZE)))
    before = maps_of(catalog.table)
    catalog.replace("store", (make(number, port=81 if number == 7 else 80) for number in range(SIZE) if number != 9))
    assert_shared(before, maps_of(catalog.table))
