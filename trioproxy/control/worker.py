"""What the management API may ask of a worker. The supervisor implements it; tests may fake it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from trioproxy.config.schema import Config
from trioproxy.control.messages import AdminState, Report
from trioproxy.net.certificates import CertificateInfo
from trioproxy.routing.catalog import Catalog
from trioproxy.routing.route import Route, RouteKey


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether this worker should get traffic, and if not, why."""

    ready: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ForwarderInfo:
    """One forwarder as the supervisor sees it."""

    index: int
    pid: int
    state: Literal["starting", "ready", "draining", "dead"]
    table_version: int
    started_at: float  # seconds since the epoch
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class ProviderInfo:
    """One source of routes."""

    name: str
    up: bool
    routes: int
    synced_at: float | None  # seconds since the epoch of the last good read
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth telling an operator.

    `kind` is "route", "health", "forwarder", "certificate", "listener", "upgrade" or "drain".
    """

    id: int
    at: float  # seconds since the epoch
    kind: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class UpgradeInfo:
    """How the last upgrade of this process fares. "none": there was none; one that succeeded is another process's."""

    state: Literal["none", "running", "failed"]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class LastCheck:
    """The last active check of a backend. `error` says what it met; None = it passed."""

    at: float  # seconds since the epoch
    error: str | None


@dataclass(frozen=True, slots=True)
class HealthFigures:
    """What is counted about the health of backends."""

    targets: Mapping[str, int] = field(default_factory=dict[str, int])  # now: "healthy", "unhealthy", "unknown"
    checks: Mapping[str, int] = field(default_factory=dict[str, int])  # "ok", "failed", "undecided"
    late: int = 0  # checks that began more than a second late
    changes: Mapping[str, int] = field(default_factory=dict[str, int])  # of backends, by what they became
    ejections: int = 0  # by forwarders


@dataclass(frozen=True, slots=True)
class Change:
    """The outcome of a write: the version that holds it, and whether every live forwarder serves it."""

    version: int
    applied: bool
    created: bool = False


@dataclass(frozen=True, slots=True)
class Explanation:
    """Which way a URL would go, and why it would fail. `steps` are sentences for people, in order."""

    url: str
    outcome: Literal["forward", "redirect", "refuse"]
    status: int | None  # of the answer the proxy itself would give
    code: str | None  # error code of that answer
    session_id: str | None = None
    service: str | None = None
    backend_path: str | None = None
    backends: tuple[dict[str, Any], ...] = ()
    steps: tuple[str, ...] = field(default=())


class Worker(Protocol):
    """A running worker. Writes raise ProviderError when they cannot be kept (disk full, read-only …)."""

    @property
    def config(self) -> Config:
        """The configuration in force."""
        ...

    @property
    def catalog(self) -> Catalog:
        """Routes of all providers, merged."""
        ...

    @property
    def started_at(self) -> float:
        """Seconds since the epoch."""
        ...

    def readiness(self) -> Readiness:
        """Whether this worker should get traffic."""
        ...

    async def put_route(self, route: Route) -> Change:
        """Create or replace one API-set route; returns when forwarders serve it (5 s at most)."""
        ...

    async def remove_routes(self, keys: list[RouteKey]) -> Change | None:
        """Remove API-set routes in one version; None when none of them was there."""
        ...

    async def patch_routes(self, upsert: list[Route], remove: list[RouteKey]) -> Change:
        """Upsert and remove API-set routes in one version."""
        ...

    async def replace_routes(self, routes: list[Route], *, if_version: int | None = None) -> Change | None:
        """Replace all API-set routes at once; None when `if_version` is not the version in force."""
        ...

    async def report(self, *, connections: bool = False) -> Report:
        """Figures of all forwarders, folded."""
        ...

    async def close_connection(self, connection_id: str) -> bool:
        """Close a client connection; False when there is none of that id."""
        ...

    async def set_backend(self, route: RouteKey, backend_id: str, state: AdminState) -> bool:
        """Drain, disable or enable a backend in every forwarder; False when it does not exist."""
        ...

    def last_check(self, route: RouteKey, backend_id: str) -> LastCheck | None:
        """The last active check of a backend; None before the first one, and where it is not checked."""
        ...

    def health_figures(self) -> HealthFigures:
        """What is counted about the health of backends."""
        ...

    def forwarders(self) -> list[ForwarderInfo]:
        """The forwarders, by index."""
        ...

    def certificates(self) -> list[CertificateInfo]:
        """The certificates in use."""
        ...

    def providers(self) -> list[ProviderInfo]:
        """The sources of routes."""
        ...

    def appeared_at(self, key: RouteKey) -> float:
        """Seconds since the epoch at which a route came to be known to this run of the worker."""
        ...

    async def explain(self, url: str) -> Explanation:
        """What would happen to a GET of this URL. Raises ValueError when it is not an http(s) URL or a path."""
        ...

    def events(self, *, after: int | None = None) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Events as they happen, after the kept ones with an id above `after`; slow readers lose the oldest."""
        ...

    def start_drain(self) -> None:
        """Begin to shut down; returns at once."""
        ...

    @property
    def upgrade(self) -> UpgradeInfo:
        """How the last upgrade fares."""
        ...

    def start_upgrade(self) -> str | None:
        """Begin to hand over to a new generation of the program, soon; or the reason why not, as a sentence."""
        ...

    async def reload(self) -> tuple[str, ...]:
        """Read configuration, certificates and route files again; the keys whose change needs a restart.

        Raises ConfigError when something is wrong with them; then nothing has changed.
        """
        ...
