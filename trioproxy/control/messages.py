"""What the supervisor and its forwarders say to each other: frozen records, and nothing else.

The supervisor sends a *command* and gets one *answer*. The same records travel over a memory channel to
the forwarder in the supervisor's own process.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from trioproxy.config.schema import Config
from trioproxy.observe.metrics import Metrics
from trioproxy.routing.route import RouteKey
from trioproxy.routing.table import Table

BackendState = Literal["healthy", "unhealthy", "ejected", "draining", "disabled"]
AdminState = Literal["enabled", "draining", "disabled"]
ConnectionKind = Literal["idle", "http", "websocket", "tunnel"]


# --- commands: supervisor -> forwarder -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetTable:
    """Serve this table from now on. Answer: Applied. A lower version than the current one is ignored."""

    table: Table


@dataclass(frozen=True, slots=True)
class SetConfig:
    """Use these settings for new requests. Listeners stay as they are. Answer: Done."""

    config: Config


@dataclass(frozen=True, slots=True)
class SetBackend:
    """Drain, disable or enable one backend of one route. Answer: Done, with found = it exists."""

    route: RouteKey
    backend_id: str
    state: AdminState


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Close a client connection at once. Answer: Done, with found = it existed."""

    connection_id: str


@dataclass(frozen=True, slots=True)
class StartDrain:
    """Stop accepting, let what runs end, cut what is left after `grace` seconds. Answer: Done, at once."""

    grace: float


@dataclass(frozen=True, slots=True)
class GetReport:
    """Tell figures. Answer: Report."""

    connections: bool = False  # also list live connections


Command = SetTable | SetConfig | SetBackend | CloseConnection | StartDrain | GetReport


# --- answers: forwarder -> supervisor ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Applied:
    """The version of the table now in force."""

    version: int


@dataclass(frozen=True, slots=True)
class Done:
    """The command took effect; `found` is False when what it names is not there."""

    found: bool = True


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """One live client connection."""

    id: str
    client: str  # address:port, or "unix"
    listener: str
    kind: ConnectionKind
    session_id: str | None
    service: str | None
    backend: str | None
    method: str | None
    path: str | None
    opened_at: float  # seconds since the epoch
    requests: int
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """One backend of one route, as one forwarder sees it."""

    session_id: str
    service: str
    backend_id: str
    address: str
    weight: int
    state: BackendState
    in_flight: int
    requests: int
    failures: int  # in a row
    last_error: str | None
    last_error_at: float | None  # seconds since the epoch
    last_check_at: float | None = None  # of active health


@dataclass(frozen=True, slots=True)
class Activity:
    """What happened on one route since the forwarder started."""

    last_activity: float  # seconds since the epoch, at most 1 s late
    requests: int
    bytes: int
    connections: int  # in flight now, WebSockets and tunnels included


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of one forwarder at this instant. The metrics are a copy."""

    table_version: int
    draining: bool
    metrics: Metrics
    backends: tuple[BackendInfo, ...]
    activity: dict[RouteKey, Activity] = field(default_factory=dict[RouteKey, Activity])
    connections: tuple[ConnectionInfo, ...] = ()


Answer = Applied | Done | Report
