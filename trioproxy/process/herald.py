"""Carries what is known of backends to every forwarder, and what a forwarder has found out to the supervisor."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from trioproxy.control.messages import Answer, Command, GetNews, News, Refused
from trioproxy.errors import ControlError
from trioproxy.process.bulletin import Bulletin, Pending

TOGETHER = 0.05
"""Seconds after telling something in which more is gathered."""
NEWS_SECONDS = 0.25
"""Between two questions for news."""

_LOG = logging.getLogger("trioproxy.process.herald")


class Forwarder(Protocol):
    """A place for a forwarder, see process.slot."""

    index: int

    @property
    def live(self) -> bool:
        """Whether it takes commands, and was told all that stands."""
        ...

    async def ask(self, command: Command) -> Answer:
        """Raises ControlError when there is none."""
        ...


class Herald:
    """Serves each forwarder by itself, so that one that hangs holds up no other. `heard` takes what one tells."""

    def __init__(self, forwarders: Sequence[Forwarder], bulletin: Bulletin, heard: Callable[[int, News], None]) -> None:
        self._forwarders = [(forwarder, bulletin.reader(forwarder.index)) for forwarder in forwarders]
        self._heard = heard

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        async with trio.open_nursery() as nursery:
            for forwarder, pending in self._forwarders:
                nursery.start_soon(self._tell, forwarder, pending)
                nursery.start_soon(self._listen, forwarder)
            task_status.started()

    async def _tell(self, forwarder: Forwarder, pending: Pending) -> None:
        while True:
            for command in await pending.commands():
                answer = await _ask(forwarder, command)
                if isinstance(answer, Refused):
                    _LOG.error("a forwarder refused what it was told of backends", extra={"forwarder": forwarder.index})
            await trio.sleep(TOGETHER)

    async def _listen(self, forwarder: Forwarder) -> None:
        while True:
            await trio.sleep(NEWS_SECONDS)
            if not forwarder.live:
                continue
            answer = await _ask(forwarder, GetNews())
            if isinstance(answer, News) and (answer.changes or answer.lost):
                self._heard(forwarder.index, answer)


async def _ask(forwarder: Forwarder, command: Command) -> Answer | None:
    """The answer; None where there is no forwarder now: the next one is told all that stands."""
    try:
        return await forwarder.ask(command)
    except ControlError as error:
        _LOG.debug("a forwarder is not there", extra={"forwarder": forwarder.index, "error": str(error)})
        return None
