"""A forwarder in a process of its own, from the supervisor's first word to the end of the drain."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import trio

from trioproxy import __version__
from trioproxy.config.schema import Config
from trioproxy.control.codec import encode
from trioproxy.control.descriptors import Arrivals, DescriptorFrames
from trioproxy.control.messages import Hello, Refused, SetConfig, Start
from trioproxy.control.wire import adopt_control, forwarder_end, receive_start
from trioproxy.errors import ConfigError, ControlError
from trioproxy.net.certificates import CertificateStore
from trioproxy.net.loads import Loads
from trioproxy.observe.logs import setup_logs
from trioproxy.process.forwarder import run_forwarder
from trioproxy.process.traffic import Crew, Traffic, wants_certificates
from trioproxy.routing.table import Table

_LOG = logging.getLogger("trioproxy.process.apart")


async def forward_apart(control: socket.socket, table: Table | None = None) -> int:
    """Forward until drained; the exit code. Takes over the socket to the supervisor, which knows of the `table`."""
    frames = adopt_control(control)
    arrivals = Arrivals()
    try:
        start = await receive_start(frames, arrivals)
        if start is None:
            return 0  # the supervisor is gone already
    except ControlError as error:
        _LOG.error("the forwarder does not understand the supervisor: %s", error)
        return 1
    if start.version != __version__:
        await frames.send(encode(Hello(__version__)))  # the supervisor says what that means
        return 1
    log = partial(_set_up_logs, start.index)
    log(start.config)
    crashed = False
    try:
        await _forward(frames, start, arrivals, log, table)
    except* Exception:  # noqa: BLE001 - a bug: said in the log's own words, and the exit code tells the supervisor
        crashed = True
        _LOG.exception("the forwarder crashed")
    return 1 if crashed else 0


def _set_up_logs(index: int, config: Config) -> None:
    setup_logs(config.log.level, config.log.format, fields={"forwarder": index})


async def _forward(
    frames: DescriptorFrames,
    start: Start,
    arrivals: Arrivals,
    applied: Callable[[Config], None],
    table: Table | None,
) -> None:
    config = start.config
    loads = Loads(start.loads, start.forwarders, mine=start.index)
    os.close(start.loads)  # the memory stays
    wanted = wants_certificates(config)
    open_store = partial(CertificateStore, config.tls, config.worker.state_dir, owner=False, wanted=wanted)
    try:
        certificates = await trio.to_thread.run_sync(open_store)
    except ConfigError as error:
        await frames.send(encode(Refused(tuple(error.problems))))
        return
    settings = SetConfig(config, start.listeners)
    crew = Crew(start.forwarders, loads, start.index)
    traffic = Traffic(settings, arrivals, certificates=certificates, crew=crew, applied=applied)
    end = forwarder_end(frames, arrivals, table)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(run_forwarder, traffic, [traffic.doors], end, grace=lambda: traffic.grace))
        # When the supervisor is gone already, the forwarder finds that by itself.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await frames.send(encode(Hello(__version__)))
