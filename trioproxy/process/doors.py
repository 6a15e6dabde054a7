"""The listeners of one forwarder: which of them are open, and how that changes while connections go on."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Protocol

import trio

from trioproxy.config.schema import ListenerConfig


class Door(Protocol):
    """A listener, as `net.listener.Listener` is one."""

    async def serve(self, handler_nursery: trio.Nursery) -> None:
        """Accept until cancelled or retired, then close the socket."""
        ...

    def configure(self, config: ListenerConfig) -> None:
        """Treat connections that come from now on so."""
        ...

    def retire(self) -> None:
        """Stop accepting."""
        ...

    def close(self) -> None:
        """Close a socket that was never served."""
        ...


class Doors:
    """Owner of the listening sockets of a forwarder, by the handles that the supervisor calls them by."""

    def __init__(self, make: Callable[[ListenerConfig, socket.socket], Door]) -> None:
        self._make = make
        self._open: dict[int, Door] = {}
        self._fresh: list[Door] = []
        self._news = trio.Event()

    def __contains__(self, handle: int) -> bool:
        return handle in self._open

    def set(self, wanted: Mapping[int, ListenerConfig], fresh: Mapping[int, socket.socket]) -> None:
        """Have these open and no others. `fresh` are the sockets of those that are not open yet, from now on ours.

        A door without a socket stays away.
        """
        for handle in [handle for handle in self._open if handle not in wanted]:
            self._open.pop(handle).retire()
        for handle, config in wanted.items():
            door = self._open.get(handle)
            if door is not None:
                door.configure(config)
            elif handle in fresh:
                self._open[handle] = door = self._make(config, fresh[handle])
                self._fresh.append(door)
        self._news.set()

    async def serve(
        self, handler_nursery: trio.Nursery, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Accept at all open doors until cancelled; connections become tasks of `handler_nursery`.

        Raises OSError when accepting fails for good.
        """
        task_status.started()
        try:
            async with trio.open_nursery() as accepting:
                while True:
                    while self._fresh:
                        accepting.start_soon(self._fresh.pop(0).serve, handler_nursery)
                    self._news = trio.Event()
                    await self._news.wait()
        finally:
            while self._fresh:
                self._fresh.pop().close()
