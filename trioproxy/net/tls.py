"""TLS on a stream: contexts for both sides, and a stream that ends the way the RFCs ask for."""

from __future__ import annotations

import os
import ssl
from contextlib import suppress
from contextvars import ContextVar

import trio

from trioproxy.net.prefixed import PrefixedStream

ALPN = ["http/1.1"]
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only. TLS 1.3 has nothing else."""
CLOSE_NOTIFY_SECONDS = 1.0
"""How long a closing stream tries to write its close_notify: a peer that reads takes it at once."""

_server_name: ContextVar[str | None] = ContextVar("server_name", default=None)


class TlsStream(PrefixedStream):
    """A TLS connection. Closing says close_notify, so that the peer can tell a whole body from a cut one.

    `trusts_bare_eof` is for clients, who are known to leave without close_notify: their end of connection
    is b"" all the same. From a backend it is BrokenResourceError, because a body that ends with the
    connection is complete only with close_notify (RFC 9112 §9.8).
    """

    def __init__(self, stream: trio.SSLStream[trio.abc.Stream], *, trusts_bare_eof: bool) -> None:
        super().__init__(stream)
        self._trusts_bare_eof = trusts_bare_eof

    async def _receive(self, max_bytes: int | None) -> bytes:
        try:
            return await super()._receive(max_bytes)
        except trio.BrokenResourceError as exc:
            if not (self._trusts_bare_eof and is_bare_eof(exc)):
                raise
        await trio.lowlevel.checkpoint()
        return b""

    async def aclose(self) -> None:
        """Say close_notify and close; after `CLOSE_NOTIFY_SECONDS`, or when cancelled, only close. Never fails."""
        # However SSLStream.aclose ends, it has closed what is under it. OpenSSL reports spurious errors here.
        with trio.move_on_after(CLOSE_NOTIFY_SECONDS), suppress(OSError):
            await super().aclose()


def is_bare_eof(exc: trio.BrokenResourceError) -> bool:
    """Whether a TLS stream broke because the connection ended without close_notify."""
    cause = exc.__cause__
    # Some OpenSSL versions report it as a plain SSLError with this reason.
    return isinstance(cause, ssl.SSLEOFError) or (
        isinstance(cause, ssl.SSLError) and cause.reason == "UNEXPECTED_EOF_WHILE_READING"
    )


def why_broken(exc: trio.BrokenResourceError) -> str:
    """Why a TLS stream broke, in a few words without addresses or paths of ours."""
    cause = exc.__cause__
    if is_bare_eof(exc):
        return "the connection ended without a TLS close"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {cause.verify_message.rstrip('.')}"
    if isinstance(cause, ssl.SSLError):
        return (cause.reason or "protocol error").replace("_", " ").lower()
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno).lower()
    return "the connection broke"


def server_context(min_version: str) -> ssl.SSLContext:
    """A context towards users. `min_version` is "1.2" or "1.3"."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = tls_version(min_version)
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(ALPN)
    return context


def client_context(*, verify: bool, ca_file: str | None) -> ssl.SSLContext:
    """A context towards backends: system CAs, or those in `ca_file`, or nothing verified.

    Reads files. Raises OSError (ssl.SSLError among it) when `ca_file` cannot be used.
    """
    context = ssl.create_default_context(cafile=ca_file)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(ALPN)
    return context


def tls_version(name: str) -> ssl.TLSVersion:
    """The version the configuration calls "1.2" or "1.3"."""
    return ssl.TLSVersion.TLSv1_3 if name == "1.3" else ssl.TLSVersion.TLSv1_2


def note_server_name(name: str | None) -> None:
    """For SNI callbacks: remember what the client asked for, for `accept_tls` in the same task."""
    _server_name.set(name)


async def accept_tls(stream: trio.abc.Stream, context: ssl.SSLContext) -> tuple[TlsStream, str | None]:
    """Do the server's side of a handshake; return the stream and the server name the client sent.

    The name is known when the context's SNI callback calls `note_server_name`. Raises
    BrokenResourceError when the handshake fails; closing `stream` is then the caller's.
    """
    # Not https_compatible: that mode never sends close_notify. TlsStream forgives clients itself.
    encrypted = trio.SSLStream[trio.abc.Stream](stream, context, server_side=True)
    note_server_name(None)
    # The handshake calls the SNI callback from within this task, so a context variable carries its finding.
    await encrypted.do_handshake()
    return TlsStream(encrypted, trusts_bare_eof=True), _server_name.get()


async def connect_tls(stream: trio.abc.Stream, context: ssl.SSLContext, server_name: str | None) -> TlsStream:
    """Do the client's side of a handshake, with `server_name` as SNI and as the name to verify.

    Raises BrokenResourceError when it fails and ValueError for a name that cannot be one; closing `stream`
    is then the caller's.
    """
    encrypted = trio.SSLStream[trio.abc.Stream](stream, context, server_hostname=server_name)
    await encrypted.do_handshake()
    return TlsStream(encrypted, trusts_bare_eof=False)
