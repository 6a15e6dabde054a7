"""The ejections of one route: who goes, for how long, how many at a time, and who is told."""

from __future__ import annotations

import time
from collections.abc import Mapping

from trioproxy.config.schema import PassiveHealthConfig
from trioproxy.control.messages import BackendChange
from trioproxy.policy.ejection import Ejection, EjectionRules, Evidence
from trioproxy.policy.latency import PENDING
from trioproxy.proxy.backend_stats import BackendStats
from trioproxy.proxy.findings import Findings
from trioproxy.routing.route import Route, RoutePassive


class Ejections:
    """Judges what the requests of a route met. What it changes has to be arranged anew: it says so by returning True.

    Only backends that the operator lets serve are ejected; how many may be is a part of those.
    """

    __slots__ = ("_findings", "_rules", "backends", "route")

    def __init__(self, findings: Findings, route: Route, backends: Mapping[str, BackendStats]) -> None:
        self._findings = findings
        self._rules: tuple[PassiveHealthConfig, RoutePassive, EjectionRules] | None = None
        self.route = route
        self.backends = backends

    @property
    def rules(self) -> EjectionRules:
        """In force now."""
        config, own, known = self._findings.health.passive, self.route.passive, self._rules
        if known is None or known[0] is not config or known[1] is not own:
            known = self._rules = (config, own, EjectionRules.of(config, own))
        return known[2]

    def failure(self, one: BackendStats, *, trial: bool, counts: bool = True) -> bool:
        """A request failed, and the backend is to blame. `counts`: as one of several in a row."""
        now, rules = self._findings.clock(), self.rules
        if one.latency is not None:  # or the fastest way to fail would look like the best backend
            one.latency.observe(PENDING, now)
        ejected = one.ejected
        if ejected is not None:
            if not trial or now < ejected.until:
                return False
            ejected.begin(now, rules.eject_for, ejected.reason)
            self._tell(one, now)
            return True
        if one.evidence is None:
            one.evidence = Evidence()
        reason = one.evidence.failure(now, one.outcomes, rules, counts=counts)
        if reason is None or one.admin != "enabled" or not self._has_room(rules):
            return False
        if one.ejection is None:
            one.ejection = Ejection()
        one.ejection.begin(now, rules.eject_for, reason)
        one.evidence.clear()
        self._tell(one, now)
        return True

    def success(self, one: BackendStats) -> bool:
        """The request that tried an ejected backend went well."""
        return self.let_return(one, "a request went well")

    def let_return(self, one: BackendStats, reason: str | None) -> bool:
        """End an ejection. `reason`: to be told to the others; None when it was they who said so."""
        ejected = one.ejected
        if ejected is None:
            return False
        now = self._findings.clock()
        ejected.end(now)
        if reason is not None:
            self._findings.tell(
                BackendChange(self.route.key, one.id, "healthy", "ejected", reason, time.time()),
            )
        return True

    def follow(self, one: BackendStats, seconds: float, reason: str) -> bool:
        """Another forwarder has ejected a backend, for so many seconds from now on."""
        if one.ejected is None and (one.admin != "enabled" or not self._has_room(self.rules)):
            return False
        if one.ejection is None:
            one.ejection = Ejection()
        now = self._findings.clock()
        one.ejection.follow(now, now + seconds, reason)
        if one.evidence is not None:
            one.evidence.clear()
        return True

    def fit(self) -> None:
        """Let return who is too many after a change of the route or the rules: those whose time is over first."""
        ejected = [one for one in self._serving() if one.ejected is not None]
        surplus = len(ejected) - self.rules.ceiling(len(self._serving())) if ejected else 0
        if surplus > 0:
            ejected.sort(key=lambda one: one.ejection.until if one.ejection is not None else 0.0)
            for one in ejected[:surplus]:
                self.let_return(one, "too many would be ejected")

    def _has_room(self, rules: EjectionRules) -> bool:
        serving = self._serving()
        return sum(one.ejected is not None for one in serving) < rules.ceiling(len(serving))

    def _serving(self) -> list[BackendStats]:
        return [one for one in self.backends.values() if one.admin == "enabled"]

    def _tell(self, one: BackendStats, now: float) -> None:
        ejected = one.ejected
        assert ejected is not None
        at = time.time()
        self._findings.tell(
            BackendChange(
                self.route.key, one.id, "ejected", "healthy", ejected.reason, at, until=at + ejected.until - now
            )
        )
