from __future__ import annotations

import logging
import os
import resource
import sqlite3
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from trioproxy.errors import ProviderError
from trioproxy.providers import database
from trioproxy.providers.store import MAX_LOGGED, RouteStore
from trioproxy.routing.route import Backend, Route, RouteKey


def make(session_id: str, service: str = "v", *, port: int = 80) -> Route:
    return Route(session_id=session_id, service=service, backends=(Backend(host="h", port=port),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "routes.db"


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[RouteStore]:
    async with await RouteStore.open(path) as store:
        yield store


@contextmanager
def by_hand(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as connection, connection:
        yield connection


async def kept(path: Path) -> tuple[dict[RouteKey, Route], int]:
    async with opened(path) as store:
        return {route.key: route for route in await store.load()}, store.version


async def test_a_new_store_is_empty(path: Path) -> None:
    assert await kept(path) == ({}, 0)


async def test_changes_and_version_are_there_after_opening_it_again(path: Path) -> None:
    a, b, c = make("a"), make("b"), make("c")
    async with opened(path) as store:
        await store.apply(upsert=[a, b], remove=[], version=3)
        await store.apply(upsert=[c], remove=[a.key, ("no", "such")], version=4)
        assert store.version == 4
    assert await kept(path) == ({b.key: b, c.key: c}, 4)


async def test_an_upsert_replaces_and_comes_after_a_removal(path: Path) -> None:
    async with opened(path) as store:
        await store.apply(upsert=[make("a", port=1)], remove=[], version=1)
        await store.apply(upsert=[make("a", port=2)], remove=[("a", "v")], version=2)
    routes, _ = await kept(path)
    assert routes == {("a", "v"): make("a", port=2)}


async def test_replace_sets_everything_anew(path: Path) -> None:
    async with opened(path) as store:
        await store.apply(upsert=[make("a"), make("b")], remove=[], version=1)
        await store.replace([make("b"), make("c")], version=2)
    routes, version = await kept(path)
    assert (set(routes), version) == ({("b", "v"), ("c", "v")}, 2)


async def test_a_route_comes_back_with_all_its_fields(path: Path) -> None:
    route = Route.model_validate(
        {
            "session_id": "s",
            "service": "v",
            "backends": [{"host": "unix:/a.sock", "weight": 3}, {"host": "h", "port": 1, "tls": {"verify": False}}],
            "host": "h.example",
            "prefix": "/p",
            "path": "keep",
            "sticky": {"cookie": "c", "max_age": "1h"},
            "health": {"kind": "http", "interval": "500ms"},
            "timeouts": {"stall": "2m"},
            "retry": {"replay_bytes": "1KiB"},
            "access": {"allowed_client_ips": ["10.0.0.0/8"]},
            "metadata": {"owner": "Zoë", "tags": [1, None, {"x": 1.5}]},
        }
    )
    async with opened(path) as store:
        await store.replace([route], version=1)
        assert await store.load() == [route]


async def test_the_version_never_falls(path: Path) -> None:
    async with opened(path) as store:
        await store.save_version(10)
        await store.save_version(9)
        await store.apply(upsert=[], remove=[], version=5)
        assert store.version == 10
    assert (await kept(path))[1] == 10


async def test_nobody_else_can_read_the_files(tmp_path: Path) -> None:
    path = tmp_path / "state" / "routes.db"
    old_mask = os.umask(0)
    try:
        async with opened(path) as store:
            await store.save_version(1)
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(old_mask)
    assert modes == {"routes.db": 0o600, "routes.db-wal": 0o600, "routes.db-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_file_others_could_read_is_made_private(path: Path) -> None:
    await kept(path)
    await trio.Path(path).chmod(0o644)
    await kept(path)
    assert stat.S_IMODE((await trio.Path(path).stat()).st_mode) == 0o600


async def test_commits_reach_the_disk_before_they_are_acknowledged(path: Path) -> None:
    async with opened(path) as store:
        pragmas = [
            store._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
        ]
        assert pragmas == [b"wal", 2]  # 2 = FULL


# --- what cannot be used -------------------------------------------------------------------------------


async def test_rows_this_version_cannot_use_are_skipped_told_and_kept(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = make("good")
    bad = [
        ("future", "v", '{"session_id":"future","service":"v","backends":[],"new_field":1}'),
        ("text", "v", "not json"),
        ("bytes", "v", b"\xff\xfe"),
        ("other", "v", make("somebody").model_dump_json()),
    ]
    async with opened(path) as store:
        await store.apply(upsert=[good], remove=[], version=1)
    with by_hand(path) as connection:
        connection.executemany("INSERT INTO routes VALUES (?, ?, ?)", bad)
    async with opened(path) as store:
        assert await store.load() == [good]
        await store.apply(upsert=[make("more")], remove=[], version=2)
    errors = {record.__dict__["route"]: record.__dict__["error"] for record in caplog.records}
    assert errors.keys() == {"bytes/v", "future/v", "other/v", "text/v"}
    assert errors["future/v"] == "new_field: Extra inputs are not permitted"
    assert errors["other/v"] == "it calls itself somebody/v"
    assert errors["text/v"].startswith("Invalid JSON")
    with by_hand(path) as connection:
        rows = connection.execute("SELECT * FROM routes WHERE session_id NOT IN ('good', 'more')").fetchall()
    assert sorted(rows) == sorted(bad)


async def test_a_change_that_names_an_unusable_row_ends_it(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    await kept(path)
    with by_hand(path) as connection:
        connection.executemany("INSERT INTO routes VALUES (?, 'v', 'x')", [("a",), ("b",), ("c",)])
    async with opened(path) as store:
        await store.apply(upsert=[make("a")], remove=[("b", "v")], version=1)
        assert await store.load() == [make("a")]
        assert [record.__dict__["route"] for record in caplog.records] == ["c/v"]
        await store.replace([], version=2)
    with by_hand(path) as connection:
        assert connection.execute("SELECT count(*) FROM routes").fetchone() == (0,)


async def test_many_unusable_rows_do_not_flood_the_log(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    await kept(path)
    with by_hand(path) as connection:
        connection.executemany("INSERT INTO routes VALUES (?, 'v', 'x')", [(f"s{n}",) for n in range(MAX_LOGGED + 7)])
    assert await kept(path) == ({}, 0)
    assert len(caplog.records) == MAX_LOGGED + 1
    assert caplog.records[-1].__dict__["count"] == 7
    assert all(record.levelno == logging.WARNING for record in caplog.records)


async def refusal(path: Path) -> str:
    with pytest.raises(ProviderError) as caught:
        await RouteStore.open(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


async def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    await trio.Path(path).write_bytes(b"hello, these are my notes\n" * 100)
    assert "is not a SQLite database; move it away" in await refusal(path)
    assert (await trio.Path(path).read_bytes()).startswith(b"hello")


async def test_a_damaged_database_is_refused(path: Path) -> None:
    async with opened(path) as store:
        await store.replace([make(f"s{n}") for n in range(500)], version=1)
    content = bytearray(await trio.Path(path).read_bytes())
    content[8192:12288] = b"\xa5" * 4096
    await trio.Path(path).write_bytes(content)
    assert "is damaged; restore a copy" in await refusal(path)


async def test_a_database_cut_short_is_refused(path: Path) -> None:
    async with opened(path) as store:
        await store.replace([make(f"s{n}") for n in range(500)], version=1)
    os.truncate(path, 8192)
    assert "is damaged" in await refusal(path)


async def test_a_newer_schema_is_refused(path: Path) -> None:
    await kept(path)
    with by_hand(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert "has schema 99, written by a newer trioproxy" in await refusal(path)


async def test_a_database_of_another_program_is_refused(path: Path) -> None:
    with by_hand(path) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    assert "is a database of another program" in await refusal(path)


async def test_a_schema_without_its_tables_is_refused(path: Path) -> None:
    with by_hand(path) as connection:
        connection.execute("PRAGMA user_version = 1")
    assert "no such table: meta" in await refusal(path)


async def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    assert "cannot be used: No such file or directory" in await refusal(Path("/proc/nothing/routes.db"))
    (tmp_path / "file").touch()
    assert f"File exists ({tmp_path / 'file'})" in await refusal(tmp_path / "file" / "routes.db")
    (tmp_path / "routes.db").mkdir()
    assert "Is a directory" in await refusal(tmp_path / "routes.db")


async def test_an_older_schema_is_migrated_step_by_step(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(path) as store:
        await store.replace([make("a")], version=7)
    newer = (*database.MIGRATIONS, ("ALTER TABLE routes ADD COLUMN note TEXT",), ("CREATE TABLE extra (x)",))
    monkeypatch.setattr(database, "MIGRATIONS", newer)
    async with opened(path) as store:
        assert await store.load() == [make("a")]
        assert store.version == 7
    with by_hand(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)
        assert connection.execute("SELECT note FROM routes").fetchall() == [(None,)]


async def test_a_migration_that_fails_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(path) as store:
        await store.replace([make("a")], version=7)
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", (*database.MIGRATIONS, ("DROP TABLE routes", "nonsense")))
        assert "syntax error" in await refusal(path)
    assert await kept(path) == ({("a", "v"): make("a")}, 7)


# --- writes that fail ----------------------------------------------------------------------------------


@contextmanager
def no_room_left(path: Path) -> Iterator[None]:
    """Let the operating system refuse to make any file of this process larger than the store is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(file.stat().st_size for file in path.parent.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_write_the_system_refuses_is_an_error_and_keeps_what_was_there(path: Path) -> None:
    async with opened(path) as store:
        await store.apply(upsert=[make("old")], remove=[], version=1)
        with no_room_left(path), pytest.raises(ProviderError, match="cannot be read or written"):
            await store.replace([make(f"s{n}") for n in range(2000)], version=2)
        assert (await store.load(), store.version) == ([make("old")], 1)
        await store.apply(upsert=[make("new")], remove=[], version=3)
    routes, version = await kept(path)
    assert (set(routes), version) == ({("old", "v"), ("new", "v")}, 3)


async def test_a_full_disk_is_an_error_and_keeps_what_was_there(path: Path) -> None:
    async with opened(path) as store:
        await store.apply(upsert=[make("old")], remove=[], version=1)
        store._connection.execute("PRAGMA max_page_count = 1")
        with pytest.raises(ProviderError, match="the disk is full"):
            await store.replace([make(f"s{n}") for n in range(2000)], version=2)
        store._connection.execute("PRAGMA max_page_count = 1000000")
        assert (await store.load(), store.version) == ([make("old")], 1)
        await store.replace([make("new")], version=2)
    assert set((await kept(path))[0]) == {("new", "v")}


async def test_a_read_only_database_is_an_error_and_keeps_what_was_there(path: Path) -> None:
    async with opened(path) as store:
        await store.apply(upsert=[make("old")], remove=[], version=1)
        store._connection.execute("PRAGMA query_only = 1")
        with pytest.raises(ProviderError, match="cannot be written: it is read-only"):
            await store.apply(upsert=[make("new")], remove=[("old", "v")], version=2)
    assert await kept(path) == ({("old", "v"): make("old")}, 1)


async def test_a_file_held_by_another_program_is_an_error_in_bounded_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.01)
    async with opened(path) as store:
        with by_hand(path) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(ProviderError, match="is held by another program"):
                await store.apply(upsert=[make("a")], remove=[], version=1)
        await store.apply(upsert=[make("a")], remove=[], version=1)
    assert (await kept(path))[1] == 1


async def test_one_route_that_cannot_be_written_keeps_the_others_of_its_change_out(path: Path) -> None:
    broken = Route.model_construct(**{**dict(make("b")), "metadata": {"x": object()}})
    async with opened(path) as store:
        with pytest.raises(ProviderError, match="route b/v cannot be written as JSON"):
            await store.apply(upsert=[make("a"), broken], remove=[], version=1)
        assert (await store.load(), store.version) == ([], 0)


# --- cancellation and closing --------------------------------------------------------------------------


async def test_a_caller_cancelled_before_its_turn_has_changed_nothing(path: Path) -> None:
    async with opened(path) as store:
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.apply(upsert=[make("a")], remove=[], version=1)
        assert scope.cancelled_caught
        assert (await store.load(), store.version) == ([], 0)


async def test_a_caller_cancelled_while_it_waits_behind_another_has_changed_nothing(path: Path) -> None:
    async with opened(path) as store, trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def second() -> None:
            with scope:
                await store.apply(upsert=[make("second")], remove=[], version=2)

        def first_is_running() -> None:
            trio.from_thread.run_sync(nursery.start_soon, second)
            trio.from_thread.run(trio.testing.wait_all_tasks_blocked)
            trio.from_thread.run_sync(scope.cancel)

        await store._write(first_is_running, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert scope.cancelled_caught
        assert (await store.load(), store.version) == ([], 1)


async def test_a_caller_cancelled_during_the_write_still_learns_that_it_was_made(path: Path) -> None:
    a = make("a")
    returned = False
    async with opened(path) as store:
        with trio.CancelScope() as scope:

            def cancelled_halfway() -> None:
                trio.from_thread.run_sync(scope.cancel)
                store._insert([a])

            await store._write(cancelled_halfway, 1)
            returned = True
            await trio.lowlevel.checkpoint()
        assert (returned, scope.cancelled_caught) == (True, True)
    assert await kept(path) == ({a.key: a}, 1)


async def test_closing_waits_for_the_running_write_even_when_cancelled(path: Path) -> None:
    store = await RouteStore.open(path)
    async with trio.open_nursery() as nursery:

        async def close() -> None:
            with trio.CancelScope() as scope:
                scope.cancel()
                await store.aclose()
            assert scope.cancelled_caught

        def close_meanwhile() -> None:
            trio.from_thread.run_sync(nursery.start_soon, close)
            trio.from_thread.run(trio.testing.wait_all_tasks_blocked)
            store._insert([make("a")])

        await store._write(close_meanwhile, 1)
    with pytest.raises(ProviderError, match="closed"):
        await store.load()
    assert (await kept(path))[0] == {("a", "v"): make("a")}


async def test_a_closed_store_says_so_and_closing_twice_is_fine(path: Path) -> None:
    store = await RouteStore.open(path)
    await store.aclose()
    await store.aclose()
    with pytest.raises(ProviderError, match="closed"):
        await store.apply(upsert=[make("a")], remove=[], version=1)
    with pytest.raises(ProviderError, match="closed"):
        await store.load()
