from __future__ import annotations

import pickle

import pytest

from trioproxy.routing.route import Route
from trioproxy.routing.table import PathMatch, Table


def make(session_id: str, service: str, *, host: str | None = None, prefix: str | None = None) -> Route:
    return Route(session_id=session_id, service=service, backends=(), host=host, prefix=prefix)


JUPYTER = make("abc", "jupyter")


@pytest.mark.parametrize(
    "path", [b"/abc/jupyter", b"/abc/jupyter/", b"/abc/jupyter/api/kernels", b"/abc/jupyter//x", b"/abc/jupyter/../.."]
)
def test_the_first_two_segments_address_a_route(path: bytes) -> None:
    table = Table.build([JUPYTER], version=1)
    assert table.match_path(path) == PathMatch(JUPYTER, b"/abc/jupyter")


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"*",
        b"/",
        b"//",
        b"/abc",
        b"/abc/",
        b"/abc/jupyter2",
        b"/abc/jupyte",
        b"/abcd/jupyter",
        b"/ab/jupyter",
        b"/ABC/jupyter",
        b"//abc/jupyter",
        b"/abc//jupyter",
        b"/abc/%6Aupyter",
        b"/abc%2Fjupyter",
        b"abc/jupyter",
        b"/x/abc/jupyter",
    ],
)
@pytest.mark.parametrize("deep", [False, True])
def test_what_merely_resembles_an_address_is_none(path: bytes, deep: bool) -> None:
    others = [make("other", "deep", prefix="/q/w/e/r/t")] if deep else []
    assert Table.build([JUPYTER, *others], version=1).match_path(path) is None


def test_a_prefix_addresses_a_route_segment_by_segment() -> None:
    route = make("s", "v", prefix="/tools/lab")
    table = Table.build([route], version=1)
    for path in (b"/tools/lab", b"/tools/lab/", b"/tools/lab/x/y"):
        assert table.match_path(path) == PathMatch(route, b"/tools/lab")
    for path in (b"/tools", b"/tools/", b"/tools/laboratory", b"/tools//lab", b"/x/tools/lab"):
        assert table.match_path(path) is None
    assert table.match_path(b"/s/v/x") == PathMatch(route, b"/s/v")


def test_the_longest_address_counts() -> None:
    short, long, inner = make("s", "1", prefix="/a"), make("s", "2", prefix="/a/b"), make("s", "3", prefix="/s/1/in")
    table = Table.build([short, long, inner], version=1)
    assert table.match_path(b"/a/c") == PathMatch(short, b"/a")
    assert table.match_path(b"/a/b/c/d") == PathMatch(long, b"/a/b")
    assert table.match_path(b"/s/1/out") == PathMatch(short, b"/s/1")
    assert table.match_path(b"/s/1/in/x") == PathMatch(inner, b"/s/1/in")


def test_the_path_form_comes_before_a_shorter_and_an_equal_prefix() -> None:
    route = make("s", "v")
    table = Table.build([route, make("a", "equal", prefix="/s/v"), make("a", "short", prefix="/s")], version=1)
    assert table.match_path(b"/s/v/x") == PathMatch(route, b"/s/v")


def test_a_prefix_hidden_by_a_path_form_shows_when_that_goes() -> None:
    hidden = make("a", "b", prefix="/s/v")
    table = Table.build([make("s", "v"), hidden], version=1)
    assert table.changed(upsert=(), remove=[("s", "v")], version=2).match_path(b"/s/v") == PathMatch(hidden, b"/s/v")


def test_a_host_addresses_a_route() -> None:
    route = make("s", "v", host="App.example.com")
    table = Table.build([route, JUPYTER], version=1)
    assert table.match_host(b"app.example.com") is route
    assert table.match_host(b"example.com") is None
    assert table.match_host(b"") is None


@pytest.mark.parametrize("order", [1, -1])
def test_of_routes_that_claim_one_address_the_smallest_key_has_it(order: int) -> None:
    rivals = [make("b", "1", host="h", prefix="/p"), make("a", "2", host="h", prefix="/p"), make("a", "1", prefix="/p")]
    table = Table.build(rivals[::order], version=1)
    assert table.match_host(b"h") == rivals[1]
    assert table.match_path(b"/p") == PathMatch(rivals[2], b"/p")


def test_removing_the_winner_brings_the_next_one_back() -> None:
    first, second = make("a", "1", host="h", prefix="/p"), make("b", "1", host="h", prefix="/p")
    table = Table.build([second], version=1)
    table = table.changed(upsert=[first], remove=(), version=2)
    assert (table.match_host(b"h"), table.match_path(b"/p/x")) == (first, PathMatch(first, b"/p"))
    table = table.changed(upsert=(), remove=[first.key], version=3)
    assert (table.match_host(b"h"), table.match_path(b"/p/x")) == (second, PathMatch(second, b"/p"))
    table = table.changed(upsert=(), remove=[second.key], version=4)
    assert (table.match_host(b"h"), table.match_path(b"/p/x")) == (None, None)


def test_a_route_that_changes_its_addresses_leaves_the_old_ones() -> None:
    table = Table.build([make("s", "v", host="old", prefix="/old/deep")], version=1)
    moved = make("s", "v", host="new", prefix="/new")
    table = table.changed(upsert=[moved], remove=(), version=2)
    assert (table.match_host(b"old"), table.match_path(b"/old/deep")) == (None, None)
    assert (table.match_host(b"new"), table.match_path(b"/new")) == (moved, PathMatch(moved, b"/new"))
    assert table.match_path(b"/s/v") == PathMatch(moved, b"/s/v")


def test_a_change_leaves_the_older_table_as_it_was() -> None:
    old = Table.build([JUPYTER], version=1)
    new = old.changed(upsert=[make("s", "v", host="h", prefix="/p")], remove=[JUPYTER.key], version=2)
    assert (old.version, set(old.routes), old.match_host(b"h"), old.match_path(b"/p")) == (1, {JUPYTER.key}, None, None)
    assert (new.version, set(new.routes)) == (2, {("s", "v")})


def test_a_key_both_removed_and_upserted_stays() -> None:
    table = Table.build([JUPYTER], version=1)
    again = make("abc", "jupyter", host="h")
    assert table.changed(upsert=[again], remove=[JUPYTER.key], version=2).get(JUPYTER.key) is again


def test_removing_what_is_not_there_changes_nothing_but_the_version() -> None:
    table = Table.build([JUPYTER], version=1).changed(upsert=(), remove=[("no", "such")], version=2)
    assert (table.version, dict(table.routes)) == (2, {JUPYTER.key: JUPYTER})


def test_of_two_routes_with_one_key_the_later_one_counts() -> None:
    table = Table.build([make("s", "v", host="first"), make("s", "v", host="second")], version=1)
    assert len(table.routes) == 1
    assert table.match_host(b"first") is None
    assert table.match_host(b"second") is table.get(("s", "v"))


def test_get_finds_by_session_and_service() -> None:
    table = Table.build([JUPYTER], version=1)
    assert table.get(("abc", "jupyter")) is JUPYTER
    assert table.get(("abc", "other")) is None


def test_a_table_says_whether_it_is_synced() -> None:
    assert Table.build((), version=1).synced
    unsynced = Table.build((), version=0, synced=False)
    assert not unsynced.synced
    assert unsynced.changed(upsert=(), remove=(), version=1).synced
    assert not unsynced.changed(upsert=(), remove=(), version=1, synced=False).synced


def test_a_table_cannot_be_altered() -> None:
    table = Table.build([JUPYTER], version=1)
    with pytest.raises(AttributeError):
        table.version = 2  # pyright: ignore[reportAttributeAccessIssue]


def test_a_table_survives_the_way_to_another_process() -> None:
    table = pickle.loads(pickle.dumps(Table.build([make("s", "v", host="h", prefix="/p")], version=7)))
    route = table.get(("s", "v"))
    assert (table.version, table.match_host(b"h"), table.match_path(b"/p/x")) == (7, route, PathMatch(route, b"/p"))
    assert table.changed(upsert=(), remove=[("s", "v")], version=8).match_path(b"/p/x") is None


class CountingPath(bytes):
    """A path that counts how often it is searched."""

    searches = 0

    def find(self, *args: object) -> int:
        type(self).searches += 1
        return super().find(*args)  # pyright: ignore[reportArgumentType,reportCallIssue]


@pytest.mark.parametrize(("prefix", "most"), [(None, 2), ("/a", 3), ("/a/b/c", 5)])
def test_the_walk_along_a_path_is_bounded_by_the_deepest_prefix(prefix: str | None, most: int) -> None:
    table = Table.build([make("s", "v", prefix=prefix)], version=1)
    path = CountingPath(b"/x" * 30_000)
    CountingPath.searches = 0
    assert table.match_path(path) is None
    assert CountingPath.searches <= most


def test_the_bound_of_the_walk_shrinks_with_the_last_deep_prefix() -> None:
    deep = [make("a", "1", prefix="/a/b/c"), make("a", "2", prefix="/d/e/f")]
    table = Table.build([make("s", "v", prefix="/a"), *deep], version=1)
    table = table.changed(upsert=(), remove=[route.key for route in deep], version=2)
    path = CountingPath(b"/x" * 30_000)
    CountingPath.searches = 0
    assert table.match_path(path) is None
    assert CountingPath.searches <= 3
