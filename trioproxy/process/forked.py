"""Forking this program before it runs an event loop: a child that has every import and every route already."""

from __future__ import annotations

import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress

import trio

SHIELDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
"""Signals that reach the whole group of a terminal or service manager: what they mean the supervisor decides."""


class Forked:
    """A forked child of this process. `returncode` as in `subprocess`, None until it was waited for."""

    def __init__(self, pid: int) -> None:
        """Watch over a child. Raises OSError where the kernel knows no pidfd_open(2)."""
        self.pid = pid
        self.returncode: int | None = None
        self._descriptor = os.pidfd_open(pid)
        self._waiting = trio.Lock()

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):  # dead, and not waited for
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    async def wait(self) -> int:
        """Its exit code, once it has ended."""
        async with self._waiting:
            if self.returncode is None:
                await trio.lowlevel.wait_readable(self._descriptor)
                return self._reap()
        return self.returncode

    def end(self, seconds: float) -> None:
        """Kill it and wait so long for it to be gone, where no event loop runs (any more)."""
        self.kill()
        if self.returncode is None and select.select([self._descriptor], [], [], seconds)[0]:
            self._reap()

    def _reap(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        os.close(self._descriptor)
        self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def fork(work: Callable[[], int], keep: Collection[int]) -> Forked:
    """Fork a child that does this work, keeps these descriptors, and ends with the exit code that `work` returns.

    To be called while this process has one thread and no event loop. Raises OSError when no child can be made.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # pyright: ignore[reportUnnecessaryComparison] - so it is in a program started with >&-
            stream.flush()  # or both would write what is in it
    os.close(os.pidfd_open(os.getpid()))  # before there is a child to watch over
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SHIELDED)
    try:
        pid = os.fork()
        if pid == 0:
            _be_child(work, keep, before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return Forked(pid)


def _be_child(work: Callable[[], int], keep: Collection[int], mask: set[int | signal.Signals]) -> None:
    """Work, and end. Nothing of the parent's is undone on the way: neither its blocks nor what it does at its exit."""
    code = 1
    try:
        for number in SHIELDED:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _close_others(keep)
        code = work()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # pyright: ignore[reportUnnecessaryComparison] - see above
                stream.flush()
    except BaseException:  # noqa: BLE001, ASYNC103 - whatever it is, it must not unwind what is the parent's
        traceback.print_exc()
    finally:
        os._exit(code)


def _close_others(keep: Collection[int]) -> None:
    # The parent's Python objects for these stay as they are: nothing of its stack is ever unwound here.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    following = 3
    for descriptor in sorted(keep):
        os.closerange(following, descriptor)
        following = descriptor + 1
    os.closerange(following, os.sysconf("SC_OPEN_MAX"))
