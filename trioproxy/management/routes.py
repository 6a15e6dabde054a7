"""Calls on routes: list, set, change and remove them."""

from __future__ import annotations

from functools import partial

from quart import Response, request

from trioproxy.control.messages import Activity
from trioproxy.control.worker import Change, Worker
from trioproxy.management.calls import ask, no_body, reply, tell
from trioproxy.management.models import Changed
from trioproxy.management.ordering import in_order
from trioproxy.management.problems import Problem, bad_request
from trioproxy.management.route_bodies import ALL, LISTING, ONE, PATCH
from trioproxy.management.streaming import JsonList, stream
from trioproxy.providers.store import RouteStore
from trioproxy.routing.route import Route, RouteKey

API_PROVIDER = RouteStore.name
"""The provider that holds the routes set here; it wins over every other one."""


class RouteCalls:
    """The calls below /v1/routes. Reads show the routes of all providers; writes act on API-set ones."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def list_routes(self) -> Response:
        """List the routes of all providers, by session and service.

        The body can be sent back with PUT as it is. A listing by `inactive_since` has no ETag: activity is not
        part of the version.
        """
        wanted = LISTING.read()
        table = self._worker.catalog.table
        headers: dict[str, str] = {}
        activity: dict[RouteKey, Activity] = {}
        if wanted.inactive_since is not None:
            activity = (await ask(self._worker.report)).activity
        elif _known(table.version):
            return no_body(304, _etag(table.version))
        else:
            headers = _etag(table.version)
        appeared_at = self._worker.appeared_at

        def dump(route: Route) -> bytes | None:
            if wanted.session_id not in (None, route.session_id) or wanted.service not in (None, route.service):
                return None
            if wanted.inactive_since is not None:
                found = activity.get(route.key)
                if (found.last_activity if found else appeared_at(route.key)) >= wanted.inactive_since:
                    return None
            return route.model_dump_json().encode()

        head = b'{"version":%d,"routes":[' % table.version
        return stream(JsonList(head, await in_order(table), dump, b"]}"), "application/json", headers)

    async def replace_routes(self) -> Response:
        """Replace all API-set routes at once.

        With `If-Match` only if the table still has that version, so that of two writers one is told.
        """
        routes = (await ALL.read()).routes
        # RFC 9110 §13.2.1: a condition is looked at once the request would succeed without it.
        expected = self._expected_version()
        change = await tell(partial(self._worker.replace_routes, routes, if_version=expected))
        if change is None:
            raise self._stale()
        return _changed(change)

    async def patch_routes(self) -> Response:
        """Create, replace and remove API-set routes in one version.

        Removing a route that is not there is no mistake.
        """
        _refuse_if_match()
        patch = await PATCH.read()
        for key in patch.remove:
            if (holder := self._other_holder(key)) is not None:
                raise _held_by(holder, key)
        return _changed(await tell(self._worker.patch_routes, patch.upsert, patch.remove))

    async def get_route(self, session_id: str, service: str) -> Response:
        """Get one route."""
        table = self._worker.catalog.table
        route = table.get((session_id, service))
        if route is None:
            raise _no_such_route(session_id, service)
        if _known(table.version):
            return no_body(304, _etag(table.version))
        return reply(route, headers=_etag(table.version))

    async def put_route(self, session_id: str, service: str) -> Response:
        """Create or replace one API-set route.

        The body may leave out `session_id` and `service`. A route of the same names from another provider is
        hidden until this one is removed.
        """
        _refuse_if_match()
        route = await ONE.read(session_id=session_id, service=service)
        change = await tell(self._worker.put_route, route)
        return _changed(change, done=201 if change.created else 200)

    async def delete_route(self, session_id: str, service: str) -> Response:
        """Remove one API-set route. Its streams end after `worker.drain_timeout`."""
        _refuse_if_match()
        key = (session_id, service)
        if (holder := self._other_holder(key)) is not None:
            raise _held_by(holder, key)
        return await self._remove([key], _no_such_route(session_id, service))

    async def delete_session(self, session_id: str) -> Response:
        """Remove all API-set routes of a session."""
        _refuse_if_match()
        catalog = self._worker.catalog
        keys = [key for key in catalog.of_provider(API_PROVIDER) if key[0] == session_id]
        missing = Problem(404, "not_found", f"no route of session {session_id!r}")
        if not keys:
            others = (key for key in catalog.table.routes if key[0] == session_id)
            if (key := next(others, None)) is not None:
                raise _held_by(catalog.provider_of(key) or "another provider", key)
            raise missing
        return await self._remove(keys, missing)

    async def _remove(self, keys: list[RouteKey], missing: Problem) -> Response:
        change = await tell(self._worker.remove_routes, keys)
        if change is None:
            raise missing
        return _changed(change) if not change.applied else no_body(204, _etag(change.version))

    def _other_holder(self, key: RouteKey) -> str | None:
        holder = self._worker.catalog.provider_of(key)
        return holder if holder != API_PROVIDER else None

    def _expected_version(self) -> int | None:
        if "If-Match" not in request.headers or request.if_match.star_tag:
            return None
        version = self._worker.catalog.version
        if not request.if_match.contains(str(version)):
            raise self._stale()
        return version

    def _stale(self) -> Problem:
        version = self._worker.catalog.version
        return Problem(
            412,
            "precondition_failed",
            f"the routes have changed: the table has version {version} now; get it, and decide again",
            headers=_etag(version),
        )


def _changed(change: Change, *, done: int = 200) -> Response:
    body = Changed(version=change.version, applied=change.applied)
    return reply(body, done if change.applied else 202, _etag(change.version))


def _etag(version: int) -> dict[str, str]:
    return {"ETag": f'"{version}"'}


def _known(version: int) -> bool:
    return request.if_none_match.contains_weak(str(version))


def _no_such_route(session_id: str, service: str) -> Problem:
    return Problem(404, "not_found", f"no route is named {session_id!r} / {service!r}")


def _held_by(provider: str, key: RouteKey) -> Problem:
    return Problem(
        409,
        "conflict",
        f'route {"/".join(key)} comes from the provider "{provider}", not from this API: remove it there',
    )


def _refuse_if_match() -> None:
    # To do the write all the same would be to break the caller's promise to themselves.
    if "If-Match" in request.headers:
        raise bad_request("If-Match is only for PUT /v1/routes")
