"""What is known of backends, as plain JSON for the next generation of the program, which may be of another version."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, cast

from pydantic import ValidationError

from trioproxy.control.messages import AdminState, TargetHealth
from trioproxy.health.states import Ejection
from trioproxy.process.care import Care
from trioproxy.routing.route import Health

_LOG = logging.getLogger("trioproxy.process.bequest")


def write_down(care: Care) -> dict[str, Any]:
    """All that cannot be found out again at once."""
    return {
        "marks": [(*mark.route, mark.backend_id, mark.state) for mark in care.marks],
        "checked": [
            (one.address, one.spec.model_dump(mode="json"), one.up, one.reason, one.since, one.checked_at)
            for one in care.checked()
        ],
        "ejected": [(*one.route, one.backend_id, one.address, one.until, one.reason) for one in care.ejections()],
    }


def take_over(care: Care, left: Mapping[str, Any]) -> None:
    """Begin with what `write_down` has written. What makes no sense here is left out: it will be found out anew."""
    for session_id, service, backend_id, state in left.get("marks", ()):
        care.set_admin((session_id, service), backend_id, cast(AdminState, state))
    try:
        care.inherit(
            [
                TargetHealth(address, Health.model_validate(spec), up, reason, since, checked_at)
                for address, spec, up, reason, since, checked_at in left.get("checked", ())
            ],
            [
                Ejection((session_id, service), backend_id, address, until, reason)
                for session_id, service, backend_id, address, until, reason in left.get("ejected", ())
            ],
        )
    except (ValidationError, TypeError, ValueError) as error:
        _LOG.warning("what checks had found out is not understood, and is found out anew", extra={"error": str(error)})
