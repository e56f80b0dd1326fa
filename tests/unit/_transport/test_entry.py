"""A task that starts again: which fields stay, and which change."""

from __future__ import annotations

import pytest

from aioscheduler._transport import wire
from aioscheduler._transport.entry import Entry
from aioscheduler._transport.wire import More, Record

FIRST = Entry(1, 100, 7, None, b"payload")


def entry(due: int, more: More) -> Entry:
    return FIRST._replace(due=due, record=wire.make_record(more))


def test_one_that_has_failed_starts_at_its_time_and_knows_what_it_was_given() -> None:
    second = FIRST.retry(500, timed=True)
    assert second == entry(500, More(attempt=2, failed=1, given=100))
    assert second.retry(900, timed=True) == entry(900, More(attempt=3, failed=2, given=100))


def test_in_a_queue_it_rests_until_then_and_was_given_no_time() -> None:
    queued = FIRST._replace(due=0)
    again = queued.retry(500, timed=False).retry(900, timed=False)
    assert again == entry(900, More(attempt=3, failed=2))
    assert again.rerun(0) == entry(900, More(attempt=4, failed=2))


def test_what_it_was_given_is_moved_by_no_retry() -> None:
    assert FIRST.given == FIRST.retry(500, timed=True).retry(900, timed=True).given == 100
    assert FIRST.retry(500, timed=True).move(300).given == 300


def test_one_whose_worker_has_died_has_not_failed() -> None:
    assert FIRST.rerun(0) == entry(100, More(attempt=2))
    assert FIRST.retry(500, timed=True).rerun(0) == entry(500, More(attempt=3, failed=1, given=100))


def test_one_that_may_have_killed_its_worker_begins_alone_and_on_the_host_s_word() -> None:
    alone = FIRST.rerun(wire.ALONE)
    assert alone == entry(100, More(attempt=2, confirmed=wire.ALONE))
    # A failure clears it: it begins on CONFIRM like others.
    failed = alone.retry(500, timed=True)
    assert failed == entry(500, More(attempt=3, failed=1, given=100, confirmed=1))


def test_one_that_is_moved_was_given_that_time() -> None:
    assert FIRST.move(300) == FIRST._replace(due=300)
    moved = FIRST.retry(500, timed=True).move(300)
    assert moved == entry(300, More(attempt=2, failed=1))
    assert moved.retry(700, timed=True) == entry(700, More(attempt=3, failed=2, given=300))


@pytest.mark.parametrize(
    "record", [5, wire.make_record(More(5, 1 << 50, 3, True, captured=b"values"))]
)
def test_nothing_else_changes(record: Record) -> None:
    before = wire.read_record(record)
    again = FIRST._replace(record=record).retry(500, timed=True).rerun(0).move(300)
    options, alias, _, confirmed, _, _, context = wire.read_record(again.record)
    assert (options, alias, confirmed) == (before.options, before.alias, before.confirmed)
    assert context == before.captured
    assert (again.scheduler, again.function, again.payload) == (1, 7, b"payload")
