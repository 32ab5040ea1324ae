"""Work in threads: the order of the results, and that an error ends it."""

from __future__ import annotations

import time

import pytest

from ssdlib.data.threads import in_threads


def test_results_come_in_the_order_of_the_items() -> None:
    def work(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number * number

    assert list(in_threads(work, range(30), "squares", progress=False)) == [number * number for number in range(30)]
    assert list(in_threads(work, [], "squares", progress=False)) == []


def test_an_error_leaves_out_what_was_not_begun() -> None:
    begun = []

    def work(number: int) -> None:
        begun.append(number)
        time.sleep(0.001)
        if number == 0:
            raise ValueError("the first is damaged")

    with pytest.raises(ValueError, match="the first is damaged"):
        list(in_threads(work, range(2000), "looking", progress=False))
    assert len(begun) < 1000


def test_whoever_stops_listening_stops_the_work() -> None:
    begun = []

    def work(number: int) -> None:
        begun.append(number)
        time.sleep(0.001)

    results = in_threads(work, range(2000), "looking", progress=False)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(begun) < 1000
