from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.control import tables as module
from trioproxy.control.codec import decode
from trioproxy.control.tables import TableAssembler, TableEncoder, TablePart
from trioproxy.errors import ControlError
from trioproxy.routing import history
from trioproxy.routing.catalog import Catalog
from trioproxy.routing.route import Backend, Route, RouteKey
from trioproxy.routing.table import Table

keys = st.tuples(st.sampled_from("abcd"), st.sampled_from("xy"))
routes = st.builds(
    lambda key, port, host: Route(
        session_id=key[0], service=key[1], backends=(Backend(host="h", port=port),), host=host, prefix="/p"
    ),
    keys,
    st.integers(1, 3),
    st.none() | st.sampled_from(["h.a", "h.b"]),
)
step = st.tuples(st.lists(routes, max_size=4), st.lists(keys, max_size=3), st.booleans())


def many(count: int, *, port: int = 80, backends: int = 1) -> list[Route]:
    known = tuple(Backend(host=f"h{number}", port=port) for number in range(backends))
    return [Route(session_id=f"s{number}", service="v", backends=known) for number in range(count)]


def parts(encoder: TableEncoder, table: Table, base: int | None) -> list[TablePart]:
    return [decode(part, TablePart) for part in encoder.encode(table, base)]


def bring(encoder: TableEncoder, assembler: TableAssembler, table: Table, base: int | None) -> list[TablePart]:
    sent = parts(encoder, table, base)
    before = assembler.table
    results = [assembler.add(part) for part in sent]
    assert results[:-1] == [None] * (len(sent) - 1)
    assert results[-1] is assembler.table
    changed = assembler.table.changes_since(before.version)
    if changed is not None and assembler.table.version > before.version:
        assert {key for key in {*before.routes, *table.routes} if before.get(key) != table.get(key)} <= changed
    return sent


def assert_same(one: Table, other: Table) -> None:
    for name in set(Table.__slots__) - {"history"}:
        assert getattr(one, name) == getattr(other, name), name


def test_a_table_without_routes_is_one_part() -> None:
    assembler = TableAssembler()
    assert len(bring(TableEncoder(), assembler, Table.build((), version=3), None)) == 1
    assert (assembler.table.version, assembler.table.synced) == (3, True)


def test_a_large_table_comes_in_small_parts() -> None:
    assembler = TableAssembler()
    table = Table.build(many(2 * module.PART + 1), version=9)
    sent = bring(TableEncoder(), assembler, table, None)
    assert [len(part.upsert) for part in sent] == [module.PART, module.PART, 1]
    assert [part.last for part in sent] == [False, False, True]
    assert_same(assembler.table, table)


def test_routes_with_many_backends_make_parts_of_fewer_routes() -> None:
    sent = parts(TableEncoder(), Table.build(many(10, backends=module.PART // 2), version=1), None)
    assert [len(part.upsert) for part in sent] == [2] * 5


def test_a_small_change_is_small_however_large_the_table() -> None:
    encoder, assembler = TableEncoder(), TableAssembler()
    old = Table.build(many(3000), version=1)
    bring(encoder, assembler, old, None)
    new = old.changed(upsert=many(1, port=81), remove=[("s7", "v"), ("unknown", "v")], version=2)
    (part,) = bring(encoder, assembler, new, 1)
    assert [route.key for route in part.upsert] == [("s0", "v")]
    assert set(part.remove) == {("s7", "v"), ("unknown", "v")}
    assert_same(assembler.table, new)


def test_who_is_too_far_behind_gets_everything() -> None:
    encoder, assembler = TableEncoder(), TableAssembler()
    table = Table.build(many(5), version=1)
    bring(encoder, assembler, table, None)
    for version in range(2, history.MAX_CHANGES + 5):
        table = table.changed(upsert=many(1, port=version), remove=[], version=version)
    (part,) = bring(encoder, assembler, table, 1)
    assert part.base is None
    assert_same(assembler.table, table)


def test_of_a_table_sent_whole_nobody_can_say_what_changed() -> None:
    encoder, assembler = TableEncoder(), TableAssembler()
    bring(encoder, assembler, Table.build(many(2), version=1), None)
    bring(encoder, assembler, Table.build(many(1), version=5), None)
    assert assembler.table.changes_since(1) is None


def test_what_several_forwarders_need_is_encoded_once() -> None:
    encoder = TableEncoder()
    table = Table.build(many(1200), version=1)
    assert all(
        one is other for one, other in zip(encoder.encode(table, None), encoder.encode(table, None), strict=True)
    )
    later = table.changed(upsert=many(900, port=81), remove=[], version=2)
    assert all(one is other for one, other in zip(encoder.encode(later, 1), encoder.encode(later, 1), strict=True))


def test_what_is_kept_for_other_forwarders_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 100_000)
    encoder = TableEncoder()
    sizes = [len(part) for part in encoder.encode(Table.build(many(5000), version=1), None)]
    assert sum(sizes) > 200_000
    kept = list(encoder._kept.values())
    assert 0 < sum(map(len, kept)) <= 100_000


def test_a_part_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ControlError, match="based on version 4 came on top of 0"):
        TableAssembler().add(TablePart(4, 5, True, (), (), last=True))


@given(st.lists(step, max_size=10), st.data())
def test_any_changes_with_any_of_them_skipped_make_the_same_table(
    steps: list[tuple[list[Route], list[RouteKey], bool]], data: st.DataObject
) -> None:
    catalog, encoder, assembler = Catalog(["p", "q"]), TableEncoder(), TableAssembler()
    base: int | None = None
    for upsert, remove, whole in steps:
        if whole:
            catalog.replace("p", upsert)
        else:
            catalog.change("q", upsert=upsert, remove=remove)
        if data.draw(st.booleans()):
            bring(encoder, assembler, catalog.table, base)
            base = catalog.version
            assert_same(assembler.table, catalog.table)
    bring(encoder, assembler, catalog.table, base)
    assert_same(assembler.table, catalog.table)
