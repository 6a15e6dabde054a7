"""Which backends of a route can be chosen now, and choosing one.

What can be known beforehand is: `arrange` works it out, and a choice is then nearly free until something changes. As
long as a backend is ejected or in slow start, time is such a change.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from trioproxy.errors import NoBackend
from trioproxy.policy.balancing import Chooser, make_chooser
from trioproxy.policy.latency import Latency
from trioproxy.policy.slow_start import STEPS, grown
from trioproxy.policy.sticky import pin_for
from trioproxy.proxy.backend_stats import BackendStats
from trioproxy.proxy.ejections import Ejections
from trioproxy.proxy.findings import Findings
from trioproxy.routing.route import Route

RETRY_AFTER = 5  # seconds; what a client is told when no backend can be used, at most


class Wish(NamedTuple):
    """What a request has to say about the choice, on routes that ask for it."""

    client: str  # address
    pins: Sequence[str] = ()  # values of the route's cookie


NO_WISH = Wish("")


class Choice(NamedTuple):
    """Who was chosen.

    `trial`: it is not well, and may return when this goes well. `pin`: for the client's cookie; None = it is there.
    """

    stats: BackendStats
    trial: bool = False
    pin: str | None = None


class Turnout:
    """Of one route. `calm` is the generation of findings for which `next` may be called without more ado."""

    __slots__ = (
        "_arranged",
        "_candidates",
        "_chooser",
        "_due",
        "_findings",
        "_only",
        "_pins",
        "_secret",
        "_trial",
        "_usable",
        "backends",
        "calm",
        "ejections",
        "route",
    )

    def __init__(self, findings: Findings, route: Route, backends: Mapping[str, BackendStats]) -> None:
        self._findings = findings
        self.ejections = Ejections(findings, route, backends)
        self._chooser: Chooser[BackendStats] | None = None
        self._pins: dict[str, BackendStats] = {}
        self._secret = b""  # that the pins were made with
        self._candidates: list[BackendStats] = []
        self._usable: list[BackendStats] = []
        self._only: BackendStats | None = None
        self._trial: BackendStats | None = None  # whose turn it is to be tried
        self._due = math.inf  # when time alone makes a difference
        self._arranged = -1  # generation of the findings in the arrangement; -1: it is out of date
        self.calm = -1
        self.route = route
        self.backends = backends

    def update(self, route: Route, backends: Mapping[str, BackendStats]) -> None:
        """Take over a new definition of the route, and its backends."""
        if route.balance != self.route.balance:
            self._chooser = None
        self.route = self.ejections.route = route
        self.backends = self.ejections.backends = backends
        self._secret = b""
        self.disturb()

    def disturb(self) -> None:
        """Something about a backend has changed."""
        self.calm = -1
        if self._arranged >= 0:
            self._arranged = -2  # not the first arrangement: who appears in the next one is new or back

    def next(self) -> BackendStats:
        """Whose turn it is, while `calm` holds."""
        if self._only is not None:
            return self._only
        assert self._chooser is not None
        return self._chooser.choose("")

    def select(self, tried: Collection[str], wish: Wish) -> Choice:
        """Choose a backend that is not among `tried`. Raises NoBackend."""
        now = self._refresh()
        pinned = self._pinned(wish)
        if pinned is not None and pinned.id not in tried and pinned.keeps_clients():
            return Choice(pinned)
        chosen, trial = self._select(tried, wish, now, pinned)
        pin = None
        if self.route.sticky and chosen is not pinned:
            pin = next(value for value, one in self._pins.items() if one is chosen)
        return Choice(chosen, trial, pin)

    def _select(
        self, tried: Collection[str], wish: Wish, now: float, pinned: BackendStats | None
    ) -> tuple[BackendStats, bool]:
        trial = self._trial
        if trial is not None and not tried:
            assert trial.ejection is not None
            trial.ejection.on_trial = True
            self.disturb()
            return trial, True
        if not self._usable:
            return self._out_of_despair(tried, wish, now, pinned), True
        if not tried:
            return self._only or self._choose(self._candidates, wish), False
        left = [one for one in self._candidates if one.id not in tried] or [
            one for one in self._usable if one.id not in tried
        ]
        if left:
            return self._choose(left, wish), False
        return self._last_resort(tried), True

    def _last_resort(self, tried: Collection[str]) -> BackendStats:
        """When all who are well have failed a request: one that is ejected may be back before its time is over.

        As with any trial it is one request at a time, which would fail otherwise.
        """
        found: BackendStats | None = None
        soonest = math.inf
        for one in self.backends.values():
            ejected = one.ejected
            if ejected is None or ejected.on_trial or ejected.until >= soonest or one.id in tried:
                continue
            if one.admin == "enabled" and one.ill is None:
                found, soonest = one, ejected.until
        if found is None:
            raise NoBackend("no other backend of this service can be used now", retry_after=RETRY_AFTER)
        assert found.ejection is not None
        found.ejection.on_trial = True
        self.disturb()
        return found

    def _choose(self, candidates: list[BackendStats], wish: Wish) -> BackendStats:
        if len(candidates) == 1:
            return candidates[0]
        assert self._chooser is not None
        if candidates is self._candidates:
            return self._chooser.choose(wish.client)
        return self._chooser.choose_among(candidates, wish.client)

    def _out_of_despair(
        self, tried: Collection[str], wish: Wish, now: float, pinned: BackendStats | None
    ) -> BackendStats:
        """When nobody is well: one who is not, if the route wants that."""
        panic = self._findings.health.panic if self.route.panic is None else self.route.panic
        left = [one for one in self.backends.values() if one.admin == "enabled" and one.id not in tried]
        if panic and left:
            return pinned if pinned in left else self._make_chooser().choose_among(left, wish.client)
        if not self.backends:
            raise NoBackend("this service has no backend", retry_after=RETRY_AFTER)
        soonest = min((one.ejected.until - now for one in left if one.ejected is not None), default=math.inf)
        raise NoBackend(
            "no backend of this service can be used now",
            retry_after=RETRY_AFTER if soonest > RETRY_AFTER else max(1, math.ceil(soonest)),
        )

    def _pinned(self, wish: Wish) -> BackendStats | None:
        for pin in wish.pins:
            if pin in self._pins:
                return self._pins[pin]
        return None

    def observe(self, one: BackendStats, seconds: float) -> None:
        """A backend whose latency is measured has answered after so many seconds."""
        assert one.latency is not None
        one.latency.observe(seconds, self._findings.clock())

    def look(self) -> None:
        """See how the backends are now, for a listing."""
        now = self._findings.clock()
        for one in self.backends.values():
            one.ill = self._findings.illness(one.backend, self.route.health)
            one.served_out = one.ejected is not None and now >= one.ejected.until

    # --- arranging -------------------------------------------------------------------------------------

    def _refresh(self) -> float:
        now = self._findings.clock()
        if self._arranged != self._findings.generation or now >= self._due:
            self.arrange(now)
        return now

    def arrange(self, now: float) -> None:
        """Work out who can be chosen."""
        findings, route = self._findings, self.route
        self.ejections.fit()
        first = self._arranged == -1
        self._trial, self._due = None, math.inf
        self._usable = []
        for one in self.backends.values():
            one.ill = findings.illness(one.backend, route.health)
            usable = self._is_usable(one, now)
            if usable:
                self._usable.append(one)
                if not one.usable and not first:
                    one.ramp_from = now
            one.usable = usable
        self._candidates = [one for one in self._usable if one.weight] or self._usable
        # When nobody can be chosen, the chooser is for who may be tried in panic.
        arranged = self._candidates or [one for one in self.backends.values() if one.admin == "enabled"]
        self._share_out(arranged, now)
        if len(arranged) > 1:
            chooser = self._make_chooser()
            chooser.arrange(arranged)
            for _ in range(findings.index if first else 0):
                chooser.choose("")
        self._only = self._candidates[0] if len(self._candidates) == 1 else None
        if route.sticky and self._secret is not findings.secret:
            self._secret = findings.secret
            self._pins = {pin_for(self._secret, route.key, one.backend): one for one in self.backends.values()}
        self._arranged = findings.generation
        ordinary = route.balance != "client_hash" and not route.sticky
        calm = ordinary and self._candidates and self._trial is None and self._due == math.inf
        self.calm = self._arranged if calm else -1

    def _is_usable(self, one: BackendStats, now: float) -> bool:
        if one.admin != "enabled" or one.ill is not None:
            return False
        ejected = one.ejected
        if ejected is None:
            return True
        if ejected.due(now):
            self._trial = self._trial or one
        elif not ejected.on_trial:
            self._due = min(self._due, ejected.until)
        return False

    def _share_out(self, candidates: Sequence[BackendStats], now: float) -> None:
        own = self.route.slow_start
        slow_start = self._findings.health.slow_start if own is None else own
        for one in candidates:
            elapsed = now - one.ramp_from
            one.share = float(one.weight or 1)
            if elapsed < slow_start and len(candidates) > 1:
                one.share *= grown(elapsed, slow_start)
                self._due = min(self._due, now + slow_start / STEPS)

    def _make_chooser(self) -> Chooser[BackendStats]:
        if self._chooser is None:
            self._chooser = make_chooser(self.route.balance, rng=self._findings.rng, clock=self._findings.clock)
        if self.route.balance == "random_two":
            for one in self.backends.values():
                one.latency = one.latency or Latency()
        return self._chooser
