"""What a forwarder knows of one backend of one route."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trioproxy.control.messages import AdminState, BackendState
from trioproxy.policy.ejection import Ejection, Evidence
from trioproxy.policy.latency import UNKNOWN, Latency
from trioproxy.routing.route import Backend


@dataclass(slots=True, eq=False)
class BackendStats:
    """One backend of one route in this forwarder. What most never need is made when it is."""

    backend: Backend
    admin: AdminState = "enabled"
    in_flight: int = 0
    requests: int = 0
    outcomes: int = 0  # requests that ended in a way that says something about the backend
    last_error: str | None = None
    last_error_at: float | None = None  # seconds since the epoch
    ill: str | None = None  # what active checks say against it
    usable: bool = False  # could be chosen when its route was arranged last
    share: float = 1.0  # weight, less what slow start takes off
    credit: float = 0.0  # see RoundRobin
    ramp_from: float = -math.inf  # when slow start began, on trio's clock
    evidence: Evidence | None = None
    ejection: Ejection | None = None
    served_out: bool = False  # the time of its ejection is over, as of the last listing: the next request tries it
    spared_until: float = -math.inf  # it said Retry-After: no second tries before, on trio's clock
    latency: Latency | None = None  # measured only where the route balances by it

    @property
    def id(self) -> str:
        """Name of the backend within its route."""
        return self.backend.id

    @property
    def weight(self) -> int:
        """Share of the traffic."""
        return self.backend.weight

    @property
    def failures(self) -> int:
        """In a row, the backend's own fault."""
        return 0 if self.evidence is None else self.evidence.in_a_row

    @property
    def ejected(self) -> Ejection | None:
        """Its ejection, while it lasts."""
        return self.ejection if self.ejection is not None and self.ejection.active else None

    @property
    def state(self) -> BackendState:
        """What an operator sees.

        Where an ejection has lasted its time, that is no longer "ejected": on a route without traffic it stayed so.
        """
        if self.admin != "enabled":
            return self.admin
        if self.ill is not None:
            return "unhealthy"
        return "ejected" if self.ejected is not None and not self.served_out else "healthy"

    @property
    def reason(self) -> str | None:
        """Why it is unhealthy or ejected; None when it is neither."""
        if self.ill is not None:
            return self.ill
        ejected = self.ejected
        return None if ejected is None or self.served_out else ejected.reason

    def keeps_clients(self) -> bool:
        """Whether clients that are pinned to it stay: also while it is drained, which new ones do not come to."""
        return self.admin != "disabled" and self.ill is None and self.ejected is None

    def slowness(self, now: float) -> float:
        """See balancing.Candidate."""
        return UNKNOWN if self.latency is None else self.latency.estimate(now, self.in_flight)
