"""One check of one backend: can it be connected to, and does it answer as it should?"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from trioproxy.errors import ConnectFailed, ProxyError
from trioproxy.health.http_check import HttpCheck
from trioproxy.net.dialer import Dialer, dial
from trioproxy.routing.route import Backend, BackendTls, Health
from trioproxy.units import format_duration


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has come to. `error` says for people what is wrong; None = nothing is.

    `decided` is False when it could not be found out for a reason of our own.
    """

    error: str | None = None
    decided: bool = True


async def probe(backend: Backend, spec: Health, *, dialer: Dialer = dial) -> Finding:
    """Check a backend in this way, within `spec.timeout`. Whatever goes wrong is in the finding; nothing is raised.

    Kind "tcp" connects, with a TLS handshake where traffic has one. Kinds "http" and "https" send a GET besides, and
    look at its answer; the latter over TLS in any case.
    """
    doing = "connected"
    with trio.move_on_after(spec.timeout):
        try:
            stream = await dialer(_dialled(backend, spec))
        except ConnectFailed as error:
            return Finding(error.detail)
        except ProxyError as error:  # this process has no files or memory left
            return Finding(error.detail, decided=False)
        try:
            if spec.kind == "tcp":
                return Finding()
            doing = "answered"
            return Finding(await HttpCheck(spec, backend.authority).run(stream))
        finally:
            await trio.aclose_forcefully(stream)
    return Finding(f"has not {doing} within {format_duration(spec.timeout)}")


def _dialled(backend: Backend, spec: Health) -> Backend:
    if spec.kind != "https" or backend.tls:
        return backend
    # Traffic goes there in clear, so no certificate is known that it would have to have; a check tells no secrets.
    return backend.model_copy(update={"tls": BackendTls(verify=False)})
