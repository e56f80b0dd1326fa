"""Listing the tasks that are only in the file, while these change."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from shelves import HOUR, NOW, PLACE, Rig, row_of

from aioscheduler._durable.records import Begun, Row
from aioscheduler._routing import shelflisting as module
from aioscheduler._routing.shelflisting import ShelfListing
from aioscheduler._scheduling.clock import to_datetime
from aioscheduler._transport import wire
from aioscheduler.errors import StoreError
from aioscheduler.inspection import TaskInfo, Wanted
from aioscheduler.task import State, TaskRef

FAR = NOW + 9 * HOUR


@pytest.fixture
async def rig(no_tasks_left: None, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(module, "PAGE", 2)
    return Rig()


@pytest.fixture
async def six(rig: Rig) -> Rig:
    """A rig with six tasks, an hour apart."""
    rig.start(*(row_of(number, FAR + number * HOUR) for number in range(1, 7)))
    return rig


async def pages(rig: Rig, listing: ShelfListing) -> AsyncGenerator[list[TaskInfo], None]:
    """Yield the pages of a listing; the writer works at once."""
    infos = listing.infos()
    while True:
        page = asyncio.ensure_future(anext(infos, None))
        while not page.done():
            await rig.turn(1)
        found = await page
        if found is None:
            return
        yield found


def rows_of(infos: list[TaskInfo]) -> list[int]:
    return [info.ref.number for info in infos]


# ---- what is listed


async def test_a_listed_task_shows_all_that_the_file_has(rig: Rig) -> None:
    label = wire.pack(["mine", None, None])
    rig.start(
        row_of(1, FAR),
        row_of(2, FAR + HOUR, "a")._replace(attempt=3, options=label),
        row_of(3, FAR + 2 * HOUR)._replace(attempt=3, begun=Begun.YES),
    )
    store = rig.where.store
    with rig.shelf.listing(Wanted()) as listing:
        found = [info async for infos in pages(rig, listing) for info in infos]
    due = [to_datetime(FAR + n * HOUR) for n in range(3)]
    pending = State.PENDING
    assert found == [
        TaskInfo(TaskRef(store, -1, -1, 1), PLACE, None, pending, due[0], 1, -1, -1),
        TaskInfo(TaskRef(store, -1, -1, 2), "mine", "a", pending, due[1], 3, -1, -1),
        TaskInfo(TaskRef(store, -1, -1, 3), PLACE, None, pending, due[2], 4, -1, -1),
    ]


async def test_in_a_queue_no_task_is_due(no_tasks_left: None) -> None:
    rig = Rig(timed=False)
    rig.start(row_of(1, 0), row_of(2, 0), reached=-1)
    with rig.shelf.listing(Wanted()) as listing:
        found = [info async for infos in pages(rig, listing) for info in infos]
    assert [(info.ref.number, info.due) for info in found] == [(1, None), (2, None)]


async def test_only_wanted_tasks_are_listed(rig: Rig) -> None:
    label = wire.pack(["mine", None, None])
    rig.start(
        row_of(1, FAR, "a1"),
        row_of(2, FAR, "b1")._replace(options=label),
        row_of(3, FAR, "b2"),
        row_of(4, FAR)._replace(options=label),
    )
    unwritten = rig.schedule(FAR, "b3")._number
    assert sorted(await rig.list(name="mine")) == [2, 4]
    assert sorted(await rig.list(name=PLACE)) == [1, 3, unwritten]
    assert sorted(await rig.list(id_prefix="b")) == [2, 3, unwritten]
    assert await rig.list(id_prefix="b", name="mine") == [2]
    assert await rig.list(id_prefix="c") == []
    assert len(await rig.list(state=State.PENDING)) == 5
    assert await rig.list(state=State.RUNNING) == []


async def test_ids_of_all_kinds_are_found_by_their_beginnings(rig: Rig) -> None:
    ids = ["n", "n\U0001f40c", "n\ud800", "n\ud800z", "n\uffff", "nz", "o", "m"]
    rig.start(*(row_of(number, FAR, id_) for number, id_ in enumerate(ids)))
    assert sorted(await rig.list(id_prefix="n")) == [0, 1, 2, 3, 4, 5]
    assert sorted(await rig.list(id_prefix="n\ud800")) == [2, 3]


async def test_what_is_in_memory_is_left_to_its_link(rig: Rig) -> None:
    rig.start(row_of(1, NOW - 1), row_of(2, FAR))
    rig.where.add(3, 0, 7)
    assert await rig.list() == [2]


# ---- changes meanwhile


async def test_a_task_that_comes_into_memory_is_listed_once(six: Rig) -> None:
    with six.shelf.listing(Wanted()) as listing:
        found: list[int] = []
        async for infos in pages(six, listing):
            found += rows_of(infos)
            if found == [1, 2]:
                six.come(FAR + 4 * HOUR)
    assert found == [1, 2, 5, 6]
    assert {1, 2} <= listing.given  # their links must not list them
    assert not {3, 4} & listing.given


async def test_a_task_moved_to_before_the_listing_comes_at_its_end(six: Rig) -> None:
    with six.shelf.listing(Wanted()) as listing:
        found: list[int] = []
        async for infos in pages(six, listing):
            found += rows_of(infos)
            if found == [1, 2]:
                six.shelf.reschedule(0, 5, FAR)
                six.shelf.reschedule(0, 1, FAR + 9 * HOUR)  # it is not listed again
                await six.turn()
    assert found == [1, 2, 3, 4, 6, 5]
    assert {1, 5} <= listing.given


@pytest.mark.parametrize("to", [0, 9])
async def test_a_task_moved_while_it_is_read_is_listed_once(rig: Rig, to: int) -> None:
    rig.start(*(row_of(number, FAR + number * HOUR) for number in range(1, 6)))
    with rig.shelf.listing(Wanted()) as listing:
        infos: Any = listing.infos()
        assert await anext(infos) == []
        rig.shelf.reschedule(0, 2, FAR + to * HOUR)
        await asyncio.sleep(0)
        page = asyncio.ensure_future(anext(infos))
        await asyncio.sleep(0)
        assert rig.writer.work() == 2  # found by the listing, at its old position
        found = rows_of(await page)
        await rig.turn()
        rest = asyncio.ensure_future(_rest_of(infos))
        while not rest.done():
            await rig.turn(1)
        found += await rest
    assert sorted(found) == [1, 2, 3, 4, 5]
    assert 2 in listing.given


async def _rest_of(infos: Any) -> list[int]:
    return [row async for page in infos for row in rows_of(page)]


async def test_a_task_that_ends_before_it_is_read_is_not_listed(six: Rig) -> None:
    with six.shelf.listing(Wanted()) as listing:
        found: list[int] = []
        async for infos in pages(six, listing):
            found += rows_of(infos)
            if found == [1, 2]:
                six.shelf.cancel(0, 4)
                await six.turn(2)  # the file still has it
    assert found == [1, 2, 3, 5, 6]


async def test_a_task_that_ends_while_it_is_read_is_not_listed(rig: Rig) -> None:
    rig.start(*(row_of(number, FAR + number * HOUR) for number in range(1, 4)))
    with rig.shelf.listing(Wanted()) as listing:
        infos: Any = listing.infos()
        assert await anext(infos) == []
        page = asyncio.ensure_future(anext(infos))
        await asyncio.sleep(0)
        rig.writer.work()  # the listing reads it
        row = rig.file()[1]
        rig.shelf.strike(row)
        rig.store.commit(rig.group.take()[0])  # type: ignore[index]
        rig.where.horizon.written(rig.group.stamp)
        assert rows_of(await page) == [2]
        await infos.aclose()
    await rig.turn()
    assert rig.where.horizon.find(1) is None


@pytest.mark.parametrize("waits", [False, True])
async def test_a_task_that_has_ended_in_memory_but_is_still_in_the_file_is_not_listed(
    rig: Rig, waits: bool
) -> None:
    rig.start(*(row_of(number, NOW + number) for number in range(1, 4)))
    rig.come(NOW + 9)
    rows = rig.restored.told
    assert [row.row for row, _ in rows] == [1, 2, 3]
    rig.where.forget([rig.restored.kept[1]], 1)  # the second, whose end is not written yet
    if waits:  # it is not in memory because its function is not defined yet
        rig.restored.waiting.add(2)
    with rig.shelf.listing(Wanted()) as listing:
        found = [row async for infos in pages(rig, listing) for row in rows_of(infos)]
    assert found == ([2] if waits else [])


async def test_a_task_written_while_the_list_is_read_is_listed_once(rig: Rig) -> None:
    rig.start(*(row_of(number, FAR) for number in range(1, 4)))
    task = rig.schedule(FAR + HOUR)
    with rig.shelf.listing(Wanted()) as listing:
        found: list[int] = []
        async for infos in pages(rig, listing):
            found += rows_of(infos)
            await rig.turn()
    assert found == [task._number, 1, 2, 3]


async def test_an_unreadable_file_is_logged_and_holds_nothing_up(rig: Rig) -> None:
    rig.start(*(row_of(number, FAR) for number in range(1, 4)))

    def refuse(after: tuple[int, int], most: int) -> list[Row]:
        raise StoreError("tasks.db cannot be read")

    rig.store.scan = refuse  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="cannot be read"):
        await rig.list()
    rig.where.horizon.strike(1, 1)
    rig.where.horizon.written(1)
    assert rig.where.horizon.find(1) is None
    assert rig.shelf._listings == []


async def test_an_abandoned_listing_holds_nothing_up(rig: Rig) -> None:
    rig.start(*(row_of(number, FAR) for number in range(1, 9)))
    with rig.shelf.listing(Wanted()) as listing:
        found = pages(rig, listing)
        async for infos in found:
            if infos:
                break
        await found.aclose()
    rig.where.horizon.strike(1, 1)
    rig.where.horizon.written(1)
    assert rig.where.horizon.find(1) is None
    assert rig.shelf._listings == []


# ---- everything together

CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["move", "move", "come", "cancel", "new"]),
        st.integers(1, 12),
        st.integers(0, 9),
    ),
    max_size=5,
)


@example([2, 1], [[("move", 1, 0)], [], []], 1, False)  # to before the part being read
@given(
    st.lists(st.integers(1, 9), max_size=12),
    st.lists(CHANGES, max_size=12),
    st.integers(1, 4),
    st.booleans(),
)
def test_each_task_present_all_the_time_is_listed_once_and_none_twice(
    buckets: list[int], changes: list[Any], page: int, by_ids: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PAGE", page)
        asyncio.run(hold(buckets, changes, by_ids))


async def hold(buckets: list[int], changes: list[Any], by_ids: bool) -> None:
    """Change tasks whenever the listing waits for the file, or has yielded some."""
    rig = Rig()
    ids = [f"x{n}" if n % 3 else f"x\ud800{n}" for n in range(len(buckets))]  # text, or not
    rows = [row_of(n, NOW + due * HOUR, ids[n - 1]) for n, due in enumerate(buckets, 1)]
    rig.start(*rows)
    for what, row, bucket in changes.pop() if changes else ():
        change(rig, what, row, bucket)  # not written yet
    there = set(rig.file()) | {row.row for row in rig.where.horizon.unwritten()}
    told: Counter[int] = Counter()
    with rig.shelf.listing(Wanted(id_prefix="x" if by_ids else None)) as listing:
        infos = listing.infos()
        while True:
            page = asyncio.ensure_future(anext(infos, None))
            while not page.done():
                for what, row, bucket in changes.pop() if changes else ():
                    change(rig, what, row, bucket)
                await rig.turn(1)
            found = await page
            if found is None:
                break
            told.update(rows_of(found))
            for what, row, bucket in changes.pop() if changes else ():
                change(rig, what, row, bucket)
            if changes and len(changes) % 2:
                await rig.turn(9)
        await rig.turn(9)
        stay = there & set(rig.file())
        told.update(row for row in rig.file() if row in rig.where and row not in listing.given)
    if by_ids:
        stay = {row for row in stay if row <= len(rows)}
    assert {row: told[row] for row in stay} == dict.fromkeys(stay, 1)
    assert not [row for row, count in told.items() if count > 1]
    await rig.turn()
    rig.store.close(clean=True)


def change(rig: Rig, what: str, row: int, bucket: int) -> None:
    due = NOW + bucket * HOUR + 1
    if what == "come":
        rig.come(due)
    elif what == "new" and not rig.where.horizon.is_near(due, rig.group.next_row):
        rig.schedule(due)
    elif row in rig.where:
        return  # its link lists it
    elif what == "move":
        rig.shelf.reschedule(0, row, due)
    elif what == "cancel":
        rig.shelf.cancel(0, row)
