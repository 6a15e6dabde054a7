"""What operators have said about backends: kept by the supervisor, so that forwarders to come are told as well."""

from __future__ import annotations

from collections.abc import Iterable

from trioproxy.control.messages import AdminState, SetBackend
from trioproxy.routing.route import RouteKey
from trioproxy.routing.table import Table


class Marks:
    """Backends that are drained or disabled. A mark goes with its backend."""

    def __init__(self) -> None:
        self._marks: dict[RouteKey, dict[str, AdminState]] = {}

    def set(self, route: RouteKey, backend_id: str, state: AdminState) -> None:
        """Remember an operator's word about a backend."""
        backends = self._marks.setdefault(route, {})
        backends.pop(backend_id, None)
        if state != "enabled":
            backends[backend_id] = state
        if not backends:
            del self._marks[route]

    def routes_changed(self, keys: Iterable[RouteKey], table: Table) -> list[SetBackend]:
        """Forget backends that these routes do not have any more. Returns what undoes that in forwarders.

        For them the backend may never be gone, when it is back before they get the next table.
        """
        undone: list[SetBackend] = []
        if not self._marks:
            return undone
        for key in keys:
            marked = self._marks.get(key)
            if marked is None:
                continue
            route = table.get(key)
            known = {backend.id for backend in route.backends} if route is not None else set[str]()
            for backend_id in [name for name in marked if name not in known]:
                self.set(key, backend_id, "enabled")
                undone.append(SetBackend(key, backend_id, "enabled"))
        return undone

    def disabled(self, route: RouteKey) -> list[str]:
        """The backends of a route that are disabled."""
        return [name for name, state in self._marks.get(route, {}).items() if state == "disabled"]

    def commands(self) -> tuple[SetBackend, ...]:
        """What to tell a forwarder that has the table and nothing else."""
        return tuple(
            SetBackend(route, backend_id, state)
            for route, backends in self._marks.items()
            for backend_id, state in backends.items()
        )
