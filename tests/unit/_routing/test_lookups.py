"""Lookups of single tasks of the file, which change meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shelves import HOUR, NOTE, NOW, row_of
from stores import HandWriter, TrickyStore

from aioscheduler._durable.group import Kept
from aioscheduler._durable.records import Batch, Row
from aioscheduler._routing import lookups as module
from aioscheduler._routing.asking import Asking
from aioscheduler._routing.lookups import Lookups
from aioscheduler._routing.whereabouts import Whereabouts
from aioscheduler.errors import StoreError


class Rig:
    """Lookups in an open file, and their answers."""

    def __init__(self, *rows: Row) -> None:
        self.store, self.writer = TrickyStore(), HandWriter()
        self.store.open()
        self.store.commit(Batch(functions=[NOTE], puts=rows))
        self.where = Whereabouts(2)
        self.stamp = 0
        self.told: list[Any] = []
        self.answered = 0
        self.asked: list[int] = []  # lookups at a time
        self.fails: list[Exception] = []
        self.failures: list[Exception] = []
        writer: Any = self.writer
        asking = Asking(self.store, writer)
        self.lookups = Lookups(
            *(self.store, asking.ask, self.where, lambda: self.stamp, self.count_answer),
            self.failures.append,
        )
        find = self.store.find

        def count(ids: Any, rows: Any) -> Any:
            self.asked.append(len(ids) + len(rows))
            if self.fails:
                raise self.fails.pop(0)
            return find(ids, rows)

        self.store.find = count  # type: ignore[method-assign]

    def count_answer(self) -> None:
        self.answered += 1

    def tell(self, what: Any) -> Callable[[Row | None], None]:
        return lambda row: self.told.append((what, row and row.row))

    def id(self, id_: str) -> None:
        self.lookups.by_id(id_, self.tell(id_))

    def row(self, row: int, due: int = NOW + HOUR) -> None:
        self.lookups.by_row(row, due, self.tell(row))

    async def turn(self, count: int = 6) -> None:
        for _ in range(count):
            await asyncio.sleep(0)
            self.writer.work()
        await asyncio.sleep(0)

    def write(self, stamp: int, **changes: Any) -> None:
        """Write changes into the file, and report it."""
        self.store.commit(Batch(**changes))
        self.where.horizon.written(stamp)


@pytest.fixture
async def rig(no_tasks_left: None) -> Rig:
    return Rig(*(row_of(number, id_=f"n{number}") for number in range(1, 6)))


# ---- questions and answers


async def test_answers_come_in_the_order_of_the_questions_of_whichever_kind(rig: Rig) -> None:
    rig.id("n3")
    rig.row(1)
    rig.lookups.when_known(lambda: rig.told.append("known"))
    rig.id("nobody")
    rig.row(99)
    rig.row(2, due=0)  # a wrong guess
    rig.id("n3")
    assert rig.told == []
    await rig.turn()
    assert rig.told == [
        ("n3", 3),
        (1, 1),
        "known",
        ("nobody", None),
        (99, None),
        (2, 2),
        ("n3", 3),
    ]
    assert (rig.asked, rig.answered) == ([6], 1)


async def test_what_is_asked_while_the_file_answers_is_asked_of_it_together(rig: Rig) -> None:
    rig.id("n1")
    await asyncio.sleep(0)
    rig.id("n2")
    rig.row(3)
    await rig.turn()
    rig.id("n4")
    await rig.turn()
    assert rig.asked == [1, 2, 1]
    assert [what for what, _ in rig.told] == ["n1", "n2", 3, "n4"]
    assert rig.answered == 3


async def test_there_is_a_limit_to_what_is_asked_at_a_time(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    for number in range(1, 6):
        rig.row(number)
    await rig.turn(9)
    assert rig.asked == [3, 2]
    assert rig.told == [(number, number) for number in range(1, 6)]


async def test_a_callback_may_look_up_again(rig: Rig) -> None:
    rig.lookups.by_id("n1", lambda row: rig.id("n2"))
    await rig.turn(9)
    assert rig.told == [("n2", 2)]


async def test_an_answer_that_cannot_be_passed_on_does_not_stop_others(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.lookups.by_id("n1", lambda row: 1 / 0)
    rig.id("n2")
    await rig.turn()
    assert rig.told == [("n2", 2)]
    assert "an answer of tasks.db could not be passed on" in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_the_task_that_has_an_id_may_be_awaited(rig: Rig) -> None:
    found = asyncio.gather(
        *(rig.lookups.find(id_, lambda row: row) for id_ in ("n1", "nobody", "n2"))
    )
    await rig.turn()
    assert [row and row.row for row in await found] == [1, None, 2]


async def test_a_waiter_that_has_gone_is_not_answered(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = asyncio.create_task(rig.lookups.find("n1", lambda row: row))
    await asyncio.sleep(0)
    waiting.cancel()
    rig.id("n2")
    await rig.turn()
    assert rig.told == [("n2", 2)]
    assert not caplog.records


# ---- the file's answer, and the right one


async def test_what_is_in_memory_is_not_only_in_the_file(rig: Rig) -> None:
    rig.id("n1")
    rig.row(2)
    rig.row(3)
    await asyncio.sleep(0)
    rig.where.add(1, 0, 7)
    rig.where.add(2, 0, 8)
    await rig.turn()
    assert rig.told == [("n1", None), (2, None), (3, 3)]


async def test_a_task_struck_before_the_answer_is_not_found(rig: Rig) -> None:
    rig.where.horizon.strike(1, 1)
    rig.id("n1")
    rig.id("n2")
    rig.row(3)
    await asyncio.sleep(0)
    rig.where.horizon.strike(2, 2)
    rig.where.horizon.strike(3, 3)
    rig.id("n3")
    await rig.turn()
    assert rig.told == [("n1", None), ("n2", None), (3, None), ("n3", None)]


async def test_a_task_struck_and_written_before_the_answer_is_not_found(
    rig: Rig,
) -> None:
    rig.id("n1")
    await asyncio.sleep(0)
    rig.writer.work()  # the file has answered
    rig.where.horizon.strike(1, 1)
    rig.write(1, strikes=[(row_of(1).bucket, 1)])
    await rig.turn()
    assert rig.told == [("n1", None)]
    assert rig.where.horizon.find(1) is None  # kept no longer than that


async def test_a_rescheduled_task_is_listed_with_its_new_time(rig: Rig) -> None:
    moved = row_of(1, NOW + 5 * HOUR, "n1")
    new = row_of(9)
    seen: list[Row | None] = []
    rig.where.horizon.put(moved, Kept.of(moved), 1)
    rig.where.horizon.put(new, Kept.of(new), 2)
    rig.lookups.by_id("n1", seen.append)
    rig.lookups.by_row(1, NOW + HOUR, seen.append)
    rig.lookups.by_row(9, NOW + HOUR, seen.append)
    await rig.turn()
    assert seen == [moved, moved, new]


async def test_a_task_that_ended_in_memory_is_not_found(rig: Rig) -> None:
    """The horizon has passed it: whatever the file says, it was in memory."""
    rig.id("n1")
    await asyncio.sleep(0)
    rig.where.horizon.take([], (NOW + 2 * HOUR, 0))
    await rig.turn()
    assert rig.told == [("n1", None)]


CHANGES = st.sampled_from(["strike", "move", "take", "end", "pass"])


@given(
    st.lists(
        st.tuples(st.sampled_from(["ask", "write", "turn", "work"]), st.integers(1, 5), CHANGES),
        max_size=40,
    )
)
def test_each_answer_is_right_when_it_comes(steps: list[tuple[str, int, str]]) -> None:
    asyncio.run(hold(steps))


async def hold(steps: list[tuple[str, int, str]]) -> None:
    """Make changes during lookups; an answer is right at the moment it comes."""
    rows = {number: row_of(number, id_=f"n{number}") for number in range(1, 6)}
    rig = Rig(*rows.values())
    horizon, far = rig.where.horizon, dict(rows)  # the present rows
    file = dict(rows)
    asked = 0

    def check(number: int, row: Row | None) -> None:
        rig.told.append((row, far.get(number)))

    def change(number: int, how: str) -> None:
        row = far.get(number)
        if row is None:
            return
        rig.stamp += 1
        if how == "move":
            far[number] = moved = row._replace(due=row.due + HOUR)
            horizon.put(moved, None, rig.stamp)
            return
        del far[number]
        horizon.strike(number, rig.stamp)
        if how == "take":
            rig.where.add(number, 0, number)

    def write() -> None:
        strikes = [(file[n].bucket, n) for n in file if file[n] != far.get(n)]
        puts = [row for n, row in far.items() if file.get(n) != row]
        file.clear()
        file.update(far)
        rig.write(rig.stamp, strikes=strikes, puts=puts)

    for what, number, how in steps:
        if what == "ask":
            asked += 2
            rig.lookups.by_id(f"n{number}", partial(check, number))
            rig.lookups.by_row(number, NOW + HOUR, partial(check, number))
            change(number, how)
        elif what == "write":
            change(number, how)
            write()
        elif what == "work":
            rig.writer.work()
        else:
            await asyncio.sleep(0)
            change(number, how)
    await rig.turn(20)
    assert len(rig.told) == asked
    assert [row for row, _ in rig.told] == [right for _, right in rig.told]
    write()
    rig.store.close(clean=True)
    assert all(horizon.find(number) is None for number in rows)


# ---- waiting for answers


async def test_nothing_may_be_written_past_the_first_that_is_not_answered(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 1)
    seen: list[int | None] = []
    assert rig.lookups.until() is None
    for rig.stamp in (3, 5):
        rig.lookups.by_id("n1", lambda row: seen.append(rig.lookups.until()))
    rig.stamp = 9
    assert rig.lookups.until() == 3
    await rig.turn(1)
    assert (seen, rig.lookups.until()) == ([5], 5)
    await rig.turn()
    assert seen == [5, None]
    assert rig.lookups.until() is None


async def test_when_nothing_is_asked_all_is_known_at_once(rig: Rig) -> None:
    rig.lookups.when_known(lambda: rig.told.append("known"))
    assert rig.told == ["known"]
    await rig.lookups.settle()
    assert rig.asked == []


async def test_settle_waits_only_for_earlier_lookups(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 1)
    rig.id("n1")
    settling = asyncio.create_task(rig.lookups.settle())
    await asyncio.sleep(0)
    rig.id("n2")
    for _ in range(9):
        await asyncio.sleep(0)
    assert not settling.done()
    rig.writer.work()
    await settling
    assert rig.told == [("n1", 1)]
    await rig.turn()
    assert rig.told == [("n1", 1), ("n2", 2)]


async def test_after_stop_no_lookup_is_answered(rig: Rig) -> None:
    rig.id("n1")
    finding = asyncio.create_task(rig.lookups.find("n2", lambda row: row))
    settling = asyncio.create_task(rig.lookups.settle())
    await asyncio.sleep(0)
    rig.lookups.stop()
    await settling
    with pytest.raises(StoreError, match="whether a task has the id 'n2' is not known"):
        await finding
    rig.id("n3")
    with pytest.raises(StoreError, match="'n4'"):
        await rig.lookups.find("n4", lambda row: row)
    await rig.turn()
    await rig.lookups.settle()
    assert rig.told == []


async def test_it_may_be_over_before_anything_was_asked(rig: Rig) -> None:
    rig.lookups.stop()
    rig.id("n1")
    await rig.turn()
    assert (rig.asked, rig.told) == ([], [])


def cancel_all_tasks(*but: asyncio.Task[Any]) -> int:
    """Cancel all tasks, as a program may; return how many."""
    found = asyncio.all_tasks() - {asyncio.current_task(), *but}
    return sum(task.cancel() for task in found)


@pytest.mark.parametrize("begun", [False, True])
async def test_what_was_asked_is_asked_again_if_somebody_has_cancelled_all_tasks_of_the_loop(
    rig: Rig, begun: bool
) -> None:
    rig.stamp = 3
    rig.id("n1")
    if begun:
        await asyncio.sleep(0)
    assert cancel_all_tasks() == 1
    await rig.turn()
    assert (rig.told, rig.lookups.until()) == ([], 3)
    rig.lookups.look_after()
    rig.lookups.look_after()
    await rig.turn()
    assert (rig.told, rig.lookups.until()) == ([("n1", 1)], None)
    rig.lookups.look_after()  # no open lookups
    await rig.turn()
    assert rig.asked == [1] * (1 + begun)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_waiter_gets_the_next_answer_if_the_lookup_was_cancelled(
    rig: Rig, begun: bool
) -> None:
    finding = asyncio.create_task(rig.lookups.find("n1", lambda row: row and row.row))
    settling = asyncio.create_task(rig.lookups.settle())
    for _ in range(1 + begun):
        await asyncio.sleep(0)
    assert cancel_all_tasks(finding, settling) == 1
    await asyncio.sleep(0)
    assert not settling.done()
    rig.lookups.when_known(lambda: rig.told.append("known"))
    assert rig.told == []  # for it is not
    await rig.turn(9)
    await settling
    assert (await finding, rig.told) == (1, ["known"])


async def test_a_caller_cancelled_with_the_lookup_is_cancelled_not_answered(
    rig: Rig,
) -> None:
    finding = asyncio.create_task(rig.lookups.find("n1", lambda row: row))
    await asyncio.sleep(0)
    assert cancel_all_tasks() == 2
    await rig.turn()
    assert finding.cancelled()
    rig.id("n2")
    await rig.turn()
    assert rig.told == [("n2", 2)]


async def test_nothing_is_looked_after_once_it_is_over(rig: Rig) -> None:
    rig.id("n1")
    await asyncio.sleep(0)
    rig.lookups.stop()
    await rig.turn()
    rig.lookups.look_after()
    await rig.turn()
    assert rig.told == []


async def test_what_cannot_be_read_of_a_task_is_raised_where_it_is_awaited(rig: Rig) -> None:
    finding = asyncio.create_task(rig.lookups.find("n1", lambda row: 1 / 0))
    await asyncio.sleep(0)
    rig.id("n2")
    await rig.turn()
    with pytest.raises(ZeroDivisionError):
        await finding
    assert rig.told == [("n2", 2)]


# ---- a file that cannot be read


async def test_an_unexpected_error_is_final(rig: Rig) -> None:
    rig.fails = [error := MemoryError("no room")]
    rig.id("n1")
    finding = asyncio.create_task(rig.lookups.find("n2", lambda row: row))
    await rig.turn()
    assert (rig.failures, rig.told) == ([error], [])
    with pytest.raises(StoreError, match="its manager was closed or has failed"):
        await finding
    await rig.lookups.settle()
    rig.where.horizon.strike(1, 1)
    rig.where.horizon.written(1)
    assert rig.where.horizon.find(1) is None


@pytest.mark.parametrize("failures", [1, 2])
async def test_a_file_that_cannot_be_read_is_asked_again(
    rig: Rig,
    failures: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "RETRY", 0)
    rig.fails = [StoreError("no")] * failures
    rig.id("n1")
    await rig.turn(12)
    assert rig.told == [("n1", 1)]
    assert not caplog.records


async def test_a_file_that_can_never_be_read_is_taken_for_one_without_the_tasks(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY", 0)
    rig.fails = [StoreError("tasks.db cannot be read")] * (module.TRIES + 3)
    moved = row_of(3, NOW + 5 * HOUR)
    rig.where.horizon.put(moved, Kept.of(moved), 1)
    rig.id("n1")
    rig.row(2)
    rig.row(3)  # the file is not needed for it
    await rig.turn(12)
    assert rig.told == [("n1", None), (2, None), (3, 3)]
    assert caplog.record_tuples == [
        (
            "aioscheduler",
            logging.ERROR,
            "tasks.db cannot be read; 3 tasks are taken to be missing",
        )
    ]
    rig.id("n1")
    await rig.turn()
    assert rig.told[-1] == ("n1", 1)  # it can be read again


async def test_a_lookup_by_row_may_learn_that_the_file_is_unreadable(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY", 0)
    rig.fails = [StoreError("tasks.db cannot be read")] * (module.TRIES + 3)
    moved = row_of(2, NOW + 5 * HOUR)
    rig.where.horizon.put(moved, Kept.of(moved), 1)
    rig.where.add(3, 0, 7)
    for number in (1, 2, 3):
        missed = partial(lambda number, error: rig.told.append((number, str(error))), number)
        rig.lookups.by_row(number, NOW + HOUR, rig.tell(number), missed)
    await rig.turn(12)
    # The file is not needed for a task that was moved or is in memory.
    assert rig.told == [(1, "tasks.db cannot be read"), (2, 2), (3, None)]
    assert not caplog.records


async def test_find_raises_if_the_file_is_unreadable_and_does_not_return_none(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY", 0)
    rig.fails = [StoreError("tasks.db cannot be read")] * (module.TRIES + 1)
    finding = [asyncio.create_task(rig.lookups.find(f"n{n}", lambda row: row)) for n in (1, 2)]
    leaving = asyncio.create_task(rig.lookups.find("n1", lambda row: row))
    await asyncio.sleep(0)
    leaving.cancel()
    await rig.turn(12)
    with pytest.raises(StoreError, match="tasks.db cannot be read"):
        await finding[0]
    assert (row := await finding[1]) is not None
    assert row.row == 2
    assert not caplog.records
