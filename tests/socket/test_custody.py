"""The management API and the store change hands, and come back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
import trio

from trioproxy.errors import ProviderError
from trioproxy.process.custody import Custody
from trioproxy.process.intake import Intake
from trioproxy.providers.store import RouteStore
from trioproxy.routing.route import Backend, Route


def route(name: str) -> Route:
    return Route(session_id=name, service="v", backends=(Backend(host="h", port=1),))


class Taking:
    """An intake that notes what it was given."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, list[str]]] = []

    async def replace(self, provider: str, routes: Iterable[Route]) -> None:
        await trio.lowlevel.checkpoint()
        self.taken.append((provider, sorted(one.session_id for one in routes)))


class World:
    def __init__(self, store: RouteStore) -> None:
        self.store = store
        self.intake = Taking()
        self.answers = False
        self.served = 0
        self.shutdown = trio.Event()
        self.busy = trio.Event()
        self.busy.set()
        self.custody = Custody(self._serve, store, cast(Intake, self.intake))

    async def _serve(
        self, *, shutdown_trigger: Callable[[], Awaitable[None]], task_status: trio.TaskStatus[None]
    ) -> None:
        self.answers = True
        self.served += 1
        task_status.started()
        await shutdown_trigger()
        await self.busy.wait()  # a call that still runs
        self.answers = False


@asynccontextmanager
async def world(path: Path) -> AsyncGenerator[World]:
    with trio.fail_after(20):
        async with await RouteStore.open(path) as store, trio.open_nursery() as nursery:
            made = World(store)

            async def run(*, task_status: trio.TaskStatus[None]) -> None:
                await made.custody.run(shutdown_trigger=made.shutdown.wait, task_status=task_status)

            await nursery.start(run)
            yield made
            made.shutdown.set()


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_letting_go_waits_for_calls_that_run_and_writes_no_more(tmp_path: Path) -> None:
    async with world(tmp_path / "r") as one, trio.open_nursery() as nursery:
        one.busy = trio.Event()
        nursery.start_soon(one.custody.let_go)
        await settle()
        await one.store.apply(upsert=[route("late")], remove=[], version=1)
        one.busy.set()
        while not one.store.suspended:  # noqa: ASYNC110 - a thread does it, and nobody tells
            await trio.lowlevel.checkpoint()
        assert not one.answers
        with pytest.raises(ProviderError, match="belongs to another generation"):
            await one.store.apply(upsert=[], remove=[("late", "v")], version=2)
        await one.store.save_version(9)
        async with await RouteStore.open(tmp_path / "r", suspended=True) as other:
            await other.resume()
            assert other.version == 1
            assert [found.session_id for found in await other.load()] == ["late"]


async def test_what_is_taken_back_has_what_was_written_meanwhile(tmp_path: Path) -> None:
    async with world(tmp_path / "r") as one:
        await one.custody.let_go()
        async with await RouteStore.open(tmp_path / "r", suspended=True) as other:
            await other.resume()
            await other.apply(upsert=[route("meanwhile")], remove=[], version=7)
        assert await one.custody.take_back() is None
        await settle()
        assert (one.answers, one.served) == (True, 2)
        assert one.intake.taken == [("store", ["meanwhile"])]
        assert one.store.version == 7
        await one.store.apply(upsert=[route("ours")], remove=[], version=8)
        # And once more, to its end.
        await one.custody.let_go()
        assert not one.answers


async def test_what_was_wanted_back_before_it_was_gone_goes_on(tmp_path: Path) -> None:
    async with world(tmp_path / "r") as one:
        one.busy = trio.Event()
        with trio.move_on_after(0.01) as limit:
            await one.custody.let_go()
        assert limit.cancelled_caught
        assert await one.custody.take_back() is None
        one.busy.set()
        while one.served < 2:  # noqa: ASYNC110 - nobody tells
            await trio.lowlevel.checkpoint()
        assert one.answers
        assert not one.store.suspended


async def test_a_database_that_cannot_be_read_again_is_told_and_the_api_answers(tmp_path: Path) -> None:
    async with world(tmp_path / "r") as one:
        await one.custody.let_go()
        await one.store.aclose()
        assert "cannot be used" in (await one.custody.take_back() or "")
        await settle()
        assert one.answers
