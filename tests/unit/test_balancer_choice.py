"""Who can be chosen: health, ejections, the operator's word, slow start, panic. The clock is a number."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trioproxy.config.schema import Config
from trioproxy.control.messages import AdminState, BackendChange, TargetHealth
from trioproxy.errors import ClientGone, ConnectFailed, NoBackend, Overloaded, ProxyError, StaleConnection
from trioproxy.proxy.balancer import Balancer, Lease, Wish
from trioproxy.proxy.findings import MAX_NEWS
from trioproxy.routing.route import Backend, Health, Route

REFUSED = ConnectFailed("refused")


class Scene:
    """A balancer with one route to backends a, b, c …"""

    def __init__(self, count: int = 3, health: dict[str, Any] | None = None, **route: Any) -> None:
        self.now = 1000.0
        self.config = Config.model_validate({"health": health or {}})
        self.balancer = Balancer(self.config, clock=lambda: self.now, rng=Random(7).random)
        self.route = self.make("abcdefgh"[:count], **route)

    def make(self, names: str, weights: dict[str, int] | None = None, **route: Any) -> Route:
        backends = [Backend(host=name, port=1, id=name, weight=(weights or {}).get(name, 1)) for name in names]
        return Route(session_id="s", service="web", backends=tuple(backends), **route)

    def pick(self, tried: str = "") -> Lease:
        return self.balancer.pick(self.balancer.route(self.route), tried)

    def request(self, outcome: int | ProxyError = 200) -> str:
        """One request from pick to release; who served it."""
        lease = self.pick()
        if isinstance(outcome, int):
            lease.served(outcome, 0.1)
        else:
            lease.failed(outcome)
        lease.release()
        return lease.backend.id

    def requests(self, count: int, *, bad: str = "") -> Counter[str]:
        """So many requests, of which those to `bad` backends fail."""
        found: Counter[str] = Counter()
        for _ in range(count):
            lease = self.pick()
            if lease.backend.id in bad:
                lease.failed(REFUSED)
            else:
                lease.served(200, 0.1)
            lease.release()
            found[lease.backend.id] += 1
        return found

    def states(self) -> dict[str, str]:
        return {info.backend_id: info.state for info in self.balancer.describe()}

    def news(self) -> list[tuple[str, str, str]]:
        return [(change.backend_id, change.state, change.reason) for change in self.balancer.news().changes]


@pytest.mark.parametrize("balance", ["round_robin", "least_connections"])
@pytest.mark.parametrize(("weights", "expected"), [({}, "abcab"), ({"a": 3}, "abaca"), ({"c": 0}, "ababa")])
def test_each_forwarder_begins_with_another_backend(balance: Any, weights: dict[str, int], expected: str) -> None:
    found = ""
    for index in range(5):
        scene = Scene()
        scene.balancer = Balancer(scene.config, clock=lambda: 0.0, index=index)
        scene.route = scene.make("abc", weights, balance=balance)
        found += scene.request()
    if balance == "round_robin" or "a" not in weights:
        assert found == expected
    else:
        assert found == "aaaaa"  # it has the least to do for its weight


# --- ejection ---------------------------------------------------------------------------------------------


def test_failures_in_a_row_eject_and_a_request_that_goes_well_lets_return() -> None:
    scene = Scene()
    assert scene.requests(9, bad="b") == {"a": 3, "b": 3, "c": 3}
    assert scene.states() == {"a": "healthy", "b": "ejected", "c": "healthy"}
    assert scene.requests(10) == {"a": 5, "c": 5}
    scene.now += 9.9
    assert "b" not in scene.requests(10)
    scene.now += 0.1
    assert scene.request() == "b"
    assert scene.states()["b"] == "healthy"
    assert scene.requests(9) == {"a": 3, "b": 3, "c": 3}
    assert scene.news() == [("b", "ejected", "3 failures in a row"), ("b", "healthy", "a request went well")]
    assert scene.news() == []


def test_one_request_at_a_time_tries_an_ejected_backend() -> None:
    scene = Scene()
    scene.requests(9, bad="b")
    scene.now += 10
    trial = scene.pick()
    assert trial.backend.id == "b"
    assert "b" not in scene.requests(20)
    trial.answered(200, 0.1)  # its head is enough, however long the rest takes
    assert scene.requests(6)["b"] == 2
    trial.release()
    assert scene.states()["b"] == "healthy"


def test_one_that_is_ejected_is_the_last_resort_of_a_request_that_all_others_have_failed() -> None:
    scene = Scene()
    scene.requests(9, bad="b")
    trial = scene.pick("ac")
    assert trial.backend.id == "b"
    with pytest.raises(NoBackend):  # one at a time
        scene.pick("ac")
    trial.failed(REFUSED)
    trial.release()
    assert scene.states()["b"] == "ejected"
    assert "b" not in scene.requests(20)
    trial = scene.pick("ac")
    trial.served(200, 0.1)
    trial.release()
    assert scene.states()["b"] == "healthy"
    assert scene.requests(9)["b"] == 3


def test_a_last_resort_that_fails_makes_no_ejection_longer() -> None:
    scene = Scene()
    scene.requests(9, bad="b")
    scene.now += 5
    trial = scene.pick("ac")
    trial.failed(REFUSED)
    trial.release()
    scene.now += 5
    assert scene.request() == "b"


@pytest.mark.parametrize("word", ["draining", "disabled"])
def test_who_is_not_enabled_is_no_last_resort(word: AdminState) -> None:
    scene = Scene()
    scene.requests(9, bad="b")
    scene.balancer.set_admin(scene.route, "b", word)
    with pytest.raises(NoBackend):
        scene.pick("ac")


def test_without_traffic_nobody_is_told_to_be_ejected_for_ever() -> None:
    scene = Scene()
    scene.requests(9, bad="b")
    scene.now += 9.9
    (info,) = (one for one in scene.balancer.describe() if one.backend_id == "b")
    assert (info.state, info.reason) == ("ejected", "3 failures in a row")
    scene.now += 0.1
    (info,) = (one for one in scene.balancer.describe() if one.backend_id == "b")
    assert (info.state, info.reason) == ("healthy", None)
    assert scene.requests(2, bad="b") == {"b": 1, "a": 1}  # and yet it is only tried
    assert scene.states()["b"] == "ejected"


def test_a_trial_that_fails_ejects_for_twice_as_long() -> None:
    scene = Scene()
    scene.requests(9, bad="b")
    for seconds in (10, 20, 40, 80, 160, 300, 300):
        scene.now += seconds - 0.1
        assert "b" not in scene.requests(4)
        scene.now += 0.2
        assert scene.requests(6, bad="b")["b"] == 1
        scene.now -= 0.1
    assert [change[:2] for change in scene.news()] == [("b", "ejected")] * 8


@pytest.mark.parametrize("end", [ClientGone("left"), Overloaded("no files"), StaleConnection("idle"), None])
def test_a_trial_that_tells_nothing_is_followed_by_another(end: ProxyError | None) -> None:
    scene = Scene()
    scene.requests(9, bad="b")
    scene.now += 10
    for _ in range(3):
        trial = scene.pick()
        assert trial.backend.id == "b"
        if end is not None:
            trial.failed(end)
        trial.release()
    assert [change[:2] for change in scene.news()] == [("b", "ejected")]
    assert scene.request() == "b"
    assert scene.states()["b"] == "healthy"


@pytest.mark.parametrize("end", [ClientGone("left"), Overloaded("no files"), StaleConnection("idle")])
def test_what_the_client_or_this_worker_caused_is_no_failure(end: ProxyError) -> None:
    scene = Scene()
    for _ in range(30):
        scene.request(end)
    assert set(scene.states().values()) == {"healthy"}
    assert all(info.failures == 0 for info in scene.balancer.describe())


@pytest.mark.parametrize(("status", "state"), [(502, "ejected"), (503, "ejected"), (504, "ejected"), (404, "healthy")])
def test_answers_of_a_gateway_that_reaches_nobody_are_failures(status: int, state: str) -> None:
    scene = Scene(2)
    for _ in range(6):
        scene.request(status)
    assert state in scene.states().values()


def test_a_500_shows_that_the_backend_lives() -> None:
    scene = Scene(2)
    for status in (503, 503, 500) * 6:
        assert scene.request(status) == "a"
        scene.request(200)
    assert set(scene.states().values()) == {"healthy"}


def test_a_500_counts_for_the_rate_where_there_is_one() -> None:
    scene = Scene(2, {"passive": {"failure_rate": 0.5, "min_requests": 10}})
    for number in range(12):
        scene.request(500 if number % 2 == 0 else 200)  # a: always, b: never
    assert scene.states() == {"a": "healthy", "b": "healthy"}
    for number in range(8):
        scene.request(500 if number % 2 == 0 else 200)
    assert scene.states() == {"a": "ejected", "b": "healthy"}
    assert scene.news() == [("a", "ejected", "10 of 10 requests failed")]


def test_a_lone_backend_is_not_ejected_by_default() -> None:
    scene = Scene(1)
    assert scene.requests(20, bad="a") == {"a": 20}
    assert scene.states() == {"a": "healthy"}


steps = st.lists(
    st.one_of(
        st.tuples(st.just("requests"), st.integers(1, 12), st.sets(st.sampled_from("abcdef"))),
        st.tuples(st.just("time"), st.floats(0, 30), st.none()),
        st.tuples(st.just("admin"), st.sampled_from("abcdef"), st.sampled_from(["enabled", "draining", "disabled"])),
        st.tuples(st.just("other"), st.sampled_from("abcdef"), st.floats(-1, 30)),
        st.tuples(st.just("route"), st.sets(st.sampled_from("abcdef"), min_size=1), st.none()),
    ),
    max_size=30,
)


@settings(max_examples=150)
@given(st.sampled_from([0.0, 0.3, 0.5, 1.0]), steps)
def test_there_are_never_more_ejected_than_may_be(most: float, what: list[Any]) -> None:
    scene = Scene(6, {"passive": {"max_ejected": most, "failures": 2}})
    for kind, one, other in what:
        if kind == "requests":
            for _ in range(one):
                try:
                    scene.requests(1, bad="".join(other))
                except NoBackend:
                    break
        elif kind == "time":
            scene.now += one
        elif kind == "admin":
            scene.balancer.set_admin(scene.route, one, other)
        elif kind == "other":
            scene.balancer.set_ejected(scene.route, one, time.time() + other, "elsewhere")
        else:
            scene.route = scene.make("".join(sorted(one)))
        with suppress(NoBackend):
            scene.pick().release()  # brings it up to date
        serving = [one for one in scene.states().values() if one in ("healthy", "ejected")]
        assert serving.count("ejected") <= int(len(serving) * most + 1e-9)


# --- what others have found out ---------------------------------------------------------------------------


def test_what_another_forwarder_ejects_is_ejected_here_and_no_news() -> None:
    scene = Scene()
    assert scene.balancer.set_ejected(scene.route, "b", time.time() + 10, "elsewhere")
    assert scene.requests(10) == {"a": 5, "c": 5}
    assert [info.reason for info in scene.balancer.describe()] == [None, "elsewhere", None]
    assert scene.balancer.set_ejected(scene.route, "b", 0.0, "it returned")
    assert scene.requests(9)["b"] == 3
    assert scene.news() == []
    assert not scene.balancer.set_ejected(scene.route, "z", 0.0, "unknown")


def test_a_foreign_ejection_ends_with_a_trial_of_our_own() -> None:
    scene = Scene()
    scene.balancer.set_ejected(scene.route, "b", time.time() + 10, "elsewhere")
    scene.now += 10.1
    assert scene.request() == "b"
    assert scene.news() == [("b", "healthy", "a request went well")]


def test_news_are_bounded_and_tell_what_was_lost() -> None:
    scene = Scene(health={"passive": {"failures": 1}})
    while scene.balancer._findings._lost < 3:  # pyright: ignore[reportPrivateUsage]
        scene.now += 300
        scene.requests(1, bad="abc")
    news = scene.balancer.news()
    assert (len(news.changes), news.lost) == (MAX_NEWS, 3)
    assert isinstance(news.changes[0], BackendChange)
    assert scene.balancer.news().lost == 0


def told(spec: Health, up: bool | None, host: str = "b") -> TargetHealth:
    return TargetHealth(f"{host}:1", spec, up, "why", 1.0, 2.0)


def test_an_unhealthy_backend_is_not_chosen_until_it_is_well() -> None:
    spec = Health(kind="http")
    scene = Scene(3)
    scene.route = scene.make("abc", health=spec)
    scene.balancer.set_health([told(spec, up=False)], whole=False)
    assert scene.requests(10) == {"a": 5, "c": 5}
    info = scene.balancer.describe()[1]
    assert (info.state, info.reason, info.last_check_at) == ("unhealthy", "why", 2.0)
    scene.balancer.set_health([told(spec, up=True)], whole=False)
    assert scene.requests(9)["b"] == 3
    scene.balancer.set_health([told(spec, up=False)], whole=False)
    assert "b" not in scene.requests(9)
    scene.balancer.set_health([told(spec, up=None)], whole=False)
    assert scene.requests(9)["b"] == 3
    scene.balancer.set_health([told(spec, up=False)], whole=False)
    scene.balancer.set_health([], whole=True)
    assert scene.requests(9)["b"] == 3


def test_other_checks_of_the_same_address_say_nothing() -> None:
    scene = Scene(3)
    scene.route = scene.make("abc", health=Health(kind="http"))
    scene.balancer.set_health([told(Health(kind="tcp"), up=False)], whole=True)
    assert scene.requests(9)["b"] == 3


def test_a_route_that_asks_for_a_first_check_waits_for_it() -> None:
    spec = Health(first_check=True)
    scene = Scene(2)
    scene.route = scene.make("ab", health=spec)
    with pytest.raises(NoBackend):
        scene.pick()
    scene.balancer.set_health([told(spec, up=True)], whole=True)
    assert scene.requests(4) == {"b": 4}


# --- when nobody is well ----------------------------------------------------------------------------------


def all_out(scene: Scene) -> None:
    for name in "abc":
        scene.balancer.set_ejected(scene.route, name, time.time() + 100, "down")


ALL = {"passive": {"max_ejected": 1.0}}


def test_when_all_are_out_a_request_is_refused_and_told_when_to_come_back() -> None:
    scene = Scene(3, ALL)
    all_out(scene)
    with pytest.raises(NoBackend) as refused:
        scene.pick()
    assert refused.value.retry_after == 5
    scene.now += 97.5
    with pytest.raises(NoBackend) as refused:
        scene.pick()
    assert refused.value.retry_after == 3


@pytest.mark.parametrize("setting", ["config", "route"])
def test_when_all_are_out_a_route_may_try_them_all_the_same(setting: str) -> None:
    scene = Scene(3, {**ALL, "panic": setting == "config"})
    if setting == "route":
        scene.route = scene.make("abc", panic=True)
    all_out(scene)
    scene.balancer.set_admin(scene.route, "c", "draining")
    assert scene.requests(6, bad="ab") == {"a": 3, "b": 3}
    assert scene.states() == {"a": "ejected", "b": "ejected", "c": "draining"}
    first = scene.request()  # and one that serves after all is back
    assert scene.requests(5) == {first: 5}


def test_what_was_tried_already_is_not_tried_again_in_panic() -> None:
    scene = Scene(2, {**ALL, "panic": True})
    all_out(scene)
    assert {scene.pick("a").backend.id, scene.pick("b").backend.id} == {"a", "b"}
    with pytest.raises(NoBackend):
        scene.pick("ab")


def test_an_unhealthy_backend_is_no_second_choice_while_another_one_serves() -> None:
    spec = Health(kind="http")
    scene = Scene(2, {"panic": True})
    scene.route = scene.make("ab", health=spec)
    scene.balancer.set_health([told(spec, up=False)], whole=False)
    with pytest.raises(NoBackend):
        scene.pick("a")


# --- slow start -------------------------------------------------------------------------------------------


def comes_back_by_operator(scene: Scene) -> None:
    scene.balancer.set_admin(scene.route, "c", "disabled")
    scene.requests(1)
    scene.balancer.set_admin(scene.route, "c", "enabled")


def comes_back_from_ejection(scene: Scene) -> None:
    scene.requests(9, bad="c")
    scene.now += 10
    scene.requests(1)


def is_new(scene: Scene) -> None:
    before = scene.route
    scene.route = scene.make("ab")
    scene.requests(2)
    scene.route = before


def gets_well(scene: Scene) -> None:
    spec = Health()
    scene.route = scene.make("abc", health=spec)
    scene.balancer.set_health([told(spec, up=False, host="c")], whole=True)
    scene.requests(2)
    scene.balancer.set_health([told(spec, up=True, host="c")], whole=True)


@pytest.mark.parametrize("how", [comes_back_by_operator, comes_back_from_ejection, is_new, gets_well])
def test_a_backend_that_is_new_or_back_gets_a_growing_share(how: Callable[[Scene], None]) -> None:
    scene = Scene(3, {"slow_start": 20})
    scene.requests(3)
    how(scene)
    got: list[float] = []
    for _ in range(5):
        got.append(scene.requests(210)["c"] / 70)
        scene.now += 5
    # Of its full share: 0.1 of 2.1, then a quarter of 2.25 …
    assert got == pytest.approx([3 * x / (2 + x) for x in (0.1, 0.25, 0.5, 0.75, 1)], abs=0.05)


@pytest.mark.parametrize("balance", ["least_connections", "random_two", "client_hash"])
def test_slow_start_keeps_every_way_of_balancing_from_a_rush(balance: str) -> None:
    scene = Scene(3, {"slow_start": 20}, balance=balance)
    comes_back_by_operator(scene)
    stats = scene.balancer.route(scene.route)
    leases = [scene.balancer.pick(stats, (), Wish(f"10.0.0.{at}")) for at in range(210)]
    assert Counter(lease.backend.id for lease in leases)["c"] < 35


def test_all_backends_of_a_new_route_begin_with_their_full_share() -> None:
    assert Scene(3, {"slow_start": 20}).requests(9) == {"a": 3, "b": 3, "c": 3}


def test_requests_that_are_rare_reach_a_backend_in_slow_start_in_turn() -> None:
    scene = Scene(2, {"slow_start": 10})
    scene.balancer.set_admin(scene.route, "b", "disabled")
    scene.requests(1)
    scene.balancer.set_admin(scene.route, "b", "enabled")
    found: Counter[str] = Counter()
    for _ in range(20):  # each meets another arrangement
        found += scene.requests(1)
        scene.now += 0.6
    assert 5 <= found["b"] <= 9
