"""`trioproxy run`: the worker in the foreground."""

from __future__ import annotations

import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial

import trio

from trioproxy.config.loader import Loaded, load
from trioproxy.errors import TrioproxyError
from trioproxy.observe.logs import setup_logs
from trioproxy.process.assemble import run_worker
from trioproxy.process.demo import PATH, bind_demo, demo_route, serve_demo
from trioproxy.process.inheritance import Inheritance
from trioproxy.process.preparation import prepare
from trioproxy.process.services import Service
from trioproxy.process.sockets import Sockets
from trioproxy.routing.route import Route

NO_UPGRADE_OF_DEMO = "the demo cannot be upgraded: its session and its state go with this process"
NO_UPGRADE_OF_INIT = "this is process 1: when it ends so does its container, and the next generation with it"


def run(arguments: Namespace) -> int:
    """Run until told to stop; 0 when everything could end in good order, else 1. Raises ConfigError and others."""
    inheritance = Inheritance.from_environment(os.environ)
    try:
        return _run(arguments, inheritance)
    except TrioproxyError as error:
        if inheritance is not None:
            inheritance.tell_failure(str(error))
        raise


def _run(arguments: Namespace, inheritance: Inheritance | None) -> int:
    reread = partial(load, arguments.config, environ=os.environ, overrides=arguments.overrides)
    loaded = reread()
    companions: list[tuple[str, Service]] = []
    with ExitStack() as stack:
        announce: Callable[[Sockets], None] = _announce
        if arguments.demo:
            if loaded.path is None and loaded.origins["worker.state_dir"] == "default":
                # Trying it out shall leave nothing behind, and need no right to write anywhere in particular.
                state = stack.enter_context(tempfile.TemporaryDirectory(prefix="trioproxy-demo-"))
                overrides = [*arguments.overrides, f"worker.state_dir={state}"]
                reread = partial(load, arguments.config, environ=os.environ, overrides=overrides)
            sock = stack.enter_context(bind_demo())
            reread = partial(_with_demo, reread, demo_route(sock))
            loaded = reread()
            companions.append(("demo session", partial(serve_demo, sock)))
            announce = partial(_announce_demo, loaded)
        setup_logs(loaded.config.log.level, loaded.config.log.format)
        work = partial(
            run_worker,
            loaded,
            stack.enter_context(prepare(loaded.config, inheritance)),
            reread=reread,
            environ=os.environ,
            ready=announce,
            companions=companions,
            inheritance=inheritance,
            no_upgrade=_no_upgrade(arguments),
        )
        clean = trio.run(work)
    return 0 if clean else 1


def _no_upgrade(arguments: Namespace) -> str | None:
    if arguments.demo:
        return NO_UPGRADE_OF_DEMO
    return NO_UPGRADE_OF_INIT if os.getpid() == 1 else None


def _with_demo(reread: Callable[[], Loaded], route: Route) -> Loaded:
    """The configuration and the demo session's route; a route of that name in it gives way."""
    loaded = reread()
    routes = (*(item for item in loaded.config.routes if item.key != route.key), route)
    return replace(loaded, config=loaded.config.model_copy(update={"routes": routes}))


def _announce(sockets: Sockets) -> None:
    _say(f"trioproxy ready: {' '.join(sockets.urls())} (management {sockets.management_url()})")


def _announce_demo(loaded: Loaded, sockets: Sockets) -> None:
    _announce(sockets)
    reachable = [url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:") for url in sockets.urls()]
    for url in reachable:
        if not url.startswith("unix:"):
            note = " (its certificate is self-signed: a browser warns, curl needs -k)" * url.startswith("https:")
            _say(f"trioproxy demo: open {url}{PATH}{note}")
            break
    state = loaded.config.worker.state_dir
    _say(
        f"trioproxy demo: try: trioproxy status --management {sockets.management_url()} --set worker.state_dir={state}"
    )


def _say(line: str) -> None:
    # A standard error that is full or closed is no reason not to serve, and there is nowhere else to say so.
    with suppress(OSError):
        sys.stderr.write(f"{line}\n")  # in one piece: another process may write there too
        sys.stderr.flush()
