"""Who may use a route."""

from __future__ import annotations

from trioproxy.errors import Forbidden
from trioproxy.http1.forwarded import Origin, inside, parse_address
from trioproxy.routing.route import Access


def check_access(access: Access, origin: Origin) -> None:
    """Raise Forbidden when the client's address is not among the route's `allowed_client_ips` (empty: all are)."""
    if access.allowed_client_ips and not inside(parse_address(origin.client), access.networks):
        raise Forbidden("this service does not admit your address")
