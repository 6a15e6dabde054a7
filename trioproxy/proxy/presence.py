"""Whether the client is still there, while something else than its answer is waited for."""

from __future__ import annotations

import trio

from trioproxy.errors import ClientGone, ProxyError
from trioproxy.proxy.client import Client
from trioproxy.proxy.pool import CLOSE_SECONDS, Pool
from trioproxy.proxy.upstream import Upstream
from trioproxy.routing.route import Backend

GRACE = 0.1
"""Seconds in which a client is not looked after: nearly all waits are over by then, and one that has half-closed may
still get an answer."""

_GONE = "the client left before its answer was complete"


async def pause(client: Client, seconds: float) -> None:
    """Wait so long. Raises ClientGone as soon as the client has left."""
    await trio.sleep(min(seconds, GRACE))
    if seconds > GRACE:
        with trio.move_on_after(seconds - GRACE):
            await client.wait_gone()
            raise ClientGone(_GONE)


async def acquire(
    client: Client, pool: Pool, backend: Backend, *, connect_seconds: float, fresh: bool = False
) -> Upstream:
    """`Pool.acquire`, as long as the client is there. Raises what that raises, and ClientGone."""
    upstream: Upstream | None = None
    failure: ProxyError | None = None
    handed_over = False
    try:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await trio.sleep(GRACE)
                await client.wait_gone()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            try:
                upstream = await pool.acquire(backend, connect_seconds=connect_seconds, fresh=fresh)
            except ProxyError as error:
                failure = error
            nursery.cancel_scope.cancel()
        handed_over = True
    finally:
        # Cancelled from outside in the instant in which it came: nobody else knows of it.
        if upstream is not None and not handed_over and not pool.keep(upstream):
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                await pool.discard(upstream)
    if failure is not None:
        raise failure
    if upstream is None:
        raise ClientGone(_GONE)
    return upstream
