"""Work in a background thread: its order, its bounds and its errors."""

from __future__ import annotations

import time

import pytest

from wsdcast.runs.background import ahead, in_background


def test_the_writer_keeps_the_order_and_at_most_two_calls_wait():
    done, waiting = [], []
    with in_background() as later:
        for number in range(6):
            later(lambda number: (time.sleep(0.005), done.append(number)), number)
            waiting.append(number + 1 - len(done))
    assert done == list(range(6))
    assert max(waiting) <= 3  # one is being written and two wait


def test_an_error_of_the_writer_is_raised_and_nothing_is_written_after_it():
    done = []

    def fail():
        raise OSError("disk full")

    def block():
        with in_background() as later:
            later(done.append, 1)
            later(fail)
            for number in range(10):
                later(done.append, number)
                time.sleep(0.01)

    with pytest.raises(OSError, match="disk full"):
        block()
    assert done == [1]


def test_items_computed_ahead_arrive_in_order_and_errors_are_raised():
    produced = []

    def items():
        for number in range(3):
            produced.append(number)
            yield number
        raise ValueError("the end")

    items_ahead = ahead(items())
    assert next(items_ahead) == 0
    assert next(items_ahead) == 1
    assert next(items_ahead) == 2
    with pytest.raises(ValueError, match="the end"):
        next(items_ahead)
    assert produced == [0, 1, 2]
