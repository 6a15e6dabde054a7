"""One JSON line per request, written in batches by one task.

A line is made when its request ends and put into a bounded queue; a slow disk or a full pipe costs lines (counted
in `trioproxy_access_log_dropped_total`), never requests. Paths are logged without their query, which is where
people put tokens. Several forwarders write to one file or pipe, and their lines never mix.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import stat
import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from io import FileIO
from json.encoder import encode_basestring_ascii as _quote
from pathlib import Path

import trio

from trioproxy.observe.metrics import Metrics

MAX_PENDING = 20_000  # lines; about 10 MB
BATCH_SECONDS = 0.05  # a line waits this long for company
FLUSH_SECONDS = 2.0  # for what is left at the end
MAX_BACKEND = 64  # characters of a backend's name among the tries, of which a line may have eleven
MAX_LINE = select.PIPE_BUF  # bytes: what a pipe takes in one piece, so that no other writer's line comes in between

_NEWLINE = ord("\n")

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
    tries: list[str] | None = None  # of those that another one followed: the backend, and the code of what it met
    error: str | None = None
    detail: str | None = None  # of the error, or why a stream ended
    close_code: int | None = None  # of a WebSocket
    wait_seconds: float | None = None  # for a connection to the backend, queue and connect together
    upstream_head_seconds: float | None = None  # from sending the request to the response head
    total_seconds: float = 0.0

    def note_retry(self, backend: str, code: str) -> None:
        """A try on this backend met an error of this code, and another try follows."""
        self.retries += 1
        if self.tries is None:
            self.tries = []
        self.tries.append(f"{_cut(backend, MAX_BACKEND)} {code}")

    def line(self) -> bytes:
        """The record as a JSON line, written by hand: one is made per request, and json.dumps takes thrice as long."""
        return (
            f'{{"time":"{_timestamp(self.started_at)}","id":{_quote(self.id)},"client":{_quote(self.client)},'
            f'"listener":{_quote(self.listener)},"kind":"{self.kind}","method":{_quote(self.method)},'
            f'"host":{_quote(self.host)},"path":{_quote(self.path)},"status":{self.status},'
            f'"bytes_in":{self.bytes_in},"bytes_out":{self.bytes_out},"session_id":{_text(self.session_id)},'
            f'"service":{_text(self.service)},"backend":{_text(self.backend)},"retries":{self.retries},'
            f'{_tries(self.tries) if self.tries else ""}"error":{_text(self.error)},"detail":{_text(self.detail)},'
            f'"close_code":{_number(self.close_code)},'
            f'"seconds":{{"wait":{_seconds(self.wait_seconds)},"upstream_head":{_seconds(self.upstream_head_seconds)},'
            f'"total":{_seconds(self.total_seconds)}}}}}\n'
        ).encode("ascii")

    def bounded_line(self) -> bytes:
        """The record as a line of `MAX_LINE` bytes at most; what clients make long is cut for it."""
        line = self.line()
        length = 1024  # characters, of up to twelve bytes each
        while len(line) > MAX_LINE and length:
            cut = {name: _cut(getattr(self, name), length) for name in ("method", "host", "path", "detail")}
            line = replace(self, **cut).line()
            length //= 2
        return line


def _cut(value: str | None, length: int) -> str | None:
    return value if value is None or len(value) <= length else f"{value[:length]}…"


def _tries(tries: list[str]) -> str:
    return f'"tries":[{",".join(map(_quote, tries))}],'


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
    whole, milliseconds = divmod(int(at * 1000), 1000)
    return f"{_second(whole)}.{milliseconds:03d}Z"


class AccessLog:
    """Writes records to stdout or a file. `metrics` counts the lines that were dropped."""

    def __init__(self, target: str, metrics: Metrics) -> None:
        self._target = target
        self._metrics = metrics
        self._pending: deque[bytes] = deque()
        self._wake = trio.Event()
        self._file: FileIO | None = None
        self._writing = threading.Lock()
        self._reopen = False
        self._failing = False
        self._torn = False  # the last line in the file is not whole

    def write(self, record: RequestRecord) -> None:
        """Queue a record, or drop it when the writer is too far behind."""
        if len(self._pending) >= MAX_PENDING:
            self._metrics.access_log_dropped += 1
            return
        self._pending.append(record.bounded_line())
        self._wake.set()

    def reopen(self) -> None:
        """Open the file anew before the next batch (log rotation). Where that fails the old one goes on."""
        self._reopen = self._target != "stdout"

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
            self._close()

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
            self._note_failure(exc)
        else:
            self._failing = self._reopen

    def _note_failure(self, exc: OSError) -> None:
        if not self._failing:  # a full disk would repeat it with every batch
            self._failing = True
            log.warning("access log cannot be written as it should", extra={"target": self._target, "error": str(exc)})

    # --- in a thread -----------------------------------------------------------------------------------

    def _open(self) -> None:
        self._file = _open_stdout() if self._target == "stdout" else _open_append(Path(self._target))

    def _write(self, batch: bytes) -> None:
        with self._writing:  # a batch that was abandoned at the end comes before the last one
            if self._reopen:
                self._renew()
            assert self._file is not None
            for piece in _pieces(b"\n" + batch if self._torn else batch, self._file):
                left = piece
                while left:
                    written = _write_some(self._file, left)
                    self._torn = left[written - 1] != _NEWLINE
                    left = left[written:]

    def _renew(self) -> None:
        old = self._file
        self._reopen = False
        try:
            self._open()
        except OSError as exc:  # the old file still takes lines
            self._reopen = True
            self._note_failure(exc)
            return
        if old is not None:
            old.close()

    def _close(self) -> None:
        # Not while a thread hangs in a write: closing would wait for it.
        if self._file is not None and self._writing.acquire(blocking=False):
            self._file.close()
            self._writing.release()


# Unbuffered: what a failed write left in a buffer would come again, and a lock held by a hanging thread would stop
# the interpreter's exit.


def _open_append(path: Path) -> FileIO:
    return path.open("ab", buffering=0)


def _open_stdout() -> FileIO:
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison] - so it is in a program started with >&-
        raise OSError(errno.EBADF, "standard output is closed")
    return FileIO(sys.stdout.fileno(), "wb", closefd=False)


def _pieces(batch: bytes, file: FileIO) -> Iterator[memoryview]:
    """What to write at a time. A regular file takes any batch in one piece, a pipe or socket so many bytes."""
    view = memoryview(batch)
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        yield view
        return
    start = 0
    while start < len(batch):
        end = batch.rfind(b"\n", start, start + MAX_LINE) + 1 or batch.find(b"\n", start) + 1
        yield view[start:end]
        start = end


def _write_some(file: FileIO, data: memoryview) -> int:
    written = file.write(data)
    if written is None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return written
