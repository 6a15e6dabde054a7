"""The backends of all routes: those that had traffic as the forwarders report them, the others as they stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from trioproxy.control.messages import BackendInfo, Report
from trioproxy.control.worker import LastCheck
from trioproxy.routing.route import Route, RouteKey
from trioproxy.routing.table import Table

LastChecks = Callable[[RouteKey, str], LastCheck | None]
"""The last active check of a route's backend."""


def all_backends(routes: Iterable[Route], report: Report, last_check: LastChecks) -> Iterator[BackendInfo]:
    """Every backend of these routes, route by route."""
    reported = {(info.session_id, info.service, info.backend_id): info for info in report.backends}
    for route in routes:
        for backend in route.backends:
            info = reported.get((route.session_id, route.service, backend.id)) or BackendInfo.unused(route.key, backend)
            check = last_check(route.key, backend.id) if route.health is not None else None
            yield info if check is None else replace(info, last_check_at=check.at, last_check_error=check.error)


def count_states(table: Table, report: Report) -> Counter[str]:
    """How many backends of the table are in which state, without looking at those of which nothing is said."""
    states = Counter[str](info.state for info in report.backends if table.get((info.session_id, info.service)))
    states["healthy"] += table.backend_count - states.total()
    return states
