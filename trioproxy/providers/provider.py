"""The seam between sources of routes and the supervisor that merges them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import trio

from trioproxy.routing.route import Route, RouteKey


class Sink(Protocol):
    """What a provider tells the supervisor; `provider` is the caller's name.

    A snapshot or delta waits for those of others before it, and is in the table when the call returns. A call that
    is cancelled has changed nothing.
    """

    async def replace(self, provider: str, routes: Iterable[Route]) -> None:
        """Take a full snapshot. Ends a failure told before."""
        ...

    async def change(self, provider: str, *, upsert: Iterable[Route] = (), remove: Iterable[RouteKey] = ()) -> None:
        """Take a delta: `remove` first, then `upsert`. Ends a failure told before."""
        ...

    def failed(self, provider: str, error: str) -> None:
        """Take note that the last read failed. What the provider delivered before stays in force."""
        ...


class Provider(Protocol):
    """A source of routes."""

    @property
    def name(self) -> str:
        """What the catalog's order of priority and metrics call this provider."""
        ...

    async def run(self, sink: Sink, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Deliver routes to `sink` until cancelled. Failures that are to be expected are told and retried inside.

        Calls `task_status.started()` when the first snapshot is in, or when the first attempt has failed and
        there is nothing better to do than to go on without it.
        """
        ...

    async def refresh(self) -> None:
        """Read again now. Raises ProviderError when that fails; what was delivered before stays in force."""
        ...
