from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from trioproxy.net.loads import Courtesy, Loads

Open = Callable[[int | None], Loads]


@pytest.fixture
def view() -> Iterator[Open]:
    """Opens the memory of three forwarders: as one of them, or as their supervisor."""
    descriptor = Loads.create(3)
    with ExitStack() as stack:
        stack.callback(os.close, descriptor)
        yield lambda mine: stack.enter_context(closing(Loads(descriptor, 3, mine=mine)))


def gives_way(loads: Loads) -> bool:
    return loads.exceed(loads.fewest())


def test_alone_nobody_gives_way(view: Open) -> None:
    loads = view(1)
    for connections in (0, 1, 1000):
        loads.tell(connections)
        assert not gives_way(loads)


def test_who_has_more_gives_way_and_who_has_as_many_does_not(view: Open) -> None:
    one, other = view(0), view(2)
    one.tell(0)
    other.tell(0)
    assert (gives_way(one), gives_way(other)) == (False, False)
    one.tell(1)
    assert (gives_way(one), gives_way(other)) == (True, False)
    other.tell(1)
    assert (gives_way(one), gives_way(other)) == (False, False)


def test_of_many_connections_a_few_more_are_no_reason(view: Open) -> None:
    one, other = view(0), view(1)
    other.tell(800)
    one.tell(900)
    assert not gives_way(one)
    one.tell(901)
    assert gives_way(one)


def test_nobody_waits_for_one_that_accepts_no_more(view: Open) -> None:
    one, other = view(0), view(1)
    one.tell(5)
    other.tell(1)
    assert gives_way(one)
    other.leave()
    other.tell(0)  # a connection of its drain ends
    assert not gives_way(one)


def test_nobody_waits_for_one_that_died(view: Open) -> None:
    one, other = view(0), view(1)
    one.tell(5)
    other.tell(1)
    view(None).clear(1)
    assert not gives_way(one)


class Pair:
    """A forwarder with ten connections, and its view of one with none."""

    def __init__(self, view: Open) -> None:
        self.mine, self.other = view(0), view(1)
        self.mine.tell(10)
        self.other.tell(0)
        self.courtesy = Courtesy(self.mine)
        self.now = 100.0

    def in_a_second(self, *, taken: int = 0) -> int:
        """How often it gives way when a connection is there all the time; `taken`: by the other, each time."""
        times = 0
        until = self.now + 1.0
        while self.now < until:
            if self.courtesy.is_due(self.now):
                times += 1
                self.now += 0.001
                self.other.tell(self.other.fewest() + taken)
                self.courtesy.done(self.now)
            else:
                self.now += 0.0005
        return times


def test_courtesy_goes_on_while_the_other_one_takes_what_is_left_to_it(view: Open) -> None:
    pair = Pair(view)
    assert pair.in_a_second(taken=1) == 9  # of ten against nine, nobody has clearly more


def test_courtesy_that_is_in_vain_becomes_rare(view: Open) -> None:
    pair = Pair(view)
    assert pair.in_a_second() < 20
    assert pair.in_a_second() < 12


def test_that_it_was_in_vain_is_forgotten(view: Open) -> None:
    pair = Pair(view)
    pair.in_a_second()
    pair.now += 1.2
    assert pair.courtesy.is_due(pair.now)
    pair.courtesy.done(pair.now)
    assert pair.courtesy.is_due(pair.now)
