"""The SQLite file of the route store: how it is made, checked, migrated and written."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from trioproxy.errors import ProviderError

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE routes (
            session_id TEXT NOT NULL,
            service TEXT NOT NULL,
            route TEXT NOT NULL,
            PRIMARY KEY (session_id, service)
        )""",
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
    ),
)
"""Entry N takes a file from schema N to N + 1. Entries are only ever appended. `route` is the route object as JSON."""

BUSY_SECONDS = 5.0
"""How long a write waits for another program (a backup, an operator's sqlite3) to let go of the file."""

WAL_BYTES = 16 * 2**20
WAL_PAGES = 64  # of 4 KiB
"""What the write-ahead log is cut back to after a large change."""

_REASONS = {
    sqlite3.SQLITE_NOTADB: "is not a SQLite database; move it away to start without API-set routes",
    sqlite3.SQLITE_CORRUPT: "is damaged; restore a copy, or move it away to start without API-set routes",
    sqlite3.SQLITE_FULL: "cannot be written: the disk is full",
    sqlite3.SQLITE_READONLY: "cannot be written: it is read-only",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
    sqlite3.SQLITE_IOERR: "cannot be read or written",
    sqlite3.SQLITE_BUSY: "is held by another program",
    sqlite3.SQLITE_LOCKED: "is held by another program",
}


@contextmanager
def provider_errors(path: Path) -> Generator[None]:
    """Turn what SQLite and the file system raise into a ProviderError that names the file and the reason."""
    try:
        yield
    except sqlite3.Error as error:
        # The low byte is the primary code; errors of the Python module itself (use after close) have none.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        raise ProviderError(f"{path} {_REASONS.get(code, 'cannot be used')} ({error})") from error
    except OSError as error:
        raise ProviderError(f"{path} cannot be used: {error.strerror} ({error.filename})") from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """Commit what the block did, all of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some failures (a full disk) have rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def open_database(path: Path, *, migrated: bool = True) -> sqlite3.Connection:
    """Open the file, made when it is missing, with the newest schema if it is to be. Text comes back as bytes.

    Raises ProviderError when it cannot be used: not writable, damaged, of a newer trioproxy, of something else.
    One open database per file and process: POSIX drops SQLite's locks when any other descriptor of it is closed.
    """
    with provider_errors(path):
        _make_private(path)
        # Text as bytes: one row that is not UTF-8 must not be able to fail the reading of all others.
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.text_factory = bytes
        try:
            _check(connection, path)
            connection.execute("PRAGMA journal_mode = WAL")
            # FULL syncs the log at every commit: an acknowledged change survives power loss, not only a crash.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            # A log that is carried over early leaves room on a small disk, where else not even a removal would fit.
            connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
            if migrated:
                migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def _make_private(path: Path) -> None:
    # SQLite would make it with the umask's mode; its log and index files copy the mode of this one.
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if stat.S_IMODE(os.fstat(fd).st_mode) != 0o600:
            os.fchmod(fd, 0o600)
    finally:
        os.close(fd)


def _schema(connection: sqlite3.Connection) -> int:
    return connection.execute("PRAGMA user_version").fetchone()[0]


def _check(connection: sqlite3.Connection, path: Path) -> None:
    schema = _schema(connection)
    if schema > len(MIGRATIONS):
        raise ProviderError(
            f"{path} has schema {schema}, written by a newer trioproxy; this one knows up to {len(MIGRATIONS)}"
        )
    if schema == 0 and connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise ProviderError(f"{path} is a database of another program")
    damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damage != b"ok":
        raise ProviderError(f"{path} {_REASONS[sqlite3.SQLITE_CORRUPT]} ({damage.decode(errors='replace')})")


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to the newest schema. Raises sqlite3.Error."""
    for schema in range(_schema(connection), len(MIGRATIONS)):
        with transaction(connection):
            for statement in MIGRATIONS[schema]:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {schema + 1}")
