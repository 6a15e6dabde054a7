"""`trioproxy routes …`: look at the routes of a running worker, and change those set over its API."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from pydantic import ValidationError

from trioproxy.commands.client import ManagementClient
from trioproxy.commands.errors import CommandError
from trioproxy.commands.output import print_json, print_table
from trioproxy.providers.routes_file import parse_routes, read_routes
from trioproxy.routing.route import Route


def list_routes(arguments: Namespace) -> int:
    """Print the routes of all providers."""
    with ManagementClient.from_arguments(arguments) as client:
        listing = client.call("GET", "/v1/routes")
    if arguments.json:
        print_json(listing)
        return 0
    print_table(("SESSION", "SERVICE", "BACKENDS", "ALSO AT"), (_row(route) for route in _sorted(listing)))
    return 0


def _sorted(listing: dict[str, Any]) -> list[dict[str, Any]]:
    return sorted(listing["routes"], key=lambda route: (route["session_id"], route["service"]))


def _row(route: dict[str, Any]) -> tuple[str, str, str, str]:
    also = ", ".join(filter(None, (route.get("host"), route.get("prefix"))))
    return route["session_id"], route["service"], ", ".join(map(_address, route["backends"])) or "-", also


def _address(backend: dict[str, Any]) -> str:
    host = backend["host"]
    if host.startswith("unix:"):
        return host
    return f"[{host}]:{backend['port']}" if ":" in host else f"{host}:{backend['port']}"


def get_route(arguments: Namespace) -> int:
    """Print one route as JSON."""
    with ManagementClient.from_arguments(arguments) as client:
        print_json(client.call("GET", _path(arguments), missing=_missing(arguments)))
    return 0


def add_route(arguments: Namespace) -> int:
    """Create or replace a route."""
    route = _route(arguments)
    with ManagementClient.from_arguments(arguments) as client:
        _tell(client.call("PUT", _path(arguments), route.model_dump(mode="json", exclude_unset=True)))
    return 0


def _route(arguments: Namespace) -> Route:
    fields: dict[str, Any] = {}
    if arguments.json is not None:
        try:
            parsed = json.loads(arguments.json)
        except ValueError as error:
            raise CommandError(f"--json: is not JSON: {error}") from None
        if not isinstance(parsed, dict):
            raise CommandError("--json: is not a JSON object")
        fields = cast(dict[str, Any], parsed)
    if arguments.path is not None:
        fields["path"] = arguments.path
    if arguments.backends:
        fields["backends"] = [_backend(text) for text in arguments.backends]
    fields.setdefault("backends", [])
    fields |= {"session_id": arguments.session_id, "service": arguments.service}
    try:
        return Route.model_validate(fields)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise CommandError("this is not a route: " + "; ".join(problems)) from None


def _backend(text: str) -> dict[str, Any]:
    if text.startswith("unix:"):
        return {"host": text}
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise CommandError(f"{text} is not a backend; write HOST:PORT, [IPV6]:PORT or unix:/path")
    return {"host": host.removeprefix("[").removesuffix("]"), "port": int(port)}


def remove_route(arguments: Namespace) -> int:
    """Remove a route, or all routes of a session."""
    with ManagementClient.from_arguments(arguments) as client:
        client.call("DELETE", _path(arguments), missing=_missing(arguments))
    return 0


def import_routes(arguments: Namespace) -> int:
    """Create or replace the routes of a file; with `--replace` they become all API-set routes there are."""
    if arguments.file == "-":
        routes = parse_routes(Path("stdin.json"), sys.stdin.buffer.read())
    else:
        routes = read_routes(Path(arguments.file))
    dumped = [route.model_dump(mode="json", exclude_unset=True) for route in routes]
    with ManagementClient.from_arguments(arguments) as client:
        if arguments.replace:
            _tell(client.call("PUT", "/v1/routes", {"routes": dumped}))
        else:
            _tell(client.call("PATCH", "/v1/routes", {"upsert": dumped}))
    return 0


def export_routes(arguments: Namespace) -> int:
    """Print all routes as a routes file, in JSON and sorted, so that two exports can be compared."""
    with ManagementClient.from_arguments(arguments) as client:
        listing = client.call("GET", "/v1/routes")
    print_json({"routes": _sorted(listing)})
    return 0


def _path(arguments: Namespace) -> str:
    names = [arguments.session_id, *([arguments.service] if arguments.service is not None else [])]
    return "/v1/routes/" + "/".join(quote(name, safe="") for name in names)


def _missing(arguments: Namespace) -> str:
    if arguments.service is None:
        return f"no route of session {arguments.session_id}"
    return f"no route {arguments.session_id}/{arguments.service}"


def _tell(change: dict[str, Any]) -> None:
    if not change["applied"]:
        sys.stderr.write(f"kept as version {change['version']}, but not every forwarder serves it yet\n")
