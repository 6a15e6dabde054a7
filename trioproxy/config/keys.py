"""Walking the schema: which model or field a dotted path names, and what a field allows, in words."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from trioproxy.config.schema import Config
from trioproxy.units import parse_duration, parse_size

KeyPath = tuple[str | int, ...]
"""Where a value stands: ("limits", "connections"), or ("listeners", 0, "bind") inside a list."""

SECRETS: frozenset[KeyPath] = frozenset({("management", "token"), ("sticky", "secret"), ("access", "permit_secret")})
"""Values that are never shown."""


def is_secret(path: KeyPath) -> bool:
    """Whether showing the value at `path`, or a table around it, could show a secret."""
    return any(secret[: len(path)] == path for secret in SECRETS)


def dotted(path: KeyPath) -> str:
    """The path as `--set` writes it: "listeners.0.bind"."""
    return ".".join(str(part) for part in path)


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The model an annotation holds: `Model`, `Model | None`, `bool | Model` or `tuple[Model, ...]`."""
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((found for arg in get_args(annotation) if (found := model_in(arg))), None)


def is_list(annotation: Any) -> bool:
    """Whether a field holds a list."""
    return get_origin(annotation) is tuple


def model_at(path: KeyPath) -> type[BaseModel] | None:
    """The model whose keys stand below `path`, or None."""
    model: type[BaseModel] | None = Config
    for part in path:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part) if model else None
        model = model_in(field.annotation) if field else None
    return model


def field_at(path: KeyPath) -> FieldInfo | None:
    """The field `path` names (the list's own field for one of its items), or None."""
    names = [index for index, part in enumerate(path) if isinstance(part, str)]
    if not names:
        return None
    model = model_at(path[: names[-1]])
    return model.model_fields.get(str(path[names[-1]])) if model else None


def place(path: KeyPath) -> str:
    """The path as a person finds it in a TOML file: `[health.active].kind`, `[[listeners]] #1.bind`."""
    if not path:
        return "the configuration"
    head = 0
    for index in range(len(path)):
        field = field_at(path[: index + 1])
        if field is None or isinstance(path[index], int) or model_at(path[: index + 1]) is None:
            break
        if is_list(field.annotation):
            if index == 0:
                return f"[[{path[0]}]]{_rest(path[1:])}"
            break
        head = index + 1
    if not head:
        return _rest(path).lstrip(".")
    return f"[{dotted(path[:head])}]{_rest(path[head:])}"


def _rest(path: KeyPath) -> str:
    return "".join(f" #{part + 1}" if isinstance(part, int) else f".{part}" for part in path)


def unit_of(field: FieldInfo) -> Literal["seconds", "bytes"] | None:
    """Whether the field is a duration or a size."""
    for item in field.metadata:
        if isinstance(item, BeforeValidator):
            if item.func is parse_duration:
                return "seconds"
            if item.func is parse_size:
                return "bytes"
    return None


def wants_text(path: KeyPath) -> bool:
    """Whether only text can be right at `path`, so that an unquoted 123 or 1.2 means its letters."""
    field = field_at(path)
    return field is not None and not is_list(field.annotation) and all(_is_text(kind) for kind in _members(field))


def _is_text(kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return all(isinstance(value, str) for value in get_args(kind))
    return kind is str or kind is Path


def _members(field: FieldInfo) -> Iterator[Any]:
    annotation = field.annotation
    union = get_origin(annotation) in (types.UnionType, typing.Union)
    for kind in get_args(annotation) if union else (annotation,):
        if kind is not type(None):
            yield get_args(kind)[0] if get_origin(kind) is Annotated else kind


def allowed_at(path: KeyPath) -> str | None:
    """What may stand at `path`, in words; None when the schema does not say it briefly."""
    field = field_at(path)
    if field is None:
        return None
    if is_list(field.annotation) and not isinstance(path[-1], int):
        return "a list"
    return " or ".join(filter(None, (_allowed(kind, field) for kind in _members(field)))) or None


def _allowed(kind: Any, field: FieldInfo) -> str | None:
    if get_origin(kind) is Literal:
        return ", ".join(f'"{value}"' for value in get_args(kind))
    if kind is bool:
        return "true, false"
    unit = unit_of(field)
    if unit == "seconds":
        return 'a duration ("250ms", "10s", "5m", "1h")' + _bounds(field)
    if unit == "bytes":
        return 'a size (bytes, "64KiB", "10MB")' + _bounds(field)
    if kind is int or kind is float:
        return ("a whole number" if kind is int else "a number") + _bounds(field)
    if kind is str:
        pattern = next((item.pattern for item in field.metadata if getattr(item, "pattern", None)), None)
        return f"text{f' matching {pattern}' if pattern else ''}{_length(field)}"
    if kind is Path:
        return "a path"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "a table"
    return None


def _bounds(field: FieldInfo) -> str:
    low, high = _limit(field, "ge"), _limit(field, "le")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    return f", at least {low}" if low is not None else f", at most {high}" if high is not None else ""


def _length(field: FieldInfo) -> str:
    low, high = _limit(field, "min_length"), _limit(field, "max_length")
    if low is not None and high is not None:
        return f", {low} to {high} characters"
    return f", at least {low} characters" if low is not None else f", at most {high} characters" if high else ""


def _limit(field: FieldInfo, name: str) -> Any:
    """A bound of the field, wherever pydantic keeps it: on the field itself or inside one union member."""
    places = [*field.metadata]
    for kind in get_args(field.annotation):
        for item in get_args(kind)[1:] if get_origin(kind) is Annotated else ():
            places += item.metadata if isinstance(item, FieldInfo) else [item]
    return next((found for item in places if (found := getattr(item, name, None)) is not None), None)
