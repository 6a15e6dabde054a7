from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from trioproxy.routing.route import Route, RouteKey
from trioproxy.routing.table import Draft, PathMatch, Table

NAMES = ["a", "b", "ab", "a.b"]
HOSTS = ["h", "a.h", "b.h"]

names = st.sampled_from(NAMES)
prefixes = st.lists(names, min_size=1, max_size=4).map(lambda segments: "/" + "/".join(segments))
keys = st.tuples(names, names)
routes = st.builds(
    lambda key, host, prefix: Route(session_id=key[0], service=key[1], backends=(), host=host, prefix=prefix),
    keys,
    st.none() | st.sampled_from(HOSTS),
    st.none() | prefixes,
)
segments = st.sampled_from(["", *NAMES, "x", "%61"])
paths = st.lists(segments, max_size=6).map(lambda parts: ("/" + "/".join(parts)).encode()) | st.binary(max_size=8)
changes = st.lists(st.tuples(st.lists(routes, max_size=4), st.lists(keys, max_size=4)), max_size=6)


def naive_match(routes: Iterable[Route], path: bytes) -> PathMatch | None:
    found: list[tuple[int, bool, RouteKey, PathMatch]] = []
    for route in routes:
        addresses = [(f"/{route.session_id}/{route.service}", False)]
        if route.prefix is not None:
            addresses.append((route.prefix, True))
        for text, is_prefix in addresses:
            address = text.encode()
            if path == address or path.startswith(address + b"/"):
                found.append((-len(address), is_prefix, route.key, PathMatch(route, address)))
    return min(found)[3] if found else None


def naive_host(routes: Iterable[Route], host: bytes) -> Route | None:
    return min(
        (r for r in routes if r.host is not None and r.host.encode() == host), key=lambda route: route.key, default=None
    )


@given(st.lists(routes, max_size=12), paths)
def test_a_path_lookup_finds_what_a_naive_scan_finds(given_routes: list[Route], path: bytes) -> None:
    table = Table.build(given_routes, version=1)
    assert table.match_path(path) == naive_match(table.routes.values(), path)


@given(st.lists(routes, max_size=12))
def test_a_host_lookup_finds_what_a_naive_scan_finds(given_routes: list[Route]) -> None:
    table = Table.build(given_routes, version=1)
    for host in HOSTS:
        assert table.match_host(host.encode()) == naive_host(table.routes.values(), host.encode())


@given(st.lists(routes, max_size=6), changes, paths)
def test_a_chain_of_changes_makes_the_same_table_as_building_it(
    start: list[Route], steps: list[tuple[list[Route], list[RouteKey]]], path: bytes
) -> None:
    table = Table.build(start, version=0)
    current = {route.key: route for route in start}
    for version, (upsert, remove) in enumerate(steps, 1):
        table = table.changed(upsert=upsert, remove=remove, version=version)
        for key in remove:
            current.pop(key, None)
        current.update({route.key: route for route in upsert})
    built = Table.build(current.values(), version=len(steps))
    for name in set(Table.__slots__) - {"history"}:  # which tells how a table came about, not what it is
        assert getattr(table, name) == getattr(built, name), name
    assert table.match_path(path) == naive_match(current.values(), path)


@given(st.lists(routes, max_size=6), changes)
def test_a_draft_in_many_steps_makes_the_same_table_as_one_change_after_the_other(
    start: list[Route], steps: list[tuple[list[Route], list[RouteKey]]]
) -> None:
    table = Table.build(start, version=0)
    before = {name: getattr(table, name) for name in Table.__slots__}
    draft = Draft(table)
    expected = table
    for upsert, remove in steps:
        draft.change({route.key: route for route in upsert}.items(), remove)
        expected = expected.changed(upsert=upsert, remove=remove, version=1)
    made = draft.finish(version=1)
    for name in set(Table.__slots__) - {"history", "version"}:
        assert getattr(made, name) == getattr(expected, name), name
    touched = {key for upsert, remove in steps for key in (*remove, *(route.key for route in upsert))}
    assert made.changes_since(0) == touched
    assert {name: getattr(table, name) for name in Table.__slots__} == before
