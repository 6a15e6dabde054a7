"""What a new connection goes through before it is served: PROXY header, then TLS, under one deadline."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

import trio

from trioproxy.config.schema import ListenerConfig, TimeoutsConfig
from trioproxy.net.certificates import CertificateStore
from trioproxy.net.clock import deadline_after
from trioproxy.net.peer import UNIX, Address, Peer, plain_host, socket_addresses
from trioproxy.net.prefixed import PrefixedStream
from trioproxy.net.proxy_protocol import HEADER_MAX_BYTES, Header, MalformedHeader, parse
from trioproxy.net.stream import set_keepalive
from trioproxy.net.tls import TlsStream, accept_tls, why_broken
from trioproxy.observe.metrics import Metrics

log = logging.getLogger(__name__)


class Entrance:
    """Turns an accepted connection into a stream of the protocol above, and says who the client is.

    `timeouts` and `trusted` (networks whose PROXY headers are believed; none = everyone, for the operator
    asked for headers on this listener) are asked per connection. Raises ValueError when the config wants
    TLS and there are no certificates.
    """

    def __init__(
        self,
        config: ListenerConfig,
        *,
        certificates: CertificateStore | None,
        metrics: Metrics,
        timeouts: Callable[[], TimeoutsConfig],
        trusted: Callable[[], Sequence[IPv4Network | IPv6Network]],
    ) -> None:
        if config.tls != "off" and certificates is None:
            raise ValueError(f"listener {config.name} wants TLS and was given no certificates")
        self._config = config
        self._certificates = certificates if config.tls != "off" else None
        self._metrics = metrics
        self._timeouts = timeouts
        self._trusted = trusted

    async def admit(self, stream: PrefixedStream) -> tuple[PrefixedStream, Peer] | None:
        """Return what to serve and to whom; None, counted, when the connection is not to be served.

        Takes `timeouts.tls_handshake` at most. Closing `stream` remains the caller's in every case but the
        first, where closing the returned stream closes it too.
        """
        deadline = deadline_after(self._timeouts().tls_handshake)
        try:
            set_keepalive(stream)
            remote, local = socket_addresses(stream)
        except OSError:  # it left before we looked
            await trio.lowlevel.checkpoint()
            return None
        if self._config.proxy_protocol:
            header = await self._read_header(stream, remote, deadline)
            if header is None:
                return None
            remote = _plain(header.source) or remote
            local = _plain(header.destination) or local
        server_name = None
        if self._certificates is not None:
            encrypted = await self._handshake(stream, self._certificates, deadline)
            if encrypted is None:
                return None
            stream, server_name = encrypted
        await trio.lowlevel.checkpoint()
        return stream, Peer(*remote, *local, self._config.name, self._certificates is not None, server_name)

    async def _read_header(self, stream: PrefixedStream, remote: Address, deadline: float) -> Header | None:
        if not self._believes(remote):
            return self._refuse_header(f"{remote[0]} is not among access.trusted_proxies")
        received = b""
        try:
            with trio.fail_at(deadline):
                while not isinstance(parsed := parse(received), Header):
                    data = await stream.receive_some(HEADER_MAX_BYTES)
                    if not data:
                        # Load balancers check our health by connecting and leaving: nothing to count.
                        return self._refuse_header("it ended early") if received else None
                    received += data
        except MalformedHeader as exc:
            return self._refuse_header(str(exc))
        except trio.TooSlowError:
            return self._refuse_header("it did not come within timeouts.tls_handshake")
        except trio.BrokenResourceError:
            return None
        stream.unread(received[parsed.size :])
        return parsed

    def _believes(self, remote: Address) -> bool:
        networks = self._trusted()
        return not networks or remote == UNIX or any(ip_address(remote[0]) in network for network in networks)

    def _refuse_header(self, reason: str) -> None:
        self._metrics.errors["bad_proxy_header"] += 1
        log.debug("listener %s: no PROXY header to go by: %s", self._config.name, reason)

    async def _handshake(
        self, stream: PrefixedStream, certificates: CertificateStore, deadline: float
    ) -> tuple[TlsStream, str | None] | None:
        # Without pushed-back bytes TLS goes straight on what carries it: one layer less for every read.
        carrier = stream if stream.pending else stream.inner
        try:
            with trio.fail_at(deadline):
                encrypted = await accept_tls(carrier, certificates.context)
        except trio.TooSlowError:
            return self._refuse_tls("timeout", "too slow")
        except trio.BrokenResourceError as exc:
            return self._refuse_tls("failed", why_broken(exc))
        self._metrics.tls_handshakes["ok"] += 1
        return encrypted

    def _refuse_tls(self, result: str, reason: str) -> None:
        self._metrics.tls_handshakes[result] += 1
        log.debug("listener %s: TLS handshake: %s", self._config.name, reason)


def _plain(address: Address | None) -> Address | None:
    return address and (plain_host(address[0]), address[1])
