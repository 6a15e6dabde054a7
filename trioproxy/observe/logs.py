"""The program's own log: standard logging, shown to people ("console") or to machines ("json").

Loggers are named `trioproxy.<room>`. What belongs to an event goes into `extra={...}` and is shown in both
formats; messages are constant sentences, so that they can be searched for.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import IO, Any, Literal

Format = Literal["console", "json"]

# What every record has, and therefore was not handed in as `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def setup_logs(
    level: str,
    log_format: Format | None,
    stream: IO[str] | None = None,
    *,
    fields: Mapping[str, object] | None = None,
) -> None:
    """Send the log to `stream` (standard error), at `level` and above. May be called again to change it.

    Args:
        level: "debug", "info", "warning" or "error", of trioproxy's loggers. Libraries are heard from "warning".
        log_format: None chooses "console" on a terminal, else "json".
        stream: where to write.
        fields: what every record is to say besides, as if it had been handed in as `extra`.
    """
    target: IO[str] = sys.stderr if stream is None else stream
    chosen = log_format or ("console" if target.isatty() else "json")
    handler = logging.StreamHandler(target)
    handler.setFormatter(JsonFormatter() if chosen == "json" else ConsoleFormatter())
    if fields:
        handler.addFilter(partial(_add, fields))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("trioproxy").setLevel(level.upper())


def _add(fields: Mapping[str, object], record: logging.LogRecord) -> bool:
    vars(record).update(fields)
    return True


def extra_of(record: logging.LogRecord) -> dict[str, Any]:
    """The fields an event was logged with."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _utc(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC, milliseconds), level, logger, message, extra, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Write the record; values JSON does not know are written as text."""
        line: dict[str, Any] = {
            "time": _utc(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in extra_of(record).items() if name not in line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class ConsoleFormatter(logging.Formatter):
    """`12:00:00.000 WARNING net.listener: message  key=value …`, with the traceback below."""

    def format(self, record: logging.LogRecord) -> str:
        """Write the record; line breaks inside it are escaped, so that one event stays one line."""
        name = record.name.removeprefix("trioproxy.")
        time = _utc(record).astimezone().strftime("%H:%M:%S.%f")[:-3]
        text = f"{time} {record.levelname:<7} {name}: {record.getMessage()}"
        fields = " ".join(f"{key}={_show(value)}" for key, value in extra_of(record).items())
        text = _one_line(f"{text}  {fields}" if fields else text)
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


def _show(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return json.dumps(text, ensure_ascii=False) if not text or any(c in text for c in ' "=') else text


def _one_line(text: str) -> str:
    # A client chooses some of what is logged: control characters must reach neither the line structure nor a terminal.
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
