"""The running providers, and their exchange at a reload."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import trio

from trioproxy.config.schema import FileProviderConfig
from trioproxy.process.services import keep_running, start_loudly
from trioproxy.providers.file import FileProvider
from trioproxy.providers.provider import Sink
from trioproxy.providers.static import StaticProvider
from trioproxy.routing.route import Route

PRIORITY = ("store", "file", "static")
"""Whose route counts when several providers know one: what was said over the API, then the file, then the config."""


class Sources:
    """Providers that deliver to one sink: the static routes, and the file if there is one."""

    def __init__(self, sink: Sink, routes: Iterable[Route], file: FileProviderConfig | None) -> None:
        self._sink = sink
        self._static = StaticProvider(routes)
        self._file_config: FileProviderConfig | None = file
        self._file = _file_provider(file)
        self._file_scope = trio.CancelScope()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the providers until cancelled. Started when each has delivered, or failed, for the first time."""
        async with trio.open_nursery() as nursery:
            await start_loudly(nursery, "provider static", partial(keep_running, "static", self._run_static))
            await start_loudly(nursery, "provider file", self._run_file)
            task_status.started()

    async def _run_static(self, *, task_status: trio.TaskStatus[None]) -> None:
        await self._static.run(self._sink, task_status=task_status)

    async def _run_file(self, *, task_status: trio.TaskStatus[None]) -> None:
        while True:
            with trio.CancelScope() as self._file_scope:
                if self._file is not None:
                    await keep_running("file", partial(self._file.run, self._sink), task_status=task_status)
                else:
                    task_status.started()
                    await trio.sleep_forever()
            task_status = trio.TASK_STATUS_IGNORED

    async def update(self, routes: Iterable[Route], file: FileProviderConfig | None) -> None:
        """Deliver these static routes, and read the file (again). Raises ProviderError when it cannot be used."""
        if file != self._file_config:
            self._file_config = file
            self._file = _file_provider(file)
            if file is None:
                await self._sink.replace("file", ())
            self._file_scope.cancel()
        elif self._file is not None:
            await self._file.refresh()
        await self._static.set(routes)


def _file_provider(config: FileProviderConfig | None) -> FileProvider | None:
    return FileProvider(config.path, config.interval) if config else None
