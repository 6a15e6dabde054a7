"""What the routes of a forwarder have in common about backends: settings, results of active checks, news for others."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterable

from trioproxy.config.schema import Config
from trioproxy.control.messages import BackendChange, News, TargetHealth
from trioproxy.policy.specs import UNCHECKED, Specs
from trioproxy.routing.route import Backend, Health

MAX_NEWS = 1000
"""Changes kept for the supervisor, which asks every second."""


class Findings:
    """Owned by the balancer. `clock` tells seconds, `rng` a number from 0 to 1; `index` is the forwarder's.

    `generation` rises with whatever may make a difference to who can be chosen, on any route.
    """

    def __init__(self, config: Config, clock: Callable[[], float], rng: Callable[[], float], index: int = 0) -> None:
        self.clock = clock
        self.rng = rng
        self.index = index
        self.generation = 0
        self.health = config.health
        self._specs = Specs(config.health.active)
        self.secret = secrets.token_bytes(32)
        self._targets: dict[Health, dict[str, TargetHealth]] = {}
        self._news: deque[BackendChange] = deque()
        self._lost = 0
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Use these settings from now on. Without a secret, cookies hold for this forwarder only."""
        self.health = config.health
        self._specs.set_defaults(config.health.active)
        if config.sticky.secret is not None:
            self.secret = config.sticky.secret.encode()
        self.generation += 1

    def set_targets(self, states: Iterable[TargetHealth], *, whole: bool) -> None:
        """Take results of active checks. `whole`: they are all there are."""
        if whole:
            self._targets = {}
        for state in states:
            if state.up is not None:
                self._targets.setdefault(state.spec, {})[state.address] = state
            elif (known := self._targets.get(state.spec)) is not None:
                known.pop(state.address, None)
                if not known:
                    del self._targets[state.spec]
        self.generation += 1

    def target(self, backend: Backend, spec: Health | None) -> TargetHealth | None:
        """What the checks of this kind say of a backend; None = nothing yet, or there are none."""
        spec = self._specs.of(spec)
        return None if spec is None else self._targets.get(spec, {}).get(backend.key)

    def illness(self, backend: Backend, spec: Health | None) -> str | None:
        """Why the checks of this kind keep a backend from being used; None = they do not."""
        spec = self._specs.of(spec)
        if spec is None:
            return None
        found = self._targets.get(spec, {}).get(backend.key)
        if found is not None:
            return None if found.up else found.reason
        return UNCHECKED if spec.first_check else None

    def tell(self, change: BackendChange) -> None:
        """Keep a change for the supervisor; the oldest one goes when there is no room."""
        if len(self._news) >= MAX_NEWS:
            self._news.popleft()
            self._lost += 1
        self._news.append(change)

    def take_news(self) -> News:
        """What was told since the last call."""
        news = News(tuple(self._news), self._lost)
        self._news.clear()
        self._lost = 0
        return news
