"""What happens to the durable tasks of one link is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import stores
from stores import GONE

from aioscheduler._durable.group import Kept
from aioscheduler._durable.records import Begun, Function, Reason, Row
from aioscheduler._routing.burials import Burials
from aioscheduler._routing.keeping import MOST_LOSSES, NOT_GIVEN, WITHDRAWN, Keeping
from aioscheduler._routing.marks import Marks
from aioscheduler._routing.suspects import QUARANTINE_ALONE, Suspects
from aioscheduler._routing.whereabouts import Whereabouts
from aioscheduler._scheduling.states import State
from aioscheduler._shipping.payloads import make_failure
from aioscheduler._transport import wire
from aioscheduler.errors import StoreError, WorkerLost
from aioscheduler.task import TaskRef


class Place(stores.Place):
    """The keepings of two workers, and the commits that write their changes."""

    def __init__(self, timed: bool = True) -> None:
        super().__init__()
        self.now = 1000
        self.marks = Marks(self.group)
        self.suspects = Suspects()
        self.burials = Burials(self.group, lambda: self.now, lambda _: True)
        self.left: dict[str, Kept] = {}
        self.asked: list[Kept | None] = []
        self.where = Whereabouts(2)
        self.where.store = "51"
        self.unknown: list[Callable[[], object]] | None = None  # callbacks for when ids are known
        self.keepings = [
            Keeping(
                *(self.group, self.commits, self.marks, self.suspects, timed),
                *(lambda: self.now, self.burials.bury, self.wait_stored, self.left),
                *(self.where, self.when_known),
            )
            for _ in range(2)
        ]
        self.keeping = self.keepings[0]
        self.begun: list[Any] = []
        self.start()

    def when_known(self, then: Callable[[], object]) -> None:
        if self.unknown is None:
            then()
        else:
            self.unknown.append(then)

    async def wait_stored(self, kept: Kept | None) -> None:
        self.asked.append(kept)

    def age(self) -> None:
        self.marks.age()

    def add(self, number: int, worker: int = 0, **fields: Any) -> Kept:
        """Accept a task."""
        once = fields.pop("once", False)
        suspect = fields.pop("suspect", False)
        row = Row(self.group.new_row(), fields.pop("due", 500), 1, b"", **fields)
        kept = self.keepings[worker].kept[number] = Kept.of(row)
        kept.once, kept.suspect = once, suspect
        self.group.define(Function(1, "f", "m:f", once))
        self.group.put(kept, row)
        self.where.add(kept.row, worker, number)
        self.commits.soon()
        return kept

    def hurry(self, number: int, **fields: Any) -> Kept:
        """Accept a task of whose id the holder is not known yet."""
        kept = self.keeping.kept[number] = Kept.of(Row(NOT_GIVEN, 500, 0, b"", **fields))
        return kept

    def know(self, kept: Kept) -> None:
        """Let it turn out that a task is not in the file."""
        row = Row(self.group.new_row(), kept.due, 1, b"", id=kept.id)
        kept.row = row.row
        self.group.define(Function(1, "f", "m:f", False))
        self.group.put(kept, row)
        self.commits.soon()

    def announce(self, *numbers: int, worker: int = 0) -> None:
        self.keepings[worker].proposed(numbers, lambda those: self.begun.append(numbers))

    def settle(self) -> None:
        """Write all changes, and only the marks that are due."""
        for _ in range(3):
            self.turn()

    def tick(self) -> None:
        """Write all changes, and mark the tasks begun by now."""
        self.commits.soon()
        self.settle()

    def rows(self) -> dict[int, Row]:
        """Return the rows in the file, by number."""
        self.settle()
        return {row.row: row for row in self.store.rows()}

    def row(self, kept: Kept) -> Row:
        return self.rows()[kept.row]

    def dead(self) -> dict[int, tuple[Reason, int, str]]:
        self.settle()
        return {each.row: (each.reason, each.attempt, each.text) for each in self.store.dead()}


@pytest.fixture
def place() -> Place:
    return Place()


def test_what_is_not_durable_is_passed_over(place: Place) -> None:
    for keeping in place.keepings:
        keeping.announced([7, 8])
        keeping.unbegun([7])
        keeping.retried({7: 5})
        keeping.moved(7, 5)
        assert keeping.dispossess(7, running=True)
        assert not keeping.dispossess(7, running=False)
        assert keeping.ref(7) is None
        keeping.withdrawn(7)
        assert keeping.ended([7, 8], State.FAILED, [b"", b""]) == ()
        assert keeping.runs_again(7, True)
        assert not keeping.runs_again(7, False)
        assert not keeping.stays(7, running=False)
        assert not keeping.waits(7)
        assert not keeping.all_durable([7])
        assert not keeping.all_durable([])
        place.add(1, worker=place.keepings.index(keeping))
        assert keeping.ended([7, 8], State.FAILED, [b"", b""]) == set()
        keeping.proposed([7, 8], lambda those: place.begun.append("plain"))
    assert place.begun == ["plain"] * 2  # nothing waits for the store
    assert len(place.rows()) == 2
    assert not place.dead()


def test_all_that_ran_may_be_durable(place: Place) -> None:
    place.add(1)
    place.add(2)
    assert place.keeping.all_durable([1, 2])
    assert place.keeping.all_durable(iter([1]))
    assert not place.keeping.all_durable([1, 3])
    assert not place.keeping.all_durable([])


# ---- starts


def test_what_outlives_a_commit_is_marked_and_nothing_else(place: Place) -> None:
    kept = [place.add(number) for number in range(3)]
    place.turn()
    place.keeping.announced([0, 1, 2])
    place.keeping.ended([0], State.FINISHED, [None])
    place.turn()  # the strike of 0: the others have begun since the last batch
    assert [row.begun for row in place.store.rows()] == [Begun.NO, Begun.NO]
    place.keeping.ended([1], State.FINISHED, [None])
    place.turn()
    (row,) = place.store.rows()
    assert (row.row, row.begun) == (kept[2].row, Begun.YES)
    assert not place.marks
    written = len(place.store.batches)
    place.settle()
    assert len(place.store.batches) == written


def test_a_mark_is_not_made_of_what_has_not_begun_after_all(place: Place) -> None:
    kept = [place.add(number) for number in range(2)]
    place.turn()
    place.keeping.announced([0, 1])
    assert len(place.marks) == 2
    place.tick()
    place.keeping.unbegun([0])
    place.keeping.retried({1: 900})
    place.marks.forget(kept[0])  # any number of times
    assert not place.marks
    place.tick()
    assert {row.begun for row in place.rows().values()} == {Begun.NO}


def test_a_mark_is_taken_back_if_it_has_not_begun(place: Place) -> None:
    kept = place.add(1)
    place.turn()
    place.keeping.announced([1])
    for _ in range(2):
        place.tick()
    assert place.row(kept).begun is Begun.YES
    place.keeping.unbegun([1])
    assert place.row(kept).begun is Begun.NO


@pytest.mark.parametrize("fields", [{"id": "a"}, {"once": True}, {"suspect": True}])
def test_a_task_that_waits_for_the_store_begins_once_on_record(place: Place, fields: Any) -> None:
    kept = place.add(1, **fields)
    place.add(2)
    assert place.keeping.waits(1)
    assert not place.keeping.waits(2)
    place.announce(1)
    assert not place.begun
    place.loop.turn()
    assert not place.begun
    place.writer.work()
    assert place.begun == [(1,)]
    expected = Begun.ONCE if "once" in fields else Begun.YES if "suspect" in fields else Begun.NO
    assert place.store.rows()[0].begun is expected
    place.keeping.ended([1], State.FINISHED, [None])
    assert kept.row not in place.rows()


def test_a_waiting_task_has_not_begun_however_long_it_waits(place: Place) -> None:
    """If the host dies meanwhile, the next must not take it for begun."""
    first = place.add(1, suspect=True, losses=2)
    second = place.add(2, suspect=True, losses=2)
    third = place.add(3, id="c")
    place.turn()
    place.announce(1)
    place.announce(2)
    place.keeping.announced([2, 3])  # confirmed tasks are announced, too
    for _ in range(4):
        place.tick()
    rows = place.rows()
    assert (rows[first.row].begun, rows[second.row].begun) == (Begun.YES, Begun.NO)
    assert rows[third.row].begun is Begun.NO
    assert place.begun == [(1,)]
    place.keeping.ended([1], State.FINISHED, [None])
    assert place.row(second).begun is Begun.YES
    assert place.begun == [(1,), (2,)]


def test_a_task_that_waited_and_runs_on_is_marked_like_any_other(place: Place) -> None:
    kept = place.add(1, id="a")
    place.announce(1)
    place.settle()
    assert place.begun == [(1,)]
    for _ in range(2):
        place.tick()
    assert place.row(kept).begun is Begun.YES


def test_nothing_begins_that_never_will_be_on_record(place: Place) -> None:
    place.add(1, id="a")
    place.add(2, once=True)
    place.announce(1)
    place.announce(2)
    place.store.fails = GONE
    place.settle()
    assert place.failures
    place.add(3, id="c")
    place.announce(3)
    place.announce(9)  # not durable
    assert place.begun == [(9,)]


def test_what_is_on_disk_needs_no_store_to_begin(place: Place) -> None:
    place.add(1, id="a")
    place.settle()
    place.commits.stop(StoreError("over"))
    place.announce(1)
    assert place.begun == [(1,)]


def test_suspects_begin_in_lots_and_those_whose_next_loss_is_the_last_alone(place: Place) -> None:
    for number in range(3):
        place.add(number, suspect=True)
    place.add(3, suspect=True, losses=2)
    place.add(4, worker=1, suspect=True, losses=2)
    place.announce(0, 1)
    place.announce(2)
    place.announce(3)
    place.announce(4, worker=1)
    place.settle()
    assert place.begun == [(0, 1), (2,)]
    place.keeping.ended([0, 1], State.FINISHED, [None] * 2)
    place.keeping.ended([2], State.FAILED, [ValueError()])
    place.settle()
    assert place.begun[2:] == [(3,)]
    place.now += QUARANTINE_ALONE
    place.suspects.look_after(place.now)
    place.settle()
    assert place.begun[3:] == [(4,)]  # of another worker, but it waits for its turn, too


def test_a_turn_that_comes_too_late_puts_nothing_on_record(place: Place) -> None:
    place.add(1, suspect=True, losses=2)
    later = [place.add(n, suspect=True, losses=2) for n in (2, 3, 4)]
    place.announce(1)
    for number in (2, 3, 4):
        place.announce(number)
    place.settle()
    place.keeping.withdrawn(2)
    place.keeping.unbegun([3])  # its process has died, or drains
    place.keeping.moved(4, 7000)
    place.keeping.ended([1], State.FINISHED, [None])
    rows = place.rows()
    assert later[0].row not in rows
    assert [rows[kept.row].begun for kept in later[1:]] == [Begun.NO] * 2
    place.announce(3)  # by the next process
    assert place.row(later[1]).begun is Begun.YES
    assert place.begun.count((3,)) == 2  # the first one has no effect


def test_the_word_is_for_those_that_are_still_to_begin(place: Place) -> None:
    begun: list[list[int]] = []
    for number in range(4):
        place.add(number, once=True)
    place.keeping.proposed([0, 1, 2, 3], begun.append)
    place.loop.turn()  # it is being written
    place.keeping.withdrawn(0)
    place.keeping.moved(1, 7000)
    place.keeping.proposed([1], begun.append)  # due again before it is on record
    place.writer.work(1)
    assert begun == [[2, 3]]
    assert place.keeping.stays(1, running=True)  # it certainly has not begun
    place.settle()
    assert begun == [[2, 3], [1]]
    assert not place.keeping.stays(1, running=True)


def test_what_is_struck_and_was_announced_begins_when_no_other_host_can(place: Place) -> None:
    place.add(1, once=True)
    place.add(2, once=True)
    place.add(3, id="a")
    place.settle()
    place.keeping.withdrawn(1)
    place.keeping.withdrawn(2)
    place.announce(1)  # it was on its way
    place.announce(2, 3)
    place.loop.turn()
    assert place.begun == []
    place.settle()
    assert place.begun == [(1,), (2, 3)]
    place.keeping.withdrawn(3)
    place.keeping.ended([3], State.CANCELLED)
    assert not place.keeping._starts._struck


def test_what_is_struck_does_not_begin_if_that_cannot_be_written(place: Place) -> None:
    place.add(1, once=True)
    place.settle()
    place.keeping.withdrawn(1)
    place.announce(1)
    place.commits.stop(StoreError("the thread has ended"))
    assert place.begun == []


def test_one_that_runs_again_is_announced_alone(place: Place) -> None:
    assert place.keeping.confirmed_again(1) == 0  # not durable
    place.add(1)
    assert place.keeping.runs_again(1, False)
    assert place.keeping.confirmed_again(1) == wire.ALONE


def test_the_word_for_a_process_that_has_died_is_not_that_for_the_next(place: Place) -> None:
    kept = place.add(1, once=True)
    place.announce(1)
    place.loop.turn()  # it is being written
    place.keeping.unbegun([1])
    place.keeping.proposed([1], lambda those: place.begun.append("next"))
    place.writer.work(1)
    assert place.begun == [(1,)]
    assert place.keeping.runs_again(1, False)  # it has not begun, so it is not lost
    place.settle()
    assert (kept.losses, kept.attempt) == (0, 1)


# ---- other times


def test_a_retry_counts_and_keeps_the_time_that_was_given(place: Place) -> None:
    kept = place.add(1, losses=2, suspect=True)
    place.announce(1)
    place.settle()
    place.keeping.retried({1: 900, 7: 5})
    row = place.row(kept)
    assert (row.due, row.given, row.attempt, row.failed) == (900, 500, 2, 1)
    assert (row.losses, row.begun) == (0, Begun.NO)
    assert not place.keeping.waits(1)
    place.keeping.announced([1])
    place.keeping.retried({1: 1900})
    row = place.row(kept)
    assert (row.due, row.given, row.attempt, row.failed) == (1900, 500, 3, 2)
    place.keeping.moved(1, 4000)
    row = place.row(kept)
    assert (row.due, row.given, row.attempt, row.failed) == (4000, None, 3, 2)


def test_in_a_queue_a_retry_has_no_time() -> None:
    place = Place(timed=False)
    kept = place.add(1, due=0)
    place.turn()
    place.keeping.announced([1])
    place.keeping.retried({1: 900})
    row = place.row(kept)
    assert (row.due, row.given, row.attempt, row.failed) == (0, None, 2, 1)


def test_a_task_that_loses_its_id_is_struck_unless_it_runs(place: Place) -> None:
    waits, runs = place.add(1, id="a"), place.add(2, id="b")
    place.settle()
    assert not place.keeping.dispossess(1, running=False)
    assert place.keeping.dispossess(2, running=True)
    place.add(3, id="a")
    place.add(4, id="b")
    rows = place.rows()
    assert sorted(row.id for row in rows.values() if row.id) == ["a", "b"]
    assert waits.row not in rows
    assert rows[runs.row].id is None
    assert 1 not in place.keeping.kept


def test_what_is_withdrawn_is_struck_at_once(place: Place) -> None:
    kept = place.add(1, suspect=True)
    place.announce(1)
    place.settle()
    place.keeping.withdrawn(1)
    assert place.rows() == {}
    assert not place.marks
    assert not place.keeping.stays(1, running=False)
    assert kept.row >= 0


def test_an_early_task_that_loses_its_id_is_withdrawn_even_if_it_runs(place: Place) -> None:
    """The file may have the same task, with the id."""
    kept = place.hurry(1, id="a")
    place.unknown = []
    place.announce(1)
    assert not place.keeping.dispossess(1, running=True)
    assert kept.row == WITHDRAWN
    (known,) = place.unknown
    known()
    place.settle()
    assert place.begun == [(1,)]  # confirmed, but without the task
    assert not place.keeping.stays(1, running=True)
    assert place.store.batches == []


def test_a_task_with_an_id_waits_until_its_holder_is_known(place: Place) -> None:
    kept = place.hurry(1, id="a")
    place.unknown = []
    place.announce(1)
    place.settle()
    assert place.begun == []
    place.know(kept)
    place.unknown.pop()()
    place.settle()
    assert place.begun == [(1,)]
    assert place.keeping.stays(1, running=True)


def test_what_turns_out_to_be_another_task_never_begins(place: Place) -> None:
    begun: list[list[int]] = []
    place.unknown = []
    for number in (1, 2):
        place.hurry(number, id=f"{number}")
    place.keeping.proposed([1, 2], begun.append)
    place.keeping.leave_out(1)
    place.know(place.keeping.kept[2])
    place.unknown.pop()()
    place.settle()
    assert begun == [[2]]
    assert list(place.keeping.kept) == [2]
    assert not place.keeping.waits(1)


# ---- where it is


def test_a_reference_is_that_of_its_row(place: Place) -> None:
    kept = place.add(1)
    expected = TaskRef("51", -1, -1, kept.row)
    assert place.keeping.ref(1) == expected
    assert place.keeping.ref(7, kept) == expected  # of an ended task
    assert place.keeping.ref(1, True) == expected  # of a task of a batch
    place.hurry(2)
    assert place.keeping.ref(2) is None


def test_an_ended_task_is_at_no_link_any_more(place: Place) -> None:
    kept = [place.add(number, suspect=number == 2) for number in range(5)]
    assert place.where.find(kept[0].row) == (0, 0)
    place.keeping.ended([0, 1], State.FINISHED, [None, None])
    place.keeping.ended([2], State.FAILED, [ValueError()])
    place.keeping.withdrawn(3)
    place.keeping.ended([4], State.KEPT)
    assert len(place.where) == 0


def test_what_is_given_a_time_behind_the_horizon_stays_in_memory(place: Place) -> None:
    place.where.horizon.reached = (1000, 0)
    retried, moved, ended = (place.add(number) for number in range(3))
    place.keeping.retried({0: 9000})
    place.keeping.moved(1, 9000)
    place.keeping.moved(2, 9000)
    assert place.where.horizon.ahead == {retried.row, moved.row, ended.row}
    place.keeping.ended([2], State.FINISHED, [None])
    assert place.where.horizon.ahead == {retried.row, moved.row}


# ---- ends


def test_an_end_strikes_and_a_failure_is_a_letter(place: Place) -> None:
    kept = [place.add(number) for number in range(8)]
    place.settle()
    ended = place.keeping.ended
    assert ended([0], State.FINISHED, [b"x"]) == set()
    assert ended([1], State.CANCELLED) == set()
    payload = make_failure("Traceback\nValueError: why\n", b"", [])
    assert ended([2, 9], State.FAILED, [payload, b""]) == {2}
    assert ended([3], State.FAILED, [ValueError("here")]) == {3}
    assert ended([4], State.FAILED, [KeyError()], wire.TOO_LATE) == {4}
    assert ended([5], State.FAILED, [KeyError()], wire.UNREADABLE) == {5}
    assert ended([6], State.FAILED, [KeyError()], wire.UNKNOWN) == {6}
    assert ended([7], State.LOST, [WorkerLost(0, -9, started=True)]) == set()
    dead = place.dead()
    assert [dead[each.row][0] for each in kept[2:]] == [
        Reason.FAILED,
        Reason.FAILED,
        Reason.TOO_LATE,
        Reason.UNREADABLE,
        Reason.UNKNOWN,
        Reason.LOST,
    ]
    assert dead[kept[2].row][2].endswith("ValueError: why\n")
    assert dead[kept[3].row][2].endswith("ValueError: here\n")
    assert dead[kept[7].row][2] == str(WorkerLost(0, -9, started=True))
    assert place.rows() == {}
    assert not place.keeping.kept


def test_a_cancellation_that_nobody_asked_for_is_a_letter(place: Place) -> None:
    kept = place.add(1, id="a")
    payload = make_failure("nobody\nTraceback\nCancelledError\n", b"", [])
    assert place.keeping.ended([1, 2], State.CANCELLED, [payload, b""], wire.UNASKED) == {1}
    assert place.dead()[kept.row] == (Reason.FAILED, 1, "nobody\nTraceback\nCancelledError\n")
    assert place.rows() == {}


def test_nothing_is_noted_of_a_running_task_that_was_asked_to_end(place: Place) -> None:
    for number in range(4):
        place.add(number, suspect=number == 1)
    place.keeping.announced([0, 2, 3])
    place.announce(1)
    place.tick()
    for number in range(4):
        place.keeping.withdrawn(number)
    assert place.rows() == {}
    place.keeping.retried({0: 900})
    assert not place.keeping.ended([1], State.FAILED, [ValueError()])
    assert not place.keeping.ended([2], State.FINISHED, [None])
    assert not place.keeping.stays(3, running=True)
    place.settle()
    assert (place.rows(), place.dead()) == ({}, {})
    assert not place.marks


def test_before_the_file_is_open_nothing_is_noted_but_what_was_withdrawn(place: Place) -> None:
    early = [Kept.of(Row(-1, 5, 0, b"")) for _ in range(5)]
    place.keeping.kept.update(enumerate(early))
    assert not place.keeping.stays(0, running=False)
    place.keeping.moved(0, 77)
    assert early[0].due == 77
    place.keeping.withdrawn(1)
    place.keeping.ended([2], State.CANCELLED)
    place.keeping.ended([3], State.LOST, [ValueError()])
    place.keeping.dispossess(4, running=False)
    assert [kept.row for kept in early] == [-1, WITHDRAWN, WITHDRAWN, -1, WITHDRAWN]
    assert list(place.keeping.kept) == [0]
    place.settle()
    assert place.store.batches == []


def test_what_stays_is_known_by_its_id_and_has_had_the_attempt_that_is_on_record(
    place: Place,
) -> None:
    waits, runs, marked = place.add(1, id="a"), place.add(2), place.add(3)
    unconfirmed = place.add(4, once=True)
    place.settle()
    place.keeping.announced([2, 3])
    marked.begun = Begun.YES
    place.group.change(marked)
    place.announce(4)
    place.loop.turn()
    numbers = [1, 2, 3, 4]
    assert all(place.keeping.stays(number, running=number > 1) for number in numbers)
    place.keeping.ended(numbers, State.KEPT)
    rows = place.rows()
    assert [rows[kept.row].attempt for kept in (waits, runs, marked, unconfirmed)] == [1, 1, 2, 1]
    assert {row.begun for row in rows.values()} == {Begun.NO}
    assert place.left == {"a": waits}
    assert not place.keeping.kept


def test_a_running_once_only_task_does_not_stay(place: Place) -> None:
    place.add(1, once=True)
    place.add(2, once=True)
    assert place.keeping.stays(1, running=False)
    place.announce(1)
    assert place.keeping.stays(1, running=True)  # it has not begun
    place.settle()
    assert not place.keeping.stays(1, running=True)
    place.keeping.unbegun([1])
    assert place.keeping.stays(1, running=False)


def test_what_never_came_to_the_disk_does_not_stay(place: Place) -> None:
    place.add(1)
    place.settle()
    place.add(2)
    assert place.keeping.stays(2, running=False)  # it may yet be written
    place.commits.stop(GONE)
    assert place.keeping.stays(1, running=False)
    assert not place.keeping.stays(2, running=False)


# ---- deaths


def lose(place: Place, numbers: Iterable[int]) -> list[int]:
    """Let a process die with tasks; return those that run again."""
    return [number for number in numbers if place.keeping.runs_again(number, False)]


def test_what_was_lost_runs_again_as_a_suspect_and_three_times_at_most(place: Place) -> None:
    kept = place.add(1)
    place.settle()
    place.keeping.announced([1])
    for losses in range(1, MOST_LOSSES):
        assert lose(place, [1]) == [1]
        row = place.row(kept)
        assert (row.losses, row.attempt, row.begun) == (losses, losses + 1, Begun.NO)
        assert place.keeping.waits(1)
        place.announce(1)
        place.settle()
        assert place.row(kept).begun is Begun.YES
    assert lose(place, [1]) == []
    place.keeping.ended([1], State.LOST, [WorkerLost(0, -9, started=True)])
    assert place.dead()[kept.row][:2] == (Reason.LOST, MOST_LOSSES)
    assert place.rows() == {}


def test_a_retry_between_two_deaths_resets_the_count(place: Place) -> None:
    kept = place.add(1)
    for _ in range(5):
        place.keeping.announced([1])
        assert lose(place, [1]) == [1]
        place.keeping.retried({1: 900})
        assert place.row(kept).losses == 0


def test_a_once_only_task_is_lost_with_its_first_process(place: Place) -> None:
    kept = place.add(1, once=True)
    place.announce(1)
    place.settle()
    assert lose(place, [1]) == []
    place.keeping.ended([1], State.LOST, [WorkerLost(0, -9, started=True)])
    assert place.dead()[kept.row][:2] == (Reason.LOST, 1)


async def test_a_handle_waits_for_what_is_kept_or_for_everything(place: Place) -> None:
    kept = place.add(1)
    await place.keeping.stored(1, kept)
    await place.keeping.stored(1, True)
    await place.keeping.stored(7, True)  # it has ended
    assert place.asked == [kept, kept, None]


def test_what_the_file_has_refused_does_not_stay(place: Place) -> None:
    refused, stored = place.add(1), place.add(2)
    place.store.refused = {refused.row}
    place.settle()
    assert [place.keeping.stays(number, running=False) for number in (1, 2)] == [False, True]
    assert list(place.rows()) == [stored.row]
