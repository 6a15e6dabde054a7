"""Connections to backends: kept, dialled, queued for.

Decisions are made in sync methods of `Room` (one per backend address), so that nothing changes between looking and
acting; dialling and closing happen after, outside. A connection is in exactly one of four states: dialling, leased,
idle, or closed.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable

import trio

from trioproxy.config.schema import PoolConfig
from trioproxy.errors import ConnectFailed, ConnectTimeout, Overloaded
from trioproxy.net.clock import deadline_after
from trioproxy.net.dialer import Dialer
from trioproxy.proxy.room import Room, Waiter
from trioproxy.proxy.upstream import Upstream
from trioproxy.routing.route import Backend

OVERLOAD_RETRY_AFTER = 1  # seconds
CLOSE_SECONDS = 1.0  # for closing without a word, which should not wait at all
REAP_SECONDS = 2.0  # how often idle connections are looked at; also the longest a dead one is kept open


class Pool:
    """Connections to all backends of one forwarder. `config` is asked at each use, so a reload takes effect.

    `rng` tells a number from 0 to 1, by which pauses after a refusal differ.
    """

    def __init__(
        self, dial: Dialer, config: Callable[[], PoolConfig], *, rng: Callable[[], float] = random.random
    ) -> None:
        self._dial = dial
        self._config = config
        self._rng = rng
        self._rooms: dict[str, Room] = {}
        self._dead: list[Upstream] = []  # the reaper closes them: closing waits, and acquiring must not
        self._died = trio.Event()
        self._closed = False

    def take(self, backend: Backend, *, sure: bool = True) -> Upstream | None:
        """A kept connection to the backend, if there is a usable one; else `acquire` one.

        `sure`: ask the kernel whether it is still there. Who can send its request again may spare that.
        """
        room = self._rooms.get(backend.key)
        if room is None or not room.idle:
            return None
        dead: list[Upstream] = []
        upstream = room.take_idle(trio.current_time(), dead, sure=sure)
        if dead:
            self._bury(dead)
        return upstream

    async def acquire(self, backend: Backend, *, connect_seconds: float, fresh: bool = False) -> Upstream:
        """A connection to the backend: kept, or dialled within `connect_seconds`, after queueing if need be.

        `fresh`: kept ones are not trusted (one just turned out dead) and are given up. The caller gives it back
        with `keep` or `discard`. Raises ConnectFailed, ConnectTimeout, Overloaded; RefusedBefore, without a dial,
        for `pool.refused_for` after a refusal. The first who comes later dials, and the others wait how that goes.
        """
        config = self._config()
        room = self._rooms.get(backend.key)
        if room is None:
            room = self._rooms[backend.key] = Room()
        if fresh:
            self._bury(room.idle)
            room.idle.clear()
        upstream = self.take(backend)
        if upstream is None:
            room.check_refusal(trio.current_time())
            room.wake(config)  # a reload may have raised the limits: those who wait already come first
            if room.may_dial(config):
                room.dialing += 1
            else:
                upstream = await self._queue(room, config)
        return upstream or await self._connect(room, backend, connect_seconds)

    async def _queue(self, room: Room, config: PoolConfig) -> Upstream | None:
        if len(room.waiters) >= config.queue:
            raise Overloaded("too many requests wait for this service", retry_after=OVERLOAD_RETRY_AFTER)
        waiter = Waiter()
        room.waiters.append(waiter)
        try:
            with trio.CancelScope(deadline=deadline_after(config.queue_timeout)):
                await waiter.event.wait()
        except trio.Cancelled:
            if not waiter.event.is_set():
                room.waiters.remove(waiter)
            elif waiter.refused is not None:
                pass  # it holds nothing
            elif waiter.granted is not None:  # granted in the instant of the cancellation: the next one gets it
                if not self.keep(waiter.granted):
                    with trio.move_on_after(CLOSE_SECONDS, shield=True):
                        await self.discard(waiter.granted)
            else:
                room.dialing -= 1
                room.wake(config)
            raise
        if not waiter.event.is_set():
            room.waiters.remove(waiter)
            raise Overloaded("no connection to this service became free in time", retry_after=OVERLOAD_RETRY_AFTER)
        if waiter.refused is not None:
            raise waiter.refused
        granted = waiter.granted
        if granted is not None and not granted.usable(trio.current_time()):
            # The backend hung up right behind its answer.
            room.leased -= 1
            room.dialing += 1
            self._bury([granted])
            return None
        return granted

    async def _connect(self, room: Room, backend: Backend, connect_seconds: float) -> Upstream:
        upstream = None
        try:
            with trio.CancelScope(deadline=deadline_after(connect_seconds)) as scope:
                upstream = Upstream(await self._dial(backend), backend.key)
        except ConnectFailed as error:
            room.refused(error, trio.current_time(), self._config().refused_for, self._rng)
            raise
        finally:
            room.dialing -= 1
            if upstream is not None:
                room.leased += 1
                room.refusal = None
            room.wake(self._config())
        if upstream is None:
            assert scope.cancelled_caught
            raise ConnectTimeout(f"the backend did not accept a connection within {connect_seconds:g} s")
        return upstream

    def keep(self, upstream: Upstream) -> bool:
        """Take back one that may serve again, for the next in the queue or as an idle one.

        False when the pool was closed: it is still the caller's, to `discard`.
        """
        if self._closed:
            return False
        config = self._config()
        room = self._rooms[upstream.key]
        room.leased -= 1
        room.refusal = None
        upstream.park(trio.current_time(), config.idle_timeout)
        self._hand_on(room, upstream, config)
        return True

    async def discard(self, upstream: Upstream) -> None:
        """Take back and close one that may not serve again."""
        room = self._rooms[upstream.key]
        room.leased -= 1
        room.wake(self._config())
        self._drop_unused(upstream.key, room)
        await upstream.close()

    def forgive(self, key: str) -> None:
        """The backend at this address was seen to accept connections: forget that it refused some."""
        room = self._rooms.get(key)
        if room is not None and room.refusal is not None:
            room.refusal = None
            room.wake(self._config())

    def _hand_on(self, room: Room, upstream: Upstream, config: PoolConfig) -> None:
        if room.waiters:
            waiter = room.waiters.popleft()
            waiter.granted = upstream
            room.leased += 1
            waiter.event.set()
            return
        room.idle.append(upstream)
        if len(room.idle) > config.idle_per_backend:
            self._bury([room.idle.popleft()])

    def _bury(self, dead: Iterable[Upstream]) -> None:
        self._dead += dead
        self._died.set()

    def _drop_unused(self, key: str, room: Room) -> None:
        if room.unused:
            self._rooms.pop(key, None)

    async def reap(self) -> None:
        """Close connections that expired, that backends closed, or that were given up; runs until cancelled."""
        while True:
            with trio.move_on_after(REAP_SECONDS):
                # At once, because a backend that serves one connection at a time waits for this one to end.
                while True:
                    await self._died.wait()
                    await self._close_dead()
            self._look_around(trio.current_time())
            await self._close_dead()

    def _look_around(self, now: float) -> None:
        for key, room in list(self._rooms.items()):
            usable = [one for one in room.idle if one.usable(now)]
            if len(usable) < len(room.idle):
                self._dead += [one for one in room.idle if one not in usable]
                room.idle = deque(usable)
                room.wake(self._config())
            room.forget_refusal(now)
            self._drop_unused(key, room)

    async def _close_dead(self) -> None:
        self._died = trio.Event()
        while self._dead:
            await self._dead.pop().close()

    async def aclose(self) -> None:
        """Close every connection that is not leased, and from now on those that are as they come back."""
        self._closed = True
        for room in self._rooms.values():
            self._dead += room.idle
            room.idle.clear()
        await self._close_dead()

    def statistics(self) -> Counter[str]:
        """Connections now, by state: "idle", "active", "dialing"; and requests "waiting"."""
        rooms = self._rooms.values()
        return Counter(
            idle=sum(len(room.idle) for room in rooms),
            active=sum(room.leased for room in rooms),
            dialing=sum(room.dialing for room in rooms),
            waiting=sum(len(room.waiters) for room in rooms),
        )
