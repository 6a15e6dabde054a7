"""The calls on routes, as records: paths, answers and refusals."""

from __future__ import annotations

from trioproxy.control.worker import Worker
from trioproxy.management.calls import Answer, Call
from trioproxy.management.models import Changed, RouteList
from trioproxy.management.route_bodies import ALL, LISTING, ONE, PATCH
from trioproxy.management.routes import RouteCalls
from trioproxy.routing.route import Route

_ETAG = {"ETag": "The version of the table, in quotes."}
_CONDITIONAL = {"If-None-Match": 'The ETag of an earlier answer: 304 when nothing has changed; also a list, or "*".'}
_UNCHANGED = Answer("Nothing has changed since that version.", media=None, headers=_ETAG)
_LATER = Answer("Kept; not every forwarder serves it yet.", Changed, headers=_ETAG)
_DONE = Answer("Every live forwarder serves it.", Changed, headers=_ETAG)
_GONE = Answer("Removed.", media=None, headers=_ETAG)
_BAD = "The request is not valid; `errors` says where and why. Nothing was changed."
_BUSY = "`overloaded`: the worker is too slow; or `not_stored`: the change cannot be kept, and was not made."
_OTHERS = "The route comes from another provider, which the detail names."
_BODY = {
    400: _BAD,
    408: "The body stopped coming.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    503: _BUSY,
}


def route_calls(worker: Worker) -> tuple[Call, ...]:
    """The calls below /v1/routes."""
    do = RouteCalls(worker)
    all_of, session, one = "/v1/routes", "/v1/routes/<session_id>", "/v1/routes/<session_id>/<service>"
    return (
        Call(
            "GET",
            all_of,
            do.list_routes,
            "routes",
            {200: Answer("The routes.", RouteList, headers=_ETAG), 304: _UNCHANGED},
            {400: "A parameter is not valid.", 503: "`overloaded`: activity is not known in time."},
            query=LISTING,
            headers=_CONDITIONAL,
        ),
        Call(
            "PUT",
            all_of,
            do.replace_routes,
            "routes",
            {200: _DONE, 202: _LATER},
            {**_BODY, 412: "The table has another version by now."},
            body=ALL,
            headers={"If-Match": 'The ETag of the version this is based on; "*" = any.'},
        ),
        Call(
            "PATCH", all_of, do.patch_routes, "routes", {200: _DONE, 202: _LATER}, {**_BODY, 409: _OTHERS}, body=PATCH
        ),
        Call(
            "GET",
            one,
            do.get_route,
            "routes",
            {200: Answer("The route.", Route, headers=_ETAG), 304: _UNCHANGED},
            {400: _BAD, 404: "No route has these names."},
            headers=_CONDITIONAL,
        ),
        Call(
            "PUT",
            one,
            do.put_route,
            "routes",
            {200: _DONE, 201: Answer("Created, and served.", Changed, headers=_ETAG), 202: _LATER},
            _BODY,
            body=ONE,
        ),
        Call(
            "DELETE",
            one,
            do.delete_route,
            "routes",
            {202: _LATER, 204: _GONE},
            {400: _BAD, 404: "No route has these names.", 409: _OTHERS, 503: _BUSY},
        ),
        Call(
            "DELETE",
            session,
            do.delete_session,
            "routes",
            {202: _LATER, 204: _GONE},
            {400: _BAD, 404: "The session has no routes.", 409: _OTHERS, 503: _BUSY},
        ),
    )
