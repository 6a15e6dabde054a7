"""One JSON line per request, written in batches by one task.

A line is made when its request ends and put into a bounded queue; a slow disk or a full pipe costs lines (counted
in `trioproxy_access_log_dropped_total`), never requests. Paths are logged without their query, which is where
people put tokens.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quote
from pathlib import Path
from typing import BinaryIO

import trio

from trioproxy.observe.metrics import Metrics

MAX_PENDING = 20_000  # lines; about 10 MB
BATCH_SECONDS = 0.05  # a line waits this long for company
FLUSH_SECONDS = 2.0  # for what is left at the end

log = logging.getLogger("trioproxy.access")


@dataclass(slots=True)
class RequestRecord:
    """What is remembered of one request, from its first byte to its end. Times in seconds."""

    id: str
    client: str  # IP address
    listener: str
    started_at: float  # since the epoch
    began: float  # on trio's clock
    method: str = ""
    path: str = ""  # without query
    host: str = ""
    kind: str = "http"  # or "websocket", "tunnel"
    status: int = 0
    bytes_in: int = 0  # payload from the client
    bytes_out: int = 0  # payload to the client
    session_id: str | None = None
    service: str | None = None
    backend: str | None = None
    retries: int = 0
    error: str | None = None
    detail: str | None = None  # of the error, or why a stream ended
    close_code: int | None = None  # of a WebSocket
    wait_seconds: float | None = None  # for a connection to the backend, queue and connect together
    upstream_head_seconds: float | None = None  # from sending the request to the response head
    total_seconds: float = 0.0

    def line(self) -> bytes:
        """The record as a JSON line, written by hand: one is made per request, and json.dumps takes thrice as long."""
        return (
            f'{{"time":"{_timestamp(self.started_at)}","id":{_quote(self.id)},"client":{_quote(self.client)},'
            f'"listener":{_quote(self.listener)},"kind":"{self.kind}","method":{_quote(self.method)},'
            f'"host":{_quote(self.host)},"path":{_quote(self.path)},"status":{self.status},'
            f'"bytes_in":{self.bytes_in},"bytes_out":{self.bytes_out},"session_id":{_text(self.session_id)},'
            f'"service":{_text(self.service)},"backend":{_text(self.backend)},"retries":{self.retries},'
            f'"error":{_text(self.error)},"detail":{_text(self.detail)},"close_code":{_number(self.close_code)},'
            f'"seconds":{{"wait":{_seconds(self.wait_seconds)},"upstream_head":{_seconds(self.upstream_head_seconds)},'
            f'"total":{_seconds(self.total_seconds)}}}}}\n'
        ).encode("ascii")


def _text(value: str | None) -> str:
    return "null" if value is None else _quote(value)


def _number(value: int | None) -> str:
    return "null" if value is None else str(value)


def _seconds(value: float | None) -> str:
    return "null" if value is None else f"{value:.6f}"


@lru_cache(maxsize=8)
def _second(whole: int) -> str:
    return datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _timestamp(at: float) -> str:
    """RFC 3339, UTC, milliseconds."""
    return f"{_second(int(at))}.{int(at * 1000) % 1000:03d}Z"


class AccessLog:
    """Writes records to stdout or a file. `metrics` counts the lines that were dropped."""

    def __init__(self, target: str, metrics: Metrics) -> None:
        self._target = target
        self._metrics = metrics
        self._pending: deque[bytes] = deque()
        self._wake = trio.Event()
        self._file: BinaryIO | None = None
        self._reopen = False

    def write(self, record: RequestRecord) -> None:
        """Queue a record, or drop it when the writer is too far behind."""
        if len(self._pending) >= MAX_PENDING:
            self._metrics.access_log_dropped += 1
            return
        self._pending.append(record.line())
        self._wake.set()

    def reopen(self) -> None:
        """Open the file anew before the next batch (log rotation)."""
        self._reopen = True

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write batches until cancelled, then what is left. Raises OSError when the file cannot be opened at first."""
        await trio.to_thread.run_sync(self._open)
        task_status.started()
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                await trio.sleep(BATCH_SECONDS)
                await self._write_pending()
        finally:
            with trio.move_on_after(FLUSH_SECONDS, shield=True):
                await self._write_pending()
            if self._file is not None and self._target != "stdout":
                self._file.close()

    async def _write_pending(self) -> None:
        batch = b"".join(self._pending)
        lines = len(self._pending)
        self._pending.clear()
        if not batch:
            return
        try:
            await trio.to_thread.run_sync(self._write, batch, abandon_on_cancel=True)
        except OSError as exc:
            self._metrics.access_log_dropped += lines
            log.warning("access log cannot be written", extra={"target": self._target, "error": str(exc)})

    def _open(self) -> None:
        self._file = sys.stdout.buffer if self._target == "stdout" else _open_append(Path(self._target))

    def _write(self, batch: bytes) -> None:
        if self._reopen and self._target != "stdout":
            self._reopen = False
            if self._file is not None:
                self._file.close()
            self._open()
        assert self._file is not None
        self._file.write(batch)
        self._file.flush()


def _open_append(path: Path) -> BinaryIO:
    return path.open("ab")
