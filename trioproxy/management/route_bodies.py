"""What the calls on routes take: bodies, the query of a listing, and what they may not say twice."""

from __future__ import annotations

from collections.abc import Iterable

from trioproxy.management.bodies import MAX_BODY_BYTES, MIB, JsonBody, Query
from trioproxy.management.models import RouteFilter, RoutePatch, RouteSet
from trioproxy.management.problems import Mistake
from trioproxy.routing.route import Route, RouteKey


def _repeats(field: str, keys: Iterable[RouteKey]) -> list[Mistake]:
    seen: dict[RouteKey, int] = {}
    return [
        Mistake(field=f"{field}[{index}]", message=f"names {'/'.join(key)} again, as {field}[{seen[key]}] does")
        for index, key in enumerate(keys)
        if seen.setdefault(key, index) != index
    ]


def _contradictions(patch: RoutePatch) -> list[Mistake]:
    upsert = [route.key for route in patch.upsert]
    both = set(upsert).intersection(patch.remove)
    return [
        *_repeats("upsert", upsert),
        *_repeats("remove", patch.remove),
        *(
            Mistake(field=f"remove[{index}]", message=f"names {'/'.join(key)}, as upsert does")
            for index, key in enumerate(patch.remove)
            if key in both
        ),
    ]


LISTING = Query(RouteFilter)
ONE = JsonBody(Route, limit=MIB, optional=("session_id", "service"))
ALL = JsonBody(
    RouteSet,
    limit=MAX_BODY_BYTES,
    listed="routes",
    check=lambda body: _repeats("routes", (route.key for route in body.routes)),
)
PATCH = JsonBody(RoutePatch, limit=MAX_BODY_BYTES, check=_contradictions)
