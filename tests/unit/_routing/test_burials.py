"""New dead letters: written, and reported in sums."""

from __future__ import annotations

import pytest

from aioscheduler._durable.group import Group, Kept
from aioscheduler._durable.records import Burial, Reason, Row
from aioscheduler._routing.burials import Burials


def bury(burials: Burials, row: int, reason: Reason, text: str, id_: str | None = None) -> None:
    burials.bury(Kept.of(Row(row, 5, 1, b"", id=id_)), reason, text)


def test_they_are_written_with_their_time() -> None:
    group = Group(1)
    bury(Burials(group, lambda: 77, lambda _: True), 3, Reason.LOST, "why")
    taken = group.take()
    assert taken is not None
    assert taken[0].burials == [Burial(0, 3, 1, Reason.LOST, "why", 77)]


def test_dead_letters_are_logged_once_and_in_sums(caplog: pytest.LogCaptureFixture) -> None:
    burials = Burials(Group(1), lambda: 77, lambda _: True)
    burials.log()
    assert not caplog.records
    bury(burials, 3, Reason.FAILED, "Traceback\n  line\nValueError: 5\n\n", id_="a")
    burials.log()
    assert caplog.messages == [
        "a durable task became a dead letter (failed: 1); the last is row 3 'a': ValueError: 5; "
        "see manager.dead_letters()"
    ]
    noted = "Traceback\n  line\nValueError: 6\n: in two lines\nattempt 2 of 2\n"
    bury(burials, 4, Reason.FAILED, noted)
    burials.log()
    assert "row 4: ValueError: 6; see" in caplog.messages[-1]
    caplog.clear()
    for row in range(1500):
        bury(burials, row, Reason.UNREADABLE if row % 3 else Reason.FAILED, "")
    bury(burials, 7000, Reason.TOO_LATE, "x" * 1000)
    burials.log()
    burials.log()
    assert caplog.messages == [
        "1,501 durable tasks became dead letters (failed: 500, unreadable: 1,000, too_late: 1); "
        f"the last is row 7000: {'x' * 300}; see manager.dead_letters()"
    ]


def test_nothing_is_said_of_letters_that_can_never_be_written(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reached = 1
    burials = Burials(Group(1), lambda: 77, lambda stamp: stamp <= reached)
    bury(burials, 3, Reason.LOST, "first")
    burials.log()
    bury(burials, 4, Reason.LOST, "second")
    burials.log()
    reached = 3
    bury(burials, 5, Reason.LOST, "third")
    burials.log()
    assert [message.partition(";")[2].partition(";")[0] for message in caplog.messages] == [
        " the last is row 3: first",
        " the last is row 5: third",
    ]
    assert all("(lost: 1)" in message for message in caplog.messages)
