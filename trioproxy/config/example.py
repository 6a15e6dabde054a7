"""The commented example configuration, made from the schema so that it cannot drift from it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from trioproxy.config.keys import KeyPath, dotted, is_list, model_in, unit_of
from trioproxy.config.schema import Config
from trioproxy.config.toml import to_toml
from trioproxy.units import format_duration, format_size

HEADER = """\
Configuration of trioproxy. Every key is optional; a key that is commented out shows its default.

Durations are written "250ms", "10s", "5m", "1h"; sizes in bytes, "64KiB" or "10MB". A key can also be set by an
environment variable (TRIOPROXY__LIMITS__CONNECTIONS=500) or a flag (--set limits.connections=500), which win over
this file in that order. Relative paths start in the directory the worker is started in.
`trioproxy check -c FILE` prints every value and where it comes from."""

# Shown where the default depends on the machine or is "nothing".
_SAMPLES: dict[KeyPath, object] = {
    ("worker", "id"): "worker-1",
    ("worker", "state_dir"): "/var/lib/trioproxy",
    ("tls", "certificates"): [{"cert": "/etc/ssl/worker.pem", "key": "/etc/ssl/worker.key"}],
    ("management", "token"): "at least 8 characters",
    ("management", "token_file"): "/etc/trioproxy/management.token",
    ("health", "active", "host"): "app.example.org",
    ("health", "active", "body"): "ok",
    ("sticky", "secret"): "at least 16 characters, kept secret",
    ("sticky", "secret_file"): "/etc/trioproxy/sticky.secret",
    ("access", "trusted_proxies"): ["10.0.0.0/8"],
    ("access", "permit_secret"): "at least 32 characters, kept secret",
    ("log", "format"): "console",
    ("providers", "file", "path"): "/etc/trioproxy/routes.toml",
}
_ROUTE = """\
session_id = "abc123"
service = "jupyter"
backends = [{ host = "10.0.0.5", port = 8888 }]
path = "strip"  # "keep": the backend sees the whole path, as Jupyter with a base_url wants it"""
_WIDTH = 118


def example_config() -> str:
    """The text of `config.example.toml`."""
    lines = [*_comment(HEADER), *_tables(Config, ())]
    return "\n".join(lines) + "\n"


def _tables(model: type[BaseModel], path: KeyPath) -> Iterator[str]:
    for name, field in model.model_fields.items():
        below = model_in(field.annotation)
        if below is None or path == ("tls",):  # certificates are short enough for one line
            continue
        inner = (*path, name)
        yield ""
        if inner == ("routes",):
            yield from _comment(f"{field.description} One table for each; the other keys are those of the API.")
            yield from _comment("[[routes]]\n" + _ROUTE)
            continue
        yield from _comment((field.description or below.__doc__ or "").strip())
        header = f"[[{dotted(inner)}]]" if is_list(field.annotation) else f"[{dotted(inner)}]"
        # A table that is off when absent must stay commented out; so must one whose keys are all in tables below.
        off = field.default is None
        leaves = [key for key, item in below.model_fields.items() if _is_leaf(item, inner)]
        if leaves:
            yield f"# {header}" if off else header
            for key in leaves:
                yield from _key(key, below.model_fields[key], inner)
        yield from _tables(below, inner)


def _is_leaf(field: FieldInfo, path: KeyPath) -> bool:
    return model_in(field.annotation) is None or path == ("tls",)


def _key(name: str, field: FieldInfo, path: KeyPath) -> Iterator[str]:
    if field.description:
        yield from _comment(field.description)
    sample = _SAMPLES.get((*path, name), PydanticUndefined)
    value = field.get_default() if sample is PydanticUndefined else sample
    yield f"# {name} = {show(field, value)}"


def show(field: FieldInfo, value: Any) -> str:
    """A value as a person would write it: durations as "10s", sizes as "64KiB"."""
    unit = unit_of(field)
    if unit == "seconds" and isinstance(value, int | float):
        value = format_duration(value)
    elif unit == "bytes" and isinstance(value, int):
        value = format_size(value) if value >= 1024 else value
    return to_toml(value)


def _comment(text: str) -> Iterator[str]:
    for paragraph in text.splitlines():
        for line in textwrap.wrap(paragraph, _WIDTH) or [""]:
            yield f"# {line}".rstrip()
