"""Weighted round robin, least connections."""

from __future__ import annotations

import random
from collections import Counter
from typing import get_args

import pytest
from candidates import One, shares, turns
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.policy.balancing import LeastConnections, RoundRobin, make_chooser
from trioproxy.routing.route import Balance


def arranged(*candidates: One) -> RoundRobin[One]:
    chooser = RoundRobin[One]()
    chooser.arrange(candidates)
    return chooser


def three(*weights: float) -> list[One]:
    return [One(chr(ord("a") + at), weight) for at, weight in enumerate(weights)]


# --- round robin ------------------------------------------------------------------------------------------


def test_equals_take_turns_in_their_order() -> None:
    assert turns(arranged(*three(1, 1, 1)), 9) == "abcabcabc"


def test_a_heavy_one_is_spread_and_does_not_come_in_a_burst() -> None:
    assert turns(arranged(*three(5, 1, 1)), 14) == "aabacaa" * 2


@pytest.mark.parametrize("weights", [(1, 1), (3, 2), (1, 2, 3), (7, 1, 1, 1), (1000, 1), (4, 4)])
def test_every_round_of_the_sum_of_weights_has_each_one_as_often_as_it_weighs(weights: tuple[int, ...]) -> None:
    candidates = three(*weights)
    chooser = arranged(*candidates)
    for _ in range(3):
        assert Counter(turns(chooser, sum(weights))) == {one.id: one.share for one in candidates}


@given(st.lists(st.integers(1, 20), min_size=2, max_size=6))
def test_no_stretch_has_more_of_one_than_its_share_and_a_turn_for_each_other(weights: list[int]) -> None:
    candidates = three(*weights)
    picks = turns(arranged(*candidates), 2 * sum(weights))
    for count in range(1, len(picks) + 1):
        for one in candidates:
            assert abs(picks[:count].count(one.id) - count * one.share / sum(weights)) < len(weights) - 1 + 1e-9


@given(st.lists(st.integers(1, 50), min_size=2, max_size=6))
def test_at_every_point_everybody_has_had_about_their_share(weights: list[int]) -> None:
    # Credits add up to nothing, and who is chosen has the most: so nobody is ahead by more than one turn.
    candidates = three(*weights)
    total, picks = sum(weights), turns(arranged(*candidates), 3 * sum(weights))
    for one in candidates:
        for so_far in range(1, len(picks) + 1):
            due = so_far * one.share / total
            assert due - (len(weights) - 1) <= picks[:so_far].count(one.id) <= due + 1


def test_one_that_joins_takes_its_share_and_no_more() -> None:
    a, b, c = three(1, 1, 1)
    chooser = arranged(a, b)
    turns(chooser, 101)
    chooser.arrange([a, b, c])
    assert Counter(turns(chooser, 30)) == {"a": 10, "b": 10, "c": 10}


@pytest.mark.parametrize("before", range(1, 60, 7))
@pytest.mark.parametrize("meanwhile", ["a", "ab"])
def test_one_that_left_comes_back_without_a_claim(meanwhile: str, before: int) -> None:
    a, b, heavy = three(1, 2, 100)
    chooser = arranged(a, b, heavy)
    turns(chooser, before)
    chooser.arrange([one for one in (a, b) if one.id in meanwhile])
    turns(chooser, 6)
    heavy.share = 2
    chooser.arrange([a, b, heavy])
    for name, count in Counter(turns(chooser, 10)).items():
        assert abs(count - 10 * {"a": 1, "b": 2, "c": 2}[name] / 5) <= 2


def test_a_changed_weight_counts_at_once() -> None:
    a, b = three(1, 1)
    chooser = arranged(a, b)
    turns(chooser, 4)
    b.share = 3
    chooser.arrange([a, b])
    assert Counter(turns(chooser, 8)) == {"a": 2, "b": 6}


@given(st.integers(1, 6), st.integers(0, 20), st.sets(st.sampled_from("abcdef"), min_size=1))
def test_a_new_arrangement_goes_on_where_the_last_one_was(count: int, made: int, kept: set[str]) -> None:
    candidates = three(*[1] * count)
    chooser = arranged(*candidates)
    picks = turns(chooser, made)
    stay = [one for one in candidates if one.id in kept] or candidates
    chooser.arrange(stay)
    names = "".join(one.id for one in stay)
    behind = [name for name in names if picks and name > picks[-1]]
    assert turns(chooser, 1) == (behind or names)[0]
    assert shares(turns(chooser, 12 * len(stay))) == {name: 1 / len(stay) for name in names}


def test_the_next_choice_is_whose_turn_it_would_have_been() -> None:
    a, b, c = three(1, 1, 1)
    chooser = arranged(a, b, c)
    assert turns(chooser, 1) == "a"
    assert chooser.choose_among([a, c], "") is c
    assert turns(chooser, 2) == "ab"


def test_the_next_choice_by_weight_is_charged_too() -> None:
    a, b, c = three(4, 1, 1)
    chooser = arranged(a, b, c)
    assert chooser.choose_among([b, c], "") is b
    assert chooser.choose_among([c], "") is c
    assert Counter(turns(chooser, 6)) == {"a": 4, "b": 1, "c": 1}


# --- least connections ------------------------------------------------------------------------------------


def test_the_one_with_the_least_for_its_share_is_chosen() -> None:
    a, b, c = One("a", in_flight=2), One("b", share=4, in_flight=4), One("c", in_flight=3)
    chooser = LeastConnections[One]()
    chooser.arrange([a, b, c])
    assert turns(chooser, 4) == "bbbb"
    b.in_flight = 20
    assert turns(chooser, 4) == "aaaa"
    assert chooser.choose_among([b, c], "") is c


def test_equals_with_equally_much_to_do_take_turns() -> None:
    chooser = LeastConnections[One]()
    chooser.arrange(three(1, 1, 1))
    assert shares(turns(chooser, 9)) == {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=6), st.integers(0, 9))
def test_nobody_has_less_to_do_than_who_is_chosen(what: list[tuple[int, int]], before: int) -> None:
    candidates = [One(str(at), share, in_flight) for at, (share, in_flight) in enumerate(what)]
    chooser = LeastConnections[One]()
    chooser.arrange(candidates)
    turns(chooser, before)
    chosen = chooser.choose("")
    assert (chosen.in_flight + 1) / chosen.share == min((one.in_flight + 1) / one.share for one in candidates)


def test_requests_that_stay_are_spread_by_share() -> None:
    candidates = three(3, 2, 1)
    chooser = LeastConnections[One]()
    chooser.arrange(candidates)
    for _ in range(600):
        chooser.choose("").in_flight += 1
    assert [one.in_flight for one in candidates] == [300, 200, 100]


# --- every way --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balance", get_args(Balance))
@given(st.integers(1, 5), st.floats(0, 1, exclude_max=True))
def test_each_way_offers_one_after_the_other(balance: Balance, count: int, drawn: float) -> None:
    candidates = three(*range(1, count + 1))
    chooser = make_chooser(balance, rng=lambda: drawn, clock=lambda: 0.0)
    chooser.arrange(candidates)
    tried: list[One] = [chooser.choose("192.0.2.1")]
    while left := [one for one in candidates if one not in tried]:
        tried.append(chooser.choose_among(left, "192.0.2.1"))
    assert sorted(one.id for one in tried) == [one.id for one in candidates]


@pytest.mark.parametrize("balance", get_args(Balance))
@pytest.mark.parametrize("failing", "abc")
@pytest.mark.parametrize("count", [3, 4])
def test_what_one_backend_fails_at_is_spread_over_all_others(balance: Balance, failing: str, count: int) -> None:
    candidates = three(*[1] * count)
    chooser = make_chooser(balance, rng=random.Random(1).random, clock=lambda: 0.0)
    chooser.arrange(candidates)
    others = [one for one in candidates if one.id != failing]
    got = Counter[str]()
    for number in range(600):
        chosen = chooser.choose(f"192.0.2.{number}")
        if chosen not in others:
            chosen = chooser.choose_among(others, f"192.0.2.{number}")
        got[chosen.id] += 1
    assert max(got.values()) <= 1.2 * 600 / len(others)
