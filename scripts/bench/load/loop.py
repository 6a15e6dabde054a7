"""An epoll loop with nothing in it: what a load generator in Python can afford."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

Handler = Callable[[], None]


class Loop:
    """Calls handlers when their descriptors are readable."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}

    def add(self, descriptor: int, handler: Handler) -> None:
        """Call `handler` whenever there is something to read."""
        self._handlers[descriptor] = handler
        self._epoll.register(descriptor, select.EPOLLIN)

    def remove(self, descriptor: int) -> None:
        """No more; before the descriptor is closed."""
        self._epoll.unregister(descriptor)
        del self._handlers[descriptor]

    def run_for(self, seconds: float) -> float:
        """Handle what comes for so long; how long it was."""
        began = time.perf_counter()
        end = began + seconds
        while (now := time.perf_counter()) < end:
            self._handle(end - now)
        return now - began

    def run_until(self, reached: Callable[[], bool], *, seconds: float) -> bool:
        """Handle what comes until the condition holds; False when it does not within `seconds`."""
        end = time.perf_counter() + seconds
        while not reached():
            left = end - time.perf_counter()
            if left <= 0:
                return False
            self._handle(left)
        return True

    def _handle(self, seconds: float) -> None:
        handlers = self._handlers
        for descriptor, _ in self._epoll.poll(seconds):
            handler = handlers.get(descriptor)
            if handler is not None:  # else removed by an earlier one of this batch
                handler()
