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


class Rig(stores.Rig):
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
def rig() -> Rig:
    return Rig()


def test_what_is_not_durable_is_passed_over(rig: Rig) -> None:
    for keeping in rig.keepings:
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
        rig.add(1, worker=rig.keepings.index(keeping))
        assert keeping.ended([7, 8], State.FAILED, [b"", b""]) == set()
        keeping.proposed([7, 8], lambda those: rig.begun.append("plain"))
    assert rig.begun == ["plain"] * 2  # nothing waits for the store
    assert len(rig.rows()) == 2
    assert not rig.dead()


def test_all_that_ran_may_be_durable(rig: Rig) -> None:
    rig.add(1)
    rig.add(2)
    assert rig.keeping.all_durable([1, 2])
    assert rig.keeping.all_durable(iter([1]))
    assert not rig.keeping.all_durable([1, 3])
    assert not rig.keeping.all_durable([])


# ---- starts


def test_what_outlives_a_commit_is_marked_and_nothing_else(rig: Rig) -> None:
    kept = [rig.add(number) for number in range(3)]
    rig.turn()
    rig.keeping.announced([0, 1, 2])
    rig.keeping.ended([0], State.FINISHED, [None])
    rig.turn()  # the strike of 0: the others have begun since the last batch
    assert [row.begun for row in rig.store.rows()] == [Begun.NO, Begun.NO]
    rig.keeping.ended([1], State.FINISHED, [None])
    rig.turn()
    (row,) = rig.store.rows()
    assert (row.row, row.begun) == (kept[2].row, Begun.YES)
    assert not rig.marks
    written = len(rig.store.batches)
    rig.settle()
    assert len(rig.store.batches) == written


def test_a_mark_is_not_made_of_what_has_not_begun_after_all(rig: Rig) -> None:
    kept = [rig.add(number) for number in range(2)]
    rig.turn()
    rig.keeping.announced([0, 1])
    assert len(rig.marks) == 2
    rig.tick()
    rig.keeping.unbegun([0])
    rig.keeping.retried({1: 900})
    rig.marks.forget(kept[0])  # any number of times
    assert not rig.marks
    rig.tick()
    assert {row.begun for row in rig.rows().values()} == {Begun.NO}


def test_a_mark_is_taken_back_if_it_has_not_begun(rig: Rig) -> None:
    kept = rig.add(1)
    rig.turn()
    rig.keeping.announced([1])
    for _ in range(2):
        rig.tick()
    assert rig.row(kept).begun is Begun.YES
    rig.keeping.unbegun([1])
    assert rig.row(kept).begun is Begun.NO


@pytest.mark.parametrize("fields", [{"id": "a"}, {"once": True}, {"suspect": True}])
def test_a_task_that_waits_for_the_store_begins_once_on_record(rig: Rig, fields: Any) -> None:
    kept = rig.add(1, **fields)
    rig.add(2)
    assert rig.keeping.waits(1)
    assert not rig.keeping.waits(2)
    rig.announce(1)
    assert not rig.begun
    rig.loop.turn()
    assert not rig.begun
    rig.writer.work()
    assert rig.begun == [(1,)]
    expected = Begun.ONCE if "once" in fields else Begun.YES if "suspect" in fields else Begun.NO
    assert rig.store.rows()[0].begun is expected
    rig.keeping.ended([1], State.FINISHED, [None])
    assert kept.row not in rig.rows()


def test_a_waiting_task_has_not_begun_however_long_it_waits(rig: Rig) -> None:
    """If the host dies meanwhile, the next must not take it for begun."""
    first = rig.add(1, suspect=True, losses=2)
    second = rig.add(2, suspect=True, losses=2)
    third = rig.add(3, id="c")
    rig.turn()
    rig.announce(1)
    rig.announce(2)
    rig.keeping.announced([2, 3])  # confirmed tasks are announced, too
    for _ in range(4):
        rig.tick()
    rows = rig.rows()
    assert (rows[first.row].begun, rows[second.row].begun) == (Begun.YES, Begun.NO)
    assert rows[third.row].begun is Begun.NO
    assert rig.begun == [(1,)]
    rig.keeping.ended([1], State.FINISHED, [None])
    assert rig.row(second).begun is Begun.YES
    assert rig.begun == [(1,), (2,)]


def test_a_task_that_waited_and_runs_on_is_marked_like_any_other(rig: Rig) -> None:
    kept = rig.add(1, id="a")
    rig.announce(1)
    rig.settle()
    assert rig.begun == [(1,)]
    for _ in range(2):
        rig.tick()
    assert rig.row(kept).begun is Begun.YES


def test_nothing_begins_that_never_will_be_on_record(rig: Rig) -> None:
    rig.add(1, id="a")
    rig.add(2, once=True)
    rig.announce(1)
    rig.announce(2)
    rig.store.fails = GONE
    rig.settle()
    assert rig.failures
    rig.add(3, id="c")
    rig.announce(3)
    rig.announce(9)  # not durable
    assert rig.begun == [(9,)]


def test_what_is_on_disk_needs_no_store_to_begin(rig: Rig) -> None:
    rig.add(1, id="a")
    rig.settle()
    rig.commits.stop(StoreError("over"))
    rig.announce(1)
    assert rig.begun == [(1,)]


def test_suspects_begin_in_lots_and_those_whose_next_loss_is_the_last_alone(rig: Rig) -> None:
    for number in range(3):
        rig.add(number, suspect=True)
    rig.add(3, suspect=True, losses=2)
    rig.add(4, worker=1, suspect=True, losses=2)
    rig.announce(0, 1)
    rig.announce(2)
    rig.announce(3)
    rig.announce(4, worker=1)
    rig.settle()
    assert rig.begun == [(0, 1), (2,)]
    rig.keeping.ended([0, 1], State.FINISHED, [None] * 2)
    rig.keeping.ended([2], State.FAILED, [ValueError()])
    rig.settle()
    assert rig.begun[2:] == [(3,)]
    rig.now += QUARANTINE_ALONE
    rig.suspects.look_after(rig.now)
    rig.settle()
    assert rig.begun[3:] == [(4,)]  # of another worker, but it waits for its turn, too


def test_a_turn_that_comes_too_late_puts_nothing_on_record(rig: Rig) -> None:
    rig.add(1, suspect=True, losses=2)
    later = [rig.add(n, suspect=True, losses=2) for n in (2, 3, 4)]
    rig.announce(1)
    for number in (2, 3, 4):
        rig.announce(number)
    rig.settle()
    rig.keeping.withdrawn(2)
    rig.keeping.unbegun([3])  # its process has died, or drains
    rig.keeping.moved(4, 7000)
    rig.keeping.ended([1], State.FINISHED, [None])
    rows = rig.rows()
    assert later[0].row not in rows
    assert [rows[kept.row].begun for kept in later[1:]] == [Begun.NO] * 2
    rig.announce(3)  # by the next process
    assert rig.row(later[1]).begun is Begun.YES
    assert rig.begun.count((3,)) == 2  # the first one has no effect


def test_the_word_is_for_those_that_are_still_to_begin(rig: Rig) -> None:
    begun: list[list[int]] = []
    for number in range(4):
        rig.add(number, once=True)
    rig.keeping.proposed([0, 1, 2, 3], begun.append)
    rig.loop.turn()  # it is being written
    rig.keeping.withdrawn(0)
    rig.keeping.moved(1, 7000)
    rig.keeping.proposed([1], begun.append)  # due again before it is on record
    rig.writer.work(1)
    assert begun == [[2, 3]]
    assert rig.keeping.stays(1, running=True)  # it certainly has not begun
    rig.settle()
    assert begun == [[2, 3], [1]]
    assert not rig.keeping.stays(1, running=True)


def test_what_is_struck_and_was_announced_begins_when_no_other_host_can(rig: Rig) -> None:
    rig.add(1, once=True)
    rig.add(2, once=True)
    rig.add(3, id="a")
    rig.settle()
    rig.keeping.withdrawn(1)
    rig.keeping.withdrawn(2)
    rig.announce(1)  # it was on its way
    rig.announce(2, 3)
    rig.loop.turn()
    assert rig.begun == []
    rig.settle()
    assert rig.begun == [(1,), (2, 3)]
    rig.keeping.withdrawn(3)
    rig.keeping.ended([3], State.CANCELLED)
    assert not rig.keeping._starts._struck


def test_what_is_struck_does_not_begin_if_that_cannot_be_written(rig: Rig) -> None:
    rig.add(1, once=True)
    rig.settle()
    rig.keeping.withdrawn(1)
    rig.announce(1)
    rig.commits.stop(StoreError("the thread has ended"))
    assert rig.begun == []


def test_one_that_runs_again_is_announced_alone(rig: Rig) -> None:
    assert rig.keeping.confirmed_again(1) == 0  # not durable
    rig.add(1)
    assert rig.keeping.runs_again(1, False)
    assert rig.keeping.confirmed_again(1) == wire.ALONE


def test_the_word_for_a_process_that_has_died_is_not_that_for_the_next(rig: Rig) -> None:
    kept = rig.add(1, once=True)
    rig.announce(1)
    rig.loop.turn()  # it is being written
    rig.keeping.unbegun([1])
    rig.keeping.proposed([1], lambda those: rig.begun.append("next"))
    rig.writer.work(1)
    assert rig.begun == [(1,)]
    assert rig.keeping.runs_again(1, False)  # it has not begun, so it is not lost
    rig.settle()
    assert (kept.losses, kept.attempt) == (0, 1)


# ---- other times


def test_a_retry_counts_and_keeps_the_time_that_was_given(rig: Rig) -> None:
    kept = rig.add(1, losses=2, suspect=True)
    rig.announce(1)
    rig.settle()
    rig.keeping.retried({1: 900, 7: 5})
    row = rig.row(kept)
    assert (row.due, row.given, row.attempt, row.failed) == (900, 500, 2, 1)
    assert (row.losses, row.begun) == (0, Begun.NO)
    assert not rig.keeping.waits(1)
    rig.keeping.announced([1])
    rig.keeping.retried({1: 1900})
    row = rig.row(kept)
    assert (row.due, row.given, row.attempt, row.failed) == (1900, 500, 3, 2)
    rig.keeping.moved(1, 4000)
    row = rig.row(kept)
    assert (row.due, row.given, row.attempt, row.failed) == (4000, None, 3, 2)


def test_in_a_queue_a_retry_has_no_time() -> None:
    rig = Rig(timed=False)
    kept = rig.add(1, due=0)
    rig.turn()
    rig.keeping.announced([1])
    rig.keeping.retried({1: 900})
    row = rig.row(kept)
    assert (row.due, row.given, row.attempt, row.failed) == (0, None, 2, 1)


def test_a_task_that_loses_its_id_is_struck_unless_it_runs(rig: Rig) -> None:
    waits, runs = rig.add(1, id="a"), rig.add(2, id="b")
    rig.settle()
    assert not rig.keeping.dispossess(1, running=False)
    assert rig.keeping.dispossess(2, running=True)
    rig.add(3, id="a")
    rig.add(4, id="b")
    rows = rig.rows()
    assert sorted(row.id for row in rows.values() if row.id) == ["a", "b"]
    assert waits.row not in rows
    assert rows[runs.row].id is None
    assert 1 not in rig.keeping.kept


def test_what_is_withdrawn_is_struck_at_once(rig: Rig) -> None:
    kept = rig.add(1, suspect=True)
    rig.announce(1)
    rig.settle()
    rig.keeping.withdrawn(1)
    assert rig.rows() == {}
    assert not rig.marks
    assert not rig.keeping.stays(1, running=False)
    assert kept.row >= 0


def test_an_early_task_that_loses_its_id_is_withdrawn_even_if_it_runs(rig: Rig) -> None:
    """The file may have the same task, with the id."""
    kept = rig.hurry(1, id="a")
    rig.unknown = []
    rig.announce(1)
    assert not rig.keeping.dispossess(1, running=True)
    assert kept.row == WITHDRAWN
    (known,) = rig.unknown
    known()
    rig.settle()
    assert rig.begun == [(1,)]  # confirmed, but without the task
    assert not rig.keeping.stays(1, running=True)
    assert rig.store.batches == []


def test_a_task_with_an_id_waits_until_its_holder_is_known(rig: Rig) -> None:
    kept = rig.hurry(1, id="a")
    rig.unknown = []
    rig.announce(1)
    rig.settle()
    assert rig.begun == []
    rig.know(kept)
    rig.unknown.pop()()
    rig.settle()
    assert rig.begun == [(1,)]
    assert rig.keeping.stays(1, running=True)


def test_what_turns_out_to_be_another_task_never_begins(rig: Rig) -> None:
    begun: list[list[int]] = []
    rig.unknown = []
    for number in (1, 2):
        rig.hurry(number, id=f"{number}")
    rig.keeping.proposed([1, 2], begun.append)
    rig.keeping.leave_out(1)
    rig.know(rig.keeping.kept[2])
    rig.unknown.pop()()
    rig.settle()
    assert begun == [[2]]
    assert list(rig.keeping.kept) == [2]
    assert not rig.keeping.waits(1)


# ---- where it is


def test_a_reference_is_that_of_its_row(rig: Rig) -> None:
    kept = rig.add(1)
    expected = TaskRef("51", -1, -1, kept.row)
    assert rig.keeping.ref(1) == expected
    assert rig.keeping.ref(7, kept) == expected  # of an ended task
    assert rig.keeping.ref(1, True) == expected  # of a task of a batch
    rig.hurry(2)
    assert rig.keeping.ref(2) is None


def test_an_ended_task_is_at_no_link_any_more(rig: Rig) -> None:
    kept = [rig.add(number, suspect=number == 2) for number in range(5)]
    assert rig.where.find(kept[0].row) == (0, 0)
    rig.keeping.ended([0, 1], State.FINISHED, [None, None])
    rig.keeping.ended([2], State.FAILED, [ValueError()])
    rig.keeping.withdrawn(3)
    rig.keeping.ended([4], State.KEPT)
    assert len(rig.where) == 0


def test_what_is_given_a_time_behind_the_horizon_stays_in_memory(rig: Rig) -> None:
    rig.where.horizon.reached = (1000, 0)
    retried, moved, ended = (rig.add(number) for number in range(3))
    rig.keeping.retried({0: 9000})
    rig.keeping.moved(1, 9000)
    rig.keeping.moved(2, 9000)
    assert rig.where.horizon.ahead == {retried.row, moved.row, ended.row}
    rig.keeping.ended([2], State.FINISHED, [None])
    assert rig.where.horizon.ahead == {retried.row, moved.row}


# ---- ends


def test_an_end_strikes_and_a_failure_is_a_letter(rig: Rig) -> None:
    kept = [rig.add(number) for number in range(8)]
    rig.settle()
    ended = rig.keeping.ended
    assert ended([0], State.FINISHED, [b"x"]) == set()
    assert ended([1], State.CANCELLED) == set()
    payload = make_failure("Traceback\nValueError: why\n", b"", [])
    assert ended([2, 9], State.FAILED, [payload, b""]) == {2}
    assert ended([3], State.FAILED, [ValueError("here")]) == {3}
    assert ended([4], State.FAILED, [KeyError()], wire.TOO_LATE) == {4}
    assert ended([5], State.FAILED, [KeyError()], wire.UNREADABLE) == {5}
    assert ended([6], State.FAILED, [KeyError()], wire.UNKNOWN) == {6}
    assert ended([7], State.LOST, [WorkerLost(0, -9, started=True)]) == set()
    dead = rig.dead()
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
    assert rig.rows() == {}
    assert not rig.keeping.kept


def test_a_cancellation_that_nobody_asked_for_is_a_letter(rig: Rig) -> None:
    kept = rig.add(1, id="a")
    payload = make_failure("nobody\nTraceback\nCancelledError\n", b"", [])
    assert rig.keeping.ended([1, 2], State.CANCELLED, [payload, b""], wire.UNASKED) == {1}
    assert rig.dead()[kept.row] == (Reason.FAILED, 1, "nobody\nTraceback\nCancelledError\n")
    assert rig.rows() == {}


def test_nothing_is_noted_of_a_running_task_that_was_asked_to_end(rig: Rig) -> None:
    for number in range(4):
        rig.add(number, suspect=number == 1)
    rig.keeping.announced([0, 2, 3])
    rig.announce(1)
    rig.tick()
    for number in range(4):
        rig.keeping.withdrawn(number)
    assert rig.rows() == {}
    rig.keeping.retried({0: 900})
    assert not rig.keeping.ended([1], State.FAILED, [ValueError()])
    assert not rig.keeping.ended([2], State.FINISHED, [None])
    assert not rig.keeping.stays(3, running=True)
    rig.settle()
    assert (rig.rows(), rig.dead()) == ({}, {})
    assert not rig.marks


def test_before_the_file_is_open_nothing_is_noted_but_what_was_withdrawn(rig: Rig) -> None:
    early = [Kept.of(Row(-1, 5, 0, b"")) for _ in range(5)]
    rig.keeping.kept.update(enumerate(early))
    assert not rig.keeping.stays(0, running=False)
    rig.keeping.moved(0, 77)
    assert early[0].due == 77
    rig.keeping.withdrawn(1)
    rig.keeping.ended([2], State.CANCELLED)
    rig.keeping.ended([3], State.LOST, [ValueError()])
    rig.keeping.dispossess(4, running=False)
    assert [kept.row for kept in early] == [-1, WITHDRAWN, WITHDRAWN, -1, WITHDRAWN]
    assert list(rig.keeping.kept) == [0]
    rig.settle()
    assert rig.store.batches == []


def test_what_stays_is_known_by_its_id_and_has_had_the_attempt_that_is_on_record(
    rig: Rig,
) -> None:
    waits, runs, marked = rig.add(1, id="a"), rig.add(2), rig.add(3)
    unconfirmed = rig.add(4, once=True)
    rig.settle()
    rig.keeping.announced([2, 3])
    marked.begun = Begun.YES
    rig.group.change(marked)
    rig.announce(4)
    rig.loop.turn()
    numbers = [1, 2, 3, 4]
    assert all(rig.keeping.stays(number, running=number > 1) for number in numbers)
    rig.keeping.ended(numbers, State.KEPT)
    rows = rig.rows()
    assert [rows[kept.row].attempt for kept in (waits, runs, marked, unconfirmed)] == [1, 1, 2, 1]
    assert {row.begun for row in rows.values()} == {Begun.NO}
    assert rig.left == {"a": waits}
    assert not rig.keeping.kept


def test_a_running_once_only_task_does_not_stay(rig: Rig) -> None:
    rig.add(1, once=True)
    rig.add(2, once=True)
    assert rig.keeping.stays(1, running=False)
    rig.announce(1)
    assert rig.keeping.stays(1, running=True)  # it has not begun
    rig.settle()
    assert not rig.keeping.stays(1, running=True)
    rig.keeping.unbegun([1])
    assert rig.keeping.stays(1, running=False)


def test_what_never_came_to_the_disk_does_not_stay(rig: Rig) -> None:
    rig.add(1)
    rig.settle()
    rig.add(2)
    assert rig.keeping.stays(2, running=False)  # it may yet be written
    rig.commits.stop(GONE)
    assert rig.keeping.stays(1, running=False)
    assert not rig.keeping.stays(2, running=False)


# ---- deaths


def lose(rig: Rig, numbers: Iterable[int]) -> list[int]:
    """Let a process die with tasks; return those that run again."""
    return [number for number in numbers if rig.keeping.runs_again(number, False)]


def test_what_was_lost_runs_again_as_a_suspect_and_three_times_at_most(rig: Rig) -> None:
    kept = rig.add(1)
    rig.settle()
    rig.keeping.announced([1])
    for losses in range(1, MOST_LOSSES):
        assert lose(rig, [1]) == [1]
        row = rig.row(kept)
        assert (row.losses, row.attempt, row.begun) == (losses, losses + 1, Begun.NO)
        assert rig.keeping.waits(1)
        rig.announce(1)
        rig.settle()
        assert rig.row(kept).begun is Begun.YES
    assert lose(rig, [1]) == []
    rig.keeping.ended([1], State.LOST, [WorkerLost(0, -9, started=True)])
    assert rig.dead()[kept.row][:2] == (Reason.LOST, MOST_LOSSES)
    assert rig.rows() == {}


def test_a_retry_between_two_deaths_resets_the_count(rig: Rig) -> None:
    kept = rig.add(1)
    for _ in range(5):
        rig.keeping.announced([1])
        assert lose(rig, [1]) == [1]
        rig.keeping.retried({1: 900})
        assert rig.row(kept).losses == 0


def test_a_once_only_task_is_lost_with_its_first_process(rig: Rig) -> None:
    kept = rig.add(1, once=True)
    rig.announce(1)
    rig.settle()
    assert lose(rig, [1]) == []
    rig.keeping.ended([1], State.LOST, [WorkerLost(0, -9, started=True)])
    assert rig.dead()[kept.row][:2] == (Reason.LOST, 1)


async def test_a_handle_waits_for_what_is_kept_or_for_everything(rig: Rig) -> None:
    kept = rig.add(1)
    await rig.keeping.stored(1, kept)
    await rig.keeping.stored(1, True)
    await rig.keeping.stored(7, True)  # it has ended
    assert rig.asked == [kept, kept, None]


def test_what_the_file_has_refused_does_not_stay(rig: Rig) -> None:
    refused, stored = rig.add(1), rig.add(2)
    rig.store.refused = {refused.row}
    rig.settle()
    assert [rig.keeping.stays(number, running=False) for number in (1, 2)] == [False, True]
    assert list(rig.rows()) == [stored.row]
