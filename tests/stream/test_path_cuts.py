"""Whatever is cut, and whenever: every connection is given back or closed, every counter is even, every request logged.

Each scenario is played once to count the steps of the client connection's tasks, and then once for each step.
"""

from __future__ import annotations

import pytest
import trio
from path_cuts import CUTS, Cut, Scenario, Stage, cancel, nothing, play
from path_scene import CHUNKED, GET, OK, answer, chunks, get, post
from trio.testing import MockClock

from trioproxy.testing import Wire


async def both(stage: Stage, client: trio.abc.AsyncResource, *tasks: object) -> None:
    raise NotImplementedError


async def simple_get(stage: Stage) -> None:
    await stage.client.send(GET)
    await answer(await stage.backend.accept())
    assert (await stage.client.read_response()).body == b"ok"
