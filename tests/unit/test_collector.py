from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from trioproxy.control.collector import AT_ONCE, let_go, many_objects


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_many_objects_are_made_without_a_full_look_and_kept_from_later_ones() -> None:
    usual = gc.get_threshold()
    frozen = gc.get_freeze_count()
    with many_objects():
        assert gc.get_threshold()[:2] == usual[:2]
        assert gc.get_threshold()[2] > 1_000_000
        with many_objects():  # in another thread, say
            pass
        assert gc.get_threshold()[2] > 1_000_000
        kept = [[number] for number in range(1000)]
    assert gc.get_threshold() == usual
    assert gc.get_freeze_count() >= frozen + len(kept)


def test_the_collector_works_as_before_after_a_failure() -> None:
    usual = gc.get_threshold()
    with pytest.raises(ZeroDivisionError), many_objects():
        raise ZeroDivisionError
    assert gc.get_threshold() == usual


@pytest.mark.parametrize("count", [0, 1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE])
def test_a_list_is_emptied(count: int) -> None:
    items = list(range(count))
    let_go(items)
    assert items == []
