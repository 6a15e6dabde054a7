"""A pool on a memory network, and requests that ask it for connections."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from trioproxy.config.schema import PoolConfig
from trioproxy.errors import Overloaded, ProxyError
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
        self.tried = 0  # dials, refused ones included
        self.slow = 0.0  # seconds that a dial takes
        self.exhausted = False  # no file is left to dial with
        self.draw = 0.5  # what chance comes to
        self.pool = Pool(self._dial, lambda: self.config, rng=lambda: self.draw)

    async def _dial(self, backend: Backend) -> trio.abc.HalfCloseableStream:
        self.tried += 1
        await trio.sleep(self.slow)
        if self.exhausted:
            raise Overloaded("no files")
        return await self.network.dial(backend)

    async def acquire(self, backend: MemoryBackend | None = None, *, fresh: bool = False) -> Upstream:
        target = (backend or self.backend).as_backend()
        return await self.pool.acquire(target, connect_seconds=3, fresh=fresh)

    def counts(self) -> dict[str, int]:
        return {state: count for state, count in self.pool.statistics().items() if count}

    def remembers(self, key: str) -> bool:
        """Whether the pool keeps anything of this address."""
        return key in self.pool._rooms  # pyright: ignore[reportPrivateUsage]

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


class Queue:
    """Requests that ask one after the other, and the order in which they are served."""

    def __init__(self, scene: Scene, nursery: trio.Nursery, *, also: type[ProxyError] = Overloaded) -> None:
        self.served: list[int] = []
        self.refused: list[int] = []
        self.upstreams: dict[int, Upstream] = {}
        self.scopes: dict[int, trio.CancelScope] = {}
        self._scene = scene
        self._nursery = nursery
        self._also = also

    async def ask(self, number: int) -> None:
        async def wait() -> None:
            with trio.CancelScope() as scope:
                self.scopes[number] = scope
                try:
                    self.upstreams[number] = await self._scene.acquire()
                except (Overloaded, self._also):
                    self.refused.append(number)
                else:
                    self.served.append(number)

        self._nursery.start_soon(wait)
        await wait_all_tasks_blocked()
