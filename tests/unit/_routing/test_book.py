"""The book, without a worker: each rule by an example, and all of them against a model."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from words import Words

from aioscheduler._routing.book import Book
from aioscheduler._routing.changes import Change
from aioscheduler._scheduling.clock import LATEST
from aioscheduler._scheduling.states import State
from aioscheduler._transport import wire
from aioscheduler._transport.definitionlog import DefinitionLog
from aioscheduler._transport.wire import Kind

NOTHING: list[wire.Frame] = []


def make(count: int = 4, schedulers: int = 1, timed: bool = True) -> Book:
    book = Book(schedulers, timed, DefinitionLog())
    for number in range(count):
        book.outbox.add(number % schedulers, 100 + number, 7, number)
    frames(book)
    return book


def frames(book: Book) -> list[wire.Frame]:
    """What is to be sent."""
    return list(wire.Decoder().feed(b"".join(book.outbox.take()[0])))


def replayed(book: Book) -> dict[int, tuple[int, int]]:
    """Return due time and attempt of the tasks that the next process is sent."""
    told, _ = book.outbox.restart()
    found = {}
    for _, first, _, dues, _, records, payloads in wire.Decoder().feed(b"".join(told)):
        own = first if isinstance(first, list) else range(first, first + len(payloads))
        for index, number in enumerate(own):
            due = dues[index] if isinstance(dues, list) else dues
            record = records[index] if isinstance(records, list) else records
            found[number] = due, wire.read_record(record).attempt
    return found


def test_a_task_begins_and_ends() -> None:
    book = make()
    assert book.announced(0, [0, 1]) == Change(0, -2)
    assert [book.state(n) for n in (0, 2)] == [State.RUNNING, State.PENDING]
    assert book.ended(0, [1], State.FINISHED) == Change(0, 0, [1], State.FINISHED)
    assert book.ended(0, [0], State.FAILED) == Change(0, 0, [0], State.FAILED)
    assert list(book.ledger) == [2, 3]


def test_an_impossible_number_is_named_and_those_before_it_are_processed() -> None:
    book = make()
    assert book.announced(0, [0, 1, 1, 2]) == Change(0, -2, refused=1)
    assert book.unbegun(0, [1, 3]) == Change(0, 1, refused=3)
    assert book.ended(0, [0, 2], State.FINISHED) == Change(0, 0, [0], State.FINISHED, refused=2)
    assert book.cancelled(0, [3, 9]) == [Change(0, -1, [3], refused=9)]
    assert book.retried(0, [1], [5], 0) == Change(0, 0, [], refused=1)
    assert list(book.ledger) == [1, 2]


def test_a_task_asked_to_cancel_is_not_pending_and_ends_when_confirmed() -> None:
    book = make()
    assert book.cancel(0, 1) == Change(0, -1)
    assert book.cancel(0, 1) == Change(0)
    assert frames(book) == [[Kind.CANCEL, 0, [1]]]
    assert book.cancelled(0, [1]) == [Change(0, 0, [1])]
    assert book.cancel(0, 1) is None


def test_a_task_of_another_scheduler_is_left_alone() -> None:
    """References may be damaged."""
    book = make(4, 2)
    book.outbox.add(1, 50, 7, 4)  # in no frame yet
    for number in (0, 4):
        wrong = 0 if number == 4 else 1
        assert book.cancel(wrong, number) is None
        assert book.withdraw(wrong, number) is None
        assert not book.reschedule(wrong, number, 9)
    assert not book._asked
    assert book.cancel(1, 4) == Change(1, -1)


def test_a_running_task_that_is_asked_to_cancel_may_end_as_it_likes() -> None:
    book = make()
    book.announced(0, [0, 1])
    assert book.cancel(0, 0) == book.cancel(0, 1) == Change(0)
    assert book.ended(0, [0], State.FINISHED).ended == [0]
    assert book.cancelled(0, [1]) == [Change(0, 0, [1])]


def test_a_worker_that_drops_a_task_twice_is_refused_and_nothing_is_lost() -> None:
    book = make()
    book.reschedule(0, 3, 500)
    assert book.cancelled(0, [1, 3, 3]) == [Change(0, -1, [1])]
    assert book.state(3) is State.PENDING


def test_a_head_that_is_cancelled_while_it_waits_is_forgotten() -> None:
    book = make(timed=False)
    book.announced(0, [0])
    book.retried(0, [0], [5], 100)
    book.cancel(0, 0)
    book.cancelled(0, [0])
    assert not book._heads


def test_a_look_at_a_task_makes_no_frame_of_it() -> None:
    """Any thread may ask for a due time."""
    book = make(2)
    number = book.outbox.add(0, 50, 7, 3)
    found = book.find(number)
    assert found is not None
    assert (found.due, found.payload, book.outbox.loose) == (50, 3, range(2, 3))
    assert book.find(number + 1) is None


def test_what_is_withdrawn_ends_and_a_start_on_its_way_wins() -> None:
    book = make()
    assert book.withdraw(0, 0) == book.withdraw(0, 1) == Change(0, -1)
    assert book.withdraw(0, 1) == Change(0)
    assert frames(book) == [[Kind.WITHDRAW, 0, [0, 1]]]
    assert book.cancelled(0, [0]) == [Change(0, 0, [0])]
    assert book.announced(0, [1, 2]) == Change(0, -1)  # 1 no longer counted as pending
    assert book.withdraw(0, 1) is None
    assert book.unbegun(0, [1]) == Change(0, 1)  # pending, as if nothing had been requested
    assert book.drop_asked() == []


def test_a_cancel_wins_over_a_withdrawal_and_a_withdrawal_over_a_move() -> None:
    book = make()
    assert book.reschedule(0, 0, 500)
    assert book.withdraw(0, 0) == Change(0, -1)
    assert not book.reschedule(0, 0, 600)
    assert book.cancel(0, 0) == Change(0)
    assert frames(book) == [[Kind.WITHDRAW, 0, [0]], [Kind.CANCEL, 0, [0]]]
    assert book.cancelled(0, [0]) == [Change(0, 0, [0])]


def test_what_is_moved_is_taken_back_and_given_again() -> None:
    book = make()
    assert book.reschedule(0, 1, 500)
    assert book.reschedule(0, 1, 600)
    assert frames(book) == [[Kind.WITHDRAW, 0, [1]]]
    found = book.find(1)
    assert found is not None
    assert found.due == 600
    assert book.cancelled(0, [1]) == [Change(0, 0, [])]
    assert frames(book) == [[Kind.SCHEDULE, [1], 0, 600, 7, None, [1]]]
    assert book.state(1) is State.PENDING
    assert replayed(book)[1] == (600, 1)
    assert book.announced(0, [1]) == Change(0, -1)


def test_what_was_not_sent_yet_is_moved_at_once() -> None:
    book = make(0)
    for number in range(3):
        book.outbox.add(0, 5, 7, number)
    assert book.reschedule(0, 1, 9)
    assert frames(book) == [[Kind.SCHEDULE, 0, [0] * 3, [5, 9, 5], [7] * 3, None, [0, 1, 2]]]


def test_a_start_on_its_way_wins_over_a_move() -> None:
    book = make()
    book.reschedule(0, 1, 500)
    assert book.announced(0, [1]) == Change(0, -1)
    assert not book.reschedule(0, 1, 600)
    book.sort_running(rerun=True)
    assert replayed(book)[1] == (101, 2)


def test_a_move_holds_over_a_death() -> None:
    book = make()
    book.reschedule(0, 1, 500)
    assert {*book.died([(0, 0)])} == {Change(0)}
    assert replayed(book) == {0: (100, 1), 1: (500, 1), 2: (102, 1), 3: (103, 1)}


def test_a_large_payload_goes_with_its_task_again() -> None:
    book = make(0)
    large = b"x" * (wire.BLOB_LIMIT + 1)
    book.outbox.add(0, 5, 7, large)
    assert book.outbox.take()[1] == [(0, large)]
    book.reschedule(0, 0, 9)
    frames(book)
    book.cancelled(0, [0])
    told, blobs = book.outbox.take()
    assert list(wire.Decoder().feed(b"".join(told)))[-1][-1] == [wire.IN_BLOB]
    assert blobs == [(0, large)]
    book.cancelled(0, [0])
    assert not book.ledger.blobs


def test_a_retried_task_waits_and_is_given_again_at_its_time() -> None:
    book = make()
    book.announced(0, [0, 1, 2])
    book.cancel(0, 2)
    frames(book)
    # 2 was asked to cancel, and no process has it now.
    assert book.retried(0, [0, 2], [50, 60], 1000) == Change(0, 1, [2])
    record = [None, None, 2, False, 1, 100, None]  # failed once; its given due time is 100
    assert frames(book) == [[Kind.SCHEDULE, [0], 0, 1050, 7, [record], [0]]]
    assert book.state(0) is State.PENDING
    assert replayed(book)[0] == (1050, 2)
    book.announced(0, [0])
    book.retried(0, [0], [10], 2000)
    assert replayed(book)[0] == (2010, 3)


def more_of(book: Book, number: int) -> wire.More:
    """Return the record with which a task is sent next."""
    entry = book.find(number)
    assert entry is not None
    return wire.read_record(entry.record)


def test_a_retry_does_not_move_the_due_time_that_was_given_and_a_reschedule_does() -> None:
    book = make()
    for times, now in enumerate((1000, 2000), start=1):
        book.announced(0, [1])
        book.retried(0, [1], [50], now)
        assert more_of(book, 1)[2:6] == (times + 1, False, times, 101)
    frames(book)
    assert book.reschedule(0, 1, 5000)
    book.cancelled(0, [1])
    assert replayed(book)[1] == (5000, 3)
    assert more_of(book, 1)[2:6] == (3, False, 2, None)
    book.announced(0, [1])
    book.retried(0, [1], [50], 6000)
    assert more_of(book, 1)[2:6] == (4, False, 3, 5000)


def test_what_runs_again_after_a_death_has_not_failed() -> None:
    book = make()
    book.announced(0, [2])
    book.retried(0, [2], [50], 1000)
    book.announced(0, [2])
    book.sort_running(rerun=True)
    assert replayed(book)[2] == (1050, 3)
    assert more_of(book, 2) == wire.More(None, None, 3, False, 1, 102)


def test_a_wait_without_end_is_until_the_latest_due_time() -> None:
    book = make()
    book.announced(0, [0])
    book.retried(0, [0], [LATEST], 1000)
    assert replayed(book)[0] == (LATEST, 2)


def test_a_task_that_waits_for_its_next_attempt_is_pending() -> None:
    book = make()
    book.announced(0, [0, 1, 2])
    book.retried(0, [0, 1, 2], [50, 50, 50], 1000)
    assert book.withdraw(0, 0) == book.cancel(0, 1) == Change(0, -1)
    assert book.cancelled(0, [0, 1]) == [Change(0, 0, [0, 1])]
    assert {*book.died([(0, 0)])} == {Change(0)}
    assert replayed(book)[2] == (1050, 2)
    assert [(list(row), state) for row, state, _ in book.close(lost=False)] == [
        ([2, 3], State.CANCELLED)
    ]


def test_the_head_of_a_queue_stays_with_its_worker_until_it_is_retried() -> None:
    book = make(timed=False)
    book.announced(0, [0])
    book.cancel(0, 0)
    frames(book)
    assert book.retried(0, [0], [50], 1000) == Change(0, 0, [])
    assert frames(book) == NOTHING
    assert book.cancelled(0, [0]) == [Change(0, 0, [0])]
    book.announced(0, [1])
    assert book.retried(0, [1], [50], 1000) == Change(0, 1, [])
    assert replayed(book)[1] == (1050, 2)
    assert more_of(book, 1) == wire.More(None, None, 2, 0, 1, None)


def test_proposed_tasks_are_confirmed_once_for_a_whole_turn() -> None:
    book = make(6)
    assert book.proposed(0, [0, 1]) == Change(0, -2)
    assert book.proposed(0, [2]) == Change(0, -1)
    assert frames(book) == [[Kind.CONFIRM, [0, 1]]]
    assert book.proposed(0, [3, 3]).refused == 3  # an impossible report is not confirmed
    assert frames(book) == NOTHING
    book.died([None])
    book.outbox.restart()
    book.proposed(0, [4])
    assert frames(book) == [[Kind.CONFIRM, [0]]]  # of the next process


def test_durables_confirm_tasks_once_and_in_any_order() -> None:
    book, words = make(6), Words()
    book.durables = words
    book.proposed(0, [0, 1])
    book.proposed(0, [2])
    assert frames(book) == NOTHING
    assert book.proposed(0, [3, 3]).refused == 3  # nothing is reported of them
    first, second = words.begins
    second()
    second()
    assert frames(book) == [[Kind.CONFIRM, [1]]]
    first()
    assert frames(book) == [[Kind.CONFIRM, [0]]]


def test_unconfirmed_tasks_of_a_dead_process_have_not_begun_and_stay_unconfirmed() -> None:
    book, words = make(6), Words()
    book.durables = words
    for numbers in ([0], [1, 2], [3]):
        book.proposed(0, numbers)
    book.announced(0, [4])
    words.begins[2]()
    words.begins[0]()
    frames(book)
    book.died([(5, 4)])  # 4, and 3 of those that were confirmed
    assert list(book.ledger.running_numbers()) == [3, 4]
    book.outbox.restart()
    words.begins[1]()
    assert frames(book) == NOTHING
    book.proposed(0, [0])
    list(book.close(lost=False))
    words.begins[3]()
    assert frames(book) == NOTHING


@pytest.mark.parametrize(
    ("begun", "unbegun"),
    [
        (0, [0, 1, 2]),  # none
        (2, [2]),  # 1
        (3, []),  # 2
        (None, []),  # unknown
        (4, []),  # 3, which was not announced: announcements were lost
    ],
)
def test_what_the_black_box_says_of_what_was_announced(
    begun: int | None, unbegun: list[int]
) -> None:
    book = make()
    book.announced(0, [0, 1, 2])
    changes = book.died([None if begun is None else (begun, 0)])
    assert sum(change.waiting for change in changes) == (-1 if begun == 4 else len(unbegun))
    lost = [number for change in book.sort_running(rerun=False) for number in change.ended]
    assert lost == [n for n in ([0, 1, 2, 3] if begun == 4 else [0, 1, 2]) if n not in unbegun]


def test_the_last_of_two_announcements_counts() -> None:
    book = make()
    book.announced(0, [0, 1])
    book.retried(0, [0], [5], 100)
    book.announced(0, [0, 2])
    assert [change.waiting for change in book.died([(1, 0)])] == [1, 0]  # 2, which follows it
    assert [change.ended for change in book.sort_running(rerun=False)] == [[0, 1]]


def test_the_head_of_a_queue_begins_again_before_what_was_announced_after_it() -> None:
    book = make(timed=False)
    book.proposed(0, [0, 1, 2])
    book.retried(0, [0], [5], 100)
    book.proposed(0, [0])
    assert [c.waiting for c in book.died([(1, 0)])] == [2, 0]  # 1 and 2
    assert [change.ended for change in book.sort_running(rerun=False)] == [[0]]


def test_a_death_ends_what_was_asked_to_end_begun_or_not() -> None:
    book = make(6, 2)
    book.announced(0, [0, 2])
    book.cancel(0, 0)
    book.cancel(1, 1)
    book.withdraw(1, 3)
    changes = book.died([(3, 0), (0, 0)])
    assert [change for change in changes if change.ended] == [
        Change(0, 0, [0]),
        Change(1, 0, [1, 3]),
    ]
    assert book.sort_running(rerun=False) == [Change(0, 0, [2], State.LOST)]
    assert list(book.ledger) == [4, 5]


def test_one_that_had_begun_is_lost_by_itself_and_no_other_is() -> None:
    book = make(4, 2)
    book.adopt(0, 5, 7, 1, None, 1 << 50)
    frames(book)
    book.announced(0, [0, 2, 4])
    assert book.lose(1, 0) == book.lose(0, 1) == book.lose(0, 3) == book.lose(0, 99) == []
    assert book.lose(0, 2) == [Change(0, 0, [2], State.LOST)]
    assert book.lose(0, 2) == []
    assert book.lose(0, 1 << 50) == [Change(0, 0, [4], State.LOST)]  # by its alias
    assert book.sort_running(rerun=True) == [Change(0, 1)]
    assert list(book.ledger) == [0, 1, 3]


def test_what_runs_again_counts_its_attempts() -> None:
    book = make()
    for times in range(1, 4):
        book.announced(0, [2])
        assert book.sort_running(rerun=True) == [Change(0, 1)]
        assert replayed(book)[2] == (102, times + 1)


@pytest.mark.parametrize("lost", [True, False])
def test_at_the_end_every_task_ends_once(lost: bool) -> None:
    book = make(600)
    book.outbox.add(0, 5, 7, 7)  # in no frame yet
    book.announced(0, [5, 6])
    book.cancel(0, 6)
    book.cancel(0, 300)
    book.reschedule(0, 301, 9)
    ends: dict[int, tuple[State, bool]] = {}
    for numbers, state, started in book.close(lost):
        assert not ends.keys() & set(numbers)
        ends |= dict.fromkeys(numbers, (state, started))
    assert ends.keys() == {*range(600), book.outbox.next - 1}
    rest = State.LOST if lost else State.CANCELLED
    assert ends[5] == (State.LOST, True)
    assert ends[6] == (State.CANCELLED, True)
    assert ends[300] == (State.CANCELLED, False)
    assert {ends[n] for n in ends if n not in (5, 6, 300)} == {(rest, False)}
    assert not book.ledger


def test_a_task_is_known_by_its_alias_until_its_end_is_reported() -> None:
    book = make(0)
    book.adopt(0, 5, 7, 1, None, 1 << 50)
    assert book.number_of(1 << 50) == 0
    assert book.alias_of(0) == 1 << 50
    frames(book)
    book.cancelled(0, [0])
    book.forget([0])
    assert book.number_of(1 << 50) == 1 << 50


class Worker:
    """A worker that obeys, and does anything else it may, in any order."""

    def __init__(self, confirms: Callable[[int], bool]) -> None:
        self.waiting: dict[int, int] = {}
        self.announced: deque[int] = deque()
        self.unconfirmed: dict[int, int] = {}  # by index
        self.confirmed: deque[int] = deque()
        self.announcements = 0
        self.running: list[int] = []
        self.begun = [0, 0]
        self.confirms = confirms
        self.said: deque[wire.Frame] = deque()

    def hear(self, kind: Kind, *fields: Any) -> None:
        if kind == Kind.SCHEDULE:
            first, _, dues, _, _, payloads = fields
            own = first if isinstance(first, list) else range(first, first + len(payloads))
            unconfirmed = self.unconfirmed.values()
            for index, number in enumerate(own):
                launched = [*self.announced, *unconfirmed, *self.confirmed]
                assert number not in [*self.waiting, *launched, *self.running]
                self.waiting[number] = dues[index] if isinstance(dues, list) else dues
        elif kind == Kind.CONFIRM:
            for index in fields[0]:
                self.confirmed.append(self.unconfirmed.pop(index))
        else:
            for number in fields[1]:
                waited = self.waiting.pop(number, None) is not None
                if waited or (kind == Kind.CANCEL and self.drops(number)):
                    self.say(Kind.ENDED, number)

    def drops(self, number: int) -> bool:
        """Cancel a task that was announced, or runs."""
        for launched in (self.announced, self.confirmed):
            if number in launched:
                launched[launched.index(number)] = -1
                return True
        for index, other in self.unconfirmed.items():
            if other == number:
                self.unconfirmed[index] = -1
                return True
        runs = number in self.running
        if runs:
            self.running.remove(number)
        return runs

    def say(self, kind: Kind, number: int, state: State = State.CANCELLED) -> None:
        self.said.append([kind, number, state])

    def step(self, draw: random.Random) -> list[int]:
        """Announce, begin or end tasks; return those that have begun."""
        deed = draw.choice(("announce", "begin", "begin", "end", "retry", "give back"))
        if deed == "announce" and self.waiting:
            number = draw.choice(list(self.waiting))
            del self.waiting[number]
            if self.confirms(number):
                self.unconfirmed[self.announcements] = number
                self.announcements += 1
                self.say(Kind.PROPOSED, number)
            else:
                self.announced.append(number)
                self.say(Kind.ANNOUNCED, number)
        elif deed == "begin":
            order = draw.randrange(2)
            launched = (self.announced, self.confirmed)[order]
            number = launched.popleft() if launched else -1
            if number >= 0:
                self.running.append(number)
                self.begun[order] = number + 1
                return [number]
        elif deed == "give back" and self.announced:
            number = self.announced.pop()
            if number >= 0:  # a drain does so
                self.say(Kind.UNBEGUN, number)
        elif deed == "give back" and self.unconfirmed:
            index = draw.choice(list(self.unconfirmed))
            number, self.unconfirmed[index] = self.unconfirmed[index], -1
            if number >= 0:
                self.say(Kind.UNBEGUN, number)
        elif self.running:
            number = self.running.pop(draw.randrange(len(self.running)))
            if deed == "retry":
                self.say(Kind.RETRY, number)
            else:
                self.say(Kind.ENDED, number, draw.choice((State.FINISHED, State.FAILED)))
        return []


class Story:
    """A book and its workers, one after another, and what must hold for them."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.confirmed = self.draw.random() < 0.5
        self.rerun = self.draw.random() < 0.3
        self.book = Book(1, True, DefinitionLog())
        self.words = Words()
        if self.draw.random() < 0.5:
            self.book.durables = self.words
        self.worker = Worker(self.confirms)
        self.to_worker: deque[wire.Frame] = deque()
        self.waiting = 0
        self.ends: dict[int, State] = {}
        self.starts: dict[int, int] = {}
        self.allowed: dict[int, int] = {}  # starts of tasks that may start more than once
        self.cancelled: set[int] = set()
        self.withdrawn: set[int] = set()
        self.skipped: set[int] = set()  # numbers that no task has
        self.now = 0

    def confirms(self, number: int) -> bool:
        return self.confirmed or number % 3 == 0

    def enter(self) -> None:
        """Confirm one of the announcements, maybe of a process that is gone."""
        if begins := self.words.begins:
            begins.pop(self.draw.randrange(len(begins)))()

    def take(self, change: Change | None) -> None:
        if change is None:
            return
        assert change.refused is None
        self.waiting += change.waiting
        for number in change.ended:
            assert number not in self.ends
            self.ends[number] = change.state
            if change.state is State.CANCELLED:
                assert number in self.cancelled | self.withdrawn
                if number not in self.cancelled:
                    assert self.starts.get(number, 0) < self.allowed.get(number, 1)
        self.book.forget(change.ended)

    def send(self) -> None:
        self.to_worker += frames(self.book)

    def deed(self) -> None:
        book, draw = self.book, self.draw
        self.now += draw.randrange(3)
        number = draw.randrange(book.outbox.next or 1)
        deed = draw.choices(
            ("add", "cancel", "withdraw", "move", "send", "hear", "work", "say", "die", "enter"),
            (4, 1, 2, 3, 4, 6, 10, 6, 0.3, 3),
        )[0]
        if deed == "add":
            book.outbox.add(0, self.now + draw.randrange(9), 7, 0)
            self.waiting += 1
        elif deed == "cancel":
            if book.outbox.scheduler(number) is not None:
                self.cancelled.add(number)
            self.take(book.cancel(0, number))
        elif deed == "withdraw":
            change = book.withdraw(0, number)
            if change is not None:
                self.withdrawn.add(number)
            self.take(change)
        elif deed == "move":
            book.reschedule(0, number, self.now + draw.randrange(9))
        elif deed == "send":
            self.send()
        elif deed == "hear" and self.to_worker:
            self.worker.hear(*self.to_worker.popleft())
        elif deed == "work":
            for begun in self.worker.step(draw):
                self.starts[begun] = self.starts.get(begun, 0) + 1
        elif deed == "say" and self.worker.said:
            self.listen()
        elif deed == "die":
            self.die()
        elif deed == "enter":
            self.enter()
        asked = {n for n in book._asked if book._asked.ends(n)}
        known = [n for n in range(book.outbox.next) if book.outbox.scheduler(n) is not None]
        pending = [n for n in known if not book._runs(n)]
        assert self.waiting == len(set(pending) - asked)

    def listen(self) -> None:
        kind, number, state = self.worker.said.popleft()
        book = self.book
        if kind == Kind.ANNOUNCED:
            self.take(book.announced(0, [number]))
        elif kind == Kind.PROPOSED:
            self.take(book.proposed(0, [number]))
        elif kind == Kind.UNBEGUN:
            self.take(book.unbegun(0, [number]))
        elif kind == Kind.RETRY:
            self.allowed[number] = self.starts[number] + 1
            self.take(book.retried(0, [number], [self.draw.randrange(9)], self.now))
        elif state is State.CANCELLED:
            for change in book.cancelled(0, [number]):
                self.take(change)
        else:
            self.take(book.ended(0, [number], state))

    def die(self) -> None:
        """Bytes already written survive, or maybe not if every start is confirmed."""
        worker, begun = self.worker, [(self.worker.begun[0], self.worker.begun[1])]
        lossy = self.confirmed and self.draw.random() < 0.5
        if lossy:
            begun = [None]  # type: ignore[list-item]
            worker.said.clear()
        while worker.said:
            self.listen()
        for change in self.book.died(begun):
            self.take(change)
        if self.rerun:
            for number in self.book.ledger.running_numbers():
                self.allowed[number] = self.starts.get(number, 0) + 1
        for change in self.book.sort_running(self.rerun):
            self.take(change)
        before = self.book.outbox.next
        told, _ = self.book.outbox.restart()
        self.skipped |= set(range(before, self.book.outbox.next))
        self.worker = Worker(self.confirms)
        self.to_worker = deque(wire.Decoder().feed(b"".join(told)))

    def finish(self) -> None:
        while self.worker.said:
            self.listen()
        for numbers, state, _ in self.book.close(lost=True):
            self.take(Change(0, 0, numbers, state))
        assert self.ends.keys() == set(range(self.book.outbox.next)) - self.skipped
        for number, starts in self.starts.items():
            assert starts <= self.allowed.get(number, 1)
        for number, state in self.ends.items():
            assert self.starts.get(number) or state not in (State.FINISHED, State.FAILED)


@given(st.integers(0, 1 << 32))
def test_whatever_happens_no_task_begins_twice_or_ends_twice(seed: int) -> None:
    story = Story(seed)
    for _ in range(120):
        story.deed()
    story.finish()
