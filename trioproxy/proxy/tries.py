"""The tries of one request: which backends had theirs, and whether another one gets the next."""

from __future__ import annotations

import time

import trio

from trioproxy.errors import AnswerRefused, NoBackend, ProxyError, RefusedBefore, StaleConnection, TryTimeout
from trioproxy.http1.fields import first
from trioproxy.http1.head import ResponseHead
from trioproxy.http1.retry_after import retry_after
from trioproxy.policy.retry import IDEMPOTENT, is_charged, may_retry, pause_before
from trioproxy.proxy.balancer import Lease
from trioproxy.proxy.begun import Begun
from trioproxy.proxy.plane import Plane

MOST_PASSED_OVER = 16
"""Backends that a request has met, from which on one that refused before is a try like any other."""

_TOO_LATE = TryTimeout("")  # what a try would meet whose time is up; never raised


class Tries:
    """What is known of the tries of one request. `begin` each of them; `another` says whether one more follows."""

    __slots__ = (
        "_count",
        "_idempotent",
        "_lease",
        "_match",
        "_next",
        "_plane",
        "_request",
        "_rules",
        "_stats",
        "_tried",
        "_wish",
        "fresh",
        "pause",
    )

    def __init__(self, plane: Plane, begun: Begun) -> None:
        self._plane = plane
        self._request = begun.request
        self._match = begun.match
        self._stats = begun.stats
        self._rules = begun.waits.retry
        self._wish = begun.wish
        self._count = 0
        self._tried: set[str] = set()
        self._lease: Lease | None = None
        self._next: Lease | None = None
        self.pause = 0.0
        """Seconds to wait before the next try."""
        self.fresh = False
        """Whether it must not use a kept connection: one just turned out dead."""
        head = begun.request.head
        self._idempotent = head.method in IDEMPOTENT or (
            self._rules.idempotency_key and bool(first(head.fields, b"idempotency-key"))
        )
        if self._idempotent and self._rules.attempts and begun.request.is_small(self._rules.replay_bytes):
            begun.request.keeps = self._rules.replay_bytes

    def begin(self, lease: Lease) -> None:
        """A try on this backend begins."""
        self._lease, self._next = lease, None
        self._count += 1

    @property
    def per_try(self) -> float:
        """`retry.per_try` for this try, in seconds: 0 when nobody else could answer instead, as far as can be told."""
        rules = self._rules
        if not rules.per_try or not self._may_retry(_TOO_LATE) or not self._others_left():
            return 0.0
        now = trio.current_time()
        return rules.per_try if self._stats.budget.allows(now, self._stats.requests, rules.budget) else 0.0

    def declines(self, head: ResponseHead) -> ProxyError | None:
        """Whether this answer is not passed on because another backend is tried: the error that leads to that."""
        if head.status not in self._rules.statuses or self._lease is None:
            return None
        error = AnswerRefused(f"the backend answered {head.status}")
        asked = retry_after(head, time.time())
        if asked is not None:
            self._lease.stats.spared_until = trio.current_time() + asked
        return error if self.another(error) else None

    def another(self, error: ProxyError) -> bool:
        """Whether there is one more try after this error; its backend is chosen then, and `take` has it."""
        if self._next is not None:
            return True  # decided when the answer came
        stale = isinstance(error, StaleConnection)
        known = isinstance(error, RefusedBefore)
        if self._rules.attempts and ((known and len(self._tried) < MOST_PASSED_OVER) or (stale and not self.fresh)):
            # Nobody was asked: where many backends die at once, these must not use up what is for those that live.
            self._count -= 1
        if self._lease is None or not self._may_retry(error):
            return False
        if not stale:  # else its backend is fine, only the kept connection was not
            self._tried.add(self._lease.backend.id)
            if not self._others_left():
                return False
        now = trio.current_time()
        counters = self._plane.metrics.service(self._match.route.service)
        charged = is_charged(error)
        if charged and not self._stats.budget.allows(now, self._stats.requests, self._rules.budget):
            counters.retries_denied += 1
            return False
        try:
            self._next = self._plane.balancer.pick(
                self._stats, self._tried | self._spared(now, charged=charged), self._wish
            )
        except NoBackend:
            return False
        if charged:
            self._stats.budget.spend()
        if not known:
            counters.retries[error.code] += 1
            self._request.record.note_retry(self._lease.backend.id, error.code)
        self.pause = pause_before(error, tries=self._count, backoff=self._rules.backoff, rng=self._plane.rng)
        self.fresh = self.fresh or stale
        return True

    def take(self) -> Lease:
        """The lease of the next try, which `another` has promised. It is the caller's now, to `begin` with."""
        assert self._next is not None
        lease, self._next = self._next, None
        return lease

    def give_back(self) -> None:
        """All is over: release what `another` has chosen for a try that did not come."""
        if self._next is not None:
            self.take().release()

    def _may_retry(self, error: ProxyError) -> bool:
        request, rules = self._request, self._rules
        return not request.response_begun and may_retry(
            error,
            idempotent=self._idempotent,
            tries=self._count,
            attempts=rules.attempts,
            at_hand=not request.consumed,
            small=request.is_small(rules.replay_bytes),
        )

    def _others_left(self) -> bool:
        mine = self._lease.backend.id if self._lease is not None else None
        return any(one != mine and one not in self._tried for one in self._stats.backends)  # the table may be new

    def _spared(self, now: float, *, charged: bool) -> set[str]:
        """Backends that have asked to be left alone: second tries of what was sent do not go there."""
        if not charged:
            return set()
        return {one.id for one in self._stats.backends.values() if one.spared_until > now}
