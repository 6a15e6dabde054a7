"""What a forwarder knows of one route."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from trioproxy.config.schema import Config
from trioproxy.control.messages import AdminState
from trioproxy.policy.budget import RetryBudget
from trioproxy.proxy.backend_stats import BackendStats
from trioproxy.proxy.turnout import Turnout
from trioproxy.proxy.waits import Waits
from trioproxy.routing.route import Backend, Route


@dataclass(slots=True, eq=False)
class RouteStats:
    """One route in this forwarder."""

    route: Route
    turnout: Turnout
    backends: dict[str, BackendStats] = field(default_factory=dict[str, BackendStats])
    leaving: list[BackendStats] = field(default_factory=list[BackendStats])  # removed, and still in use
    removed: bool = False  # the table does not have the route any more
    requests: int = 0
    bytes: int = 0
    in_flight: int = 0
    last_activity: float = 0.0  # seconds since the epoch
    budget: RetryBudget = field(default_factory=RetryBudget)
    _waits: tuple[Config, Route, Waits] | None = None

    def waits(self, config: Config) -> Waits:
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
        # An operator's word is about the name, wherever that leads.
        said: dict[str, AdminState] = {one.id: one.admin for one in self.backends.values()}
        self.backends = {}
        for backend in route.backends:
            stats = known.pop((backend.id, backend.key), None) or BackendStats(backend)
            stats.admin = said.get(backend.id, "enabled")
            stats.backend = backend
            self.backends[backend.id] = stats
        self.leaving = [one for one in known.values() if one.in_flight]
        self.turnout.update(route, self.backends)

    def in_use(self) -> Iterator[Backend]:
        """The backends that serve something now, also those that the route does not have any more."""
        for one in (*self.backends.values(), *self.leaving):
            if one.in_flight:
                yield one.backend
