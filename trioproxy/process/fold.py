"""Several forwarders' figures as those of one worker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from trioproxy.control.messages import Activity, BackendInfo, BackendState
from trioproxy.routing.route import RouteKey

_GRAVITY: tuple[BackendState, ...] = ("healthy", "unhealthy", "ejected", "draining", "disabled")
"""Where forwarders differ about a backend, the last of these that any of them says counts."""


def fold_backends(reports: Iterable[Iterable[BackendInfo]]) -> tuple[BackendInfo, ...]:
    """One entry per backend of a route: sums, and the latest error."""
    found: dict[tuple[str, str, str], BackendInfo] = {}
    for backends in reports:
        for info in backends:
            key = (info.session_id, info.service, info.backend_id)
            known = found.get(key)
            found[key] = info if known is None else _fold_backend(known, info)
    return tuple(found.values())


def _fold_backend(one: BackendInfo, other: BackendInfo) -> BackendInfo:
    latest = max((one, other), key=lambda info: info.last_error_at or 0.0)
    gravest = max((one, other), key=lambda info: _GRAVITY.index(info.state))
    return replace(
        one,
        state=gravest.state,
        reason=gravest.reason,
        in_flight=one.in_flight + other.in_flight,
        requests=one.requests + other.requests,
        failures=max(one.failures, other.failures),
        last_error=latest.last_error,
        last_error_at=latest.last_error_at,
        last_check_at=max((at for at in (one.last_check_at, other.last_check_at) if at is not None), default=None),
    )


def fold_activity(reports: Iterable[Mapping[RouteKey, Activity]]) -> dict[RouteKey, Activity]:
    """One entry per route: sums, and the latest activity."""
    found: dict[RouteKey, Activity] = {}
    for activity in reports:
        for key, one in activity.items():
            known = found.get(key)
            found[key] = one if known is None else _fold_activity(known, one)
    return found


def _fold_activity(one: Activity, other: Activity) -> Activity:
    return Activity(
        last_activity=max(one.last_activity, other.last_activity),
        requests=one.requests + other.requests,
        bytes=one.bytes + other.bytes,
        connections=one.connections + other.connections,
    )
