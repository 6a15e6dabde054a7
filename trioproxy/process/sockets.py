"""All listening sockets of a worker, bound before anything says that it is ready."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from trioproxy.config.schema import Config, ListenerConfig
from trioproxy.errors import StartError
from trioproxy.net.bind import BindError, bind_listener, url_of

_PLAIN = ListenerConfig(name="management", tls="off")
_handles = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Bound:
    """A listener and its socket. By the handle, forwarders and the supervisor mean the same socket."""

    config: ListenerConfig
    sock: socket.socket
    handle: int

    @property
    def url(self) -> str:
        """Where it is reached."""
        return url_of(self.config, self.sock)


@dataclass(frozen=True, slots=True)
class Inherited:
    """The sockets of a worker that hands over to this one. Those that nobody claims are to be closed."""

    listeners: Sequence[tuple[ListenerConfig, socket.socket]]
    management: tuple[str, socket.socket]  # the address it is bound to, as the configuration had it


@dataclass(frozen=True, slots=True)
class Plan:
    """Sockets for another set of listeners: some that are there already, and `fresh` ones."""

    listeners: tuple[Bound, ...]
    fresh: tuple[Bound, ...]

    def discard(self) -> None:
        """Let go of what was bound for this plan."""
        for bound in self.fresh:
            bound.sock.close()
            if bound.config.bind.startswith("unix:"):
                with suppress(OSError):
                    Path(bound.config.bind.removeprefix("unix:")).unlink()


class Sockets:
    """Owner of the listening sockets, in the order of the configuration, and of the management API's."""

    def __init__(self, listeners: tuple[Bound, ...], management: socket.socket) -> None:
        self.listeners = listeners
        self.management = management
        self._planned: tuple[Bound, ...] = ()

    @property
    def handles(self) -> tuple[int, ...]:
        """The handles of the listeners."""
        return tuple(bound.handle for bound in self.listeners)

    def copy(self, handle: int) -> socket.socket | None:
        """A socket of one's own for a listener, or a planned one.

        None when it is gone, or when there are no file descriptors left.
        """
        with suppress(OSError):
            for bound in (*self.listeners, *self._planned):
                if bound.handle == handle:
                    return bound.sock.dup()
        return None

    def plan(self, wanted: Sequence[ListenerConfig]) -> Plan:
        """Get ready for other listeners; nothing changes yet: `adopt` the plan, or `drop` it. Blocks for names.

        Raises:
            StartError: one of them cannot be had; none is kept then.
        """
        plan = _plan(wanted, self.listeners, "cannot be taken over while running; only a restart does that")
        self._planned = plan.fresh
        return plan

    def adopt(self, plan: Plan) -> list[Bound]:
        """Have these listeners from now on; closes and returns those that go. Their handles are not used again."""
        kept = {bound.handle for bound in plan.listeners}
        gone = [bound for bound in self.listeners if bound.handle not in kept]
        self.listeners, self._planned = plan.listeners, ()
        for bound in gone:
            bound.sock.close()
        return gone

    def drop(self, plan: Plan) -> None:
        """Let go of what was bound for a plan."""
        self._planned = ()
        plan.discard()

    def close(self) -> None:
        """Close all of them here. Addresses are free once no other process has them any more."""
        self.management.close()
        self.close_listeners()

    def close_listeners(self) -> None:
        """Close the listeners here: their addresses are free once no forwarder has them any more."""
        for bound in self.listeners:
            bound.sock.close()

    def urls(self) -> list[str]:
        """Where each listener is reached."""
        return [bound.url for bound in self.listeners]

    def management_url(self) -> str:
        """Where the management API is reached."""
        return url_of(_PLAIN, self.management)


def bind_all(config: Config, inherited: Inherited | None = None) -> Sockets:
    """Bind every listener and the management API, or take over what is inherited. Blocks while names are looked up.

    Raises:
        StartError: one of them cannot be had; none is kept then.
    """
    there = tuple(Bound(item, sock, next(_handles)) for item, sock in inherited.listeners) if inherited else ()
    not_inherited = "was not handed over by the worker that runs; only a restart takes it over" if inherited else None
    plan = _plan(config.listeners, there, not_inherited)
    for bound in there:
        if all(one.handle != bound.handle for one in plan.listeners):
            bound.sock.close()
    if inherited is not None:
        bind, management = inherited.management
        if bind == config.management.bind:
            return Sockets(plan.listeners, management)
        management.close()
    try:
        return Sockets(plan.listeners, _bind("the management API", config.management.bind, not_inherited))
    except StartError:
        plan.discard()
        raise


def _plan(wanted: Sequence[ListenerConfig], there: Sequence[Bound], no_adoption: str | None) -> Plan:
    """Sockets that are there already for the same address, by name where there are several; fresh ones for the rest."""
    left = list(there)
    found: list[Bound | None] = [None] * len(wanted)
    for same_name in (True, False):
        for index, config in enumerate(wanted):
            for bound in left if found[index] is None else ():
                if bound.config.bind == config.bind and (not same_name or bound.config.name == config.name):
                    found[index] = Bound(config, bound.sock, bound.handle)
                    left.remove(bound)
                    break
    fresh: list[Bound] = []
    with ExitStack() as stack:
        stack.callback(lambda: Plan((), tuple(fresh)).discard())
        for index, config in enumerate(wanted):
            if found[index] is None:
                sock = _bind(f"listener {config.name!r}", config.bind, no_adoption)
                fresh.append(Bound(config, sock, next(_handles)))
                found[index] = fresh[-1]
        stack.pop_all()
    return Plan(tuple(bound for bound in found if bound is not None), tuple(fresh))


def _bind(owner: str, bind: str, no_adoption: str | None) -> socket.socket:
    if no_adoption is not None and bind.startswith("fd:"):
        raise StartError(f"{owner} {bind} {no_adoption}")
    try:
        sock = bind_listener(bind)
    except BindError as error:
        raise StartError(f"{owner} {error}") from None
    # All processes that have it share this mode, and a copy is given that of its original (socket.dup): were this one
    # blocking, a forwarder would hang in `accept` as soon as another one takes the connection.
    sock.setblocking(False)
    return sock
