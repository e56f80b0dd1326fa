"""The receiving side: a worker's frames are checked, entered, and reported."""

from __future__ import annotations

from typing import Any

import pytest

from aioscheduler._routing.book import Book
from aioscheduler._routing.changes import Change
from aioscheduler._routing.endings import NO_MEMORY
from aioscheduler._routing.lastfailures import LastFailures
from aioscheduler._routing.receiving import Receiver
from aioscheduler._scheduling.states import State
from aioscheduler._shipping.hostcatalog import HostCatalog
from aioscheduler._shipping.hostshipping import HostShipper
from aioscheduler._transport import wire
from aioscheduler._transport.wire import (
    CANCELLED,
    FAILED,
    FINISHED,
    IN_BLOB,
    TOO_LATE,
    UNASKED,
    Kind,
)

NOW = 1000


class Rig:
    """A book with four started tasks and a pending one, and a record of reports."""

    def __init__(self, recycles: bool = False) -> None:
        self.worn: list[tuple[str, int]] = []
        self.reported: list[tuple[Change, tuple[Any, ...]]] = []
        self.unheard: list[list[int]] = []
        self.failures = LastFailures()
        self.asked: list[tuple[Any, ...]] = []
        self.logged: list[tuple[Any, ...]] = []
        shipper = HostShipper(HostCatalog())
        self.book = Book(1, True, shipper.catalog.log)
        for number in range(5):
            self.book.outbox.add(0, 5, 7, number)
        self.book.outbox.take()
        self.receiver = Receiver(
            1,
            self.book,
            self,  # type: ignore[arg-type]
            shipper,
            lambda: NOW,
            lambda *request: self.asked.append(request),
            take_logs=lambda loop, *logs: self.logged.append(logs),
            wear=self if recycles else None,  # type: ignore[arg-type]
        )
        self.say(Kind.ANNOUNCED, 0, [0, 1, 2, 3])
        self.reported.clear()

    def report(self, change: Change, *outcomes: Any) -> None:
        self.reported.append((change, outcomes))

    def name_unheard(self, numbers: list[int]) -> None:
        self.unheard.append([n for n in numbers if n in self.book.ledger])

    def retried(self, change: Change, numbers: list[int], lines: list[str]) -> None:
        self.reported.append((change, (numbers, lines)))

    def began(self) -> None:
        self.worn.append(("began", 0))

    def ran(self, count: int) -> None:
        self.worn.append(("ran", count))

    def measured(self, size: int) -> None:
        self.worn.append(("measured", size))

    def say(self, *frame: Any) -> None:
        loop: Any = self
        self.receiver.receive(list(frame), loop)

    def time(self) -> float:
        return 7.0


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_outcomes_come_with_what_reads_them(rig: Rig) -> None:
    catalog = rig.receiver._decodes
    rig.say(Kind.ENDED, 0, [0, 1], FINISHED, [5, b"\x90"])
    change, outcomes = rig.reported[0]
    assert change == Change(0, 0, [0, 1], State.FINISHED)
    assert outcomes == ([5, b"\x90"], catalog[0], False, FINISHED)
    rig.say(Kind.ENDED, 0, [2], FAILED, [b"\x90"])
    assert rig.reported[1][1] == ([b"\x90"], catalog[1], False, FAILED)
    assert rig.unheard == [[2]]  # while the book still has it


def test_a_task_that_is_too_late_has_failed(rig: Rig) -> None:
    rig.say(Kind.ENDED, 0, [0, 1], TOO_LATE, [b"\x90", b"\x91"])
    change, outcomes = rig.reported[0]
    assert change == Change(0, 0, [0, 1], State.FAILED)
    assert outcomes == ([b"\x90", b"\x91"], rig.receiver._decodes[FAILED], False, TOO_LATE)
    assert rig.unheard == [[0, 1]]
    with pytest.raises(wire.WireError, match="task 0 was"):
        rig.say(Kind.ENDED, 0, [2, 0], TOO_LATE, [b"\x90", b"\x90"])
    assert rig.reported[1][0].ended == [2]  # the part before it was processed


@pytest.mark.parametrize("ending", [wire.UNREADABLE, wire.UNKNOWN])
def test_a_task_that_could_not_be_called_has_failed(rig: Rig, ending: int) -> None:
    rig.say(Kind.ENDED, 0, [0], ending, [b"\x90"])
    decode = rig.receiver._decodes[FAILED]
    outcomes = [b"\x90"], decode, False, ending
    assert rig.reported == [(Change(0, 0, [0], State.FAILED), outcomes)]


def test_failures_of_retried_tasks_are_kept_until_they_start(rig: Rig) -> None:
    rig.say(Kind.RETRY, 0, [0, 1], [5, 6], ["one", "two"])
    assert rig.reported == [(Change(0, 2, []), ([0, 1], ["one", "two"]))]
    rig.failures.note(0, [0, 1], ["one", "two"])
    rig.say(Kind.ANNOUNCED, 0, [0])
    assert len(rig.failures) == 1
    rig.say(Kind.PROPOSED, 0, [1])
    assert len(rig.failures) == 0
    with pytest.raises(wire.WireError, match="task 4 was never sent"):
        rig.say(Kind.RETRY, 0, [2, 4], [5, 6], ["one", "two"])
    assert rig.reported[-1] == (Change(0, 1, [], refused=4), ([2, 4], ["one", "two"]))


def test_large_outcomes_came_before(rig: Rig) -> None:
    rig.say(Kind.BLOB, 0, b"large")
    rig.say(Kind.BLOB, 1, None)
    rig.say(Kind.ENDED, 0, [0, 1, 2], FINISHED, [IN_BLOB, IN_BLOB, 3])
    assert rig.reported[0][1][0] == [b"large", NO_MEMORY, 3]
    assert rig.reported[0][1][2] is True
    assert not rig.receiver._blobs


@pytest.mark.parametrize(
    "frame",
    [
        [Kind.ENDED, 0, [0], FINISHED, [IN_BLOB]],  # it did not arrive
        [Kind.ENDED, 0, [0], FINISHED, []],
        [Kind.ENDED, 0, [0], 7, [1]],
        [Kind.ENDED, 1, [0], FINISHED, [1]],
        [Kind.ENDED, -1, [0], FINISHED, [1]],
        [Kind.ANNOUNCED, 0, ["0"]],
        [Kind.ANNOUNCED, 0.0, [4]],
        [Kind.ANNOUNCED, 0, [True]],
        [Kind.PROPOSED, 3, [4]],
        [Kind.RETRY, 0, [0], [], []],
        [Kind.RETRY, 0, [0], ["1"], [""]],
        [Kind.RETRY, 0, [0], [1], [b"no text"]],
        [Kind.ENDED, 0, [0], TOO_LATE, []],
        [Kind.UNBEGUN, 0, 5],
        [Kind.TICK, 0.0, 0, 0, [-1], 0, 0],
        [Kind.TICK, float("inf"), 0, 0, [], 0, 0],
        [Kind.TICK, 0.0, 0, 0, [], 0, -1],
        [Kind.TICK, 0.0, 0, 0, [], 0, 1.0],
        [Kind.CONFIRM, [0]],
        [Kind.SCHEDULE, 0],
    ],
)
def test_what_cannot_be_read_changes_nothing(rig: Rig, frame: list[Any]) -> None:
    with pytest.raises(Exception, match=r".*"):
        rig.say(*frame)
    assert not rig.reported
    assert list(rig.book.ledger) == [0, 1, 2, 3, 4]
    assert rig.book.ledger.running == 4


def test_impossible_numbers_are_refused_after_possible_ones(rig: Rig) -> None:
    with pytest.raises(wire.WireError, match="task 4 was never sent, or was reported twice"):
        rig.say(Kind.ENDED, 0, [0, 4, 1], FINISHED, [1, 2, 3])
    assert rig.reported[0][0].ended == [0]


def test_the_worker_is_answered_where_it_waits_for_it(rig: Rig) -> None:
    outbox = rig.book.outbox
    rig.say(Kind.UNBEGUN, 0, [2, 3])
    assert not outbox.answers
    rig.say(Kind.PROPOSED, 0, [2])
    assert outbox.answers
    outbox.take()
    rig.say(Kind.RETRY, 0, [0, 1], [5, 6], ["one", "two"])
    assert outbox.answers
    outbox.take()
    rig.book.reschedule(0, 0, 9)
    outbox.take()
    rig.say(Kind.ENDED, 0, [0], CANCELLED, [None])
    assert outbox.answers
    outbox.take()
    assert not outbox.answers
    rig.book.reschedule(0, 0, NOW + 5)
    assert [rig.book.find(n).due for n in (0, 1)] == [NOW + 5, NOW + 6]  # type: ignore[union-attr]
    rig.say(Kind.ENDED, 0, [4], CANCELLED, [None])
    assert [change.waiting for change, _ in rig.reported] == [2, -1, 2, 0, -1]


def test_a_cancellation_that_nobody_asked_for_ends_its_task_whatever_closes(rig: Rig) -> None:
    rig.book.closing = True
    rig.say(Kind.ENDED, 0, [0], UNASKED, [b"why"])
    ((change, (values, *_)),) = rig.reported
    assert (change.ended, change.state) == ([0], State.CANCELLED)
    assert values == [b"why"]


def test_requests_of_tasks_come_in_parts(rig: Rig) -> None:
    whole = wire.pack(["cancel", 0, 0, 5])
    rig.say(Kind.INSIDE, whole[:3], False)
    assert not rig.asked
    rig.say(Kind.INSIDE, whole[3:], True)
    assert rig.asked == [("cancel", 0, 0, 5)]


def test_incomplete_data_of_a_gone_process_is_dropped(rig: Rig) -> None:
    rig.say(Kind.BLOB, 0, b"large")
    rig.say(Kind.INSIDE, b"half", False)
    rig.receiver.disconnect()
    rig.say(Kind.INSIDE, wire.pack(["cancel"]), True)
    assert rig.asked == [("cancel",)]
    with pytest.raises(wire.WireError, match="did not come"):
        rig.say(Kind.ENDED, 0, [0], FINISHED, [IN_BLOB])


def test_what_is_logged_is_passed_on(rig: Rig) -> None:
    rig.say(Kind.LOG, [b"record"], 5)
    assert rig.logged == [([b"record"], 5)]
    with pytest.raises(wire.WireError, match="does not send LOGGED"):
        rig.say(Kind.LOGGED)


def test_lateness_is_noted(rig: Rig) -> None:
    rig.say(Kind.TICK, 0.5, 100, 300, [1, 2], 0, 0)
    assert rig.receiver.history.lag == 0.5


def test_runs_and_size_of_the_process_are_reported_to_its_wear() -> None:
    rig = Rig(recycles=True)
    rig.say(Kind.READY)
    rig.say(Kind.ENDED, 0, [0, 1], FINISHED, [1, 2])
    rig.say(Kind.RETRY, 0, [2], [5], ["failed"])  # one attempt
    rig.say(Kind.ENDED, 0, [3, 4], CANCELLED, [None, None])  # 4 has not begun
    rig.say(Kind.TICK, 0.5, 0, 0, [], 0, 5_000)
    began, *reported = rig.worn
    assert began == ("began", 0)
    assert reported == [("ran", 2), ("ran", 1), ("ran", 1), ("measured", 5_000)]


def test_what_was_too_late_has_not_run() -> None:
    rig = Rig(recycles=True)
    rig.say(Kind.ENDED, 0, [0, 1], TOO_LATE, [b"", b""])
    assert rig.worn == [("ran", 0)]
