"""The command line: `trioproxy`, also `python -m trioproxy`."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from trioproxy import __version__
from trioproxy.commands import config, routes, status
from trioproxy.commands.client import token_from
from trioproxy.errors import ConfigError, TrioproxyError

Action = Callable[[Namespace], int]


class Commands(Protocol):
    """What argparse calls the action of `add_subparsers`, in a private type."""

    def add_parser(self, name: str, /, *, help: str = ..., description: str = ...) -> ArgumentParser:  # noqa: A002
        """Add a command."""
        ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 = done, 1 = it failed, 2 = bad usage or configuration (SystemExit for usage)."""
    arguments = _parser().parse_args(argv)
    action: Action = arguments.action
    try:
        return _with_output(action, arguments)
    except ConfigError as error:
        for problem in error.problems:
            _complain(problem)
        return 2
    except TrioproxyError as error:
        _complain(f"trioproxy: {error}")
        return 1
    except KeyboardInterrupt:
        return 1
    except BrokenPipeError:
        # Whoever read our output (head, less) has had enough. Python's last flush must not meet the pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(arguments: Namespace) -> int:
    # The server's side of things takes longest to import, and no other command needs it.
    from trioproxy.commands.run import run  # noqa: PLC0415

    return run(arguments)


def _with_output(action: Action, arguments: Namespace) -> int:
    """Run a command and see to it that what it printed was taken; 1 when it was not."""
    if action is _run:  # prints nothing on standard output but the access log, which has its own ways
        return _run(arguments)
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison] - so it is in a program started with >&-
        _complain("trioproxy: standard output is closed")
        return 1
    try:
        status = action(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _complain(f"trioproxy: {error.strerror}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter's last flush must not fail too
        return 1
    return status


def _complain(text: str) -> None:
    print(text, file=sys.stderr)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="trioproxy", description="Carries HTTP and WebSocket traffic to the services of compute sessions."
    )
    parser.add_argument("--version", action="version", version=f"trioproxy {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    running = _command(commands, "run", _run, "run the worker in the foreground")
    _add_config(running)
    running.add_argument("--demo", action="store_true", help="with a built-in demo session at /demo/hello/")
    _add_config(_command(commands, "check", config.check, "check the configuration and print every value's origin"))
    _add_routes(commands)
    looking = _command(commands, "status", status.show_status, "show how a running worker fares")
    _add_client(looking)
    _add_json(looking)
    _add_client(_command(commands, "drain", status.drain, "let a running worker finish what runs, and end"))
    _add_client(_command(commands, "reload", status.reload, "let a running worker read its configuration again"))
    about = "let a running worker hand over to a new generation of the program, without a failed request"
    _add_client(_command(commands, "upgrade", status.upgrade, about))
    _command(commands, "example-config", config.print_example, "print the commented configuration")
    return parser


def _add_routes(commands: Commands) -> None:
    group = commands.add_parser("routes", help="look at and change the routes of a running worker")
    actions = group.add_subparsers(title="actions", metavar="ACTION", required=True)

    listing = _command(actions, "list", routes.list_routes, "list the routes of all providers")
    _add_json(listing)

    getting = _command(actions, "get", routes.get_route, "print one route as JSON")
    _add_names(getting)

    adding = _command(actions, "add", routes.add_route, "create or replace a route")
    _add_names(adding)
    adding.add_argument("backends", nargs="*", metavar="HOST:PORT", help="a backend; also [IPV6]:PORT or unix:/path")
    adding.add_argument("--path", choices=("strip", "keep"), help="what of the path the backend sees")
    adding.add_argument("--json", metavar="'{…}'", help="the other keys of the route object")

    removing = _command(actions, "remove", routes.remove_route, "remove a route, or all routes of a session")
    removing.add_argument("session_id", metavar="SESSION")
    removing.add_argument("service", metavar="SERVICE", nargs="?")

    importing = _command(actions, "import", routes.import_routes, "create or replace the routes of a TOML or JSON file")
    importing.add_argument("file", metavar="FILE", help='"-" reads JSON from standard input')
    importing.add_argument("--replace", action="store_true", help="remove API-set routes that the file does not have")

    exporting = _command(actions, "export", routes.export_routes, "print all routes as a routes file")
    for parser in (listing, getting, adding, removing, importing, exporting):
        _add_client(parser)


def _command(commands: Commands, name: str, action: Action, about: str) -> ArgumentParser:
    parser = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
    parser.set_defaults(action=action)
    return parser


def _add_config(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        metavar="FILE",
        help="else ./trioproxy.toml, /etc/trioproxy/config.toml, or the defaults",
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="set one value, above file and environment; may be repeated",
    )


def _add_client(parser: ArgumentParser) -> None:
    _add_config(parser)
    parser.add_argument("--management", metavar="URL", help="of the worker; else as configured")
    token = parser.add_mutually_exclusive_group()
    token.add_argument("--token", help="of the management API; else as configured, or from the state directory")
    token.add_argument("--token-file", dest="token", type=token_from, metavar="FILE", help="a file that holds it")


def _add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_names(parser: ArgumentParser) -> None:
    parser.add_argument("session_id", metavar="SESSION")
    parser.add_argument("service", metavar="SERVICE")
