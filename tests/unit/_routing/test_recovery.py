"""The tasks of a process that is gone: for the next one, or for good."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pytest

from aioscheduler import State, WorkerLost
from aioscheduler._routing.book import Book
from aioscheduler._routing.recovery import Recovery
from aioscheduler._transport.definitionlog import DefinitionLog


class Rig:
    """A book with four tasks: two have begun, one is announced, and the last is pending."""

    def __init__(self, rerun: bool = False) -> None:
        self.book = Book(1, True, DefinitionLog())
        for number in range(4):
            self.book.outbox.add(0, 5, 7, number)
        self.book.outbox.take()
        self.book.announced(0, [0, 1, 2])
        self.word: int | None = 2  # in the black box: 0 and 1 have begun
        self.blamed: Any = None
        self.fails: Exception | None = None
        self.cause, self.name = "it said so", "bots"
        self.ends: dict[int, tuple[State, Any]] = {}
        self.waiting = 0
        self.recovery = Recovery(3, self.book, self, rerun, self)  # type: ignore[arg-type]

    # Stands for the endings, their listeners, the supervisor and the process.

    @property
    def listeners(self) -> Any:
        return self

    def handle_of(self, number: int) -> None: ...

    def report(self, change: Any, values: Any = ()) -> None:
        self.waiting += change.waiting
        for number, value in zip(change.ended, values or [None] * len(change.ended), strict=True):
            self.ends[number] = change.state, value

    def settle_all(self, ends: Any) -> None:
        for numbers, state, value in ends:
            self.ends |= dict.fromkeys(numbers, (state, value))

    def describe_running(self) -> str:
        return "their names"

    def blocked(self) -> tuple[int, int] | None:
        if isinstance(self.blamed, Exception):
            raise self.blamed
        return self.blamed  # type: ignore[no-any-return]

    def begun(self, scheduler: int) -> tuple[int, int] | None:
        if self.fails is not None:
            raise self.fails
        return None if self.word is None else (self.word, 0)

    def states(self) -> Counter[State | None]:
        return Counter(self.book.ledger.state(number) for number in range(4))


def test_what_has_begun_is_lost_and_the_rest_goes_on() -> None:
    rig = Rig()
    life: Any = rig
    fate, begun = rig.recovery.pass_on(life, -9)
    assert begun == 2
    assert fate == "2 pending tasks go to the next process; started, and lost: 2 (their names)"
    assert rig.states() == {State.PENDING: 2, None: 2}
    assert rig.waiting == 1  # the task that was announced, but had not begun
    for number in (0, 1):
        state, error = rig.ends[number]
        assert state is State.LOST
        assert isinstance(error, WorkerLost)
        assert (error.worker, error.exitcode, error.started) == (3, -9, True)
        assert error.cause == "it said so"


def test_with_rerun_it_goes_on_too() -> None:
    rig = Rig(rerun=True)
    life: Any = rig
    fate, begun = rig.recovery.pass_on(life, -9)
    assert begun == 2
    assert fate == "2 pending tasks go to the next process; started, to run again: 2 (their names)"
    assert rig.states() == {State.PENDING: 4}
    assert rig.waiting == 3
    assert not rig.ends


@pytest.mark.parametrize("rerun", [True, False])
def test_who_has_blocked_the_worker_is_lost_though_the_others_may_run_again(rerun: bool) -> None:
    rig = Rig(rerun)
    rig.blamed = 0, 1
    life: Any = rig
    fate, harmed = rig.recovery.pass_on(life, 213)
    assert fate.startswith("2 pending tasks go to the next process; started, ")
    state, error = rig.ends[1]
    assert state is State.LOST
    assert (error.exitcode, error.started, error.cause) == (213, True, "it said so")
    if rerun:
        assert rig.ends.keys() == {1}
        assert rig.states() == {State.PENDING: 3, None: 1}
    else:
        assert rig.ends.keys() == {0, 1}
        assert rig.ends[0][1].cause == "another task is to blame: it said so"


@pytest.mark.parametrize("blamed", [(0, 2), (0, 3), (0, 99), OSError("no box")])
def test_a_task_that_does_not_run_is_not_to_blame(
    blamed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(rerun=True)
    rig.blamed = blamed
    life: Any = rig
    with caplog.at_level(logging.ERROR, "aioscheduler"):
        rig.recovery.pass_on(life, 213)
    assert not rig.ends
    assert ("cannot be read" in caplog.text) is isinstance(blamed, Exception)


def test_a_task_asked_to_cancel_that_blocked_the_worker_ends_cancelled() -> None:
    rig = Rig(rerun=True)
    rig.book.cancel(0, 1)
    rig.blamed = 0, 1
    life: Any = rig
    rig.recovery.pass_on(life, 213)
    assert rig.ends == {1: (State.CANCELLED, None)}


def test_what_nobody_knows_may_have_begun(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    life: Any = rig
    rig.fails = OSError("no box")
    with caplog.at_level(logging.ERROR, "aioscheduler"):
        rig.recovery.pass_on(life, None)
    assert rig.ends.keys() == {0, 1, 2}
    assert "the black box of worker 3 cannot be read" in caplog.text


@pytest.mark.parametrize("lost", [True, False])
def test_the_end_of_all_leaves_nothing_open(lost: bool) -> None:
    rig = Rig()
    rig.recovery.reason = OSError("no room")
    rig.book.outbox.add(0, 5, 7, 4)  # in no frame yet
    rig.recovery.settle_all(1, lost)
    assert rig.ends.keys() == {0, 1, 2, 3, 4}
    waiting = State.LOST if lost else State.CANCELLED
    assert [rig.ends[n][0] for n in range(5)] == [*[State.LOST] * 3, waiting, waiting]
    error = rig.ends[0][1]
    assert isinstance(error, WorkerLost)
    assert (error.reason, error.started) == ("no room", True)
    assert error.__cause__ is rig.recovery.reason
    if lost:
        assert rig.ends[3][1].started is False


def test_a_frame_that_cannot_be_made_keeps_nothing_open(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig()
    rig.book.outbox.add(0, 5, 7, 4)

    def fail() -> None:
        raise MemoryError

    monkeypatch.setattr(rig.book.outbox, "pack", fail)
    with caplog.at_level(logging.ERROR, "aioscheduler"):
        rig.recovery.settle_all(1, lost=True)
    assert rig.ends.keys() == {0, 1, 2, 3, 4}
    assert "could not be put into a frame" in caplog.text
