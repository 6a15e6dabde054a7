"""Which backend serves a request, and what is known about each: in flight, failures, the operator's will.

State is made when a route first gets traffic and survives table changes, so that a change touches only its own
route.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from trioproxy.config.schema import TimeoutsConfig
from trioproxy.control.messages import AdminState, BackendInfo, BackendState, News, TargetHealth
from trioproxy.errors import NoBackend, ProxyError, Retry, Side
from trioproxy.policy.balancing import SmoothWeighted
from trioproxy.proxy.waits import Waits
from trioproxy.routing.route import Backend, Health, Route, RouteKey
from trioproxy.routing.table import Table

RETRY_AFTER = 5  # seconds; what a client is told when no backend can be used


@dataclass(slots=True)
class BackendStats:
    """One backend of one route in this forwarder."""

    backend: Backend
    admin: AdminState = "enabled"
    in_flight: int = 0
    requests: int = 0
    failures: int = 0  # in a row, the backend's own fault
    last_error: str | None = None
    last_error_at: float | None = None
    ill: str | None = None  # what active checks say against it
    ejected_until: float = 0.0  # seconds since the epoch
    ejected_for: str = ""

    @property
    def id(self) -> str:
        """Name of the backend within its route."""
        return self.backend.id

    @property
    def weight(self) -> int:
        """Share of the traffic."""
        return self.backend.weight

    @property
    def state(self) -> BackendState:
        """What an operator sees."""
        if self.admin != "enabled":
            return self.admin
        if self.ill is not None:
            return "unhealthy"
        return "ejected" if self.ejected_until > time.time() else "healthy"


@dataclass(slots=True)
class RouteStats:
    """One route in this forwarder."""

    route: Route
    backends: dict[str, BackendStats] = field(default_factory=dict[str, BackendStats])
    leaving: list[BackendStats] = field(default_factory=list[BackendStats])  # removed, and still in use
    removed: bool = False  # the table does not have the route any more
    chooser: SmoothWeighted = field(default_factory=SmoothWeighted)
    requests: int = 0
    bytes: int = 0
    in_flight: int = 0
    last_activity: float = 0.0  # seconds since the epoch
    _waits: tuple[TimeoutsConfig, Route, Waits] | None = None

    def waits(self, config: TimeoutsConfig) -> Waits:
        """The waits of its requests under this configuration."""
        known = self._waits
        if known is None or known[0] is not config or known[1] is not self.route:
            known = self._waits = (config, self.route, Waits.of(config, self.route))
        return known[2]

    def update(self, route: Route) -> None:
        """Take over a new definition; what is known of kept backends stays, and of one that comes back while in use."""
        self.removed = False
        if route is self.route and self.backends:
            return
        self.route = route
        known = {(one.id, one.backend.key): one for one in (*self.leaving, *self.backends.values())}
        self.backends = {}
        for backend in route.backends:
            stats = known.pop((backend.id, backend.key), None) or BackendStats(backend)
            stats.backend = backend
            self.backends[backend.id] = stats
        self.leaving = [one for one in known.values() if one.in_flight]

    def in_use(self) -> Iterator[Backend]:
        """The backends that serve something now, also those that the route does not have any more."""
        for one in (*self.backends.values(), *self.leaving):
            if one.in_flight:
                yield one.backend


@dataclass(slots=True)
class Lease:
    """A backend chosen for one try: `served` or `failed` when it came to an end, and `release` exactly once."""

    stats: BackendStats

    @property
    def backend(self) -> Backend:
        """Whom to connect to."""
        return self.stats.backend

    def served(self) -> None:
        """The backend did its part."""
        self.stats.failures = 0

    def failed(self, error: ProxyError) -> None:
        """Remember an error that is the backend's own fault; hanging up an idle connection is none."""
        if error.side is Side.UPSTREAM and error.retry is not Retry.REUSED:
            self.stats.failures += 1
            self.stats.last_error = f"{error.code}: {error.detail}"
            self.stats.last_error_at = time.time()

    def release(self) -> None:
        """The try is over, however it ended."""
        self.stats.in_flight -= 1


class Balancer:
    """Owner of the per-route state of a forwarder."""

    def __init__(self) -> None:
        self._routes: dict[RouteKey, RouteStats] = {}
        self._health: dict[tuple[str, Health], TargetHealth] = {}

    def route(self, route: Route) -> RouteStats:
        """The state of a route, made or brought up to date as needed."""
        stats = self._routes.get(route.key)
        if stats is None:
            stats = self._routes[route.key] = RouteStats(route)
        known = stats.route is route and bool(stats.backends)
        stats.update(route)
        if not known:
            self._examine(stats)
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

    def pick(self, stats: RouteStats, tried: Iterable[str] = ()) -> Lease:
        """Choose a backend that is not among `tried`. Raises NoBackend."""
        usable = [one for one in stats.backends.values() if one.state == "healthy" and one.id not in tried]
        chosen = stats.chooser.choose(usable)
        if chosen is None:
            reason = (
                "this service has no backend" if not stats.backends else "no backend of this service can be used now"
            )
            raise NoBackend(reason, retry_after=RETRY_AFTER)
        chosen.in_flight += 1
        chosen.requests += 1
        return Lease(chosen)

    def forget(self, table: Table, changed: Collection[RouteKey] | None = None) -> None:
        """Drop the state of routes that the table no longer has, once nobody uses them any more.

        `changed`: the keys that may differ from the table before; None = any.
        """
        for stats in self.known(changed):
            key = stats.route.key
            route = table.get(key)
            if route is not None:
                stats.update(route)
                self._examine(stats)
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
        stats = self.route(route).backends.get(backend_id)
        if stats is None:
            return False
        stats.admin = state
        return True

    def set_health(self, states: Iterable[TargetHealth], *, whole: bool) -> None:
        """Take results of active checks; `whole`: they are all there are."""
        if whole:
            self._health.clear()
        for state in states:
            if state.up is None:
                self._health.pop((state.address, state.spec), None)
            else:
                self._health[state.address, state.spec] = state
        for stats in self._routes.values():
            self._examine(stats)

    def _examine(self, stats: RouteStats) -> None:
        spec = stats.route.health
        if spec is None or spec.kind == "off":
            for one in stats.backends.values():
                one.ill = None
            return
        for one in stats.backends.values():
            known = self._health.get((one.backend.key, spec))
            if known is None:
                one.ill = "not checked yet" if spec.first_check else None
            else:
                one.ill = None if known.up else known.reason

    def set_ejected(self, route: Route, backend_id: str, until: float, reason: str) -> bool:
        """Another forwarder ejected a backend, or let it return; False when the route has none of that id."""
        stats = self.route(route).backends.get(backend_id)
        if stats is None:
            return False
        stats.ejected_until, stats.ejected_for = until, reason
        return True

    def news(self) -> News:
        """What was found out about backends since the last call."""
        return News()

    def routes(self) -> Iterable[RouteStats]:
        """Every route that has had traffic or an operator's word."""
        return self._routes.values()

    def describe(self) -> tuple[BackendInfo, ...]:
        """Every backend that has had traffic or an operator's word."""
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
                reason=one.ill or (one.ejected_for if one.state == "ejected" else None),
            )
            for stats in self._routes.values()
            for one in stats.backends.values()
        )
