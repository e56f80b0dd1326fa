"""The loop's side of a store: opening, ticking, closing, with a writer run by hand."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import reminders
from stores import FULL, GONE, HandWriter, TrickyStore

from aioscheduler._durable.records import Batch, Function, Row
from aioscheduler._routing import keeper as module
from aioscheduler._routing.commits import CLOSE_PATIENCE
from aioscheduler._routing.drafts import Draft
from aioscheduler._routing.keeper import Keeper
from aioscheduler._routing.restoring import Share
from aioscheduler._routing.storedcalls import Notes, RemoteCalls
from aioscheduler._scheduling.loopthread import LoopThread
from aioscheduler._scheduling.states import State
from aioscheduler._shipping.hostcatalog import HostCatalog
from aioscheduler._shipping.hostshipping import HostShipper
from aioscheduler._shipping.workercatalog import WorkerCatalog
from aioscheduler._transport import wire
from aioscheduler.errors import StoreError
from aioscheduler.registry import find

NOW = 10**18
NOTE = [Function(1, "test.note", "reminders:note", once=False)]


class Admitted:
    is_over = False
    links: Sequence[Any] = ()

    def __init__(self) -> None:
        self.dues: list[int] = []
        self.shelved = 0
        self.keepings: Any = ()

    def admit(self, due: int, key: Any, id_: str | None, call: Any) -> tuple[int, int]:
        self.dues.append(due)
        return len(self.dues) % 2, 100 + len(self.dues)

    def admit_many(self, dues: list[int], *call: Any) -> list[Share]:
        first = 100 + len(self.dues) + 1
        self.dues += dues
        return [Share(1, first, list(range(len(dues))))]

    async def flush(self) -> None:
        await asyncio.sleep(0)

    def locate(self, worker: int, number: int) -> tuple[Any, int]:
        return None, 0

    def find(self, id_: str, before: int) -> None:
        return None

    def dispossess(self, address: Any) -> None:
        raise AssertionError("no task has an id")

    def lead(self, alias: int, address: Any) -> None:
        raise AssertionError("no task was asked for by a worker")

    def count_shelved(self, change: int) -> None:
        self.shelved += change

    def leave_out(self, early: Any) -> None:
        self.keepings[early.worker].leave_out(early.number)

    def give_way(self, id_: str, worker: int, admit: Callable[[], bool]) -> None:
        admit()


class Rig:
    def __init__(self, timed: bool = True) -> None:
        self.store, self.writer, self.links = TrickyStore(), HandWriter(), Admitted()
        self.failures: list[Exception] = []
        self.now = NOW
        self.opened = 0
        shipper = HostShipper(HostCatalog())
        self.keeper = Keeper(
            *(self.store, self.writer, 2, timed, shipper, RemoteCalls(shipper)),  # type: ignore[arg-type]
            *(Notes(None, shipper, WorkerCatalog()), lambda: self.now, LoopThread("manager")),
            *(lambda when: 0, self.failures.append),
        )

    def open(self) -> None:
        self.links.keepings = self.keeper.keepings
        links: Any = self.links
        self.keeper.open(asyncio.get_running_loop(), links, self.then)

    def then(self) -> None:
        self.opened += 1

    async def turn(self, count: int = 6) -> None:
        """Run some turns of the loop, and all jobs of the writer in each."""
        for _ in range(count):
            await asyncio.sleep(0)
            self.writer.work()
        await asyncio.sleep(0)

    def enter(self, number: int, value: Any, id_: str | None = None, replace: bool = False) -> Any:
        note = find("test.note")
        assert note is not None
        draft = self.keeper.drafts.draft(reminders.note(value), note, None, None, None, id_)
        return self.keeper.intake.enter(0, number, NOW, draft, replace)

    def many(self, first: int, *values: Any, once: bool = False) -> None:
        durable = find("test.once" if once else "test.note")
        assert durable is not None
        draft = self.keeper.drafts.draft_many(durable, None, None, "k")
        payloads = [wire.pack([value]) for value in values]
        dues = NOW if once else [NOW + n for n in range(len(values))]
        self.keeper.intake.enter_many(1, first, dues, payloads, draft)

    def values(self) -> list[Any]:
        return [wire.unpack(row.payload)[0] for row in self.store.rows()]

    async def close(self) -> None:
        closing = asyncio.create_task(self.keeper.close())
        await self.turn(12)
        await closing


@pytest.fixture
async def rig() -> Rig:
    return Rig()


async def test_it_is_ready_when_everything_in_the_file_is_known(rig: Rig) -> None:
    rows = [Row(n, NOW + n, 1, wire.pack([n])) for n in range(1, 6000)]
    rig.store.write(Batch(functions=NOTE, puts=rows))
    rig.open()
    waiting = asyncio.create_task(rig.keeper.ready())
    stored = asyncio.create_task(rig.keeper.stored(None))
    await rig.turn(1)
    assert not rig.keeper.is_open
    assert rig.opened == 0
    await rig.turn()
    await waiting
    await stored
    await rig.keeper.ready()
    await rig.keeper.settle()
    assert rig.links.dues == [row.due for row in rows]
    assert sum(len(keeping.kept) for keeping in rig.keeper.keepings) == 5999
    assert rig.opened == 1
    figures = rig.keeper.figures()
    assert (figures["stored"], figures["dead_letters"], figures["store_bytes"]) == (5999, 0, 0)
    await rig.close()


async def test_what_comes_before_gets_its_row_when_it_is_open(rig: Rig) -> None:
    early = [rig.enter(n, n) for n in range(3)]
    rig.many(10, "a", "b")
    rig.many(20, "c", once=True)
    assert early[0].row < 0
    stored: list[Any] = []
    with pytest.raises(RuntimeError, match=r"opened by start\(\): call that first"):
        await rig.keeper.stored(early[0])
    rig.open()
    rig.keeper.keepings[0].withdrawn(1)
    rig.keeper.keepings[0].moved(2, NOW + 50)
    rig.keeper.keepings[0].ended([0], State.LOST, [ValueError()])
    waiting = asyncio.create_task(rig.keeper.stored(early[2]))
    waiting.add_done_callback(stored.append)
    await rig.turn(2)
    assert not stored
    await rig.turn()
    assert stored
    assert rig.values() == ["a", "c", "b", 2]
    kept = rig.keeper.keepings[1].kept
    assert [kept[number].once for number in (10, 11, 20)] == [False, False, True]
    await rig.close()


async def test_many_are_put_at_once_with_their_times(rig: Rig) -> None:
    rig.open()
    await rig.turn()
    before = rig.enter(0, "first")
    rig.many(10, "a", "b")
    rig.many(20, "c", "d", once=True)
    rig.enter(1, "last")
    assert rig.keeper.commits.unsaved == 8  # two of them functions
    await rig.turn()
    rows = {wire.unpack(row.payload)[0]: row for row in rig.store.rows()}
    assert [rows[v].row - before.row for v in ("first", "a", "b", "c", "d", "last")] == [*range(6)]
    assert [rows[v].due - NOW for v in "abcd"] == [0, 1, 0, 0]
    assert rows["a"].key == "k"
    kept = rig.keeper.keepings[1].kept
    assert [kept[n].once for n in (10, 11, 20, 21)] == [False, False, True, True]
    await rig.close()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (StoreError("tasks.db is no database"), "tasks.db is no database"),
        (MemoryError("no room"), r"tasks.db cannot be used: MemoryError\('no room'\)"),
    ],
)
async def test_all_learn_that_a_file_cannot_be_opened(
    rig: Rig, error: Exception, message: str
) -> None:
    rig.store.cannot_open = error
    rig.enter(0, 1)
    rig.open()
    await rig.turn()
    (failure,) = rig.failures
    assert failure is error or failure.__cause__ is error
    for call in (rig.keeper.ready(), rig.keeper.stored(None), rig.keeper.letters.find(1)):
        with pytest.raises(StoreError, match=message):
            await call
    with pytest.raises(StoreError, match=message):
        rig.keeper.commits.check_room()
    await rig.keeper.settle()
    assert rig.opened == 0
    await rig.close()
    assert rig.store.closed == []
    assert rig.writer.stopped


async def test_a_writer_that_cannot_be_started_is_reported_too(rig: Rig) -> None:
    rig.writer.dead = StoreError("no thread can be had")
    rig.open()
    await rig.turn()
    assert rig.failures == [rig.writer.dead]
    with pytest.raises(StoreError, match="no thread"):
        await rig.keeper.ready()
    await rig.close()


async def test_it_says_that_the_host_lives_once_at_a_time(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks: list[int] = []
    monkeypatch.setattr(rig.store, "tick", ticks.append)
    rig.keeper.look_after()
    rig.open()
    rig.keeper.look_after()
    await rig.turn()
    assert ticks == []
    for _ in range(3):
        rig.keeper.look_after()
        rig.now += 1
    await rig.turn()
    assert ticks == [NOW]
    assert rig.keeper.size == rig.keeper.figures()["store_bytes"] > 0
    rig.keeper.look_after()
    await rig.turn()
    assert ticks == [NOW, NOW + 3]
    await rig.close()
    rig.keeper.look_after()
    assert not rig.writer.jobs


async def test_what_runs_is_marked_though_nothing_else_is_written(rig: Rig) -> None:
    rig.open()
    await rig.turn()
    rig.enter(0, 1)
    await rig.turn()
    rig.keeper.keepings[0].announced([0])
    written = len(rig.store.batches)
    for _ in range(4):
        rig.keeper.look_after()
        await rig.turn()
    assert len(rig.store.batches) == written + 1
    (update,) = rig.store.batches[-1].updates
    assert update.begun
    await rig.close()


@pytest.mark.parametrize(("error", "ends"), [(GONE, True), (MemoryError(), True), (FULL, False)])
async def test_a_tick_tells_that_the_store_is_gone(rig: Rig, error: Exception, ends: bool) -> None:
    rig.open()
    await rig.turn()
    rig.store.tick_fails = error
    rig.keeper.look_after()
    await rig.turn()
    assert bool(rig.failures) == ends
    rig.store.tick_fails = None
    rig.keeper.look_after()
    await rig.turn()
    assert len(rig.failures) == ends
    await rig.close()


async def test_a_writer_that_has_died_is_noticed(rig: Rig) -> None:
    rig.open()
    await rig.turn()
    rig.writer.dead = StoreError("nobody writes")
    rig.keeper.look_after()
    assert rig.failures == [rig.writer.dead]
    await rig.close()


# ---- its end


async def test_a_close_writes_what_is_left_and_lets_go_once(rig: Rig) -> None:
    rig.open()
    await rig.turn()
    rig.enter(0, 1)
    closings = [asyncio.create_task(rig.keeper.close()) for _ in range(2)]
    await rig.turn()
    for closing in closings:
        await closing
    assert rig.store.closed == [True]
    assert rig.writer.stopped
    assert rig.values() == [1]
    with pytest.raises(StoreError, match="tasks.db was closed with its manager"):
        rig.keeper.commits.check_room()
    await rig.keeper.stored(None)  # everything so far


async def test_what_was_never_opened_has_nothing_to_close(rig: Rig) -> None:
    await rig.keeper.close()
    rig.keeper.abandon()
    assert rig.store.closed == []


async def test_a_close_that_cannot_write_is_not_clean(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("aioscheduler._routing.commits.CLOSE_PATIENCE", 0.0)
    rig.open()
    await rig.turn()
    rig.store.fails = FULL
    rig.enter(0, 1)
    await rig.close()
    assert rig.store.closed == [False]
    assert "2 changes of durable tasks are lost" in caplog.text


async def test_the_number_of_new_tasks_lost_at_a_close_is_logged(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.open()
    await rig.turn()
    note = find("test.note")
    assert note is not None
    for value in range(3):
        draft = rig.keeper.drafts.draft(reminders.note(value), note, None, None, None, None)
        rig.keeper.shelf.schedule(NOW + (99 << 42), NOW, draft, False, False)
    rig.keeper.commits.stop(GONE)
    await rig.close()
    assert caplog.messages[0] == "3 new tasks are not in tasks.db, and are lost"
    assert rig.keeper.shelf.counter.figures() == {"cancelled": 3}


async def test_a_store_that_cannot_be_closed_is_logged(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def close(clean: bool) -> None:
        raise FULL

    rig.open()
    await rig.turn()
    monkeypatch.setattr(rig.store, "close", close)
    await rig.close()
    assert caplog.messages == [str(FULL)]
    assert rig.writer.stopped


async def test_a_close_does_not_wait_for_a_disk_that_hangs(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rig.open()
    await rig.turn()
    monkeypatch.setattr("aioscheduler._routing.keeper.CLOSE_PATIENCE", 0.0)
    monkeypatch.setattr(rig.writer, "submit", lambda *_: None)
    await rig.keeper.close()
    assert "does not answer; it is closed when it does" in caplog.text
    assert rig.writer.stopped


async def test_a_close_waits_for_the_opening_and_keeps_what_came_before(rig: Rig) -> None:
    rig.enter(0, 1)
    rig.open()
    await rig.close()
    assert rig.store.closed == [True]
    assert rig.values() == [1]


async def test_suspects_that_are_left_stay_suspects(rig: Rig) -> None:
    rig.store.write(Batch(functions=NOTE, puts=[Row(1, 5, 1, wire.pack([1]))]))
    rig.store.dirty, rig.store.heartbeat = True, NOW
    rig.open()
    await rig.turn()
    rig.keeper.keepings[1].ended([101], State.KEPT)
    await rig.close()
    assert rig.store.closed == [False]  # not clean: the next host must know


@pytest.mark.parametrize("begun", [False, True])
async def test_an_opening_that_is_cancelled_is_the_end_and_the_file_is_free(
    rig: Rig, begun: bool
) -> None:
    rig.open()
    if begun:
        await asyncio.sleep(0)
    opening = rig.keeper._feeding
    assert opening is not None
    opening.cancel()  # as when all tasks of the loop are cancelled
    await rig.turn()
    assert ["was not opened" in str(failure) for failure in rig.failures] == [True]
    with pytest.raises(StoreError, match="all tasks of the loop were cancelled"):
        await rig.keeper.ready()
    await rig.close()
    assert rig.store.closed == [False] * begun  # it was opened after all


async def test_a_close_does_not_wait_for_a_store_that_hangs_when_it_is_opened(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_PATIENCE", 0.0)
    rig.open()
    await rig.keeper.close()  # the writer does nothing
    assert ["took too long for a close()" in str(failure) for failure in rig.failures] == [True]
    assert rig.writer.stopped


@pytest.mark.parametrize(
    ("timed", "due", "message"),
    [
        (True, 0, "tasks.db has tasks of a queue, and this manager is one of TimedScheduler"),
        (False, NOW, "tasks.db has tasks of a TimedScheduler, and this manager is one of queues"),
    ],
)
async def test_a_file_of_another_kind_is_refused_and_left_as_it_is(
    timed: bool, due: int, message: str
) -> None:
    rig = Rig(timed)
    rows = [Row(1, due, 1, wire.pack([1]))]
    rig.store.write(Batch(functions=NOTE, puts=rows))
    rig.open()
    await rig.turn()
    with pytest.raises(StoreError, match=message):
        await rig.keeper.ready()
    await rig.close()
    assert rig.store.rows() == rows
    assert rig.links.dues == []


async def test_a_close_that_was_cancelled_may_be_repeated(rig: Rig) -> None:
    rig.open()
    await rig.turn()
    rig.enter(0, 1)
    closing = asyncio.create_task(rig.keeper.close())
    await asyncio.sleep(0)
    inner = rig.keeper._closing
    assert inner is not None
    inner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await rig.close()
    assert rig.store.closed == [True]
    assert rig.values() == [1]


async def test_one_that_is_moved_before_the_file_is_open_and_is_in_it_is_moved_there(
    rig: Rig,
) -> None:
    rig.store.write(Batch(functions=NOTE, puts=[Row(1, NOW + 5, 1, wire.pack([1]), id="a")]))
    rig.enter(0, 2, "a")
    rig.keeper.keepings[0].moved(0, NOW + 50)
    rig.open()
    await rig.turn()
    assert rig.links.dues == [NOW + 50]
    await rig.close()
    assert [(row.due, row.id) for row in rig.store.rows()] == [(NOW + 50, "a")]


async def test_when_the_loop_is_over_what_can_be_written_is(rig: Rig) -> None:
    rig.open()
    await rig.turn()
    for n in range(3):
        rig.enter(n, "x" * (5 << 20))
    rig.keeper.abandon()
    rig.keeper.abandon()
    # Or the program might end before it is done.
    assert rig.writer.joined == [CLOSE_PATIENCE]
    assert rig.writer.work() == 2
    assert len(rig.values()) == 3
    assert rig.store.closed == [False]
    assert rig.writer.stopped
    with pytest.raises(StoreError, match="the event loop of the manager of tasks.db is over"):
        rig.keeper.commits.check_room()


async def test_a_writer_that_does_not_answer_after_the_loop_is_logged(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rig.open()
    await rig.turn()
    rig.writer.hangs = True
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    rig.keeper.abandon()
    assert rig.writer.joined == [0.0]  # in vain: no other thread runs
    assert caplog.messages == ["tasks.db does not answer: what was not stored may be lost"]


async def test_a_loop_that_is_over_in_the_writer_s_own_thread_waits_for_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def join(timeout: float | None) -> bool:
        raise RuntimeError("cannot join current thread")

    rig.open()
    await rig.turn()
    rig.enter(0, 1)
    monkeypatch.setattr(rig.writer, "join", join)
    rig.keeper.abandon()
    rig.writer.work()
    assert rig.values() == [1]


async def test_a_close_waits_for_a_backup_though_nobody_waits_for_that(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioscheduler._routing.commits.CLOSE_PATIENCE", 0.0)
    copies: list[str] = []
    monkeypatch.setattr(rig.store, "backup", copies.append)
    rig.open()
    await rig.turn()
    backing = asyncio.create_task(rig.keeper.backup("copy.db"))
    for _ in range(5):
        await asyncio.sleep(0)
    backing.cancel()
    rig.enter(0, 1)
    closing = asyncio.create_task(rig.keeper.close())
    for _ in range(20):
        await asyncio.sleep(0)
    assert (backing.cancelled(), len(rig.writer.jobs), closing.done()) == (True, 3, False)
    await rig.turn(12)
    await closing
    assert copies == ["copy.db"]
    assert rig.values() == [1]
    assert rig.store.closed == [True]


# ---- tasks left for the next host, and ids


async def test_the_next_host_gets_one_task_of_each_id(rig: Rig) -> None:
    rig.open()
    await rig.turn()
    rig.enter(0, "a", "a")
    rig.enter(1, "b", "b")
    rig.keeper.keepings[0].ended([0, 1], State.KEPT)
    note = find("test.note")
    assert note is not None

    def leave(value: str, id_: str | None, replace: bool) -> None:
        draft: Draft = rig.keeper.drafts.draft(reminders.note(value), note, None, None, None, id_)
        rig.keeper.intake.leave(NOW, draft, replace)

    leave("no", "a", replace=False)
    leave("new b", "b", replace=True)
    leave("newer b", "b", replace=True)
    leave("c", "c", replace=False)
    leave("no", "c", replace=False)
    leave("plain", None, replace=False)
    await rig.close()
    assert sorted(rig.values()) == ["a", "c", "newer b", "plain"]


async def test_a_new_task_replaces_a_left_one_with_its_id(rig: Rig) -> None:
    """The loop seemed to end, but goes on."""
    rig.open()
    await rig.turn()
    rig.enter(0, "a", "a")
    await rig.turn()
    rig.keeper.keepings[0].ended([0], State.KEPT)
    rig.enter(1, "new a", "a")
    rig.enter(2, "other")
    await rig.close()
    assert sorted(rig.values()) == ["new a", "other"]


async def test_a_backup_has_everything_so_far(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        rig.store, "backup", lambda path: seen.append((path, len(rig.store.batches)))
    )
    rig.open()
    rig.enter(0, 1)
    backing = asyncio.create_task(rig.keeper.backup("copy.db"))
    await rig.turn(10)
    await backing
    assert seen == [("copy.db", 1)]
    await rig.close()


async def test_dead_letters_are_logged_once_a_tick_and_at_the_close(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.open()
    await rig.turn()
    for n in range(3):
        rig.enter(n, n)
    keeping = rig.keeper.keepings[0]
    with caplog.at_level(logging.ERROR, "aioscheduler"):
        keeping.ended([0], State.FAILED, [ValueError("one")])
        keeping.ended([1], State.FAILED, [ValueError("two")])
        assert caplog.messages == []
        rig.keeper.look_after()
        keeping.ended([2], State.FAILED, [ValueError("three")])
        await rig.close()
    assert [message.partition(";")[0] for message in caplog.messages] == [
        "2 durable tasks became dead letters (failed: 2)",
        "a durable task became a dead letter (failed: 1)",
    ]
