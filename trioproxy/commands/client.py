"""Talking to a running worker over its management API."""

from __future__ import annotations

import os
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, cast

import httpx

from trioproxy.commands.errors import CommandError
from trioproxy.config.loader import load
from trioproxy.errors import StartError
from trioproxy.process.state import read_token

ANSWER_SECONDS = 30.0
"""How long the worker may take to answer."""

Method = Literal["GET", "PUT", "PATCH", "POST", "DELETE"]


@dataclass(frozen=True, slots=True)
class Address:
    """Where the management API is: a URL, and for a unix socket its path."""

    url: str
    socket: str | None = None


def address_of(bind: str) -> Address:
    """Where to reach what is bound to `bind`. Raises CommandError when that cannot be told from it."""
    if bind.startswith("unix:"):
        return Address("http://trioproxy", bind.removeprefix("unix:"))
    host, _, port = bind.rpartition(":")
    if bind.startswith("fd:") or port == "0":
        raise CommandError(f"management.bind = {bind} does not tell where the worker is: give --management URL")
    # A wildcard is where to listen, not where to connect.
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104
    return Address(f"http://{host}:{port}")


class ManagementClient:
    """One worker's management API. A context manager. Calls raise CommandError with a sentence that says why."""

    def __init__(self, address: Address, token: str) -> None:
        transport = httpx.HTTPTransport(uds=address.socket) if address.socket else None
        self._where = address.socket or address.url
        # Proxies named in the environment are for the world outside, not for a private API.
        self._http = httpx.Client(
            base_url=address.url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=ANSWER_SECONDS,
            transport=transport,
            trust_env=False,
        )

    @classmethod
    def from_arguments(cls, arguments: Namespace) -> Self:
        """The worker that `--management` and `--token` name, or else the configuration. Raises ConfigError too."""
        url, token = arguments.management, arguments.token
        if url is None or token is None:
            config = load(arguments.config, environ=os.environ, overrides=arguments.overrides).config
            url = url or address_of(config.management.bind)
            if token is None:
                try:
                    token = read_token(config.management, config.worker.state_dir)
                except OSError as error:
                    raise CommandError(
                        f"no token: {error.filename} cannot be read ({error.strerror}). Is the worker running, "
                        "and as this user? Else give --token"
                    ) from None
                except StartError as error:
                    raise CommandError(f"no token: {error}") from None
        try:
            return cls(_parse(url) if isinstance(url, str) else url, token)
        except (httpx.InvalidURL, UnicodeEncodeError):
            raise CommandError(f"{url} with this token cannot be used: both must be plain ASCII") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def call(self, method: Method, path: str, body: object = None, *, missing: str | None = None) -> Any:
        """Make a call and return its JSON, or None without one. `missing` is what to say to a 404."""
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.TimeoutException:
            raise CommandError(f"the worker at {self._where} did not answer within {ANSWER_SECONDS:g} s") from None
        except httpx.TransportError as error:
            raise CommandError(f"no worker answers at {self._where}: {error}") from None
        if answer.is_success:
            return _json(answer)
        if answer.status_code == 401:
            raise CommandError(f"the worker at {self._where} refused the token: give the right one with --token")
        if answer.status_code == 404 and missing is not None:
            raise CommandError(missing)
        raise CommandError(_problem(answer))


def _parse(url: str) -> Address:
    if url.startswith("unix:"):
        return address_of(url)
    if not url.startswith(("http://", "https://")):
        raise CommandError(f"--management {url} is not a URL; write http://127.0.0.1:6040 or unix:/path")
    return Address(url.rstrip("/"))


def _json(answer: httpx.Response) -> Any:
    if not answer.content:
        return None
    try:
        return answer.json()
    except ValueError:
        raise CommandError(f"{answer.url} did not answer with JSON: is it a trioproxy management API?") from None


def _problem(answer: httpx.Response) -> str:
    """A problem document as text: its detail, then the mistakes it lists."""
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "detail" not in problem:
        return f"{answer.url} answered {answer.status_code}: is it a trioproxy management API?"
    found = cast(dict[str, Any], problem)
    lines = [str(found["detail"])]
    lines += [f"  {item.get('field', '')}: {item.get('message', '')}" for item in found.get("errors") or ()]
    lines += [f"  {item}" for item in found.get("problems") or ()]
    return "\n".join(lines)


def token_from(path: str) -> str:
    """For `--token-file`: its content. Raises ValueError, which argparse turns into a usage error."""
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    if not token:
        raise ValueError(f"{path} is empty")
    return token
