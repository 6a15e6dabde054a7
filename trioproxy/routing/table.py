"""The lookup: which route a path or a host name addresses. Immutable, and as fast with 100 000 routes as with one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from immutables import Map, MapMutation

from trioproxy.routing.history import MAX_KEYS, History
from trioproxy.routing.route import Route, RouteKey

Claims = Map[bytes, tuple[Route, ...]]
"""Address -> the routes that claim it, in the order of their keys. The first one has it."""


class PathMatch(NamedTuple):
    """A route, and the part of the path that addressed it: `/session/service` or its prefix, no slash at the end."""

    route: Route
    prefix: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """All routes of one version, with the indexes that find them. Made by `build`, `changed` or a Draft, never altered.

    The indexes are hash trees: a lookup costs what one in a dict costs, and the next table shares with this one
    whatever a change does not touch.

    Two routes may claim one host name or one prefix. The route with the smaller (session_id, service) has it,
    and the other gets it when that one goes. Neither is refused: providers do not know of each other.
    """

    version: int
    synced: bool
    """False until a provider has delivered a first snapshot: an unknown address may yet turn out to exist."""
    routes: Map[RouteKey, Route]
    """In no order that means anything."""
    backend_count: int
    """Backends of all routes together."""
    # From here on: what the methods look in, and a Draft starts from.
    paths: Map[bytes, PathMatch]
    hosts: Claims
    prefixes: Claims
    depths: Counter[int]
    """Number of segments -> how many routes have a prefix of that many."""
    deepest: int
    history: History

    @classmethod
    def build(cls, routes: Iterable[Route], *, version: int, synced: bool = True) -> Table:
        """Make a table of these routes. Of two with the same key the later one counts."""
        empty = cls(version, synced, Map(), 0, Map(), Map(), Map(), Counter(), 0, History(version))
        return empty.changed(upsert=routes, remove=(), version=version, synced=synced)

    def changed(
        self, *, upsert: Iterable[Route], remove: Iterable[RouteKey], version: int, synced: bool = True
    ) -> Table:
        """Make the next table: `remove` first, then `upsert`, so a key in both stays. Unknown keys are ignored.

        Costs the changes themselves, however large the table.
        """
        draft = Draft(self)
        draft.change({route.key: route for route in upsert}.items(), remove)
        return draft.finish(version=version, synced=synced)

    def changes_since(self, version: int) -> frozenset[RouteKey] | None:
        """The keys that may differ between this table and the one of an earlier version; None = too long ago to say.

        The versions are those of the tables this one was made from.
        """
        return self.history.since(version)

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
        match = self.paths.get(path if end < 0 else path[:end])
        return self._match_prefix(path, match) if self.deepest else match

    def match_host(self, host: bytes) -> Route | None:
        """Find the route of a host name, given in lower case, without port and final dot."""
        claims = self.hosts.get(host)
        return claims[0] if claims else None

    def _match_prefix(self, path: bytes, match: PathMatch | None) -> PathMatch | None:
        # Shorter prefixes than a path form that matched cannot win, so the walk starts behind it.
        end, depth = (len(match.prefix), 2) if match else (0, 0)
        while depth < self.deepest and end < len(path):
            end = path.find(b"/", end + 1)
            if end < 0:
                end = len(path)
            depth += 1
            prefix = path[:end]
            claims = self.prefixes.get(prefix)
            if claims:
                match = PathMatch(claims[0], prefix)
        return match


class Draft:
    """The next table while it is being made, in as many steps as its maker likes. `finish` ends it.

    Costs what its steps change: the table it starts from is shared, and stays as it is.
    """

    def __init__(self, table: Table) -> None:
        self._routes = table.routes.mutate()
        self._paths = table.paths.mutate()
        self._hosts = table.hosts.mutate()
        self._prefixes = table.prefixes.mutate()
        self._depths = table.depths.copy()
        self._backend_count = table.backend_count
        self._history = table.history
        self._touched: set[RouteKey] = set()

    def change(self, upsert: Iterable[tuple[RouteKey, Route]], remove: Iterable[RouteKey]) -> None:
        """Take a step: `remove` first, then `upsert`: routes by their keys, each once. Unknown keys are ignored."""
        routes, paths = self._routes, self._paths
        gone: list[Route] = []
        added: list[Route] = []
        for key in remove:
            self._touch(key)
            if (old := routes.pop(key, None)) is not None:
                gone.append(old)
                del paths[_path_of(key)]
        for key, route in upsert:
            self._touch(key)
            if (old := routes.get(key)) is not None:
                gone.append(old)
            added.append(route)
            routes[key] = route
            path = _path_of(key)
            paths[path] = PathMatch(route, path)
        self._backend_count += _count_backends(added) - _count_backends(gone)
        self._depths.subtract(_depths_of(gone))
        self._depths.update(_depths_of(added))
        _reclaim(self._hosts, _with_host(gone), _with_host(added))
        _reclaim(self._prefixes, _with_prefix(gone), _with_prefix(added))

    def finish(self, *, version: int, synced: bool = True) -> Table:
        """The table. Nothing can be done with the draft afterwards."""
        depths = +self._depths
        return Table(
            version=version,
            synced=synced,
            routes=self._routes.finish(),
            backend_count=self._backend_count,
            paths=self._paths.finish(),
            hosts=self._hosts.finish(),
            prefixes=self._prefixes.finish(),
            depths=depths,
            deepest=max(depths, default=0),
            history=self._history.and_then(version, self._touched),
        )

    def _touch(self, key: RouteKey) -> None:
        if len(self._touched) <= MAX_KEYS:  # for the history, more are as good as all
            self._touched.add(key)


def _path_of(key: RouteKey) -> bytes:
    session_id, service = key
    return f"/{session_id}/{service}".encode("ascii")


# Lists, because a generator takes twice as long, and there may be 100 000 routes.


def _count_backends(routes: Iterable[Route]) -> int:
    return sum([len(route.backends) for route in routes])


def _depths_of(routes: Iterable[Route]) -> Iterable[int]:
    return [route.prefix.count("/") for route in routes if route.prefix is not None]


def _with_host(routes: Iterable[Route]) -> Sequence[tuple[str, Route]]:
    return [(route.host, route) for route in routes if route.host is not None]


def _with_prefix(routes: Iterable[Route]) -> Sequence[tuple[str, Route]]:
    return [(route.prefix, route) for route in routes if route.prefix is not None]


def _reclaim(
    claims: MapMutation[bytes, tuple[Route, ...]],
    gone: Iterable[tuple[str, Route]],
    added: Iterable[tuple[str, Route]],
) -> None:
    """Take away and give addresses, each to or from the route beside it."""
    touched: dict[bytes, dict[RouteKey, Route]] = {}

    def claimants(address: str) -> dict[RouteKey, Route]:
        key = address.encode("ascii")
        if key not in touched:
            touched[key] = {route.key: route for route in claims.get(key, ())}
        return touched[key]

    for address, route in gone:
        del claimants(address)[route.key]
    for address, route in added:
        claimants(address)[route.key] = route
    for key, routes in touched.items():
        if routes:
            claims[key] = tuple(routes[name] for name in sorted(routes))
        else:
            claims.pop(key, None)
