from __future__ import annotations

import random

import pytest

from trioproxy.config.schema import RetryConfig
from trioproxy.errors import (
    AnswerRefused,
    BadRequest,
    BodyTruncated,
    ClientGone,
    ConnectFailed,
    ConnectTimeout,
    NoBackend,
    Overloaded,
    ProxyError,
    RefusedBefore,
    ResponseTimeout,
    StaleConnection,
    TryTimeout,
    UpstreamClosed,
    UpstreamProtocol,
)
from trioproxy.policy.retry import IDEMPOTENT, RetryRules, is_charged, may_retry, pause_before
from trioproxy.routing.route import RouteRetry

UNSENT: list[type[ProxyError]] = [ConnectFailed, RefusedBefore, ConnectTimeout, Overloaded]
SENT: list[type[ProxyError]] = [UpstreamClosed, TryTimeout, AnswerRefused]
FINAL: list[type[ProxyError]] = [UpstreamProtocol, ResponseTimeout, BodyTruncated, BadRequest, ClientGone, NoBackend]


def allowed(
    kind: type[ProxyError],
    *,
    idempotent: bool = True,
    tries: int = 1,
    attempts: int = 2,
    at_hand: bool = True,
    small: bool = True,
) -> bool:
    return may_retry(kind("x"), idempotent=idempotent, tries=tries, attempts=attempts, at_hand=at_hand, small=small)


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("kind", UNSENT)
def test_what_never_left_may_be_sent_again_whatever_it_is(
    kind: type[ProxyError], small: bool, idempotent: bool
) -> None:
    assert allowed(kind, small=small, idempotent=idempotent)


@pytest.mark.parametrize("kind", [StaleConnection, *SENT])
def test_what_a_backend_may_have_acted_on_may_be_sent_again_if_twice_does_no_harm(kind: type[ProxyError]) -> None:
    assert allowed(kind)
    assert not allowed(kind, idempotent=False)


@pytest.mark.parametrize("kind", [StaleConnection, *SENT])
def test_what_is_larger_than_replay_bytes_is_not_sent_twice(kind: type[ProxyError]) -> None:
    assert not allowed(kind, small=False)


@pytest.mark.parametrize("kind", FINAL)
def test_other_errors_are_final(kind: type[ProxyError]) -> None:
    assert not allowed(kind)


@pytest.mark.parametrize("kind", [*UNSENT, StaleConnection, *SENT])
def test_a_body_that_is_not_at_hand_any_more_cannot_be_sent_again(kind: type[ProxyError]) -> None:
    assert not allowed(kind, at_hand=False)


@pytest.mark.parametrize(
    ("tries", "attempts", "again"), [(1, 0, False), (1, 1, True), (2, 1, False), (2, 2, True), (3, 2, False)]
)
def test_there_are_as_many_tries_as_configured_besides_the_first(tries: int, attempts: int, again: bool) -> None:
    assert allowed(ConnectFailed, tries=tries, attempts=attempts) is again


def test_methods_that_may_come_twice_are_those_of_rfc_9110() -> None:
    assert {b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"} == IDEMPOTENT


@pytest.mark.parametrize("kind", [*UNSENT, StaleConnection, *SENT])
def test_only_what_was_sent_is_charged_and_waited_for(kind: type[ProxyError]) -> None:
    assert is_charged(kind("x")) is (kind in SENT)
    assert (pause_before(kind("x"), tries=1, backoff=1.0, rng=lambda: 0.5) > 0) is (kind in SENT)


def test_pauses_double_up_to_tenfold_and_are_anything_below() -> None:
    error = UpstreamClosed("x")
    longest = [pause_before(error, tries=tries, backoff=0.025, rng=lambda: 1.0) for tries in range(1, 8)]
    assert longest == pytest.approx([0.025, 0.05, 0.1, 0.2, 0.25, 0.25, 0.25])
    assert pause_before(error, tries=3, backoff=0.025, rng=lambda: 0.0) == 0
    rng = random.Random(1)
    drawn = [pause_before(error, tries=2, backoff=0.025, rng=rng.random) for _ in range(1000)]
    assert max(drawn) <= 0.05
    assert sum(drawn) / len(drawn) == pytest.approx(0.025, rel=0.1)


def test_a_route_s_word_comes_before_the_configuration_s() -> None:
    given = RetryConfig(attempts=5, budget=0.5, statuses="503", per_try=7.0, idempotency_key=True)
    assert RetryRules.of(given, RouteRetry()) == RetryRules(5, 0.5, 65536, 0.025, 7.0, frozenset({503}), True)
    own = RouteRetry(
        attempts=0, budget=0.0, replay_bytes=0, backoff=0.0, per_try=0.0, statuses="", idempotency_key=False
    )
    assert RetryRules.of(given, own) == RetryRules(0, 0.0, 0, 0.0, 0.0, frozenset(), False)


@pytest.mark.parametrize(
    ("text", "statuses"),
    [("", set[int]()), ("503", {503}), ("502-504", {502, 503, 504}), ("500,503-504", {500, 503, 504})],
)
def test_statuses_are_single_ones_and_ranges(text: str, statuses: set[int]) -> None:
    assert RetryRules.of(RetryConfig(statuses=text), RouteRetry()).statuses == statuses


@pytest.mark.parametrize("text", ["404", "500-600", "504-502", "5xx", "503,", "503 ", "429"])
def test_statuses_that_no_retry_is_for_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="statuses"):
        RouteRetry.model_validate({"statuses": text})
