"""One address that is checked in one way, and what the checks have come to. Pure: time and chance come in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from trioproxy.control.messages import TargetHealth
from trioproxy.routing.route import Backend, Health, RouteKey

FASTER = 5
"""By how much checks come faster while a target is changing its state, or is not known yet."""
SHORTEST_PAUSE = 0.1
"""Seconds between two checks of a target, at least."""
JITTER = 0.1
"""Share of a pause by which it is longer or shorter, so that checks do not march in step."""

TargetKey = tuple[str, Health]
"""Address (`Backend.key`) and way of checking: routes with both in common share a target."""


def key_of(backend: Backend, spec: Health) -> TargetKey:
    """The target that checks this backend in this way."""
    return (backend.key, spec)


@dataclass(slots=True, eq=False)
class Target:
    """What is known of it. `spec` has all keys resolved; `users` are backends of routes, in the order they came."""

    backend: Backend
    spec: Health
    users: dict[tuple[RouteKey, str], None] = field(default_factory=dict[tuple[RouteKey, str], None])
    up: bool | None = None  # None: not known yet
    reason: str = ""  # why it is up or down, for people
    since: float = 0.0  # seconds since the epoch; when it became so
    changed_at: float = 0.0  # the check that made it so
    checked_at: float | None = None  # the last check
    error: str | None = None  # what the last check met
    gone: bool = False  # nobody uses it any more
    _streak: int = 0  # checks in a row that speak against `up`
    _leaning: bool | None = None  # which way they point

    @property
    def key(self) -> TargetKey:
        """What it is known by."""
        return key_of(self.backend, self.spec)

    @property
    def settled(self) -> bool:
        """Whether the last check said nothing new."""
        return self.up is not None and not self._streak

    def note(self, error: str | None, now: float) -> bool:
        """Take the result of a check, made at `now` (epoch seconds): None = it passed. Whether `up` has changed."""
        good = error is None
        self.checked_at, self.error = now, error
        if good is self.up:
            self._streak, self._leaning = 0, None
            return False
        if good is not self._leaning:
            self._streak, self._leaning = 0, good
        self._streak += 1
        if self._streak < self._needed(good):
            return False
        times = f"{self._streak} checks in a row" if self._streak > 1 else "a check"
        self.reason = f"passed {times}" if error is None else f"failed {times}: {error}"
        self.up, self.since, self.changed_at = good, now, now
        self._streak, self._leaning = 0, None
        return True

    def _needed(self, good: bool) -> int:
        """Checks in a row that it takes. Of one that is not known yet, the first good one is enough."""
        if self.up is None and (good or self.spec.first_check):
            return 1
        return self.spec.healthy_after if good else self.spec.unhealthy_after

    def pause(self, rng: Callable[[], float]) -> float:
        """Seconds until the next check. `rng` tells a number from 0 to 1."""
        pause = self.spec.interval if self.settled else max(SHORTEST_PAUSE, self.spec.interval / FASTER)
        return pause * (1 - JITTER + 2 * JITTER * rng())

    def told(self) -> TargetHealth:
        """What forwarders are told of it."""
        up = None if self.gone else self.up
        return TargetHealth(self.backend.key, self.spec, up, self.reason, self.since, self.changed_at)

    def adopt(self, told: TargetHealth) -> None:
        """Begin with what another generation of this worker has found out."""
        self.up, self.reason, self.since, self.changed_at = told.up, told.reason, told.since, told.checked_at
