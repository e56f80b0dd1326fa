"""Batch after batch: when they are written, who is notified, and what if they cannot be."""

from __future__ import annotations

import asyncio
import logging

import pytest
from stores import FULL, GONE, Rig

from aioscheduler._durable.group import Kept
from aioscheduler._durable.records import Batch, Reason, Row, StoreGone, Unwritable
from aioscheduler._routing import commits as module
from aioscheduler.errors import StoreError


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_what_changes_in_a_turn_is_one_batch_and_what_comes_meanwhile_the_next(
    rig: Rig,
) -> None:
    rig.start()
    kept = [rig.put() for _ in range(3)]
    rig.loop.turn()
    assert rig.commits.unsaved == 4  # with the function
    rig.put()
    rig.loop.turn()
    assert len(rig.writer.jobs) == 1
    for each in kept:
        rig.watch(each.stamp)
    rig.writer.work()
    assert [error for _, error in rig.told] == [None] * 3
    assert rig.commits.unsaved == 2
    rig.turn()
    assert [len(batch.puts) for batch in rig.store.batches] == [3, 1]
    assert (rig.commits.unsaved, rig.commits.tasks, rig.aged) == (0, 4, 2)


def test_nothing_is_written_before_the_start(rig: Rig) -> None:
    rig.put()
    assert not rig.loop.ready
    rig.start()
    rig.turn()
    assert len(rig.store.batches) == 1


def test_changes_that_cancel_out_count_as_on_disk(rig: Rig) -> None:
    rig.start()
    rig.turn()
    kept = Kept.of(row := Row(rig.group.new_row(), 5, 1, b""))
    rig.group.put(kept, row)
    rig.group.strike(kept)
    rig.watch(kept.stamp)
    rig.turn()
    assert rig.told == [(kept.stamp, None)]
    assert rig.store.batches == []
    assert not rig.loop.ready  # nothing is left to do


def test_waiters_for_higher_stamps_are_notified_later(rig: Rig) -> None:
    rig.start()
    first = rig.put()
    rig.loop.turn()
    second = rig.put()
    rig.watch(second.stamp)
    rig.watch(first.stamp)  # behind a waiter for a higher stamp
    rig.writer.work()
    assert [stamp for stamp, _ in rig.told] == [first.stamp]
    rig.watch(first.stamp)
    rig.turn()
    assert [stamp for stamp, _ in rig.told] == [first.stamp, first.stamp, second.stamp]


def test_letters_and_tasks_are_counted(rig: Rig) -> None:
    rig.start()
    kept = [rig.put() for _ in range(5)]
    rig.turn()
    rig.group.strike(kept[0])
    for each in kept[1:3]:
        rig.group.bury(each, Reason.FAILED, "why", 7)
    rig.commits.soon()
    rig.turn()
    assert (rig.commits.tasks, rig.commits.letters) == (2, 2)
    rig.group.discard_letter(kept[1].row)
    rig.commits.letters -= 1  # as `Letters.drop` does
    rig.commits.soon()
    rig.turn()
    assert (rig.commits.tasks, rig.commits.letters) == (2, 1)
    assert len(rig.store.rows()) == 2
    assert [letter.row for letter in rig.store.dead()] == [kept[2].row]


def test_a_store_that_cannot_be_written_is_tried_again_with_longer_waits(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.start()
    kept = rig.put()
    rig.watch(kept.stamp)
    rig.store.fails = FULL
    rig.turn()
    waits = []
    for _ in range(7):
        assert len(rig.loop.timers) == 1
        waits.append(rig.loop.timers[0][0] - rig.loop.now)
        rig.put()
        rig.turn()  # without effect
        assert not rig.writer.jobs
        rig.loop.pass_(waits[-1])
        rig.writer.work()
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 2  # the second after a minute
    assert errors[0] == (
        "tasks.db cannot be written: the disk is full; 2 changes of durable tasks wait for it; "
        "tasks go on, and writing is retried"
    )
    assert rig.told == []
    rig.store.fails = None
    rig.loop.pass_(30)
    rig.writer.work()
    assert caplog.records[-1].getMessage() == "tasks.db can be written again; nothing was lost"
    assert rig.told == [(kept.stamp, None)]
    rig.turn()
    assert [len(batch.puts) for batch in rig.store.batches] == [1, 7]
    rig.store.fails = FULL
    rig.put()
    rig.turn()
    assert rig.loop.timers[0][0] - rig.loop.now == 1  # it starts over
    assert "cannot be written" in caplog.records[-1].getMessage()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (GONE, "tasks.db was deleted"),
        (MemoryError("no room"), r"tasks.db cannot be written: MemoryError\('no room'\)"),
    ],
)
def test_a_store_that_is_gone_is_the_end(rig: Rig, error: Exception, message: str) -> None:
    rig.start()
    kept = rig.put()
    rig.turn()
    late = rig.put()
    rig.watch(late.stamp)
    rig.store.fails = error
    rig.turn()
    (failure,) = rig.failures
    assert isinstance(failure, StoreError)
    assert failure is error or failure.__cause__ is error
    with pytest.raises(StoreError, match=message):
        rig.commits.check_room()
    rig.watch(late.stamp)
    rig.watch(kept.stamp)
    there = failure if isinstance(failure, StoreGone) else None  # unknown if the store is gone
    assert rig.told == [(late.stamp, failure)] * 2 + [(kept.stamp, there)]
    assert rig.commits.has(kept.stamp)
    assert not rig.commits.has(late.stamp)
    rig.put()
    assert not rig.loop.ready
    assert not rig.loop.timers


def test_a_writer_that_is_dead_is_the_end(rig: Rig) -> None:
    rig.start()
    rig.loop.turn()
    rig.writer.dead = StoreError("nobody writes")
    rig.watch(rig.put().stamp)
    rig.turn()
    assert rig.failures == [rig.writer.dead]
    assert rig.told[0][1] is rig.writer.dead


def test_an_end_is_reported_once_and_is_final(rig: Rig) -> None:
    rig.start()
    kept = rig.put()
    rig.watch(kept.stamp)
    first = StoreError("first")
    rig.commits.stop(first)
    rig.commits.stop(StoreError("second"))
    rig.turn()
    assert rig.told == [(kept.stamp, first)]
    assert rig.store.batches == []


def test_a_batch_under_way_at_a_stop_does_not_count_as_written(rig: Rig) -> None:
    rig.start()
    kept = rig.put()
    rig.loop.turn()
    rig.commits.stop(StoreError("over"))
    rig.writer.work()
    assert rig.store.batches  # it is written all the same
    assert not rig.commits.has(kept.stamp)


def test_a_retry_that_waits_is_given_up_at_the_end(rig: Rig) -> None:
    rig.start()
    rig.put()
    rig.store.fails = FULL
    rig.turn()
    rig.commits.stop(StoreError("over"))
    rig.store.fails = None
    rig.loop.pass_(60)
    rig.writer.work()
    assert rig.store.batches == []


def test_much_that_waits_is_refused_only_while_the_store_cannot_write(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_UNSAVED", 5)
    rig.start()
    for _ in range(9):
        rig.put()
    rig.commits.check_room()
    rig.store.fails = FULL
    rig.turn()
    with pytest.raises(StoreError, match="10 changes of durable tasks wait for tasks.db, which"):
        rig.commits.check_room()
    rig.store.fails = None
    rig.loop.pass_(1)
    rig.writer.work()
    rig.commits.check_room()


def test_too_many_unsaved_bytes_are_refused_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_UNSAVED_BYTES", 1000)
    rig.start()
    rig.store.fails = FULL
    rig.put()
    rig.turn()
    rig.put(b"x" * 700)
    rig.commits.check_room()
    rig.put(b"x" * 700)
    with pytest.raises(StoreError, match="nothing is lost, and writing is retried"):
        rig.commits.check_room()


def test_a_batch_is_cut_at_its_bytes_and_all_of_them_are_written(rig: Rig) -> None:
    rig.start()
    for _ in range(3):
        rig.put(b"x" * (5 << 20))
    for _ in range(3):
        rig.turn()
    assert [len(batch.puts) for batch in rig.store.batches] == [1, 1, 1]


def test_the_figures_are_of_the_last_commits(rig: Rig) -> None:
    assert rig.commits.figures() == {
        "stored": 0,
        "dead_letters": 0,
        "unsaved": 0,
        "commit_p50": 0.0,
        "commit_p99": 0.0,
    }
    rig.start()
    for seconds in [0.5] * 98 + [3.0, 9.0]:
        rig.put()
        rig.loop.turn()
        rig.loop.now += seconds
        rig.writer.work()
    figures = rig.commits.figures()
    assert (figures["commit_p50"], figures["commit_p99"], figures["stored"]) == (0.5, 9.0, 100)
    assert rig.commits.times.maxlen == 1024


# ---- with a loop of asyncio's


class Live(Rig):
    """A `Rig` started in the running loop."""

    def start(self) -> None:
        self.commits.start(asyncio.get_running_loop())


async def turns(rig: Rig, count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
        rig.writer.work()


async def test_waiters_may_be_cancelled() -> None:
    rig = Live()
    rig.start()
    kept = rig.put()
    waiting = asyncio.create_task(rig.commits.wait(kept.stamp))
    await asyncio.sleep(0)
    waiting.cancel()
    other = asyncio.create_task(rig.commits.wait(kept.stamp))
    await turns(rig)
    await other
    assert waiting.cancelled()


async def test_waiters_are_notified_of_the_end() -> None:
    rig = Live()
    rig.start()
    waiting = asyncio.create_task(rig.commits.wait(rig.put().stamp))
    await asyncio.sleep(0)
    rig.commits.stop(StoreError("over"))
    with pytest.raises(StoreError, match="over"):
        await waiting


async def test_settle_waits_only_while_much_is_being_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MUCH_UNSAVED", 2)
    rig = Live()
    rig.start()
    rig.put()
    await rig.commits.settle()
    for _ in range(3):
        rig.put()
    settling = asyncio.create_task(rig.commits.settle())
    await asyncio.sleep(0)
    assert not settling.done()
    await turns(rig)
    await settling
    for _ in range(3):
        rig.put()
    rig.store.fails = FULL
    await turns(rig)
    await rig.commits.settle()  # waiting is useless
    rig.commits.stop(StoreError("over"))
    await rig.commits.settle()


async def test_a_close_waits_as_long_as_there_is_progress(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "CLOSE_PATIENCE", 0.0)
    rig = Live()
    rig.start()
    rig.put(b"x" * (9 << 20))
    rig.put()
    finishing = asyncio.create_task(rig.commits.finish())
    await turns(rig, 20)
    assert await finishing
    rig.store.fails = FULL
    rig.put()
    finishing = asyncio.create_task(rig.commits.finish())
    await turns(rig)
    assert not await finishing
    assert caplog.records[-1].getMessage() == (
        "tasks.db cannot be written: 2 changes of durable tasks are lost, unless it can be before "
        "this manager has closed; tasks that had ended may run once more"
    )
    stamp = rig.group.stamp
    assert not rig.commits.has(stamp)  # so no task ends as kept
    assert not await rig.commits.finish()  # at once, and without another report
    assert [record.levelname for record in caplog.records].count("ERROR") == 2


async def test_finish_raises_when_nothing_can_be_written_any_more() -> None:
    rig = Live()
    rig.start()
    rig.put()
    rig.commits.stop(StoreError("over"))
    with pytest.raises(StoreError, match="over"):
        await rig.commits.finish()


def test_unwritable_changes_are_left_out_and_the_others_written(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.start()
    good, bad, other = (rig.put(payload) for payload in (b"1", b"bad", b"2"))
    commit = rig.store.commit

    def refuse(batch: Batch) -> None:
        if any(put.payload == b"bad" for put in batch.puts):
            raise Unwritable("too big")
        commit(batch)

    rig.store.commit = refuse  # type: ignore[method-assign]
    rig.watch(other.stamp)
    rig.turn()
    assert rig.told == [(other.stamp, None)]
    assert [row.row for row in rig.store.rows()] == [good.row, other.row]
    assert list(rig.commits.refused) == [bad.row]
    assert (rig.commits.tasks, rig.commits.unsaved) == (2, 0)
    assert "too big; this change of a durable task is left out" in caplog.text


async def test_the_number_of_very_many_changes_left_out_is_logged(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = rig.store.commit

    def refuse(batch: Batch) -> None:
        if batch.puts:
            raise Unwritable("a page is bad")
        commit(batch)

    monkeypatch.setattr(rig.store, "commit", refuse)
    rig.start()
    for _ in range(1_210):
        rig.put()
    rig.turn()
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 11
    assert told[-1] == "a page is bad; 1,200 more changes are left out"


def test_a_letter_and_the_task_in_its_place_are_left_out_together(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.start()
    letters = [rig.put() for _ in range(2)]
    for kept in letters:
        rig.group.bury(kept, Reason.FAILED, "why", 7)
    rig.turn()
    commit = rig.store.commit

    def refuse(batch: Batch) -> None:
        if any(row.payload == b"bad" for row in batch.puts):
            raise Unwritable("a page is bad")
        commit(batch)

    monkeypatch.setattr(rig.store, "commit", refuse)
    for letter, payload in zip(letters, (b"bad", b"good"), strict=True):
        with rig.group.whole():
            instead = rig.put(payload)
            rig.group.discard_letter(letter.row, instead.row)
        rig.commits.letters -= 1  # as `Letters.drop` does
    rig.turn()
    assert [letter.row for letter in rig.store.dead()] == [letters[0].row]
    assert [row.payload for row in rig.store.rows()] == [b"good"]
    assert (rig.commits.letters, rig.commits.tasks) == (1, 1)
    assert caplog.messages == [
        "a page is bad; this change of a durable task is left out: "
        f"the requeueing of dead letter {letters[0].row}, which stays one"
    ]


@pytest.mark.parametrize("at_once", [False, True])
def test_the_end_of_what_was_left_out_takes_nothing_off_the_counts(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    commit = rig.store.commit

    def refuse(batch: Batch) -> None:
        if any(row.payload == b"bad" for row in batch.puts):
            raise Unwritable("a page is bad")
        commit(batch)

    monkeypatch.setattr(rig.store, "commit", refuse)
    rig.start()
    rig.put()
    struck, buried = rig.put(b"bad"), rig.put(b"bad")
    if not at_once:
        rig.turn()
    rig.group.strike(struck)
    rig.group.bury(buried, Reason.FAILED, "why", 7)
    rig.commits.soon()
    rig.turn()
    rig.turn()
    assert (rig.commits.tasks, rig.commits.letters) == (1, 0)
    assert (len(rig.store.rows()), len(rig.store.dead())) == (1, 0)


async def test_a_close_tries_once_more_at_once(rig: Rig) -> None:
    rig.start()
    kept = rig.put()
    rig.store.fails = FULL
    for _ in range(3):
        rig.turn()
        if rig.loop.timers:
            rig.loop.pass_(rig.loop.timers[0][0] - rig.loop.now)
    assert rig.commits.unsaved
    rig.store.fails = None
    finishing = asyncio.ensure_future(rig.commits.finish())
    await asyncio.sleep(0)
    rig.writer.work()
    assert await finishing
    assert rig.commits.reached >= kept.stamp


# ---- when the loop is over


def test_what_is_left_when_the_loop_is_over_is_written_in_its_order(rig: Rig) -> None:
    rig.start()
    first = rig.put(b"first")
    rig.store.fails = FULL
    rig.turn()
    later = [rig.put(b"x" * (5 << 20)) for _ in range(3)]
    rig.store.fails = None
    rig.commits.abandon()
    rig.commits.stop(StoreError("over"))
    assert rig.writer.work() == 1
    rows = [first.row, *(each.row for each in later)]
    assert [[put.row for put in batch.puts] for batch in rig.store.batches] == [
        [row] for row in rows
    ]
    rig.commits.abandon()
    assert not rig.writer.jobs


def test_after_the_loop_an_unwritable_batch_loses_those_behind_it(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.start()
    rig.turn()
    rig.commits.abandon()
    assert not rig.writer.jobs  # nothing to write
    rig.put(b"x" * (9 << 20))
    rig.put()
    rig.store.fails = FULL
    rig.commits.abandon()
    rig.writer.work()
    assert caplog.messages == [
        f"{FULL}; the event loop is over, and 3 changes of durable tasks are lost"
    ]
    assert rig.store.batches == []
