"""Routes set over the management API, kept in SQLite so that they survive restarts, kill -9 and power loss."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio
from pydantic import ValidationError

from trioproxy.control.collector import many_objects
from trioproxy.errors import ProviderError
from trioproxy.providers.database import migrate, open_database, provider_errors, transaction
from trioproxy.routing.compact import compact
from trioproxy.routing.plain import read_plain
from trioproxy.routing.route import Route, RouteKey

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")

MAX_LOGGED = 20
"""Unusable rows that are logged one by one; the rest are only counted."""
CLOSE_SECONDS = 10.0
"""How long closing waits for a running call to end."""


class RouteStore(trio.abc.AsyncResource):
    """The API-set routes on disk, and the last table version. Made by `open`.

    Every write is one transaction that is on disk when the call returns. SQLite runs in a thread, one call at a
    time. A caller cancelled while it waits for its turn has changed nothing; one cancelled later still returns
    normally, with the change on disk: what it does up to its next checkpoint keeps memory and disk agreed.
    A write that fails raises ProviderError and leaves what was there. The caller holds the state directory's
    lock, so that no second worker writes. Where two generations of one worker hold it, one of them is `suspended`.
    """

    name = "store"

    def __init__(self, path: Path, connection: sqlite3.Connection, version: int) -> None:
        self._path = path
        self._connection = connection
        self._version = version
        self._limiter = trio.CapacityLimiter(1)
        self._closed = False
        self.suspended = False

    @classmethod
    async def open(cls, path: Path, *, suspended: bool = False) -> RouteStore:
        """Open the store, made when it is missing (mode 0600, its directory 0700).

        A `suspended` one leaves the file to another process until `resume`, a schema that is not the newest included.

        Raises ProviderError when the file is damaged, not writable, of another program, or of a newer trioproxy.
        """
        connection, version = await trio.to_thread.run_sync(partial(_open, path, migrated=not suspended))
        store = cls(path, connection, version)
        store.suspended = suspended
        return store

    def suspend(self) -> None:
        """Write no more: the file is another process's now. No call may be running."""
        self.suspended = True

    async def resume(self) -> None:
        """The file is ours, again or at last; `load` tells what it holds. Raises ProviderError."""

        def take() -> int:
            with provider_errors(self._path):
                migrate(self._connection)
                return _read_version(self._connection)

        self._version = max(self._version, await self._run(take))
        self.suspended = False

    @property
    def version(self) -> int:
        """The highest table version on disk; 0 for a new store."""
        return self._version

    async def load(self) -> list[Route]:
        """Read all routes. A row that is no valid route to this version is logged, skipped, and left on disk.

        It stays there until a change names its key or `replace` sets everything anew. Raises ProviderError when
        the file cannot be read.
        """
        with many_objects():
            return await self._run(partial(_load, self._connection, self._path))

    async def apply(self, *, upsert: Sequence[Route], remove: Sequence[RouteKey], version: int) -> None:
        """Change routes, `remove` first and then `upsert`, and note the table version; all or nothing.

        Raises ProviderError when that cannot be kept.
        """

        def change() -> None:
            self._connection.executemany("DELETE FROM routes WHERE session_id = ? AND service = ?", remove)
            self._insert(upsert)

        await self._write(change, version)

    async def replace(self, routes: Sequence[Route], *, version: int) -> None:
        """Set all routes anew and note the table version; all or nothing.

        Raises ProviderError when that cannot be kept.
        """

        def change() -> None:
            self._connection.execute("DELETE FROM routes")
            self._insert(routes)

        await self._write(change, version)

    async def save_version(self, version: int) -> None:
        """Note a version that another provider's change made, so that versions rise over restarts too.

        Raises ProviderError when that cannot be kept.
        """
        if version > self._version and not self.suspended:
            await self._write(lambda: None, version)
        else:
            await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Let a running call end, and close the file."""
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            if not self._closed:
                self._closed = True
                await self._run(self._connection.close)
        await trio.lowlevel.checkpoint()

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await trio.to_thread.run_sync(work, limiter=self._limiter)

    async def _write(self, change: Callable[[], None], version: int) -> None:
        if self.suspended:
            raise ProviderError(f"{self._path} belongs to another generation of this worker now")

        def write() -> None:
            highest = max(version, self._version)
            with provider_errors(self._path), transaction(self._connection):
                change()
                self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('version', ?)", (highest,))
            self._version = highest

        await self._run(write)

    def _insert(self, routes: Iterable[Route]) -> None:
        rows = ((route.session_id, route.service, _to_json(route)) for route in routes)
        self._connection.executemany("INSERT OR REPLACE INTO routes VALUES (?, ?, ?)", rows)


def read_store(path: Path) -> tuple[list[Route], int]:
    """All routes of a store and its version, as `load` and `version` tell them, where there is no event loop.

    The store is made when it is missing, and closed in the end. Raises ProviderError as `open` and `load` do.
    """
    connection, version = _open(path, migrated=True)
    with closing(connection):
        return _load(connection, path), version


def _load(connection: sqlite3.Connection, path: Path) -> list[Route]:
    routes: list[Route] = []
    skipped = 0
    with provider_errors(path):
        for session_id, service, text in connection.execute("SELECT session_id, service, route FROM routes"):
            try:
                routes.append(_from_json(session_id, service, text))
            except ValueError as error:
                skipped += 1
                key = b"/".join((session_id, service)).decode(errors="replace")
                if skipped <= MAX_LOGGED:
                    _warn(path, "a stored route is skipped, and kept on disk", route=key, error=str(error))
    if skipped > MAX_LOGGED:
        _warn(path, "more stored routes are skipped, and kept on disk", count=skipped - MAX_LOGGED)
    return routes


def _warn(path: Path, message: str, **details: object) -> None:
    _LOG.warning(message, extra={"file": str(path), **details})


def _open(path: Path, *, migrated: bool) -> tuple[sqlite3.Connection, int]:
    with provider_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = open_database(path, migrated=migrated)
        try:
            version = _read_version(connection) if migrated else 0
        except BaseException:
            connection.close()
            raise
        return connection, version


def _read_version(connection: sqlite3.Connection) -> int:
    return connection.execute("SELECT coalesce(max(value), 0) FROM meta WHERE name = 'version'").fetchone()[0]


def _to_json(route: Route) -> str:
    # What was left out stays out: smaller, faster to read, and defaults keep being defaults.
    try:
        return route.model_dump_json(exclude_unset=True)
    except ValueError as error:
        raise ProviderError(f"route {route.session_id}/{route.service} cannot be written as JSON: {error}") from error


def _from_json(session_id: bytes, service: bytes, text: bytes) -> Route:
    try:
        # Compact before the next one is read, so that both forms of all of them are never there at once.
        route = read_plain(text) or compact(Route.model_validate_json(text))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")) from error
    if (route.session_id.encode(), route.service.encode()) != (session_id, service):
        raise ValueError(f"it calls itself {route.session_id}/{route.service}")
    return route
