"""What a request wishes of the choice of its backend, and how its client is told which one it was."""

from __future__ import annotations

from trioproxy.http1.cookies import cookie_field
from trioproxy.proxy.balancer import Lease, Wish
from trioproxy.proxy.request import Request
from trioproxy.proxy.router import Match
from trioproxy.routing.route import Route, Sticky

_DEFAULT = Sticky()


def _settings(route: Route) -> Sticky:
    return route.sticky if isinstance(route.sticky, Sticky) else _DEFAULT


def wish_of(request: Request, route: Route) -> Wish | None:
    """The wish; None where the route does not ask. The route's own cookie is taken out of the head: call it once."""
    if not route.sticky:
        return Wish(request.origin.client) if route.balance == "client_hash" else None
    name = _settings(route).cookie.encode("ascii")
    return Wish(request.origin.client, request.cookies.take(request.head, name))


def set_pin(lease: Lease, match: Match, request: Request) -> bytes:
    """The Set-Cookie that binds the client to the backend that serves it; empty when it is bound already."""
    if lease.pin is None:
        return b""
    sticky = _settings(match.route)
    return cookie_field(
        sticky.cookie,
        lease.pin,
        path=request.origin.prefix + match.root,
        secure=request.origin.scheme == "https",
        max_age=sticky.max_age,
    )
