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


class Place:
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
async def place() -> Place:
    return Place()


async def test_it_is_ready_when_everything_in_the_file_is_known(place: Place) -> None:
    rows = [Row(n, NOW + n, 1, wire.pack([n])) for n in range(1, 6000)]
    place.store.write(Batch(functions=NOTE, puts=rows))
    place.open()
    waiting = asyncio.create_task(place.keeper.ready())
    stored = asyncio.create_task(place.keeper.stored(None))
    await place.turn(1)
    assert not place.keeper.is_open
    assert place.opened == 0
    await place.turn()
    await waiting
    await stored
    await place.keeper.ready()
    await place.keeper.settle()
    assert place.links.dues == [row.due for row in rows]
    assert sum(len(keeping.kept) for keeping in place.keeper.keepings) == 5999
    assert place.opened == 1
    figures = place.keeper.figures()
    assert (figures["stored"], figures["dead_letters"], figures["store_bytes"]) == (5999, 0, 0)
    await place.close()


async def test_what_comes_before_gets_its_row_when_it_is_open(place: Place) -> None:
    early = [place.enter(n, n) for n in range(3)]
    place.many(10, "a", "b")
    place.many(20, "c", once=True)
    assert early[0].row < 0
    stored: list[Any] = []
    with pytest.raises(RuntimeError, match=r"opened by start\(\): call that first"):
        await place.keeper.stored(early[0])
    place.open()
    place.keeper.keepings[0].withdrawn(1)
    place.keeper.keepings[0].moved(2, NOW + 50)
    place.keeper.keepings[0].ended([0], State.LOST, [ValueError()])
    waiting = asyncio.create_task(place.keeper.stored(early[2]))
    waiting.add_done_callback(stored.append)
    await place.turn(2)
    assert not stored
    await place.turn()
    assert stored
    assert place.values() == ["a", "c", "b", 2]
    kept = place.keeper.keepings[1].kept
    assert [kept[number].once for number in (10, 11, 20)] == [False, False, True]
    await place.close()


async def test_many_are_put_at_once_with_their_times(place: Place) -> None:
    place.open()
    await place.turn()
    before = place.enter(0, "first")
    place.many(10, "a", "b")
    place.many(20, "c", "d", once=True)
    place.enter(1, "last")
    assert place.keeper.commits.unsaved == 8  # two of them functions
    await place.turn()
    rows = {wire.unpack(row.payload)[0]: row for row in place.store.rows()}
    assert [rows[v].row - before.row for v in ("first", "a", "b", "c", "d", "last")] == [*range(6)]
    assert [rows[v].due - NOW for v in "abcd"] == [0, 1, 0, 0]
    assert rows["a"].key == "k"
    kept = place.keeper.keepings[1].kept
    assert [kept[n].once for n in (10, 11, 20, 21)] == [False, False, True, True]
    await place.close()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (StoreError("tasks.db is no database"), "tasks.db is no database"),
        (MemoryError("no room"), r"tasks.db cannot be used: MemoryError\('no room'\)"),
    ],
)
async def test_all_learn_that_a_file_cannot_be_opened(
    place: Place, error: Exception, message: str
) -> None:
    place.store.cannot_open = error
    place.enter(0, 1)
    place.open()
    await place.turn()
    (failure,) = place.failures
    assert failure is error or failure.__cause__ is error
    for call in (place.keeper.ready(), place.keeper.stored(None), place.keeper.letters.find(1)):
        with pytest.raises(StoreError, match=message):
            await call
    with pytest.raises(StoreError, match=message):
        place.keeper.commits.check_room()
    await place.keeper.settle()
    assert place.opened == 0
    await place.close()
    assert place.store.closed == []
    assert place.writer.stopped


async def test_a_writer_that_cannot_be_started_is_reported_too(place: Place) -> None:
    place.writer.dead = StoreError("no thread can be had")
    place.open()
    await place.turn()
    assert place.failures == [place.writer.dead]
    with pytest.raises(StoreError, match="no thread"):
        await place.keeper.ready()
    await place.close()


async def test_it_says_that_the_host_lives_once_at_a_time(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks: list[int] = []
    monkeypatch.setattr(place.store, "tick", ticks.append)
    place.keeper.look_after()
    place.open()
    place.keeper.look_after()
    await place.turn()
    assert ticks == []
    for _ in range(3):
        place.keeper.look_after()
        place.now += 1
    await place.turn()
    assert ticks == [NOW]
    assert place.keeper.size == place.keeper.figures()["store_bytes"] > 0
    place.keeper.look_after()
    await place.turn()
    assert ticks == [NOW, NOW + 3]
    await place.close()
    place.keeper.look_after()
    assert not place.writer.jobs


async def test_what_runs_is_marked_though_nothing_else_is_written(place: Place) -> None:
    place.open()
    await place.turn()
    place.enter(0, 1)
    await place.turn()
    place.keeper.keepings[0].announced([0])
    written = len(place.store.batches)
    for _ in range(4):
        place.keeper.look_after()
        await place.turn()
    assert len(place.store.batches) == written + 1
    (update,) = place.store.batches[-1].updates
    assert update.begun
    await place.close()


@pytest.mark.parametrize(("error", "ends"), [(GONE, True), (MemoryError(), True), (FULL, False)])
async def test_a_tick_tells_that_the_store_is_gone(
    place: Place, error: Exception, ends: bool
) -> None:
    place.open()
    await place.turn()
    place.store.tick_fails = error
    place.keeper.look_after()
    await place.turn()
    assert bool(place.failures) == ends
    place.store.tick_fails = None
    place.keeper.look_after()
    await place.turn()
    assert len(place.failures) == ends
    await place.close()


async def test_a_writer_that_has_died_is_noticed(place: Place) -> None:
    place.open()
    await place.turn()
    place.writer.dead = StoreError("nobody writes")
    place.keeper.look_after()
    assert place.failures == [place.writer.dead]
    await place.close()


# ---- its end


async def test_a_close_writes_what_is_left_and_lets_go_once(place: Place) -> None:
    place.open()
    await place.turn()
    place.enter(0, 1)
    closings = [asyncio.create_task(place.keeper.close()) for _ in range(2)]
    await place.turn()
    for closing in closings:
        await closing
    assert place.store.closed == [True]
    assert place.writer.stopped
    assert place.values() == [1]
    with pytest.raises(StoreError, match="tasks.db was closed with its manager"):
        place.keeper.commits.check_room()
    await place.keeper.stored(None)  # everything so far


async def test_what_was_never_opened_has_nothing_to_close(place: Place) -> None:
    await place.keeper.close()
    place.keeper.abandon()
    assert place.store.closed == []


async def test_a_close_that_cannot_write_is_not_clean(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("aioscheduler._routing.commits.CLOSE_PATIENCE", 0.0)
    place.open()
    await place.turn()
    place.store.fails = FULL
    place.enter(0, 1)
    await place.close()
    assert place.store.closed == [False]
    assert "2 changes of durable tasks are lost" in caplog.text


async def test_the_number_of_new_tasks_lost_at_a_close_is_logged(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.open()
    await place.turn()
    note = find("test.note")
    assert note is not None
    for value in range(3):
        draft = place.keeper.drafts.draft(reminders.note(value), note, None, None, None, None)
        place.keeper.shelf.schedule(NOW + (99 << 42), NOW, draft, False, False)
    place.keeper.commits.stop(GONE)
    await place.close()
    assert caplog.messages[0] == "3 new tasks are not in tasks.db, and are lost"
    assert place.keeper.shelf.counter.figures() == {"cancelled": 3}


async def test_a_store_that_cannot_be_closed_is_logged(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def close(clean: bool) -> None:
        raise FULL

    place.open()
    await place.turn()
    monkeypatch.setattr(place.store, "close", close)
    await place.close()
    assert caplog.messages == [str(FULL)]
    assert place.writer.stopped


async def test_a_close_does_not_wait_for_a_disk_that_hangs(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place.open()
    await place.turn()
    monkeypatch.setattr("aioscheduler._routing.keeper.CLOSE_PATIENCE", 0.0)
    monkeypatch.setattr(place.writer, "submit", lambda *_: None)
    await place.keeper.close()
    assert "does not answer; it is closed when it does" in caplog.text
    assert place.writer.stopped


async def test_a_close_waits_for_the_opening_and_keeps_what_came_before(place: Place) -> None:
    place.enter(0, 1)
    place.open()
    await place.close()
    assert place.store.closed == [True]
    assert place.values() == [1]


async def test_suspects_that_are_left_stay_suspects(place: Place) -> None:
    place.store.write(Batch(functions=NOTE, puts=[Row(1, 5, 1, wire.pack([1]))]))
    place.store.dirty, place.store.heartbeat = True, NOW
    place.open()
    await place.turn()
    place.keeper.keepings[1].ended([101], State.KEPT)
    await place.close()
    assert place.store.closed == [False]  # not clean: the next host must know


@pytest.mark.parametrize("begun", [False, True])
async def test_an_opening_that_is_cancelled_is_the_end_and_the_file_is_free(
    place: Place, begun: bool
) -> None:
    place.open()
    if begun:
        await asyncio.sleep(0)
    opening = place.keeper._feeding
    assert opening is not None
    opening.cancel()  # as when all tasks of the loop are cancelled
    await place.turn()
    assert ["was not opened" in str(failure) for failure in place.failures] == [True]
    with pytest.raises(StoreError, match="all tasks of the loop were cancelled"):
        await place.keeper.ready()
    await place.close()
    assert place.store.closed == [False] * begun  # it was opened after all


async def test_a_close_does_not_wait_for_a_store_that_hangs_when_it_is_opened(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_PATIENCE", 0.0)
    place.open()
    await place.keeper.close()  # the writer does nothing
    assert ["took too long for a close()" in str(failure) for failure in place.failures] == [True]
    assert place.writer.stopped


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
    place = Place(timed)
    rows = [Row(1, due, 1, wire.pack([1]))]
    place.store.write(Batch(functions=NOTE, puts=rows))
    place.open()
    await place.turn()
    with pytest.raises(StoreError, match=message):
        await place.keeper.ready()
    await place.close()
    assert place.store.rows() == rows
    assert place.links.dues == []


async def test_a_close_that_was_cancelled_may_be_repeated(place: Place) -> None:
    place.open()
    await place.turn()
    place.enter(0, 1)
    closing = asyncio.create_task(place.keeper.close())
    await asyncio.sleep(0)
    inner = place.keeper._closing
    assert inner is not None
    inner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await place.close()
    assert place.store.closed == [True]
    assert place.values() == [1]


async def test_one_that_is_moved_before_the_file_is_open_and_is_in_it_is_moved_there(
    place: Place,
) -> None:
    place.store.write(Batch(functions=NOTE, puts=[Row(1, NOW + 5, 1, wire.pack([1]), id="a")]))
    place.enter(0, 2, "a")
    place.keeper.keepings[0].moved(0, NOW + 50)
    place.open()
    await place.turn()
    assert place.links.dues == [NOW + 50]
    await place.close()
    assert [(row.due, row.id) for row in place.store.rows()] == [(NOW + 50, "a")]


async def test_when_the_loop_is_over_what_can_be_written_is(place: Place) -> None:
    place.open()
    await place.turn()
    for n in range(3):
        place.enter(n, "x" * (5 << 20))
    place.keeper.abandon()
    place.keeper.abandon()
    # Or the program might end before it is done.
    assert place.writer.joined == [CLOSE_PATIENCE]
    assert place.writer.work() == 2
    assert len(place.values()) == 3
    assert place.store.closed == [False]
    assert place.writer.stopped
    with pytest.raises(StoreError, match="the event loop of the manager of tasks.db is over"):
        place.keeper.commits.check_room()


async def test_a_writer_that_does_not_answer_after_the_loop_is_logged(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place.open()
    await place.turn()
    place.writer.hangs = True
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    place.keeper.abandon()
    assert place.writer.joined == [0.0]  # in vain: no other thread runs
    assert caplog.messages == ["tasks.db does not answer: what was not stored may be lost"]


async def test_a_loop_that_is_over_in_the_writer_s_own_thread_waits_for_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def join(timeout: float | None) -> bool:
        raise RuntimeError("cannot join current thread")

    place.open()
    await place.turn()
    place.enter(0, 1)
    monkeypatch.setattr(place.writer, "join", join)
    place.keeper.abandon()
    place.writer.work()
    assert place.values() == [1]


async def test_a_close_waits_for_a_backup_though_nobody_waits_for_that(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioscheduler._routing.commits.CLOSE_PATIENCE", 0.0)
    copies: list[str] = []
    monkeypatch.setattr(place.store, "backup", copies.append)
    place.open()
    await place.turn()
    backing = asyncio.create_task(place.keeper.backup("copy.db"))
    for _ in range(5):
        await asyncio.sleep(0)
    backing.cancel()
    place.enter(0, 1)
    closing = asyncio.create_task(place.keeper.close())
    for _ in range(20):
        await asyncio.sleep(0)
    assert (backing.cancelled(), len(place.writer.jobs), closing.done()) == (True, 3, False)
    await place.turn(12)
    await closing
    assert copies == ["copy.db"]
    assert place.values() == [1]
    assert place.store.closed == [True]


# ---- tasks left for the next host, and ids


async def test_the_next_host_gets_one_task_of_each_id(place: Place) -> None:
    place.open()
    await place.turn()
    place.enter(0, "a", "a")
    place.enter(1, "b", "b")
    place.keeper.keepings[0].ended([0, 1], State.KEPT)
    note = find("test.note")
    assert note is not None

    def leave(value: str, id_: str | None, replace: bool) -> None:
        draft: Draft = place.keeper.drafts.draft(reminders.note(value), note, None, None, None, id_)
        place.keeper.intake.leave(NOW, draft, replace)

    leave("no", "a", replace=False)
    leave("new b", "b", replace=True)
    leave("newer b", "b", replace=True)
    leave("c", "c", replace=False)
    leave("no", "c", replace=False)
    leave("plain", None, replace=False)
    await place.close()
    assert sorted(place.values()) == ["a", "c", "newer b", "plain"]


async def test_a_new_task_replaces_a_left_one_with_its_id(place: Place) -> None:
    """The loop seemed to end, but goes on."""
    place.open()
    await place.turn()
    place.enter(0, "a", "a")
    await place.turn()
    place.keeper.keepings[0].ended([0], State.KEPT)
    place.enter(1, "new a", "a")
    place.enter(2, "other")
    await place.close()
    assert sorted(place.values()) == ["new a", "other"]


async def test_a_backup_has_everything_so_far(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        place.store, "backup", lambda path: seen.append((path, len(place.store.batches)))
    )
    place.open()
    place.enter(0, 1)
    backing = asyncio.create_task(place.keeper.backup("copy.db"))
    await place.turn(10)
    await backing
    assert seen == [("copy.db", 1)]
    await place.close()


async def test_dead_letters_are_logged_once_a_tick_and_at_the_close(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.open()
    await place.turn()
    for n in range(3):
        place.enter(n, n)
    keeping = place.keeper.keepings[0]
    with caplog.at_level(logging.ERROR, "aioscheduler"):
        keeping.ended([0], State.FAILED, [ValueError("one")])
        keeping.ended([1], State.FAILED, [ValueError("two")])
        assert caplog.messages == []
        place.keeper.look_after()
        keeping.ended([2], State.FAILED, [ValueError("three")])
        await place.close()
    assert [message.partition(";")[0] for message in caplog.messages] == [
        "2 durable tasks became dead letters (failed: 2)",
        "a durable task became a dead letter (failed: 1)",
    ]
