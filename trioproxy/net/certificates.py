"""Which certificate a TLS client is shown: a set that can be replaced while connections go on."""

from __future__ import annotations

import logging
import ssl
from datetime import UTC, datetime
from pathlib import Path

from trioproxy.config.schema import TlsConfig
from trioproxy.errors import ConfigError
from trioproxy.net.keypair import CertificateInfo, KeyPair, UnusableKeyPair, load_key_pair
from trioproxy.net.self_signed import RENEW_BEFORE, self_signed_paths, write_self_signed
from trioproxy.net.tls import note_server_name, server_context, tls_version

__all__ = ["CertificateInfo", "CertificateStore"]

log = logging.getLogger(__name__)


class CertificateStore:
    """The certificates of `[tls]`, or the self-signed one of the state directory when none is given.

    `context` is what a TLS stream is opened with, and stays the same object for ever: it holds no
    certificate itself, its SNI callback puts the chosen one in. The order of choice is the exact name, a
    wildcard for one label, the first certificate.

    Construction, `load` and `reload` read (and may write) files: call them in a thread. They raise ConfigError,
    which names every key and file at fault. `owner` is False where the self-signed certificate is made, renewed and
    warned of by another process: it must be there. `wanted` is False while no listener has TLS: then no file is
    looked at, and there are none.
    """

    def __init__(self, config: TlsConfig, state_dir: Path, *, owner: bool = True, wanted: bool = True) -> None:
        self._state_dir = state_dir
        self._owner = owner
        self._shelf = self._shown = self.load(config, wanted=wanted)
        self.context = server_context(config.min_version)
        self.context.sni_callback = self._choose

    def reload(self, config: TlsConfig) -> None:
        """Show these certificates from the next handshake on; connections go on with theirs.

        All or nothing: after a ConfigError the old set is still in force.
        """
        self.use(self.load(config), config)

    def use(self, shelf: Shelf, config: TlsConfig) -> None:
        """Show what `load` has read for this configuration, from the next handshake on; cannot fail."""
        self._shelf = shelf
        if shelf.pairs:  # else a handshake that has begun already may still go by the old ones
            self._shown = shelf
        self.context.minimum_version = tls_version(config.min_version)

    def certificates(self) -> list[CertificateInfo]:
        """The certificates in force, in the order of the configuration."""
        return [pair.info for pair in self._shelf.pairs]

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _context: ssl.SSLContext) -> None:
        note_server_name(name)
        connection.context = self._shown.find(name)

    def load(self, config: TlsConfig, *, wanted: bool = True) -> Shelf:
        """Read the certificates of this configuration, for `use`. Nothing changes."""
        if not wanted:
            return Shelf([])
        if not config.certificates:
            return Shelf([self._self_signed(config.min_version)])
        pairs: list[KeyPair] = []
        problems: list[str] = []
        for i, item in enumerate(config.certificates):
            try:
                pairs.append(load_key_pair(item.cert, item.key, config.min_version))
            except UnusableKeyPair as exc:
                problems.append(f'tls.certificates[{i}].{exc.part} = "{getattr(item, exc.part)}": {exc.reason}')
        if problems:
            raise ConfigError(problems)
        now = datetime.now(UTC).timestamp()
        for pair in pairs:
            if self._owner and not pair.info.not_before <= now < pair.info.not_after:
                log.warning("certificate %s is not valid now: clients will refuse it", pair.info.source)
        return Shelf(pairs)

    def _self_signed(self, min_version: str) -> KeyPair:
        cert, key = self_signed_paths(self._state_dir)
        if not self._owner:
            try:
                return load_key_pair(cert, key, min_version)
            except UnusableKeyPair as exc:
                raise ConfigError([f"the self-signed certificate {cert} cannot be used: {exc.reason}"]) from exc
        now = datetime.now(UTC)
        pair = None
        try:
            pair = load_key_pair(cert, key, min_version)
        except UnusableKeyPair as exc:
            if cert.exists():
                log.warning("making the self-signed certificate anew: its %s %s", exc.part, exc.reason)
        if pair is None or pair.info.not_after - now.timestamp() < RENEW_BEFORE.total_seconds():
            try:
                write_self_signed(self._state_dir, now)
                pair = load_key_pair(cert, key, min_version)
            except (OSError, UnusableKeyPair) as exc:
                raise ConfigError(
                    [f'worker.state_dir = "{self._state_dir}": cannot keep a self-signed certificate there: {exc}']
                ) from exc
        log.warning(
            "NO CERTIFICATE IS CONFIGURED: using a self-signed one (%s), which browsers warn about. "
            "Set tls.certificates to one that users trust.",
            cert,
        )
        return pair


class Shelf:
    """Certificates, by the names they are good for. The earlier one wins where two have the same name. Immutable."""

    def __init__(self, pairs: list[KeyPair]) -> None:
        self.pairs = pairs
        self._by_name: dict[str, ssl.SSLContext] = {}
        for pair in pairs:
            for name in pair.info.names:
                self._by_name.setdefault(name, pair.context)

    def find(self, server_name: str | None) -> ssl.SSLContext:
        """The context for a name a client sent. Never fails: the first certificate is for everybody else."""
        name = (server_name or "").lower().removesuffix(".")
        found = self._by_name.get(name) or self._by_name.get(f"*.{name.partition('.')[2]}")
        return found or self.pairs[0].context
