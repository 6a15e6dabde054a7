"""What the balancer does about a new table: the same whether it is told what changed or has to look at everything."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from trioproxy.proxy.balancer import Balancer, RouteStats
from trioproxy.routing.route import Backend, Route, RouteKey
from trioproxy.routing.table import Table

NAMES = "abcd"


def route(name: str, port: int = 1) -> Route:
    return Route(session_id=name, service="v", backends=(Backend(host="h", port=port),))


def view(balancer: Balancer) -> dict[RouteKey, Any]:
    return {
        stats.route.key: (stats.route, stats.removed, stats.in_flight, list(stats.backends))
        for stats in balancer.routes()
    }


changes = st.tuples(
    st.lists(st.builds(route, st.sampled_from(NAMES), st.integers(1, 3)), max_size=2),
    st.sets(st.sampled_from(NAMES), max_size=2),
)
steps = st.lists(st.tuples(changes, st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES))), max_size=8)


@given(steps)
def test_who_is_told_what_changed_knows_the_same_as_who_looks_at_everything(steps: list[Any]) -> None:
    told, looking = Balancer(), Balancer()
    running: list[tuple[RouteStats, RouteStats]] = []
    table = Table.build(map(route, NAMES), version=1)
    for number, ((upsert, remove), entering, leaving) in enumerate(steps, 2):
        for name in sorted(entering):
            if (found := table.get((name, "v"))) is not None:
                running.append((told.enter(found), looking.enter(found)))
        new = table.changed(upsert=upsert, remove=[(name, "v") for name in remove], version=number)
        changed = new.changes_since(table.version)
        assert changed is not None
        told.forget(new, changed)
        looking.forget(new)
        table = new
        assert view(told) == view(looking)
        for pair in [pair for pair in running if pair[0].route.session_id in leaving]:
            running.remove(pair)
            told.leave(pair[0])
            looking.leave(pair[1])
        assert view(told) == view(looking)


def test_a_change_looks_at_its_own_routes_and_at_no_other() -> None:
    balancer = Balancer()
    known = [balancer.route(route(name)) for name in NAMES]
    assert balancer.known({("b", "v"), ("unknown", "v")}) == [known[1]]
    assert balancer.known(frozenset()) == []
    assert balancer.known(None) == known


def test_a_change_of_more_routes_than_had_traffic_looks_at_those() -> None:
    balancer = Balancer()
    (one,) = [balancer.route(route("a"))]
    assert balancer.known({("x", "v"), ("y", "v")}) == [one]
