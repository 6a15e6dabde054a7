from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.routing.catalog import Catalog
from trioproxy.routing.route import Route, RouteKey
from trioproxy.routing.table import Table

PRIORITY = ("store", "static", "file")


def make(session_id: str, service: str = "v", **fields: object) -> Route:
    return Route.model_validate({"session_id": session_id, "service": service, "backends": [], **fields})


def test_a_new_catalog_is_empty_and_not_synced() -> None:
    catalog = Catalog(PRIORITY)
    assert (catalog.version, catalog.table.version, catalog.table.synced) == (0, 0, False)
    assert catalog.counts() == {"store": 0, "static": 0, "file": 0}


@pytest.mark.parametrize("provider", PRIORITY)
def test_the_first_snapshot_of_any_provider_syncs_even_when_it_is_empty(provider: str) -> None:
    catalog = Catalog(PRIORITY)
    assert catalog.replace(provider, [])
    assert (catalog.version, catalog.table.synced) == (1, True)
    for other in PRIORITY:
        assert not catalog.replace(other, [])
    assert catalog.version == 1


def test_a_delta_before_the_first_snapshot_does_not_sync() -> None:
    catalog = Catalog(PRIORITY)
    assert catalog.change("store", upsert=[make("a")])
    assert (catalog.version, catalog.table.synced) == (1, False)
    assert catalog.replace("file", [])
    assert (catalog.version, catalog.table.synced, set(catalog.table.routes)) == (2, True, {("a", "v")})
    assert catalog.change("store", remove=[("a", "v")])
    assert catalog.table.synced


def test_versions_go_on_from_where_they_are_seeded() -> None:
    catalog = Catalog(PRIORITY, version=41)
    assert (catalog.version, catalog.table.synced) == (41, False)
    catalog.replace("store", [])
    assert catalog.version == 42


def test_a_snapshot_replaces_the_one_before() -> None:
    catalog = Catalog(PRIORITY)
    assert catalog.replace("file", [make("a"), make("b")])
    assert catalog.replace("file", [make("b"), make("c")])
    assert set(catalog.table.routes) == {("b", "v"), ("c", "v")}
    assert catalog.version == 2


def test_an_unchanged_snapshot_makes_no_version_and_keeps_the_objects_in_use() -> None:
    catalog = Catalog(PRIORITY)
    catalog.replace("file", [make("a")])
    first = catalog.of_provider("file")["a", "v"]
    before = catalog.table
    assert not catalog.replace("file", [make("a")])
    assert catalog.of_provider("file")["a", "v"] is first
    assert not catalog.change("file", upsert=[make("a")], remove=[("no", "such")])
    assert catalog.table is before
    catalog.replace("file", [make("a"), make("b")])
    assert catalog.table.get(("a", "v")) is first


def test_a_change_of_one_field_makes_a_version() -> None:
    catalog = Catalog(PRIORITY)
    catalog.replace("file", [make("a")])
    assert catalog.replace("file", [make("a", path="keep")])
    assert catalog.change("file", upsert=[make("a", path="strip")])
    assert catalog.version == 3


def test_the_provider_of_higher_priority_wins_and_the_lower_one_shows_again() -> None:
    catalog = Catalog(PRIORITY)
    key = ("a", "v")
    stored, filed = make("a", prefix="/stored"), make("a", prefix="/filed")
    catalog.replace("file", [filed])
    assert catalog.change("store", upsert=[stored])
    assert (catalog.table.get(key), catalog.provider_of(key)) == (stored, "store")
    assert catalog.table.match_path(b"/filed") is None
    assert catalog.change("store", remove=[key])
    assert (catalog.table.get(key), catalog.provider_of(key)) == (filed, "file")
    assert catalog.replace("file", [])
    assert (catalog.table.get(key), catalog.provider_of(key)) == (None, None)


def test_a_hidden_change_makes_no_version_and_counts_when_it_shows() -> None:
    catalog = Catalog(PRIORITY)
    catalog.replace("store", [make("a")])
    assert not catalog.replace("file", [make("a", path="keep")])
    assert not catalog.change("static", upsert=[make("a", prefix="/p")])
    assert catalog.version == 1
    assert catalog.counts() == {"store": 1, "static": 1, "file": 1}
    catalog.replace("store", [])
    catalog.change("static", remove=[("a", "v")])
    assert catalog.table.get(("a", "v")) == make("a", path="keep")


def test_an_equal_route_of_another_provider_takes_over_without_a_version() -> None:
    catalog = Catalog(PRIORITY)
    catalog.replace("store", [make("a")])
    catalog.replace("file", [make("a")])
    assert not catalog.replace("store", [])
    assert (catalog.version, catalog.provider_of(("a", "v"))) == (1, "file")


def test_a_key_both_removed_and_upserted_stays() -> None:
    catalog = Catalog(PRIORITY)
    catalog.replace("store", [make("a")])
    assert catalog.change("store", upsert=[make("a", path="keep")], remove=[("a", "v")])
    assert catalog.table.get(("a", "v")) == make("a", path="keep")


def test_a_delta_touches_its_own_provider_only() -> None:
    catalog = Catalog(PRIORITY)
    catalog.replace("file", [make("a")])
    assert not catalog.change("store", remove=[("a", "v")])
    assert catalog.provider_of(("a", "v")) == "file"


def test_what_was_handed_out_stays_as_it_was() -> None:
    catalog = Catalog(PRIORITY)
    catalog.replace("store", [make("a")])
    held, table = catalog.of_provider("store"), catalog.table
    catalog.change("store", upsert=[make("b")], remove=[("a", "v")])
    assert set(held) == set(table.routes) == {("a", "v")}
    assert set(catalog.of_provider("store")) == {("b", "v")}
    with pytest.raises(TypeError):
        held[("x", "y")] = make("x", "y")  # pyright: ignore[reportIndexIssue]


def test_a_source_that_fails_halfway_changes_nothing() -> None:
    def broken():
        yield make("b")
        raise RuntimeError

    catalog = Catalog(PRIORITY)
    catalog.replace("store", [make("a")])
    for call in (lambda: catalog.replace("store", broken()), lambda: catalog.change("store", upsert=broken())):
        with pytest.raises(RuntimeError):
            call()
        assert (catalog.version, set(catalog.of_provider("store"))) == (1, {("a", "v")})


def test_an_unknown_provider_is_a_key_error() -> None:
    catalog = Catalog(PRIORITY)
    for call in (
        lambda: catalog.replace("etcd", []),
        lambda: catalog.change("etcd"),
        lambda: catalog.of_provider("etcd"),
    ):
        with pytest.raises(KeyError):
            call()


keys = st.tuples(st.sampled_from("ab"), st.sampled_from("xy"))
routes = st.builds(
    lambda key, path, prefix: make(*key, path=path, prefix=prefix),
    keys,
    st.sampled_from(["strip", "keep"]),
    st.sampled_from([None, "/a/x", "/p", "/p/q"]),
)
some_routes = st.lists(routes, max_size=4)
steps = st.lists(
    st.tuples(st.sampled_from(PRIORITY), some_routes, st.none() | st.lists(keys, max_size=3)), min_size=1, max_size=12
)


@given(steps)
def test_any_sequence_of_snapshots_and_deltas_equals_a_full_rebuild(
    sequence: list[tuple[str, list[Route], list[RouteKey] | None]],
) -> None:
    catalog = Catalog(PRIORITY)
    truth: dict[str, dict[RouteKey, Route]] = {name: {} for name in PRIORITY}
    synced = False
    for provider, upsert, remove in sequence:
        before = catalog.table
        if remove is None:
            changed = catalog.replace(provider, upsert)
            truth[provider] = {}
            synced = True
        else:
            changed = catalog.change(provider, upsert=upsert, remove=remove)
            for key in remove:
                truth[provider].pop(key, None)
        truth[provider].update({route.key: route for route in upsert})
        merged: dict[RouteKey, Route] = {}
        for name in reversed(PRIORITY):
            merged.update(truth[name])
        rebuilt = Table.build(merged.values(), version=catalog.version, synced=synced)
        for name in set(Table.__slots__) - {"history"}:  # which tells how a table came about, not what it is
            assert getattr(catalog.table, name) == getattr(rebuilt, name), name
        assert changed == (dict(before.routes) != merged or before.synced != synced)
        assert catalog.version == before.version + changed
        assert {name: dict(catalog.of_provider(name)) for name in PRIORITY} == truth


def test_a_step_that_is_worked_out_changes_nothing_until_it_is_taken() -> None:
    catalog = Catalog(PRIORITY)
    catalog.replace("store", [make("a")])
    before = catalog.table
    step = catalog.plan_replace("store", [make("b")])
    assert (catalog.table, set(catalog.of_provider("store"))) == (before, {("a", "v")})
    assert (step.upserted, step.removed, step.changes_table) == ((("b", "v"),), (("a", "v"),), True)
    assert catalog.take(step)
    assert set(catalog.table.routes) == {("b", "v")}


@pytest.mark.parametrize("provider", ["store", "file"])
def test_a_step_that_is_out_of_date_is_refused(provider: str) -> None:
    catalog = Catalog(PRIORITY)
    catalog.replace("store", [make("a")])
    step = catalog.plan_replace("store", [make("b")])
    assert catalog.change(provider, upsert=[make("c")])
    table = catalog.table
    with pytest.raises(ValueError, match="changed since"):
        catalog.take(step)
    assert catalog.table is table


def test_a_step_is_out_of_date_also_when_what_came_between_was_hidden() -> None:
    catalog = Catalog(PRIORITY)
    catalog.replace("store", [make("a")])
    catalog.replace("file", [make("x")])
    step = catalog.plan_replace("file", [make("b")])
    assert not catalog.change("file", upsert=[make("a")])
    with pytest.raises(ValueError, match="changed since"):
        catalog.take(step)
