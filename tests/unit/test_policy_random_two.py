"""The better one of two, and how long backends take."""

from __future__ import annotations

import heapq
from random import Random

import pytest
from candidates import One, shares, turns

from trioproxy.policy.latency import FORGET_SECONDS, PENDING, UNKNOWN, Latency
from trioproxy.policy.random_two import RandomTwo


def arranged(*candidates: One, seed: int = 1) -> RandomTwo[One]:
    chooser = RandomTwo[One](Random(seed).random, lambda: 0.0)
    chooser.arrange(candidates)
    return chooser


def test_equals_are_chosen_equally_often() -> None:
    found = shares(turns(arranged(*map(One, "abcd")), 4000))
    assert all(abs(share - 0.25) < 0.03 for share in found.values())


def test_the_slowest_of_all_is_never_chosen_while_all_are_idle() -> None:
    found = shares(turns(arranged(One("a"), One("b"), One("slow", seconds=10)), 1000))
    assert found.keys() == {"a", "b"}


def test_the_busiest_for_its_share_is_never_chosen() -> None:
    found = shares(turns(arranged(One("a", in_flight=4), One("b", share=4, in_flight=8), One("c", in_flight=3)), 1000))
    assert found.keys() == {"b", "c"}


def test_one_of_one_is_that_one() -> None:
    assert turns(arranged(One("a")), 3) == "aaa"


@pytest.mark.parametrize("drawn", [0.0, 1 - 2**-53])
def test_two_different_ones_are_compared_whatever_is_drawn(drawn: float) -> None:
    chooser = RandomTwo[One](lambda: drawn, lambda: 0.0)
    for bad in ("a", "b"):
        chooser.arrange([One("a", seconds=1 + 9 * (bad == "a")), One("b", seconds=1 + 9 * (bad == "b"))])
        assert chooser.choose("").id != bad


def simulate(seconds: dict[str, float], *, rate: float, count: int, seed: int) -> dict[str, float]:
    """Requests that come at random, to backends that take so long each: the shares they get."""
    rng = Random(seed)
    candidates = [One(name) for name in seconds]
    latency = {name: Latency() for name in seconds}
    now = 0.0
    for one in candidates:
        one.slowness = lambda at, one=one: latency[one.id].estimate(at, one.in_flight)  # type: ignore[method-assign]
    chooser = RandomTwo[One](rng.random, lambda: now)
    chooser.arrange(candidates)
    ends: list[tuple[float, int, One]] = []
    picks: list[str] = []
    for at in range(count):
        now += rng.expovariate(rate)
        while ends and ends[0][0] <= now:
            end, _, done = heapq.heappop(ends)
            done.in_flight -= 1
            latency[done.id].observe(seconds[done.id], end)
        chosen = chooser.choose("")
        chosen.in_flight += 1
        picks.append(chosen.id)
        heapq.heappush(ends, (now + seconds[chosen.id], at, chosen))
    return shares(picks)


@pytest.mark.parametrize("seed", range(3))
def test_a_backend_that_is_slow_by_10_gets_little_and_not_nothing(seed: int) -> None:
    found = simulate({"a": 0.1, "b": 0.1, "slow": 1.0}, rate=50, count=6000, seed=seed)
    assert 0.001 < found["slow"] < 0.1
    assert abs(found["a"] - found["b"]) < 0.05


@pytest.mark.parametrize("seed", range(3))
def test_equally_fast_backends_share_equally_under_load(seed: int) -> None:
    found = simulate({"a": 0.1, "b": 0.1, "c": 0.1, "d": 0.1}, rate=100, count=6000, seed=seed)
    assert all(abs(share - 0.25) < 0.03 for share in found.values())


# --- latency ----------------------------------------------------------------------------------------------


def test_an_unknown_backend_is_asked_soon_and_by_one_request() -> None:
    assert Latency().estimate(5.0, 0) == UNKNOWN
    assert Latency().estimate(5.0, 1) == PENDING


def test_latency_rises_at_once_and_falls_slowly() -> None:
    latency = Latency()
    latency.observe(0.1, 0.0)
    latency.observe(2.0, 1.0)
    assert latency.estimate(1.0, 0) == 2.0
    latency.observe(0.1, 1.5)
    assert 1.8 < latency.estimate(1.5, 0) < 2.0
    for at in range(1000):
        latency.observe(0.1, 1.5 + at / 10)
    assert latency.estimate(101.5, 0) == pytest.approx(0.1, rel=0.02)


def test_a_slow_answer_is_forgotten_with_time_alone() -> None:
    latency = Latency()
    latency.observe(3.0, 0.0)
    assert latency.estimate(FORGET_SECONDS, 0) == pytest.approx(3 / 2.71828, rel=0.001)
    assert latency.estimate(10_000.0, 0) == UNKNOWN
