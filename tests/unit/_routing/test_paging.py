"""Tasks of the file are read into memory in parts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shelves import HOUR, NOTE, NOW, row_of
from stores import HandWriter, TrickyStore

from aioscheduler._durable.group import Kept
from aioscheduler._durable.records import LAST, Batch, Page, Row
from aioscheduler._routing import paging as module
from aioscheduler._routing.asking import Asking
from aioscheduler._routing.paging import AHEAD, Paging
from aioscheduler._routing.whereabouts import Whereabouts
from aioscheduler._scheduling.alarm import ManualClock, Timer
from aioscheduler.errors import StoreError


class HandClock(ManualClock):
    """A clock with one timer, moved by hand.

    Attributes:
        now: The present.
        due: When the timer rings.
    """

    def __init__(self) -> None:
        self.now = NOW
        self.due: int | None = None
        self.closed = False
        self._ring: Callable[[], None] = lambda: None

    def __call__(self) -> int:
        return self.now

    def timer(self, ring: Callable[[], None]) -> Timer:
        self._ring = ring
        return self

    def set(self, due: int | None) -> None:
        self.due = due

    def close(self) -> None:
        self.closed = True

    def pass_(self, until: int) -> None:
        """Let time pass, and ring if the timer is due."""
        self.now = until
        if self.due is not None and self.due <= until:
            self._ring()


class Rig:
    """Paging of a file, and its effects.

    Attributes:
        held: The tasks in memory.
        came: All tasks read, in order.
        told: Other events, in order.
        reads: How many tasks were to be read, each time.
        fails: What the next reads raise.
    """

    def __init__(self, *rows: Row, timed: bool = True) -> None:
        self.store, self.writer, self.clock = TrickyStore(), HandWriter(), HandClock()
        self.store.open()
        self.store.commit(Batch(functions=[NOTE], puts=rows))
        self.where = Whereabouts(2)
        self.held: set[int] = set()
        self.came: list[int] = []
        self.kept: list[Kept | None] = []
        self.told: list[Any] = []
        self.reads: list[int] = []
        self.fails: list[Exception] = []
        self.failures: list[Exception] = []
        self.settling: Callable[[], object] = lambda: None
        writer: Any = self.writer
        self.paging = Paging(
            *(self.store, Asking(self.store, writer).ask, self.where, timed, self.clock),
            *(lambda: len(self.held), self.take, self.settle, self.flush),
            lambda count: self.told.append(count),
            lambda: self.told.append("whole"),
            self.failures.append,
        )
        read = self.store.read

        def count(after: Any, until: int, most: int) -> Page:
            self.reads.append(most)
            if self.fails:
                raise self.fails.pop(0)
            return read(after, until, most)

        self.store.read = count  # type: ignore[method-assign]

    def take(self, found: list[tuple[Row, Kept | None]]) -> None:
        self.held.update(row.row for row, _ in found)
        self.came += [row.row for row, _ in found]
        self.kept += [kept for _, kept in found]

    async def settle(self) -> None:
        self.told.append("settled")
        self.settling()
        await asyncio.sleep(0)

    async def flush(self) -> None:
        self.told.append("flushed")
        await asyncio.sleep(0)

    async def turn(self, count: int = 12) -> None:
        for _ in range(count):
            await asyncio.sleep(0)
            self.writer.work()
        await asyncio.sleep(0)

    async def open(self, check: Callable[[Page], None] = lambda page: None) -> None:
        loop = asyncio.get_running_loop()
        opening = asyncio.create_task(self.paging.open(loop, check))
        while not opening.done():
            await self.turn(1)
        await opening

    async def look(self) -> None:
        self.paging.look()
        await self.turn()

    async def read_some_of_what_comes(self, count: int) -> None:
        """Open the file, and two hours later read at least `count` of the tasks that are wanted."""
        await self.open()
        self.clock.now += 2 * HOUR
        self.paging.look()
        while len(self.came) < count:
            await self.turn(1)

    def put(self, row: Row, stamp: int) -> Kept:
        """Schedule a task due behind the horizon."""
        kept = Kept.of(row)
        self.where.horizon.put(row, kept, stamp)
        return kept


@pytest.fixture
def slices_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLAIN_SLICE", 2)


@pytest.fixture
async def seconds(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[float]]:
    """The time of the loop, moved by hand."""
    now = [1000.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])
    yield now
    monkeypatch.undo()


def dues(*some: int) -> list[Row]:
    return [row_of(number, due) for number, due in enumerate(some, 1)]


END = ((NOW + AHEAD) // HOUR + 1) * HOUR - 1  # the end of the bucket that is read at NOW


# ---- when there is something to read


async def test_the_rest_of_a_bucket_is_read_and_the_next_one_a_while_before_it_begins(
    no_tasks_left: None,
) -> None:
    rig = Rig(*dues(NOW - HOUR, NOW, END, END + 1, END + HOUR, END + 5 * HOUR))
    await rig.open()
    assert rig.came == [1, 2, 3]
    assert rig.where.horizon.reached == (END, LAST[1])
    assert rig.clock.due == END + 1 - AHEAD
    rig.clock.pass_(END - AHEAD)
    await rig.look()
    assert rig.came == [1, 2, 3]
    rig.clock.pass_(END + 1 - AHEAD)
    await rig.turn()
    assert rig.came == [1, 2, 3, 4, 5]
    assert "whole" not in rig.told
    rig.clock.pass_(END + 6 * HOUR)
    await rig.turn()
    assert rig.came == [1, 2, 3, 4, 5, 6]
    assert rig.told[-1] == "whole"
    assert rig.where.horizon.is_whole
    assert rig.clock.due is None


async def test_a_task_that_is_due_before_all_others_is_waited_for(no_tasks_left: None) -> None:
    rig = Rig(*dues(END + 9 * HOUR))
    await rig.open()
    assert rig.clock.due is not None
    kept = rig.put(row_of(50, END + 2 * HOUR), 1)
    assert rig.clock.due == END + 2 * HOUR - AHEAD
    rig.put(row_of(51, END + 3 * HOUR), 2)
    assert rig.clock.due == END + 2 * HOUR - AHEAD
    rig.clock.pass_(END + 2 * HOUR - AHEAD)
    await rig.turn()
    assert (rig.came, rig.kept) == ([50], [kept])
    assert rig.clock.due == END + 3 * HOUR - AHEAD


async def test_a_clock_that_was_set_is_seen_at_the_next_look(no_tasks_left: None) -> None:
    rig = Rig(*dues(NOW, END + 9 * HOUR))
    await rig.open()
    rig.clock.now = END + 9 * HOUR
    await rig.look()
    assert rig.came == [1, 2]


async def test_one_look_is_as_good_as_many(no_tasks_left: None) -> None:
    rig = Rig(*dues(NOW, END + HOUR))
    await rig.open()
    rig.clock.now += 2 * HOUR
    for _ in range(5):
        rig.paging.look()
    await rig.turn()
    assert rig.came == [1, 2]
    assert len(rig.reads) == 2


async def test_a_queue_is_read_to_its_end_whatever_the_time(no_tasks_left: None) -> None:
    rig = Rig(*dues(0, 0, 0), timed=False)
    await rig.open()
    assert rig.came == [1, 2, 3]
    assert rig.told[-1] == "whole"
    assert rig.clock.due is None
    await rig.look()
    assert len(rig.reads) == 1


# ---- how much


async def test_nothing_is_read_while_there_is_no_room(
    monkeypatch: pytest.MonkeyPatch, no_tasks_left: None
) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    rig = Rig(*dues(NOW, NOW, NOW + 1, NOW + 2, NOW + 3))
    await rig.open()
    await rig.look()
    assert (rig.came, rig.reads) == ([1, 2, 3], [3])
    assert not rig.paging.is_wanted()
    rig.held.remove(2)
    assert rig.paging.is_wanted()
    await rig.look()
    assert (rig.came, rig.reads) == ([1, 2, 3, 4], [3, 1])
    rig.held.clear()
    await rig.look()
    assert rig.came == [1, 2, 3, 4, 5]


async def test_at_least_one_task_of_the_first_part_is_read(no_tasks_left: None) -> None:
    """It shows the kind of the file."""
    rig = Rig(*dues(NOW, NOW))
    rig.held.update(range(1000, 1000 + module.MOST))
    await rig.open()
    assert (rig.came, rig.reads) == ([1], [1])


async def test_links_and_ids_are_waited_for_between_slices(
    slices_of_two: None, no_tasks_left: None
) -> None:
    rig = Rig(*dues(*[NOW] * 5))
    await rig.open()
    slices = [["settled", count, "flushed"] for count in (2, 2, 1)]
    assert rig.told == [each for some in slices for each in some] + ["whole"]


async def test_a_task_scheduled_while_a_page_is_taken_comes_in_order(
    slices_of_two: None, no_tasks_left: None
) -> None:
    rig = Rig(*dues(NOW, NOW + 10, NOW + 20, NOW + 30))
    new = [row_of(50, NOW + 5), row_of(51, NOW + 25), row_of(52, NOW + 35)]

    def schedule() -> None:
        if new and not rig.where.horizon.is_near(*new[0].position):
            rig.put(new.pop(0), 1)

    rig.settling = schedule
    await rig.open()
    assert rig.came == [1, 50, 2, 3, 51, 4]
    assert len(new) == 1  # no slice was left: it is near


DUES = st.lists(st.integers(0, 5), max_size=40)


@given(DUES, st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_all_come_once_in_their_order_whatever_the_sizes(
    some: list[int], most: int, part: int, slice_: int, timed: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST", most)
        patch.setattr(module, "PART", part)
        patch.setattr(module, "PLAIN_SLICE", slice_)
        asyncio.run(hold(some, most, timed))


async def hold(some: list[int], most: int, timed: bool) -> None:
    rows = dues(*(NOW + due * HOUR // 3 if timed else 0 for due in some))
    rig = Rig(*rows, timed=timed)
    await rig.open()
    for _ in range(200):
        assert len(rig.held) <= most
        if rig.where.horizon.is_whole:
            break
        if rig.held:
            rig.held.remove(min(rig.held))
        rig.clock.now += HOUR // 9
        await rig.look()
    assert rig.came == [row.row for row in sorted(rows, key=lambda row: row.position)]
    assert rig.where.horizon.is_whole
    assert sum(each for each in rig.told if isinstance(each, int)) == len(rows)
    await rig.paging.stop()
    rig.store.close(clean=True)


# ---- what goes wrong


async def test_a_file_of_another_kind_is_refused_before_anything_is_taken(
    no_tasks_left: None,
) -> None:
    rig = Rig(*dues(NOW))

    def refuse(page: Page) -> None:
        assert [row.row for row in page.rows] == [1]
        raise StoreError("of a queue")

    with pytest.raises(StoreError, match="of a queue"):
        await rig.open(refuse)
    assert rig.came == []


async def test_an_unreadable_first_part_is_raised_by_open(no_tasks_left: None) -> None:
    rig = Rig(*dues(NOW))
    rig.fails = [StoreError("no")]
    with pytest.raises(StoreError, match="no"):
        await rig.open()
    assert rig.failures == []


async def test_a_part_that_cannot_be_read_is_told_once_a_minute_and_tried_again(
    seconds: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(*dues(NOW, END + HOUR))
    await rig.open()
    rig.clock.now += 2 * HOUR
    rig.fails = [StoreError("tasks.db cannot be read")] * 4
    for seconds[0], told in ((1000, 1), (1030, 1), (1059.9, 1), (1060, 2)):
        await rig.look()
        assert caplog.messages == ["tasks.db cannot be read"] * told
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
    assert rig.came == [1]
    await rig.look()
    assert rig.came == [1, 2]
    assert rig.failures == []


async def test_another_trouble_is_reported_at_once(
    seconds: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(*dues(NOW, END + HOUR))
    await rig.open()
    rig.clock.now += 2 * HOUR
    rig.fails = [StoreError("one"), StoreError("two")]
    await rig.look()
    await rig.look()
    assert caplog.messages == ["one", "two"]


async def test_faults_of_a_readable_file_are_logged_too(
    seconds: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(*dues(NOW))
    rig.store.complains = "a page of tasks.db is damaged"
    await rig.open()
    await rig.look()
    assert caplog.messages == ["a page of tasks.db is damaged"]
    assert rig.came == [1]


async def test_an_unexpected_error_is_final(no_tasks_left: None) -> None:
    rig = Rig(*dues(NOW, END + HOUR))
    await rig.open()
    rig.clock.now += 2 * HOUR
    error = MemoryError("no room")
    rig.fails = [error]
    await rig.look()
    assert rig.failures == [error]


async def test_a_reader_that_was_cancelled_reads_what_is_left_at_the_next_look(
    slices_of_two: None, no_tasks_left: None
) -> None:
    """As when all tasks of the loop are cancelled."""
    rig = Rig(*dues(NOW, *[END + HOUR] * 5))
    await rig.read_some_of_what_comes(3)
    (reading,) = asyncio.all_tasks() - {asyncio.current_task()}
    reading.cancel()
    await rig.turn()
    assert len(rig.came) == 3
    await rig.look()
    assert rig.came == [1, 2, 3, 4, 5, 6]


async def test_a_reader_that_was_cancelled_before_it_began_reads_at_the_next_look(
    no_tasks_left: None,
) -> None:
    rig = Rig(*dues(NOW, END + HOUR))
    await rig.open()
    rig.clock.now += 2 * HOUR
    rig.paging.look()
    (reading,) = asyncio.all_tasks() - {asyncio.current_task()}
    reading.cancel()
    await rig.turn()
    assert rig.came == [1]
    await rig.look()
    assert rig.came == [1, 2]


# ---- its end


async def test_at_its_end_what_was_not_taken_is_left(
    slices_of_two: None, no_tasks_left: None
) -> None:
    rig = Rig(*dues(NOW, *[END + HOUR] * 5))
    await rig.read_some_of_what_comes(3)
    await rig.paging.stop()
    assert rig.came == [1, 2, 3]
    assert rig.where.horizon.reached == (END + HOUR, 3)
    assert not rig.where.horizon.is_whole
    assert rig.clock.closed
    await rig.look()
    assert rig.came == [1, 2, 3]
    rig.where.horizon.strike(6, 1)
    rig.where.horizon.written(1)
    assert rig.where.horizon.find(6) is None  # reading has stopped


async def test_it_may_end_before_it_was_opened(no_tasks_left: None) -> None:
    rig = Rig(*dues(NOW))
    await rig.paging.stop()
    await rig.look()
    assert rig.reads == []
