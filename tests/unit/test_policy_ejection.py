"""When a backend is left alone, and for how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.config.schema import PassiveHealthConfig
from trioproxy.policy.ejection import LONGEST, STEADY, Ejection, EjectionRules, Evidence
from trioproxy.routing.route import RoutePassive


def rules(**keys: object) -> EjectionRules:
    return EjectionRules.of(PassiveHealthConfig.model_validate(keys), RoutePassive())


def test_a_route_may_have_rules_of_its_own() -> None:
    own = RoutePassive(failures=7, failure_rate=0.5, eject_for=1.0, max_ejected=1.0)
    found = EjectionRules.of(PassiveHealthConfig(statuses="500,502-503"), own)
    assert (found.failures, found.failure_rate, found.eject_for, found.max_ejected) == (7, 0.5, 1.0, 1.0)
    assert found.statuses == {500, 502, 503}
    assert rules().failures == 3


@pytest.mark.parametrize(
    ("share", "backends", "ceiling"), [(0.5, 1, 0), (0.5, 2, 1), (0.5, 3, 1), (0.1, 30, 3), (1.0, 3, 3), (0.0, 9, 0)]
)
def test_the_ceiling_is_rounded_down(share: float, backends: int, ceiling: int) -> None:
    assert rules(max_ejected=share).ceiling(backends) == ceiling


def test_so_many_failures_in_a_row_are_a_reason() -> None:
    evidence = Evidence()
    reasons = [evidence.failure(0.0, at, rules(), counts=True) for at in range(1, 4)]
    assert reasons == [None, None, "3 failures in a row"]


def test_a_row_of_0_is_no_reason() -> None:
    evidence = Evidence()
    assert {evidence.failure(0.0, at, rules(failures=0), counts=True) for at in range(1, 99)} == {None}


def test_what_does_not_count_makes_no_row() -> None:
    evidence = Evidence()
    assert {evidence.failure(0.0, at, rules(), counts=False) for at in range(1, 99)} == {None}
    assert evidence.in_a_row == 0


RATE = rules(failures=0, failure_rate=0.5, min_requests=10)


def test_a_rate_is_a_reason_once_enough_is_seen() -> None:
    evidence = Evidence()
    # Every second request fails: outcomes 1, 3, 5 …
    reasons = [evidence.failure(0.0, outcomes, RATE, counts=False) for outcomes in range(1, 15, 2)]
    assert reasons[:5] == [None] * 5
    assert reasons[5] == "6 of 11 requests failed"


def test_less_than_the_rate_is_no_reason() -> None:
    evidence = Evidence()
    assert {evidence.failure(0.0, outcomes, RATE, counts=True) for outcomes in range(1, 300, 3)} == {None}


def test_a_rate_is_taken_over_its_window_only() -> None:
    evidence = Evidence()
    for at in range(9):
        assert evidence.failure(at / 10, at + 1, RATE, counts=True) is None
    assert evidence.failure(RATE.window, 10, RATE, counts=True) is None
    assert evidence.in_window == 1


def test_an_ejection_doubles_up_to_the_longest() -> None:
    ejection = Ejection()
    now, spans = 0.0, list[float]()
    for _ in range(8):
        ejection.begin(now, 10, "why")
        spans.append(ejection.until - now)
        now = ejection.until
        ejection.end(now)
    assert spans == [10, 20, 40, 80, 160, LONGEST, LONGEST, LONGEST]


def test_after_a_steady_time_it_begins_anew() -> None:
    ejection = Ejection()
    for _ in range(3):
        ejection.begin(0.0, 10, "why")
    ejection.end(100.0)
    ejection.begin(100.0 + STEADY - 1, 10, "why")
    assert ejection.until == 100.0 + STEADY - 1 + 80
    ejection.end(1000.0)
    ejection.begin(1000.0 + STEADY, 10, "why")
    assert ejection.until == 1000.0 + STEADY + 10


def test_a_trial_that_fails_doubles_however_long_it_took() -> None:
    ejection = Ejection()
    ejection.begin(0.0, 10, "why")
    ejection.begin(STEADY * 2, 10, "why")
    assert ejection.until == STEADY * 2 + 20


def test_one_request_at_a_time_tries_it() -> None:
    ejection = Ejection()
    ejection.begin(0.0, 10, "why")
    assert not ejection.due(9.9)
    assert ejection.due(10.0)
    ejection.on_trial = True
    assert not ejection.due(11.0)
    ejection.end(11.0)
    assert not ejection.due(12.0)


@given(st.lists(st.floats(0, 1e4), max_size=2000))
def test_no_ejection_is_longer_than_the_longest(gaps: list[float]) -> None:
    ejection, now = Ejection(), 0.0
    for gap in gaps:
        now += gap
        ejection.begin(now, 7, "why")
        assert now < ejection.until <= now + LONGEST


def test_what_several_forwarders_find_out_is_one_ejection() -> None:
    ejection = Ejection()
    ejection.begin(0.0, 10, "why")
    for other in range(1, 8):
        ejection.follow(other / 10, 10 + other / 10, "elsewhere")
    assert (ejection.times, ejection.until, ejection.reason) == (1, 10.7, "why")
    ejection.begin(10.7, 10, "why")
    assert ejection.until == 10.7 + 20


def test_a_trial_that_fails_elsewhere_counts_here() -> None:
    ejection = Ejection()
    ejection.begin(0.0, 10, "why")
    ejection.follow(10.1, 30.0, "elsewhere")
    assert (ejection.times, ejection.until) == (2, 30.0)
    ejection.begin(30.0, 10, "why")
    assert ejection.until == 30.0 + 40


def test_after_a_steady_time_an_ejection_from_elsewhere_is_a_first_one() -> None:
    ejection = Ejection()
    for _ in range(5):
        ejection.begin(0.0, 10, "why")
    ejection.end(100.0)
    ejection.follow(100.0 + STEADY, 100.0 + STEADY + 10, "elsewhere")
    assert ejection.times == 1
