from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.routing import history
from trioproxy.routing.history import History
from trioproxy.routing.route import Backend, Route, RouteKey
from trioproxy.routing.table import Table

keys = st.tuples(st.sampled_from("abc"), st.sampled_from("xy"))
routes = st.builds(
    lambda key, port: Route(session_id=key[0], service=key[1], backends=(Backend(host="h", port=port),)),
    keys,
    st.integers(1, 3),
)
changes = st.lists(st.tuples(st.lists(routes, max_size=3), st.lists(keys, max_size=3)), max_size=8)


def key(number: int) -> RouteKey:
    return (f"s{number}", "v")


def test_nothing_has_changed_since_now() -> None:
    assert History(5).since(5) == frozenset()


def test_what_was_before_or_is_yet_to_come_is_not_known() -> None:
    past = History(5).and_then(6, [key(1)])
    assert past.since(4) is None
    assert past.since(7) is None


def test_all_changes_after_a_version_count() -> None:
    past = History(0).and_then(1, [key(1)]).and_then(3, [key(2), key(3)]).and_then(4, [key(2)])
    assert past.since(0) == {key(1), key(2), key(3)}
    assert past.since(1) == past.since(2) == {key(2), key(3)}
    assert past.since(3) == {key(2)}


def test_the_oldest_changes_are_forgotten() -> None:
    past = History(0)
    for version in range(1, history.MAX_CHANGES + 2):
        past = past.and_then(version, [key(version)])
    assert past.since(0) is None
    assert len(past.since(1) or ()) == history.MAX_CHANGES


def test_many_keys_are_forgotten_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_KEYS", 10)
    past = History(0)
    for version in range(1, 5):
        past = past.and_then(version, [key(number) for number in range(4)])
    assert past.since(1) is None
    assert past.since(2) == {key(number) for number in range(4)}
    assert past.and_then(5, [key(number) for number in range(11)]) == History(5)


def test_a_change_that_keeps_the_version_leaves_nothing_to_go_by() -> None:
    assert History(0).and_then(3, [key(1)]).and_then(3, [key(2)]) == History(3)


@given(st.lists(routes, max_size=4), changes, st.data())
def test_what_changed_since_any_version_turns_its_table_into_this_one(
    start: list[Route], steps: list[tuple[list[Route], list[RouteKey]]], data: st.DataObject
) -> None:
    tables = [Table.build(start, version=0)]
    for version, (upsert, remove) in enumerate(steps, 1):
        tables.append(tables[-1].changed(upsert=upsert, remove=remove, version=version))
    old, new = data.draw(st.sampled_from(tables)), tables[-1]
    changed = new.changes_since(old.version)
    assert changed is not None
    for name in {*old.routes, *new.routes} - changed:
        assert old.get(name) is new.get(name)
