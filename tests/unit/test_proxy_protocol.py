from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.net.proxy_protocol import (
    HEADER_MAX_BYTES,
    V1_MAX_BYTES,
    Header,
    MalformedHeader,
    NeedMore,
    parse,
)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
ports = st.integers(0, 65535)
v4 = st.ip_addresses(v=4)
v6 = st.ip_addresses(v=6)


def v2(command: int, family: int, block: bytes) -> bytes:
    return SIGNATURE + bytes([0x20 | command, family]) + len(block).to_bytes(2, "big") + block


def v2_addresses(source: IPv4Address | IPv6Address, destination: IPv4Address | IPv6Address, a: int, b: int) -> bytes:
    return source.packed + destination.packed + a.to_bytes(2, "big") + b.to_bytes(2, "big")


@st.composite
def headers(draw: st.DrawFn) -> tuple[bytes, Header]:
    """A valid header of either version, and what it means."""
    kind = draw(st.sampled_from(["v1", "v1-unknown", "v2", "v2-local", "v2-unspec", "v2-unix"]))
    addresses = draw(st.sampled_from([v4, v6]))
    source, destination, a, b = draw(addresses), draw(addresses), draw(ports), draw(ports)
    tlvs = draw(st.binary(max_size=64))
    if kind == "v1":
        data = f"PROXY TCP{source.version} {source} {destination} {a} {b}\r\n".encode()
    elif kind == "v1-unknown":
        rest = draw(st.sampled_from([b"", b" ffff::1 ffff::2 1 2", b" anything at all"]))
        return (data := b"PROXY UNKNOWN" + rest + b"\r\n"), Header(None, None, len(data))
    elif kind == "v2":
        family = draw(st.sampled_from([0x11, 0x12])) if source.version == 4 else draw(st.sampled_from([0x21, 0x22]))
        data = v2(1, family, v2_addresses(source, destination, a, b) + tlvs)
    elif kind == "v2-unix":
        data = v2(1, 0x31, b"/run/a.sock".ljust(108, b"\0") * 2 + tlvs)
        return data, Header(("unix", 0), ("unix", 0), len(data))
    else:
        data = v2(0, 0x11, tlvs) if kind == "v2-local" else v2(1, 0x00, tlvs)
        return data, Header(None, None, len(data))
    return data, Header((str(source), a), (str(destination), b), len(data))


@given(header=headers(), rest=st.binary(max_size=40))
def test_a_header_is_read_and_what_follows_is_not_its(header: tuple[bytes, Header], rest: bytes) -> None:
    data, expected = header
    assert parse(data + rest) == expected


@given(header=headers(), data=st.data())
def test_every_beginning_of_a_header_asks_for_more_and_never_for_too_much(
    header: tuple[bytes, Header], data: st.DataObject
) -> None:
    whole, _ = header
    cut = data.draw(st.integers(0, len(whole) - 1))
    result = parse(whole[:cut])
    assert isinstance(result, NeedMore)
    assert 1 <= result.missing <= len(whole) - cut


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=100).map(lambda tail: SIGNATURE + tail)))
def test_any_bytes_are_a_header_a_beginning_or_malformed(data: bytes) -> None:
    try:
        result = parse(data)
    except MalformedHeader:
        return
    assert isinstance(result, NeedMore) or result.size <= len(data)


@given(garbage=st.binary(min_size=1, max_size=40))
def test_bytes_after_the_signature_of_version_1_never_crash_it(garbage: bytes) -> None:
    line = b"PROXY " + garbage.replace(b"\r\n", b"") + b"\r\n"
    try:
        result = parse(line)
    except MalformedHeader:
        return
    assert isinstance(result, Header)


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY\r\n",
        b"PROXY TCP4\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
        b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
        b"PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 ::1 ::2 1 2\r\n",
        b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 \xb2\r\n",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n" + b" " * V1_MAX_BYTES,
        b"PROXY UNKNOWN " + b"x" * V1_MAX_BYTES,
    ],
)
def test_a_version_1_line_that_is_not_exactly_right_is_malformed(line: bytes) -> None:
    with pytest.raises(MalformedHeader):
        parse(line)


def test_the_longest_version_1_line_is_taken() -> None:
    line = b"PROXY UNKNOWN " + b"f" * (V1_MAX_BYTES - 16) + b"\r\n"
    assert len(line) == V1_MAX_BYTES
    assert parse(line) == Header(None, None, V1_MAX_BYTES)


def test_a_version_1_line_one_byte_too_long_is_malformed_before_its_end_comes() -> None:
    with pytest.raises(MalformedHeader):
        parse((b"PROXY UNKNOWN " + b"f" * V1_MAX_BYTES)[:V1_MAX_BYTES])


@pytest.mark.parametrize(
    "data",
    [
        SIGNATURE + b"\x11\x11\0\x0c" + bytes(12),  # version 1 in the binary format
        SIGNATURE + b"\x22\x11\0\x0c" + bytes(12),  # command 2
        SIGNATURE + b"\x21\x41\0\x0c" + bytes(12),  # family 4
        SIGNATURE + b"\x21\x13\0\x0c" + bytes(12),  # transport 3
        v2(1, 0x11, bytes(11)),
        v2(1, 0x21, bytes(35)),
        v2(1, 0x31, bytes(215)),
        SIGNATURE[:-1] + b"X",
    ],
)
def test_a_version_2_header_that_breaks_the_format_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedHeader):
        parse(data)


def test_a_version_2_header_that_announces_too_much_is_refused_before_it_comes() -> None:
    announced = HEADER_MAX_BYTES - 16
    assert parse(SIGNATURE + b"\x21\x11" + announced.to_bytes(2, "big")) == NeedMore(announced)
    with pytest.raises(MalformedHeader):
        parse(SIGNATURE + b"\x21\x11" + (announced + 1).to_bytes(2, "big"))
