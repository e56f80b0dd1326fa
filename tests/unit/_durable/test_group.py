"""Batches against a model of the file, in any order of changes, commits and crashes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import read_all

from aioscheduler._durable.group import MOST_CHANGES, Group, Kept
from aioscheduler._durable.records import (
    BUCKET_SHIFT,
    Batch,
    Begun,
    Burial,
    Function,
    Reason,
    Row,
    Update,
)
from aioscheduler._durable.repeatrecords import RepeatEnd, RepeatProgress, RepeatRow
from aioscheduler._durable.sqlite import SQLiteStore

HOUR = 3600 * 10**9


def make(group: Group, due: int = 0, **fields: Any) -> tuple[Kept, Row]:
    row = Row(group.new_row(), due, 1, b"payload", **fields)
    kept = Kept.of(row)
    group.put(kept, row)
    return kept, row


def take(group: Group, most_bytes: int = 1 << 20) -> Batch:
    taken = group.take(most_bytes)
    assert taken is not None
    return taken[0]


def rows_of(batch: Batch) -> list[int]:
    return [row.row for row in batch.puts]


# ---- one thing after the other


def test_nothing_to_write_is_no_batch() -> None:
    assert Group(0).take() is None


def test_new_tasks_are_put_and_ended_ones_struck() -> None:
    group = Group(7)
    kept, row = make(group, due=5 * HOUR)
    assert (kept.row, kept.stamp, group.stamp, group.unsaved) == (7, 1, 1, 1)
    assert group.take() == (Batch([], [], [], [row], [], [], [], [], 8), 1)
    assert (group.take(), group.unsaved, group.unsaved_bytes) == (None, 0, 0)
    group.strike(kept)
    assert group.take() == (Batch([], [(row.bucket, 7)], [], [], [], [], [], [], 8), 2)


def test_many_are_put_as_one_after_the_other() -> None:
    one, many = Group(0), Group(0)
    alike = Row(-1, 0, 1, b"", "key", None, b"options")
    payloads = [b"x" * n for n in range(3)]
    kept = many.put_many(alike, [n * HOUR for n in range(3)], payloads)
    rows = [alike._replace(row=n, due=n * HOUR, payload=b"x" * n) for n in range(3)]
    for row in rows:
        one.put(Kept.of(row), row)
    assert [(each.row, each.due) for each in kept] == [(row.row, row.due) for row in rows]
    assert many.next_row == 3
    assert [each.stamp for each in kept] == [1, 2, 3]
    assert (many.stamp, many.unsaved, many.unsaved_bytes) == (3, 3, one.unsaved_bytes)
    many.strike(kept[1])
    assert take(many).puts == [rows[0], rows[2]]
    assert (many.unsaved, many.unsaved_bytes) == (0, 0)
    many.strike(kept[2])
    assert take(many).strikes == [(rows[2].bucket, 2)]


def test_tasks_that_came_and_went_are_not_written() -> None:
    group = Group(0)
    kept, _ = make(group, id="one", key="key", options=b"options")
    kept.attempt = 2
    group.change(kept)
    group.strike(kept)
    assert (group.take(), group.unsaved, group.unsaved_bytes) == (None, 0, 0)
    assert group.stamp == 3  # and its stamp counts as written for any waiter


def test_a_task_handed_out_is_struck_in_the_next_batch() -> None:
    group = Group(0)
    kept, row = make(group)
    take(group)
    group.strike(kept)
    _, other = make(group)
    assert take(group) == Batch([], [(row.bucket, 0)], [], [other], [], [], [], [], 2)


def test_a_change_is_written_once_as_it_was_last() -> None:
    group = Group(0)
    kept = Kept.of(Row(3, 5 * HOUR, 1, b""))
    before = kept.bucket
    kept.begun = Begun.YES
    group.change(kept)
    kept.begun, kept.due, kept.attempt = Begun.NO, 9 * HOUR, 2
    kept.failed, kept.losses, kept.given = 3, 4, 5 * HOUR
    group.change(kept)
    update = Update(before, 3, 9 * HOUR, Begun.NO, 2, 3, 4, 5 * HOUR, None)
    assert take(group) == Batch([], [], [update], [], [], [], [], [], 0)
    assert kept.bucket == 9 * HOUR >> BUCKET_SHIFT != before
    kept.attempt = 3
    group.change(kept)
    assert take(group).updates[0][:2] == (kept.bucket, 3)
    group.strike(kept)
    assert take(group).strikes == [(kept.bucket, 3)]


def test_a_change_of_a_new_task_is_part_of_its_put() -> None:
    group = Group(0)
    kept, row = make(group, due=5 * HOUR)
    kept.due, kept.attempt, kept.failed, kept.losses = 9 * HOUR, 2, 1, 1
    kept.given, kept.begun = 5 * HOUR, Begun.ONCE
    group.change(kept)
    put = row._replace(
        due=9 * HOUR, attempt=2, failed=1, losses=1, given=5 * HOUR, begun=Begun.ONCE
    )
    assert take(group) == Batch([], [], [], [put], [], [], [], [], 1)
    group.strike(kept)
    assert take(group).strikes == [(put.bucket, 0)]


def test_a_change_of_an_ended_task_is_not_written() -> None:
    group = Group(0)
    kept = Kept.of(Row(3, 5 * HOUR, 1, b""))
    bucket, kept.due = kept.bucket, 9 * HOUR
    group.change(kept)
    group.strike(kept)
    assert take(group) == Batch([], [(bucket, 3)], [], [], [], [], [], [], 0)
    assert group.unsaved_bytes == 0


def test_a_new_task_that_failed_is_put_and_buried() -> None:
    group = Group(0)
    kept, row = make(group, due=5 * HOUR)
    kept.attempt = 2
    group.change(kept)
    group.bury(kept, Reason.FAILED, "Traceback", 77)
    burial = Burial(row.bucket, 0, 2, Reason.FAILED, "Traceback", 77)
    assert take(group) == Batch([], [], [], [row._replace(attempt=2)], [burial], [], [], [], 1)
    assert group.unsaved_bytes == 0


def test_a_moved_task_is_buried_in_its_new_bucket() -> None:
    group = Group(0)
    kept = Kept.of(Row(3, 5 * HOUR, 1, b""))
    kept.due = 9 * HOUR
    group.change(kept)
    group.bury(kept, Reason.TOO_LATE, "", 77)
    batch = take(group)
    assert [len(batch.updates), batch.burials[0].bucket] == [1, 9 * HOUR >> BUCKET_SHIFT]


def test_letters_and_functions() -> None:
    group = Group(0)
    group.define(Function(0, "old", "m:f", False))
    group.define(Function(1, "other", "m:g", False))
    group.define(Function(0, "old", "m:new", True))
    for row in (5, 0, 5):
        group.discard_letter(row)
    assert group.unsaved == 4
    functions = [Function(0, "old", "m:new", True), Function(1, "other", "m:g", False)]
    assert take(group) == Batch(functions, [], [], [], [], [5, 0], [], [], 0)
    assert group.unsaved_bytes == 0


def test_a_requeued_task_is_in_one_batch_with_the_end_of_its_letter() -> None:
    group = Group(0)
    make(group)
    with group.whole():
        kept, row = make(group)
        group.discard_letter(5, kept.row)
    assert rows_of(take(group, 0)) == [0]
    assert take(group, 0) == Batch([], [], [], [row], [], [], [(5, 1)], [], 2)
    assert (group.unsaved, group.unsaved_bytes) == (0, 0)


# ---- ids


def test_an_id_that_was_given_up_is_given_again_in_the_same_batch() -> None:
    group = Group(0)
    first, _ = make(group, id="one")
    take(group)
    group.strike(first)
    _, second = make(group, id="one")
    assert take(group) == Batch([], [(0, 0)], [], [second], [], [], [], [], 2)


def test_an_id_that_was_given_up_stays_given_up_when_its_task_has_ended() -> None:
    """The end comes behind the task that has the id now, perhaps a batch later."""
    group = Group(0)
    first, row = make(group, id="one", due=5 * HOUR)
    take(group)
    first.id, first.due = None, 9 * HOUR
    group.change(first)
    make(group, id="one")
    group.strike(first)
    batch = take(group, 200)
    assert [batch.updates[0].id, batch.puts[0].id, batch.strikes] == [None, "one", []]
    assert take(group).strikes == [(9 * HOUR >> BUCKET_SHIFT, 0)]


@pytest.mark.parametrize("handed_out", [False, True])
def test_the_id_of_a_dead_letter_is_given_again_in_the_next_batch(handed_out: bool) -> None:
    group = Group(0)
    first, row = make(group, id="one")
    make(group)  # without one
    if handed_out:
        take(group)
    group.bury(first, Reason.FAILED, "", 1)
    nameless, _ = make(group)
    group.bury(nameless, Reason.FAILED, "", 1)
    make(group)
    _, second = make(group, id="one")
    _, third = make(group)
    batch, stamp = group.take() or (Batch(), 0)
    assert [burial.row for burial in batch.burials] == [0, 2]
    assert rows_of(batch)[-1] == 3
    assert stamp == group.stamp - 2
    assert group.take() == (Batch([], [], [], [second, third], [], [], [], [], 6), group.stamp)


# ---- parts


def test_a_batch_is_a_prefix_of_the_changes() -> None:
    group = Group(0)
    for _ in range(5):
        make(group)
    size = group.unsaved_bytes // 5
    assert rows_of(take(group, 2 * size)) == [0, 1]
    assert (group.unsaved, group.unsaved_bytes) == (3, 3 * size)
    assert rows_of(take(group, 2 * size - 1)) == [2]
    assert rows_of(take(group, 0)) == [3]
    assert group.take(0) == (Batch([], [], [], [Row(4, 0, 1, b"payload")], [], [], [], [], 5), 5)


def test_a_part_says_how_far_it_goes() -> None:
    group = Group(0)
    first, _ = make(group)
    second, _ = make(group)
    third, _ = make(group)
    group.strike(second)
    stamps = []
    while (taken := group.take(0)) is not None:
        stamps.append(taken[1])
    assert stamps == [third.stamp - 1, group.stamp]
    assert first.stamp <= stamps[0]


def test_a_part_is_not_so_many_changes_that_the_loop_is_held_up() -> None:
    group = Group(0)
    alike = Row(-1, 0, 1, b"")
    count = 2 * MOST_CHANGES + 5
    group.put_many(alike, 0, [b""] * count)
    parts = []
    while (taken := group.take()) is not None:
        parts.append(taken)
    assert [len(batch.puts) for batch, _ in parts] == [MOST_CHANGES, MOST_CHANGES, 5]
    assert [stamp for _, stamp in parts] == [MOST_CHANGES, 2 * MOST_CHANGES, count]
    assert [row for batch, _ in parts for row in rows_of(batch)] == list(range(count))
    with group.whole():
        group.put_many(alike, 0, [b""] * count)
    assert len(take(group, 1 << 30).puts) == count  # what belongs together is not parted


def test_long_texts_count() -> None:
    for fields in ({"id": "x" * 999}, {"key": "x" * 999}, {"options": b"x" * 999}):
        group = Group(0)
        make(group, **fields)
        make(group)
        assert rows_of(take(group, 999)) == [0]
    group = Group(0)
    for _ in range(2):
        kept, _ = make(group)
        take(group)
        group.bury(kept, Reason.FAILED, "x" * 999, 1)
        assert group.unsaved_bytes > 999
        make(group)
        assert len(take(group, 999).burials) == 1
        take(group)


def test_the_end_of_a_task_comes_behind_what_it_has_scheduled() -> None:
    """Else a crash between two batches might lose both."""
    for end in ("strike", "bury"):
        group = Group(0)
        kept, _ = make(group)
        take(group)
        group.change(kept)
        make(group)
        make(group)
        if end == "strike":
            group.strike(kept)
        else:
            group.bury(kept, Reason.FAILED, "", 1)
        batch = take(group, 200)
        assert not batch.strikes
        assert not batch.burials
        assert batch.puts


# ---- any history


# ---- repeats


def test_all_changes_of_repeats_are_written_in_order() -> None:
    group = Group(0)
    first, then = progress(1), progress(2, reason="so" * 50)
    changes: list[Any] = [
        RepeatRow("r", "every", b"terms", 1, b"payload"),
        first,
        then,
        RepeatEnd("r"),
    ]
    for change in changes:
        group.repeat(change)
    assert (group.unsaved, group.stamp) == (4, 4)
    assert group.unsaved_bytes == 4 * 64 + len("reverytermspayloadrrr") + 100
    assert group.take() == (Batch([], [], [], [], [], [], [], changes, 0), 4)
    assert (group.unsaved, group.unsaved_bytes) == (0, 0)


def test_changes_that_belong_together_are_in_one_batch_however_large() -> None:
    group = Group(0)
    make(group)
    with group.whole():
        group.repeat(progress(1))
        runs = [make(group)[0] for _ in range(3)]
    make(group)
    with group.whole():
        make(group)
    with group.whole():
        pass
    assert [rows_of(take(group, 0)) for _ in range(4)] == [[0], [1, 2, 3], [4], [5]]
    assert group.take() is None
    with group.whole():
        group.repeat(progress(2))
        runs = [make(group)[0] for _ in range(3)]
    group.strike(runs[-1])
    make(group)
    batch = take(group, 0)
    assert (rows_of(batch), batch.repeats) == ([6, 7], [progress(2)])
    assert rows_of(take(group, 0)) == [9]


def test_noted_changes_belong_together_even_after_an_error() -> None:
    group = Group(0)
    with pytest.raises(LookupError), group.whole():
        group.repeat(progress(1))
        make(group)
        raise LookupError
    assert len(take(group, 0).puts) == 1


def progress(ran: int, reason: str | None = None) -> RepeatProgress:
    return RepeatProgress("r", ran * HOUR, None, ran, 0, reason is not None, reason)


class File:
    """A model of a store: its contents after batches, and what it refuses."""

    def __init__(self) -> None:
        self.tasks: dict[int, Row] = {}
        self.letters: dict[int, int] = {}  # attempts, by row
        self.functions: dict[int, Function] = {}
        self.repeats: dict[str, int] = {}  # how many runs each has had
        self.next_row = 0

    def commit(self, batch: Batch) -> None:
        for function in batch.functions:
            self.functions[function.number] = function
        for bucket, number in batch.strikes:
            assert self.tasks.pop(number).bucket == bucket
        for update in batch.updates:
            row = self.tasks[update.row]
            assert row.bucket == update.bucket
            fields = update._asdict()
            del fields["bucket"]
            self.tasks[update.row] = row._replace(**fields)
            self._check_ids()
        for row in batch.puts:
            assert row.row not in self.tasks
            assert row.row < batch.next_row
            assert row.function in self.functions
            self.tasks[row.row] = row
            self._check_ids()
        for burial in batch.burials:
            row = self.tasks.pop(burial.row)
            assert row.bucket == burial.bucket
            self.letters[burial.row] = burial.attempt
        for number in batch.discards:
            del self.letters[number]
        for number, instead in batch.requeues:
            del self.letters[number]
            assert any(row.row == instead for row in batch.puts) or instead not in self.tasks
        for change in batch.repeats:
            if isinstance(change, RepeatEnd):
                del self.repeats[change.id]
            else:
                self.repeats[change.id] = change.ran
        self.next_row = batch.next_row

    def _check_ids(self) -> None:
        ids = [row.id for row in self.tasks.values() if row.id is not None]
        assert len(ids) == len(set(ids))


class SQLiteFile(File):
    """The real store, which is reopened for each look."""

    def __init__(self) -> None:
        super().__init__()
        self._store = SQLiteStore(":memory:")
        self._store.open()

    def commit(self, batch: Batch) -> None:
        self._store.commit(batch)
        self.next_row = batch.next_row
        self._store.close(clean=True)
        opening = self._store.open()
        self.tasks = {row.row: row for rows in read_all(self._store) for row in rows}
        letters = self._store.letters(-1, 1000)
        assert (opening.tasks, opening.letters) == (len(self.tasks), len(letters))
        self.letters = {letter.row: letter.attempt for letter in letters}
        self.functions = {function.number: function for function in opening.functions}
        self.repeats = {row.id: row.ran for row in opening.repeats}


class History:
    """A group and its file, and the state there would be if each change were written at once."""

    def __init__(self, file: File) -> None:
        self.group = Group(0)
        self.file = file
        self.under_way: list[tuple[Batch, int]] = []
        self.handed_out = self.written = 0
        self.live: dict[int, tuple[Kept, Row]] = {}
        self.ids: dict[str, int] = {}
        self.puts: dict[int, int] = {}  # stamps of what was written, or will be
        self.ends: dict[int, int] = {}
        self.burials: dict[int, int] = {}
        self.attempts: dict[int, int] = {}
        self.discards: dict[int, int] = {}
        self.defined: list[Function] = []
        self.looks: list[list[int]] = []  # the stamps of each
        self.define(0)
        self.group.repeat(RepeatRow("r", "every", b"", 0, b""))
        self.looks.append([self.group.stamp])

    def define(self, pick: int) -> None:
        number = pick % (len(self.defined) + 1)
        function = Function(number, f"f{number}", f"m:{self.group.stamp}", False)
        self.defined[number : number + 1] = [function]
        self.group.define(function)

    def put(self, pick: int, id_: str | None = None) -> None:
        if id_ in self.ids:
            self._end(self.ids[id_], buried=bool(pick % 2))
        row = Row(self.group.new_row(), pick * HOUR, pick % len(self.defined), b"x" * pick, id=id_)
        kept = Kept.of(row)
        self.group.put(kept, row)
        self.live[row.row] = kept, row
        self.puts[row.row] = kept.stamp
        if id_ is not None:
            self.ids[id_] = row.row

    def look(self, pick: int) -> None:
        """Put runs of a repeat, together with its progress."""
        with self.group.whole():
            self.group.repeat(progress(len(self.looks)))
            stamps = [self.group.stamp]
            for n in range(pick % 4):
                self.put(pick, id_=f"run {len(self.looks)} {n}")
                stamps.append(self.group.stamp)
        self.looks.append(stamps)

    def change(self, pick: int) -> None:
        if self.live:
            kept, row = self._pick(pick)
            kept.due, kept.attempt, kept.begun = pick * HOUR // 3, kept.attempt + 1, Begun(pick % 3)
            kept.given, kept.failed, kept.losses = row.due, pick % 5, pick % 2
            self.group.change(kept)
            row = row._replace(
                due=kept.due,
                attempt=kept.attempt,
                begun=kept.begun,
                given=kept.given,
                failed=kept.failed,
                losses=kept.losses,
            )
            self.live[row.row] = kept, row

    def give_up(self, pick: int) -> None:
        """Free the id of a task, so that another may have it."""
        if self.live:
            kept, row = self._pick(pick)
            self.ids.pop(row.id or "", None)
            kept.id = None
            self.live[row.row] = kept, row._replace(id=None)
            self.group.change(kept)

    def strike(self, pick: int) -> None:
        if self.live:
            self._end(self._pick(pick)[0].row, buried=False)

    def bury(self, pick: int) -> None:
        if self.live:
            self._end(self._pick(pick)[0].row, buried=True)

    def _pick(self, pick: int) -> tuple[Kept, Row]:
        return list(self.live.values())[pick % len(self.live)]

    def _end(self, number: int, buried: bool) -> None:
        kept, row = self.live.pop(number)
        self.ids = {id_: holder for id_, holder in self.ids.items() if holder != number}
        if buried:
            self.group.bury(kept, Reason.FAILED, "x" * kept.attempt, 1)
            self.burials[number] = self.group.stamp
            self.attempts[number] = kept.attempt
        else:
            self.group.strike(kept)
        self.ends[number] = self.group.stamp
        if not buried and self.puts[number] > self.handed_out:
            del self.puts[number]  # it came and went

    def discard(self, pick: int) -> None:
        known = sorted(self.burials.keys() - self.discards.keys())
        if known:
            number = known[pick % len(known)]
            self.group.discard_letter(number)
            self.discards[number] = self.group.stamp

    def requeue(self, pick: int) -> None:
        known = sorted(self.burials.keys() - self.discards.keys())
        if known:
            number = known[pick % len(known)]
            with self.group.whole():
                self.put(pick)
                self.group.discard_letter(number, self.group.next_row - 1)
            self.discards[number] = self.group.stamp

    def take(self, pick: int) -> None:
        taken = self.group.take(pick * 40)
        if taken is not None:
            self.under_way.append(taken)
            assert taken[1] >= self.handed_out
            self.handed_out = taken[1]

    def commit(self, pick: int) -> None:
        if self.under_way:
            batch, self.written = self.under_way.pop(0)
            self.file.commit(batch)
        self.check()

    def check(self) -> None:
        """Check that after a crash now the file has the state after one of the changes."""

        def until_now(stamps: dict[int, int]) -> set[int]:
            return {number for number, stamp in stamps.items() if stamp <= self.written}

        assert self.file.tasks.keys() == until_now(self.puts) - until_now(self.ends)
        letters = until_now(self.burials) - until_now(self.discards)
        assert self.file.letters == {number: self.attempts[number] for number in letters}
        assert all(number < self.file.next_row for number in self.file.tasks)
        looks = [stamps for stamps in self.looks if stamps[0] <= self.written]
        assert all(stamps[-1] <= self.written for stamps in looks)  # with all of its runs
        assert self.file.repeats == ({"r": len(looks) - 1} if looks else {})

    def end(self) -> None:
        """Write everything, and check that the file has the present state."""
        while (taken := self.group.take()) is not None:
            self.under_way.append(taken)
        assert (self.group.unsaved, self.group.unsaved_bytes) == (0, 0)
        while self.under_way:
            self.commit(0)
        self.written = self.group.stamp
        self.check()
        assert self.file.tasks == {number: row for number, (_, row) in self.live.items()}
        assert [self.file.functions[function.number] for function in self.defined] == self.defined
        for kept, row in self.live.values():
            assert kept.bucket == row.bucket


DEEDS = (
    "put",
    "look",
    "change",
    "give_up",
    "strike",
    "bury",
    "discard",
    "requeue",
    "define",
    "take",
    "commit",
)
STEPS = st.tuples(st.sampled_from((*DEEDS, "one", "two", "take", "commit")), st.integers(0, 30))


@given(st.lists(STEPS, max_size=60))
def test_the_file_has_the_state_after_some_change(steps: Sequence[tuple[str, int]]) -> None:
    history = History(File())
    for deed, pick in steps:
        if deed in DEEDS:
            getattr(history, deed)(pick)
        else:
            history.put(pick, id_=deed)
    history.end()


@pytest.mark.parametrize("file", [File, SQLiteFile])
@pytest.mark.parametrize("seed", range(40))
def test_the_file_has_what_there_was_after_some_change_of_many(seed: int, file: type[File]) -> None:
    chance = random.Random(seed)
    history = History(file())
    for _ in range(400):
        deed, pick = chance.choice((*DEEDS, "one", "two", "put", "put")), chance.randrange(30)
        if deed in DEEDS:
            getattr(history, deed)(pick)
        else:
            history.put(pick, id_=deed)
    history.end()
