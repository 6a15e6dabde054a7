"""The route object: one service of one session, where it is reached and who serves it."""

from __future__ import annotations

import json
import re
from functools import cached_property, lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from math import isfinite
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from trioproxy.units import Bytes, Flag, Seconds, Share, Whole

Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._~-]+$")]
RouteKey = tuple[str, str]
"""(session_id, service): what identifies a route in every table."""

Balance = Literal["round_robin", "least_connections", "random_two", "client_hash"]

MAX_BACKENDS = 1024
MAX_METADATA_BYTES = 16 * 1024
MAX_METADATA_DEPTH = 32
MAX_PREFIX_BYTES = 1024
_NOT_IN_A_HOST = frozenset("/@?#[] \t\r\n\0")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def _not_dots(name: str) -> str:
    if name in (".", ".."):
        raise ValueError('must not be "." or "..", which are path segments of their own')
    return name


Segment = Annotated[Name, AfterValidator(_not_dots)]


class Model(BaseModel):
    """What every part of a route and of the configuration is: immutable, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BackendTls(Model):
    """How TLS to a backend is verified. `server_name` is sent as SNI and checked instead of the host."""

    verify: Flag = True
    ca_file: str | None = None
    server_name: str | None = None


class Backend(Model):
    """One host:port of a route. `host` may also be `unix:/path/to.sock`, then `port` is left out."""

    host: str = Field(min_length=1, max_length=255)
    port: Whole = Field(default=0, ge=0, le=65535)
    weight: Whole = Field(default=1, ge=0, le=1000)
    tls: Flag | BackendTls = False
    id: str = Field(default="", max_length=255, pattern=r"^[A-Za-z0-9._~:-]*$")

    @model_validator(mode="before")
    @classmethod
    def _fill_id(cls, data: Any) -> Any:
        # Filled before validation so that a listing shows the id an operator uses in /v1/backends/….
        if not isinstance(data, dict):
            return data
        fields = cast(dict[str, Any], data)
        host = fields.get("host")
        if fields.get("id") or not isinstance(host, str):
            return fields
        if host.startswith("unix:"):
            return {**fields, "id": host.removeprefix("unix:").strip("/").replace("/", "~")}
        return {**fields, "id": f"{host}:{fields.get('port')}"}

    @model_validator(mode="after")
    def _address(self) -> Backend:
        if self.host.startswith("unix:"):
            if not self.host.startswith("unix:/"):
                raise ValueError("a unix socket is written unix:/absolute/path")
            if self.port:
                raise ValueError("a unix socket has no port")
        elif not self.port:
            raise ValueError("port is missing")
        elif not _NOT_IN_A_HOST.isdisjoint(self.host):
            raise ValueError("host must be a host name or an IP address (IPv6 without brackets)")
        return self

    @cached_property
    def authority(self) -> str:
        """host:port as in a URL, for a Host field; "localhost" behind a unix socket."""
        if self.host.startswith("unix:"):
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @cached_property
    def key(self) -> str:
        """What the pool and the dialer tell addresses apart by; equal for routes that share a backend."""
        tls = self.tls if isinstance(self.tls, BackendTls) else BackendTls() if self.tls else None
        suffix = f"+tls({tls.verify},{tls.ca_file},{tls.server_name})" if tls else ""
        return f"{self.host}:{self.port}{suffix}"


def _check_statuses(value: str) -> str:
    for item in value.split(","):
        low, _, high = item.partition("-")
        if high and high < low:
            raise ValueError(f"{item} is an empty range")
    return value


Statuses = Annotated[
    str,
    Field(pattern=r"^[1-5][0-9]{2}(-[1-5][0-9]{2})?(,[1-5][0-9]{2}(-[1-5][0-9]{2})?)*$"),
    AfterValidator(_check_statuses),
]
"""Statuses of responses and ranges of them: "200-399,404"."""
ServerErrors = Annotated[
    str, Field(pattern=r"^5[0-9]{2}(-5[0-9]{2})?(,5[0-9]{2}(-5[0-9]{2})?)*$"), AfterValidator(_check_statuses)
]
"""The same, of the 5xx."""


@lru_cache(maxsize=256)
def parse_statuses(value: str) -> frozenset[int]:
    """Every status that such a text names; none of an empty one."""
    found: set[int] = set()
    for item in value.split(",") if value else ():
        low, _, high = item.partition("-")
        found.update(range(int(low), int(high or low) + 1))
    return frozenset(found)


class Health(Model):
    """How a route's backends are checked. What a route does not say, `[health.active]` does."""

    kind: Literal["tcp", "http", "https", "off"] = "tcp"
    path: str = Field(default="/", max_length=1024, pattern=r"^/[!-~]*$")
    host: str | None = Field(default=None, min_length=1, max_length=255, pattern=r"^[!-~]+$")
    interval: Annotated[Seconds, Field(ge=0.1)] = 5.0
    timeout: Annotated[Seconds, Field(ge=0.01)] = 2.0
    healthy_after: Whole = Field(default=2, ge=1, le=100)
    unhealthy_after: Whole = Field(default=3, ge=1, le=100)
    statuses: Statuses = "200-399"
    body: str | None = Field(default=None, min_length=1, max_length=1024)
    first_check: Flag = False

    def over(self, defaults: Health) -> Health:
        """These keys, and of those that were not given the defaults'."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return defaults.model_copy(update=given)


class Sticky(Model):
    """Sticky sessions by a cookie. `max_age` 0 = until the browser is closed."""

    cookie: str = Field(default="trioproxy", pattern=r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}$")
    max_age: Seconds = 0.0

    @field_validator("cookie")
    @classmethod
    def _browsers_take_it(cls, cookie: str) -> str:
        # RFC 6265bis §4.1.3.2: only with Path=/, and this cookie has the route's path.
        if cookie.lower().startswith("__host-"):
            raise ValueError(
                'must not begin with "__Host-": browsers refuse such a cookie, as its path is the route\'s'
            )
        return cookie


class RouteTimeouts(Model):
    """Per-route overrides of `[timeouts]`; absent keys keep the worker's value. Units: seconds."""

    connect: Seconds | None = None
    response_head: Seconds | None = None
    stall: Seconds | None = None
    websocket_idle: Seconds | None = None


RetryStatuses = Annotated[
    str,
    AfterValidator(_check_statuses),
    Field(pattern=r"^(5[0-9]{2}(-5[0-9]{2})?(,5[0-9]{2}(-5[0-9]{2})?)*)?$"),
]
"""Statuses of answers that are not passed on while another backend can be asked: "502-504"; empty = none."""


class RouteRetry(Model):
    """Per-route overrides of `[retry]`."""

    attempts: Annotated[Whole, Field(ge=0, le=10)] | None = None
    budget: Share | None = None
    replay_bytes: Bytes | None = None
    backoff: Seconds | None = None
    per_try: Seconds | None = None
    statuses: RetryStatuses | None = None
    idempotency_key: Flag | None = None


class RoutePassive(Model):
    """Per-route overrides of `[health.passive]`."""

    failures: Annotated[Whole, Field(ge=0, le=1000)] | None = None
    failure_rate: Share | None = None
    eject_for: Annotated[Seconds, Field(ge=0.1)] | None = None
    max_ejected: Share | None = None


class Access(Model):
    """Who may use a route."""

    mode: Annotated[Literal["public", "permit"], WithJsonSchema({"enum": ["public"], "type": "string"})] = "public"
    user: str | None = Field(default=None, max_length=255)
    allowed_client_ips: tuple[str, ...] = Field(default=(), max_length=256)

    @field_validator("mode")
    @classmethod
    def _offered(cls, mode: str) -> str:
        if mode == "permit":
            raise ValueError('"permit" is not offered by this version; a route with it would be open to everyone')
        return mode

    @field_validator("allowed_client_ips")
    @classmethod
    def _networks_parse(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            ip_network(item, strict=False)
        return value

    @cached_property
    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """`allowed_client_ips`, parsed."""
        return tuple(ip_network(item, strict=False) for item in self.allowed_client_ips)


def check_host(value: str) -> str:
    """Normalise a host name a route is reached at: lower case, without port. Raises ValueError."""
    host = value.lower().rstrip(".")
    if not host or len(host) > 253 or any(not label or len(label) > 63 for label in host.split(".")):
        raise ValueError("is not a host name")
    if not all(c.isascii() and (c.isalnum() or c in "-._") for c in host):
        raise ValueError("is not a host name (letters, digits, '-', '.' and '_'; no port, no wildcard)")
    return host


def check_prefix(value: str) -> str:
    """Normalise a path prefix: leading slash, no trailing one, compared on the encoded path. Raises ValueError."""
    prefix = value.rstrip("/")
    if len(prefix) > MAX_PREFIX_BYTES:
        raise ValueError(f"is longer than {MAX_PREFIX_BYTES} bytes")
    if not prefix.startswith("/"):
        raise ValueError('must start with "/" and be more than "/"')
    for segment in prefix[1:].split("/"):
        if segment in ("", ".", ".."):
            raise ValueError('must not have empty, "." or ".." segments')
    if _BAD_ESCAPE.search(prefix):
        raise ValueError("has a percent sign that is not followed by two hex digits")
    if not all("!" <= c <= "~" and c not in '?#"<>\\^`{|}' for c in prefix):
        raise ValueError("must be an encoded path: visible ASCII without ? and #, other characters as %XX")
    return prefix


def _check_json(value: object, depth: int) -> None:
    # TOML and Python know values (dates, infinity, tuples) that would not come back from JSON as they were.
    match value:
        case dict() | list() if not depth:
            raise ValueError(f"is nested deeper than {MAX_METADATA_DEPTH} levels")
        case dict():
            for key, item in cast(dict[object, object], value).items():
                if not isinstance(key, str):
                    raise ValueError("must have text as its keys")  # noqa: TRY004 - pydantic takes ValueError
                _check_json(key, depth)
                _check_json(item, depth - 1)
        case list():
            for item in cast(list[object], value):
                _check_json(item, depth - 1)
        case str():
            if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
                raise ValueError("must be Unicode text without lone surrogates")
        case float():
            if not isfinite(value):
                raise ValueError("must not have infinite numbers or NaN")
        case None | bool() | int():
            pass
        case _:
            raise ValueError(f"must be plain JSON; {type(value).__name__} is not")


class Route(Model):
    """One (session, service): what a coordinator, a file or the API says about it."""

    session_id: Segment
    service: Segment
    # "tcp" is known so that its refusal can say why; the published schema offers what is offered.
    protocol: Annotated[Literal["http", "tcp"], WithJsonSchema({"enum": ["http"], "type": "string"})] = "http"
    backends: tuple[Backend, ...] = Field(max_length=MAX_BACKENDS)
    host: Annotated[str, AfterValidator(check_host)] | None = None
    prefix: Annotated[str, AfterValidator(check_prefix)] | None = None
    path: Literal["strip", "keep"] = "strip"
    balance: Balance = "round_robin"
    sticky: Flag | Sticky = False
    websocket: Literal["message", "relay"] | None = None
    health: Health | None = None
    passive: RoutePassive = RoutePassive()
    slow_start: Seconds | None = None
    panic: Flag | None = None
    timeouts: RouteTimeouts = RouteTimeouts()
    retry: RouteRetry = RouteRetry()
    access: Access = Access()
    metadata: dict[str, Any] = Field(default_factory=dict)

    @field_validator("protocol")
    @classmethod
    def _offered(cls, protocol: str) -> str:
        if protocol == "tcp":
            raise ValueError('"tcp" is not offered by this version; only "http" is')
        return protocol

    @field_validator("backends")
    @classmethod
    def _ids_are_unique(cls, backends: tuple[Backend, ...]) -> tuple[Backend, ...]:
        if len(backends) < 2:
            return backends
        seen: set[str] = set()
        for backend in backends:
            if backend.id in seen:
                raise ValueError(f"two backends have the id {backend.id!r}; give each one of its own")
            seen.add(backend.id)
        return backends

    @field_validator("metadata")
    @classmethod
    def _metadata_is_bounded(cls, metadata: dict[str, Any]) -> dict[str, Any]:
        if metadata:
            _check_json(metadata, MAX_METADATA_DEPTH)
            if len(json.dumps(metadata)) > MAX_METADATA_BYTES:
                raise ValueError(f"is larger than {MAX_METADATA_BYTES} bytes")
        return metadata

    @property
    def key(self) -> RouteKey:
        """(session_id, service)."""
        return (self.session_id, self.service)
