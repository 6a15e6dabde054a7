"""Turning validation errors into one sentence each: where, which key, what value, and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, cast

from pydantic import ValidationError

from trioproxy.config.keys import KeyPath, allowed_at, is_secret, model_at, place
from trioproxy.config.toml import to_toml

MAX_SHOWN = 80
"""Characters of a wrong value that are shown."""

_NOT_OFFERED = frozenset(
    {
        ("tls", "acme"),
        ("providers", "coordinator"),
        ("providers", "etcd"),
        ("providers", "backendai"),
        ("listeners", "client_ca_file"),
        ("listeners", "client_auth"),
        ("metrics",),
    }
)
_REASONS = {
    "missing": "is missing",
    "literal_error": "is not one of the choices",
    "string_pattern_mismatch": "has characters that are not allowed",
    "string_too_short": "is too short",
    "string_too_long": "is too long",
    "too_short": "has too few items",
    "too_long": "has too many items",
    "greater_than_equal": "is too small",
    "less_than_equal": "is too large",
    "finite_number": "is not a finite number",
}


def explain(error: ValidationError, raw: dict[str, Any], source_of: Callable[[KeyPath], str]) -> list[str]:
    """One line per mistake, in the order of the file; `source_of` names the file, variable or flag of a path."""
    found: dict[KeyPath, str] = {}
    for item in error.errors(include_url=False):
        path = _real_path(item["loc"], raw)
        reason = _reason(item["type"], item.get("ctx", {}), path, raw)
        found.setdefault(path, f"{source_of(path)}: {place(path)}{_shown(path, raw, item['type'])}: {reason}")
    # Of nested complaints the innermost says it best: a list is also called too short when its items are wrong.
    return [line for path, line in found.items() if not any(_inside(path, other) for other in found)]


def _inside(outer: KeyPath, inner: KeyPath) -> bool:
    return len(inner) > len(outer) and inner[: len(outer)] == outer


def _real_path(loc: tuple[str | int, ...], raw: dict[str, Any]) -> KeyPath:
    """`loc` without the tags pydantic puts in for members of a union."""
    path: list[str | int] = []
    value: Any = raw
    for index, part in enumerate(loc):
        last = index == len(loc) - 1
        if isinstance(value, dict) and isinstance(part, str):
            table = cast(dict[str, Any], value)
            model = model_at(tuple(path))
            if part in table:
                value = table[part]
            elif not (last and model and part in model.model_fields):
                continue
        elif isinstance(value, list) and isinstance(part, int):
            value = cast(list[Any], value)[part]
        else:
            continue
        path.append(part)
    return tuple(path)


def value_at(path: KeyPath, raw: Any) -> Any:
    """The raw value at `path`, or None."""
    for part in path:
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            return None
    return raw


def _shown(path: KeyPath, raw: dict[str, Any], kind: str) -> str:
    value = value_at(path, raw)
    if kind in ("missing", "extra_forbidden") or isinstance(value, dict):
        return ""
    if is_secret(path):
        return " = (hidden)"
    text = to_toml(value)
    return f" = {text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + '…'}"


def _reason(kind: str, context: dict[str, Any], path: KeyPath, raw: dict[str, Any]) -> str:
    if kind == "extra_forbidden":
        return _unknown(path, raw)
    if kind in ("value_error", "assertion_error"):
        return str(context["error"])
    reason = _REASONS.get(kind, "is of the wrong type")
    allowed = allowed_at(path)
    return f"{reason}; allowed: {allowed}" if allowed else reason


def _unknown(path: KeyPath, raw: dict[str, Any]) -> str:
    names = tuple(part for part in path if isinstance(part, str))
    if names in _NOT_OFFERED:
        return "is not offered by this version"
    model = model_at(path[:-1])
    known = list(model.model_fields) if model else []
    table = value_at(path[:-1], raw)
    free = [name for name in known if not (isinstance(table, dict) and name in table)]
    near = difflib.get_close_matches(str(path[-1]).lower(), free, n=2)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown key; {hint}allowed: {', '.join(known)}"
