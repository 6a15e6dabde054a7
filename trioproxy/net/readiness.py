"""Being told by the kernel that sockets can go on: one registration per socket instead of one per wait.

trio's own waits arm a descriptor for one event, with a system call each. Where a request is four short calls, that is a
tenth of all it costs. Here a socket is registered once, edge-triggered, with an epoll of ours, and trio waits for that.
"""

from __future__ import annotations

import select
import socket
from contextlib import suppress

import trio

MAX_EVENTS = 512
"""Taken from the kernel at a time; what is left is there at the next look."""

_END = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_SHORT = _END | select.EPOLLPRI
"""After these a read that returns little has perhaps not emptied the socket: one stops at urgent data (tcp(7))."""
_READ = select.EPOLLIN | _SHORT
_WRITE = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
_EDGES = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLET


class Readiness:
    """What the kernel has told of a socket, and the tasks that wait to be told more: one to read, one to write.

    It tells of a change once. So who reads clears `readable` first, and waits only when it found nothing: then nothing
    that comes in between is missed, and the worst is a read that finds nothing. The same goes for `writable`.
    """

    __slots__ = ("_descriptor", "_reader", "_sock", "_writer", "readable", "unsure", "writable")

    def __init__(self, sock: socket.socket) -> None:
        self.readable = False  # a read would find something, or the end
        self.writable = False
        self.unsure = False  # perhaps nothing more will be told of reading: go on until it finds nothing
        self._sock = sock
        self._descriptor = -1  # not registered: that comes with the first wait
        self._reader: trio.lowlevel.Task | None = None
        self._writer: trio.lowlevel.Task | None = None

    @property
    def quiet(self) -> bool | None:
        """Whether a read would find nothing, as of when the kernel was last heard; None = it was never asked."""
        return None if self._descriptor < 0 else not self.readable

    async def wait_readable(self) -> None:
        """Wait until a read may find something. Always a checkpoint that lets others run.

        Raises BusyResourceError; OSError when the kernel can watch no more sockets; ValueError when this one is closed.
        """
        if self._reader is not None:
            raise trio.BusyResourceError("another task is reading from this socket")
        if self._descriptor < 0:
            self._register()
        if self.readable:
            await trio.lowlevel.checkpoint()
            return
        self._reader = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._stop_reading)

    async def wait_writable(self) -> None:
        """As `wait_readable`, for writing."""
        if self._writer is not None:
            raise trio.BusyResourceError("another task is writing to this socket")
        if self._descriptor < 0:
            self._register()
        if self.writable:
            await trio.lowlevel.checkpoint()
            return
        self._writer = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._stop_writing)

    def close(self) -> None:
        """The descriptor is about to be closed: who waits goes on, and will meet that."""
        if self._descriptor >= 0:
            _watcher().forget(self._descriptor)
            self._descriptor = -1
        self.told(_READ | _WRITE)

    def told(self, events: int) -> None:
        """Take in what the kernel says, and let go on who has waited for it."""
        if events & _READ:
            self.readable = True
            self.unsure = self.unsure or bool(events & _SHORT)
            if (reader := self._reader) is not None:
                self._reader = None
                trio.lowlevel.reschedule(reader)
        if events & _WRITE:
            self.writable = True
            if (writer := self._writer) is not None:
                self._writer = None
                trio.lowlevel.reschedule(writer)

    def _register(self) -> None:
        descriptor = self._sock.fileno()
        _watcher().watch(descriptor, self)
        self._descriptor = descriptor

    def _stop_reading(self, _: object) -> trio.lowlevel.Abort:
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _stop_writing(self, _: object) -> trio.lowlevel.Abort:
        self._writer = None
        return trio.lowlevel.Abort.SUCCEEDED


class _Watcher(trio.abc.Instrument):
    """The epoll of one `trio.run`, and who is told what it says.

    As an instrument it looks right after trio has, so that who is told runs in the same turn of the loop. What its task
    is there for is that trio does not sleep meanwhile; it would look too, one turn later, if the instrument had failed.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, Readiness] = {}
        self._looked = False  # since the task went to sleep

    def watch(self, descriptor: int, readiness: Readiness) -> None:
        self._epoll.register(descriptor, _EDGES)
        self._watched[descriptor] = readiness

    def forget(self, descriptor: int) -> None:
        # The kernel drops a registration by itself when the socket is closed.
        del self._watched[descriptor]

    async def run(self) -> None:
        trio.lowlevel.add_instrument(self)
        try:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                if not self._looked:
                    self._look()
                self._looked = False
        finally:
            with suppress(KeyError):  # trio has removed it after an exception
                trio.lowlevel.remove_instrument(self)
            self._epoll.close()

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - trio's signature
        """Trio has looked what there is to do."""
        self._looked = True
        self._look()

    def _look(self) -> None:
        for descriptor, events in self._epoll.poll(0, MAX_EVENTS):
            # A process that was just started may hold a copy of a socket closed here, for an instant.
            readiness = self._watched.get(descriptor)
            if readiness is not None:
                readiness.told(events)


_current: trio.lowlevel.RunVar[_Watcher | None] = trio.lowlevel.RunVar("socket watcher", None)


def start_watching() -> None:
    """Be ready to watch sockets in this run. Else the first wait sees to it, when there may be no file left for it."""
    _watcher()


def _watcher() -> _Watcher:
    """The one of this run: like trio's own waiting for sockets it belongs to the run, and to no nursery of it."""
    watcher = _current.get()
    if watcher is None:
        watcher = _Watcher()
        _current.set(watcher)
        trio.lowlevel.spawn_system_task(watcher.run, name="socket watcher")
    return watcher
