"""Reports of ends: to counters, handles, batches, or the loop's handler."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import pytest
from homes import Home

from aioscheduler._routing.book import Book
from aioscheduler._routing.changes import Change
from aioscheduler._routing.endings import _UNHEARD_NAMED, NO_MEMORY, Endings
from aioscheduler._routing.ids import Ids
from aioscheduler._scheduling.states import State
from aioscheduler._transport import wire
from aioscheduler._transport.definitionlog import DefinitionLog
from aioscheduler.batch import Batch
from aioscheduler.errors import RemoteError
from aioscheduler.outcomes import Outcomes, Part
from aioscheduler.task import TaskRef


class Rig(Home):
    """A book with tasks, and everything that is notified of their ends."""

    def __init__(self) -> None:
        super().__init__(asyncio.get_running_loop())
        self.book = Book(2, True, DefinitionLog())
        self.counts: Counter[str] = Counter()
        self.ids = Ids(4)
        self.told: list[Any] = []
        self.endings = Endings(3, self, self.book, self, self, self.counts, self.ids)  # type: ignore[arg-type]

    def add(self, count: int) -> None:
        for number in range(count):
            self.book.outbox.add(0, 5, 7, number)
        self.book.outbox.take()
        self.book.announced(0, list(range(count)))

    # The counter.

    def count_waiting(self, *change: int) -> None:
        self.told.append(("waiting", *change))

    def count_ended(self, *change: int) -> None:
        self.told.append(("ended", *change))

    def count_emptied(self, worker: int) -> None:
        self.told.append(("emptied", worker))

    # The shipper, and the home of handles.

    def label(self, function: int, options: int | None) -> Any:
        return function

    def ref(self, scheduler: int, number: int, kept: object = None) -> TaskRef:
        return super().ref(scheduler, self.book.alias_of(number))

    def state(self, number: int) -> State:
        return self.book.state(number)


@pytest.fixture
async def rig(reports: list[dict[str, Any]]) -> Rig:
    return Rig()


def decode(value: int) -> int:
    return value * 10


async def test_handles_and_counters_are_notified(rig: Rig) -> None:
    rig.add(3)
    task = rig.endings.listeners.hand_out(0, 1, 5, "task")
    rig.endings.report(Change(0, 0, [0, 1], State.FINISHED), [5, 6, 7], decode)
    assert task.result() == 60
    assert rig.told == [("ended", 3, 0, 2)]
    assert rig.counts == {"finished": 2}


async def test_what_changes_without_an_end_is_only_counted(rig: Rig) -> None:
    rig.endings.report(Change(1, -4))
    rig.endings.report(Change(1))
    assert rig.told == [("waiting", 3, 1, -4)]
    assert not rig.counts


async def test_the_rows_of_a_batch_are_settled_at_once(rig: Rig) -> None:
    rig.add(6)
    outcomes = Outcomes(4)
    batch: Batch[int] = Batch(outcomes)
    rig.endings.listeners.add(Part(outcomes, 0, rig, 0, 1, 4, 5))
    rig.endings.report(Change(0, 0, [0, 1, 2, 5, 3, 4], State.FINISHED), list(range(6)), decode)
    assert await batch == [1, 2, 4, 5]  # the values are the results themselves


async def test_a_cancelled_task_has_no_outcome_whatever_came(rig: Rig) -> None:
    rig.add(1)
    task = rig.endings.listeners.hand_out(0, 0, 5, "task")
    rig.endings.report(Change(0, -1, [0]), [b"odd"], decode)
    assert task.cancelled()
    assert rig.told == [("waiting", 3, 0, -1), ("ended", 3, 0, 1)]


async def test_what_is_retried_is_counted_and_reported_to_nobody(
    rig: Rig, reports: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    rig.add(3)
    rig.book.cancel(0, 2)
    change = rig.book.retried(0, [0, 2, 9], [5, 6, 7], 10)
    with caplog.at_level(logging.INFO, "aioscheduler"):
        rig.endings.retried(change, [0, 2, 9], ["first: E", "third: E", "none: E"])
        assert rig.told == [("waiting", 3, 0, 1), ("ended", 3, 0, 1)]
        assert rig.counts == {"retried": 1, "cancelled": 1}
        assert len(rig.endings.failures) == 1
        rig.endings.report(Change(0, -1, [0]))
        rig.endings.report(Change(0, -1, [1]))
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        f"task m/1/0/{n} was cancelled while it waited for another attempt; "
        f"the last one failed: {why}"
        for n, why in ((2, "third: E"), (0, "first: E"))
    ]
    assert not rig.endings.failures


async def test_at_the_close_what_waits_for_another_attempt_says_why(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.add(3)
    change = rig.book.retried(0, [0, 1], [5, 6], 10)
    rig.endings.retried(change, [0, 1], ["first: E", "second: E"])
    with caplog.at_level(logging.INFO, "aioscheduler"):
        rig.endings.settle_all([([1], State.LOST, ValueError()), ([0], State.CANCELLED, None)])
    (record,) = caplog.records
    assert "m/1/0/0 was cancelled" in record.getMessage()
    assert "first: E" in record.getMessage()


async def test_what_was_too_late_is_counted(rig: Rig) -> None:
    rig.add(2)
    tasks = [rig.endings.listeners.hand_out(0, n, 5, "task") for n in range(2)]
    late = Change(0, 0, [0, 1], State.FAILED)
    rig.endings.report(late, [ValueError(), ValueError()], None, ending=wire.TOO_LATE)
    assert all(isinstance(task.exception(), ValueError) for task in tasks)
    assert rig.counts == {"failed": 2, "too_late": 2}


async def test_an_outcome_without_memory_is_a_failure_that_says_so(rig: Rig) -> None:
    rig.add(2)
    tasks = [rig.endings.listeners.hand_out(0, n, 5, "task") for n in range(2)]
    rig.endings.report(Change(0, 0, [0, 1], State.FINISHED), [NO_MEMORY, 4], decode, True)
    assert isinstance(tasks[0].exception(), RemoteError)
    assert tasks[1].result() == 40
    assert +rig.counts == {"failed": 1, "finished": 1}


async def test_no_end_is_reported_without_its_outcome(rig: Rig) -> None:
    rig.add(2)
    with pytest.raises(ValueError, match="1 outcomes for 2 tasks that are failed"):
        rig.endings.report(Change(0, 0, [0, 1], State.FAILED), [ValueError()])
    assert not rig.told
    assert not rig.counts


async def test_failures_that_nobody_hears_go_to_the_loop_some_by_name(
    rig: Rig, reports: list[dict[str, Any]]
) -> None:
    rig.add(_UNHEARD_NAMED + 1)
    numbers = list(range(_UNHEARD_NAMED + 1))
    rig.ids.give("mine", (3, 0, 1))
    rig.endings.name_unheard(numbers)
    rig.book.ended(0, numbers, State.FAILED)
    errors = [ValueError(n) for n in numbers]
    rig.endings.report(Change(0, 0, numbers, State.FAILED), errors)
    messages = [report["message"] for report in reports]
    tasks = [report["scheduled_task"] for report in reports]
    reports.clear()
    assert [str(task["ref"]) for task in tasks] == [f"m/1/0/{number}" for number in numbers]
    assert tasks[1] | {"ref": 0} == {"name": "function 7", "id": "mine", "ref": 0}
    assert messages[1] == "task function 7 'mine' m/1/0/1: its failure was never awaited"
    assert messages[0] == "task function 7 m/1/0/0: its failure was never awaited"
    assert messages[-1] == f"task m/1/0/{_UNHEARD_NAMED}: its failure was never awaited"


async def test_an_alias_is_known_while_its_end_is_reported(
    rig: Rig, reports: list[dict[str, Any]]
) -> None:
    rig.book.adopt(0, 5, 7, 1, None, 1 << 50)
    rig.book.outbox.take()
    rig.endings.report(Change(0, 0, [0], State.FAILED), [ValueError()])
    assert str(1 << 50) in reports.pop()["message"]
    assert rig.book.alias_of(0) == 0


async def test_very_many_that_end_alike_are_counted_once(rig: Rig) -> None:
    rig.add(5)
    task = rig.endings.listeners.hand_out(0, 2, 5, "task")
    rig.endings.settle_all([(range(5), State.CANCELLED, None)])
    assert task.cancelled()
    assert rig.counts == {"cancelled": 5}
    assert rig.told == [("emptied", 3)]


async def test_a_few_of_what_runs_are_named(rig: Rig) -> None:
    assert rig.endings.describe_running() == ""
    rig.add(7)
    task = rig.endings.listeners.hand_out(0, 1, 5, "mine")
    assert rig.endings.describe_running() == (
        "function 7 m/1/0/0, mine m/1/0/1, function 7 m/1/0/2, function 7 m/1/0/3, "
        "function 7 m/1/0/4 and 2 more"
    )
    assert task.name == "mine"
