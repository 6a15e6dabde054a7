from __future__ import annotations

import pytest

from trioproxy.errors import (
    BadRequest,
    BodyTruncated,
    ClientGone,
    ConnectFailed,
    ConnectTimeout,
    NoBackend,
    Overloaded,
    ProxyError,
    ResponseTimeout,
    StaleConnection,
    UpstreamClosed,
    UpstreamProtocol,
)
from trioproxy.policy.retry import may_retry

METHODS = [b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"POST", b"PATCH", b"PURGE", b"get"]
SAFE = {b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"}


def allowed(
    kind: type[ProxyError], method: bytes = b"GET", *, tries: int = 1, attempts: int = 2, whole: bool = True
) -> bool:
    return may_retry(kind("x"), method=method, tries=tries, attempts=attempts, body_is_whole=whole)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [ConnectFailed, ConnectTimeout, Overloaded])
def test_what_never_left_may_be_sent_again_with_any_method(kind: type[ProxyError], method: bytes) -> None:
    assert allowed(kind, method)


@pytest.mark.parametrize("method", METHODS)
def test_what_met_a_stale_connection_may_be_sent_again_if_twice_does_no_harm(method: bytes) -> None:
    assert allowed(StaleConnection, method) is (method in SAFE)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "kind", [UpstreamClosed, UpstreamProtocol, ResponseTimeout, BodyTruncated, BadRequest, ClientGone, NoBackend]
)
def test_what_a_backend_may_have_acted_on_is_sent_once(kind: type[ProxyError], method: bytes) -> None:
    assert not allowed(kind, method)


@pytest.mark.parametrize("kind", [ConnectFailed, StaleConnection])
def test_a_body_that_is_not_at_hand_any_more_cannot_be_sent_again(kind: type[ProxyError]) -> None:
    assert not allowed(kind, whole=False)


@pytest.mark.parametrize(
    ("tries", "attempts", "again"), [(1, 0, False), (1, 1, True), (2, 1, False), (2, 2, True), (3, 2, False)]
)
def test_there_are_as_many_tries_as_configured_besides_the_first(tries: int, attempts: int, again: bool) -> None:
    assert allowed(ConnectFailed, tries=tries, attempts=attempts) is again
