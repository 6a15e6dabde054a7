"""In which way a route's backends are checked: its own keys over those of the configuration."""

from __future__ import annotations

from trioproxy.routing.route import Health

UNCHECKED = "waits for its first check"
"""Why a backend is not used yet, where its route asks for a first check."""
KEPT = 1024
"""Ways of checking that are kept, so that routes with the same one share it."""


class Specs:
    """Routes that say nothing about health, or "off", are not checked. Neither are those that inherit "off"."""

    def __init__(self, defaults: Health) -> None:
        self._defaults = defaults
        self._known: dict[tuple[Health, frozenset[str]], Health] = {}

    def set_defaults(self, defaults: Health) -> bool:
        """Use these from now on; whether they differ."""
        if defaults == self._defaults:
            return False
        self._defaults = defaults
        self._known.clear()
        return True

    def of(self, health: Health | None) -> Health | None:
        """The way in which the backends of a route with this health object are checked; None = they are not."""
        if health is None:
            return None
        key = (health, frozenset(health.model_fields_set))  # what was given is no part of equality
        spec = self._known.get(key)
        if spec is None:
            if len(self._known) >= KEPT:
                self._known.clear()
            spec = self._known[key] = health.over(self._defaults)
        return None if spec.kind == "off" else spec
