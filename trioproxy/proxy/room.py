"""What the pool knows of one backend address: its connections, who waits for one, and whether it refused."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from trioproxy.config.schema import PoolConfig
from trioproxy.errors import ConnectFailed, RefusedBefore
from trioproxy.policy.backoff import Backoff
from trioproxy.proxy.upstream import Upstream

LONGEST_REFUSAL = 8
"""How far `pool.refused_for` grows when a backend goes on refusing: as a multiple of it."""
REMEMBER_SECONDS = 10.0
"""How long after a refusal the next one counts as one more in a row."""


@dataclass(slots=True, eq=False)
class Waiter:
    """A request in the queue. Once `event` is set, `granted` holds a connection, or None as leave to dial.

    Neither counts when there is a reason in `refused`.
    """

    event: trio.Event = field(default_factory=trio.Event)
    granted: Upstream | None = None
    refused: RefusedBefore | None = None


@dataclass(slots=True)
class Refusal:
    """A backend that refuses: until when it is left alone, on trio's clock, and what it said."""

    why: str
    until: float
    backoff: Backoff

    def error(self, now: float) -> RefusedBefore:
        """What a request gets that is not dialled for."""
        return RefusedBefore(self.why, retry_after=max(1, math.ceil(self.until - now)))


@dataclass(slots=True)
class Room:
    """All that the pool knows of one backend address."""

    idle: deque[Upstream] = field(default_factory=deque[Upstream])  # newest last
    leased: int = 0
    dialing: int = 0
    waiters: deque[Waiter] = field(default_factory=deque[Waiter])
    refusal: Refusal | None = None

    @property
    def unused(self) -> bool:
        """Whether nothing is lost when it is forgotten."""
        return not (self.idle or self.leased or self.dialing or self.waiters or self.refusal)

    def take_idle(self, now: float, dead: list[Upstream], *, sure: bool) -> Upstream | None:
        """The newest usable idle connection; those found unusable on the way go to `dead`. `sure`: see `usable`."""
        while self.idle:
            upstream = self.idle.pop()
            if upstream.usable(now, sure=sure):
                self.leased += 1
                return upstream
            dead.append(upstream)
        return None

    def may_dial(self, config: PoolConfig) -> bool:
        """Whether the limits allow one more attempt; after a refusal there is one at a time."""
        dials = config.dials_per_backend if self.refusal is None else 1
        return self.dialing < dials and (
            not config.max_per_backend or self.leased + self.dialing + len(self.idle) < config.max_per_backend
        )

    def wake(self, config: PoolConfig) -> None:
        """Give waiters leave to dial, as far as the limits allow; first come, first served."""
        while self.waiters and self.may_dial(config):
            self.dialing += 1
            self.waiters.popleft().event.set()

    def check_refusal(self, now: float) -> None:
        """Raise RefusedBefore while the backend is left alone."""
        if self.refusal is not None and now < self.refusal.until:
            raise self.refusal.error(now)

    def refused(self, error: ConnectFailed, now: float, refused_for: float, rng: Callable[[], float]) -> None:
        """A dial was refused: leave the backend alone for a while, and let those go who wait for a dial.

        `refused_for` is in seconds, 0 = not at all.
        """
        if not refused_for:
            self.refusal = None
            return
        refusal = self.refusal
        if refusal is None:
            backoff = Backoff(refused_for, refused_for * LONGEST_REFUSAL, steady=math.inf, rng=rng)
            refusal = self.refusal = Refusal(error.detail, now + backoff.pause(0.0), backoff)
        elif now >= refusal.until:  # else one of several that were on their way together
            refusal.why = error.detail
            refusal.until = now + refusal.backoff.pause(0.0)
        for waiter in self.waiters:
            waiter.refused = refusal.error(now)
            waiter.event.set()
        self.waiters.clear()

    def forget_refusal(self, now: float) -> None:
        """Once it is long ago, the next one is the first."""
        if self.refusal is not None and now >= self.refusal.until + REMEMBER_SECONDS:
            self.refusal = None
