"""The changes to tables are undone, or stay."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest

from aioscheduler._shipping.catalog import ClassTable
from aioscheduler._shipping.undolog import UndoLog


class Made:
    pass


@pytest.mark.parametrize("make", [dict, weakref.WeakValueDictionary, weakref.WeakKeyDictionary])
def test_what_was_changed_made_and_removed_is_taken_back(make: Callable[[], Any]) -> None:
    keys, values = [Made() for _ in range(3)], [Made() for _ in range(3)]
    table, undo = make(), UndoLog()
    undo.set(table, keys[0], values[0])
    undo.set(table, keys[1], values[1])
    undo.clear()  # these stay
    undo.set(table, keys[0], values[2])
    undo.set(table, keys[0], values[1])
    undo.set(table, keys[2], values[2])
    undo.note(table, keys[1])
    del table[keys[1]]
    assert dict(table) == {keys[0]: values[1], keys[2]: values[2]}
    undo.undo()
    assert dict(table) == {keys[0]: values[0], keys[1]: values[1]}


def test_a_table_of_classes_is_one() -> None:
    table: ClassTable[int] = ClassTable()
    undo = UndoLog()
    undo.set(table, Made, 1)
    assert table[Made] == 1
    undo.undo()
    assert Made not in table
