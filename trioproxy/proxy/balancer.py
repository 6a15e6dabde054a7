"""Which backend serves a request, and what is known about each: in flight, failures, health, the operator's will.

State is made when a route first gets traffic and survives table changes, so that a change touches only its own
route.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterable

import trio

from trioproxy.config.schema import Config
from trioproxy.control.messages import AdminState, BackendInfo, News, TargetHealth
from trioproxy.proxy.backend_stats import BackendStats
from trioproxy.proxy.findings import Findings
from trioproxy.proxy.lease import Lease
from trioproxy.proxy.route_stats import RouteStats
from trioproxy.proxy.turnout import NO_WISH, RETRY_AFTER, Turnout, Wish
from trioproxy.routing.route import Route, RouteKey
from trioproxy.routing.table import Table

__all__ = ["RETRY_AFTER", "Balancer", "Lease", "RouteStats", "Wish"]


class Balancer:
    """Owner of the per-route state of a forwarder. `clock` tells seconds; `rng` a number from 0 to 1.

    `index`: which forwarder. Each begins with another backend, or the first ones would get all that is rare.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        clock: Callable[[], float] = trio.current_time,
        rng: Callable[[], float] = random.random,
        index: int = 0,
    ) -> None:
        self._routes: dict[RouteKey, RouteStats] = {}
        self._findings = Findings(config or Config(), clock, rng, index)

    def configure(self, config: Config) -> None:
        """Use these settings from now on."""
        self._findings.configure(config)

    def route(self, route: Route) -> RouteStats:
        """The state of a route, made or brought up to date as needed."""
        stats = self._routes.get(route.key)
        if stats is None:
            stats = self._routes[route.key] = self._make(route)
        stats.update(route)
        return stats

    def enter(self, route: Route) -> RouteStats:
        """A request of the route begins. `leave` when it has ended."""
        stats = self.route(route)
        stats.requests += 1
        stats.in_flight += 1
        return stats

    def leave(self, stats: RouteStats) -> None:
        """A request of the route has ended; after the last one of a removed route nothing is left of it."""
        stats.in_flight -= 1
        if stats.removed and not stats.in_flight:
            del self._routes[stats.route.key]

    def _make(self, route: Route) -> RouteStats:
        backends: dict[str, BackendStats] = {}
        return RouteStats(route, Turnout(self._findings, route, backends), backends)

    def pick(self, stats: RouteStats, tried: Collection[str] = (), wish: Wish | None = None) -> Lease:
        """Choose a backend that is not among `tried`: the first choice, then the next ones. Raises NoBackend.

        `wish`: what the request says about it, on routes that are sticky or go by the client.
        """
        turnout = stats.turnout
        if turnout.calm == self._findings.generation and not tried and wish is None:
            chosen = turnout.next()
            lease = Lease(turnout, chosen)
        else:
            chosen, trial, pin = turnout.select(tried, wish or NO_WISH)
            lease = Lease(turnout, chosen, trial, pin)
        chosen.in_flight += 1
        chosen.requests += 1
        return lease

    def forget(self, table: Table, changed: Collection[RouteKey] | None = None) -> None:
        """Drop the state of routes that the table no longer has, once nobody uses them any more.

        `changed`: the keys that may differ from the table before; None = any.
        """
        for stats in self.known(changed):
            key = stats.route.key
            route = table.get(key)
            if route is not None:
                stats.update(route)
            elif stats.in_flight:
                stats.removed = True
            else:
                del self._routes[key]

    def known(self, keys: Collection[RouteKey] | None) -> list[RouteStats]:
        """Those of these routes that have had traffic or an operator's word; None = of all routes."""
        if keys is None or len(keys) > len(self._routes):
            return list(self._routes.values())
        return [stats for key in keys if (stats := self._routes.get(key)) is not None]

    def set_admin(self, route: Route, backend_id: str, state: AdminState) -> bool:
        """Drain, disable or enable a backend; False when the route has none of that id."""
        stats = self.route(route)
        one = stats.backends.get(backend_id)
        if one is None:
            return False
        one.admin = state
        stats.turnout.disturb()
        return True

    def set_health(self, states: Iterable[TargetHealth], *, whole: bool) -> None:
        """Take results of active checks. `whole`: they are all there are."""
        self._findings.set_targets(states, whole=whole)

    def set_ejected(self, route: Route, backend_id: str, until: float, reason: str) -> bool:
        """Another forwarder ejected a backend, or let it return; False when the route has none of that id.

        `until` in seconds since the epoch; one that has passed lets it return.
        """
        stats = self.route(route)
        one = stats.backends.get(backend_id)
        if one is None:
            return False
        seconds, ejections = until - time.time(), stats.turnout.ejections
        if ejections.follow(one, seconds, reason) if seconds > 0 else ejections.let_return(one, None):
            stats.turnout.disturb()
        return True

    def news(self) -> News:
        """Which backends were ejected or let return here since the last call."""
        return self._findings.take_news()

    def routes(self) -> Iterable[RouteStats]:
        """Every route that has had traffic or an operator's word."""
        return self._routes.values()

    def describe(self) -> tuple[BackendInfo, ...]:
        """Every backend that has had traffic or an operator's word."""
        for stats in self._routes.values():
            stats.turnout.look()
        target = self._findings.target
        return tuple(
            BackendInfo(
                session_id=stats.route.session_id,
                service=stats.route.service,
                backend_id=one.id,
                address=one.backend.key,
                weight=one.weight,
                state=one.state,
                in_flight=one.in_flight,
                requests=one.requests,
                failures=one.failures,
                last_error=one.last_error,
                last_error_at=one.last_error_at,
                last_check_at=None if (found := target(one.backend, stats.route.health)) is None else found.checked_at,
                reason=one.reason,
            )
            for stats in self._routes.values()
            for one in stats.backends.values()
        )
