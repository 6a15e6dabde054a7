"""The same backend for the same client, and as few moves as can be."""

from __future__ import annotations

from candidates import One, shares, turns
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.policy.client_hash import MAX_KNOWN, ClientHash

CLIENTS = [f"10.{at // 250}.{at % 250}.7" for at in range(2000)]


def owners(candidates: list[One]) -> dict[str, str]:
    """Who has which client."""
    chooser = ClientHash[One]()
    chooser.arrange(candidates)
    return {client: turns(chooser, 1, client) for client in CLIENTS}


def some(*names: str) -> list[One]:
    return [One(name) for name in names]


def test_a_client_stays_where_it_is_whoever_is_asked_and_in_whatever_order() -> None:
    assert owners(some("a:1", "b:1", "c:1")) == owners(some("c:1", "a:1", "b:1"))


def test_clients_are_spread_evenly() -> None:
    found = shares(list(owners(some(*"abcde")).values()))
    assert all(abs(share - 0.2) < 0.03 for share in found.values())


def test_clients_are_spread_by_share() -> None:
    found = shares(list(owners([One("a", 1), One("b", 2), One("c", 5)]).values()))
    assert all(abs(found[name] - share / 8) < 0.03 for name, share in (("a", 1), ("b", 2), ("c", 5)))


@given(st.sets(st.sampled_from("abcdefgh"), min_size=2), st.data())
def test_when_one_goes_only_its_own_clients_move(names: set[str], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(sorted(names)))
    before, after = owners(some(*names)), owners(some(*names - {gone}))
    assert all(before[client] == after[client] for client in CLIENTS if before[client] != gone)
    assert gone not in after.values()


@given(st.sets(st.sampled_from("abcdefgh"), min_size=1), st.integers(1, 9))
def test_when_one_comes_clients_move_to_it_only(names: set[str], share: int) -> None:
    before, after = owners(some(*names)), owners([*some(*names), One("new", share)])
    moved = [client for client in CLIENTS if before[client] != after[client]]
    assert {after[client] for client in moved} == {"new"}
    assert abs(len(moved) / len(CLIENTS) - share / (len(names) + share)) < 0.06


@given(st.integers(1, 9), st.integers(1, 9))
def test_a_share_that_grows_draws_clients_from_the_others_only(small: int, more: int) -> None:
    before = owners([*some("a", "b"), One("c", small)])
    after = owners([*some("a", "b"), One("c", small + more)])
    assert {after[client] for client in CLIENTS if before[client] != after[client]} <= {"c"}


def test_the_next_choice_is_the_same_for_a_client_each_time() -> None:
    candidates = some("a", "b", "c")
    chooser = ClientHash[One]()
    chooser.arrange(candidates)
    first = chooser.choose("192.0.2.1")
    left = [one for one in candidates if one is not first]
    assert chooser.choose_among(left, "192.0.2.1") is chooser.choose_among(left[::-1], "192.0.2.1")
    chooser.arrange(left)
    assert chooser.choose("192.0.2.1") is chooser.choose_among(left, "192.0.2.1")


def test_what_is_kept_of_clients_is_bounded_and_makes_no_difference() -> None:
    chooser = ClientHash[One]()
    chooser.arrange(some("a", "b", "c"))
    many = [f"2001:db8::{at:x}" for at in range(MAX_KNOWN + 100)]
    first = [chooser.choose(client) for client in many]
    assert [chooser.choose(client) for client in many] == first
    assert len(chooser._known) <= MAX_KNOWN  # pyright: ignore[reportPrivateUsage]
