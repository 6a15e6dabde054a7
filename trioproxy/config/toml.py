"""Writing single TOML values (TOML 1.0), for messages, listings and the example. Reading is tomllib's job."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast


def to_toml(value: object) -> str:
    """Write a value the way a TOML file would, on one line. Values TOML does not know are quoted as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        # JSON's escapes are a subset of TOML's basic strings, except that TOML also escapes DEL.
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        items = cast(Mapping[object, object], value).items()
        return "{" + ", ".join(f"{_key(str(key))} = {to_toml(item)}" for key, item in items) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(to_toml(item) for item in cast(Sequence[object], value)) + "]"
    return to_toml(str(value))


def _key(key: str) -> str:
    bare = key and all(c.isascii() and (c.isalnum() or c in "-_") for c in key)
    return key if bare else to_toml(key)
