"""The certificate of a worker that was given none: made here, kept in the state directory."""

from __future__ import annotations

import os
import re
import secrets
import socket
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=397)
"""Browsers refuse certificates that live longer than 398 days."""
RENEW_BEFORE = timedelta(days=7)

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")


def self_signed_paths(state_dir: Path) -> tuple[Path, Path]:
    """(certificate, key) of the self-signed certificate of this state directory."""
    folder = state_dir / "tls"
    return folder / "self-signed.crt", folder / "self-signed.key"


def write_self_signed(state_dir: Path, now: datetime) -> None:
    """Make a key and a certificate for this host and write them, each file at once or not at all.

    Raises OSError. A crash between the two files leaves a pair that does not match; its reader makes it anew.
    """
    cert_path, key_path = self_signed_paths(state_dir)
    cert_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    cert_path.parent.chmod(0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(key, now)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write(key_path, pem, 0o600)
    _write(cert_path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _certificate(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "trioproxy self-signed")])
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in _dns_names()]
    names += [x509.IPAddress(ip_address("127.0.0.1")), x509.IPAddress(ip_address("::1"))]
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # for clients whose clock is behind
        .not_valid_after(now - timedelta(hours=1) + LIFETIME)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )


def _dns_names() -> list[str]:
    host = socket.gethostname()
    names = [host] if _HOST_NAME.fullmatch(host) and len(host) <= 253 else []
    return [*names, *(["localhost"] if host != "localhost" else [])]


def _write(path: Path, content: bytes, mode: int) -> None:
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
