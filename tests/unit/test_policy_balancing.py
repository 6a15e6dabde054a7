from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from trioproxy.policy.balancing import SmoothWeighted


@dataclass(frozen=True)
class One:
    id: str
    weight: int = 1


A, B, C = One("a"), One("b"), One("c")


def chosen(chooser: SmoothWeighted, candidates: list[One], count: int) -> str:
    picks = [chooser.choose(candidates) for _ in range(count)]
    return "".join(pick.id for pick in picks if pick is not None)


def test_of_none_there_is_none() -> None:
    assert SmoothWeighted().choose([]) is None


def test_the_only_one_is_chosen_even_with_weight_0() -> None:
    only = One("a", 0)
    assert SmoothWeighted().choose([only]) is only


def test_equals_take_turns_in_their_order() -> None:
    assert chosen(SmoothWeighted(), [A, B, C], 9) == "abcabcabc"


def test_a_heavy_one_is_spread_and_does_not_come_in_a_burst() -> None:
    assert chosen(SmoothWeighted(), [One("a", 5), B, C], 14) == "aabacaa" * 2


@pytest.mark.parametrize("weights", [(1, 1), (3, 2), (1, 2, 3), (7, 1, 1, 1), (1000, 1), (4, 4, 0)])
def test_every_round_of_the_sum_of_weights_has_each_one_as_often_as_it_weighs(weights: tuple[int, ...]) -> None:
    candidates = [One(chr(ord("a") + at), weight) for at, weight in enumerate(weights)]
    chooser = SmoothWeighted()
    for _ in range(3):
        assert Counter(chosen(chooser, candidates, sum(weights))) == {
            one.id: one.weight for one in candidates if one.weight
        }


@pytest.mark.parametrize("weights", [(3, 2), (5, 1, 1), (1, 2, 3)])
def test_no_stretch_favours_anyone_by_more_than_one_turn(weights: tuple[int, ...]) -> None:
    candidates = [One(chr(ord("a") + at), weight) for at, weight in enumerate(weights)]
    picks = chosen(SmoothWeighted(), candidates, 5 * sum(weights))
    for count in range(1, len(picks) + 1):
        for one in candidates:
            assert abs(picks[:count].count(one.id) - count * one.weight / sum(weights)) <= 1


def test_weight_0_serves_only_when_nothing_else_is_left() -> None:
    spare, other = One("s", 0), One("t", 0)
    chooser = SmoothWeighted()
    assert chosen(chooser, [spare, A, B], 4) == "abab"
    assert chosen(chooser, [spare, A], 3) == "aaa"
    assert chosen(chooser, [spare, other], 4) == "stst"
    assert chosen(chooser, [A, spare, B], 4) == "abab"


def test_one_that_joins_takes_its_share_and_no_more() -> None:
    chooser = SmoothWeighted()
    chosen(chooser, [A, B], 101)
    assert Counter(chosen(chooser, [A, B, C], 30)) == {"a": 10, "b": 10, "c": 10}


@pytest.mark.parametrize("meanwhile", [[A], [A, B]])
def test_one_that_left_comes_back_without_a_claim(meanwhile: list[One]) -> None:
    chooser = SmoothWeighted()
    heavy = One("c", 100)
    assert chooser.choose([A, B, heavy]) is heavy
    chosen(chooser, meanwhile, len(meanwhile) * 3)
    assert chosen(chooser, [A, B, C], 3) == "abc"


def test_a_changed_weight_counts_at_once() -> None:
    chooser = SmoothWeighted()
    chosen(chooser, [A, B], 4)
    assert Counter(chosen(chooser, [A, One("b", 3)], 8)) == {"a": 2, "b": 6}
