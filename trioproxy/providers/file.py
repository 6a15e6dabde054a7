"""Routes from a file that people or programs edit, read again when it changes.

The file is looked at every `interval` instead of watched with inotify: a look costs one stat(2), and it also sees
what inotify does not tell about this path - a symbolic link further up that is swapped (as Kubernetes does with
ConfigMaps), a change made by another machine on a network file system, a bind mount put over it.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import stat
import time
from pathlib import Path
from typing import NamedTuple

import trio

from trioproxy.errors import ProviderError
from trioproxy.providers.provider import Sink
from trioproxy.providers.routes_file import parse_routes

_LOG = logging.getLogger(__name__)

MAX_BYTES = 64 * 2**20
"""Largest file that is read."""
SETTLE_SECONDS = 0.1
"""How long a file must have been left alone before it is read."""
SETTLE_TRIES = 20


class _Stamp(NamedTuple):
    """What changes when a file is written or replaced."""

    device: int
    inode: int
    size: int
    modified: int  # ns since the epoch
    changed: int  # ns since the epoch


class _Content(NamedTuple):
    stamp: _Stamp
    data: bytes
    digest: bytes


class _UnsettledError(Exception):
    """Somebody is writing the file."""


class FileProvider:
    """Delivers the routes of a TOML or JSON file at `path`, which is looked at every `interval` seconds.

    A missing or broken file is told (`sink.failed`, log) and tried again; what was delivered before stays in
    force. `run` counts as started after the first attempt even if that failed: the routes of other providers
    must not wait for somebody to mend this file. Reading and parsing happen in a thread.
    """

    name = "file"

    def __init__(self, path: Path, interval: float) -> None:
        self._path = path
        self._interval = interval
        self._sink: Sink | None = None
        self._reading = trio.Lock()
        self._stamp: _Stamp | None = None
        """Of the file as it was last dealt with, for good or ill."""
        self._digest: bytes | None = None
        """Of the content in force; None after a failure, so that recovery is told even if nothing changed."""
        self._error: str | None = None

    async def run(self, sink: Sink, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Deliver routes until cancelled."""
        self._stamp = self._digest = self._error = None
        self._sink = sink
        try:
            await self._update(sink)
            task_status.started()
            while True:
                await trio.sleep(self._interval)
                await self._update(sink)
        finally:
            self._sink = None

    async def refresh(self) -> None:
        """Read the file now. Raises ProviderError when it is missing or broken, or when `run` does not run."""
        if self._sink is None:
            raise ProviderError(f"{self._path} is not read: its provider is not running")
        await self._update(self._sink, force=True)
        if self._error is not None:
            raise ProviderError(self._error)

    async def _update(self, sink: Sink, *, force: bool = False) -> None:
        async with self._reading:
            if force:
                self._stamp = None
            try:
                content = await self._read()
                if content is not None:
                    await self._deliver(content, sink)
            except ProviderError as error:
                self._digest = None
                self._tell(sink, str(error))

    async def _read(self) -> _Content | None:
        """Read the file when it is not as it was, at a moment when nobody is writing it."""
        for _ in range(SETTLE_TRIES):
            try:
                # Abandoned when cancelled, as nothing comes of it: a dead network mount must not hold up a drain.
                return await trio.to_thread.run_sync(_read, self._path, self._stamp, abandon_on_cancel=True)
            except _UnsettledError:
                await trio.sleep(SETTLE_SECONDS)
            except OSError as error:
                self._stamp = None
                raise ProviderError(f"{self._path}: cannot be read: {error.strerror or error}") from error
        self._stamp = None
        raise ProviderError(f"{self._path}: cannot be read: it is being written all the time")

    async def _deliver(self, content: _Content, sink: Sink) -> None:
        if content.digest != self._digest:
            try:
                routes = await trio.to_thread.run_sync(parse_routes, self._path, content.data, abandon_on_cancel=True)
            except ProviderError:
                self._stamp = content.stamp  # the same mistakes need not be read again
                raise
            self._digest = content.digest
            self._error = None
            await sink.replace(self.name, routes)
        self._stamp = content.stamp

    def _tell(self, sink: Sink, error: str) -> None:
        if error != self._error:
            self._error = error
            _LOG.warning("the routes file cannot be used; what it said before stays in force", extra={"error": error})
            sink.failed(self.name, error)


def _read(path: Path, known: _Stamp | None) -> _Content | None:
    # Asked by name first: opening a FIFO would wait for a writer.
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    with path.open("rb") as file:
        stamp = _stamp(os.fstat(file.fileno()))
        if stamp == known:
            return None
        if stamp.size > MAX_BYTES:
            raise OSError(errno.EFBIG, f"it is larger than {MAX_BYTES >> 20} MiB")
        # A program that writes in place leaves a file that is short and may still parse. Waiting also makes sure
        # that a later write gets another time stamp, however coarse the file system's clock.
        if 0 <= time.time_ns() - stamp.modified < SETTLE_SECONDS * 1e9:
            raise _UnsettledError
        data = file.read(MAX_BYTES + 1)
    if _stamp(path.stat()) != stamp:
        raise _UnsettledError
    return _Content(stamp, data, hashlib.sha256(data).digest())


def _stamp(found: os.stat_result) -> _Stamp:
    return _Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
