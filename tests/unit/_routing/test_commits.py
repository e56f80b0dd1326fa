"""Batch after batch: when they are written, who is notified, and what if they cannot be."""

from __future__ import annotations

import asyncio
import logging

import pytest
from stores import FULL, GONE, Place

from aioscheduler._durable.group import Kept
from aioscheduler._durable.records import Batch, Reason, Row, StoreGone, Unwritable
from aioscheduler._routing import commits as module
from aioscheduler.errors import StoreError


@pytest.fixture
def place() -> Place:
    return Place()


def test_what_changes_in_a_turn_is_one_batch_and_what_comes_meanwhile_the_next(
    place: Place,
) -> None:
    place.start()
    kept = [place.put() for _ in range(3)]
    place.loop.turn()
    assert place.commits.unsaved == 4  # with the function
    place.put()
    place.loop.turn()
    assert len(place.writer.jobs) == 1
    for each in kept:
        place.watch(each.stamp)
    place.writer.work()
    assert [error for _, error in place.told] == [None] * 3
    assert place.commits.unsaved == 2
    place.turn()
    assert [len(batch.puts) for batch in place.store.batches] == [3, 1]
    assert (place.commits.unsaved, place.commits.tasks, place.aged) == (0, 4, 2)


def test_nothing_is_written_before_the_start(place: Place) -> None:
    place.put()
    assert not place.loop.ready
    place.start()
    place.turn()
    assert len(place.store.batches) == 1


def test_changes_that_cancel_out_count_as_on_disk(place: Place) -> None:
    place.start()
    place.turn()
    kept = Kept.of(row := Row(place.group.new_row(), 5, 1, b""))
    place.group.put(kept, row)
    place.group.strike(kept)
    place.watch(kept.stamp)
    place.turn()
    assert place.told == [(kept.stamp, None)]
    assert place.store.batches == []
    assert not place.loop.ready  # nothing is left to do


def test_waiters_for_higher_stamps_are_notified_later(place: Place) -> None:
    place.start()
    first = place.put()
    place.loop.turn()
    second = place.put()
    place.watch(second.stamp)
    place.watch(first.stamp)  # behind a waiter for a higher stamp
    place.writer.work()
    assert [stamp for stamp, _ in place.told] == [first.stamp]
    place.watch(first.stamp)
    place.turn()
    assert [stamp for stamp, _ in place.told] == [first.stamp, first.stamp, second.stamp]


def test_letters_and_tasks_are_counted(place: Place) -> None:
    place.start()
    kept = [place.put() for _ in range(5)]
    place.turn()
    place.group.strike(kept[0])
    for each in kept[1:3]:
        place.group.bury(each, Reason.FAILED, "why", 7)
    place.commits.soon()
    place.turn()
    assert (place.commits.tasks, place.commits.letters) == (2, 2)
    place.group.discard_letter(kept[1].row)
    place.commits.letters -= 1  # as `Letters.drop` does
    place.commits.soon()
    place.turn()
    assert (place.commits.tasks, place.commits.letters) == (2, 1)
    assert len(place.store.rows()) == 2
    assert [letter.row for letter in place.store.dead()] == [kept[2].row]


def test_a_store_that_cannot_be_written_is_tried_again_with_longer_waits(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.start()
    kept = place.put()
    place.watch(kept.stamp)
    place.store.fails = FULL
    place.turn()
    waits = []
    for _ in range(7):
        assert len(place.loop.timers) == 1
        waits.append(place.loop.timers[0][0] - place.loop.now)
        place.put()
        place.turn()  # without effect
        assert not place.writer.jobs
        place.loop.pass_(waits[-1])
        place.writer.work()
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 2  # the second after a minute
    assert errors[0] == (
        "tasks.db cannot be written: the disk is full; 2 changes of durable tasks wait for it; "
        "tasks go on, and writing is retried"
    )
    assert place.told == []
    place.store.fails = None
    place.loop.pass_(30)
    place.writer.work()
    assert caplog.records[-1].getMessage() == "tasks.db can be written again; nothing was lost"
    assert place.told == [(kept.stamp, None)]
    place.turn()
    assert [len(batch.puts) for batch in place.store.batches] == [1, 7]
    place.store.fails = FULL
    place.put()
    place.turn()
    assert place.loop.timers[0][0] - place.loop.now == 1  # it starts over
    assert "cannot be written" in caplog.records[-1].getMessage()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (GONE, "tasks.db was deleted"),
        (MemoryError("no room"), r"tasks.db cannot be written: MemoryError\('no room'\)"),
    ],
)
def test_a_store_that_is_gone_is_the_end(place: Place, error: Exception, message: str) -> None:
    place.start()
    kept = place.put()
    place.turn()
    late = place.put()
    place.watch(late.stamp)
    place.store.fails = error
    place.turn()
    (failure,) = place.failures
    assert isinstance(failure, StoreError)
    assert failure is error or failure.__cause__ is error
    with pytest.raises(StoreError, match=message):
        place.commits.check_room()
    place.watch(late.stamp)
    place.watch(kept.stamp)
    there = failure if isinstance(failure, StoreGone) else None  # unknown if the store is gone
    assert place.told == [(late.stamp, failure)] * 2 + [(kept.stamp, there)]
    assert place.commits.has(kept.stamp)
    assert not place.commits.has(late.stamp)
    place.put()
    assert not place.loop.ready
    assert not place.loop.timers


def test_a_writer_that_is_dead_is_the_end(place: Place) -> None:
    place.start()
    place.loop.turn()
    place.writer.dead = StoreError("nobody writes")
    place.watch(place.put().stamp)
    place.turn()
    assert place.failures == [place.writer.dead]
    assert place.told[0][1] is place.writer.dead


def test_an_end_is_reported_once_and_is_final(place: Place) -> None:
    place.start()
    kept = place.put()
    place.watch(kept.stamp)
    first = StoreError("first")
    place.commits.stop(first)
    place.commits.stop(StoreError("second"))
    place.turn()
    assert place.told == [(kept.stamp, first)]
    assert place.store.batches == []


def test_a_batch_under_way_at_a_stop_does_not_count_as_written(place: Place) -> None:
    place.start()
    kept = place.put()
    place.loop.turn()
    place.commits.stop(StoreError("over"))
    place.writer.work()
    assert place.store.batches  # it is written all the same
    assert not place.commits.has(kept.stamp)


def test_a_retry_that_waits_is_given_up_at_the_end(place: Place) -> None:
    place.start()
    place.put()
    place.store.fails = FULL
    place.turn()
    place.commits.stop(StoreError("over"))
    place.store.fails = None
    place.loop.pass_(60)
    place.writer.work()
    assert place.store.batches == []


def test_much_that_waits_is_refused_only_while_the_store_cannot_write(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_UNSAVED", 5)
    place.start()
    for _ in range(9):
        place.put()
    place.commits.check_room()
    place.store.fails = FULL
    place.turn()
    with pytest.raises(StoreError, match="10 changes of durable tasks wait for tasks.db, which"):
        place.commits.check_room()
    place.store.fails = None
    place.loop.pass_(1)
    place.writer.work()
    place.commits.check_room()


def test_too_many_unsaved_bytes_are_refused_too(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_UNSAVED_BYTES", 1000)
    place.start()
    place.store.fails = FULL
    place.put()
    place.turn()
    place.put(b"x" * 700)
    place.commits.check_room()
    place.put(b"x" * 700)
    with pytest.raises(StoreError, match="nothing is lost, and writing is retried"):
        place.commits.check_room()


def test_a_batch_is_cut_at_its_bytes_and_all_of_them_are_written(place: Place) -> None:
    place.start()
    for _ in range(3):
        place.put(b"x" * (5 << 20))
    for _ in range(3):
        place.turn()
    assert [len(batch.puts) for batch in place.store.batches] == [1, 1, 1]


def test_the_figures_are_of_the_last_commits(place: Place) -> None:
    assert place.commits.figures() == {
        "stored": 0,
        "dead_letters": 0,
        "unsaved": 0,
        "commit_p50": 0.0,
        "commit_p99": 0.0,
    }
    place.start()
    for seconds in [0.5] * 98 + [3.0, 9.0]:
        place.put()
        place.loop.turn()
        place.loop.now += seconds
        place.writer.work()
    figures = place.commits.figures()
    assert (figures["commit_p50"], figures["commit_p99"], figures["stored"]) == (0.5, 9.0, 100)
    assert place.commits.times.maxlen == 1024


# ---- with a loop of asyncio's


class Live(Place):
    """A `Place` started in the running loop."""

    def start(self) -> None:
        self.commits.start(asyncio.get_running_loop())


async def turns(place: Place, count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
        place.writer.work()


async def test_waiters_may_be_cancelled() -> None:
    place = Live()
    place.start()
    kept = place.put()
    waiting = asyncio.create_task(place.commits.wait(kept.stamp))
    await asyncio.sleep(0)
    waiting.cancel()
    other = asyncio.create_task(place.commits.wait(kept.stamp))
    await turns(place)
    await other
    assert waiting.cancelled()


async def test_waiters_are_notified_of_the_end() -> None:
    place = Live()
    place.start()
    waiting = asyncio.create_task(place.commits.wait(place.put().stamp))
    await asyncio.sleep(0)
    place.commits.stop(StoreError("over"))
    with pytest.raises(StoreError, match="over"):
        await waiting


async def test_settle_waits_only_while_much_is_being_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MUCH_UNSAVED", 2)
    place = Live()
    place.start()
    place.put()
    await place.commits.settle()
    for _ in range(3):
        place.put()
    settling = asyncio.create_task(place.commits.settle())
    await asyncio.sleep(0)
    assert not settling.done()
    await turns(place)
    await settling
    for _ in range(3):
        place.put()
    place.store.fails = FULL
    await turns(place)
    await place.commits.settle()  # waiting is useless
    place.commits.stop(StoreError("over"))
    await place.commits.settle()


async def test_a_close_waits_as_long_as_there_is_progress(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "CLOSE_PATIENCE", 0.0)
    place = Live()
    place.start()
    place.put(b"x" * (9 << 20))
    place.put()
    finishing = asyncio.create_task(place.commits.finish())
    await turns(place, 20)
    assert await finishing
    place.store.fails = FULL
    place.put()
    finishing = asyncio.create_task(place.commits.finish())
    await turns(place)
    assert not await finishing
    assert caplog.records[-1].getMessage() == (
        "tasks.db cannot be written: 2 changes of durable tasks are lost, unless it can be before "
        "this manager has closed; tasks that had ended may run once more"
    )
    stamp = place.group.stamp
    assert not place.commits.has(stamp)  # so no task ends as kept
    assert not await place.commits.finish()  # at once, and without another report
    assert [record.levelname for record in caplog.records].count("ERROR") == 2


async def test_finish_raises_when_nothing_can_be_written_any_more() -> None:
    place = Live()
    place.start()
    place.put()
    place.commits.stop(StoreError("over"))
    with pytest.raises(StoreError, match="over"):
        await place.commits.finish()


def test_unwritable_changes_are_left_out_and_the_others_written(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.start()
    good, bad, other = (place.put(payload) for payload in (b"1", b"bad", b"2"))
    commit = place.store.commit

    def refuse(batch: Batch) -> None:
        if any(put.payload == b"bad" for put in batch.puts):
            raise Unwritable("too big")
        commit(batch)

    place.store.commit = refuse  # type: ignore[method-assign]
    place.watch(other.stamp)
    place.turn()
    assert place.told == [(other.stamp, None)]
    assert [row.row for row in place.store.rows()] == [good.row, other.row]
    assert list(place.commits.refused) == [bad.row]
    assert (place.commits.tasks, place.commits.unsaved) == (2, 0)
    assert "too big; this change of a durable task is left out" in caplog.text


async def test_the_number_of_very_many_changes_left_out_is_logged(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = place.store.commit

    def refuse(batch: Batch) -> None:
        if batch.puts:
            raise Unwritable("a page is bad")
        commit(batch)

    monkeypatch.setattr(place.store, "commit", refuse)
    place.start()
    for _ in range(1_210):
        place.put()
    place.turn()
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 11
    assert told[-1] == "a page is bad; 1,200 more changes are left out"


def test_a_letter_and_the_task_in_its_place_are_left_out_together(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.start()
    letters = [place.put() for _ in range(2)]
    for kept in letters:
        place.group.bury(kept, Reason.FAILED, "why", 7)
    place.turn()
    commit = place.store.commit

    def refuse(batch: Batch) -> None:
        if any(row.payload == b"bad" for row in batch.puts):
            raise Unwritable("a page is bad")
        commit(batch)

    monkeypatch.setattr(place.store, "commit", refuse)
    for letter, payload in zip(letters, (b"bad", b"good"), strict=True):
        with place.group.whole():
            instead = place.put(payload)
            place.group.discard_letter(letter.row, instead.row)
        place.commits.letters -= 1  # as `Letters.drop` does
    place.turn()
    assert [letter.row for letter in place.store.dead()] == [letters[0].row]
    assert [row.payload for row in place.store.rows()] == [b"good"]
    assert (place.commits.letters, place.commits.tasks) == (1, 1)
    assert caplog.messages == [
        "a page is bad; this change of a durable task is left out: "
        f"the requeueing of dead letter {letters[0].row}, which stays one"
    ]


@pytest.mark.parametrize("at_once", [False, True])
def test_the_end_of_what_was_left_out_takes_nothing_off_the_counts(
    place: Place, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    commit = place.store.commit

    def refuse(batch: Batch) -> None:
        if any(row.payload == b"bad" for row in batch.puts):
            raise Unwritable("a page is bad")
        commit(batch)

    monkeypatch.setattr(place.store, "commit", refuse)
    place.start()
    place.put()
    struck, buried = place.put(b"bad"), place.put(b"bad")
    if not at_once:
        place.turn()
    place.group.strike(struck)
    place.group.bury(buried, Reason.FAILED, "why", 7)
    place.commits.soon()
    place.turn()
    place.turn()
    assert (place.commits.tasks, place.commits.letters) == (1, 0)
    assert (len(place.store.rows()), len(place.store.dead())) == (1, 0)


async def test_a_close_tries_once_more_at_once(place: Place) -> None:
    place.start()
    kept = place.put()
    place.store.fails = FULL
    for _ in range(3):
        place.turn()
        if place.loop.timers:
            place.loop.pass_(place.loop.timers[0][0] - place.loop.now)
    assert place.commits.unsaved
    place.store.fails = None
    finishing = asyncio.ensure_future(place.commits.finish())
    await asyncio.sleep(0)
    place.writer.work()
    assert await finishing
    assert place.commits.reached >= kept.stamp


# ---- when the loop is over


def test_what_is_left_when_the_loop_is_over_is_written_in_its_order(place: Place) -> None:
    place.start()
    first = place.put(b"first")
    place.store.fails = FULL
    place.turn()
    later = [place.put(b"x" * (5 << 20)) for _ in range(3)]
    place.store.fails = None
    place.commits.abandon()
    place.commits.stop(StoreError("over"))
    assert place.writer.work() == 1
    rows = [first.row, *(each.row for each in later)]
    assert [[put.row for put in batch.puts] for batch in place.store.batches] == [
        [row] for row in rows
    ]
    place.commits.abandon()
    assert not place.writer.jobs


def test_after_the_loop_an_unwritable_batch_loses_those_behind_it(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.start()
    place.turn()
    place.commits.abandon()
    assert not place.writer.jobs  # nothing to write
    place.put(b"x" * (9 << 20))
    place.put()
    place.store.fails = FULL
    place.commits.abandon()
    place.writer.work()
    assert caplog.messages == [
        f"{FULL}; the event loop is over, and 3 changes of durable tasks are lost"
    ]
    assert place.store.batches == []
