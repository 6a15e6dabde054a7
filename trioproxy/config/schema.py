"""The configuration, as types. Every key, its default and its bounds stand here and nowhere else.

The field descriptions are what `trioproxy example-config` prints as comments.
"""

from __future__ import annotations

import os
import socket
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from trioproxy.routing.route import Health, Model, RetryStatuses, Route, ServerErrors
from trioproxy.units import Bytes, Count, Flag, Seconds, Share, Whole

MIN_SECRET = 16
"""Characters of the shortest sticky secret that is taken."""


def default_state_dir() -> Path:
    """`/var/lib/trioproxy` for root, else `$XDG_STATE_HOME/trioproxy` (`~/.local/state/trioproxy`)."""
    system = Path("/var/lib/trioproxy")
    if os.geteuid() == 0:
        return system
    try:
        return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "trioproxy"
    except RuntimeError:  # a user without a home, as containers have them
        return system


def _check_bind(value: str) -> str:
    if value.startswith("unix:"):
        if not value.startswith("unix:/"):
            raise ValueError("a unix socket is written unix:/absolute/path")
        return value
    if value.startswith("fd:"):
        if not value[3:].isdigit():
            raise ValueError("an inherited socket is written fd:<number>")
        return value
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError('is not an address; write "0.0.0.0:5050", "[::]:5050", "unix:/path" or "fd:3"')
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError('an IPv6 address is written in brackets: "[::]:5050"')
    return value


Bind = Annotated[str, AfterValidator(_check_bind)]


def _not_empty(value: object) -> object:
    if value == "":
        raise ValueError("is empty; write the path of a directory")
    return value


class WorkerConfig(Model):
    """This worker."""

    id: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9._~-]+$",
        description="Name of this worker towards coordinators. Default: the host name.",
    )
    state_dir: Annotated[Path, BeforeValidator(_not_empty)] = Field(
        default_factory=default_state_dir,
        description="Where routes set over the API, the token and certificates are kept (mode 0700). "
        "Default: /var/lib/trioproxy as root, else $XDG_STATE_HOME/trioproxy.",
    )
    processes: Literal["auto"] | Annotated[Whole, Field(ge=0, le=256)] = Field(
        default="auto",
        description='Forwarder processes: "auto" is one per core that may be used; 0 = the supervisor forwards itself.',
    )
    drain_timeout: Seconds = Field(
        default=30.0, description="How long requests and streams may go on after SIGTERM or a removed route."
    )


class ListenerConfig(Model):
    """One address that users connect to."""

    name: str = Field(default="web", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="Label in metrics and logs.")
    bind: Bind = Field(
        default="0.0.0.0:5050", description='"0.0.0.0:5050", "[::]:5050", "unix:/path" or "fd:3" (inherited socket).'
    )
    tls: Literal["auto", "off"] = Field(
        default="auto", description='"auto": TLS with the certificates of [tls]; "off": plain HTTP.'
    )
    proxy_protocol: Flag = Field(
        default=False,
        description="Expect a PROXY protocol v1 or v2 header on every connection; it tells the client's address.",
    )
    redirect_to_https: Flag = Field(
        default=False, description="Answer every request on this plain listener with 308 to https."
    )

    @model_validator(mode="after")
    def _redirect_needs_plain(self) -> ListenerConfig:
        if self.redirect_to_https and self.tls != "off":
            raise ValueError('redirect_to_https needs tls = "off" on the same listener')
        return self


class CertificateConfig(Model):
    """One certificate chain and its key, as PEM files."""

    cert: Path = Field(description="PEM file: the certificate, then its intermediates.")
    key: Path = Field(description="PEM file: the private key.")


class TlsConfig(Model):
    """TLS towards users. No certificate given = a self-signed one kept in state_dir, with a warning."""

    certificates: tuple[CertificateConfig, ...] = Field(
        default=(), description="List of {cert, key}. SNI chooses among them; the first is the default."
    )
    min_version: Literal["1.2", "1.3"] = Field(default="1.2", description='"1.2" or "1.3".')


class ManagementConfig(Model):
    """The management API, metrics and status page."""

    bind: Bind = Field(default="127.0.0.1:6040", description="Address of the management API. Keep it private.")
    token: str | None = Field(
        default=None, min_length=8, description="Bearer token of /v1. Prefer token_file. Default: generated once."
    )
    token_file: Path | None = Field(
        default=None, description="File with the token. Default: <state_dir>/management.token, made once, mode 0600."
    )
    public_metrics: Flag = Field(default=True, description="Serve /metrics without the token.")


class TimeoutsConfig(Model):
    """Every wait. None is a total on a body or a stream."""

    head: Seconds = Field(default=10.0, description="Until a request head is complete (408).")
    keep_alive: Seconds = Field(default=75.0, description="Idle client connection (closed).")
    connect: Seconds = Field(default=3.0, description="TCP and TLS to a backend (504).")
    response_head: Seconds = Field(default=60.0, description="From the request's end to the response head (504).")
    stall: Seconds = Field(default=60.0, description="No byte in either direction of a body (aborted); 0 = never.")
    websocket_idle: Seconds = Field(default=3600.0, description="No message in either direction; 0 = never.")
    tls_handshake: Seconds = Field(default=10.0, description="TLS handshake, and the PROXY header, of a client.")
    close: Seconds = Field(default=3.0, description="Closing handshakes, and reading the rest of a refused body.")


class LimitsConfig(Model):
    """Bounds on what clients may take."""

    connections: Annotated[Whole, Field(ge=1)] = Field(
        default=20000, description="Client connections (then: waits). Each forwarder process has an equal share."
    )
    head_bytes: Annotated[Bytes, Field(ge=1024)] = Field(default=65536, description="Request and response heads (431).")
    header_count: Annotated[Whole, Field(ge=8, le=10000)] = Field(default=128, description="Fields in a head (431).")
    body_bytes: Bytes = Field(default=0, description="Request bodies (413); 0 = no limit.")
    connections_per_client: Count = Field(
        default=0, description="Connections of one client address, in each forwarder process; 0 = no limit."
    )


class PoolConfig(Model):
    """Connections to backends, of each forwarder process."""

    idle_per_backend: Count = Field(default=32, description="Idle connections kept for reuse.")
    idle_timeout: Seconds = Field(default=30.0, description="How long an idle connection is kept.")
    max_per_backend: Count = Field(
        default=0, description="Connections to one backend, and so requests and WebSockets at a time; 0 = no limit."
    )
    queue: Count = Field(default=128, description="Requests that may wait for a connection (then 503).")
    queue_timeout: Seconds = Field(default=5.0, description="How long a request may wait for a connection (503).")
    dials_per_backend: Annotated[Whole, Field(ge=1)] = Field(default=16, description="Connection attempts at a time.")
    refused_for: Seconds = Field(
        default=0.25, description="A backend that refused is left alone so long; doubles, up to eightfold; 0 = not."
    )


class RetryConfig(Model):
    """Second tries, only where they are safe."""

    attempts: Annotated[Whole, Field(ge=0, le=10)] = Field(default=2, description="Tries besides the first.")
    budget: Share = Field(
        default=0.2,
        description="Retries of what had been sent, as a share of a route's requests in the last 10 s; "
        "10 are always allowed, unless this is 0.",
    )
    replay_bytes: Bytes = Field(default=65536, description="Largest request body that may be sent again.")
    backoff: Seconds = Field(
        default=0.025, description="Longest first pause before a retry of what had been sent; doubles, up to tenfold."
    )
    per_try: Seconds = Field(
        default=0.0,
        description="Until a response head, where another backend can be tried after it; 0 = timeouts.response_head.",
    )
    statuses: RetryStatuses = Field(
        default="",
        description='Answers of a backend that another one is tried for: "502-504", "503"; empty = none.',
    )
    idempotency_key: Flag = Field(
        default=False, description="Requests with an Idempotency-Key may be sent again, whatever their method."
    )


class PassiveHealthConfig(Model):
    """Ejection of backends by what requests meet. What clients or this worker cause never counts."""

    failures: Annotated[Whole, Field(ge=0, le=1000)] = Field(
        default=3, description="Consecutive failures that eject a backend; 0 = none do."
    )
    statuses: ServerErrors = Field(
        default="502-504",
        description="Answers (5xx) that are failures too. Any other one ends a row of them, as the backend lives.",
    )
    failure_rate: Share = Field(
        default=0.0, description="Share of failures within `window` that ejects, where any 5xx is one; 0 = none does."
    )
    window: Annotated[Seconds, Field(ge=1)] = Field(default=10.0, description="Time over which the rate is taken.")
    min_requests: Annotated[Whole, Field(ge=1)] = Field(
        default=20, description="Requests within `window` below which the rate tells nothing."
    )
    eject_for: Annotated[Seconds, Field(ge=0.1)] = Field(
        default=10.0, description="First ejection; doubles, up to 5m. A single request then tries the backend."
    )
    max_ejected: Share = Field(
        default=0.5, description="Largest ejected share of a route's backends; rounded down, so a lone one stays."
    )


class HealthConfig(Model):
    """Health of backends."""

    slow_start: Seconds = Field(
        default=0.0,
        description="How long a backend that is new, or back, gets a growing share of the traffic; 0 = all at once.",
    )
    panic: Flag = Field(
        default=False,
        description="When no backend is healthy: true sends requests to them all the same, false answers 503 at once.",
    )
    active: Health = Field(default=Health(), description="What routes' health objects leave out.")
    passive: PassiveHealthConfig = PassiveHealthConfig()


class StickyConfig(Model):
    """Secret of the cookies that keep a client on its backend. Workers that share it agree on the backend."""

    secret: str | None = Field(
        default=None,
        min_length=MIN_SECRET,
        description="The secret itself. Prefer secret_file. Default: generated once.",
    )
    secret_file: Path | None = Field(
        default=None, description="File with the secret. Default: <state_dir>/sticky.secret, made once, mode 0600."
    )


class WebSocketConfig(Model):
    """WebSocket forwarding."""

    mode: Literal["message", "relay"] = Field(
        default="message",
        description='"message": both legs are terminated, with their own pings; "relay": bytes, extensions included.',
    )
    max_message: Bytes = Field(
        default=0,
        description="Largest message; 0 = no limit. A message is held in memory until it is whole. Mode message only.",
    )
    ping_interval: Seconds = Field(default=30.0, description="Between pings on each leg; 0 = none. Mode message only.")
    ping_timeout: Seconds = Field(default=30.0, description="Until a pong; then the peer is taken for gone.")


def _parse_networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for item in value:
        ip_network(item, strict=False)
    return value


class AccessConfig(Model):
    """Who is believed."""

    trusted_proxies: Annotated[tuple[str, ...], AfterValidator(_parse_networks)] = Field(
        default=(), description="Networks (CIDR) whose X-Forwarded-* and PROXY headers are believed."
    )
    permit_secret: str | None = Field(default=None, min_length=32, description="Reserved for permits.")

    @cached_property
    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """`trusted_proxies`, parsed."""
        return tuple(ip_network(item, strict=False) for item in self.trusted_proxies)


class LogConfig(Model):
    """Logs."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Of the program's log.")
    format: Literal["console", "json"] | None = Field(
        default=None, description='Of the program\'s log. Default: "console" on a terminal, else "json".'
    )
    access: str = Field(default="stdout", description='Access log, JSON lines: "stdout", a path, or "off".')


class FileProviderConfig(Model):
    """Routes from a TOML or JSON file, read again when it changes."""

    path: Path = Field(description="The file: {routes = [...]} as TOML or JSON, by its ending.")
    interval: Annotated[Seconds, Field(ge=0.1)] = Field(default=1.0, description="How often it is looked at.")


class ProvidersConfig(Model):
    """Where routes come from, besides [[routes]] and the API. Absent = off."""

    file: FileProviderConfig | None = None


class Config(Model):
    """All of it."""

    worker: WorkerConfig = Field(default_factory=WorkerConfig)
    listeners: tuple[ListenerConfig, ...] = Field(default=(ListenerConfig(),), min_length=1, max_length=64)
    tls: TlsConfig = TlsConfig()
    management: ManagementConfig = ManagementConfig()
    timeouts: TimeoutsConfig = TimeoutsConfig()
    limits: LimitsConfig = LimitsConfig()
    pool: PoolConfig = PoolConfig()
    retry: RetryConfig = RetryConfig()
    health: HealthConfig = HealthConfig()
    sticky: StickyConfig = StickyConfig()
    websocket: WebSocketConfig = WebSocketConfig()
    access: AccessConfig = AccessConfig()
    log: LogConfig = LogConfig()
    routes: tuple[Route, ...] = Field(default=(), description="Static routes.")
    providers: ProvidersConfig = ProvidersConfig()

    @field_validator("listeners")
    @classmethod
    def _names_are_unique(cls, listeners: tuple[ListenerConfig, ...]) -> tuple[ListenerConfig, ...]:
        names = [listener.name for listener in listeners]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two listeners are named {min(twice)!r}; give each a name of its own")
        return listeners

    @field_validator("routes")
    @classmethod
    def _routes_are_unique(cls, routes: tuple[Route, ...]) -> tuple[Route, ...]:
        seen: set[tuple[str, str]] = set()
        for route in routes:
            if route.key in seen:
                raise ValueError(f"two routes are named {route.session_id}/{route.service}")
            seen.add(route.key)
        return routes
