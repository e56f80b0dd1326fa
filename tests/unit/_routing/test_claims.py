"""New tasks that want an id, and the task that has it in the file."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
import shelves
from hypothesis import example, given
from hypothesis import strategies as st
from shelves import HOUR, NOW, row_of

from aioscheduler._durable.group import Kept
from aioscheduler._durable.records import Row
from aioscheduler._routing.restoring import Early
from aioscheduler._scheduling.clock import to_datetime
from aioscheduler._transport import wire
from aioscheduler.task import State, Task

FAR, FARTHER, FARTHEST = (NOW + hours * HOUR for hours in (9, 20, 30))


class Rig(shelves.Rig):
    """A shelf, and links that cancel and move tasks at once."""

    def __init__(self) -> None:
        super().__init__()
        self.dispossessed: list[Any] = []
        for worker, link in enumerate(self.admitted.links):
            link.cancel = partial(self.end, worker)  # type: ignore[method-assign]
            link.reschedule = self.move_at_link  # type: ignore[method-assign]
        self.admitted.dispossess = self.dispossess  # type: ignore[method-assign]

    def end(self, worker: int, scheduler: int, number: int) -> bool:
        kept = self.restored.kept.pop(number, None)
        if kept is None:
            return False
        row = self.admitted.rows[number]
        self.group.strike(kept)
        self.where.forget([kept], self.group.stamp)
        if row.id is not None and self.admitted.ids.get(row.id, (0, 0, -1))[2] == number:
            del self.admitted.ids[row.id]
        self.admitted.links[worker].end(number, State.CANCELLED)
        self.commits.soon()
        return True

    def move_at_link(self, scheduler: int, number: int, due: int) -> bool:
        kept = self.restored.kept[number]
        kept.due = due
        self.where.horizon.keep(due, kept.row)
        self.group.change(kept)
        self.commits.soon()
        return True

    def dispossess(self, address: Any) -> None:
        self.dispossessed.append(address)
        self.admitted.links[address[0]].dispossess(*address[1:])

    def rest(self) -> dict[Any, int]:
        """Return the due times in the file, by value."""
        return {wire.unpack(row.payload)[0]: row.due for row in self.store.rows()}


@pytest.fixture
async def rig(no_tasks_left: None) -> Rig:
    return Rig()


# ---- the id is free


async def test_a_task_is_put_when_it_is_known_that_nobody_has_its_id(rig: Rig) -> None:
    rig.start(row_of(1, FAR, "b"))
    task = rig.schedule(FARTHER, "a", value="new")
    assert len(rig.shelf.claims) == 1
    assert task._number in rig.shelf.claims
    assert (rig.group.unsaved, rig.admitted.shelved) == (0, 2)
    await rig.turn()
    assert rig.rest() == {1: FAR, "new": FARTHER}
    assert rig.file()[task._number].id == "a"
    assert len(rig.shelf.claims) == 0
    assert task._number not in rig.shelf.claims
    assert rig.shelf.counter.figures() == {"pending": 2}


async def test_a_task_whose_time_the_horizon_has_reached_meanwhile_comes_into_memory(
    rig: Rig,
) -> None:
    rig.start(row_of(1, FARTHEST, "b"))
    task = rig.schedule(FAR, "a", value="new")
    await asyncio.sleep(0)
    rig.come(FARTHER)
    await rig.turn()
    assert (task._home, task._number) == (rig.admitted.links[0], 0)
    assert rig.rest() == {1: FARTHEST, "new": FAR}
    assert rig.admitted.shelved == 1


async def test_a_claim_can_be_moved_and_shows_when_it_is_due(rig: Rig) -> None:
    rig.start(row_of(1, FAR, "b"))
    task = rig.schedule(FAR, "a", value="new")
    assert rig.shelf.reschedule(0, task._number, FARTHER)
    assert task.due == to_datetime(FARTHER)
    await rig.turn()
    assert rig.rest() == {1: FAR, "new": FARTHER}
    assert task.due == to_datetime(FARTHER)


async def test_a_claim_that_is_cancelled_is_over_at_once(rig: Rig) -> None:
    rig.start(row_of(1, FAR, "b"))
    task = rig.schedule(FARTHER, "a")
    assert task.cancel()
    assert task.cancelled()
    assert len(rig.shelf.claims) == 0
    assert rig.shelf.claims.rows() == []
    assert not rig.shelf.reschedule(0, task._number, FARTHEST)
    await rig.turn()
    assert rig.rest() == {1: FAR}
    assert rig.shelf.counter.figures() == {"pending": 1, "cancelled": 1}


async def test_after_the_end_no_claim_goes_on(rig: Rig) -> None:
    rig.start(row_of(1, FAR, "b"))
    rig.schedule(FARTHER, "a")
    rig.shelf.claims.clear()
    await rig.turn()
    assert rig.rest() == {1: FAR}


# ---- a task of the file has it


async def test_the_new_handle_leads_to_the_task_of_the_file(rig: Rig) -> None:
    rig.start(row_of(1, FAR, "a"))
    task = rig.schedule(FARTHER, "a", value="new")
    assert rig.schedule(FARTHEST, "a") is task
    await rig.turn()
    assert (task._number, task.id, task.due) == (1, "a", to_datetime(FAR))
    assert rig.rest() == {1: FAR}
    assert rig.handle(1) is task
    assert rig.shelf.counter.figures() == {"pending": 1}


async def test_both_handles_lead_to_the_same_task(rig: Rig) -> None:
    rig.start(row_of(1, FAR, "a"))
    known = rig.handle(1)
    task = rig.schedule(FARTHER, "a")
    await rig.turn()
    assert task is not known
    assert (task._number, task.ref, task.due) == (1, known.ref, known.due)
    assert task.cancel()
    await rig.turn()
    assert task.cancelled()
    assert known.cancelled()
    assert rig.rest() == {}


async def test_an_alias_of_the_new_one_leads_to_that_of_the_file(rig: Rig) -> None:
    rig.start(row_of(1, FAR, "a"))
    rig.shelf.adopt(FARTHER, rig.draft("new", "a"), 1 << 40, False, False)
    await rig.turn()
    assert rig.shelf.held.aliases == {1 << 40: 1}
    assert rig.rest() == {1: FAR}


async def test_an_alias_of_the_new_one_leads_to_that_of_a_link(rig: Rig) -> None:
    rig.start(row_of(1, FAR, "a"))
    rig.shelf.adopt(FARTHER, rig.draft("new", "a"), 1 << 40, False, False)
    await asyncio.sleep(0)
    rig.come(FAR)
    await rig.turn()
    assert rig.shelf.held.aliases == {}
    assert rig.admitted.leads == {1 << 40: (0, 0, 0)}


async def test_the_new_handle_leads_to_the_task_at_a_link(rig: Rig) -> None:
    rig.start(row_of(1, FAR, "a"))
    task = rig.schedule(FARTHER, "a")
    await asyncio.sleep(0)
    rig.come(FAR)
    await rig.turn()
    link = rig.admitted.links[0]
    assert (task._home, task._number) == (link, 0)
    link.end(0, State.FINISHED, 5)
    await asyncio.sleep(0)
    assert task.result() == 5
    assert rig.admitted.shelved == 0


async def test_a_claim_leaves_a_task_alone_that_was_scheduled_after_it(rig: Rig) -> None:
    """That task has the id by right: the claim was cancelled, or has lost it."""
    rig.start(row_of(1, FAR, "b"))
    for id_, end in (("a", rig.shelf.cancel), ("c", rig.shelf.dispossess)):
        end(0, rig.schedule(FARTHER, id_)._number)
        new = row_of(rig.group.new_row(), NOW, id_)
        rig.restored.take(new, {})
    await rig.turn()
    assert rig.admitted.ids == {"a": (0, 0, 0), "c": (1, 0, 1)}
    assert rig.rest() == {1: FAR}


@pytest.mark.parametrize("how", ["cancel", "dispossess"])
@pytest.mark.parametrize("first", ["it ends", "that one comes"])
async def test_a_claim_that_ends_does_so_at_once_for_the_one_of_its_id_that_came_near(
    rig: Rig, how: str, first: str
) -> None:
    """A task that takes the id before the file has answered must not meet it."""
    rig.start(row_of(1, FAR, "a"))
    task = rig.schedule(FARTHER, "a")
    if first == "that one comes":
        rig.come(FAR)
    getattr(rig.shelf, how)(0, task._number)
    if first == "it ends":
        rig.come(FAR)
    assert task.cancelled()
    assert rig.admitted.ids == {}
    assert rig.dispossessed == ([] if how == "cancel" else [(0, 0, 0)])
    await rig.turn()
    assert rig.rest() == {}
    assert rig.dispossessed == ([] if how == "cancel" else [(0, 0, 0)])


@pytest.mark.parametrize("how", ["cancel", "dispossess"])
async def test_a_claim_that_has_ended_ends_the_one_of_a_link_that_had_its_id(
    rig: Rig, how: str
) -> None:
    rig.start(row_of(1, FAR, "a"))
    task = rig.schedule(FARTHER, "a")
    await asyncio.sleep(0)
    getattr(rig.shelf, how)(0, task._number)
    rig.come(FAR)
    await rig.turn()
    assert task.cancelled()
    assert rig.rest() == {}
    assert rig.admitted.ids == {}
    # A running task is cancelled, too, or goes on without the id.
    assert rig.dispossessed == ([] if how == "cancel" else [(0, 0, 0)])


async def test_moving_the_new_task_moves_the_one_at_a_link(rig: Rig) -> None:
    rig.start(row_of(1, FAR, "a"))
    task = rig.schedule(FARTHER, "a")
    await asyncio.sleep(0)
    rig.shelf.reschedule(0, task._number, FARTHEST)
    rig.come(FAR)
    await rig.turn()
    assert rig.rest() == {1: FARTHEST}


async def test_the_claimant_has_the_id_though_another_is_found_by_it(rig: Rig) -> None:
    """The next task to replace it must end the newer one."""
    rig.start(row_of(1, FAR, "a"))
    new = rig.schedule(FARTHER, "a", replace=True)
    before = rig.shelf.held.hand_out(1)
    rig.shelf.held.fill(before, row_of(1, FAR, "a"), Kept.of(row_of(1, FAR, "a")))  # found
    assert rig.shelf.address("a") == (-1, 0, new._number)
    await rig.turn()
    assert before.cancelled()
    assert rig.shelf.address("a") == (-1, 0, new._number)


async def test_a_task_has_its_id_though_nobody_holds_it(rig: Rig) -> None:
    rig.start(row_of(1, FAR, "b"))
    rig.schedule(FARTHER, "a", value="new")
    assert rig.known("a") is not None
    task = rig.schedule(FARTHEST, "a", value="other")
    await rig.turn()
    assert rig.rest() == {1: FAR, "new": FARTHER}
    assert task.due == to_datetime(FARTHER)


# ---- an early task at a link


def early(due: int) -> tuple[Early, Task[Any]]:
    row = Row(-1, FAR, 1, b"", id="a")
    draft: Any = None
    made = Early(Kept.of(row), draft, 1, 7, FAR, False)
    made.kept.due = due
    home: Any = None
    return made, Task(home, 0, 7, FAR)


@pytest.mark.parametrize(("due", "moved"), [(FAR, FAR), (FARTHEST, FARTHEST)])
async def test_a_task_at_a_link_turns_out_to_be_one_of_the_file(
    rig: Rig, due: int, moved: int
) -> None:
    rig.start(row_of(1, FAR, "a"))
    same, task = early(due)
    rig.admitted.early[7] = task
    rig.shelf.claims.join(same, rig.file()[1])
    assert rig.admitted.left_out == [same]
    assert (task._home, task._number, task.id) == (rig.shelf, 1, "a")
    await rig.turn()
    assert rig.rest() == {1: moved}
    assert task.due == to_datetime(moved)


async def test_a_task_at_a_link_that_nobody_holds_may_be_one_of_the_file(rig: Rig) -> None:
    rig.start(row_of(1, FAR, "a"))
    same, _ = early(FARTHEST)
    rig.shelf.claims.join(same, rig.file()[1])
    await rig.turn()
    assert rig.rest() == {1: FARTHEST}


# ---- anything may happen before the file has answered

STEPS = st.one_of(
    st.tuples(st.just("schedule"), st.booleans()),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("move"), st.integers(0, 9)),
    st.tuples(st.just("drop"), st.integers(0, 9)),
    st.tuples(st.sampled_from(["turn", "work", "come"]), st.none()),
)


class Model:
    """The right results, as if everything were known at each call."""

    def __init__(self, first: Any) -> None:
        self.owner = first
        self.dues: dict[Any, int] = {} if first is None else {first: FAR}

    def schedule(self, value: Any, replace: bool) -> Any:
        if self.owner is None or replace:
            self.dues.pop(self.owner, None)
            self.owner = value
            self.dues[value] = FARTHER
        return self.owner

    def cancel(self, value: Any) -> None:
        self.dues.pop(value, None)
        if self.owner == value:
            self.owner = None

    def move(self, value: Any, due: int) -> None:
        if value in self.dues:
            self.dues[value] = due


@given(st.booleans(), st.lists(STEPS, max_size=25))
@example(True, [("schedule", False), ("cancel", 0), ("schedule", False), ("work", None)])
@example(True, [("schedule", False), ("move", 0), ("turn", None), ("come", None)])
@example(True, [("schedule", True), ("turn", None), ("come", None), ("cancel", 0)])
@example(True, [("schedule", False), ("cancel", 0), ("turn", None), ("come", None)])
@example(False, [("schedule", False), ("cancel", 0), ("schedule", True), ("schedule", False)])
def test_one_task_has_the_id_in_the_end_and_it_is_the_right_one(
    is_there: bool, steps: list[tuple[str, Any]]
) -> None:
    asyncio.run(hold(is_there, steps))


async def hold(is_there: bool, steps: list[tuple[str, Any]]) -> None:
    rig = Rig()
    other = row_of(2, NOW + 99 * HOUR, "b")  # so that not everything is known
    rig.start(other, *([row_of(1, FAR, "a")] if is_there else []))
    model = Model(1 if is_there else None)
    tasks: list[tuple[Task[Any], Any]] = []  # with the value of its task
    for number, (what, more) in enumerate(steps, 100):
        if what == "schedule":
            task = rig.schedule(FARTHER, "a", more, number)
            tasks.append((task, model.schedule(number, more)))
            del task
        elif what == "turn":
            await asyncio.sleep(0)
        elif what == "work":
            rig.writer.work()
        elif what == "come":
            if rig.lookups.until() is None:  # as paging waits for it
                rig.come(FAR)
        elif what == "drop":
            del tasks[more:]
        elif tasks:
            task, value = tasks[more % len(tasks)]
            if what == "cancel":
                task.cancel()
                model.cancel(value)
            elif not task.done() and task._home.reschedule(
                task._scheduler, task._number, FARTHEST + number
            ):
                model.move(value, FARTHEST + number)
            del task
    await rig.turn(20)
    assert rig.rest() == {2: other.due, **model.dues}
    assert not rig.commits.refused
    assert [row.id for row in rig.store.rows()].count("a") == (model.owner is not None)
    for task, value in tasks:
        assert task.cancelled() == (value not in model.dues)
        if value in model.dues:
            assert not task.done()
            assert task.id == "a"
    assert len({(task._home, task._number) for task, v in tasks if v in model.dues}) <= 1
    here = [row for row in rig.file() if row not in rig.where]
    assert rig.shelf.counter.count == rig.admitted.shelved == len(here)
    assert len(rig.shelf.claims) == 0
    rig.store.close(clean=True)
