"""One certificate chain and its private key, read from PEM files and checked before anything uses them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from trioproxy.net.tls import server_context


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """One certificate in use on the listeners."""

    names: tuple[str, ...]
    not_before: float  # seconds since the epoch
    not_after: float
    issuer: str
    serial: str  # hexadecimal
    self_signed: bool
    source: str  # path of the PEM file


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate ready to be served."""

    info: CertificateInfo
    context: ssl.SSLContext


class UnusableKeyPair(Exception):
    """A pair that cannot be served: which of the two files is at fault, and why."""

    def __init__(self, part: Literal["cert", "key"], reason: str) -> None:
        super().__init__(reason)
        self.part = part
        self.reason = reason


def load_key_pair(cert: Path, key: Path, min_version: str) -> KeyPair:
    """Read a pair and make its TLS context. Raises UnusableKeyPair."""
    chain = _read_chain(cert)
    public_key = _read_public_key(key)
    owners = [i for i, item in enumerate(chain) if item.public_key().public_bytes(*_SPKI) == public_key]
    if not owners:
        raise UnusableKeyPair("key", f"does not belong to the certificate in {cert}")
    if owners[0] != 0:
        raise UnusableKeyPair(
            "cert", f"the key belongs to certificate {owners[0] + 1} of this file; it must come first"
        )
    context = server_context(min_version)
    try:
        # The password keeps OpenSSL from asking on the terminal; an encrypted key was refused above.
        context.load_cert_chain(cert, key, password="")
    except OSError as exc:  # ssl.SSLError is one
        raise UnusableKeyPair("cert", f"OpenSSL refuses it: {exc}") from exc
    return KeyPair(_describe(chain[0], cert), context)


_SPKI = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _read(path: Path, part: Literal["cert", "key"]) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise UnusableKeyPair(part, f"cannot be read: {(exc.strerror or str(exc)).lower()}") from exc


def _read_chain(path: Path) -> list[x509.Certificate]:
    try:
        chain = x509.load_pem_x509_certificates(_read(path, "cert"))
        _ = [(item.extensions, item.public_key()) for item in chain]  # parsed lazily: let it fail here
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise UnusableKeyPair("cert", f"is no PEM certificate: {exc}") from exc
    return chain


def _read_public_key(path: Path) -> bytes:
    try:
        return load_pem_private_key(_read(path, "key"), password=None).public_key().public_bytes(*_SPKI)
    except TypeError as exc:  # what cryptography raises when a password is missing
        raise UnusableKeyPair("key", "is encrypted; store the key without a passphrase, mode 0600") from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise UnusableKeyPair("key", "is no PEM private key") from exc


def _describe(certificate: x509.Certificate, source: Path) -> CertificateInfo:
    return CertificateInfo(
        names=_names(certificate),
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        issuer=certificate.issuer.rfc4514_string(),
        serial=f"{certificate.serial_number:x}",
        self_signed=certificate.issuer == certificate.subject,
        source=str(source),
    )


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return tuple(str(item.value).lower() for item in common)
    names = [name.lower() for name in found.get_values_for_type(x509.DNSName)]
    return (*names, *(str(address) for address in found.get_values_for_type(x509.IPAddress)))
