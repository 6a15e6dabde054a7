"""Whether the worker is to end, and how: asked by signals, by the management API, and by services that crash."""

from __future__ import annotations

import trio


class Lifecycle:
    """Wishes, noted in sync calls; the supervisor waits for them.

    `draining` and `cut` are set once and for ever. `reload_wanted` is renewed by whoever takes the wish up.
    """

    def __init__(self) -> None:
        self.draining = trio.Event()
        self.cut = trio.Event()
        self.reload_wanted = trio.Event()
        self.crashed = False

    def start_drain(self) -> None:
        """Let what runs end, then stop."""
        self.draining.set()

    def stop_now(self) -> None:
        """Stop without waiting for what runs."""
        self.draining.set()
        self.cut.set()

    def request_reload(self) -> None:
        """Read the configuration again, soon."""
        self.reload_wanted.set()

    def service_crashed(self) -> None:
        """Something the worker cannot do without is broken: end in good order, and not as a success."""
        self.crashed = True
        self.draining.set()

    @property
    def clean(self) -> bool:
        """Whether everything could end as it was meant to."""
        return not self.crashed and not self.cut.is_set()
