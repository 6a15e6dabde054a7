"""What tests of timeouts have in common."""

from __future__ import annotations

from typing import Any

import pytest

NEAR = 0.05  # a deadline may be left where it is when it would move by less than 1/64


def near(seconds: float) -> Any:
    return pytest.approx(seconds, rel=NEAR)


def placed(where: str, **timeouts: str) -> dict[str, Any]:
    """The keys in the configuration, or on the route with the opposite in the configuration."""
    if where == "config":
        return {"config": {"timeouts": timeouts}}
    return {"config": {"timeouts": dict.fromkeys(timeouts, "1000s")}, "timeouts": timeouts}


WHERE = pytest.mark.parametrize("where", ["config", "route"])
