"""From a request head to the route that serves it, on the encoded path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from trioproxy.errors import BadRequest, NoRoute, NotSynced
from trioproxy.http1.forwarded import Origin
from trioproxy.http1.head import RequestHead
from trioproxy.http1.rewrite import Mapping
from trioproxy.http1.target import bad_escape
from trioproxy.routing.route import Backend, Route
from trioproxy.routing.table import Table

SYNC_RETRY_AFTER = 2  # seconds


class Match(NamedTuple):
    """Where a request goes."""

    route: Route
    target: bytes  # path and query for the backend
    prefix: bytes  # what was stripped from the path; empty = nothing
    root: bytes = b""  # the path at which the client finds the route; empty = the whole host is the route's

    def mapping(self, origin: Origin, head: RequestHead, backend: Backend) -> Mapping | None:
        """How the backend's words about its own root are to be mapped; None = not at all."""
        if self.route.path != "strip":
            return None
        address = backend.authority.encode("ascii", "replace")
        return Mapping(origin.prefix + self.prefix, head.authority or address, address)


@dataclass(frozen=True, slots=True)
class AddSlash:
    """The path form without its final slash: relative links of the service would break, so the client is sent on."""

    route: Route
    location: bytes


class Router:
    """Holds the table in force; `match` is a pure look-up in it."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def match(self, head: RequestHead) -> Match | AddSlash:
        """Find the route. Raises NoRoute, NotSynced, BadRequest."""
        table = self.table
        route = table.match_host(_host_name(head.authority)) if table.hosts and head.authority else None
        if route is not None:
            _check_climb(head.path)
            return Match(route, head.path + head.query, b"")
        found = table.match_path(head.path)
        if found is None:
            raise self._no_match(head.path)
        route, prefix = found
        rest = head.path[len(prefix) :]
        if not rest:
            path_form = prefix.count(b"/") == 2 and prefix == f"/{route.session_id}/{route.service}".encode()
            if head.method in (b"GET", b"HEAD") and not head.upgrade and (path_form or route.path == "strip"):
                return AddSlash(route, prefix + b"/" + head.query)
        _check_climb(rest)
        if route.path == "keep":
            return Match(route, head.path + head.query, b"", prefix)
        return Match(route, (rest or b"/") + head.query, prefix, prefix)

    def _no_match(self, path: bytes) -> Exception:
        if bad_escape(b"/".join(path.split(b"/", 3)[1:3])):
            return BadRequest("a percent sign in the session or service name is not followed by two hex digits")
        if not self.table.synced:
            return NotSynced("this worker has not received its routes yet", retry_after=SYNC_RETRY_AFTER)
        return NoRoute("no session or service has this address")


def _host_name(authority: bytes) -> bytes:
    host = authority.lower()
    if not host.startswith(b"["):
        host = host.partition(b":")[0]
    return host.rstrip(b".")


def _check_climb(rest: bytes) -> None:
    # The path goes on byte for byte, but one that climbs above the service's own root cannot mean anything good:
    # in the browser's or a front proxy's eyes it belongs to another service.
    if b".." not in rest and b"%2" not in rest:
        return
    depth = 0
    for segment in rest.lower().replace(b"%2e", b".").split(b"/"):
        if segment == b"..":
            depth -= 1
            if depth < 0:
                raise BadRequest("the path climbs out of its service")
        elif segment not in (b"", b"."):
            depth += 1
