"""Calls on what carries traffic now: backends and connections."""

from __future__ import annotations

from functools import partial
from typing import Literal

from pydantic import TypeAdapter
from quart import Response

from trioproxy.control.messages import AdminState, BackendInfo
from trioproxy.control.worker import Worker
from trioproxy.management.backends import all_backends
from trioproxy.management.bodies import Query
from trioproxy.management.calls import Answer, Call, ask, no_body, reply, tell
from trioproxy.management.models import BackendFilter, BackendList, BackendSet, ConnectionFilter, ConnectionList
from trioproxy.management.ordering import in_order
from trioproxy.management.problems import Problem
from trioproxy.management.streaming import JsonList, stream

Action = Literal["drain", "enable", "disable"]

_BACKENDS = Query(BackendFilter)
_CONNECTIONS = Query(ConnectionFilter)
_STATES: dict[Action, AdminState] = {"drain": "draining", "enable": "enabled", "disable": "disabled"}
_backend = TypeAdapter(BackendInfo)


class TrafficCalls:
    """The calls below /v1/backends and /v1/connections."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def list_backends(self) -> Response:
        """List the backends of all routes, by session and service, with their state."""
        wanted = _BACKENDS.read()
        report = await ask(self._worker.report)

        def dump(backend: BackendInfo) -> bytes | None:
            if wanted.session_id not in (None, backend.session_id) or wanted.service not in (None, backend.service):
                return None
            return _backend.dump_json(backend)

        backends = all_backends(await in_order(self._worker.catalog.table), report, self._worker.last_check)
        return stream(JsonList(b'{"backends":[', backends, dump, b"]}"), "application/json")

    async def set_backend(self, session_id: str, service: str, backend_id: str, action: Action) -> Response:
        """Drain, disable or enable one backend of one route.

        Lasts until it is set otherwise, or until the backend leaves the route.
        """
        state = _STATES[action]
        if not await tell(self._worker.set_backend, (session_id, service), backend_id, state):
            raise Problem(404, "not_found", f"route {session_id}/{service} has no backend {backend_id!r}")
        return reply(BackendSet(session_id=session_id, service=service, backend_id=backend_id, state=state))

    async def list_connections(self) -> Response:
        """List live client connections, the oldest first."""
        limit = _CONNECTIONS.read().limit
        report = await ask(partial(self._worker.report, connections=True))
        oldest_first = sorted(report.connections, key=lambda connection: connection.opened_at)
        return reply(ConnectionList(total=len(oldest_first), connections=oldest_first[:limit]))

    async def close_connection(self, connection_id: str) -> Response:
        """Close one client connection at once."""
        if not await tell(self._worker.close_connection, connection_id):
            raise Problem(404, "not_found", f"no connection has the id {connection_id!r}")
        return no_body(204)


_SLOW = "`overloaded`: the worker is too slow."


def traffic_calls(worker: Worker) -> tuple[Call, ...]:
    """The calls below /v1/backends and /v1/connections."""
    do = TrafficCalls(worker)
    return (
        Call(
            "GET",
            "/v1/backends",
            do.list_backends,
            "traffic",
            {200: Answer("The backends.", BackendList)},
            {400: "A parameter is not valid.", 503: _SLOW},
            query=_BACKENDS,
        ),
        Call(
            "POST",
            "/v1/backends/<session_id>/<service>/<backend_id>/<any(drain,enable,disable):action>",
            do.set_backend,
            "traffic",
            {200: Answer("Done, in every forwarder.", BackendSet)},
            {400: "The path is not valid.", 404: "No route has such a backend.", 503: _SLOW},
        ),
        Call(
            "GET",
            "/v1/connections",
            do.list_connections,
            "traffic",
            {200: Answer("The connections.", ConnectionList)},
            {400: "A parameter is not valid.", 503: _SLOW},
            query=_CONNECTIONS,
        ),
        Call(
            "DELETE",
            "/v1/connections/<connection_id>",
            do.close_connection,
            "traffic",
            {204: Answer("Closed.", media=None)},
            {400: "The path is not valid.", 404: "No connection has this id.", 503: _SLOW},
        ),
    )
