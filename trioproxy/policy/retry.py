"""Whether a request that failed may be sent again, and how soon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trioproxy.config.schema import RetryConfig
from trioproxy.errors import ProxyError, Retry
from trioproxy.routing.route import RouteRetry, parse_statuses

SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS"})
"""RFC 9110 §9.2.1, less TRACE, which is not served."""
IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
"""RFC 9110 §9.2.2, less TRACE, which is not served."""

MOST_BACKOFF = 10
"""The longest pause, in first ones."""


@dataclass(frozen=True, slots=True)
class RetryRules:
    """What a route allows: its own words where it has any, else the configuration's. Seconds and bytes."""

    attempts: int  # tries besides the first
    budget: float
    replay_bytes: int
    backoff: float
    per_try: float  # 0 = as long as `timeouts.response_head`
    statuses: frozenset[int]  # of a backend's answer, for which another backend is tried
    idempotency_key: bool

    @classmethod
    def of(cls, config: RetryConfig, own: RouteRetry) -> RetryRules:
        """Merge."""
        return cls(
            attempts=config.attempts if own.attempts is None else own.attempts,
            budget=config.budget if own.budget is None else own.budget,
            replay_bytes=config.replay_bytes if own.replay_bytes is None else own.replay_bytes,
            backoff=config.backoff if own.backoff is None else own.backoff,
            per_try=config.per_try if own.per_try is None else own.per_try,
            statuses=parse_statuses(config.statuses if own.statuses is None else own.statuses),
            idempotency_key=config.idempotency_key if own.idempotency_key is None else own.idempotency_key,
        )


def may_retry(error: ProxyError, *, idempotent: bool, tries: int, attempts: int, at_hand: bool, small: bool) -> bool:
    """Decide after `tries` tries of at most 1 + `attempts`.

    `at_hand`: everything that was taken of the request's body is still there, so that it can be sent again.
    `small`: it is all within `retry.replay_bytes`.

    A kept connection that closed before a byte came back has most likely idled out as we wrote, yet the backend
    may have read the request: RFC 9110 §9.2.2 forbids a proxy to repeat what is not idempotent, so that case
    needs an idempotent request too. What never left (UNSENT) is safe whatever it is, and however large.
    """
    if tries > attempts or not at_hand or error.retry is Retry.NEVER:
        return False
    return error.retry is Retry.UNSENT or (idempotent and small)


def is_charged(error: ProxyError) -> bool:
    """Whether a retry after this error is charged to the budget.

    Only what a backend may have worked on is load that comes on top. A request that never left is load that has
    not been anywhere yet; one that met a kept connection's end was let down by an idle connection.
    """
    return error.retry is Retry.IDEMPOTENT


def pause_before(error: ProxyError, *, tries: int, backoff: float, rng: Callable[[], float]) -> float:
    """Seconds to wait before the next try, after so many: anything up to a bound that doubles (full jitter).

    None after what is not charged: nobody works on it, and nobody is spared by waiting. `rng` tells a number from
    0 to 1.
    """
    if not is_charged(error):
        return 0.0
    return rng() * min(backoff * 2 ** (tries - 1), backoff * MOST_BACKOFF)
