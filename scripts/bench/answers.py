"""One answer of each proxy, looked at before anything is measured."""

from __future__ import annotations

import hashlib
import http.client
import socket
import ssl
from collections.abc import Mapping

import trio

from bench.bench import ANSWER
from bench.errors import BenchError
from bench.peer import Proxy, path


async def check_all(proxies: Mapping[str, Proxy], service: str, headers: Mapping[str, str]) -> dict[str, str]:
    """Status, length and hash of an answer of each; what TLS they chose, else "". Raises BenchError."""
    return {
        name: await trio.to_thread.run_sync(_check, proxy, path(service), headers) for name, proxy in proxies.items()
    }


def _check(proxy: Proxy, target: str, headers: Mapping[str, str]) -> str:
    connection = _connection(proxy)
    try:
        connection.request("GET", target, headers=dict(headers))
        cipher = _cipher(connection.sock)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200 or hashlib.sha256(body).digest() != hashlib.sha256(ANSWER.encode()).digest():
        raise BenchError(f"{proxy.peer.name} answered {response.status}, {len(body)} bytes: {body[:200]!r}")
    return cipher


def _connection(proxy: Proxy) -> http.client.HTTPConnection:
    if not proxy.peer.tls:
        return http.client.HTTPConnection("127.0.0.1", proxy.port)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # each has a certificate of its own, made a moment ago
    return http.client.HTTPSConnection("127.0.0.1", proxy.port, context=context)


def _cipher(sock: socket.socket) -> str:
    if not isinstance(sock, ssl.SSLSocket):
        return ""
    name, version, _ = sock.cipher() or ("", "", 0)
    return f"{version} {name}"
