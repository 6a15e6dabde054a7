"""Very many objects, made and let go of without anybody waiting for it: what Python does about them holds the GIL."""

from __future__ import annotations

import gc
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import trio

AT_ONCE = 500
"""Objects that are let go of in one go: with all that they refer to, a millisecond."""

_NEVER = 1_000_000_000
_lock = threading.Lock()
_users = 0
_thresholds = (0, 0, 0)


@contextmanager
def many_objects() -> Generator[None]:
    """For a block, in any thread, that makes very many objects, which will live long and have no cycles.

    A full look at them would stop every thread for some 200 ms per 100 000 routes, several times while they are made
    and again afterwards. So there is none during the block (the young generations are looked at as ever), and what
    is there at its end is never looked at again. Objects that nobody refers to are freed all the same.
    """
    global _users, _thresholds  # noqa: PLW0603 - the collector is global too
    with _lock:
        if not _users:
            gc.collect()  # or the garbage of until now would be kept for ever
            _thresholds = gc.get_threshold()
            gc.set_threshold(_thresholds[0], _thresholds[1], _NEVER)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            gc.freeze()
            if not _users:
                gc.set_threshold(*_thresholds)


def let_go(items: list[Any]) -> None:
    """Empty a long list in a thread. Freed with the list, its items would hold up every other thread."""
    while items:
        del items[-AT_ONCE:]


async def let_go_slowly(items: list[Any]) -> None:
    """Empty a long list on the event loop, a little at a time."""
    while items:
        del items[-AT_ONCE:]
        await trio.lowlevel.checkpoint()
