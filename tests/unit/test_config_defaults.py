from __future__ import annotations

from pathlib import Path

import pytest

from trioproxy.config.schema import default_state_dir


def test_root_keeps_its_state_where_systems_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_state_dir() == Path("/var/lib/trioproxy")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/trioproxy"),
        ({"XDG_STATE_HOME": "", "HOME": "/h"}, "/h/.local/state/trioproxy"),
    ],
)
def test_anybody_else_keeps_it_at_home(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], expected: str) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert default_state_dir() == Path(expected)


def test_a_user_without_a_home_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert default_state_dir() == Path("/var/lib/trioproxy")
