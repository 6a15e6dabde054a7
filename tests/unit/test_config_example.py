from __future__ import annotations

import re
import tomllib
from pathlib import Path

from trioproxy.config.example import example_config
from trioproxy.config.keys import dotted
from trioproxy.config.loader import leaves, load
from trioproxy.config.schema import Config

FILE = Path(__file__).parents[2] / "config.example.toml"


def uncommented() -> str:
    """The example with every key and table switched on, and the prose still commented out."""
    return re.sub(r"(?m)^# (\[[a-z.\[\]]+\]|[a-z_]+ = .*)$", r"\1", example_config())


def test_the_file_in_the_repository_is_what_the_program_prints() -> None:
    assert FILE.read_text(encoding="utf-8") == example_config()


def test_the_example_as_it_is_says_what_the_defaults_say() -> None:
    assert load(FILE, environ={}, overrides=[]).config == Config()


def test_every_value_shown_is_a_legal_one() -> None:
    config = Config.model_validate(tomllib.loads(uncommented()))
    assert config.routes[0].session_id == "abc123"
    assert config.providers.file is not None


def test_every_key_of_the_schema_is_shown() -> None:
    shown = {dotted(path) for path in leaves(Config.model_validate(tomllib.loads(uncommented())))}
    assert {dotted(path) for path in leaves(Config())} - shown <= {"routes", "providers.file", "tls.certificates"}


def test_values_shown_are_the_defaults_where_those_are_the_same_everywhere() -> None:
    shown = leaves(Config.model_validate(tomllib.loads(uncommented())))
    samples = {"worker.id", "worker.state_dir", "management.token", "management.token_file", "log.format"}
    samples |= {"sticky.secret", "sticky.secret_file"}
    samples |= {"health.active.host", "health.active.body", "access.trusted_proxies", "access.permit_secret"}
    for path, value in leaves(Config()).items():
        if path in shown and dotted(path) not in samples:
            assert shown[path] == value, dotted(path)


def test_lines_fit_a_terminal() -> None:
    assert max(len(line) for line in example_config().splitlines()) <= 120
