from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trioproxy.policy.backoff import Backoff


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(0.1, 1.0, 30.0, lambda: 0.0)
    assert [backoff.pause(0) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_after_a_long_success_they_begin_anew() -> None:
    backoff = Backoff(0.1, 1.0, 30.0, lambda: 0.0)
    assert [backoff.pause(worked) for worked in (0, 0, 29.9, 30, 0)] == [0.1, 0.2, 0.4, 0.1, 0.2]


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1)), max_size=20))
def test_no_pause_is_shorter_than_the_first_or_longer_than_the_longest(tries: list[tuple[float, float]]) -> None:
    chance = 0.0
    backoff = Backoff(0.1, 30.0, 30.0, lambda: chance)
    for worked, chance in tries:  # noqa: B007 - read by the lambda
        assert 0.1 <= backoff.pause(worked) <= 30.0
