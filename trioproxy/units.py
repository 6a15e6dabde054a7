"""Units as types: durations in seconds and sizes in bytes, written by people as "10s" and "64KiB"."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+)\s*(B|KB|KiB|MB|MiB|GB|GiB)?", re.IGNORECASE | re.ASCII)
_BYTES = {"b": 1, "kb": 10**3, "kib": 2**10, "mb": 10**6, "mib": 2**20, "gb": 10**9, "gib": 2**30}

MAX_SECONDS = 366 * 86400.0


def parse_duration(value: object) -> float:
    """Turn "250ms", "10s", "1h30m" or a plain number of seconds into seconds.

    Raises ValueError for anything else, for negative values and for more than a year.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError('is not a duration; write "250ms", "10s", "5m" or "1h"')  # noqa: TRY004 - for pydantic
    if isinstance(value, str):
        text = value.strip()
        if text == "0":
            return 0.0
        parts = list(_DURATION.finditer(text))
        if not parts or "".join(part.group() for part in parts) != text:
            raise ValueError('is not a duration; write "250ms", "10s", "5m" or "1h"')
        seconds = sum(float(part[1]) * _SECONDS[part[2]] for part in parts)
    else:
        seconds = float(value)
    if not 0 <= seconds <= MAX_SECONDS:
        raise ValueError("is out of range; a duration is between 0 and 366 days")
    return seconds


def parse_size(value: object) -> int:
    """Turn "64KiB", "10MB" or a plain number of bytes into bytes. Raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError('is not a size; write a number of bytes, "64KiB" or "10MB"')  # noqa: TRY004 - for pydantic
    if isinstance(value, str):
        found = _SIZE.fullmatch(value.strip())
        if found is None:
            raise ValueError('is not a size; write a number of bytes, "64KiB" or "10MB"')
        size = int(found[1]) * _BYTES[(found[2] or "B").lower()]
    else:
        size = value
    if not 0 <= size < 2**63:
        raise ValueError("is out of range; a size is between 0 and 8 EiB")
    return size


def format_duration(seconds: float) -> str:
    """Write seconds the way the configuration does, in the largest unit that stays exact ("90s", "5m").

    Down to a nanosecond; anything shorter is written as "0s".
    """
    for unit in ("h", "m", "s"):
        count = seconds / _SECONDS[unit]
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    milliseconds = f"{seconds * 1000:.6f}".rstrip("0").rstrip(".")
    return "0s" if milliseconds == "0" else f"{milliseconds}ms"


def format_size(size: int) -> str:
    """Write bytes the way the configuration does ("64KiB"), exactly."""
    for unit in ("GiB", "MiB", "KiB"):
        scale = _BYTES[unit.lower()]
        if size >= scale and size % scale == 0:
            return f"{size // scale}{unit}"
    return str(size)


Seconds = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema({"type": ["string", "number"], "description": 'seconds, or "250ms", "10s", "5m", "1h"'}),
]
Bytes = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema({"type": ["string", "integer"], "description": 'bytes, or "64KiB", "10MB"'}),
]
# Strict: true is not the number 1, and "80" is not 80. Somebody who writes that means something else.
Whole = Annotated[int, Field(strict=True)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[Whole, Field(ge=0, le=2**31 - 1)]
