"""The status page: static files that hold no data; the page asks for the token and reads /v1 with it."""

from __future__ import annotations

from importlib.resources import files

from quart import Response

from trioproxy.management.calls import Answer, Call

_TYPES = {
    "dashboard.html": "text/html; charset=utf-8",
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
}
# Nothing but these files, from nowhere but here; data only from this API; in nobody's frame.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class DashboardCalls:
    """The page and its files."""

    def __init__(self) -> None:
        folder = files("trioproxy.management") / "static"
        self._files = {name: (folder / name).read_bytes() for name in _TYPES}

    async def page(self) -> Response:
        """Get the status page, for people with a browser and the token."""
        return self._file("dashboard.html")

    async def static_file(self, name: str) -> Response:
        """Get one of the status page's files."""
        return self._file(name)

    def _file(self, name: str) -> Response:
        headers = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"}
        return Response(self._files[name], 200, headers, content_type=_TYPES[name])


def dashboard_calls() -> tuple[Call, ...]:
    """The page and its files."""
    do = DashboardCalls()
    return (
        Call("GET", "/", do.page, "pages", {200: Answer("The page.", media="text/html")}, public=True),
        Call(
            "GET",
            "/static/<any('dashboard.css','dashboard.js'):name>",
            do.static_file,
            "pages",
            {200: Answer("The file.", media="text/*")},
            {404: "No file has this name."},
            public=True,
        ),
    )
