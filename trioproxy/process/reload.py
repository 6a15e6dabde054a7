"""What a reload can change in a running worker, and what it cannot."""

from __future__ import annotations

from trioproxy.config.keys import dotted
from trioproxy.config.loader import leaves
from trioproxy.config.schema import Config

_FIXED = ("management.bind", "management.token", "management.token_file", "management.public_metrics")
_FIXED_WORKER = ("worker.id", "worker.state_dir", "worker.processes")
_FIXED_LOG = ("log.access",)
NEEDS_RESTART = (*_FIXED, *_FIXED_WORKER, *_FIXED_LOG)
"""Keys, and the tables, whose change takes effect at the next start."""


def needs_restart(old: Config, new: Config) -> tuple[str, ...]:
    """The keys that differ and cannot change in a running worker, in the order of the schema."""
    before = {dotted(path): value for path, value in leaves(old).items()}
    after = {dotted(path): value for path, value in leaves(new).items()}
    names = [*after, *(name for name in before if name not in after)]
    return tuple(name for name in names if _is_fixed(name) and before.get(name) != after.get(name))


def _is_fixed(name: str) -> bool:
    return any(name == fixed or name.startswith(f"{fixed}.") for fixed in NEEDS_RESTART)


def live_part(old: Config, new: Config) -> Config:
    """The new configuration, with the old values where only a restart changes them."""
    kept = ("id", "state_dir", "processes")
    worker = new.worker.model_copy(update={name: getattr(old.worker, name) for name in kept})
    log = new.log.model_copy(update={"access": old.log.access})
    return new.model_copy(update={"management": old.management, "worker": worker, "log": log})
