"""Routes in less than half the memory: what many of them have in common is one object for all."""

from __future__ import annotations

from typing import Any

from trioproxy.routing.assembly import Given, slim
from trioproxy.routing.route import Route

_no_metadata: dict[str, Any] = {}


def compact(route: Route) -> Route:
    """An equal route that shares with others what it can, or the same one if it does already."""
    if type(route.__pydantic_fields_set__) is Given:
        return route
    made = slim(route)
    object.__setattr__(made, "backends", tuple([slim(one) for one in route.backends]))
    if not route.metadata:
        object.__setattr__(made, "metadata", _no_metadata)
    return made
