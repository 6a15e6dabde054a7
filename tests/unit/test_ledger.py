from __future__ import annotations

import copy
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from trioproxy.control.messages import Activity, Report
from trioproxy.observe.metrics import MAX_SERVICES, Metrics
from trioproxy.process.ledger import Ledger
from trioproxy.routing.route import Route
from trioproxy.routing.table import Table

TABLE = Table.build([Route(session_id=name, service="v", backends=()) for name in "abc"], version=1)


def report(metrics: Metrics, activity: dict[str, Activity] | None = None) -> Report:
    return Report(1, False, copy.deepcopy(metrics), (), {(name, "v"): one for name, one in (activity or {}).items()})


def counted(count: int) -> Metrics:
    metrics = Metrics()
    service = metrics.service("v")
    service.requests["GET", 200] = count
    service.seconds.observe(0.1)
    service.websockets = service.tunnels = metrics.connections["web"] = metrics.pool["idle"] = 1
    return metrics


def test_figures_of_all_forwarders_are_added_up() -> None:
    ledger = Ledger(lambda: TABLE)
    ledger.note(0, report(counted(5)))
    ledger.note(1, report(counted(7)))
    ledger.note(1, report(counted(8)))
    total = ledger.metrics()
    assert total.services["v"].requests["GET", 200] == 13
    assert total.services["v"].websockets == total.connections["web"] == total.pool["idle"] == 2


def test_what_a_dead_forwarder_has_counted_stays_and_what_it_held_open_does_not() -> None:
    ledger = Ledger(lambda: TABLE)
    for _ in range(3):
        ledger.note(0, report(counted(5)))
        ledger.bury(0)
    ledger.bury(7)  # one that never told anything
    ledger.note(0, report(counted(1)))
    total = ledger.metrics()
    assert total.services["v"].requests["GET", 200] == 16
    assert sum(total.services["v"].seconds.counts) == 4
    assert total.services["v"].websockets == total.services["v"].tunnels == 1
    assert total.connections["web"] == total.pool["idle"] == 1


def test_asking_for_sums_changes_nothing() -> None:
    ledger = Ledger(lambda: TABLE)
    ledger.note(0, report(counted(5)))
    ledger.bury(0)
    ledger.note(0, report(counted(5)))
    assert ledger.metrics() == ledger.metrics()


def test_news_of_activity_is_added_to_what_is_known() -> None:
    ledger = Ledger(lambda: TABLE)
    ledger.note(0, report(Metrics(), {"a": Activity(1.0, 1, 1, 1), "b": Activity(2.0, 2, 2, 0)}))
    ledger.note(0, report(Metrics(), {"a": Activity(5.0, 3, 9, 0)}))
    assert ledger.activity() == {("a", "v"): Activity(5.0, 3, 9, 0), ("b", "v"): Activity(2.0, 2, 2, 0)}


def test_activity_outlives_the_forwarder_but_not_its_connections_and_not_the_route() -> None:
    table = TABLE
    ledger = Ledger(lambda: table)
    ledger.note(0, report(Metrics(), {"a": Activity(5.0, 3, 9, 4), "gone": Activity(5.0, 3, 9, 4)}))
    ledger.bury(0)
    ledger.note(0, report(Metrics(), {"a": Activity(3.0, 1, 1, 1)}))
    assert ledger.activity() == {("a", "v"): Activity(5.0, 4, 10, 1)}
    table = TABLE.changed(upsert=(), remove=[("a", "v")], version=2)
    assert ledger.activity() == {}


def test_activity_that_is_kept_is_bounded_by_the_table() -> None:
    ledger = Ledger(lambda: TABLE)
    for number in range(100):
        ledger.note(0, report(Metrics(), {f"old{number}": Activity(1.0, 1, 1, 1)}))
    assert len(ledger._pages[0].activity) <= len(TABLE.routes)


def totals(metrics: Metrics) -> dict[str, int]:
    return {name: service.requests["GET", 200] for name, service in metrics.services.items()}


@settings(max_examples=30)
@given(st.integers(), st.integers(5, 60))
def test_no_sum_ever_falls_whatever_dies_and_however_many_services_there_are(seed: int, steps: int) -> None:
    chance = random.Random(seed)
    ledger = Ledger(lambda: TABLE)
    alive = [Metrics() for _ in range(3)]
    before: dict[str, int] = {}
    for _ in range(steps):
        index = chance.randrange(3)
        if chance.random() < 0.2:
            ledger.bury(index)
            alive[index] = Metrics()
        for _ in range(chance.randrange(60)):
            alive[index].service(f"service-{chance.randrange(2 * MAX_SERVICES)}").requests["GET", 200] += 1
        ledger.note(index, report(alive[index]))
        now = totals(ledger.metrics())
        assert all(now.get(name, 0) >= count for name, count in before.items())
        assert len(now) <= MAX_SERVICES + 1
        before = now
