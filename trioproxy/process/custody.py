"""What only one generation of the program may have: the management API, and the routes that are set over it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio

from trioproxy.errors import ProviderError
from trioproxy.process.intake import Intake
from trioproxy.process.services import Once
from trioproxy.process.writes import PROVIDER
from trioproxy.providers.store import RouteStore


class Management(Protocol):
    """Serves the management API until `shutdown_trigger` returns, and then ends soon."""

    async def __call__(
        self, *, shutdown_trigger: Callable[[], Awaitable[None]], task_status: trio.TaskStatus[Any]
    ) -> None:
        """Started when it answers."""
        ...


class Custody:
    """Runs the management API, and can let go of it and of the store, and take both back.

    The listening socket stays open all the time: who calls meanwhile waits in the kernel, for whoever serves next.
    """

    def __init__(self, serve: Management, store: RouteStore, intake: Intake) -> None:
        self._serve = serve
        self._store = store
        self._intake = intake
        self._let_go = trio.Event()
        self._gone = trio.Event()
        self._back = trio.Event()

    async def run(self, *, shutdown_trigger: Callable[[], Awaitable[None]], task_status: trio.TaskStatus[Any]) -> None:
        """See Management."""
        status = Once(task_status)
        over = False

        async def stop(scope: trio.CancelScope) -> None:
            nonlocal over
            await shutdown_trigger()
            over = True
            scope.cancel()

        async def until_told() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stop, nursery.cancel_scope)
                await self._let_go.wait()
                nursery.cancel_scope.cancel()

        async def until_back() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stop, nursery.cancel_scope)
                await self._back.wait()
                nursery.cancel_scope.cancel()

        while not over:
            await self._serve(shutdown_trigger=until_told, task_status=status)
            if not over and self._let_go.is_set():  # it may be wanted back already
                self._gone.set()
                await until_back()

    async def let_go(self) -> None:
        """End the management API with every call that runs, then write no more."""
        self._let_go.set()
        await self._gone.wait()
        self._store.suspend()

    async def take_back(self) -> str | None:
        """Own the routes again, with what was written meanwhile, and answer again. What is wrong, if something is."""
        problem = None
        try:
            await self._store.resume()
            await self._intake.replace(PROVIDER, await self._store.load())
        except ProviderError as error:
            problem = str(error)
        self._let_go, self._gone = trio.Event(), trio.Event()
        self._back.set()
        self._back = trio.Event()
        return problem
