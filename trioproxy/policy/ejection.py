"""Passive health: what the requests that a backend serves tell of it, and when it is to be left alone for a while.

A failure is an error of the backend's side, or an answer with one of the `statuses`. Enough of them in a row eject a
backend, or too many within a window, where any 5xx counts. What clients cause, or this worker, is neither good nor bad.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trioproxy.config.schema import PassiveHealthConfig
from trioproxy.routing.route import RoutePassive, parse_statuses

LONGEST = 300.0
"""Seconds of the longest ejection."""
STEADY = 300.0
"""Seconds after its return in which a backend must not be ejected, for its next ejection to be a first one again."""


@dataclass(frozen=True, slots=True)
class EjectionRules:
    """When a route's backends are ejected, and for how long. Seconds; see `[health.passive]`."""

    failures: int
    statuses: frozenset[int]
    failure_rate: float
    window: float
    min_requests: int
    eject_for: float
    max_ejected: float

    @classmethod
    def of(cls, config: PassiveHealthConfig, own: RoutePassive) -> EjectionRules:
        """The route's rules where it has its own, else the configuration's."""
        return cls(
            failures=config.failures if own.failures is None else own.failures,
            statuses=parse_statuses(config.statuses),
            failure_rate=config.failure_rate if own.failure_rate is None else own.failure_rate,
            window=config.window,
            min_requests=config.min_requests,
            eject_for=config.eject_for if own.eject_for is None else own.eject_for,
            max_ejected=config.max_ejected if own.max_ejected is None else own.max_ejected,
        )

    def ceiling(self, backends: int) -> int:
        """How many of so many backends may be ejected at a time."""
        return math.floor(backends * self.max_ejected + 1e-9)  # 0.1 * 30 is less than 3, in binary


@dataclass(slots=True)
class Evidence:
    """The failures of one backend. A backend that never failed has none of this."""

    in_a_row: int = 0
    in_window: int = 0
    _since: float = -math.inf
    _outcomes: int = 0

    def failure(self, now: float, outcomes: int, rules: EjectionRules, *, counts: bool) -> str | None:
        """A failure; the reason to eject the backend, or None.

        `outcomes`: how many requests had one, this one included, since whenever. `counts`: as one in a row; else it
        is a 5xx that matters to the rate only.
        """
        if now - self._since >= rules.window:
            self._since, self._outcomes, self.in_window = now, outcomes - 1, 0
        self.in_window += 1
        if counts:
            self.in_a_row += 1
            if rules.failures and self.in_a_row >= rules.failures:
                return f"{self.in_a_row} failures in a row"
        seen = outcomes - self._outcomes
        if rules.failure_rate and seen >= rules.min_requests and self.in_window >= rules.failure_rate * seen:
            return f"{self.in_window} of {seen} requests failed"
        return None

    def clear(self) -> None:
        """Begin anew, as when it is ejected: what it did before is paid for."""
        self.in_a_row = self.in_window = 0
        self._since = -math.inf


@dataclass(slots=True)
class Ejection:
    """Whether one backend is left alone. Times in seconds, on any one clock."""

    active: bool = False
    until: float = 0.0  # then a request may try it
    reason: str = ""
    times: int = 0  # ejections without a steady time between them
    on_trial: bool = False  # that request is on its way
    _returned: float = -math.inf

    def begin(self, now: float, first: float, reason: str) -> None:
        """Eject it, for `first` seconds or twice as long as the last time; also when a trial has failed."""
        if not self.active and now - self._returned >= STEADY:
            self.times = 0
        # The exponent is bounded because a float is: 2.0 ** 1024 is an error.
        self._set(now + min(first * 2.0 ** min(self.times, 32), LONGEST), reason)

    def follow(self, now: float, until: float, reason: str) -> None:
        """Eject it because another forwarder did.

        While it is ejected here, that is the same ejection, however many forwarders have found it out by themselves
        and told of it: only one that comes when the time was over, after a trial elsewhere, is one more.
        """
        if self.active and now < self.until:
            self.until = max(self.until, until)
            return
        if not self.active and now - self._returned >= STEADY:
            self.times = 0
        self._set(until, reason)

    def _set(self, until: float, reason: str) -> None:
        self.active, self.until, self.reason, self.on_trial = True, until, reason, False
        self.times += 1

    def due(self, now: float) -> bool:
        """Whether one request should try it."""
        return self.active and not self.on_trial and now >= self.until

    def end(self, now: float) -> None:
        """Let it return."""
        self.active = self.on_trial = False
        self._returned = now
