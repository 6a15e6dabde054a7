"""Turning pydantic's complaints about a request into field paths and sentences."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from trioproxy.config.keys import model_in
from trioproxy.management.problems import Mistake

Path = tuple[str | int, ...]


def mistakes(error: ValidationError, data: Any, model: type[BaseModel]) -> list[Mistake]:
    """One mistake per field of `data` that `model` refused, in the order of the complaint."""
    found: dict[Path, list[str]] = {}
    for item in error.errors(include_url=False, include_input=False):
        path = _real_path(item["loc"], data, missing=item["type"] == "missing")
        message = _message(item["type"], item["msg"], path, model)
        told = found.setdefault(path, [])
        if message not in told:
            told.append(message)
    # Of a union, the member that nearly fits says it best: what is inside a value explains more than "no boolean".
    outer = {path[:length] for path in found for length in range(len(path))}
    return [
        Mistake(field=dotted(path), message="; or ".join(messages))
        for path, messages in found.items()
        if path not in outer
    ]


def dotted(path: Iterable[str | int]) -> str:
    """Write a path as `routes[3].backends[0].port`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _real_path(loc: Path, data: Any, *, missing: bool) -> Path:
    """`loc` without the names pydantic puts in for the members of a union."""
    path: list[str | int] = []
    for index, part in enumerate(loc):
        if isinstance(part, int):
            items = cast(list[Any], data)
            data = items[part] if isinstance(data, list) and part < len(items) else None
        elif isinstance(data, dict) and part in data:
            data = cast(dict[str, Any], data)[part]
        elif not (missing and index == len(loc) - 1):
            continue
        path.append(part)
    return tuple(path)


def _message(kind: str, text: str, path: Path, model: type[BaseModel]) -> str:
    if kind == "extra_forbidden":
        fields = _fields_at(path[:-1], model)
        return f"is not a known field; allowed: {', '.join(fields)}" if fields else "is not a known field"
    if kind == "missing":
        return "is missing"
    return text.removeprefix("Value error, ")


def _fields_at(path: Path, model: type[BaseModel] | None) -> list[str]:
    for part in path:
        if isinstance(part, str):
            field = model.model_fields.get(part) if model else None
            model = model_in(field.annotation) if field else None
    return list(model.model_fields) if model else []
