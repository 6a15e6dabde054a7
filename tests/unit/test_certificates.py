from __future__ import annotations

import logging
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from trioproxy.config.schema import CertificateConfig, TlsConfig
from trioproxy.errors import ConfigError
from trioproxy.net.certificates import CertificateStore
from trioproxy.net.self_signed import write_self_signed


def config(*pairs: Any, min_version: str = "1.2") -> TlsConfig:
    certificates = tuple(CertificateConfig(cert=pair.cert, key=pair.key) for pair in pairs)
    return TlsConfig.model_validate({"certificates": certificates, "min_version": min_version})


def shake(store: CertificateStore, ca: Path, name: str | None, *, context: ssl.SSLContext | None = None) -> Any:
    """Do a handshake in memory, as a client that asks for `name`; return the client's SSLObject."""
    if context is None:
        context = ssl.create_default_context(cafile=str(ca))
        context.check_hostname = False
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(down, up, server_hostname=name)
    server = store.context.wrap_bio(up, down, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return client


def names_shown(store: CertificateStore, ca: Path, name: str | None) -> set[str]:
    return {value for _, value in shake(store, ca, name).getpeercert()["subjectAltName"]}


@pytest.fixture
def store(authority: Any, tmp_path: Path) -> CertificateStore:
    return CertificateStore(
        config(
            authority.issue("first.example"),
            authority.issue("*.apps.example", "*.example"),
            authority.issue("Exact.apps.example"),
        ),
        tmp_path,
    )


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("first.example", {"first.example"}),
        ("exact.apps.example", {"Exact.apps.example"}),  # before the wildcard that fits as well
        ("EXACT.APPS.EXAMPLE", {"Exact.apps.example"}),
        ("any.apps.example", {"*.apps.example", "*.example"}),
        ("a.b.apps.example", {"first.example"}),  # a wildcard stands for one label
        ("apps.example", {"*.apps.example", "*.example"}),
        ("elsewhere.test", {"first.example"}),
        (None, {"first.example"}),
    ],
)
def test_the_certificate_shown_is_the_exact_name_then_a_wildcard_then_the_first(
    store: CertificateStore, authority: Any, asked: str | None, shown: set[str]
) -> None:
    assert names_shown(store, authority.ca, asked) == shown


def test_the_earlier_of_two_certificates_for_a_name_is_shown(authority: Any, tmp_path: Path) -> None:
    store = CertificateStore(config(authority.issue("a.example", "b.example"), authority.issue("b.example")), tmp_path)
    assert names_shown(store, authority.ca, "b.example") == {"a.example", "b.example"}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_sni_choice_and_alpn_hold_in_both_versions_of_tls(
    store: CertificateStore, authority: Any, version: ssl.TLSVersion
) -> None:
    context = ssl.create_default_context(cafile=str(authority.ca))
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    client = shake(store, authority.ca, "exact.apps.example", context=context)
    assert client.selected_alpn_protocol() == "http/1.1"
    assert client.compression() is None


def test_only_ciphers_with_forward_secrecy_and_authenticated_encryption_are_offered(store: CertificateStore) -> None:
    for cipher in store.context.get_ciphers():
        assert cipher["aead"]
        assert cipher["kea"] in ("kx-ecdhe", "kx-any")


def test_min_version_refuses_older_clients_and_a_reload_changes_it(authority: Any, tmp_path: Path) -> None:
    pair = authority.issue("a.example")
    store = CertificateStore(config(pair), tmp_path)
    old = ssl.create_default_context(cafile=str(authority.ca))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert shake(store, authority.ca, "a.example", context=old).version() == "TLSv1.2"
    store.reload(config(pair, min_version="1.3"))
    with pytest.raises(ssl.SSLError):
        shake(store, authority.ca, "a.example", context=old)
    assert shake(store, authority.ca, "a.example").version() == "TLSv1.3"


def test_a_reload_shows_new_certificates_through_the_same_context(store: CertificateStore, authority: Any) -> None:
    context = store.context
    store.reload(config(authority.issue("new.example")))
    assert store.context is context
    assert names_shown(store, authority.ca, "first.example") == {"new.example"}
    assert [info.names for info in store.certificates()] == [("new.example",)]


def test_a_broken_reload_keeps_every_old_certificate(store: CertificateStore, authority: Any, tmp_path: Path) -> None:
    before = store.certificates()
    missing = CertificateConfig(cert=tmp_path / "no.crt", key=tmp_path / "no.key")
    with pytest.raises(ConfigError):
        store.reload(config(authority.issue("new.example"), missing))
    assert store.certificates() == before
    assert names_shown(store, authority.ca, "exact.apps.example") == {"Exact.apps.example"}


def test_certificates_are_described(authority: Any, tmp_path: Path) -> None:
    pair = authority.issue("b.example", "a.example", "127.0.0.1", "::1")
    on_disk = x509.load_pem_x509_certificate(pair.cert.read_bytes())
    (info,) = CertificateStore(config(pair), tmp_path).certificates()
    assert info.names == ("b.example", "a.example", "127.0.0.1", "::1")
    assert info.not_before == on_disk.not_valid_before_utc.timestamp()
    assert info.not_after == on_disk.not_valid_after_utc.timestamp()
    assert info.issuer == "CN=test authority"
    assert int(info.serial, 16) == on_disk.serial_number
    assert not info.self_signed
    assert info.source == str(pair.cert)


def test_a_certificate_without_alternative_names_goes_by_its_common_name(authority: Any, tmp_path: Path) -> None:
    (info,) = CertificateStore(config(authority.issue(common_name="Old.example")), tmp_path).certificates()
    assert info.names == ("old.example",)


def test_an_expired_certificate_is_served_with_a_warning(
    authority: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = CertificateStore(config(authority.issue("a.example", lifetime=timedelta(days=-1))), tmp_path)
    assert len(store.certificates()) == 1
    assert "not valid now" in caplog.text


# --- what cannot be used --------------------------------------------------------------------------------


def problem(*pairs: Any, state_dir: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        CertificateStore(config(*pairs), state_dir)
    return str(caught.value)


def test_a_missing_file_is_named_with_its_key(authority: Any, tmp_path: Path) -> None:
    pair = CertificateConfig(cert=tmp_path / "no.crt", key=authority.issue("a.example").key)
    text = problem(pair, state_dir=tmp_path)
    assert text == f'tls.certificates[0].cert = "{tmp_path}/no.crt": cannot be read: no such file or directory'


def test_every_broken_pair_is_named_at_once(authority: Any, tmp_path: Path) -> None:
    good = authority.issue("a.example")
    text = problem(
        CertificateConfig(cert=tmp_path / "no.crt", key=good.key),
        good,
        CertificateConfig(cert=good.cert, key=tmp_path / "no.key"),
        state_dir=tmp_path,
    )
    assert "tls.certificates[0].cert" in text
    assert "tls.certificates[2].key" in text
    assert "tls.certificates[1]" not in text


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_file_that_is_no_certificate_is_refused(authority: Any, tmp_path: Path, content: bytes) -> None:
    pair = authority.issue("a.example")
    pair.cert.write_bytes(content)
    assert "is no PEM certificate" in problem(pair, state_dir=tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_file_that_is_no_key_is_refused(authority: Any, tmp_path: Path, content: bytes) -> None:
    pair = authority.issue("a.example")
    pair.key.write_bytes(content)
    assert "is no PEM private key" in problem(pair, state_dir=tmp_path)


def test_a_key_of_another_certificate_is_refused(authority: Any, tmp_path: Path) -> None:
    pair = CertificateConfig(cert=authority.issue("a.example").cert, key=authority.issue("b.example").key)
    assert "does not belong to the certificate in" in problem(pair, state_dir=tmp_path)


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_passphrase(authority: Any, tmp_path: Path) -> None:
    pair = authority.issue("a.example", passphrase=b"secret")
    assert "is encrypted" in problem(pair, state_dir=tmp_path)


def test_a_chain_in_the_wrong_order_is_refused_with_advice(authority: Any, tmp_path: Path) -> None:
    pair = authority.issue("a.example")
    pair.cert.write_bytes(authority.ca.read_bytes() + pair.cert.read_bytes())
    assert "belongs to certificate 2 of this file" in problem(pair, state_dir=tmp_path)


def test_a_chain_and_a_key_in_one_file_are_taken(authority: Any, tmp_path: Path) -> None:
    pair = authority.issue("a.example")
    pair.cert.write_bytes(pair.cert.read_bytes() + authority.ca.read_bytes() + pair.key.read_bytes())
    both = CertificateConfig(cert=pair.cert, key=pair.cert)
    assert names_shown(CertificateStore(config(both), tmp_path), authority.ca, None) == {"a.example"}


def test_a_key_too_weak_for_openssl_is_refused(authority: Any, tmp_path: Path) -> None:
    pair = authority.issue("a.example", key=rsa.generate_private_key(65537, 1024))
    assert "OpenSSL refuses it" in problem(pair, state_dir=tmp_path)


# --- the self-signed default ----------------------------------------------------------------------------


def test_without_certificates_a_self_signed_one_is_made_with_a_loud_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "worker-1.example")
    store = CertificateStore(TlsConfig(), tmp_path / "state")
    (info,) = store.certificates()
    assert info.self_signed
    assert info.names == ("worker-1.example", "localhost", "127.0.0.1", "::1")
    assert timedelta(seconds=info.not_after - info.not_before) == timedelta(days=397)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "NO CERTIFICATE IS CONFIGURED" in caplog.text
    assert names_shown(store, tmp_path / "state/tls/self-signed.crt", "localhost") >= {"localhost", "127.0.0.1"}


def test_the_self_signed_key_is_for_its_owner_only(tmp_path: Path) -> None:
    CertificateStore(TlsConfig(), tmp_path / "state")
    folder = tmp_path / "state/tls"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "self-signed.key").stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["self-signed.crt", "self-signed.key"]
    on_disk = x509.load_pem_x509_certificate((folder / "self-signed.crt").read_bytes())
    public_key = on_disk.public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    assert public_key.curve.name == "secp256r1"


def test_the_self_signed_certificate_is_used_again_at_the_next_start(tmp_path: Path) -> None:
    first = CertificateStore(TlsConfig(), tmp_path).certificates()
    assert CertificateStore(TlsConfig(), tmp_path).certificates() == first


@pytest.mark.parametrize(("age_in_days", "kept"), [(389, True), (391, False), (500, False)])
def test_the_self_signed_certificate_is_made_anew_a_week_before_it_expires(
    tmp_path: Path, age_in_days: int, kept: bool
) -> None:
    write_self_signed(tmp_path, datetime.now(UTC) - timedelta(days=age_in_days))
    before = (tmp_path / "tls/self-signed.crt").read_bytes()
    CertificateStore(TlsConfig(), tmp_path)
    assert ((tmp_path / "tls/self-signed.crt").read_bytes() == before) == kept


@pytest.mark.parametrize("victim", ["self-signed.crt", "self-signed.key"])
def test_a_damaged_self_signed_certificate_is_made_anew(tmp_path: Path, victim: str) -> None:
    before = CertificateStore(TlsConfig(), tmp_path).certificates()
    (tmp_path / "tls" / victim).write_bytes(b"nonsense")
    assert CertificateStore(TlsConfig(), tmp_path).certificates() != before


def test_a_self_signed_key_that_does_not_match_is_replaced_with_its_certificate(tmp_path: Path) -> None:
    CertificateStore(TlsConfig(), tmp_path)
    other = tmp_path / "other"
    CertificateStore(TlsConfig(), other)
    (other / "tls/self-signed.key").replace(tmp_path / "tls/self-signed.key")
    store = CertificateStore(TlsConfig(), tmp_path)
    assert "localhost" in names_shown(store, tmp_path / "tls/self-signed.crt", None)


def test_a_state_directory_that_takes_no_file_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"worker\.state_dir = .*cannot keep a self-signed certificate"):
        CertificateStore(TlsConfig(), tmp_path / "file")


def test_a_self_signed_certificate_that_cannot_be_written_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        CertificateStore(TlsConfig(), tmp_path)
    assert list((tmp_path / "tls").iterdir()) == []


def test_checking_certificates_changes_nothing(store: CertificateStore, authority: Any, tmp_path: Path) -> None:
    before = store.certificates()
    store.load(config(authority.issue("new.example")))
    missing = CertificateConfig(cert=tmp_path / "no.crt", key=tmp_path / "no.key")
    with pytest.raises(ConfigError):
        store.load(config(missing))
    assert store.certificates() == before


@pytest.mark.parametrize("host", ["under_score", "x" * 64, "-dash", "ünïcode", "localhost", ""])
def test_a_host_name_that_is_none_does_not_stop_the_self_signed_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    (info,) = CertificateStore(TlsConfig(), tmp_path).certificates()
    assert info.names == ("localhost", "127.0.0.1", "::1")
