"""Connections to backends: which one is taken, and what is closed."""

from __future__ import annotations

import pytest
import trio
from pool_scene import kept, pool_of
from trio.testing import MockClock, wait_all_tasks_blocked

from trioproxy.errors import ConnectFailed

# --- reuse -----------------------------------------------------------------------------------------------


async def test_the_newest_idle_connection_serves_first(autojump_clock: MockClock) -> None:
    async with pool_of() as scene:
        first, second = await scene.acquire(), await scene.acquire()
        kept(scene, first)
        kept(scene, second)
        assert [await scene.acquire(), await scene.acquire()] == [second, first]
        assert scene.backend.dials == 2


async def test_an_idle_connection_is_kept_for_idle_timeout_and_no_longer(autojump_clock: MockClock) -> None:
    async with pool_of(idle_timeout="30s") as scene:
        kept(scene, await scene.acquire())
        await trio.sleep(29.9)
        upstream = await scene.acquire()
        assert upstream.kept
        kept(scene, upstream)
        await trio.sleep(30)
        assert not (await scene.acquire()).kept


async def test_an_idle_connection_is_closed_when_it_expires(autojump_clock: MockClock) -> None:
    async with pool_of(idle_timeout="30s") as scene:
        kept(scene, await scene.acquire())
        await trio.sleep(29.9)
        assert (scene.open(), scene.counts()) == (1, {"idle": 1})
        await trio.sleep(2.2)  # the reaper looks every two seconds
        assert (scene.open(), scene.counts()) == (0, {})


async def test_with_an_idle_timeout_of_0_nothing_is_kept(autojump_clock: MockClock) -> None:
    async with pool_of(idle_timeout=0) as scene:
        kept(scene, await scene.acquire())
        assert not (await scene.acquire()).kept


async def test_a_backend_that_tells_when_it_hangs_up_is_believed(autojump_clock: MockClock) -> None:
    async with pool_of(idle_timeout="30s") as scene:
        upstream = await scene.acquire()
        upstream.keep_seconds = 5
        kept(scene, upstream)
        await trio.sleep(3.9)
        assert await scene.acquire() is upstream
        kept(scene, upstream)
        await trio.sleep(4)  # a second before it would, lest both happen at once
        assert await scene.acquire() is not upstream


async def test_a_backend_cannot_stretch_the_idle_timeout(autojump_clock: MockClock) -> None:
    async with pool_of(idle_timeout="30s") as scene:
        upstream = await scene.acquire()
        upstream.keep_seconds = 500
        kept(scene, upstream)
        await trio.sleep(31)
        assert not (await scene.acquire()).kept


@pytest.mark.parametrize("how", ["eof", "reset", "bytes"])
async def test_a_connection_that_the_backend_ended_or_spoke_on_is_not_used_again(
    how: str, autojump_clock: MockClock
) -> None:
    async with pool_of() as scene:
        kept(scene, await scene.acquire())
        [end] = scene.backend.open
        if how == "eof":
            await end.send_eof()
        elif how == "reset":
            end.reset()
        else:
            await end.send_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        upstream = await scene.acquire()
        assert not upstream.kept
        await wait_all_tasks_blocked()
        assert scene.open() == 1  # the other one was closed at once
        assert scene.counts() == {"active": 1}


async def test_the_reaper_closes_an_idle_connection_that_the_backend_ended(autojump_clock: MockClock) -> None:
    async with pool_of() as scene:
        kept(scene, await scene.acquire())
        await scene.backend.open[0].send_eof()
        await trio.sleep(2.1)
        assert (scene.open(), scene.counts()) == (0, {})


async def test_beyond_idle_per_backend_the_oldest_is_closed_at_once(autojump_clock: MockClock) -> None:
    async with pool_of(idle_per_backend=2) as scene:
        upstreams = [await scene.acquire() for _ in range(3)]
        for upstream in upstreams:
            kept(scene, upstream)
        await wait_all_tasks_blocked()
        assert [end.peer_closed for end in scene.backend.open] == [True, False, False]
        assert scene.counts() == {"idle": 2}


async def test_idle_per_backend_of_0_keeps_none(autojump_clock: MockClock) -> None:
    async with pool_of(idle_per_backend=0) as scene:
        kept(scene, await scene.acquire())
        await wait_all_tasks_blocked()
        assert (scene.open(), scene.counts()) == (0, {})


async def test_a_fresh_one_gives_up_all_that_are_idle(autojump_clock: MockClock) -> None:
    async with pool_of() as scene:
        for upstream in [await scene.acquire() for _ in range(3)]:
            kept(scene, upstream)
        assert not (await scene.acquire(fresh=True)).kept
        await wait_all_tasks_blocked()
        assert scene.open() == 1


async def test_a_discarded_connection_is_closed(autojump_clock: MockClock) -> None:
    async with pool_of() as scene:
        await scene.pool.discard(await scene.acquire())
        assert (scene.open(), scene.counts()) == (0, {})
        assert scene.pool._rooms == {}


# --- housekeeping ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kept", "discarded", "refused"])
async def test_nothing_is_left_of_ten_thousand_backends_that_came_and_went(how: str, autojump_clock: MockClock) -> None:
    async with pool_of(idle_timeout="10s") as scene:
        for number in range(10_000):
            backend = scene.network.listen(f"kernel{number}", 1)
            backend.accepting = how != "refused"
            if how == "refused":
                with pytest.raises(ConnectFailed):
                    await scene.acquire(backend)
            elif how == "kept":
                kept(scene, await scene.acquire(backend))
            else:
                await scene.pool.discard(await scene.acquire(backend))
        await trio.sleep(13)
        assert scene.pool._rooms == {}
        assert scene.network.leaked() == []


async def test_a_closed_pool_closes_what_was_idle_and_keeps_nothing(autojump_clock: MockClock) -> None:
    async with pool_of() as scene:
        kept(scene, await scene.acquire())
        leased = await scene.acquire(fresh=True)
        await scene.pool.aclose()
        assert scene.open() == 1
        assert not scene.pool.keep(leased)
        await scene.pool.discard(leased)
        assert (scene.open(), scene.counts()) == (0, {})
