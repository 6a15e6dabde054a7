from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest

from trioproxy.observe.logs import setup_logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("trioproxy")
    before = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:], root.level, ours.level = before
    root.setLevel(before[1])
    ours.setLevel(before[2])


def logged(log_format: Literal["console", "json"], message: str = "hello", **extra: object) -> str:
    stream = io.StringIO()
    setup_logs("info", log_format, stream)
    logging.getLogger("trioproxy.net.listener").warning(message, extra=extra)
    return stream.getvalue()


def test_json_has_time_level_logger_message_and_fields() -> None:
    line = json.loads(logged("json", bind="0.0.0.0:1", count=3))
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "trioproxy.net.listener",
        "message": "hello",
        "bind": "0.0.0.0:1",
        "count": 3,
    }


def test_json_time_is_utc_in_milliseconds() -> None:
    stream = io.StringIO()
    setup_logs("info", "json", stream)
    record = logging.makeLogRecord({"created": 1.5, "name": "trioproxy", "levelno": 30, "levelname": "WARNING"})
    logging.getLogger().handle(record)
    assert json.loads(stream.getvalue())["time"] == "1970-01-01T00:00:01.500Z"


def test_an_extra_field_cannot_take_the_place_of_a_standard_one() -> None:
    assert json.loads(logged("json", level="fatal"))["level"] == "warning"


def test_json_of_a_value_it_does_not_know_is_its_text() -> None:
    assert json.loads(logged("json", what={1}))["what"] == "{1}"


def test_a_traceback_is_one_field_of_one_line() -> None:
    stream = io.StringIO()
    setup_logs("info", "json", stream)
    try:
        int("broken")
    except ValueError:
        logging.getLogger("trioproxy.x").exception("oh")
    assert stream.getvalue().count("\n") == 1
    assert "ValueError: invalid literal" in json.loads(stream.getvalue())["exception"]


def test_the_console_shows_fields_behind_the_message() -> None:
    line = logged("console", path="/a b", none=None, empty="")
    assert "WARNING net.listener: hello  " in line
    assert line.endswith('path="/a b" none=null empty=""\n')


def test_what_a_client_sent_can_neither_break_a_line_nor_steer_a_terminal() -> None:
    line = logged("console", "hello", path="\x1b[2Jx\nfake line\x9b")
    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert "\x9b" not in line


def test_the_console_shows_the_traceback_below() -> None:
    stream = io.StringIO()
    setup_logs("info", "console", stream)
    try:
        int("broken")
    except ValueError:
        logging.getLogger("trioproxy.x").exception("oh")
    assert stream.getvalue().rstrip().endswith("'broken'")


@pytest.mark.parametrize(("stream", "is_json"), [(io.StringIO(), True), (Terminal(), False)])
def test_without_a_format_a_terminal_gets_console_and_everything_else_json(stream: io.StringIO, is_json: bool) -> None:
    setup_logs("info", None, stream)
    logging.getLogger("trioproxy").info("x")
    assert stream.getvalue().startswith("{") is is_json


def test_a_second_set_up_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    setup_logs("info", "json", first)
    setup_logs("error", "json", second)
    logging.getLogger("trioproxy").warning("too quiet")
    logging.getLogger("trioproxy").error("loud enough")
    assert first.getvalue() == ""
    assert json.loads(second.getvalue())["message"] == "loud enough"


def test_libraries_are_heard_from_warning_on() -> None:
    stream = io.StringIO()
    setup_logs("debug", "json", stream)
    logging.getLogger("somelibrary").info("chatter")
    logging.getLogger("somelibrary").warning("trouble")
    logging.getLogger("trioproxy").debug("ours")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["trouble", "ours"]
