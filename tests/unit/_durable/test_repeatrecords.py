"""The fields of a repeat's progress are in its row, in the same order."""

from __future__ import annotations

from aioscheduler._durable.repeatrecords import RepeatProgress, RepeatRow
from aioscheduler._repeating.policy import Progress


def test_how_far_a_repeat_is_stands_at_the_end_of_its_row() -> None:
    count = len(Progress._fields)
    assert RepeatRow._fields[-count:] == Progress._fields
    assert RepeatProgress._fields == ("id", *Progress._fields)
