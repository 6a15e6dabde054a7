"""All listening sockets of a worker, bound before anything says that it is ready."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass

from trioproxy.config.schema import Config, ListenerConfig
from trioproxy.errors import StartError
from trioproxy.net.bind import BindError, bind_listener, url_of


@dataclass(frozen=True, slots=True)
class Sockets:
    """Bound and listening. Whoever serves one of them may close it."""

    listeners: tuple[tuple[ListenerConfig, socket.socket], ...]
    management: socket.socket

    def close(self) -> None:
        """Close those that nobody took over, and see that the others are closed."""
        self.management.close()
        self.close_listeners()

    def close_listeners(self) -> None:
        """Close the listeners: their addresses are free once no forwarder has them any more."""
        for _, sock in self.listeners:
            sock.close()

    def urls(self) -> list[str]:
        """Where each listener is reached."""
        return [url_of(config, sock) for config, sock in self.listeners]

    def management_url(self) -> str:
        """Where the management API is reached."""
        return url_of(_PLAIN, self.management)


_PLAIN = ListenerConfig(name="management", tls="off")


def bind_all(config: Config) -> Sockets:
    """Bind every listener and the management API. Blocks while names are looked up.

    Raises:
        StartError: one of them cannot be had; none is kept then.
    """
    with ExitStack() as stack:
        listeners = tuple(
            (item, stack.enter_context(_bind(f"listener {item.name!r}", item.bind))) for item in config.listeners
        )
        management = stack.enter_context(_bind("the management API", config.management.bind))
        stack.pop_all()
    return Sockets(listeners, management)


def _bind(owner: str, bind: str) -> socket.socket:
    try:
        return bind_listener(bind)
    except BindError as error:
        raise StartError(f"{owner} {error}") from None
