"""Listing tasks: filters, and the fields of `TaskInfo`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from aioscheduler import State, TaskInfo, TaskRef
from aioscheduler.inspection import Wanted, list_tasks, read_wanted


def info(number: int) -> TaskInfo:
    return TaskInfo(TaskRef("m", 0, 0, number), "work", None, State.PENDING, None, 1, 0, 0)


class Rig:
    """A clock that shows a turn of the loop in the numbers that it returns from then on."""

    def __init__(self, *lists: list[int]) -> None:
        self.lists = lists
        self.asked: list[Wanted] = []

    def infos(self, wanted: Wanted) -> Iterator[list[TaskInfo]]:
        self.asked.append(wanted)
        yield from ([info(number) for number in numbers] for numbers in self.lists)


async def numbers(*places: Rig, limit: int | None = None) -> list[int]:
    return [each.ref.number async for each in list_tasks(places, Wanted(), limit)]


async def test_all_places_are_asked_and_the_loop_turns_in_between() -> None:
    turned: list[int] = []
    loop = asyncio.get_running_loop()
    places = Rig([1, 2], [], [3]), Rig([4])
    found = []
    async for each in list_tasks(places, Wanted(name="work"), None):
        found.append(each.ref.number)
        loop.call_soon(turned.append, each.ref.number)
        assert len(turned) >= len(found) - 2
    assert found == [1, 2, 3, 4]
    assert places[1].asked == [Wanted(name="work")]


@pytest.mark.parametrize(("limit", "count"), [(0, 0), (1, 1), (3, 3), (4, 4), (9, 4), (None, 4)])
async def test_a_limit_is_the_most(limit: int | None, count: int) -> None:
    assert len(await numbers(Rig([1, 2], [3]), Rig([4]), limit=limit)) == count


def test_what_is_read() -> None:
    assert read_wanted(None, None, None, None) == Wanted()
    assert read_wanted("a", "b:", State.RUNNING, 0) == Wanted("a", "b:", State.RUNNING)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((5, None, None, None), TypeError, "name is a str, not int"),
        ((None, b"x", None, None), TypeError, "id_prefix is a str, not bytes"),
        ((None, None, "pending", None), TypeError, "state is a State, such as State.PENDING, not"),
        ((None, None, None, 2.0), TypeError, "limit is an int, not float"),
        ((None, None, None, True), TypeError, "limit is an int, not bool"),
        ((None, None, None, -1), ValueError, "limit must be 0 or more, not -1"),
    ],
)
def test_what_is_refused(given: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_wanted(*given)


def test_a_class_made_of_str_has_no_say() -> None:
    class Spiteful(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            raise LookupError

        __hash__ = None  # type: ignore[assignment]

    wanted = read_wanted(Spiteful("a"), Spiteful("b"), None, None)
    assert list(map(type, wanted[:2])) == [str, str]
    assert wanted.has_id("b1")


def test_ids_are_wanted_by_how_they_begin() -> None:
    assert Wanted().has_id(None)
    wanted = Wanted(id_prefix="user:")
    assert wanted.has_id("user:7")
    assert not wanted.has_id("auser:7")
    assert not wanted.has_id(None)
