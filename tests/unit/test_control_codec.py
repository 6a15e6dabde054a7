from __future__ import annotations

import os
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.config.schema import Config
from trioproxy.control.codec import decode, encode, seal
from trioproxy.control.messages import (
    Activity,
    Applied,
    BackendChange,
    BackendInfo,
    Done,
    GetNews,
    GetReport,
    Hello,
    News,
    Refused,
    Report,
    SetBackend,
    SetConfig,
    SetEjected,
    SetHealth,
    Start,
    StartDrain,
    TargetHealth,
)
from trioproxy.errors import ControlError
from trioproxy.observe.metrics import Metrics
from trioproxy.routing.route import Health, Route

ROUTE = Route.model_validate(
    {
        "session_id": "s",
        "service": "v",
        "backends": [{"host": "::1", "port": 1, "tls": {"verify": False}}, {"host": "unix:/a/b.sock"}],
        "health": {"kind": "off"},
        "timeouts": {"connect": "5s"},
        "access": {"allowed_client_ips": ["10.0.0.0/8", "fe80::/10"]},
        "metadata": {"a": [1, None, {"b": 1.5}]},
    }
)
CONFIG = Config.model_validate(
    {
        "worker": {"id": "w", "state_dir": "/state"},
        "tls": {"certificates": [{"cert": "/c.pem", "key": "/k.pem"}]},
        "access": {"trusted_proxies": ["10.0.0.0/8"]},
        "providers": {"file": {"path": "/routes.toml"}},
        "routes": [ROUTE.model_dump()],
    }
)


def busy() -> Metrics:
    metrics = Metrics()
    metrics.service("v").requests["GET", 200] += 3
    metrics.service("v").seconds.observe(0.2)
    metrics.errors["no_route"] += 1
    return metrics


RECORDS: list[Any] = [
    Start("1.0", 3, CONFIG, (5, 6), 7, 8),
    Hello("1.0"),
    SetConfig(CONFIG),
    SetBackend(("s", "v"), "b", "draining"),
    StartDrain(2.5),
    GetReport(connections=True),
    Applied(7),
    Done(found=False),
    Refused(("no", "really")),
    Report(
        3,
        False,
        busy(),
        (BackendInfo("s", "v", "b", "h:1", 1, "healthy", 0, 3, 0, None, None),),
        {("s", "v"): Activity(1.0, 2, 3, 4)},
    ),
    ROUTE,
    SetHealth((TargetHealth("h:1", Health(kind="http", path="/up"), False, "refused", 1.0, 2.0),), whole=True),
    SetEjected(("s", "v"), "b", 12.5, "3 failures in a row"),
    GetNews(),
    News((BackendChange(("s", "v"), "b", "ejected", "healthy", "3 failures in a row", 1.0, 11.0),), lost=1),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_as_it_was(record: Any) -> None:
    assert decode(encode(record), type(record)) == record


def test_a_model_comes_back_with_what_was_given_and_what_was_worked_out() -> None:
    assert ROUTE.access.networks
    back = decode(encode(ROUTE), Route)
    assert back.model_dump(exclude_unset=True) == ROUTE.model_dump(exclude_unset=True)
    assert back.access.networks == ROUTE.access.networks
    assert back.backends[0].key == ROUTE.backends[0].key
    assert hash(back.backends) == hash(ROUTE.backends)
    assert back.model_copy(update={"service": "w"}).service == "w"
    assert Route.model_validate_json(back.model_dump_json()) == ROUTE


def test_a_copied_counter_goes_on_counting() -> None:
    back = decode(encode(busy()), Metrics)
    back.service("v").requests["GET", 404] += 1
    back.errors["new"] += 1
    assert isinstance(back.errors, Counter)


def test_a_record_of_another_kind_is_refused() -> None:
    with pytest.raises(ControlError, match="is a Hello"):
        decode(encode(Hello("1")), Start)


@pytest.mark.parametrize("value", [os.system, Path.home, pickle.loads, ControlError("x"), Config.model_validate])
def test_what_has_no_place_in_a_record_is_refused(value: object) -> None:
    with pytest.raises(ControlError):
        decode(seal(pickle.dumps(value)), object)


def test_the_way_through_a_module_of_ours_is_closed() -> None:
    # GLOBAL with a dotted name: what protocol 4 offers for nested classes.
    sneaky = b"\x80\x04\x8c\x17trioproxy.control.codec\x8c\x0cpickle.loads\x93."
    with pytest.raises(ControlError, match="has no place"):
        decode(seal(sneaky), object)


@given(st.binary(max_size=200))
def test_garbage_is_a_control_error_and_nothing_else(data: bytes) -> None:
    for garbage in (data, seal(data)):
        with pytest.raises(ControlError):
            decode(garbage, Report)


@given(st.data())
def test_a_damaged_record_is_found_before_it_is_read(data: st.DataObject) -> None:
    good = bytearray(encode(RECORDS[9]))
    place = data.draw(st.integers(0, len(good) - 1))
    good[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ControlError, match="damaged"):
        decode(bytes(good), object)
