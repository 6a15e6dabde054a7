"""The certificate of those that are measured with TLS: self-signed, the same kind for all."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from trioproxy.net.self_signed import self_signed_paths, write_self_signed


def key_pair(folder: Path) -> tuple[Path, Path]:
    """Files of a certificate and its key, made in the folder if they are not there."""
    cert, key = self_signed_paths(folder)
    if not cert.exists():
        write_self_signed(folder, datetime.now(UTC))
    return cert, key


def tls_listen(folder: Path, port: int) -> str:
    """nginx's directives for a port with TLS; with 1.3, which its version 1.22 has off by default."""
    cert, key = key_pair(folder)
    return (
        f"listen 127.0.0.1:{port} ssl; ssl_certificate {cert}; ssl_certificate_key {key}; "
        "ssl_protocols TLSv1.2 TLSv1.3;"
    )
