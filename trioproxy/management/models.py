"""The JSON that the management API takes and gives, besides routes and the worker's own records."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from trioproxy.control.messages import AdminState, BackendInfo, ConnectionInfo
from trioproxy.control.worker import CertificateInfo, ForwarderInfo, ProviderInfo, UpgradeInfo
from trioproxy.routing.compact import compact
from trioproxy.routing.route import Route, Segment


class Message(BaseModel):
    """Base of what callers send and get: nothing unknown, nothing changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def parse_instant(value: object) -> float:
    """Turn ISO 8601 (without an offset: UTC) or seconds since the epoch into the latter. Raises ValueError."""
    text = str(value).strip()
    try:
        seconds = float(text)
    except ValueError:
        seconds = _parse_iso(text)
    if not math.isfinite(seconds):
        raise ValueError("is not a point in time")
    return seconds


def _parse_iso(text: str) -> float:
    # A "+" that was not escaped in a query arrives as a space.
    for candidate in (text, "+".join(text.rsplit(" ", 1))):
        try:
            instant = datetime.fromisoformat(candidate)
        except ValueError:
            continue
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()
    raise ValueError('is not a point in time; write "2026-01-31T12:00:00Z" or seconds since the epoch')


Instant = Annotated[
    float,
    BeforeValidator(parse_instant),
    WithJsonSchema({"type": "string", "description": "ISO 8601, or seconds since the epoch"}),
]


# --- taken ---------------------------------------------------------------------------------------------


class RouteFilter(Message):
    """Which routes to list."""

    session_id: str | None = Field(default=None, description="Only this session's.")
    service: str | None = Field(default=None, description="Only services of this name.")
    inactive_since: Instant | None = Field(
        default=None,
        description="Only routes whose last activity is earlier: ISO 8601, or seconds since the epoch. A route "
        "that had none yet counts from the start of the worker.",
    )


class BackendFilter(Message):
    """Which backends to list."""

    session_id: str | None = Field(default=None, description="Only this session's.")
    service: str | None = Field(default=None, description="Only services of this name.")


class ConnectionFilter(Message):
    """How many connections to list."""

    limit: int = Field(default=1000, ge=1, le=10_000, description="At most this many, the oldest first.")


class ExplainQuery(Message):
    """What to explain."""

    url: str = Field(min_length=1, max_length=8192, description="An http(s) URL, or a path.")


class RouteSet(Message):
    """All API-set routes."""

    version: int | None = Field(default=None, description="Accepted from a listing, and ignored.")
    # Made small one by one, or both forms of all of them would be there at once.
    routes: list[Annotated[Route, AfterValidator(compact)]]


class RoutePatch(Message):
    """A change of several API-set routes, made at once."""

    upsert: list[Route] = Field(default=[], description="Routes to create or replace.")
    remove: list[tuple[Segment, Segment]] = Field(default=[], description="Pairs of session_id and service.")


# --- given ---------------------------------------------------------------------------------------------


class RouteList(Message):
    """Routes of all providers, and the version of the table they are from."""

    version: int
    routes: list[Route]


class Changed(Message):
    """The outcome of a change of routes."""

    version: int = Field(description="The table version that holds it.")
    applied: bool = Field(description="Whether every live forwarder serves it already.")


class BackendList(Message):
    """Backends of all routes, as the forwarders see them."""

    backends: list[BackendInfo]


class BackendSet(Message):
    """What a backend was set to."""

    session_id: str
    service: str
    backend_id: str
    state: AdminState


class ConnectionList(Message):
    """Live client connections; `total` counts those beyond the limit too."""

    total: int
    connections: list[ConnectionInfo]


class Alive(Message):
    """This process answers."""

    alive: Literal[True] = True


class Ready(Message):
    """Whether this worker should get traffic, and if not, why."""

    ready: bool
    reasons: list[str]


class ProviderHealth(Message):
    """One source of routes, without what only operators should see."""

    name: str
    up: bool
    routes: int


class Health(Ready):
    """How this worker is."""

    status: Literal["ok", "degraded", "unavailable"] = Field(
        description='"degraded": ready, but a source of routes is failing.'
    )
    version: str
    uptime: float = Field(description="Seconds.")
    table_version: int
    providers: list[ProviderHealth]
    forwarders: dict[str, int] = Field(description="How many are in each state.")


class Listener(Message):
    """One address that users connect to."""

    name: str
    bind: str
    tls: bool


class WorkerStatus(Ready):
    """Who this worker is and how it is."""

    id: str
    version: str
    started_at: float = Field(description="Seconds since the epoch.")
    uptime: float = Field(description="Seconds.")
    table_version: int
    synced: bool = Field(description="Whether a source of routes has delivered.")
    routes: int
    listeners: list[Listener]
    providers: list[ProviderInfo]
    pid: int = Field(description="Process id of the supervisor; an upgrade changes it.")
    upgrade: UpgradeInfo


class ForwarderList(Message):
    """The processes that carry traffic."""

    forwarders: list[ForwarderInfo]


class CertificateList(Message):
    """The certificates in use on the listeners."""

    certificates: list[CertificateInfo]


class Draining(Message):
    """The worker shuts down."""

    status: Literal["draining"] = "draining"


class Upgrading(Message):
    """A new generation of the program is being started."""

    status: Literal["upgrading"] = "upgrading"
    pid: int = Field(description="Process id of this generation: another one in GET /v1/worker means success.")


class Reloaded(Message):
    """Everything was read again."""

    status: Literal["reloaded"] = "reloaded"
    needs_restart: list[str] = Field(description="Keys that have changed and take effect at the next start only.")
