"""Durable tasks of links on their way into the file, and their ids."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import shelves
from hypothesis import given
from hypothesis import strategies as st
from shelves import HOUR, NOW, row_of

from aioscheduler import registry
from aioscheduler._durable.group import Kept
from aioscheduler._durable.records import Row
from aioscheduler._routing.drafts import Draft
from aioscheduler._routing.intake import Intake
from aioscheduler._routing.keeping import NOT_GIVEN, WITHDRAWN
from aioscheduler._routing.restoring import Early
from aioscheduler._routing.storedcalls import Stored
from aioscheduler._transport import wire

FAR = NOW + 9 * HOUR


class Keeping:
    def __init__(self) -> None:
        self.kept: dict[int, Kept] = {}


class Rig(shelves.Rig):
    """An intake, and the effects it has elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.struck: list[int] = []
        self.joined: list[tuple[Early, Row]] = []
        self.left: dict[str, Kept] = {}
        self.keepings: Any = [Keeping(), Keeping()]
        self.intake = Intake(
            *(self.group, self.commits, self.drafts, self.keepings, self.where, self.lookups),
            *(self.strike, self.join, self.left),
        )

    def open(self, *rows: Row) -> None:
        """Open the file, with tasks in it."""
        self.start(*rows)
        self.intake.open()

    def strike(self, row: Row) -> None:
        self.struck.append(row.row)
        self.group.strike(Kept.of(row))
        self.where.horizon.strike(row.row, self.group.stamp)
        self.commits.soon()

    def join(self, early: Early, row: Row) -> None:
        self.joined.append((early, row))
        del self.keepings[early.worker].kept[early.number]  # as `Admission.leave_out` does

    def enter(self, number: int, id_: str | None = None, **more: Any) -> Kept:
        due = more.pop("due", NOW)
        return self.intake.enter(1, number, due, self.draft(number, id_), **more)

    def leave(self, value: Any, id_: str | None = None, replace: bool = False) -> None:
        self.intake.leave(FAR, self.draft(value, id_), replace)

    def values(self) -> list[Any]:
        return [wire.unpack(row.payload)[0] for row in self.store.rows()]


@pytest.fixture
async def rig(no_tasks_left: None) -> Rig:
    return Rig()


def once() -> Draft:
    function = registry.find("test.once")
    assert function is not None
    return Draft(Stored(function, b""))


# ---- before the file is open


async def test_what_comes_before_the_file_is_open_has_its_row_when_it_is(rig: Rig) -> None:
    early = [rig.enter(number) for number in (7, 8, 9)]
    assert [kept.row for kept in early] == [NOT_GIVEN] * 3
    assert rig.keepings[1].kept == dict(zip((7, 8, 9), early, strict=True))
    early[1].due = FAR  # rescheduled meanwhile
    rig.open()
    first = rig.group.next_row - 3
    assert [kept.row for kept in early] == [first, first + 1, first + 2]
    await rig.turn()
    assert rig.values() == [7, 9, 8]
    assert rig.file()[first + 1].due == FAR
    assert rig.where.find(first + 2) == (1, 9)
    assert rig.group.unsaved == 0


async def test_what_has_ended_before_the_file_is_open_never_comes_there(rig: Rig) -> None:
    rig.enter(7)
    rig.enter(8, "a")
    rig.enter(9)
    del rig.keepings[1].kept[7]
    rig.keepings[1].kept[8] = Kept(5, 5)  # another task is there
    rig.open()
    await rig.turn()
    assert rig.values() == [9]


async def test_many_that_come_before_the_file_is_open_are_put_one_by_one(rig: Rig) -> None:
    payloads = [wire.pack([value]) for value in "abc"]
    rig.intake.enter_many(1, 10, [NOW + 2, NOW, NOW + 1], payloads, rig.draft())
    rig.intake.enter_many(0, 20, NOW + 3, payloads[:1], rig.draft())
    assert {kept.row for kept in rig.keepings[1].kept.values()} == {NOT_GIVEN}
    rig.open()
    await rig.turn()
    assert rig.values() == ["b", "c", "a", "a"]
    rows = {number: kept.row for number, kept in rig.keepings[1].kept.items()}
    assert {rig.where.find(row): number for number, row in rows.items()} == {
        (1, 10): 10,
        (1, 11): 11,
        (1, 12): 12,
    }


async def test_an_id_that_nobody_has_in_the_file_is_that_of_the_new_one(rig: Rig) -> None:
    kept = rig.enter(7, "a")
    rig.open(row_of(1, FAR, "b"))
    assert kept.row == NOT_GIVEN  # the file has not answered
    assert rig.intake.early["a"].kept is kept
    await rig.turn()
    assert rig.file()[kept.row].id == "a"
    assert rig.where.find(kept.row) == (1, 7)
    assert rig.intake.early == {}
    assert (rig.struck, rig.joined) == ([], [])


async def test_an_early_task_is_the_one_of_the_file_that_has_its_id(rig: Rig) -> None:
    kept = rig.enter(7, "a")
    rig.open(row_of(1, FAR, "a"))
    await rig.turn()
    ((early, row),) = rig.joined
    assert (early.kept, early.worker, early.number, early.due) == (kept, 1, 7, NOW)
    assert row.row == 1
    assert [row.row for row in rig.store.rows()] == [1]


async def test_an_early_task_takes_its_id_from_the_task_of_the_file(rig: Rig) -> None:
    kept = rig.enter(7, "a", replace=True)
    rig.open(row_of(1, FAR, "a"))
    await rig.turn()
    assert (rig.struck, rig.joined) == ([1], [])
    assert [row.row for row in rig.store.rows()] == [kept.row]


async def test_a_cancelled_early_task_ends_the_one_of_the_file_too(rig: Rig) -> None:
    """Both are the same task."""
    kept = rig.enter(7, "a")
    kept.row = WITHDRAWN
    del rig.keepings[1].kept[7]
    rig.open(row_of(1, FAR, "a"))
    await rig.turn()
    assert (rig.struck, rig.joined) == ([1], [])
    assert rig.store.rows() == []


async def test_the_last_of_several_early_tasks_has_the_id(rig: Rig) -> None:
    first = rig.enter(7, "a")
    first.row = WITHDRAWN
    del rig.keepings[1].kept[7]
    last = rig.enter(8, "a")
    rig.open(row_of(1, FAR, "a"))
    await rig.turn()
    assert rig.struck == [1]  # it was the first task, which was cancelled
    assert [row.row for row in rig.store.rows()] == [last.row]


async def test_the_successor_of_a_replacing_task_replaces_too(rig: Rig) -> None:
    rig.enter(7, "a", replace=True)
    del rig.keepings[1].kept[7]  # it has ended
    last = rig.enter(8, "a")
    rig.open(row_of(1, FAR, "a"))
    await rig.turn()
    assert rig.struck == [1]
    assert [row.row for row in rig.store.rows()] == [last.row]


# ---- while it is open


async def test_a_task_is_put_at_once_if_nobody_can_have_its_id(rig: Rig) -> None:
    rig.open(row_of(1, FAR, "a"))
    plain, sure = rig.enter(7), rig.enter(8, "b", sure=True)
    assert (sure.row, rig.group.next_row) == (plain.row + 1, plain.row + 2)
    rig.come(FAR)  # now everything is in memory
    known = rig.enter(9, "c", due=FAR + HOUR)
    await rig.turn()
    assert {rig.file()[kept.row].id for kept in (plain, sure, known)} == {None, "b", "c"}
    assert rig.where.find(known.row) == (1, 9)
    assert rig.where.horizon.ahead == {known.row}
    assert rig.keepings[1].kept[9] is known


async def test_a_task_waits_for_the_file_s_answer_if_somebody_may_have_its_id(
    rig: Rig,
) -> None:
    rig.open(row_of(1, FAR, "a"))
    same, other = rig.enter(7, "a"), rig.enter(8, "b")
    assert (same.row, other.row) == (NOT_GIVEN, NOT_GIVEN)
    await rig.turn()
    assert [(early.kept, row.row) for early, row in rig.joined] == [(same, 1)]
    assert [row.id for row in rig.store.rows()] == ["b", "a"]
    assert rig.file()[other.row].id == "b"


async def test_a_task_that_ends_before_the_file_has_answered_never_comes_there(
    rig: Rig,
) -> None:
    rig.open(row_of(1, FAR))
    rig.enter(7, "a")
    del rig.keepings[1].kept[7]
    await rig.turn()
    assert [row.row for row in rig.store.rows()] == [1]


async def test_many_are_put_at_once_and_are_known_by_their_numbers(rig: Rig) -> None:
    rig.open(row_of(1, FAR))
    payloads = [wire.pack([value]) for value in "abc"]
    rig.intake.enter_many(1, 10, NOW, payloads, rig.draft())
    kept = rig.keepings[1].kept
    assert list(kept) == [10, 11, 12]
    assert [rig.where.find(each.row) for each in kept.values()] == [(1, 10), (1, 11), (1, 12)]
    assert not any(each.once for each in kept.values())
    await rig.turn()
    assert rig.values() == ["a", "b", "c", 1]


async def test_what_must_not_begin_twice_is_kept_as_that(rig: Rig) -> None:
    draft = once()
    early = rig.intake.enter(0, 1, NOW, draft)
    rig.open()
    known = rig.intake.enter(0, 2, NOW, draft)
    rig.intake.enter_many(0, 3, NOW, [b"", b""], draft)
    assert early.once
    assert known.once
    assert [kept.once for kept in rig.keepings[0].kept.values()] == [True] * 4
    assert not rig.enter(7).once


# ---- tasks left for the next host


async def test_what_is_left_is_in_the_file_and_at_no_link(rig: Rig) -> None:
    rig.open()
    rig.leave("plain")
    rig.leave("named", "a")
    await rig.turn()
    assert rig.values() == ["plain", "named"]
    assert len(rig.where) == 0
    assert not rig.keepings[1].kept


@pytest.mark.parametrize("replace", [False, True])
async def test_only_one_of_two_tasks_left_with_an_id_stays(rig: Rig, replace: bool) -> None:
    rig.open()
    rig.leave("first", "a")
    rig.leave("second", "a", replace)
    await rig.turn()
    assert rig.values() == (["second"] if replace else ["first"])


@pytest.mark.parametrize("replace", [False, True])
async def test_what_is_left_may_be_in_the_file_already(rig: Rig, replace: bool) -> None:
    rig.open(row_of(1, FAR, "a"))
    rig.leave("new", "a", replace)
    await rig.turn()
    assert rig.values() == (["new"] if replace else [1])


async def test_a_host_that_goes_on_replaces_the_tasks_it_had_left(rig: Rig) -> None:
    rig.open()
    rig.leave("left", "a")
    rig.enter(7, "a")
    await rig.turn()
    assert rig.values() == [7]
    assert rig.left == {}


@given(st.booleans(), st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.booleans())))
def test_an_id_goes_to_the_last_that_takes_it_else_stays_with_the_first(
    is_far: bool, calls: list[tuple[str, bool, bool]]
) -> None:
    asyncio.run(hold_left(is_far, calls))


async def hold_left(is_far: bool, calls: list[tuple[str, bool, bool]]) -> None:
    rig = Rig()
    rig.open(*([row_of(1, FAR, "a"), row_of(2, FAR, "c")] if is_far else []))
    expected: dict[str, Any] = {"a": 1, "c": 2} if is_far else {}
    for value, (id_, replace, turns) in enumerate(calls, 100):
        rig.leave(value, id_, replace)
        if replace or id_ not in expected:
            expected[id_] = value
        if turns:
            await rig.turn(2)
    await rig.turn()
    found = {row.id: wire.unpack(row.payload)[0] for row in rig.store.rows()}
    assert found == expected
    assert not rig.commits.refused
    rig.store.close(clean=True)
