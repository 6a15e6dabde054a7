"""What would happen to a GET of a URL: the words of the same router and parser that requests meet."""

from __future__ import annotations

import re
from typing import Any

from trioproxy.control.messages import BackendInfo, BackendState, Report
from trioproxy.control.worker import Explanation
from trioproxy.errors import NoBackend, ProxyError
from trioproxy.http1.parse import parse_request
from trioproxy.proxy.balancer import RETRY_AFTER
from trioproxy.proxy.router import AddSlash, Router
from trioproxy.routing.route import Backend, Route
from trioproxy.routing.table import Table

MAX_TOLD = 20
"""Backends that are not chosen, of which a sentence tells why; all are in `backends`."""
_REASONS: dict[BackendState, str] = {
    "draining": "an operator is draining it, so it gets no new requests",
    "disabled": "an operator has disabled it",
    "unhealthy": "its health checks fail",
    "ejected": "requests to it have failed",
}
_BY = {
    "round_robin": "weighted round robin",
    "least_connections": "fewest requests in flight",
    "random_two": "the less loaded of two at random",
    "client_hash": "a hash of the client's address",
}
_URL = re.compile(r"(?:https?://([^/?#]+))?(/[^#]*)?(?:#.*)?", re.IGNORECASE)


def explain_url(url: str, table: Table, report: Report, *, header_count: int, panic: bool = False) -> Explanation:
    """Explain in sentences. `panic`: of routes that do not say.

    Raises ValueError when `url` is not an http(s) URL or a path.
    """
    found = _URL.fullmatch(url) if url.isascii() and url.isprintable() and " " not in url else None
    if found is None or not url:
        raise ValueError("is not an http(s) URL or a path, in ASCII, with other characters as %XX")
    authority, target = found[1], found[2] or "/"
    host = f"Host: {authority}\r\n" if authority else ""
    # HTTP/1.0 may leave out Host, which a path alone does not tell.
    raw = f"GET {target} HTTP/1.{1 if authority else 0}\r\n{host}\r\n".encode("ascii")
    steps = [f"Table version {table.version} has {len(table.routes)} routes."]
    try:
        head = parse_request(raw, header_count=header_count)
        match = Router(table).match(head)
    except ProxyError as error:
        steps.append(_sentence(error.detail))
        return _explanation(url, "refuse", error, steps)
    route = match.route
    named: dict[str, Any] = {"session_id": route.session_id, "service": route.service}
    steps.append(f"{_how(route, match, authority)} addresses {route.session_id}/{route.service}.")
    if isinstance(match, AddSlash):
        steps.append(f"The final slash is missing: the client is sent to {match.location.decode('ascii')}.")
        return Explanation(url, "redirect", 308, None, **named, steps=tuple(steps))
    backend_path = match.target.decode("ascii")
    steps.append(f"The backend is asked for {backend_path}.")
    if route.access.allowed_client_ips:
        steps.append(f"Only clients in {', '.join(route.access.allowed_client_ips)} are admitted; others get 403.")
    backends = [_backend(item, _known(item, route, report)) for item in route.backends]
    usable = [item for item in backends if item["usable"]]
    details: dict[str, Any] = {**named, "backend_path": backend_path, "backends": tuple(backends)}
    unusable = [item for item in backends if not item["usable"]]
    steps += [f"Backend {item['id']} is {item['state']}: {item['reason']}." for item in unusable[:MAX_TOLD]]
    if len(unusable) > MAX_TOLD:
        steps.append(f"So are {len(unusable) - MAX_TOLD} more.")
    enabled = sum(item["state"] in ("unhealthy", "ejected") for item in backends)
    if not usable and enabled and (panic if route.panic is None else route.panic):
        steps.append(f"As `panic` is on, requests are sent to {enabled} of {len(backends)} backends all the same.")
        return Explanation(url, "forward", None, None, **details, steps=tuple(steps))
    if not usable:
        steps.append("No backend can serve this." if backends else "No backend can serve this: it has none.")
        return _explanation(url, "refuse", NoBackend("", retry_after=RETRY_AFTER), steps, **details)
    steps.append(f"{len(usable)} of {len(backends)} backends can serve this, by {_BY[route.balance]}.")
    return Explanation(url, "forward", None, None, **details, steps=tuple(steps))


def _explanation(url: str, outcome: Any, error: ProxyError, steps: list[str], **details: Any) -> Explanation:
    return Explanation(url, outcome, error.status, error.code, **details, steps=tuple(steps))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _how(route: Route, match: Any, authority: str | None) -> str:
    prefix = match.prefix.decode("ascii") if not isinstance(match, AddSlash) else ""
    if prefix:
        return f"The path below {prefix}"
    if route.host and authority and route.host == authority.lower().partition(":")[0].rstrip("."):
        return f"The host name {route.host}"
    return "The path"


def _known(backend: Backend, route: Route, report: Report) -> BackendInfo | None:
    key = (route.session_id, route.service, backend.id)
    return next((i for i in report.backends if (i.session_id, i.service, i.backend_id) == key), None)


def _backend(backend: Backend, known: BackendInfo | None) -> dict[str, Any]:
    state = known.state if known else "healthy"
    return {
        "id": backend.id,
        "host": backend.host,
        "port": backend.port,
        "tls": bool(backend.tls),
        "weight": backend.weight,
        "state": state,
        "usable": state == "healthy",
        "reason": (known.reason if known else None) or _REASONS.get(state),
        "in_flight": known.in_flight if known else 0,
        "last_error": known.last_error if known else None,
    }
