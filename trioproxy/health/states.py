"""What each backend is, put together from all that is said about it: by operators, by checks, by forwarders.

Only backends that are something else than healthy are kept here. Pure: the time comes in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from trioproxy.control.messages import AdminState, BackendChange, BackendState
from trioproxy.routing.route import RouteKey

_BY_OPERATOR: dict[AdminState, str] = {
    "enabled": "an operator has enabled it",
    "draining": "an operator is draining it",
    "disabled": "an operator has disabled it",
}


@dataclass(slots=True)
class _Standing:
    """What speaks against one backend."""

    admin: AdminState = "enabled"
    ill: str | None = None  # what checks say
    ejected_until: float = 0.0  # seconds since the epoch; 0.0 = it is not ejected
    ejected_for: str = ""
    ejected_at: str = ""  # the address at which
    since: float = 0.0

    @property
    def state(self) -> BackendState:
        """An operator's word counts most, then the checks, then what requests have met."""
        if self.admin != "enabled":
            return self.admin
        if self.ill is not None:
            return "unhealthy"
        return "ejected" if self.ejected_until else "healthy"

    @property
    def spotless(self) -> bool:
        return self.admin == "enabled" and self.ill is None and not self.ejected_until

    @property
    def reason(self) -> str:
        if self.admin != "enabled":
            return _BY_OPERATOR[self.admin]
        return self.ill if self.ill is not None else self.ejected_for


@dataclass(frozen=True, slots=True)
class Ejection:
    """A backend that forwarders do not use for a while."""

    route: RouteKey
    backend_id: str
    address: str  # `Backend.key`; where another takes its place, that one is not ejected
    until: float  # seconds since the epoch; 0.0 = it is over
    reason: str


class States:
    """Owner of it all. Each method that takes something in returns what it has changed, or None."""

    def __init__(self) -> None:
        self._routes: dict[RouteKey, dict[str, _Standing]] = {}

    def set_admin(self, route: RouteKey, backend_id: str, admin: AdminState, at: float) -> BackendChange | None:
        """An operator has spoken."""
        standing, before = self._look(route, backend_id)
        standing.admin = admin
        return self._conclude(route, backend_id, standing, before, _BY_OPERATOR[admin], at)

    def set_checked(
        self, route: RouteKey, backend_id: str, ill: str | None, why: str, at: float
    ) -> BackendChange | None:
        """Checks find it ill for a reason, or well (None). `why` says what has changed their mind."""
        standing, before = self._look(route, backend_id)
        standing.ill = ill
        return self._conclude(route, backend_id, standing, before, why, at)

    def set_ejected(self, ejection: Ejection, at: float) -> BackendChange | None:
        """A forwarder has ejected it."""
        standing, before = self._look(ejection.route, ejection.backend_id)
        standing.ejected_until = max(standing.ejected_until, ejection.until)
        standing.ejected_for, standing.ejected_at = ejection.reason, ejection.address
        return self._conclude(ejection.route, ejection.backend_id, standing, before, ejection.reason, at)

    def set_returned(self, route: RouteKey, backend_id: str, why: str, at: float) -> BackendChange | None:
        """A forwarder has let it return."""
        standing, before = self._look(route, backend_id)
        standing.ejected_until, standing.ejected_for = 0.0, ""
        return self._conclude(route, backend_id, standing, before, why, at)

    def keep(self, route: RouteKey, known: Mapping[str, str], at: float) -> list[BackendChange]:
        """The route has these backends, at these addresses, and no others: what that changes for them."""
        changes: list[BackendChange] = []
        for backend_id, standing in list(self._routes.get(route, {}).items()):
            address = known.get(backend_id)
            if address is None:
                self._drop(route, backend_id)
            elif standing.ejected_until and standing.ejected_at != address:
                change = self.set_returned(route, backend_id, "is at another address now", at)
                changes += [change] if change is not None else []
        return changes

    def unwell(self) -> Iterator[BackendChange]:
        """Every backend that is not healthy, as if it had just become so."""
        for route, standings in self._routes.items():
            for backend_id, standing in standings.items():
                state = standing.state
                yield BackendChange(
                    route, backend_id, state, "healthy", standing.reason, standing.since, standing.ejected_until
                )

    def ejections(self) -> list[Ejection]:
        """Those that are not over, also where the time is: then a request is to try the backend."""
        return [
            Ejection(route, backend_id, standing.ejected_at, standing.ejected_until, standing.ejected_for)
            for route, standings in self._routes.items()
            for backend_id, standing in standings.items()
            if standing.ejected_until
        ]

    def _look(self, route: RouteKey, backend_id: str) -> tuple[_Standing, BackendState]:
        standing = self._routes.setdefault(route, {}).setdefault(backend_id, _Standing())
        return standing, standing.state

    def _conclude(
        self, route: RouteKey, backend_id: str, standing: _Standing, before: BackendState, why: str, at: float
    ) -> BackendChange | None:
        state = standing.state
        if standing.spotless:
            self._drop(route, backend_id)
        if state == before:
            return None
        standing.since = at
        return BackendChange(route, backend_id, state, before, why, at, standing.ejected_until)

    def _drop(self, route: RouteKey, backend_id: str) -> None:
        del self._routes[route][backend_id]
        if not self._routes[route]:
            del self._routes[route]
