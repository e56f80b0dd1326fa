"""The home of handles whose tasks are in this loop."""

from __future__ import annotations

from contextvars import copy_context
from types import SimpleNamespace
from typing import Any

import pytest

from aioscheduler._durable.group import Kept
from aioscheduler._durable.records import Row
from aioscheduler._routing.ids import Ids
from aioscheduler._routing.localhome import LocalHome
from aioscheduler._scheduling.engine import Engine
from aioscheduler._scheduling.lateness import Recorder
from aioscheduler._scheduling.order import Order
from aioscheduler.task import State, Task, TaskRef


class Keeping:
    """Keeps one task.

    Attributes:
        asked: The numbers it was asked for.
    """

    def __init__(self) -> None:
        self.kept = Kept.of(Row(7, 5, 1, b""))
        self.asked: list[tuple[int, Any]] = []

    def ref(self, number: int, kept: Any) -> TaskRef | None:
        return TaskRef("51", -1, -1, 7) if number == 1 or kept is self.kept else None

    async def stored(self, number: int, kept: Any) -> None:
        self.asked.append((number, kept))


class Home(LocalHome):
    """Of two schedulers."""

    loop = None

    def __init__(self, order: Order = Order.TIMED) -> None:
        runner: Any = SimpleNamespace(
            held=set(), ref=lambda scheduler, number: TaskRef("m", 0, scheduler, number)
        )
        self._runner = runner
        self._ids = Ids(1)
        self._keeping = None
        self.engines = [Engine(index, order, runner, Recorder()) for index in range(2)]

    def add(self, scheduler: int, number: int, due: int) -> Task[Any]:
        """Have a task wait."""
        home: Any = self
        task: Task[Any] = Task(home, scheduler, number, due, "name")
        work: Any = None
        entry = task, work, copy_context(), None, due, None
        self.engines[scheduler].add(number, due, entry)
        return task

    def begin(self, scheduler: int, number: int) -> None:
        """Have a task begin."""
        engine = self.engines[scheduler]
        entry = engine.withdraw(number)
        assert entry is not None
        task: Any = None
        engine.running[number] = task, entry


def test_what_waits_is_found_and_has_a_due_time() -> None:
    home = Home()
    task = home.add(1, 5, 77)
    assert home.find(1, 5) is task
    assert home.find(0, 5) is None
    assert home.scheduler_of(5) == 1
    assert home.scheduler_of(6) is None
    assert (home.state(5), home.due(1, 5), home.due(1, 6)) == (State.PENDING, 77, None)
    assert home.name_of("name") == "name"
    home.begin(1, 5)
    assert home.find(1, 5) is task
    assert home.scheduler_of(5) == 1
    assert (home.state(5), home.due(1, 5)) == (State.RUNNING, None)


def test_in_a_queue_it_has_none() -> None:
    home = Home(Order.FIFO)
    home.add(0, 5, 0)
    assert home.due(0, 5) is None


def test_a_handle_knows_the_id_that_its_task_has() -> None:
    home = Home()
    home.add(0, 5, 77)
    home._ids.give("a", (0, 0, 5))
    found = home.find(0, 5)
    assert found is not None
    assert found.id == "a"


def test_what_somebody_waits_for_is_held() -> None:
    home = Home()
    task = home.add(0, 5, 77)
    home.hold(task)
    assert home._runner.held == {task}
    home.release(task)
    home.release(task)
    assert not home._runner.held


@pytest.mark.parametrize("has_store", [False, True])
async def test_a_durable_task_is_addressed_by_its_row(has_store: bool) -> None:
    home = Home()
    keeping = Keeping()
    plain = TaskRef("m", 0, 1, 1)
    assert home.ref(1, 1) == plain
    if has_store:
        home._keeping = keeping  # type: ignore[assignment]
        durable = TaskRef("51", -1, -1, 7)
        assert home.ref(1, 1) == durable
        assert home.ref(1, 2, keeping.kept) == durable
        assert home.ref(1, 2) == TaskRef("m", 0, 1, 2)
        await home.stored(2, True)
        assert keeping.asked == [(2, True)]
