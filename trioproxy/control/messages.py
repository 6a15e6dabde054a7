"""What the supervisor and its forwarders say to each other: frozen records, and nothing else.

A forwarder process first gets a Start and says Hello. From then on the supervisor sends *commands* and gets one
*answer* for each. The same commands travel over a memory channel to a forwarder in the supervisor's own process.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from trioproxy.config.schema import Config
from trioproxy.observe.metrics import Metrics
from trioproxy.routing.route import Backend, Health, RouteKey
from trioproxy.routing.table import Table

BackendState = Literal["healthy", "unhealthy", "ejected", "draining", "disabled"]
AdminState = Literal["enabled", "draining", "disabled"]
ConnectionKind = Literal["idle", "http", "websocket", "tunnel"]


# --- how it begins: a forwarder process is started ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """The first thing a forwarder process is told, once its listening sockets have arrived."""

    version: str  # of the supervisor's program
    index: int  # which forwarder it is
    config: Config
    listeners: tuple[int, ...]  # handles of the listening sockets, in the order of `config.listeners`
    loads: int  # descriptor of the memory in which forwarders tell how many connections they hold
    forwarders: int  # how many there are


@dataclass(frozen=True, slots=True)
class Hello:
    """A forwarder process has what it needs, and takes commands."""

    version: str  # of its program


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Brings a listening socket along, for the record that follows; both processes call it by this handle."""

    handle: int


# --- commands: supervisor -> forwarder -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetTable:
    """Serve this table from now on. Answer: Applied. A lower version than the current one is ignored."""

    table: Table


@dataclass(frozen=True, slots=True)
class StartAccepting:
    """Accept connections from now on: routes and settings are in. Answer: Done, at once."""


@dataclass(frozen=True, slots=True)
class PrepareConfig:
    """Get ready for a SetConfig that may follow: read the files it names, keep the sockets it brings.

    Answer: Done, or Refused; then nothing is kept. A DropPrepared undoes it.
    """

    config: Config
    listeners: tuple[int, ...] = ()  # as in SetConfig


@dataclass(frozen=True, slots=True)
class DropPrepared:
    """No SetConfig follows after all: let go of what was prepared. Answer: Done."""


@dataclass(frozen=True, slots=True)
class SetConfig:
    """Use these settings for new requests and new connections, and open the access log anew.

    Listeners that are not there yet begin to accept, those that are gone stop, and their connections go on.

    Answer: Done, or Refused when they were not prepared and cannot be used; then nothing has changed.
    """

    config: Config
    listeners: tuple[int, ...] = ()  # handles of the listening sockets, in the order of `config.listeners`


@dataclass(frozen=True, slots=True)
class SetBackend:
    """Drain, disable or enable one backend of one route. Answer: Done, with found = it exists."""

    route: RouteKey
    backend_id: str
    state: AdminState


@dataclass(frozen=True, slots=True)
class TargetHealth:
    """What active checks say of one target: an address, checked in one way, by whichever routes.

    `up` is None where the supervisor checks it no longer, and what was known of it is to be forgotten. A target that
    nothing was ever said about has not been checked yet.
    """

    address: str  # `Backend.key`
    spec: Health  # as in the route, over `[health.active]`
    up: bool | None
    reason: str  # why it is down, or up again; for people
    since: float  # seconds since the epoch; when it became so
    checked_at: float  # seconds since the epoch; the check that made it so


@dataclass(frozen=True, slots=True)
class SetHealth:
    """Take these results of active checks. Answer: Done."""

    states: tuple[TargetHealth, ...]
    whole: bool = False  # forget all others


@dataclass(frozen=True, slots=True)
class SetEjected:
    """Another forwarder has ejected this backend, or it has returned. Answer: Done, with found = it exists.

    Taking this over is no news. Letting the backend return later, after a trial of one's own, is.
    """

    route: RouteKey
    backend_id: str
    until: float  # seconds since the epoch; 0.0 = it is not ejected any more
    reason: str


@dataclass(frozen=True, slots=True)
class GetNews:
    """Tell which backends this forwarder has ejected or let return by itself since it was last asked. Answer: News."""


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Close a client connection at once. Answer: Done, with found = it existed."""

    connection_id: str


@dataclass(frozen=True, slots=True)
class StartDrain:
    """Stop accepting, let what runs end, cut what is left after `grace` seconds. Answer: Done, at once.

    For `patience` seconds connections that wait for a request may bring one more, whose answer tells that it was the
    last; then they are closed. May come again; the earliest end counts.
    """

    grace: float
    patience: float = 0.0


@dataclass(frozen=True, slots=True)
class GetReport:
    """Tell figures. Answer: Report."""

    connections: bool = False  # also list live connections
    backends: bool = True  # also list backends
    active_since: float = 0.0  # only the activity of routes with some since then (epoch seconds)


PlaneCommand = (
    SetTable | SetConfig | SetBackend | SetHealth | SetEjected | CloseConnection | StartDrain | GetReport | GetNews
)
"""What the data plane itself carries out."""
Command = PlaneCommand | StartAccepting | PrepareConfig | DropPrepared


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
class Refused:
    """The command could not be carried out, and nothing has changed. Each problem is a sentence."""

    problems: tuple[str, ...]


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
    last_check_at: float | None = None  # seconds since the epoch; None where it is not checked
    last_check_error: str | None = None  # what the last check met; None = it passed
    reason: str | None = None  # why it is not healthy, for people

    @classmethod
    def unused(
        cls, route: RouteKey, backend: Backend, state: BackendState = "healthy", reason: str | None = None
    ) -> BackendInfo:
        """Of a backend that no forwarder has had to do with."""
        session_id, service = route
        return cls(
            session_id=session_id,
            service=service,
            backend_id=backend.id,
            address=backend.key,
            weight=backend.weight,
            state=state,
            in_flight=0,
            requests=0,
            failures=0,
            last_error=None,
            last_error_at=None,
            reason=reason,
        )


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


@dataclass(frozen=True, slots=True)
class BackendChange:
    """A backend of a route became something else."""

    route: RouteKey
    backend_id: str
    state: BackendState
    previous: BackendState
    reason: str  # for people
    at: float  # seconds since the epoch
    until: float = 0.0  # seconds since the epoch; of "ejected": when it may return


@dataclass(frozen=True, slots=True)
class News:
    """What a forwarder has found out about backends, oldest first."""

    changes: tuple[BackendChange, ...] = ()
    lost: int = 0  # changes before these that there was no room for


Answer = Applied | Done | Refused | Report | News
