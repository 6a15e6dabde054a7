"""The lookup: which route a path or a host name addresses. Immutable, and as fast with 100 000 routes as with one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from trioproxy.routing.history import History
from trioproxy.routing.route import Route, RouteKey

Claims = dict[bytes, tuple[Route, ...]]
"""Address -> the routes that claim it, in the order of their keys. The first one has it."""


class PathMatch(NamedTuple):
    """A route, and the part of the path that addressed it: `/session/service` or its prefix, no slash at the end."""

    route: Route
    prefix: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """All routes of one version, with the indexes that find them. Made by `build` or `changed`, never altered.

    Two routes may claim one host name or one prefix. The route with the smaller (session_id, service) has it,
    and the other gets it when that one goes. Neither is refused: providers do not know of each other.
    """

    version: int
    synced: bool
    """False until a provider has delivered a first snapshot: an unknown address may yet turn out to exist."""
    routes: Mapping[RouteKey, Route]
    backend_count: int
    """Backends of all routes together."""
    _paths: dict[bytes, PathMatch]
    _hosts: Claims
    _prefixes: Claims
    _depths: Counter[int]
    """Number of segments -> how many routes have a prefix of that many."""
    _deepest: int
    _history: History

    @classmethod
    def build(cls, routes: Iterable[Route], *, version: int, synced: bool = True) -> Table:
        """Make a table of these routes. Of two with the same key the later one counts."""
        empty = cls(version, synced, {}, 0, {}, {}, {}, Counter(), 0, History(version))
        return empty.changed(upsert=routes, remove=(), version=version, synced=synced)

    def changed(
        self, *, upsert: Iterable[Route], remove: Iterable[RouteKey], version: int, synced: bool = True
    ) -> Table:
        """Make the next table: `remove` first, then `upsert`, so a key in both stays. Unknown keys are ignored.

        Costs the changes themselves, and a copy of each index that they touch.
        """
        added = {route.key: route for route in upsert}
        touched = {*remove, *added}
        gone = [old for key in touched if (old := self.routes.get(key)) is not None]
        routes = dict(self.routes)
        paths = self._paths.copy()
        for route in gone:
            if route.key not in added:  # one that is replaced keeps its place in listings
                del routes[route.key]
                del paths[_path_of(route)]
        for key, route in added.items():
            routes[key] = route
            path = _path_of(route)
            paths[path] = PathMatch(route, path)
        depths = self._depths.copy()
        depths.subtract(_depths_of(gone))
        depths.update(_depths_of(added.values()))
        depths = +depths
        return Table(
            version=version,
            synced=synced,
            routes=routes,
            backend_count=self.backend_count + _count_backends(added.values()) - _count_backends(gone),
            _paths=paths,
            _hosts=_reclaim(self._hosts, lambda route: route.host, gone, added.values()),
            _prefixes=_reclaim(self._prefixes, lambda route: route.prefix, gone, added.values()),
            _depths=depths,
            _deepest=max(depths, default=0),
            _history=self._history.and_then(version, touched),
        )

    def changes_since(self, version: int) -> frozenset[RouteKey] | None:
        """The keys that may differ between this table and the one of an earlier version; None = too long ago to say.

        The versions are those of the tables this one was made from by `changed`.
        """
        return self._history.since(version)

    def get(self, key: RouteKey) -> Route | None:
        """Return the route of this (session_id, service)."""
        return self.routes.get(key)

    def match_path(self, path: bytes) -> PathMatch | None:
        """Find the route of an encoded path, without query, that begins with `/`.

        Addresses are compared byte for byte and end where a segment ends. The longest one counts; when a
        prefix spells the very path form of another route, the path form does.
        """
        # A path of fewer than two segments looks up b"" here, which addresses nothing.
        end = path.find(b"/", path.find(b"/", 1) + 1)
        match = self._paths.get(path if end < 0 else path[:end])
        return self._match_prefix(path, match) if self._deepest else match

    def match_host(self, host: bytes) -> Route | None:
        """Find the route of a host name, given in lower case, without port and final dot."""
        claims = self._hosts.get(host)
        return claims[0] if claims else None

    def _match_prefix(self, path: bytes, match: PathMatch | None) -> PathMatch | None:
        # Shorter prefixes than a path form that matched cannot win, so the walk starts behind it.
        end, depth = (len(match.prefix), 2) if match else (0, 0)
        while depth < self._deepest and end < len(path):
            end = path.find(b"/", end + 1)
            if end < 0:
                end = len(path)
            depth += 1
            prefix = path[:end]
            claims = self._prefixes.get(prefix)
            if claims:
                match = PathMatch(claims[0], prefix)
        return match


def _count_backends(routes: Iterable[Route]) -> int:
    return sum(len(route.backends) for route in routes)


def _path_of(route: Route) -> bytes:
    return f"/{route.session_id}/{route.service}".encode("ascii")


def _depths_of(routes: Iterable[Route]) -> Iterable[int]:
    return (route.prefix.count("/") for route in routes if route.prefix is not None)


def _reclaim(
    claims: Claims, address_of: Callable[[Route], str | None], gone: Iterable[Route], added: Iterable[Route]
) -> Claims:
    touched: dict[bytes, dict[RouteKey, Route]] = {}

    def claimants(address: str) -> dict[RouteKey, Route]:
        key = address.encode("ascii")
        if key not in touched:
            touched[key] = {route.key: route for route in claims.get(key, ())}
        return touched[key]

    for route in gone:
        if (address := address_of(route)) is not None:
            del claimants(address)[route.key]
    for route in added:
        if (address := address_of(route)) is not None:
            claimants(address)[route.key] = route
    if not touched:
        return claims
    changed = claims.copy()
    for key, routes in touched.items():
        if routes:
            changed[key] = tuple(routes[name] for name in sorted(routes))
        else:
            del changed[key]
    return changed
