"""Tasks that have begun are put on record when they outlast a commit."""

from __future__ import annotations

from aioscheduler._durable.group import Group, Kept
from aioscheduler._durable.records import Begun, Row
from aioscheduler._routing.marks import Marks


def put(group: Group) -> Kept:
    kept = Kept.of(row := Row(group.new_row(), 5, 1, b""))
    group.put(kept, row)
    group.take()
    return kept


def marked(group: Group) -> list[int]:
    taken = group.take()
    return [] if taken is None else [update.row for update in taken[0].updates]


def test_what_outlives_a_batch_is_marked_with_the_next() -> None:
    group = Group(0)
    marks = Marks(group)
    first, second, third, fourth = (put(group) for _ in range(4))
    marks.begun(first, second)
    marks.age()
    assert marked(group) == []
    marks.begun(third)
    marks.forget(second)
    fourth.begun = Begun.ONCE  # already on record
    marks.begun(fourth)
    assert len(marks) == 3
    marks.age()
    assert marked(group) == [first.row]
    assert first.begun is Begun.YES
    marks.forget(third, third)
    marks.age()
    assert marked(group) == []
    assert fourth.begun is Begun.ONCE
    assert not marks
