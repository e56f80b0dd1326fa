"""The last failures of tasks that wait for another attempt."""

from __future__ import annotations

import logging

import pytest
from raising import ODD

from aioscheduler._routing.lastfailures import MOST, LastFailures, failure_line


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "aioscheduler")
    return caplog


def ref(scheduler: int, number: int) -> str:
    return f"{scheduler}/{number}"


def test_one_line_is_logged_for_each_cancelled_task(told: pytest.LogCaptureFixture) -> None:
    failures = LastFailures()
    failures.note(1, [3, 4, 5], ["a: E", "b: E", "c: E"])
    failures.note(1, [4], ["b: F"])
    failures.forget([5, 99])
    assert len(failures) == 2
    for _ in range(2):
        failures.log_cancelled(range(10), ref)
    assert [(record.levelname, record.args) for record in told.records] == [
        ("INFO", ("1/3", "a: E")),
        ("INFO", ("1/4", "b: F")),
    ]
    assert not failures


def test_no_line_is_long_and_there_are_not_too_many() -> None:
    failures = LastFailures()
    failures.note(0, range(MOST), ["x" * 10_000] * MOST)
    assert max(len(line) for _, line in failures._lines.values()) == 300
    failures.note(0, [MOST, MOST + 1], ["late", "later"])
    assert len(failures) == MOST
    assert next(iter(failures._lines)) == 2  # the oldest are gone


def test_the_line_of_a_failure_is_one_and_short_whatever_the_failure_is() -> None:
    assert failure_line("a report", ValueError("no\n such room")) == (
        "a report: ValueError: no such room"
    )
    for odd in ODD:
        assert failure_line("work", odd("on purpose")).startswith("work: ")
    failures = LastFailures()
    long = failure_line("n" * 10_000, ValueError("x" * 10_000))
    failures.note(0, [1], [long])
    assert failures._lines[1] == (0, long)  # not cut again here
    assert "n: ValueError: x" in long


def test_a_filter_that_raises_does_not_suppress_other_failures(
    told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = LastFailures()
    failures.note(0, [1, 2], ["a: E", "b: E"])
    asked: list[int] = []

    def refuse_the_first(record: logging.LogRecord) -> bool:
        asked.append(len(asked))
        if len(asked) == 1:
            raise LookupError
        return True

    monkeypatch.setattr(logging.getLogger("aioscheduler"), "filters", [refuse_the_first])
    failures.log_cancelled([1, 2], lambda scheduler, number: number)
    assert asked == [0, 1]
    assert len(told.records) == 1
