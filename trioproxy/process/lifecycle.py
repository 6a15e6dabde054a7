"""Whether the worker is to end, and how: asked by signals, by the management API, and by services that crash."""

from __future__ import annotations

import trio


class Lifecycle:
    """Wishes, noted in sync calls; the supervisor waits for them.

    `draining` and `cut` are set once and for ever. `reload_wanted` and `upgrade_wanted` are renewed by whoever takes
    the wish up. `handed_over`: the drain is that of a generation whose successor serves already.
    """

    def __init__(self) -> None:
        self.draining = trio.Event()
        self.cut = trio.Event()
        self.reload_wanted = trio.Event()
        self.upgrade_wanted = trio.Event()
        self.crashed = False
        self.handed_over = False

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

    def request_upgrade(self) -> None:
        """Hand over to a new generation of the program, soon."""
        self.upgrade_wanted.set()

    def hand_over(self) -> None:
        """Another generation serves: let what runs here end, then stop."""
        self.handed_over = True
        self.draining.set()

    def service_crashed(self) -> None:
        """Something the worker cannot do without is broken: end in good order, and not as a success."""
        self.crashed = True
        self.draining.set()

    @property
    def clean(self) -> bool:
        """Whether everything could end as it was meant to."""
        return not self.crashed and not self.cut.is_set()
