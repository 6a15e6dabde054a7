"""The management API as an ASGI app."""

from __future__ import annotations

import logging
import secrets
from typing import Any, cast

from quart import Response, g, request
from quart_trio import QuartTrio

from trioproxy.control.worker import Worker
from trioproxy.management.auth import Guard
from trioproxy.management.bodies import MAX_BODY_BYTES, Request, discard_body
from trioproxy.management.calls import Call
from trioproxy.management.dashboard import dashboard_calls
from trioproxy.management.events import Streams, event_calls
from trioproxy.management.metrics import metrics_calls
from trioproxy.management.openapi import Specification, openapi_calls
from trioproxy.management.problems import Answers, bad_request
from trioproxy.management.route_calls import route_calls
from trioproxy.management.status import status_calls
from trioproxy.management.traffic import traffic_calls

STREAMS = "trioproxy.streams"
"""Where the app's `extensions` keep its event streams."""

_log = logging.getLogger(__name__)


def create_app(worker: Worker, *, token: str) -> QuartTrio:
    """The app for this worker. `token` opens /v1. Raises ValueError when it is empty."""
    app = QuartTrio("trioproxy.management", static_folder=None)
    app.request_class = Request
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False  # a path is what it is: no redirects
    streams = app.extensions[STREAMS] = Streams()
    specification = Specification()
    calls: dict[str, Call] = {}
    for call in (
        *dashboard_calls(),
        *status_calls(worker),
        *metrics_calls(worker, public=worker.config.management.public_metrics),
        *route_calls(worker),
        *traffic_calls(worker),
        *event_calls(worker, streams),
        *openapi_calls(specification),
    ):
        calls[call.endpoint] = call
        app.add_url_rule(call.rule, endpoint=call.endpoint, view_func=call.view, methods=[call.method])
    specification.describe(app, calls)
    _Hooks(Guard(token, calls)).register(app)
    Answers().register(app)
    return app


class _Hooks:
    """What happens before and after every call. Async though most do not wait: see problems.Answers."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def register(self, app: QuartTrio) -> None:
        """Let these run around the app's calls."""
        app.before_request(self.name_request)
        app.before_websocket(self.name_request)
        app.before_request(self.admit)
        app.after_request(self.finish)

    async def name_request(self) -> None:
        """Give the request its id."""
        g.request_id = secrets.token_hex(8)

    async def admit(self) -> None:
        """Refuse who has no token, and paths that could be read in two ways."""
        self._guard.check()
        scope = cast(dict[str, Any], request.scope)
        if b"%2f" in scope.get("raw_path", b"").lower():
            raise bad_request("no name in a path has a slash")

    async def finish(self, response: Response) -> Response:
        """Complete the response, log what was no reading, and let a refused body run out."""
        response.headers["X-Request-Id"] = g.request_id
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers.setdefault("Cache-Control", "no-store")
        if request.method not in ("GET", "HEAD"):
            _log.info("%s %r -> %d (%s)", request.method, request.path, response.status_code, g.request_id)
        if request.method == "HEAD":
            response.response = response.data_body_class(b"")
        if response.status_code >= 400:
            await discard_body()
        return response
