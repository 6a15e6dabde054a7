"""Plain routes, read from JSON in less than half the time: a name, and one backend by its address.

Most stored routes are that and nothing more. What is read here is what pydantic would have made of the same text, and
`compact`; whatever is not of this very form is left to it.
"""

from __future__ import annotations

import re
from operator import attrgetter

from trioproxy.routing.assembly import attributes_of, put_together
from trioproxy.routing.compact import compact
from trioproxy.routing.route import Backend, Route

# As pydantic writes it, and narrower than what it reads: a host by its usual characters, nothing escaped.
_FORM = re.compile(
    rb'\{"session_id":"(?!\.\.?")([A-Za-z0-9._~-]{1,128})","service":"(?!\.\.?")([A-Za-z0-9._~-]{1,128})",'
    rb'"backends":\[\{"host":"(?!unix:)([A-Za-z0-9._:-]{1,255})","port":([1-9][0-9]{0,4}),'
    rb'"id":"([A-Za-z0-9._~:-]{1,255})"\}\]\}'
)
_HIGHEST_PORT = 65535

_EXAMPLE = compact(Route(session_id="s", service="v", backends=(Backend(host="h", port=1),)))
_ROUTE, _BACKEND = attributes_of(Route), attributes_of(Backend)
_route: tuple[object, ...] = attrgetter(*_ROUTE)(_EXAMPLE)
_backend: tuple[object, ...] = attrgetter(*_BACKEND)(_EXAMPLE.backends[0])
_SESSION, _SERVICE, _BACKENDS = map(_ROUTE.index, ("session_id", "service", "backends"))
_HOST, _PORT, _ID = map(_BACKEND.index, ("host", "port", "id"))


def read_plain(text: bytes) -> Route | None:
    """The route that this JSON text is, if it is a plain one."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    session_id, service, host, digits, backend_id = found.groups()
    port = int(digits)
    if port > _HIGHEST_PORT:
        return None
    backend = [*_backend]
    backend[_HOST], backend[_PORT], backend[_ID] = host.decode(), port, backend_id.decode()
    route = [*_route]
    route[_SESSION], route[_SERVICE] = session_id.decode(), service.decode()
    route[_BACKENDS] = (put_together(Backend, _BACKEND, backend),)
    return put_together(Route, _ROUTE, route)
