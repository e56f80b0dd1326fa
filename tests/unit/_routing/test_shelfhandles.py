"""The handles, batches, ids and aliases of tasks that are only in the file."""

from __future__ import annotations

import asyncio
import gc
from datetime import UTC, datetime
from typing import Any

import pytest
from homes import Home
from shelves import HOUR, NOW, PLACE, Link, row_of

from aioscheduler._durable.group import Kept
from aioscheduler._durable.records import Row
from aioscheduler._routing import shelfhandles as module
from aioscheduler._routing.shelfhandles import ShelfHandles
from aioscheduler._routing.whereabouts import Whereabouts
from aioscheduler.batch import Batch
from aioscheduler.errors import ManagerClosed
from aioscheduler.outcomes import Outcomes
from aioscheduler.task import State, Task


class Names:
    def name(self, row: Row) -> str:
        return f"{PLACE}({row.row})"


class Rig:
    def __init__(self, timed: bool = True) -> None:
        self.home = Home()
        self.where = Whereabouts(2)
        self.known: dict[int, bool] = {}
        names: Any = Names()
        self.held = ShelfHandles(self.home, timed, self.where, names, self.known.get)

    def make(self, number: int, id_: str | None = None) -> Task[Any]:
        row = row_of(number, id_=id_)
        if id_ is not None:
            self.held.note_id(id_, number)
        return self.held.make(row, Kept.of(row), row.due)

    def map(self, first: int, count: int) -> Batch[Any]:
        outcomes = Outcomes(count, PLACE)
        outcomes.durable = True
        self.held.add(outcomes, 0, first, count, NOW + 5)
        return Batch(outcomes)


@pytest.fixture
def rig() -> Rig:
    return Rig()


# ---- handles


def test_a_handle_knows_what_it_is_of_and_is_found_as_long_as_somebody_has_it(
    rig: Rig,
) -> None:
    when = datetime(2030, 1, 1, tzinfo=UTC)
    row = row_of(7, id_="a")
    task = rig.held.make(row, kept := Kept.of(row), when)
    assert (task.name, task.id, task.priority, task._kept) == (f"{PLACE}(7)", "a", when, kept)
    assert rig.held.find(7) is task
    assert rig.held.hand_out(7) is task
    assert rig.held.due(7) == row.due
    assert rig.make(8).id is None
    del task
    gc.collect()
    assert rig.held.find(7) is None
    assert rig.held.due(7) is None


def test_a_handle_may_be_filled_in_later(rig: Rig) -> None:
    task = rig.held.hand_out(7)
    assert rig.held.hand_out(7) is task
    assert (task.name, task.id, task._kept) == ("", None, True)
    assert rig.held.due(7) is None
    row = row_of(7, id_="a")._replace(given=NOW + 1)
    rig.held.fill(task, row, kept := Kept.of(row))
    assert (task.name, task.id, task._kept) == (f"{PLACE}(7)", "a", kept)
    assert task._when == NOW + 1  # as given: it waits for another attempt
    rig.held.fill(task, row._replace(given=None), kept)
    assert task._when == row.due
    assert rig.held.row_of("a") == 7


def test_in_a_queue_no_handle_has_a_time() -> None:
    rig = Rig(timed=False)
    rig.held.fill(task := rig.held.hand_out(7), row := row_of(7), Kept.of(row))
    assert task.priority == 0


def test_a_handle_of_one_task_can_become_that_of_another(rig: Rig) -> None:
    task = rig.make(7)
    assert rig.held.take(7) is task
    assert rig.held.take(7) is None
    rig.held.put(task, row := row_of(8, id_="a"), kept := Kept.of(row))
    assert rig.held.find(8) is task
    assert (task._number, task.id, task._kept) == (8, "a", kept)
    rig.held.settle(7, State.CANCELLED, None)
    assert not task.done()
    rig.held.settle(8, State.CANCELLED, None)
    assert task.cancelled()


async def test_two_handles_of_one_task_end_alike(rig: Rig) -> None:
    rig.home.loop = asyncio.get_running_loop()
    rig.home.loop_thread.enter(rig.home.loop)
    task, other = rig.make(7), rig.make(8)
    rig.held.take(7)
    rig.held.put(task, row_of(8), Kept(8, NOW))
    assert rig.held.find(8) is other
    rig.held.settle(8, State.LOST, error := ValueError("gone"))
    await asyncio.sleep(0)
    assert (task.exception(), other.exception()) == (error, error)


def test_a_task_of_a_batch_has_the_handle_of_the_batch(rig: Rig) -> None:
    batch = rig.map(20, 3)
    assert rig.held.find(21) is batch[1]
    assert rig.held.hand_out(21) is batch[1]
    assert rig.held.due(22) == NOW + 5
    rig.held.settle(21, State.CANCELLED, None)
    assert batch._outcomes.states == [None, State.CANCELLED, None]


def test_a_handle_that_is_waited_for_is_kept_until_its_end(rig: Rig) -> None:
    rig.held.hold(rig.make(7))
    rig.held.hold(task := rig.make(8))
    rig.held.release(task)
    del task
    gc.collect()
    assert rig.held.find(7) is not None
    assert rig.held.find(8) is None
    rig.held.settle(7, State.CANCELLED, None)
    gc.collect()
    assert rig.held.find(7) is None


def test_handles_that_are_gone_are_forgotten(rig: Rig) -> None:
    for number in range(9):
        rig.make(number)
    kept = rig.make(9)
    gc.collect()
    rig.held.forget_dropped()
    assert rig.held._listeners.numbers() == [9]
    assert rig.held.find(9) is kept


# ---- what is kept of a task


def test_all_changes_of_a_task_go_to_one_object(rig: Rig) -> None:
    row = row_of(7)
    unwritten = Kept.of(row)
    assert rig.held.kept_of(row) is not rig.held.kept_of(row)  # nothing is kept
    rig.where.horizon.put(row, unwritten, 1)
    assert rig.held.kept_of(row) is unwritten
    task = rig.held.hand_out(7)
    assert rig.held.kept_of(row) is unwritten  # the handle is still blank
    rig.held.fill(task, row, mine := Kept.of(row))
    assert rig.held.kept_of(row) is mine
    assert (rig.held.kept_of(row_of(8, NOW)).row, rig.held.kept_of(row_of(8)).due) == (
        8,
        NOW + HOUR,
    )


# ---- ids


def test_an_id_leads_to_its_task_as_long_as_something_is_kept_of_it(rig: Rig) -> None:
    assert rig.held.row_of("a") is None
    task = rig.make(7, "a")
    assert rig.held.row_of("a") == 7
    del task
    gc.collect()
    assert rig.held.row_of("a") is None
    rig.held.note_id("a", 7)
    rig.where.horizon.put(row_of(7, id_="a"), None, 1)
    assert rig.held.row_of("a") == 7  # not in the file yet
    rig.where.horizon.strike(7, 2)
    assert rig.held.row_of("a") is None


def test_an_id_leads_nowhere_once_its_task_must_end_or_is_in_memory(rig: Rig) -> None:
    held = [rig.make(7, "a"), rig.make(8, "b")]
    rig.known[7] = False
    rig.where.add(8, 0, 1)
    assert rig.held.row_of("a") is None
    assert rig.held.row_of("b") is None
    del held


def test_an_id_leads_to_a_task_that_somebody_else_knows_of(rig: Rig) -> None:
    rig.make(7, "a")
    gc.collect()
    rig.known[7] = True
    assert rig.held.row_of("a") == 7


def test_the_ids_of_tasks_of_which_nothing_is_kept_are_forgotten(rig: Rig) -> None:
    held = [rig.make(number, f"held {number}") for number in range(100)]
    for number in range(100, 9000):
        rig.held.note_id(f"n{number}", number)
    assert len(rig.held._rows) <= 2 * 100 + 1024 + 1
    assert [rig.held.row_of(f"held {task._number}") for task in held] == [*range(100)]


# ---- aliases


def test_an_alias_leads_to_its_task_until_that_ends(rig: Rig) -> None:
    rig.held.lead(1 << 40, 7)
    rig.held.lead(1 << 41, 8)
    assert rig.held.aliases == {1 << 40: 7, 1 << 41: 8}
    assert rig.held.forget_alias(7) == 1 << 40
    assert rig.held.forget_alias(7) is None
    rig.held.settle(8, State.CANCELLED, None)
    assert rig.held.aliases == {}


def test_there_is_a_limit_to_aliases_and_the_oldest_lead_nowhere_then(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_ALIASES", 3)
    for number in range(5):
        rig.held.lead(100 + number, number)
    assert rig.held.aliases == {102: 2, 103: 3, 104: 4}
    assert [number in rig.held.forgotten for number in (100, 101, 102)] == [True, True, False]
    assert rig.held.forget_alias(0) is None
    assert rig.held.forget_alias(2) == 102


# ---- ends


async def test_listeners_of_a_task_move_to_its_link(rig: Rig) -> None:
    link: Any = Link(asyncio.get_running_loop())
    task, batch = rig.make(7), rig.map(20, 2)
    kept = Kept(7, NOW)
    assert rig.held.give(7, kept, link, 1, 70)
    assert not rig.held.give(8, Kept(8, NOW), link, 1, 80)
    assert not rig.held.give(20, Kept(20, NOW), link, 1, 90)
    assert (task._home, task._scheduler, task._number, task._kept) == (link, 1, 70, kept)
    assert rig.held.find(7) is None
    assert [part.first for part in link.batched] == [90]
    assert batch[0]._number == 90
    rig.held.settle(7, State.CANCELLED, None)
    assert not task.done()
    link.end(70, State.FINISHED, 5)
    assert task.result() == 5


def test_at_a_close_listeners_learn_that_a_task_stays(rig: Rig) -> None:
    tasks, batch = [rig.make(number) for number in (7, 8)], rig.map(20, 2)
    rig.held.close(None, ())
    assert [task.state for task in tasks] == [State.KEPT] * 2
    assert batch._outcomes.states == [State.KEPT] * 2
    with pytest.raises(ManagerClosed, match="it stays in the store"):
        tasks[0].result()
    assert rig.held._listeners.numbers() == []


@pytest.mark.parametrize("reason", [None, ValueError("the disk is gone")])
def test_at_a_close_listeners_learn_that_a_task_does_not_stay(
    rig: Rig, reason: Exception | None
) -> None:
    stays, goes, batch = rig.make(7), rig.make(8), rig.map(20, 2)
    rig.make(9)
    gc.collect()
    rig.held.close(reason, {8, 9, 21})
    assert stays.state is State.KEPT
    gone = State.CANCELLED if reason is None else State.LOST
    assert [goes.state, *batch._outcomes.states] == [gone, State.KEPT, gone]
    if reason is not None:
        assert goes.exception() is batch[1].exception() is reason
