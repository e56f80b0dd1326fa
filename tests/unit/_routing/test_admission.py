"""Tasks of the file are passed to links."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import reminders
from stores import FULL, TrickyStore

from aioscheduler import State, StoreError, TaskLimitReached
from aioscheduler._durable.group import Kept
from aioscheduler._durable.records import LAST, Batch, Function, Letter, Reason, Row, Unwritable
from aioscheduler._routing.admission import Admission
from aioscheduler._routing.storedcalls import Stored
from aioscheduler._transport import wire
from aioscheduler.errors import ManagerClosed
from aioscheduler.registry import find
from aioscheduler.testing import FakeClock, FakeManager


class Rig:
    def __init__(self, manager: FakeManager, store: TrickyStore) -> None:
        self.manager, self.store, self.router = manager, store, manager._router
        assert self.router.keeper is not None
        self.keeper = self.router.keeper
        self.admission = Admission(self.router, self.keeper)
        self.due = self.router.due(timedelta(days=1))

    def call(self, value: Any) -> Any:
        note = find("test.note")
        assert note is not None
        return self.keeper.calls.make(Stored(note, wire.pack([value])), self.due)

    def admit(self, id_: str, value: Any, is_held: bool = False) -> bool:
        self.admission.admit(self.due, None, id_, self.call(value))
        return is_held

    def letter(self, **more: Any) -> Letter:
        function = self.keeper.drafts._functions.number(find("test.note"))  # type: ignore[arg-type]
        letter = Letter(
            *(900, 5, function, "test.note", wire.pack(["again"]), None, "a", None, 4),
            *(Reason.FAILED, "", 9),
        )
        return letter._replace(**more)


@pytest.fixture(params=[0, 2])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    reminders.done.clear()
    store = TrickyStore()
    clock = FakeClock()
    manager = clock.manager(4, store=store, workers=request.param, max_tasks=3)
    async with manager:
        await manager.sync()
        rig = Rig(manager, store)
        rig.keeper.where.horizon.reached = LAST  # every new task goes to a link
        yield rig


async def test_what_the_file_has_is_accepted_whatever_the_limits_are(rig: Rig) -> None:
    for n in range(5):
        worker, number = rig.admission.admit(rig.due, None, f"n{n}", rig.call(n))
        found = await rig.manager.find(f"n{n}")
        assert found is not None
        assert found.state is State.PENDING
        assert rig.admission.find(f"n{n}", 0) is None  # its row is not known
        link, scheduler = rig.admission.locate(worker, number)
        assert (link, scheduler, number) == (found._home, found._scheduler, found._number)
    assert len(rig.manager) == 5
    assert rig.admission.admit(rig.due, "k", None, rig.call(1)) != (-1, -1)
    where = {rig.admission.admit(rig.due, "k", None, rig.call(1))[0] for _ in range(5)}
    assert len(where) == 1  # as its key says


@pytest.mark.parametrize("count", [1, 3, 4, 9, 1300])
async def test_many_are_dealt_out_to_all_schedulers_in_their_order(rig: Rig, count: int) -> None:
    note = find("test.note")
    assert note is not None
    for n in range(9):  # so that loads differ, and the deal is uneven
        rig.admission.admit(rig.due, "k", None, rig.call(n))
    payloads = [wire.pack([n]) for n in range(count)]
    call = rig.keeper.calls.make_many(Stored(note, b""), payloads)
    dues = [rig.due + n // 2 for n in range(count)]
    last: dict[tuple[int, int], tuple[int, int]] = {}
    found = []
    for worker, first, indexes in rig.admission.admit_many(dues, *call):
        for number, index in enumerate(indexes, first):
            link, scheduler = rig.admission.locate(worker, number)
            task = link.find(scheduler, number)
            assert task is not None
            assert (task.state, link.due(scheduler, number)) == (State.PENDING, dues[index])
            assert "note" in task.name
            assert last.get((worker, scheduler), (-1, -1)) < (number, index)
            last[worker, scheduler] = number, index
            found.append(index)
    assert sorted(found) == list(range(count))
    assert len(last) >= min(count, 2)
    assert len(rig.manager) == 9 + count


async def test_an_early_task_becomes_the_one_of_the_file(rig: Rig) -> None:
    early = rig.manager.schedule(reminders.note("new"), timedelta(days=2), id="a")
    ends: list[Any] = []
    early.add_done_callback(ends.append)
    address = rig.router.ids.find("a")
    assert address is not None
    rig.admission.give_way(
        "a",
        address[0],
        partial(rig.admit, "a", "old"),
    )
    assert await rig.manager.find("a") is early
    assert not early.done()
    assert early.due is not None
    assert int(early.due.timestamp()) == rig.due // 10**9
    assert early.cancel()
    clock: Any = rig.manager._router._clock
    await clock.advance(0)
    assert early.cancelled()
    assert ends == [early]


async def test_a_task_without_a_handle_gives_way_too(rig: Rig) -> None:
    rig.manager.schedule(reminders.note("new"), timedelta(days=2), id="a")
    address = rig.router.ids.find("a")
    assert address is not None
    rig.admission.give_way(
        "a",
        address[0],
        partial(rig.admit, "a", "old"),
    )
    clock: Any = rig.manager._router._clock
    await clock.advance(timedelta(days=3))
    assert reminders.done == ["old"]


async def test_the_handle_of_the_task_in_the_file_stays_valid(rig: Rig) -> None:
    early = rig.manager.schedule(reminders.note("new"), timedelta(days=2), id="a")
    address = rig.router.ids.find("a")
    assert address is not None
    held: list[Any] = []

    def admit() -> bool:
        rig.admit("a", "old")
        known = rig.router.ids.find("a")
        assert known is not None
        held.append(rig.router.handle(known))  # as the shelf attaches it to the link
        return True

    rig.admission.give_way("a", address[0], admit)
    (other,) = held
    assert early is not other
    assert (early.id, early.due) == ("a", other.due)
    clock: Any = rig.manager._router._clock
    await clock.advance(timedelta(days=1))
    assert (early.done(), other.done()) == (True, True)
    assert await early is await other
    assert reminders.done == ["old"]


@pytest.mark.parametrize("is_held", [False, True])
async def test_a_task_that_is_none_leaves_its_link(rig: Rig, is_held: bool) -> None:
    task: Any = rig.manager.schedule(reminders.note("new"), timedelta(days=1), id="a")
    address = rig.router.ids.find("a")
    assert address is not None
    worker, scheduler, number = address
    early: Any = SimpleNamespace(worker=worker, number=number)
    if not is_held:
        task = None
        gc.collect()
    found = rig.admission.leave_out(early)
    if is_held or len(rig.router.links) == 2:  # a task in this loop always has a handle
        assert found is task
    assert rig.router.ids.find("a") is None
    assert number not in rig.keeper.keepings[worker].kept
    clock: Any = rig.manager._router._clock
    await clock.advance(timedelta(days=2))
    assert reminders.done == []
    assert len(rig.manager) == 0
    if is_held:  # whichever task the handle is of now
        assert not task.done()


async def test_a_letter_whose_id_is_taken_in_the_file_stays_one(rig: Rig) -> None:
    holder = rig.manager.schedule(reminders.note("new"), timedelta(days=1), id="a")
    with pytest.raises(ValueError, match="another task has the id 'a' now"):
        rig.admission.requeue(rig.letter(), None, holder)
    await rig.manager.sync()
    assert not any(batch.discards for batch in rig.store.batches)


async def test_a_requeued_letter_is_no_longer_one(rig: Rig) -> None:
    task = rig.admission.requeue(rig.letter(), timedelta(days=1), None)
    assert (task.id, task.state) == ("a", State.PENDING)
    assert await rig.manager.find("a") is task
    with pytest.raises(ValueError, match="another task has the id 'a' now"):
        rig.admission.requeue(rig.letter(row=901), None, None)
    await task.stored()
    (row,) = rig.store.rows()
    assert row.id == "a"
    assert [batch.requeues for batch in rig.store.batches] == [[(900, row.row)]]
    assert not any(batch.discards for batch in rig.store.batches)


@pytest.mark.parametrize("far", [False, True])
async def test_a_letter_whose_task_can_never_be_written_stays_one(
    rig: Rig, caplog: pytest.LogCaptureFixture, far: bool
) -> None:
    number = rig.keeper.group.new_row()
    row = Row(number, 5, rig.letter().function, wire.pack(["again"]), id="a")
    kept = Kept.of(row)
    rig.keeper.group.put(kept, row)
    rig.keeper.group.bury(kept, Reason.FAILED, "why", 9)
    (letter,) = [letter async for letter in rig.manager.dead_letters()]
    commit = rig.store.commit

    def refuse(batch: Batch) -> None:
        if batch.puts:
            raise Unwritable("a page is bad")
        commit(batch)

    rig.store.commit = refuse  # type: ignore[method-assign]
    task = await rig.manager.requeue(letter, timedelta(days=99 if far else 1))
    with pytest.raises(StoreError, match="a page is bad"):
        await task.stored()
    assert f"the requeueing of dead letter {number}, which stays one" in caplog.text
    assert [found async for found in rig.manager.dead_letters()] == [letter]
    assert (rig.manager.stats().dead_letters, rig.store.rows()) == (1, [])
    task.cancel()
    rig.store.commit = commit  # type: ignore[method-assign]
    await (await rig.manager.requeue(letter, timedelta(days=1))).stored()
    assert [row.id for row in rig.store.rows()] == ["a"]
    assert [found async for found in rig.manager.dead_letters()] == []
    assert (rig.manager.stats().dead_letters, rig.manager.stats().stored) == (0, 1)


async def test_a_letter_whose_id_an_undefined_task_has_is_requeued_behind_its_end(
    rig: Rig,
) -> None:
    restoring = rig.keeper._restoring
    assert restoring is not None
    function = Function(9, "test.gone", "__main__:gone", once=False)
    rig.keeper.group.define(function)
    rig.keeper._functions.read([function])
    row = Row(rig.keeper.group.new_row(), 5, 9, wire.pack([1]), id="a")
    kept = Kept.of(row)
    rig.keeper.group.put(kept, row)
    await rig.manager.sync()
    restoring._undefined.add(row, kept, function)
    task = rig.admission.requeue(rig.letter(), timedelta(days=1), None)
    await task.stored()
    assert [(row.id, row.function) for row in rig.store.rows()] == [("a", rig.letter().function)]
    assert [letter.reason for letter in rig.store.dead()] == [Reason.UNKNOWN]


async def test_what_is_refused_leaves_the_letter(rig: Rig) -> None:
    with pytest.raises(ValueError, match="not be"):
        rig.admission.requeue(rig.letter(), timedelta(days=-1), None)
    for n in range(3):
        rig.manager.schedule(reminders.note(n), timedelta(days=1))
    with pytest.raises(TaskLimitReached):
        rig.admission.requeue(rig.letter(), None, None)
    await rig.manager.sync()
    assert not any(batch.discards for batch in rig.store.batches)
    rig.keeper.commits.stop(FULL)
    with pytest.raises(StoreError, match="the disk is full"):
        rig.admission.requeue(rig.letter(), None, None)


async def test_it_is_over_with_the_manager(rig: Rig) -> None:
    assert not rig.admission.is_over
    rig.router.closed = ManagerClosed("over")
    assert rig.admission.is_over


async def test_admitted_is_called_with_each_id(rig: Rig) -> None:
    told: list[str] = []
    admission = Admission(rig.router, rig.keeper, told.append)
    for id_ in ("a", None, "b"):
        admission.admit(rig.due, None, id_, rig.call(1))
    assert told == ["a", "b"]
