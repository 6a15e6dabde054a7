from __future__ import annotations

import pytest

from trioproxy.http1 import parse


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The rules for messages hold in both lanes: every test of theirs runs with the canonical one, and without."""
    if metafunc.module.__name__.rpartition(".")[2].startswith("test_rules_"):
        metafunc.fixturenames.append("lane")
        metafunc.parametrize("lane", ["canonical", "h11"], indirect=True)


@pytest.fixture
def lane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which lane takes heads apart: the canonical one where it can, or always the other one."""
    if request.param == "h11":

        def decline(*_: object, **__: object) -> None:
            return None

        monkeypatch.setattr(parse, "canonical_request", decline)
        monkeypatch.setattr(parse, "canonical_response", decline)
