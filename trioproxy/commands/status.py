"""`trioproxy status`, `drain`, `reload` and `upgrade`: one look at a running worker, and three words to it."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from threading import Event
from typing import Any

from trioproxy.commands.client import ManagementClient
from trioproxy.commands.errors import CommandError
from trioproxy.commands.output import print_json, print_table
from trioproxy.units import format_duration

UPGRADE_SECONDS = 150.0
"""How long an upgrade is followed: longer than a worker gives it."""
POLL_SECONDS = 0.2


def show_status(arguments: Namespace) -> int:
    """Print how a worker fares."""
    with ManagementClient.from_arguments(arguments) as client:
        found = {
            "worker": client.call("GET", "/v1/worker"),
            "forwarders": client.call("GET", "/v1/forwarders")["forwarders"],
            "backends": client.call("GET", "/v1/backends")["backends"],
            "connections": client.call("GET", "/v1/connections")["total"],
            "certificates": client.call("GET", "/v1/certificates")["certificates"],
        }
    if arguments.json:
        print_json(found)
    else:
        _print(found)
    return 0


def _print(found: dict[str, Any]) -> None:
    worker = found["worker"]
    state = "ready" if worker["ready"] else f"not ready ({'; '.join(worker['reasons'])})"
    rows: list[tuple[str, object]] = [
        ("worker", f"{worker['id']}, trioproxy {worker['version']}, {state}"),
        ("up", format_duration(int(worker["uptime"]))),
        ("routes", f"{worker['routes']} (table version {worker['table_version']})"),
        ("connections", found["connections"]),
    ]
    rows += [
        (f"listener {item['name']}", f"{item['bind']}{', TLS' if item['tls'] else ''}") for item in worker["listeners"]
    ]
    rows += [(f"provider {item['name']}", _provider(item)) for item in worker["providers"]]
    rows += [(f"forwarder {item['index']}", f"{item['state']}, process {item['pid']}") for item in found["forwarders"]]
    rows += [("certificate", _certificate(item)) for item in found["certificates"]]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        sys.stdout.write(f"{name.ljust(width)}  {value}\n")
    if found["backends"]:
        sys.stdout.write("\n")
        print_table(
            ("SESSION", "SERVICE", "BACKEND", "STATE", "IN FLIGHT", "REQUESTS", "LAST ERROR"),
            (
                (
                    item["session_id"],
                    item["service"],
                    item["address"],
                    item["state"],
                    item["in_flight"],
                    item["requests"],
                    item["last_error"] or "",
                )
                for item in found["backends"]
            ),
        )


def _provider(item: dict[str, Any]) -> str:
    return f"{item['routes']} routes" + ("" if item["up"] else f", failing: {item['error']}")


def _certificate(item: dict[str, Any]) -> str:
    days = int((item["not_after"] - time.time()) // 86400)
    signed = "self-signed, " if item["self_signed"] else ""
    return f"{', '.join(item['names'])}: {signed}{f'valid for {days} days' if days >= 0 else 'EXPIRED'}"


def drain(arguments: Namespace) -> int:
    """Let a worker finish what runs, and end."""
    with ManagementClient.from_arguments(arguments) as client:
        client.call("POST", "/v1/drain")
    return 0


def upgrade(arguments: Namespace) -> int:
    """Let a worker hand over to a new generation of the program, and see how that comes out."""
    with ManagementClient.from_arguments(arguments) as client:
        old = client.call("POST", "/v1/upgrade")["pid"]
        until = time.monotonic() + UPGRADE_SECONDS
        while True:
            try:
                worker = client.call("GET", "/v1/worker")
            except CommandError:
                if time.monotonic() >= until:
                    raise
                worker = None  # the API changes hands
            if worker is not None and worker["pid"] != old:
                sys.stdout.write(f"process {worker['pid']} serves, with trioproxy {worker['version']}\n")
                return 0
            if worker is not None and worker["upgrade"]["state"] == "failed":
                raise CommandError(f"the upgrade failed, and process {old} goes on: {worker['upgrade']['error']}")
            if time.monotonic() >= until:
                raise CommandError(f"after {UPGRADE_SECONDS:g} s process {old} still serves; its log says more")
            Event().wait(POLL_SECONDS)


def reload(arguments: Namespace) -> int:
    """Let a worker read its configuration again."""
    with ManagementClient.from_arguments(arguments) as client:
        answer = client.call("POST", "/v1/reload")
    for key in answer.get("needs_restart", ()):
        sys.stderr.write(f"{key} has changed: it takes effect after a restart\n")
    return 0
