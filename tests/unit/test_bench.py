"""The arithmetic of the benchmark."""

from __future__ import annotations

import pytest
from bench.figures import Spread, ratio, show
from bench.load.arrivals import percentile
from bench.result import Metric, Result, Target
from bench.stacks import COLLECTION, sum_up


def test_ratios_are_taken_round_by_round() -> None:
    assert ratio([1, 4, 9], [1, 2, 3]) == Spread(median=2, low=1, high=3)


@pytest.mark.parametrize(("value", "shown"), [(0.1234, "0.123"), (12.34, "12.3"), (9999, "9999"), (45_678, "45.7 k")])
def test_figures_have_three_digits(value: float, shown: str) -> None:
    assert show(value) == shown


@pytest.mark.parametrize(("part", "value"), [(0.5, 50), (0.99, 99), (0.001, 1), (1.0, 100)])
def test_a_percentile_is_a_value_that_occurred(part: float, value: int) -> None:
    assert percentile(range(1, 101), part) == value


@pytest.mark.parametrize(
    ("below", "value", "judgement"),
    [
        (False, 1.6, "stretch met"),
        (False, 1.2, "met"),
        (False, 1.1, "not met"),
        (True, 1.1, "stretch met"),
        (True, 1.3, "not met"),
    ],
)
def test_a_target_is_a_bound_on_one_side(below: bool, value: float, judgement: str) -> None:
    assert Target("ours", "theirs", "rate", 1.2, 1.2 if below else 1.5, below=below).judge(value) == judgement


def test_a_target_without_stretch_is_met_and_no_more() -> None:
    assert Target("ours", None, "seconds", 1, below=True).judge(0.1) == "met"


def test_a_contender_that_is_no_proxy_is_not_compared() -> None:
    samples = {name: [{"rate": rate}] for name, rate in (("ours", 2.0), ("theirs", 4.0), ("no proxy", 9.0))}
    result = Result("key", "title", ("ours",), (Metric("rate", ""),), samples, uncompared=frozenset({"no proxy"}))
    assert result.ratios() == {("ours", "theirs", "rate"): Spread(0.5, 0.5, 0.5)}


def test_a_sample_belongs_to_the_innermost_frame_of_the_program() -> None:
    idle = "WorkerThread._work (/v/site-packages/trio/_core/_thread_cache.py:6);acquire (python3.11)"
    start = "run (/v/site-packages/trio/_core/_run.py:1);serve (/w/trioproxy/proxy/connection.py:2)"
    shares = sum_up(
        [
            f"{start} 3",
            f"{start};<genexpr> (/usr/lib/python3.11/re.py:3);memcpy (libc.so.6) 2",
            f"{start};send (/v/site-packages/trio/_socket.py:4);sock_send (python3.11);__libc_send (libc.so.6) 4",
            f"{start};gc_collect_main (python3.11) 1",
            f"_bootstrap (/usr/lib/python3.11/threading.py:5);{idle} 7",
        ]
    )
    assert shares.samples == 10
    assert shares.parts == {"trioproxy/proxy/connection.py": 5, "kernel: send": 4, COLLECTION: 1}
    assert shares.functions["trioproxy/proxy/connection.py serve"] == 5
