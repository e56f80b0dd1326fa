"""Tests of any store: each store has a subclass with `make` and `lose`."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import read_all

from aioscheduler._durable.records import (
    Batch,
    Begun,
    Burial,
    Function,
    Letter,
    Reason,
    Row,
    Store,
    Unwritable,
    Update,
)
from aioscheduler._durable.repeatrecords import RepeatEnd, RepeatProgress, RepeatRow
from aioscheduler.errors import StoreError, StoreLocked

TEXT = st.text(st.characters(exclude_categories=()), max_size=20)  # with lone surrogates
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
COUNT = st.integers(0, 1 << 40)
ROWS = st.builds(
    Row,
    row=st.just(0),
    due=INT64,
    function=COUNT,
    payload=st.binary(max_size=50),
    key=st.none() | TEXT | st.binary(max_size=20) | st.integers(),
    id=st.none() | TEXT,
    options=st.none() | st.binary(max_size=20),
    begun=st.sampled_from(Begun),
    attempt=COUNT,
    failed=COUNT,
    losses=COUNT,
    given=st.none() | INT64,
)


def rows_of(store: Store) -> list[Row]:
    return [row for page in read_all(store) for row in page]


def letters_of(store: Store) -> list[Letter]:
    """Return all dead letters, with their payloads."""
    found: list[Letter] = []
    while page := store.letters(found[-1].row if found else -1, 1 << 30):
        for letter in page:
            whole = store.letter(letter.row)
            assert whole is not None
            assert letter == whole._replace(payload=None)
            found.append(whole)
    return found


def in_order(rows: Any) -> list[Row]:
    return sorted(rows, key=lambda row: (row.due, row.row))


def some_rows(first: int, count: int, **fields: Any) -> list[Row]:
    return [
        Row(first + i, 10**18 + i * 10**11, 1, b"%d" % i)._replace(**fields) for i in range(count)
    ]


def update(old: Row, **fields: Any) -> Update:
    new = old._replace(**fields)
    told = new.due, new.begun, new.attempt, new.failed, new.losses, new.given, new.id
    return Update(old.bucket, old.row, *told)


class StoreSuite:
    def make(self, folder: Path) -> Store:
        """Return a store that is not open."""
        raise NotImplementedError

    @contextmanager
    def opened(self, folder: Path) -> Iterator[Store]:
        store = self.make(folder)
        store.open()
        try:
            yield store
        finally:
            store.close(True)

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        with self.opened(tmp_path) as store:
            yield store

    def test_a_new_one_is_empty(self, tmp_path: Path) -> None:
        store = self.make(tmp_path)
        opening = store.open()
        assert opening.functions == []
        assert (opening.tasks, opening.letters, opening.clean) == (0, 0, True)
        assert opening.heartbeat == 0
        assert 0 < opening.identity < 1 << 128
        assert rows_of(store) == []
        assert letters_of(store) == []
        assert store.complaint == ""
        assert store.size() > 0
        store.close(True)

    def test_two_are_two(self, tmp_path: Path) -> None:
        (tmp_path / "one").mkdir()
        (tmp_path / "two").mkdir()
        stores = [self.make(tmp_path / name) for name in ("one", "two")]
        one, two = (store.open().identity for store in stores)
        assert one != two
        for store in stores:
            store.close(True)

    def test_what_was_committed_is_there_at_the_next_opening(self, tmp_path: Path) -> None:
        store = self.make(tmp_path)
        before = store.open()
        functions = [Function(1, "remind", "users:remind", False), Function(7, "pay", "m:p", True)]
        rows = some_rows(before.next_row, 3)
        store.commit(Batch(functions, puts=rows))
        store.close(True)
        after = store.open()
        assert (after.identity, after.clean, after.tasks) == (before.identity, True, 3)
        assert after.functions == functions
        assert rows_of(store) == rows
        store.close(True)

    def test_a_host_that_did_not_end_in_order_is_told_of(self, tmp_path: Path) -> None:
        store = self.make(tmp_path)
        store.open()
        store.close(False)
        assert not store.open().clean
        store.close(True)
        assert store.open().clean
        store.close(True)

    def test_no_row_number_is_given_twice(self, tmp_path: Path) -> None:
        store = self.make(tmp_path)
        first = store.open().next_row
        store.close(False)
        second = store.open().next_row
        assert second >= first + (1 << 32)  # that many may have been given and not stored
        given = second + (1 << 40)
        store.commit(Batch(next_row=given))
        store.close(False)
        assert store.open().next_row >= given
        store.close(True)

    def test_a_function_may_move(self, tmp_path: Path) -> None:
        store = self.make(tmp_path)
        store.open()
        names = "a\ud800", "\U0001f600"
        store.commit(
            Batch([Function(1, names[0], "m:a", False), Function(2, names[1], "m:b", True)])
        )
        store.commit(Batch([Function(1, names[0], "n\udfff:a", True)]))
        store.close(True)
        assert store.open().functions == [
            Function(1, names[0], "n\udfff:a", True),
            Function(2, names[1], "m:b", True),
        ]
        store.close(True)

    def test_all_of_a_row_comes_back(self, tmp_path_factory: Any) -> None:
        @settings(max_examples=40)
        @given(
            st.lists(ROWS, max_size=8, unique_by=lambda row: (row.id, row.id is None and id(row)))
        )
        def check(found: list[Row]) -> None:
            rows = [row._replace(row=number) for number, row in enumerate(found, 1)]
            numbers = sorted({row.function for row in rows})
            with self.opened(tmp_path_factory.mktemp("store")) as store:
                store.commit(Batch([Function(n, str(n), "m:f", False) for n in numbers], puts=rows))
                assert rows_of(store) == in_order(rows)
                keys = [type(row.key) for row in in_order(rows)]
                assert [type(row.key) for row in rows_of(store)] == keys
                dead = [Burial(r.bucket, r.row, 3, Reason.LOST, str(r.id), r.due) for r in rows]
                store.commit(Batch(burials=dead))
                assert rows_of(store) == []
                assert letters_of(store) == [
                    Letter(
                        *(r.row, r.due, r.function, str(r.function), r.payload, r.key, r.id),
                        *(r.options, 3, Reason.LOST, str(r.id), r.due),
                    )
                    for r in rows
                ]

        check()

    @pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 63, 255, 256, 257, 1364, 5000])
    def test_a_batch_of_any_size_is_whole(self, store: Store, count: int) -> None:
        rows = some_rows(1, count)
        shuffled = rows.copy()
        random.Random(count).shuffle(shuffled)
        store.commit(Batch(puts=shuffled))
        assert rows_of(store) == rows
        assert all(0 < len(page) <= 4096 for page in read_all(store))

    def test_puts_of_all_kinds_stand_side_by_side(self, store: Store) -> None:
        rows = some_rows(1, 700)
        for number, row in enumerate(rows):
            if number % 3:
                rows[number] = row._replace(key=number, failed=number % 2)
        store.commit(Batch(puts=rows))
        assert rows_of(store) == rows

    def test_equal_times_keep_the_order_of_their_rows(self, store: Store) -> None:
        rows = some_rows(1, 500, due=0)
        store.commit(Batch(puts=rows[::-1]))
        assert rows_of(store) == rows

    def test_a_large_payload_comes_back(self, store: Store) -> None:
        payload = random.Random(1).randbytes(5 << 20)
        store.commit(Batch(puts=some_rows(1, 2, payload=payload)))
        assert [row.payload for row in rows_of(store)] == [payload] * 2

    def test_an_update_changes_all_that_it_names(self, store: Store) -> None:
        kept, moved, freed = some_rows(1, 3)
        freed = freed._replace(id="one")
        store.commit(Batch(puts=[kept, moved, freed]))
        changes: dict[str, Any] = {
            "begun": Begun.ONCE,
            "attempt": 4,
            "failed": 2,
            "losses": 1,
            "given": 5,
        }
        far: dict[str, Any] = {"due": moved.due + (1 << 50), **changes}
        store.commit(Batch(updates=[update(moved, **far), update(freed, id=None)]))
        moved, freed = moved._replace(**far), freed._replace(id=None)
        assert rows_of(store) == [kept, freed, moved]
        store.commit(Batch(updates=[update(moved, begun=Begun.NO)], puts=some_rows(9, 1, id="one")))
        assert rows_of(store)[-1] == moved._replace(begun=Begun.NO)

    def test_strikes_go(self, store: Store) -> None:
        rows = some_rows(1, 10)
        store.commit(Batch(puts=rows))
        store.commit(Batch(strikes=[(row.bucket, row.row) for row in rows[::2]]))
        assert rows_of(store) == rows[1::2]

    def test_an_id_is_one_task_s(self, store: Store) -> None:
        one, two, three = some_rows(1, 3, id="one")
        store.commit(Batch(puts=[one]))
        with pytest.raises(Unwritable):
            store.commit(Batch(puts=[*some_rows(9, 1), two]))
        assert rows_of(store) == [one]  # nothing of that batch
        store.commit(Batch(strikes=[(one.bucket, one.row)], puts=[two]))
        buried = Burial(two.bucket, two.row, 1, Reason.FAILED, "", 0)
        store.commit(Batch(burials=[buried], puts=[three]))
        assert rows_of(store) == [three]
        assert [letter.id for letter in letters_of(store)] == ["one"]

    def test_what_dies_in_the_batch_that_puts_it_is_a_letter(self, store: Store) -> None:
        one, two = some_rows(1, 2, id="one", key=2**70, options=b"o")
        burial = Burial(one.bucket, one.row, 2, Reason.TOO_LATE, "so \ud800", 77)
        store.commit(
            Batch([Function(1, "remind", "m:r", False)], puts=[one, two], burials=[burial])
        )
        assert rows_of(store) == [two]
        assert letters_of(store) == [
            Letter(
                *(1, one.due, 1, "remind", one.payload, 2**70, "one", b"o", 2),
                *(Reason.TOO_LATE, "so \ud800", 77),
            )
        ]

    def test_letters_come_by_pages(self, tmp_path: Path) -> None:
        store = self.make(tmp_path)
        store.open()
        rows = some_rows(5, 10)
        buried = [Burial(row.bucket, row.row, 1, Reason.UNKNOWN, "", 0) for row in rows]
        store.commit(Batch(puts=rows, burials=buried))
        assert [letter.row for letter in store.letters(-1, 3)] == [5, 6, 7]
        assert [letter.row for letter in store.letters(7, 3)] == [8, 9, 10]
        assert [letter.name for letter in store.letters(13, 3)] == [""]  # function 1 is not defined
        store.commit(Batch(discards=[5, 99], puts=some_rows(20, 1), requeues=[(6, 20)]))
        assert [letter.row for letter in store.letters(-1, 2)] == [7, 8]
        store.close(True)
        assert store.open().letters == 8
        store.close(True)

    def test_a_page_of_letters_has_no_payloads_and_few_long_texts(self, store: Store) -> None:
        rows = some_rows(5, 40, payload=b"p" * (1 << 20), options=b"o")
        text = "\u20ac" * (64 << 10)
        buried = [Burial(row.bucket, row.row, 1, Reason.FAILED, text, 0) for row in rows]
        store.commit(Batch(puts=rows, burials=buried))
        page = store.letters(-1, 100)
        assert 0 < len(page) < 40
        assert sum(len(letter.text) for letter in page) <= 1 << 20
        assert all((letter.payload, letter.options) == (None, b"o") for letter in page)
        assert [letter.row for letter in letters_of(store)] == [*range(5, 45)]
        assert letters_of(store)[-1].payload == rows[-1].payload
        for none in (0, 4, 45, (1 << 63) - 1):
            assert store.letter(none) is None
        assert store.letters(44, 100) == store.letters((1 << 63) - 1, 100) == []

    def test_random_batches_do_what_they_say(self, tmp_path: Path) -> None:
        """A store against a dict, with reopening in between."""
        chance = random.Random(7)
        store = self.make(tmp_path)
        number = store.open().next_row
        tasks: dict[int, Row] = {}
        dead: set[int] = set()
        for step in range(60):
            struck = {row for row in tasks if chance.random() < 0.1}
            changed = {row for row in tasks.keys() - struck if chance.random() < 0.2}
            puts = [
                Row(number + i, chance.randrange(1 << 50), 1, b"p", id=f"{number + i}")
                for i in range(chance.choice((0, 1, 30, 300)))
            ]
            number += len(puts)
            strikes = [(tasks[row].bucket, row) for row in struck]
            updates = []
            for row in changed:
                new: dict[str, Any] = {
                    "due": chance.randrange(1 << 50),
                    "attempt": tasks[row].attempt + 1,
                }
                updates.append(update(tasks[row], **new))
                tasks[row] = tasks[row]._replace(**new)
            for row in struck:
                del tasks[row]
            tasks |= {put.row: put for put in puts}
            dying = [tasks.pop(row) for row in list(tasks) if chance.random() < 0.05]
            burials = [Burial(row.bucket, row.row, 1, Reason.LOST, "", 0) for row in dying]
            gone = {row for row in dead if chance.random() < 0.1}
            dead = (dead - gone) | {row.row for row in dying}
            store.commit(Batch([], strikes, updates, puts, burials, sorted(gone), [], [], number))
            if step % 10 == 0:
                store.close(chance.random() < 0.5)
                opening = store.open()
                assert (opening.tasks, opening.letters) == (len(tasks), len(dead))
                number = opening.next_row
            assert rows_of(store) == in_order(tasks.values())
            assert [letter.row for letter in letters_of(store)] == sorted(dead)
        store.close(True)

    def test_what_repeats_is_there_at_the_next_opening(self, tmp_path: Path) -> None:
        first = RepeatRow("a", "every", b"terms", 1, b"args", "k", b"note", 7, 5, 3, 2, False, None)
        other = RepeatRow("b\udfff", "own\udfff", b"", 1, b"", reason="odd\udfff", paused=True)
        store = self.make(tmp_path)
        store.open()
        store.commit(Batch(repeats=[first, other, RepeatRow("c", "", b"", 1, b"")]))
        store.commit(Batch(puts=some_rows(1, 1), repeats=[RepeatEnd("c"), RepeatEnd("d")]))
        store.close(True)
        assert store.open().repeats == [first, other]
        then = RepeatProgress("a", 9, 7, 4, 2, True, None)
        more = RepeatProgress("a", None, 9, 5, 2, False, None)
        store.commit(Batch(repeats=[then, more, RepeatProgress("c", 1, 1, 1, 1, False, None)]))
        store.commit(Batch(repeats=[other._replace(function=2), RepeatEnd("x")]))
        store.close(True)
        with_more = first._replace(next=None, last=9, ran=5)
        assert store.open().repeats == [with_more, other._replace(function=2)]
        store.close(True)

    def test_a_backup_is_a_store(self, store: Store, tmp_path: Path) -> None:
        from aioscheduler._durable.sqlite import SQLiteStore

        rows = some_rows(1, 300)
        store.commit(Batch(puts=rows))
        path = str(tmp_path / "backup.db")
        store.backup(path)
        store.commit(Batch(strikes=[(rows[0].bucket, 1)]))
        with pytest.raises(StoreError, match=r"backup\.db is there already"):
            store.backup(path)
        copy = SQLiteStore(path)
        copy.open()
        assert rows_of(copy) == rows
        copy.close(True)
        assert rows_of(store) == rows[1:]
        with pytest.raises(StoreError, match="nowhere"):
            store.backup(str(tmp_path / "nowhere" / "backup.db"))
        for target, error in (("a\0b", StoreError), ("\ud800", StoreError), (b"x", TypeError)):
            with pytest.raises(error):
                store.backup(target)  # type: ignore[arg-type]
        (tmp_path / "other.db-journal").write_bytes(b"of another database")
        with pytest.raises(StoreError, match=r"other\.db-journal is there already"):
            store.backup(str(tmp_path / "other.db"))

    def test_one_host_at_a_time(self, store: Store) -> None:
        with pytest.raises(StoreLocked, match="One host at a time"):
            store.open()
        store.commit(Batch(puts=some_rows(1, 1)))
        assert len(rows_of(store)) == 1

    def test_it_is_used_while_it_is_open(self, tmp_path: Path) -> None:
        store = self.make(tmp_path)
        for _ in range(2):
            for use in (
                lambda: store.commit(Batch()),
                lambda: rows_of(store),
                lambda: letters_of(store),
                lambda: store.letter(1),
                lambda: store.tick(0),
                lambda: store.size(),
                lambda: store.backup(str(tmp_path / "copy")),
            ):
                with pytest.raises(StoreError, match="not open"):
                    use()
            store.close(True)
            store.open()
            store.close(True)
            store.close(False)  # it has no effect
        assert store.open().clean
        store.close(True)
