"""Writing the access log: files, rotation, disks that are full, readers that do not read."""

from __future__ import annotations

import json
import logging
import os
import select
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from trioproxy.observe import access_log
from trioproxy.observe.access_log import AccessLog, RequestRecord
from trioproxy.observe.metrics import Metrics


def record(number: int) -> RequestRecord:
    return RequestRecord(id=str(number), client="192.0.2.1", listener="web", started_at=1.0, began=0.0)


def ids(path: Path) -> list[int]:
    return [int(json.loads(line)["id"]) for line in path.read_bytes().splitlines()]


@asynccontextmanager
async def running(target: str, metrics: Metrics | None = None) -> AsyncGenerator[AccessLog]:
    """A log that writes; everything is written when the block has ended."""
    log = AccessLog(target, metrics or Metrics())
    async with trio.open_nursery() as nursery:
        await nursery.start(log.run)
        yield log
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], Any]) -> None:
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - a thread writes, and nobody tells
            await trio.sleep(0.005)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def test_lines_are_written_soon_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    async with running(str(path)) as log:
        for number in range(1000):
            log.write(record(number))
        await until(lambda: size(path))
        await until(lambda: path.read_bytes().count(b"\n") == 1000)
        assert ids(path) == list(range(1000))


async def test_the_file_is_there_once_the_log_has_started(tmp_path: Path) -> None:
    async with running(str(tmp_path / "access.log")):
        assert (tmp_path / "access.log").exists()


async def test_lines_are_added_to_a_file_that_exists(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    for number in range(3):
        async with running(str(path)) as log:
            log.write(record(number))
    assert ids(path) == [0, 1, 2]


async def test_what_is_pending_at_the_end_is_written(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    async with running(str(path)) as log:
        for number in range(5000):
            log.write(record(number))
    assert ids(path) == list(range(5000))


async def test_a_file_that_cannot_be_opened_is_an_error_at_the_start(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(FileNotFoundError):
            await nursery.start(AccessLog(str(tmp_path / "no" / "access.log"), Metrics()).run)


async def test_stdout_gets_the_lines(capfd: pytest.CaptureFixture[str]) -> None:
    async with running("stdout") as log:
        log.write(record(1))
        log.reopen()  # means nothing here
        log.write(record(2))
    assert [json.loads(line)["id"] for line in capfd.readouterr().out.splitlines()] == ["1", "2"]


# --- rotation --------------------------------------------------------------------------------------------


async def test_after_rotation_lines_go_into_a_new_file(tmp_path: Path) -> None:
    path, old = tmp_path / "access.log", tmp_path / "access.log.1"
    async with running(str(path)) as log:
        log.write(record(1))
        await until(lambda: size(path))
        path.rename(old)
        log.write(record(2))
        await until(lambda: len(ids(old)) == 2)  # it does not know yet
        log.reopen()
        log.write(record(3))
        await until(lambda: size(path))
    assert (ids(old), ids(path)) == ([1, 2], [3])


async def test_a_rotation_that_fails_goes_on_with_the_old_file_until_it_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, moved = tmp_path / "logs", tmp_path / "moved"
    folder.mkdir()
    path = folder / "access.log"
    metrics = Metrics()
    async with running(str(path), metrics) as log:
        folder.rename(moved)
        log.reopen()
        for number in range(3):
            log.write(record(number))
            await until(lambda: len(ids(moved / "access.log")) == number + 1)  # noqa: B023
        folder.mkdir()
        log.write(record(3))
        await until(lambda: size(path))
    assert (ids(moved / "access.log"), ids(path)) == ([0, 1, 2], [3])
    assert metrics.access_log_dropped == 0
    assert len(caplog.records) == 1  # not one for each batch


# --- trouble ---------------------------------------------------------------------------------------------


async def test_a_full_queue_costs_lines_and_counts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "MAX_PENDING", 10)
    path, metrics = tmp_path / "access.log", Metrics()
    async with running(str(path), metrics) as log:
        for number in range(25):
            log.write(record(number))
        assert metrics.access_log_dropped == 15
        await until(lambda: size(path))
        log.write(record(25))
    assert ids(path) == [*range(10), 25]


async def test_a_full_disk_costs_lines_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    async with running("/dev/full", metrics) as log:
        for number in range(3):
            log.write(record(number))
            await until(lambda: metrics.access_log_dropped == number + 1)  # noqa: B023
    assert [entry.levelno for entry in caplog.records] == [logging.WARNING]
    assert "No space left on device" in str(vars(caplog.records[0])["error"])


async def test_a_reader_that_stopped_reading_costs_lines_and_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "MAX_PENDING", 100)
    monkeypatch.setattr(access_log, "FLUSH_SECONDS", 0.1)
    fifo, metrics = tmp_path / "fifo", Metrics()
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with trio.fail_after(5):
            async with running(str(fifo), metrics) as log:
                while metrics.access_log_dropped < 100:
                    for number in range(100):
                        log.write(record(number))
                    await trio.sleep(0.01)
    finally:
        os.close(reader)  # and so the thread that hangs in a write ends


async def test_a_reader_that_went_away_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    fifo, metrics = tmp_path / "fifo", Metrics()
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    async with running(str(fifo), metrics) as log:
        log.write(record(0))
        await until(lambda: select.select([reader], [], [], 0)[0])
        os.close(reader)
        log.write(record(1))
        await until(lambda: metrics.access_log_dropped == 1)


async def test_a_line_that_was_torn_does_not_tear_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, metrics = tmp_path / "access.log", Metrics()
    write_some = access_log._write_some
    failing = True

    def short(file: Any, data: memoryview) -> int:
        if not failing:
            return write_some(file, data)
        if len(data) < 200:
            raise OSError(28, "No space left on device")
        return write_some(file, data[:100])

    monkeypatch.setattr(access_log, "_write_some", short)
    async with running(str(path), metrics) as log:
        log.write(record(0))
        await until(lambda: metrics.access_log_dropped == 1)
        failing = False
        log.write(record(1))
    torn, whole = path.read_bytes().splitlines()
    assert len(torn) < 400
    assert json.loads(whole)["id"] == "1"
