"""The functions of a file, by their numbers."""

from __future__ import annotations

import pytest
import reminders

from aioscheduler._durable.group import Group
from aioscheduler._durable.records import Function
from aioscheduler._routing.functions import Functions
from aioscheduler.registry import Durable, find


def durable(name: str) -> Durable:
    found = find(name)
    assert found is not None
    return found


def written(group: Group) -> list[Function]:
    taken = group.take()
    return [] if taken is None else list(taken[0].functions)


@pytest.fixture
def group() -> Group:
    return Group(1)


def test_a_function_is_numbered_once_and_entered_in_the_file(group: Group) -> None:
    functions = Functions(group)
    note, once = durable("test.note"), durable("test.once")
    assert functions.number(note) == functions.number(note) == 1
    assert functions.number(once) == 2
    assert written(group) == [
        Function(1, "test.note", f"{reminders.__name__}:note", False),
        Function(2, "test.once", f"{reminders.__name__}:once", True),
    ]
    assert functions.find(1) is note
    assert functions.find(3) is None


def test_what_the_file_knows_keeps_its_number_and_has_its_new_place(group: Group) -> None:
    functions = Functions(group)
    old = [Function(7, "test.note", "old:note", False), Function(9, "gone", "old:gone", True)]
    functions.read(old)
    note = durable("test.note")
    assert functions.find(7) is note
    assert functions.find(9) == old[1]
    assert functions.number(old[1]) == 9
    assert written(group) == []
    assert functions.number(note) == 7
    assert written(group) == [Function(7, "test.note", f"{reminders.__name__}:note", False)]
    assert functions.number(durable("test.once")) == 10
    assert functions.number(Function(0, "other", "m:other", False)) == 11
