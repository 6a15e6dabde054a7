"""The routes of a table in the order of their names, which a table does not keep."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from itertools import islice

import trio

from trioproxy.routing.route import Route, RouteKey
from trioproxy.routing.table import Table

RUN = 4096
"""Keys that are sorted between two checkpoints: a few milliseconds."""


async def in_order(table: Table) -> Iterator[Route]:
    """The routes by (session_id, service). What is left to sort is done route by route, as they are taken."""
    runs: list[list[RouteKey]] = []
    keys = iter(table.routes)
    while run := sorted(islice(keys, RUN)):
        runs.append(run)
        await trio.lowlevel.checkpoint()
    return map(table.routes.__getitem__, merge(*runs))
