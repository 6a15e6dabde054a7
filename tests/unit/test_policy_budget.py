from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.policy.budget import FLOOR, WINDOW, RetryBudget


class Traffic:
    """A route's requests, told the budget as a forwarder does: the total, and now and then the time."""

    def __init__(self, share: float = 0.2) -> None:
        self.budget = RetryBudget()
        self.share = share
        self.requests = 0
        self.retries = 0

    def request(self, now: float) -> None:
        if now >= self.budget.turns_at:
            self.budget.turn(now, self.requests)
        self.requests += 1

    def retry(self, now: float) -> bool:
        if not self.budget.allows(now, self.requests, self.share):
            return False
        self.budget.spend()
        self.retries += 1
        return True

    def retry_all(self, now: float) -> int:
        """How many are allowed at this instant."""
        before = self.retries
        while self.retry(now):
            pass
        return self.retries - before


def test_a_quiet_route_has_a_few() -> None:
    traffic = Traffic()
    assert traffic.retry_all(5.0) == FLOOR
    traffic.request(5.0)
    assert not traffic.retry(5.0)


def test_they_come_back_as_the_window_moves_on() -> None:
    traffic = Traffic()
    assert traffic.retry_all(0.0) == FLOOR
    assert traffic.retry_all(WINDOW * 0.99) == 0
    assert 0 < traffic.retry_all(WINDOW * 1.5) < FLOOR
    assert traffic.retry_all(WINDOW * 20) == FLOOR


def test_a_busy_route_has_its_share_of_the_requests_just_seen() -> None:
    traffic = Traffic()
    for number in range(1000):
        traffic.request(number / 100)
    assert traffic.retry_all(9.99) == 200


def test_requests_of_the_window_before_count_as_far_as_it_is_not_over() -> None:
    traffic = Traffic()
    for number in range(1000):
        traffic.request(number / 100)
    assert traffic.retry_all(WINDOW * 1.5) == 100


def test_requests_of_long_ago_do_not_count() -> None:
    traffic = Traffic()
    for _ in range(100_000):
        traffic.request(0.0)
    assert traffic.retry_all(WINDOW * 3) == FLOOR


def test_a_share_of_nothing_is_nothing() -> None:
    traffic = Traffic(share=0.0)
    for _ in range(1000):
        traffic.request(0.0)
    assert traffic.retry_all(0.0) == 0


@pytest.mark.parametrize("rate", [50, 1000])
def test_in_a_storm_retries_stay_at_their_share(rate: int) -> None:
    """Every request fails and asks for two more tries, which fail as well."""
    traffic, rng = Traffic(), random.Random(7)
    for number in range(rate * 60):
        now = number / rate + rng.random() / rate
        traffic.request(now)
        traffic.retry(now)
        traffic.retry(now)
    assert traffic.retries / traffic.requests == pytest.approx(0.2, abs=0.01)


steps = st.lists(
    st.tuples(st.floats(0, 3) | st.floats(0, 100), st.sampled_from(["request", "retry", "ten retries"])), max_size=200
)


@given(steps, st.floats(0.01, 1))
def test_however_they_come_there_are_never_more_than_share_and_floor(
    moves: list[tuple[float, str]], share: float
) -> None:
    traffic, now = Traffic(share), 1000.0
    for wait, what in moves:
        now += wait
        if what == "request":
            traffic.request(now)
        else:
            for _ in range(10 if "ten" in what else 1):
                traffic.retry(now)
        windows = math.ceil((now - 1000.0) / WINDOW) + 1
        assert traffic.retries <= share * traffic.requests + FLOOR * windows


@given(steps)
def test_as_many_as_the_floor_are_allowed_once_nothing_happened_for_two_windows(moves: list[tuple[float, str]]) -> None:
    traffic, now = Traffic(), 1000.0
    for wait, what in moves:
        now += wait
        traffic.request(now) if what == "request" else traffic.retry(now)
    assert traffic.retry_all(now + 2 * WINDOW) == FLOOR
