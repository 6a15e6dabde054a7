"""Accepting client connections: limits first, then one task per connection."""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from ipaddress import IPv4Network, IPv6Network

import trio

from trioproxy.config.schema import ListenerConfig, TimeoutsConfig
from trioproxy.net.certificates import CertificateStore
from trioproxy.net.entrance import Entrance
from trioproxy.net.exhausted import EXHAUSTED
from trioproxy.net.limiter import ConnectionLimiter
from trioproxy.net.loads import Courtesy, Loads
from trioproxy.net.peer import Peer
from trioproxy.net.plain import PlainStream
from trioproxy.net.prefixed import PrefixedStream
from trioproxy.net.stream import abort
from trioproxy.observe.metrics import Metrics

log = logging.getLogger(__name__)

Handler = Callable[[PrefixedStream, Peer], Awaitable[None]]
"""Serves one connection. It may close the stream; what it leaves open is closed after it."""

ACCEPT_PAUSE = 0.1
"""Seconds without accepting when files or memory ran out."""
GIVE_WAY = 0.001
"""Seconds that a less loaded forwarder has for accepting first."""
LAST_LOOK = 0.05
"""Seconds without a new connection after which nobody is taken to be waiting in the kernel any more."""
LAST_LOOKS = 0.5
"""Seconds after which the socket is closed even so: whoever comes now has come too late."""
COMPLAIN_EVERY = 1.0
"""Seconds between two log lines about not accepting."""


class Listener:
    """One address of `[[listeners]]`, whose options may change while it accepts.

    `sock` is a listening socket, which this owns from now on; tests may hand in a trio listener over
    memory streams. `loads` is where others tell their load who accept from the same socket. `timeouts` and
    `trusted` (see Entrance) are asked per connection, so that a reload takes effect. Raises ValueError when the
    config wants TLS and there are no certificates.
    """

    def __init__(
        self,
        config: ListenerConfig,
        sock: socket.socket | trio.abc.Listener[trio.abc.Stream],
        *,
        handler: Handler,
        certificates: CertificateStore | None,
        limiter: ConnectionLimiter,
        metrics: Metrics,
        timeouts: Callable[[], TimeoutsConfig],
        trusted: Callable[[], Sequence[IPv4Network | IPv6Network]],
        loads: Loads | None = None,
    ) -> None:
        self._enter = partial(Entrance, certificates=certificates, metrics=metrics, timeouts=timeouts, trusted=trusted)
        self.configure(config)
        if isinstance(sock, socket.socket):
            sock = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        self._listener: trio.abc.Listener[trio.abc.Stream] = sock
        self._courtesy = Courtesy(loads) if loads is not None else None
        self._handler = handler
        self._limiter = limiter
        self._metrics = metrics
        self._timeouts = timeouts
        self._complained_at = float("-inf")
        self._accepting = trio.CancelScope()

    def configure(self, config: ListenerConfig) -> None:
        """Treat connections that come from now on so; `bind` stays what it is. Raises ValueError as the class does."""
        self._name = config.name
        self._entrance = self._enter(config)

    def retire(self) -> None:
        """Stop accepting and close the socket, once those are served whom the kernel has let in already."""
        self._accepting.cancel()

    def close(self) -> None:
        """Close a socket that is not being served."""
        if isinstance(self._listener, trio.SocketListener):
            self._listener.socket.close()

    async def serve(
        self, handler_nursery: trio.Nursery, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Accept until cancelled or retired, then close the listening socket.

        Each connection becomes a task in `handler_nursery`, which outlives this call: cancelling `serve`
        stops new connections and leaves the others alone. Raises OSError when accepting fails for good.
        """
        task_status.started()  # the kernel has been queueing connections since the socket was bound
        try:
            with self._accepting:
                while True:
                    await self._admit_next(handler_nursery)
            # Who is in the kernel's queue takes itself for connected; closing the socket would reset it.
            waiting, until = True, trio.current_time() + LAST_LOOKS
            while waiting and trio.current_time() < until:
                with trio.move_on_after(LAST_LOOK) as look:
                    await self._admit_next(handler_nursery)
                waiting = not look.cancelled_caught
        except trio.ClosedResourceError:
            log.info("listener %s: its socket was closed", self._name)
        finally:
            await trio.aclose_forcefully(self._listener)

    async def _admit_next(self, handler_nursery: trio.Nursery) -> None:
        stream = await self._accept()
        handler_nursery.start_soon(self._connection, stream, self._entrance, name=f"connection on {self._name}")

    async def _accept(self) -> trio.abc.Stream:
        """The next connection, holding a place in the limiter."""
        while True:
            await self._wait_for_room()
            await self._give_way()
            try:
                stream = await self._listener.accept()
            except OSError as exc:
                # What befalls one connection only (ECONNABORTED, EPROTO, EPERM …) trio skips by itself.
                if exc.errno not in EXHAUSTED:
                    raise
                self._pausing(str(exc.strerror))
                await trio.sleep(ACCEPT_PAUSE)
                continue
            try:
                while not self._limiter.acquire():  # another listener took the place meanwhile
                    await self._wait_for_room()
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
            return PlainStream.adopt(stream) if isinstance(stream, trio.SocketStream) else stream

    async def _wait_for_room(self) -> None:
        if not self._limiter.has_room:
            self._pausing("limits.connections is reached")
        await self._limiter.wait_for_room()

    async def _give_way(self) -> None:
        """Leave what comes next to a forwarder with fewer connections, for as long as it would need to take it."""
        courtesy = self._courtesy
        if (
            courtesy is not None
            and courtesy.is_due(trio.current_time())
            and isinstance(self._listener, trio.SocketListener)
        ):
            await trio.lowlevel.wait_readable(self._listener.socket)
            await trio.sleep(GIVE_WAY)
            courtesy.done(trio.current_time())

    def _pausing(self, reason: str) -> None:
        self._metrics.accept_pauses += 1
        now = trio.current_time()
        if now - self._complained_at >= COMPLAIN_EVERY:
            self._complained_at = now
            log.warning("listener %s: not accepting connections: %s", self._name, reason)

    async def _connection(self, stream: trio.abc.Stream, entrance: Entrance) -> None:
        try:
            await self._serve_connection(stream, entrance)
        finally:
            self._limiter.release()

    async def _serve_connection(self, stream: trio.abc.Stream, entrance: Entrance) -> None:
        """One connection, from its first byte until its socket is closed. Raises nothing but Cancelled."""
        client = PrefixedStream(stream)
        bug = False
        try:
            admitted = await entrance.admit(client)
            if admitted is not None:
                client, peer = admitted
                await self._handle(client, peer)
        except* Exception:
            # A handler maps its own errors; what arrives here must cost this one connection only.
            bug = True
            log.exception("listener %s: a bug ended a connection", self._name)
        finally:
            # When the time is up, trio's rule for resources holds: a cancelled aclose closes forcefully.
            with trio.move_on_after(self._timeouts().close, shield=True):
                await (abort(client) if bug else client.aclose())

    async def _handle(self, client: PrefixedStream, peer: Peer) -> None:
        if not self._limiter.acquire_client(peer.host):
            self._metrics.errors["client_limit"] += 1
            log.debug("listener %s: %s has limits.connections_per_client already", self._name, peer.host)
            return
        self._metrics.connections[peer.listener] += 1
        try:
            await self._handler(client, peer)
        finally:
            self._metrics.connections[peer.listener] -= 1
            self._limiter.release_client(peer.host)
