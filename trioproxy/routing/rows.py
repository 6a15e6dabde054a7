"""Routes as rows of plain values, for the way to another process of this program: many of them in little time."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Any, cast

from trioproxy.routing.assembly import attributes_of, put_together, share
from trioproxy.routing.route import Backend, Route

Row = list[Any]
"""The values of a route's attributes in their order, with each backend as a list of its own."""

_ROUTE, _BACKEND = attributes_of(Route), attributes_of(Backend)
_PLACE, _GIVEN = _ROUTE.index("backends"), _ROUTE.index("__pydantic_fields_set__")
_BACKEND_GIVEN = _BACKEND.index("__pydantic_fields_set__")
_of_route, _of_backend = attrgetter(*_ROUTE), attrgetter(*_BACKEND)


def to_rows(routes: Iterable[Route]) -> list[Row]:
    """The routes as rows. What several of them share is the same object in all rows."""
    return [_route_row(route) for route in routes]


def from_rows(rows: Iterable[Row]) -> tuple[Route, ...]:
    """The routes that the rows were made of, not validated again. The rows are used up.

    Raises ValueError for a row that has not as many values as a route, or a backend, has attributes.
    """
    return tuple([_route(row) for row in rows])


def _route_row(route: Route) -> Row:
    row: Row = [*_of_route(route)]
    row[_PLACE] = [_backend_row(backend) for backend in route.backends]
    row[_GIVEN] = share(row[_GIVEN])
    return row


def _backend_row(backend: Backend) -> Row:
    row: Row = [*_of_backend(backend)]
    row[_BACKEND_GIVEN] = share(row[_BACKEND_GIVEN])
    return row


def _route(row: Row) -> Route:
    if len(row) != len(_ROUTE):
        raise ValueError(f"{len(row)} values for the {len(_ROUTE)} attributes of a Route")
    row[_PLACE] = tuple([_backend(one) for one in cast(list[Row], row[_PLACE])])
    return put_together(Route, _ROUTE, row)


def _backend(row: Row) -> Backend:
    if len(row) != len(_BACKEND):
        raise ValueError(f"{len(row)} values for the {len(_BACKEND)} attributes of a Backend")
    return put_together(Backend, _BACKEND, row)
