from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from trioproxy.errors import ProviderError
from trioproxy.providers import file as file_module
from trioproxy.providers.file import FileProvider
from trioproxy.providers.provider import Sink
from trioproxy.providers.routes_file import parse_routes
from trioproxy.routing.route import Route, RouteKey

INTERVAL = 0.02
LIMIT = 10.0


class RecordingSink:
    """Keeps what it is told, and lets a test wait for the next piece."""

    def __init__(self) -> None:
        self.told: list[set[str] | str] = []
        self._more = trio.Event()

    async def replace(self, provider: str, routes: Iterable[Route]) -> None:
        assert provider == "file"
        self._note({route.session_id for route in routes})

    async def change(self, provider: str, *, upsert: Iterable[Route] = (), remove: Iterable[RouteKey] = ()) -> None:
        raise AssertionError("a file is always read whole")

    def failed(self, provider: str, error: str) -> None:
        assert provider == "file"
        self._note(error)

    def _note(self, item: set[str] | str) -> None:
        self.told.append(item)
        self._more.set()
        self._more = trio.Event()

    async def number(self, count: int) -> set[str] | str:
        with trio.fail_after(LIMIT):
            while len(self.told) < count:
                await self._more.wait()
        assert len(self.told) == count, self.told
        return self.told[-1]


def content(*sessions: str) -> str:
    return json.dumps({"routes": [{"session_id": s, "service": "v", "backends": []} for s in sessions]})


def write(path: Path, *sessions: str) -> None:
    """Replace the file as a whole, and let it look as if that was a while ago."""
    fresh = path.with_suffix(".new")
    fresh.write_text(content(*sessions))
    os.utime(fresh, ns=(0, 10**18))
    fresh.rename(path)


def link_to(target: Path, path: Path) -> None:
    """Let `path` be a symbolic link to `target`, without a moment in which it is not there."""
    fresh = path.with_suffix(".link")
    fresh.symlink_to(target)
    fresh.rename(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "routes.json"


@asynccontextmanager
async def running(path: Path, sink: RecordingSink, interval: float = INTERVAL) -> AsyncIterator[FileProvider]:
    provider = FileProvider(path, interval)
    async with trio.open_nursery() as nursery:
        await nursery.start(provider.run, sink)
        yield provider
        nursery.cancel_scope.cancel()


async def looked_twice(provider: FileProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Return when two looks have ended, of which the second began after this call."""
    looks = 0
    done = trio.Event()
    original = provider._update

    async def counted(sink: Sink) -> None:
        nonlocal looks
        await original(sink)
        looks += 1
        if looks == 2:
            done.set()

    with monkeypatch.context() as patch, trio.fail_after(LIMIT):
        patch.setattr(provider, "_update", counted)
        await done.wait()


async def test_the_first_snapshot_is_in_when_it_has_started(path: Path) -> None:
    write(path, "a", "b")
    sink = RecordingSink()
    async with running(path, sink):
        assert sink.told == [{"a", "b"}]


async def test_a_changed_file_is_read_again(path: Path) -> None:
    write(path, "a")
    sink = RecordingSink()
    async with running(path, sink):
        write(path, "b")
        assert await sink.number(2) == {"b"}
        write(path)
        assert await sink.number(3) == set()


async def test_an_unchanged_file_is_not_delivered_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, "a")
    sink = RecordingSink()
    async with running(path, sink) as provider:
        await looked_twice(provider, monkeypatch)
        await trio.Path(path).touch()
        write(path, "a")
        os.utime(path, ns=(0, 0))
        await looked_twice(provider, monkeypatch)
        await provider.refresh()
        assert sink.told == [{"a"}]


async def test_a_swapped_symbolic_link_further_up_is_seen(tmp_path: Path) -> None:
    # How Kubernetes updates a ConfigMap: routes.json -> ..data/routes.json, ..data -> ..<time>.
    for name, session in (("..1", "old"), ("..2", "new")):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "routes.json", session)
        os.utime(tmp_path / name / "routes.json", ns=(0, 10**18))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "routes.json").symlink_to("..data/routes.json")
    sink = RecordingSink()
    async with running(tmp_path / "routes.json", sink):
        assert sink.told == [{"old"}]
        link_to(Path("..2"), tmp_path / "..data")
        assert await sink.number(2) == {"new"}


async def test_a_missing_file_is_told_once_and_read_when_it_comes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = RecordingSink()
    async with running(path, sink) as provider:
        assert sink.told == [f"{path}: cannot be read: No such file or directory"]
        await looked_twice(provider, monkeypatch)
        write(path, "a")
        assert await sink.number(2) == {"a"}


async def test_a_broken_file_is_told_with_its_place_and_what_was_there_stays(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(path, "a")
    sink = RecordingSink()
    async with running(path, sink) as provider:
        await trio.Path(path).write_text('{"routes": [}')
        told = await sink.number(2)
        assert isinstance(told, str)
        assert told.startswith(f"{path}: is not JSON: ")
        assert "line 1 column 13" in told
        await looked_twice(provider, monkeypatch)
        assert len(sink.told) == 2
        assert [record.__dict__["error"] for record in caplog.records] == [told]
        await trio.Path(path).write_text(content("b"))
        assert await sink.number(3) == {"b"}


async def test_a_broken_file_is_not_parsed_again_and_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []
    write(path, "a")
    sink = RecordingSink()
    async with running(path, sink) as provider:
        await trio.Path(path).write_text("{")
        await sink.number(2)
        monkeypatch.setattr(file_module, "parse_routes", lambda path, data: parsed.append(data))
        await looked_twice(provider, monkeypatch)
        assert parsed == []


async def test_a_file_that_is_mended_to_what_it_was_is_delivered_to_end_the_failure(path: Path) -> None:
    # Behind a link, so that the file that comes back is the same down to its time stamps.
    target = path.with_name("target.json")
    write(target, "a")
    link_to(target, path)
    sink = RecordingSink()
    async with running(path, sink):
        await trio.Path(path).unlink()
        assert "No such file" in str(await sink.number(2))
        link_to(target, path)
        assert await sink.number(3) == {"a"}
        await trio.Path(target).write_text("{")
        assert "is not JSON" in str(await sink.number(4))
        write(target, "a")
        assert await sink.number(5) == {"a"}


@pytest.mark.parametrize("kind", ["directory", "fifo"])
async def test_what_is_no_regular_file_is_told_and_never_waited_for(path: Path, kind: str) -> None:
    if kind == "directory":
        await trio.Path(path).mkdir()
    else:
        os.mkfifo(path)
    sink = RecordingSink()
    async with running(path, sink):
        assert sink.told == [f"{path}: cannot be read: it is not a regular file"]


async def test_the_size_of_the_file_is_bounded(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(file_module.MAX_BYTES + 1)
    sink = RecordingSink()
    async with running(path, sink):
        assert sink.told == [f"{path}: cannot be read: it is larger than 64 MiB"]
        write(path, "a")
        assert await sink.number(2) == {"a"}


async def test_a_file_that_has_just_been_written_is_left_to_settle(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def finish_writing(seconds: float) -> None:
        pauses.append(seconds)
        await trio.lowlevel.checkpoint()
        write(path, "whole")

    # What is there now would parse, and is only half of what its writer has in mind.
    await trio.Path(path).write_text(content("half"))
    monkeypatch.setattr(file_module.trio, "sleep", finish_writing)
    sink = RecordingSink()
    provider = FileProvider(path, INTERVAL)
    provider._sink = sink
    await provider.refresh()
    assert sink.told == [{"whole"}]
    assert pauses == [file_module.SETTLE_SECONDS]


async def test_a_file_replaced_while_it_is_read_is_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, "old")
    sink = RecordingSink()
    async with running(path, sink, interval=60.0) as provider:
        original = Path.open
        swapped = False

        def open_and_swap(self: Path, *args: Any, **kwargs: Any) -> object:
            nonlocal swapped
            opened = original(self, *args, **kwargs)
            if not swapped and args == ("rb",):
                swapped = True
                write(path, "new")
            return opened

        monkeypatch.setattr(Path, "open", open_and_swap)
        write(path, "between")
        await provider.refresh()
        assert sink.told == [{"old"}, {"new"}]


async def test_a_file_written_without_a_pause_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet, busy = path.with_name("quiet.json"), path.with_name("busy.json")
    write(quiet, "a")
    write(busy, "b")
    link_to(quiet, path)
    sink = RecordingSink()
    async with running(path, sink):
        with monkeypatch.context() as patch:
            patch.setattr(file_module, "SETTLE_SECONDS", 1e-3)
            patch.setattr(file_module.time, "time_ns", lambda: busy.stat().st_mtime_ns)
            link_to(busy, path)
            assert await sink.number(2) == f"{path}: cannot be read: it is being written all the time"
        link_to(quiet, path)
        assert await sink.number(3) == {"a"}


async def test_refresh_reads_now_and_raises_what_is_wrong(path: Path) -> None:
    write(path, "a")
    sink = RecordingSink()
    async with running(path, sink, interval=60.0) as provider:
        write(path, "b")
        await provider.refresh()
        assert sink.told == [{"a"}, {"b"}]
        await trio.Path(path).unlink()
        for _ in range(2):
            with pytest.raises(ProviderError, match="No such file"):
                await provider.refresh()
        assert len(sink.told) == 3


async def test_refresh_reads_even_what_a_coarse_clock_makes_look_unchanged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "_stamp", lambda found: file_module._Stamp(1, 2, 3, 4, 5))
    write(path, "a")
    sink = RecordingSink()
    async with running(path, sink, interval=60.0) as provider:
        write(path, "b")
        await provider.refresh()
        assert sink.told == [{"a"}, {"b"}]


async def test_refresh_before_it_runs_is_an_error(path: Path) -> None:
    with pytest.raises(ProviderError, match="not running"):
        await FileProvider(path, INTERVAL).refresh()


async def test_a_refresh_cancelled_on_the_way_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scope = trio.CancelScope()

    def parse_and_cancel(path: Path, data: bytes) -> list[Route]:
        trio.from_thread.run_sync(scope.cancel)
        return parse_routes(path, data)

    write(path, "a")
    sink = RecordingSink()
    async with running(path, sink) as provider:
        with monkeypatch.context() as patch, scope:
            patch.setattr(file_module, "parse_routes", parse_and_cancel)
            write(path, "b")
            await provider.refresh()
        assert scope.cancelled_caught
        assert await sink.number(2) == {"b"}


async def test_a_second_run_delivers_again(path: Path) -> None:
    write(path, "a")
    sink = RecordingSink()
    provider = FileProvider(path, INTERVAL)
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            await nursery.start(provider.run, sink)
            nursery.cancel_scope.cancel()
    assert sink.told == [{"a"}, {"a"}]
