from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from trioproxy.units import (
    MAX_SECONDS,
    Bytes,
    Count,
    Seconds,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("0s", 0.0),
        ("250ms", 0.25),
        ("10s", 10.0),
        ("1.5s", 1.5),
        (" 5m ", 300.0),
        ("1h30m", 5400.0),
        ("1d", 86400.0),
        ("366d", MAX_SECONDS),
        (3, 3.0),
        (0.5, 0.5),
    ],
)
def test_a_duration_is_read_in_seconds(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "wrong", ["", "10", "s", "10 minutes", "1h 30m", "-1s", "1e3s", "10S", "\u0661s", None, True, [1], -1, -0.1, "367d"]
)
def test_what_is_no_duration_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(wrong)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_duration_is_finite(wrong: float) -> None:
    with pytest.raises(ValueError, match="out of range"):
        parse_duration(wrong)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("7", 7),
        ("7B", 7),
        ("64KiB", 65536),
        ("64 kib", 65536),
        ("10MB", 10_000_000),
        ("1GiB", 2**30),
        ("2GB", 2 * 10**9),
        ("3kb", 3000),
        ("1MiB", 2**20),
        (12, 12),
    ],
)
def test_a_size_is_read_in_bytes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "wrong", ["", "KiB", "1.5MiB", "-1", "1 TiB", "64 K", "\u0661", None, True, 1.5, -1, 2**63, f"{2**63}"]
)
def test_what_is_no_size_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(wrong)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (1e-12, "0s"),
        (1e-6, "0.001ms"),
        (0.25, "250ms"),
        (1.5, "1500ms"),
        (1000.001, "1000001ms"),
        (10, "10s"),
        (90, "90s"),
        (300, "5m"),
        (5400, "90m"),
        (7200, "2h"),
    ],
)
def test_a_duration_is_written_in_the_largest_exact_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0"), (1000, "1000"), (65536, "64KiB"), (2**20, "1MiB"), (2**31, "2GiB")]
)
def test_a_size_is_written_in_the_largest_exact_unit(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(0, int(MAX_SECONDS * 1000)))
def test_a_written_duration_reads_back_to_the_millisecond(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000, rel=1e-12)


@given(st.integers(0, 2**63 - 1))
def test_a_written_size_reads_back_exactly(size: int) -> None:
    assert parse_size(format_size(size)) == size


def test_the_types_parse_units_and_bound_counts() -> None:
    assert TypeAdapter(Seconds).validate_python("1m") == 60.0
    assert TypeAdapter(Bytes).validate_python("1KiB") == 1024
    assert TypeAdapter(Count).validate_python(0) == 0
    for kind, wrong in ((Seconds, "soon"), (Bytes, "much"), (Count, -1), (Count, 2**31)):
        with pytest.raises(ValidationError):
            TypeAdapter(kind).validate_python(wrong)


def test_the_types_show_that_text_is_allowed_in_their_schema() -> None:
    assert TypeAdapter(Seconds).json_schema()["type"] == ["string", "number"]
    assert TypeAdapter(Bytes).json_schema()["type"] == ["string", "integer"]
