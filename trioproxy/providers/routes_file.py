"""Reading a file of routes, `{routes = [...]}` in TOML or JSON: bytes in, routes or one clear error out."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, from_json

from trioproxy.config.problems import explain
from trioproxy.errors import ProviderError
from trioproxy.routing.compact import compact
from trioproxy.routing.route import Route, RouteKey

MAX_PROBLEMS = 10
"""Mistakes told at once."""


def read_routes(path: Path) -> list[Route]:
    """Read a file once, for whoever does not watch it. Raises ProviderError when it cannot be read or used."""
    try:
        return parse_routes(path, path.read_bytes())
    except OSError as error:
        raise ProviderError(f"{path}: cannot be read: {error.strerror}") from None


def parse_routes(path: Path, data: bytes) -> list[Route]:
    """Read the routes in `data`, the content of `path`, whose ending says how it is written.

    Raises ProviderError with file, key or line, and reason: for anything that is not exactly `routes`, a list of
    routes, no two of the same name. An empty file is an error too, not an empty list: it is what a writer that
    was interrupted leaves behind.
    """
    raw = _load(path, data)
    items = raw.get("routes")
    if raw.keys() != {"routes"} or not isinstance(items, list):
        raise ProviderError(f'{path}: must hold one key, "routes", a list; it holds {_keys(raw)}')
    routes: dict[RouteKey, Route] = {}
    problems: list[str] = []
    # One by one: a single call over the whole list would keep every other thread waiting until it is done.
    for index, item in enumerate(cast(list[object], items)):
        try:
            route = compact(Route.model_validate(item))
        except ValidationError as error:
            problems += explain(_at(error, index), raw, lambda _: str(path))
        else:
            if route.key in routes:
                problems.append(f"{path}: [[routes]] #{index + 1}: {'/'.join(route.key)} is there already")
            routes[route.key] = route
        if len(problems) >= MAX_PROBLEMS:
            break
    if problems:
        raise ProviderError("\n".join(problems))
    return list(routes.values())


def _load(path: Path, data: bytes) -> dict[str, Any]:
    readers: dict[str, Callable[[], object]] = {
        ".json": lambda: from_json(data),
        ".toml": lambda: tomllib.loads(data.decode()),
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ProviderError(f'{path}: the name of a routes file ends in ".toml" or ".json"')
    try:
        raw = reader()
    except UnicodeDecodeError as error:
        raise ProviderError(f"{path}: is not UTF-8, at byte {error.start}") from None
    except RecursionError:
        raise ProviderError(f"{path}: is nested too deeply") from None
    except ValueError as error:
        raise ProviderError(f"{path}: is not {path.suffix[1:].upper()}: {error}") from None
    if not isinstance(raw, dict):
        raise ProviderError(f'{path}: must be an object with the key "routes"')
    return cast(dict[str, Any], raw)


def _keys(raw: dict[str, Any]) -> str:
    return ", ".join(f'"{key[:40]}"' for key in list(raw)[:5]) or "nothing"


def _at(error: ValidationError, index: int) -> ValidationError:
    """Let an error of one route say where in the file that route stands."""
    details = [
        InitErrorDetails(
            type=item["type"], loc=("routes", index, *item["loc"]), input=item["input"], ctx=item.get("ctx", {})
        )
        for item in error.errors(include_url=False)
    ]
    return ValidationError.from_exception_data(error.title, details)
