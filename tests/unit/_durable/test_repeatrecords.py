"""The fields of a repeat's progress are in its row, in the same order."""

from __future__ import annotations

from aioscheduler._durable.repeatrecords import RepeatProgress, RepeatRow
from aioscheduler._repeating.policy import Progress


def test_progress_is_at_the_end_of_a_repeats_row() -> None:
    count = len(Progress._fields)
    assert RepeatRow._fields[-count:] == Progress._fields
    assert RepeatProgress._fields == ("id", *Progress._fields)
