"""What one generation of the program leaves to the next: open descriptors, and a channel for the few words it takes.

The two may be of different versions, so all of it is plain JSON, and `PROTOCOL` rises when it changes its meaning.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from trioproxy.config.schema import ListenerConfig
from trioproxy.control.frames import with_length
from trioproxy.errors import StartError
from trioproxy.process.sockets import Inherited, Sockets
from trioproxy.process.state import Held

VARIABLE = "TRIOPROXY_HANDOVER"
"""The environment variable that tells a process that it is to succeed another one, and what it inherits."""
PROTOCOL = 1
MAX_PROBLEM = 2000
"""Characters of a failure that are told."""


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What a process inherits. All of it is its own now."""

    channel: socket.socket
    sockets: Inherited
    state: Held

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Inheritance | None:
        """What `environ` tells, and tells nobody else; None for a process that succeeds nobody.

        Raises:
            StartError: it makes no sense.
        """
        text = environ.pop(VARIABLE, None)
        if text is None:
            return None
        try:
            told = cast(dict[str, Any], json.loads(text))
            if told["protocol"] != PROTOCOL:
                raise StartError(f"the running worker hands over in way {told['protocol']}, not known to this version")
            bind, number = told["management"]
            lock_path, lock = told["state"]
            os.set_inheritable(lock, False)
            return cls(
                channel=_adopt(told["channel"]),
                sockets=Inherited(
                    tuple((ListenerConfig(name=name, bind=at), _adopt(fd)) for name, at, fd in told["listeners"]),
                    (bind, _adopt(number)),
                ),
                state=Held(Path(lock_path), lock),
            )
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise StartError(f"{VARIABLE} makes no sense: {error}") from None

    def tell_failure(self, problem: str) -> None:
        """Let the other generation say why this one does not come up."""
        with suppress(OSError):  # it is gone, or knows already
            self.channel.sendall(with_length(dump({"state": "failed", "problem": problem[:MAX_PROBLEM]})))


def bequeath(
    environ: Mapping[str, str], channel: int, sockets: Sockets, management_bind: str, state: Held
) -> tuple[dict[str, str], list[int]]:
    """The environment of the next generation, and the descriptors that it must inherit under their numbers."""
    listeners = [(bound.config.name, bound.config.bind, bound.sock.fileno()) for bound in sockets.listeners]
    management = sockets.management.fileno()
    told = {
        "protocol": PROTOCOL,
        "channel": channel,
        "state": [str(state.path), state.lock],
        "management": [management_bind, management],
        "listeners": listeners,
    }
    # A watchdog that names a process would not be the next one's.
    passed = {name: value for name, value in environ.items() if name != "WATCHDOG_PID"}
    descriptors = [channel, state.lock, management, *(number for _, _, number in listeners)]
    return {**passed, VARIABLE: json.dumps(told)}, descriptors


def dump(message: Mapping[str, Any]) -> bytes:
    """A message of the channel."""
    return json.dumps(message).encode()


def parse(frame: bytes) -> dict[str, Any]:
    """A message of the channel, read back; one that makes no sense has no `state`."""
    try:
        message = json.loads(frame)
    except ValueError:
        return {}
    return cast(dict[str, Any], message) if isinstance(message, dict) else {}


def _adopt(number: int) -> socket.socket:
    sock = socket.socket(fileno=number)
    sock.set_inheritable(False)
    sock.setblocking(False)  # as the other generation has it: the mode is shared, see sockets.py
    return sock
