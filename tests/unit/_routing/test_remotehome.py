"""The home of handles whose tasks are in another process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from aioscheduler._routing.book import Book
from aioscheduler._routing.listeners import Listeners
from aioscheduler._routing.remotehome import RemoteHome
from aioscheduler._transport.definitionlog import DefinitionLog
from aioscheduler.outcomes import Outcomes, Part
from aioscheduler.task import State, TaskRef


class _Home(RemoteHome):
    def __init__(self, timed: bool) -> None:
        self.book = Book(1, timed, DefinitionLog())
        self.loop = None
        self._worker, self._timed, self._manager = 2, timed, "m"
        self._listeners = Listeners(cast("Any", self))
        self._keeping = None


def test_what_waits_has_a_due_time_and_what_runs_or_is_in_a_queue_has_none() -> None:
    home = _Home(timed=True)
    number = home.book.outbox.add(0, 77, 0, None)
    home.book.outbox.pack()
    assert (home.state(number), home.due(0, number)) == (State.PENDING, 77)
    home.book.announced(0, [number])
    assert (home.state(number), home.due(0, number)) == (State.RUNNING, None)
    assert home.due(0, 99) is None
    queue = _Home(timed=False)
    assert queue.due(0, queue.book.outbox.add(0, 0, 0, None)) is None


def test_a_task_is_addressed_by_the_number_that_it_was_given_first() -> None:
    home = _Home(timed=True)
    number = home.book.adopt(0, 7, 0, None, None, 1 << 48)
    assert home.ref(0, number) == TaskRef("m", 2, 0, 1 << 48)


def test_a_handle_may_go_from_one_task_to_another() -> None:
    home = _Home(timed=True)
    first, second = (home.book.outbox.add(0, due, 0, None) for due in (1, 2))
    task = home._listeners.hand_out(0, first, 1, "name")
    assert home.detach(0, first) is task
    assert home.detach(0, first) is None
    home.attach(task, 0, second)
    assert task.ref == home.ref(0, second)
    assert home._listeners.handle_of(second) is task


async def test_a_durable_task_is_addressed_by_its_row() -> None:
    home = _Home(timed=True)
    number = home.book.outbox.add(0, 77, 0, None)
    durable = TaskRef("51", -1, -1, 7)
    asked: list[Any] = []

    async def stored(number: int, kept: Any) -> None:
        asked.append((number, kept))

    def ref(asked: int, kept: Any) -> TaskRef | None:
        return durable if kept == "kept" or asked == number else None

    home._keeping = cast("Any", SimpleNamespace(ref=ref, stored=stored))
    assert home.ref(0, number) == durable
    assert home.ref(0, 99, "kept") == durable
    second = home.book.outbox.add(0, 78, 0, None)
    assert home.ref(0, second) == TaskRef("m", 2, 0, second)
    await home.stored(number, True)
    assert asked == [(number, True)]


def test_a_task_of_a_batch_may_come_from_elsewhere() -> None:
    home, elsewhere = _Home(timed=True), _Home(timed=True)
    outcomes = Outcomes(2, "f")
    part = Part(outcomes, 0, cast("Any", elsewhere), 0, 50, 2, 7)
    number = home.book.outbox.add(0, 77, 0, None)
    home.attach_part(part.move(51, cast("Any", home), 0, number))
    assert number in home._listeners
    assert home._listeners.settle(number, State.FINISHED, 1, None)
    assert outcomes.states == [None, State.FINISHED]
    assert home.scheduler_of(number) == 0
    assert home.scheduler_of(number + 9) is None
