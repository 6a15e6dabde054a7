"""Connections to backends: which one is taken, who waits, what is closed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioproxy.config.schema import PoolConfig
from trioproxy.errors import ConnectFailed, ConnectTimeout, Overloaded
from trioproxy.proxy.pool import Pool
from trioproxy.proxy.upstream import Upstream
from trioproxy.routing.route import Backend
from trioproxy.testing import MemoryBackend, MemoryNetwork


class Scene:
    """A pool with one backend to connect to."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.network = MemoryNetwork()
        self.backend = self.network.listen("kernel", 8888)
        self.config = PoolConfig.model_validate(config)
        self.pool = Pool(self.network.dial, lambda: self.config)

    async def acquire(self, backend: MemoryBackend | None = None, *, fresh: bool = False) -> Upstream:
        target = (backend or self.backend).as_backend()
        return await self.pool.acquire(target, connect_seconds=3, fresh=fresh)

    def counts(self) -> dict[str, int]:
        return {state: count for state, count in self.pool.statistics().items() if count}

    def open(self, backend: MemoryBackend | None = None) -> int:
        """Connections that the pool has not closed."""
        return sum(not end.peer_closed for end in (backend or self.backend).open)


@asynccontextmanager
async def pool_of(**config: Any) -> AsyncGenerator[Scene]:
    """A pool whose reaper runs."""
    scene = Scene(config)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.pool.reap)
        yield scene
        nursery.cancel_scope.cancel()
    with trio.move_on_after(1, shield=True):
        await scene.pool.aclose()


def kept(scene: Scene, upstream: Upstream) -> Upstream:
    assert scene.pool.keep(upstream)
    return upstream


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


# --- queue -----------------------------------------------------------------------------------------------


class Queue:
    """Requests that ask one after the other, and the order in which they are served."""

    def __init__(self, scene: Scene, nursery: trio.Nursery) -> None:
        self.served: list[int] = []
        self.refused: list[int] = []
        self.upstreams: dict[int, Upstream] = {}
        self.scopes: dict[int, trio.CancelScope] = {}
        self._scene = scene
        self._nursery = nursery

    async def ask(self, number: int) -> None:
        async def wait() -> None:
            with trio.CancelScope() as scope:
                self.scopes[number] = scope
                try:
                    self.upstreams[number] = await self._scene.acquire()
                except Overloaded:
                    self.refused.append(number)
                else:
                    self.served.append(number)

        self._nursery.start_soon(wait)
        await wait_all_tasks_blocked()


async def test_at_max_per_backend_requests_wait_and_are_served_in_their_order(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1) as scene, trio.open_nursery() as nursery:
        upstream = await scene.acquire()
        queue = Queue(scene, nursery)
        for number in (1, 2, 3):
            await queue.ask(number)
        assert scene.counts() == {"active": 1, "waiting": 3}
        for number in (1, 2, 3):
            kept(scene, upstream)
            await wait_all_tasks_blocked()
            assert queue.served[-1] == number
            assert queue.upstreams[number] is upstream
        assert (queue.served, scene.backend.dials) == ([1, 2, 3], 1)


async def test_whoever_comes_later_does_not_overtake(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1) as scene, trio.open_nursery() as nursery:
        upstream = await scene.acquire()
        queue = Queue(scene, nursery)
        await queue.ask(1)
        nursery.start_soon(queue.ask, 2)
        kept(scene, upstream)
        await wait_all_tasks_blocked()
        assert queue.served == [1]
        nursery.cancel_scope.cancel()


async def test_a_discarded_connection_makes_room_for_a_dial(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1) as scene, trio.open_nursery() as nursery:
        upstream = await scene.acquire()
        queue = Queue(scene, nursery)
        await queue.ask(1)
        await scene.pool.discard(upstream)
        await wait_all_tasks_blocked()
        assert queue.served == [1]
        assert not queue.upstreams[1].kept
        assert scene.counts() == {"active": 1}


async def test_a_connection_that_ended_right_behind_its_answer_is_not_handed_on(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1) as scene, trio.open_nursery() as nursery:
        upstream = await scene.acquire()
        queue = Queue(scene, nursery)
        await queue.ask(1)
        await scene.backend.open[0].send_eof()
        kept(scene, upstream)
        await wait_all_tasks_blocked()
        assert not queue.upstreams[1].kept
        assert (scene.counts(), scene.open()) == ({"active": 1}, 1)


async def test_the_queue_is_bounded(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1, queue=2) as scene, trio.open_nursery() as nursery:
        upstream = await scene.acquire()
        queue = Queue(scene, nursery)
        await queue.ask(1)
        await queue.ask(2)
        with pytest.raises(Overloaded):
            await scene.acquire()
        assert scene.counts() == {"active": 1, "waiting": 2}
        kept(scene, upstream)
        await wait_all_tasks_blocked()
        await queue.ask(3)  # there is a place again
        assert scene.counts() == {"active": 1, "waiting": 2}
        nursery.cancel_scope.cancel()


async def test_queue_timeout_is_the_longest_wait(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1, queue_timeout="5s") as scene:
        await scene.acquire()
        with pytest.raises(Overloaded):
            await scene.acquire()
        assert trio.current_time() == 5
        assert scene.counts() == {"active": 1}


async def test_a_waiter_that_leaves_is_forgotten(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1) as scene, trio.open_nursery() as nursery:
        upstream = await scene.acquire()
        queue = Queue(scene, nursery)
        await queue.ask(1)
        await queue.ask(2)
        queue.scopes[1].cancel()
        await wait_all_tasks_blocked()
        kept(scene, upstream)
        await wait_all_tasks_blocked()
        assert queue.served == [2]


async def test_a_waiter_cancelled_as_it_is_granted_a_connection_passes_it_on(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1) as scene, trio.open_nursery() as nursery:
        upstream = await scene.acquire()
        queue = Queue(scene, nursery)
        await queue.ask(1)
        await queue.ask(2)
        queue.scopes[1].cancel()
        kept(scene, upstream)
        await wait_all_tasks_blocked()
        assert (queue.served, queue.upstreams[2]) == ([2], upstream)
        assert scene.counts() == {"active": 1}


async def test_the_last_waiter_cancelled_as_it_is_granted_a_connection_leaves_it_idle(
    autojump_clock: MockClock,
) -> None:
    async with pool_of(max_per_backend=1) as scene, trio.open_nursery() as nursery:
        upstream = await scene.acquire()
        queue = Queue(scene, nursery)
        await queue.ask(1)
        queue.scopes[1].cancel()
        kept(scene, upstream)
        await wait_all_tasks_blocked()
        assert (queue.served, scene.counts()) == ([], {"idle": 1})


async def test_a_waiter_cancelled_as_it_may_dial_passes_that_on(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1) as scene, trio.open_nursery() as nursery:
        upstream = await scene.acquire()
        queue = Queue(scene, nursery)
        await queue.ask(1)
        await queue.ask(2)
        queue.scopes[1].cancel()
        await scene.pool.discard(upstream)
        await wait_all_tasks_blocked()
        assert queue.served == [2]
        assert scene.counts() == {"active": 1}


async def test_a_connection_that_comes_at_a_waiters_deadline_goes_to_it_or_stays(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1, queue_timeout="5s") as scene:
        for _ in range(20):  # trio shuffles who of the two runs first
            async with trio.open_nursery() as nursery:
                upstream = await scene.acquire()
                queue = Queue(scene, nursery)
                deadline = trio.current_time() + 5
                await queue.ask(1)
                await trio.sleep_until(deadline)
                kept(scene, upstream)
            assert len(queue.served) + len(queue.refused) == 1
            assert scene.counts() == ({"active": 1} if queue.served else {"idle": 1})
            for granted in queue.upstreams.values():
                kept(scene, granted)


# --- dials -----------------------------------------------------------------------------------------------


async def test_dials_per_backend_bounds_attempts_at_a_time(autojump_clock: MockClock) -> None:
    async with pool_of(dials_per_backend=2, queue_timeout="100s") as scene, trio.open_nursery() as nursery:
        scene.backend.answering = False
        failures: list[str] = []

        async def ask() -> None:
            try:
                await scene.acquire()
            except ConnectTimeout:
                failures.append("timeout")

        for _ in range(5):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        assert scene.counts() == {"dialing": 2, "waiting": 3}
        await trio.sleep(3.5)
        assert (scene.counts(), failures) == ({"dialing": 2, "waiting": 1}, ["timeout"] * 2)
        await trio.sleep(6)
        assert (scene.counts(), failures) == ({}, ["timeout"] * 5)


async def test_a_refused_dial_gives_its_place_to_the_next(autojump_clock: MockClock) -> None:
    async with pool_of(dials_per_backend=1) as scene, trio.open_nursery() as nursery:
        scene.backend.accepting = False
        refused: list[int] = []

        async def ask(number: int) -> None:
            with pytest.raises(ConnectFailed):
                await scene.acquire()
            refused.append(number)

        for number in range(3):
            nursery.start_soon(ask, number)
        await wait_all_tasks_blocked()
        assert (sorted(refused), scene.counts()) == ([0, 1, 2], {})


async def test_a_cancelled_dial_gives_its_place_to_the_next(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1) as scene, trio.open_nursery() as nursery:
        scene.backend.answering = False
        queue = Queue(scene, nursery)
        await queue.ask(1)
        await queue.ask(2)
        assert scene.counts() == {"dialing": 1, "waiting": 1}
        scene.backend.answering = True
        queue.scopes[1].cancel()
        await wait_all_tasks_blocked()
        assert (queue.served, scene.counts()) == ([2], {"active": 1})


async def test_a_bug_in_the_dialer_costs_no_place(autojump_clock: MockClock) -> None:
    async def broken(backend: Backend) -> trio.abc.HalfCloseableStream:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    pool = Pool(broken, PoolConfig)
    with pytest.raises(ZeroDivisionError):
        await pool.acquire(Backend(host="kernel", port=1), connect_seconds=3)
    assert pool.statistics().total() == 0


async def test_connections_of_different_backends_do_not_mix(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1) as scene:
        other = scene.network.listen("other", 8888)
        kept(scene, await scene.acquire())
        upstream = await scene.acquire(other)
        assert (upstream.kept, upstream.key) == (False, "other:8888")


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


async def test_a_waiter_cancelled_as_the_pool_closes_does_not_leave_its_connection_open(
    autojump_clock: MockClock,
) -> None:
    async with pool_of(max_per_backend=1) as scene, trio.open_nursery() as nursery:
        upstream = await scene.acquire()
        queue = Queue(scene, nursery)
        await queue.ask(1)
        queue.scopes[1].cancel()
        kept(scene, upstream)
        await scene.pool.aclose()
        await wait_all_tasks_blocked()
        assert (queue.served, scene.open(), scene.counts()) == ([], 0, {})


async def test_a_reload_takes_effect_at_once(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1) as scene, trio.open_nursery() as nursery:
        upstream = await scene.acquire()
        queue = Queue(scene, nursery)
        await queue.ask(1)
        await queue.ask(2)
        scene.config = PoolConfig(max_per_backend=3)
        await scene.pool.discard(upstream)
        await wait_all_tasks_blocked()
        assert sorted(queue.served) == [1, 2]
