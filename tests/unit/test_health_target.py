from __future__ import annotations

from typing import Any

import pytest

from trioproxy.health.schedule import KEPT_GONE, Schedule
from trioproxy.health.target import Target
from trioproxy.policy.specs import Specs
from trioproxy.routing.route import Backend, Health


def target(**spec: Any) -> Target:
    return Target(Backend(host="h", port=1), Health.model_validate(spec))


def checked(one: Target, results: str) -> list[bool | None]:
    """`up` after each of these checks: "+" passes, "-" fails."""
    found: list[bool | None] = []
    for at, result in enumerate(results):
        one.note(None if result == "+" else "refused", float(at))
        found.append(one.up)
    return found


@pytest.mark.parametrize(
    ("results", "ups"),
    [
        ("+", [True]),
        ("---", [None, None, False]),
        ("--+", [None, None, True]),
        ("+--+---", [True, True, True, True, True, True, False]),
        ("---+-++", [None, None, False, False, False, False, True]),
    ],
)
def test_it_takes_so_many_checks_in_a_row(results: str, ups: list[bool | None]) -> None:
    assert checked(target(healthy_after=2, unhealthy_after=3), results) == ups


def test_where_a_first_check_is_asked_for_the_first_one_decides() -> None:
    assert checked(target(first_check=True), "-") == [False]
    assert checked(target(first_check=True), "+") == [True]


def test_a_change_tells_its_reason_and_its_time() -> None:
    one = target()
    checked(one, "+---")
    assert (one.up, one.reason, one.since) == (False, "failed 3 checks in a row: refused", 3.0)
    assert (one.told().up, one.told().reason) == (False, "failed 3 checks in a row: refused")
    one.gone = True
    assert one.told().up is None


def test_checks_come_faster_while_it_changes_or_is_not_known() -> None:
    one = target(interval=10)
    assert one.pause(lambda: 0.5) == pytest.approx(2.0)
    checked(one, "+")
    assert one.pause(lambda: 0.5) == pytest.approx(10.0)
    checked(one, "-")
    assert one.pause(lambda: 0.5) == pytest.approx(2.0)
    checked(one, "--")
    assert (one.pause(lambda: 0.0), one.pause(lambda: 1.0)) == (pytest.approx(9.0), pytest.approx(11.0))


def test_the_next_one_due_comes_first_and_those_that_are_gone_never() -> None:
    schedule, late, soon, gone = Schedule(), target(), target(), target()
    schedule.put(late, 3.0)
    schedule.put(gone, 1.0)
    schedule.put(soon, 2.0)
    gone.gone = True
    schedule.note_gone()
    assert schedule.next_due() == 2.0
    assert schedule.pop() is soon
    assert schedule.pop() is late
    assert schedule.next_due() is None


def test_what_is_gone_is_not_kept_for_ever() -> None:
    schedule = Schedule()
    for _ in range(2 * KEPT_GONE):
        one = target()
        schedule.put(one, 1e9)
        one.gone = True
        schedule.note_gone()
    assert len(schedule) <= KEPT_GONE + 1


def test_what_a_route_does_not_say_the_configuration_does() -> None:
    specs = Specs(Health(kind="http", interval=1.0))
    assert specs.of(None) is None
    assert specs.of(Health(path="/up")) == Health(kind="http", path="/up", interval=1.0)
    assert specs.of(Health(kind="tcp")) == Health(kind="tcp", interval=1.0)  # equal to Health(), and says more
    assert specs.of(Health()) is specs.of(Health())
    assert specs.of(Health(kind="off")) is None
    assert not specs.set_defaults(Health(kind="http", interval=1.0))
    assert specs.set_defaults(Health(kind="off"))
    assert specs.of(Health()) is None
