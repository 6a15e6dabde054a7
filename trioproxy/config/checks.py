"""Checks between keys, and between keys and the machine, that a schema cannot state."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from trioproxy.config.keys import KeyPath, place
from trioproxy.config.schema import MIN_SECRET, Config
from trioproxy.config.toml import to_toml
from trioproxy.routing.route import Route

MIN_TOKEN = 8
"""Characters of the shortest management token that is taken."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: the key it is about, and a sentence that names it."""

    path: KeyPath
    text: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found. `warnings` are sentences about things that are legal and unwise."""

    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]


def cross_check(config: Config) -> Checked:
    """Look at files and addresses. Reads the file system; opens no socket."""
    problems = [*_certificate_files(config), *_addresses(config), *_token(config), *_sticky_secret(config)]
    warnings = _shared_claims(config)
    bind = config.management.bind
    if not _is_private(bind):
        if config.management.token is None and config.management.token_file is None:
            problems.append(
                _problem(
                    ("management", "bind"),
                    bind,
                    "the management API has no TLS and would be reachable from other machines; allowed: a loopback "
                    'address such as "127.0.0.1:6040", "unix:/path", or this address with management.token_file set',
                )
            )
        else:
            warnings.append(
                f"the management API on {bind} is reachable from other machines and has no TLS: "
                "its token crosses the network in clear text"
            )
    return Checked(tuple(problems), tuple(warnings))


def _shared_claims(config: Config) -> list[str]:
    """Host names and prefixes that two static routes want."""
    found: list[str] = []
    for key in ("host", "prefix"):
        owners: dict[str, Route] = {}
        for route in sorted(config.routes, key=lambda route: route.key):
            claim = route.host if key == "host" else route.prefix
            if claim is None:
                continue
            owner = owners.setdefault(claim, route)
            if owner is not route:
                found.append(
                    f"two of [[routes]] have {key} = {to_toml(claim)}: {'/'.join(owner.key)} gets its requests, "
                    f"and {'/'.join(route.key)} none of them"
                )
    return found


def _problem(path: KeyPath, value: object, reason: str) -> Problem:
    return Problem(path, f"{place(path)} = {to_toml(value)}: {reason}")


def _certificate_files(config: Config) -> list[Problem]:
    found: list[Problem] = []
    for index, certificate in enumerate(config.tls.certificates):
        for name, file in (("cert", certificate.cert), ("key", certificate.key)):
            path: KeyPath = ("tls", "certificates", index, name)
            try:
                with file.open("rb"):
                    pass
            except OSError as error:
                found.append(_problem(path, file, f"cannot be read: {error.strerror}; allowed: a PEM file"))
    return found


def _token(config: Config) -> list[Problem]:
    given = config.management
    return _secret_file(("management", "token_file"), given.token_file, given.token, MIN_TOKEN)


def _sticky_secret(config: Config) -> list[Problem]:
    return _secret_file(("sticky", "secret_file"), config.sticky.secret_file, config.sticky.secret, MIN_SECRET)


def _secret_file(path: KeyPath, file: Path | None, instead: str | None, shortest: int) -> list[Problem]:
    """`instead`: what stands in the configuration itself, under the same name without "_file"."""
    key = str(path[-1]).removesuffix("_file")
    if file is None:
        return []
    if instead is not None:
        return [_problem(path, file, f"{path[0]}.{key} is given too; allowed: one of them")]
    try:
        length = len(file.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        return [_problem(path, file, f"cannot be read: {reason}; allowed: a file that holds the {key}")]
    if length < shortest:
        return [_problem(path, file, f"holds a {key} of {length} characters; allowed: {shortest} or more")]
    return []


def _addresses(config: Config) -> list[Problem]:
    found: list[Problem] = []
    taken: list[tuple[str, str]] = [("the management API", config.management.bind)]
    for index, listener in enumerate(config.listeners):
        for owner, bind in taken:
            if _collide(listener.bind, bind):
                path: KeyPath = ("listeners", index, "bind")
                reason = f"{owner} is at {bind} already; allowed: an address of its own"
                found.append(_problem(path, listener.bind, reason))
                break
        taken.append((f"listener {listener.name!r}", listener.bind))
    return found


def _collide(one: str, other: str) -> bool:
    a, b = _split(one), _split(other)
    if a is None or b is None:
        return one == other
    if a[1] != b[1] or a[1] == 0:
        return False
    if a[0] == b[0] or "::" in (a[0], b[0]):  # "[::]" takes IPv4 too
        return True
    return "0.0.0.0" in (a[0], b[0]) and ":" not in a[0] + b[0]  # noqa: S104 - compared, not bound


def _split(bind: str) -> tuple[str, int] | None:
    """Host and port, with one spelling per host; None for a unix socket or an inherited one."""
    if bind.startswith(("unix:", "fd:")):
        return None
    host, _, port = bind.rpartition(":")
    host = host.strip("[]") or "0.0.0.0"  # noqa: S104 - what an empty host means, not a choice made here
    if host == "localhost":
        host = "127.0.0.1"
    try:
        host = str(ip_address(host))
    except ValueError:
        host = host.lower()
    return host, int(port)


def _is_private(bind: str) -> bool:
    """Whether only this machine can reach the address. An inherited socket is the business of who opened it."""
    address = _split(bind)
    if address is None:
        return True
    try:
        return ip_address(address[0]).is_loopback
    except ValueError:
        return False
