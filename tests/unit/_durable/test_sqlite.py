"""The store in an SQLite file: what any store does, and what happens when the file has changed."""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from stores import read_all
from storesuite import StoreSuite, in_order, letters_of, rows_of, some_rows

from aioscheduler._durable import schema
from aioscheduler._durable.records import (
    BUCKET_SHIFT,
    FIRST,
    Batch,
    Begun,
    Burial,
    Function,
    Reason,
    Row,
    StoreGone,
    Unwritable,
)
from aioscheduler._durable.sqlite import SQLiteStore
from aioscheduler.errors import StoreError, StoreLocked

MARK = b"by which a page of tasks is known"


class TestInAFile(StoreSuite):
    def make(self, folder: Path) -> SQLiteStore:
        return SQLiteStore(folder / "tasks.db", wait=0)


class TestInMemory(StoreSuite):
    def make(self, folder: Path) -> SQLiteStore:
        return SQLiteStore(":memory:")

    def test_nothing_is_handed_over(self) -> None:
        store = SQLiteStore(":memory:")
        store.open()
        assert store.hand_over() is None
        store.close(True)


class TestWithoutSyncingEachBatch(StoreSuite):
    def make(self, folder: Path) -> SQLiteStore:
        return SQLiteStore(str(folder / "tasks.db"), "normal", 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(path, wait=0)
    store.open()
    yield store
    store.close(True)


def pragma(store: SQLiteStore, name: str) -> Any:
    assert store._connection is not None
    found = store._connection.execute(f"PRAGMA {name}").fetchone()
    return found and found[0]


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def edit(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def opened_rows(path: Path) -> list[Row]:
    store = SQLiteStore(path, wait=0)
    store.open()
    try:
        return rows_of(store)
    finally:
        store.close(True)


def refused(path: Path, words: str, kind: type[StoreError] = StoreError) -> None:
    """Check that opening is refused, and changes nothing."""
    folder = path.parent
    before = files(folder) if folder.is_dir() else {}
    with pytest.raises(kind, match=words) as caught:
        SQLiteStore(path, wait=0).open()
    assert str(path) in str(caught.value)
    assert (files(folder) if folder.is_dir() else {}) == before


# ---- how it is made


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("",), ValueError),
        (("a\0b",), ValueError),
        ((b"a",), TypeError),
        ((7,), TypeError),
        (("a", "off"), ValueError),
        (("a", "FULL"), ValueError),
        (("a", "full", -1), ValueError),
        (("a", "full", float("inf")), ValueError),
        (("a", "full", float("nan")), ValueError),
        (("a", "full", True), TypeError),
        (("a", "full", "1"), TypeError),
    ],
)
def test_wrong_arguments_are_refused(arguments: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        SQLiteStore(*arguments)


def test_its_path_stays_when_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = SQLiteStore("tasks.db")
    monkeypatch.chdir("/")
    assert store.path == str(tmp_path / "tasks.db")
    assert repr(store) == f"SQLiteStore({store.path!r})"
    store.open()
    store.close(True)
    assert (tmp_path / "tasks.db").is_file()


def test_two_names_of_one_file_have_one_lock(store: SQLiteStore, path: Path) -> None:
    path.with_name("link.db").symlink_to(path)
    with pytest.raises(StoreLocked, match="this very process"):
        SQLiteStore(path.with_name("link.db"), wait=0).open()


def test_nobody_else_may_read_its_files(store: SQLiteStore, path: Path) -> None:
    store.commit(Batch(puts=some_rows(1, 1)))
    found = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert found == {"tasks.db": 0o600, "tasks.db-wal": 0o600, "tasks.db.lock": 0o600}


@pytest.mark.parametrize(("synchronous", "number"), [("full", 2), ("normal", 1)])
def test_it_is_set_up_as_it_was_measured(path: Path, synchronous: Any, number: int) -> None:
    store = SQLiteStore(path, synchronous)
    store.open()
    wanted = {
        "locking_mode": "exclusive",
        "journal_mode": "wal",
        "synchronous": number,
        "auto_vacuum": 2,
        "cache_size": -65536,
        "wal_autocheckpoint": 4000,
        "journal_size_limit": 64 << 20,
        "secure_delete": 0,
        "trusted_schema": 0,
        "fullfsync": 1,
        "application_id": schema.APPLICATION,
    }
    assert {name: pragma(store, name) for name in wanted} == wanted
    store.close(True)


def test_the_schema_is_a_number_in_the_file(path: Path, store: SQLiteStore) -> None:
    store.close(True)
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT value FROM meta WHERE name='schema'").fetchone()
    assert found == (schema.SCHEMA,)


def test_after_a_close_all_is_in_the_one_file(path: Path, store: SQLiteStore) -> None:
    rows = some_rows(1, 1000)
    store.commit(Batch(puts=rows))
    store.close(True)
    assert sorted(files(path.parent)) == ["tasks.db", "tasks.db.lock"]
    shutil.copy(path, path.with_name("copy.db"))
    assert opened_rows(path.with_name("copy.db")) == rows


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    assert opened_rows(path) == []


def test_a_file_into_which_half_of_its_log_was_copied(path: Path, store: SQLiteStore) -> None:
    """Its host died, or its disk was full, in the middle of a checkpoint."""
    rows = some_rows(1, 300)
    store.commit(Batch(puts=rows))
    copy = path.with_name("copy.db")
    for end in ("", "-wal"):
        shutil.copy(f"{path}{end}", f"{copy}{end}")
    store.close(True)
    with open(copy, "r+b") as file:
        file.write(path.read_bytes()[:4096])  # which has the number of pages
    assert in_order(opened_rows(copy)) == in_order(rows)


# ---- what is refused


def test_a_missing_folder(tmp_path: Path) -> None:
    refused(tmp_path / "no" / "tasks.db", "there is no folder .*no: make it")
    assert not (tmp_path / "no").exists()


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "tasks.db").mkdir()
    refused(tmp_path / "tasks.db", "is not a file")


def test_what_is_no_database(path: Path) -> None:
    path.write_bytes(b"Dear diary" * 1000)
    refused(path, "is not a file of durable tasks")


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_the_database_of_another_program(path: Path, mode: str) -> None:
    edit(path, f"PRAGMA journal_mode={mode}", "CREATE TABLE task(mine)")
    refused(path, "another program")


def test_a_database_without_tables(path: Path) -> None:
    edit(path, "CREATE TABLE a(b)", "DROP TABLE a")
    refused(path, "another program")


def test_a_newer_schema(path: Path, store: SQLiteStore) -> None:
    store.close(True)
    edit(path, "UPDATE meta SET value=99 WHERE name='schema'")
    refused(path, "newer aioscheduler .schema 99, and this one knows 2.*: update")


def test_a_newer_schema_that_only_the_log_has(path: Path, store: SQLiteStore) -> None:
    store.commit(Batch(puts=some_rows(1, 1)))
    assert store._connection is not None
    store._connection.execute("UPDATE meta SET value=99 WHERE name='schema'")
    copy = path.with_name("copy.db")
    for end in ("", "-wal"):
        shutil.copy(f"{path}{end}", f"{copy}{end}")
    with pytest.raises(StoreError, match="newer aioscheduler"):
        SQLiteStore(copy, wait=0).open()
    store._connection.execute(f"UPDATE meta SET value={schema.SCHEMA} WHERE name='schema'")


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM meta",
        "DELETE FROM meta WHERE name='next_row'",
        "UPDATE meta SET value='x' WHERE name='identity'",
        "UPDATE meta SET value='x' WHERE name='schema'",
        "DROP TABLE func",
        "DROP TABLE meta",
    ],
)
def test_a_store_that_somebody_has_spoilt(path: Path, store: SQLiteStore, damage: str) -> None:
    store.close(True)
    edit(path, damage)
    with pytest.raises(StoreError, match=r"tasks\.db cannot be opened"):
        SQLiteStore(path, wait=0).open()


def test_an_empty_file_where_a_host_has_been(path: Path, store: SQLiteStore) -> None:
    store.close(True)
    path.write_bytes(b"")
    refused(path, "is empty, but a host has stored tasks in it")
    path.unlink()  # as the message says
    assert opened_rows(path) == []


@pytest.mark.parametrize("gone", [False, True])
def test_an_empty_or_missing_file_with_a_log(path: Path, store: SQLiteStore, gone: bool) -> None:
    store.commit(Batch(puts=some_rows(1, 1)))
    copy = path.with_name("copy.db")
    shutil.copy(f"{path}-wal", f"{copy}-wal")
    if not gone:
        copy.touch()
    refused(copy, "is gone, but" if gone else "is empty, but")


def test_a_refused_host_leaves_the_heartbeat(path: Path, store: SQLiteStore) -> None:
    store.tick(5 * 10**17)
    store.close(False)
    edit(path, "UPDATE meta SET value=99 WHERE name='schema'")
    refused(path, "newer")
    edit(path, f"UPDATE meta SET value={schema.SCHEMA} WHERE name='schema'")
    opening = SQLiteStore.open(again := SQLiteStore(path, wait=0))
    assert opening.heartbeat == 5 * 10**17
    again.close(True)


# ---- older files


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def is_now(*statements: str) -> None:
        monkeypatch.setattr(schema, "MIGRATIONS", {schema.SCHEMA: statements})
        monkeypatch.setattr(schema, "SCHEMA", schema.SCHEMA + 1)

    return is_now


def test_an_older_schema_is_migrated_and_a_copy_kept(
    path: Path, store: SQLiteStore, newer: Callable[..., None]
) -> None:
    rows = some_rows(1, 100)
    store.commit(Batch(puts=rows))
    store.close(True)
    newer("CREATE TABLE more(x)", "INSERT INTO more VALUES(1)", "UPDATE task SET attempt=7")
    for _ in range(2):
        assert opened_rows(path) == [row._replace(attempt=7) for row in rows]
    kept = Path(f"{path}.before-{schema.SCHEMA}")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT x FROM more").fetchall() == [(1,)]
    schema.SCHEMA -= 1  # type: ignore[misc]  # the older program
    refused(path, "newer aioscheduler")
    assert opened_rows(kept) == rows


def test_a_migration_that_fails_changes_nothing(
    path: Path, store: SQLiteStore, newer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = some_rows(1, 100)
    store.commit(Batch(puts=rows))
    store.close(True)
    newer("UPDATE task SET attempt=7", "UPDATE no_table SET x=1")
    with pytest.raises(StoreError, match="cannot be opened: no such table"):
        SQLiteStore(path, wait=0).open()
    monkeypatch.undo()
    assert opened_rows(path) == rows


def test_without_a_copy_nothing_is_migrated(
    path: Path, store: SQLiteStore, newer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.commit(Batch(puts=some_rows(1, 1)))
    store.close(True)
    Path(f"{path}.before-{schema.SCHEMA + 1}").mkdir()  # so that no file can be put there
    newer("UPDATE task SET attempt=7")
    with pytest.raises(StoreError, match="cannot be opened"):
        SQLiteStore(path, wait=0).open()
    monkeypatch.undo()
    assert opened_rows(path) == some_rows(1, 1)
    assert sorted(files(path.parent)) == ["tasks.db", "tasks.db.lock"]


# ---- no room, bad disks


def test_a_full_disk_keeps_all_and_heals(store: SQLiteStore) -> None:
    rows = some_rows(1, 500)
    store.commit(Batch(puts=rows))
    pragma(store, f"max_page_count={pragma(store, 'page_count') + 1}")
    more = some_rows(1001, 5000)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"cannot be written: .* full\. Make room"):
            store.commit(Batch(strikes=[(rows[0].bucket, 1)], puts=more))
        assert rows_of(store) == rows
    pragma(store, f"max_page_count={1 << 30}")
    store.commit(Batch(puts=more))
    assert rows_of(store) == in_order(rows + more)
    assert pragma(store, "integrity_check") == "ok"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("payload", []),
        ("payload", None),
        ("key", []),
        ("id", 5),
        ("function", 1 << 64),
        ("due", "soon"),
        ("payload", b"x" * 2000),
    ],
)
def test_a_batch_with_an_unwritable_value_is_refused_whole(
    store: SQLiteStore, column: str, value: Any
) -> None:
    assert store._connection is not None
    store._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1500)  # not SQLite's billion
    broken = [*some_rows(1, 300), Row(301, 0, 1, b"")._replace(**{column: value})]
    for _ in range(2):
        with pytest.raises(Unwritable, match=r"tasks\.db does not accept what was to be written"):
            store.commit(Batch(puts=broken))
        assert rows_of(store) == []
    store.commit(Batch(puts=broken[:-1]))
    assert len(rows_of(store)) == 300


def test_a_transaction_left_open_is_rolled_back_by_the_next(store: SQLiteStore) -> None:
    assert store._connection is not None
    store._connection.execute("BEGIN IMMEDIATE")
    store._connection.execute("UPDATE meta SET value=0 WHERE name='next_row'")
    store.commit(Batch(puts=some_rows(1, 1)))
    store.close(True)
    opening = store.open()
    assert opening.tasks == 1
    assert opening.next_row > 1 << 32


@pytest.mark.parametrize("bad_pages", [1, 3])
def test_what_is_around_corrupt_pages_is_read(
    path: Path, store: SQLiteStore, bad_pages: int
) -> None:
    rows = some_rows(1, 20_000)  # in about 450 buckets
    store.commit(Batch(puts=rows))
    store.close(True)
    size = path.stat().st_size
    pages = [n for n in range(2, size // 4096) if page_type(path, n) == 10 and n > 20]
    for number in random.Random(3).sample(pages, bad_pages):
        spoil(path, number)
    opening = store.open()
    found = rows_of(store)
    assert opening.tasks == len(rows)  # as they were counted
    assert in_order(found) == found
    assert set(found) < set(rows)
    assert len(rows) - len(found) <= 130 * bad_pages  # a page's
    assert f"tasks at {bad_pages} place" in store.complaint
    assert ".recover" in store.complaint
    assert all(len(page) <= 4096 for page in read_all(store))


def test_one_bad_page_in_one_large_bucket(path: Path, store: SQLiteStore) -> None:
    rows = some_rows(1, 20_000, due=7)
    store.commit(Batch(puts=rows))
    store.close(True)
    pages = [n for n in range(20, path.stat().st_size // 4096) if page_type(path, n) == 10]
    spoil(path, pages[len(pages) // 2])
    store.open()
    found = rows_of(store)
    assert in_order(found) == found
    assert 0 < len(rows) - len(found) <= 200
    assert "tasks at 1 place " in store.complaint


@pytest.mark.parametrize("last", [False, True])
def test_all_that_is_around_a_bad_page_is_listed(
    path: Path, store: SQLiteStore, last: bool
) -> None:
    rows = [row._replace(id=f"n{row.row:05}") for row in some_rows(1, 5000, due=7, payload=MARK)]
    store.commit(Batch(puts=rows))
    store.close(True)
    tasks = [
        n
        for n in range(2, path.stat().st_size // 4096)
        if page_type(path, n) == 10 and has_payloads(path, n)
    ]
    spoil(path, max(tasks) if last else tasks[len(tasks) // 2])
    store.open()
    listed = all_of(lambda row: store.scan(FIRST if row is None else (row.bucket, row.row), 100))
    assert listed == sorted(listed, key=lambda row: row.row)
    assert 0 < len(rows) - len(listed) <= 200
    assert "tasks at 1 place cannot be read and are left out" in store.complaint
    by_id = all_of(lambda row: store.scan_ids("n", None if row is None else row.id, 100))
    assert by_id == listed  # the index has the ids of all


def test_an_index_of_ids_that_cannot_be_read_is_told_of(path: Path, store: SQLiteStore) -> None:
    rows = [row._replace(id=f"n{row.row:05}") for row in some_rows(1, 5000, due=7, payload=MARK)]
    store.commit(Batch(puts=rows))
    store.close(True)
    pages = range(2, path.stat().st_size // 4096)
    index = [n for n in pages if page_type(path, n) == 10 and not has_payloads(path, n)]
    spoil(path, index[len(index) // 2])
    store.open()
    with pytest.raises(StoreError, match=r"tasks\.db cannot be read: .*malformed.*\.recover"):
        all_of(lambda row: store.scan_ids("n", None if row is None else row.id, 100))
    listed = all_of(lambda row: store.scan(FIRST if row is None else (row.bucket, row.row), 100))
    assert (listed, store.complaint) == (rows, "")


def test_a_failing_disk_does_not_end_a_list_early(store: SQLiteStore) -> None:
    store.commit(Batch(puts=[row._replace(id=str(row.row)) for row in some_rows(1, 10)]))

    class Failing:
        def execute(self, query: str, *values: Any) -> Any:
            assert connection is not None
            if " row, 0," in query:  # the index
                return connection.execute(query, *values)
            raise sqlite3.OperationalError("disk I/O error")

    connection, store._connection = store._connection, Failing()  # type: ignore[assignment]
    try:
        with pytest.raises(StoreError, match="cannot be read: disk I/O error"):
            store.scan(FIRST, 100)
        with pytest.raises(StoreError, match="cannot be read: disk I/O error"):
            store.scan_ids("", None, 100)
    finally:
        store._connection = connection


def all_of(read_page: Callable[[Row | None], list[Row]]) -> list[Row]:
    found: list[Row] = []
    while page := read_page(found[-1] if found else None):
        found += page
    return found


def has_payloads(path: Path, number: int) -> bool:
    """Return whether a page is one of tasks, and not of the index of their ids."""
    with open(path, "rb") as file:
        file.seek(number * 4096)
        return MARK in file.read(4096)


def test_a_strike_blocked_by_a_bad_page_refuses_nothing_else(
    path: Path, store: SQLiteStore
) -> None:
    rows = some_rows(1, 20_000, due=7)
    store.commit(Batch(puts=rows))
    store.close(True)
    pages = [n for n in range(20, path.stat().st_size // 4096) if page_type(path, n) == 10]
    spoil(path, pages[len(pages) // 2])
    store.open()
    found = rows_of(store)
    with pytest.raises(Unwritable, match="malformed"):
        store.commit(Batch(strikes=[(row.bucket, row.row) for row in found]))
    refused = 0
    for row in found[:200] + found[len(found) // 2 - 400 : len(found) // 2 + 400]:
        try:
            store.commit(Batch(strikes=[(row.bucket, row.row)]))
        except Unwritable:
            refused += 1
    assert refused < 700
    store.commit(Batch(puts=some_rows(30_000, 3, due=7)))


def page_type(path: Path, number: int) -> int:
    with open(path, "rb") as file:
        file.seek(number * 4096)
        return file.read(1)[0]


def spoil(path: Path, number: int) -> None:
    with open(path, "r+b") as file:
        file.seek(number * 4096)
        file.write(random.Random(1).randbytes(4096))


def test_a_payload_that_cannot_be_read_takes_no_other_along(path: Path, store: SQLiteStore) -> None:
    marked = b"\xab" * 8192 + b"\xcd" * 8192  # which takes overflow pages
    rows = some_rows(1, 100)
    rows[50] = rows[50]._replace(payload=marked)
    store.commit(Batch(puts=rows))
    store.close(True)
    content = path.read_bytes()
    at = next(
        n for n in range(0, len(content), 4096) if content[n + 4 : n + 4096] == b"\xab" * 4092
    )
    with open(path, "r+b") as file:  # its chain of overflow pages is broken
        file.seek(at)
        file.write(b"\x7f\xff\xff\xff")
    store.open()
    assert rows_of(store) == rows[:50] + rows[51:]
    assert "tasks at 1 place " in store.complaint


@pytest.mark.parametrize(
    "change",
    [
        "payload='text'",
        "due='soon'",
        "state=9",
        "attempt='x'",
        "func=1.5",
        "id=CAST(x'ff' AS TEXT)",
        "key=1.5",
        "key=x'00'",
    ],
)
def test_a_malformed_row_is_left_out(path: Path, store: SQLiteStore, change: str) -> None:
    rows = some_rows(1, 3)
    store.commit(Batch(puts=rows))
    store.close(True)
    edit(path, f"UPDATE task SET {change} WHERE row=2")
    store.open()
    assert rows_of(store) == [rows[0], rows[2]]
    assert "tasks at 1 place " in store.complaint


@pytest.mark.parametrize(
    "change", ["payload='text'", "due='soon'", "id=CAST(x'ff' || row AS BLOB)", "state=9"]
)
def test_reading_goes_on_behind_many_malformed_rows(
    path: Path, store: SQLiteStore, change: str
) -> None:
    rows = [row._replace(id=f"n{row.row:02}") for row in some_rows(1, 12, due=7)]
    rows[9:] = [row._replace(due=1 << BUCKET_SHIFT) for row in rows[9:]]
    store.commit(Batch(puts=rows))
    store.close(True)
    edit(path, f"UPDATE task SET {change} WHERE row BETWEEN 3 AND 9")
    store.open()
    good = [*rows[:2], *rows[9:]]
    assert [row for page in read_all(store, 2) for row in page] == good
    assert (
        all_of(lambda row: store.scan(FIRST if row is None else (row.bucket, row.row), 2)) == good
    )
    for prefix in ("n", ""):
        assert good == all_of(lambda row: store.scan_ids(prefix, row and row.id, 2))  # noqa: B023
    assert "tasks at 7 places " in store.complaint


@pytest.mark.parametrize("bad", [[1], [0], [-1], [2, 7], [3, 4, -1]])
def test_around_dead_letters_that_cannot_be_read_the_others_are(
    path: Path, store: SQLiteStore, bad: list[int]
) -> None:
    rows = some_rows(1, 500, payload=b"\xee" * 100)
    buried = [Burial(row.bucket, row.row, 1, Reason.FAILED, "", 0) for row in rows]
    store.commit(Batch([Function(1, "f", "m:f", False)], puts=rows, burials=buried))
    store.commit(Batch(puts=rows[:3]))
    store.close(True)
    content = path.read_bytes()
    pages = [
        n
        for n in range(len(content) // 4096)
        if content[n * 4096] == 13 and b"\xee" * 100 in content[n * 4096 : n * 4096 + 4096]
    ]
    for index in bad:
        spoil(path, pages[index])
    opening = store.open()
    assert (opening.tasks, opening.letters) == (3, 500)  # as they were counted
    found = [letter.row for letter in letters_of(store)]
    assert found == sorted(set(found))
    assert 10 * len(bad) < 500 - len(found) < 40 * len(bad)  # a page has about 30
    complaint = store.complaint
    assert re.search(r"tasks at [12] places? cannot be read", complaint)
    assert found == [letter.row for letter in letters_of(store)]
    assert store.complaint == complaint
    assert rows_of(store) == rows[:3]


def test_a_disk_that_fails_is_no_end_of_the_dead_letters(store: SQLiteStore) -> None:
    class Failing:
        text_factory = str

        def execute(self, query: str, values: Any) -> Any:
            raise sqlite3.OperationalError("disk I/O error")

    connection, store._connection = store._connection, Failing()  # type: ignore[assignment]
    try:
        with pytest.raises(StoreError, match="cannot be read: disk I/O error"):
            store.letters(-1, 100)
    finally:
        store._connection = connection


def test_a_malformed_letter_hides_no_other(path: Path, store: SQLiteStore) -> None:
    rows = [row._replace(id=f"\xfcber {row.row}") for row in some_rows(1, 4, due=0)]
    burials = [Burial(0, row.row, 1, Reason.LOST, "why", 0) for row in rows]
    store.commit(Batch(puts=rows, burials=burials))
    before = letters_of(store)
    store.close(True)
    edit(
        path,
        "UPDATE dead_letter SET reason='bored' WHERE row=1",
        "UPDATE dead_letter SET text=CAST(x'ff' AS TEXT) WHERE row=2",
        "UPDATE dead_letter SET id=x'ff', key=1.5 WHERE row=3",
    )
    store.open()
    found = letters_of(store)
    assert [letter.row for letter in found] == [1, 2, 3, 4]
    assert found[3] == before[3]
    odd = [Reason.UNREADABLE] * 3
    assert [letter.reason for letter in found[:3]] == odd
    assert all("is damaged in the file" in letter.text for letter in found[:3])
    assert rows_of(store) == []


def test_a_malformed_function_is_an_error(path: Path, store: SQLiteStore) -> None:
    store.commit(Batch([Function(1, "f", "m:f", False)]))
    store.close(True)
    edit(path, "UPDATE func SET name=x'ff'")
    with pytest.raises(StoreError, match="cannot be opened: its table func is damaged"):
        SQLiteStore(path, wait=0).open()


# ---- power cuts


def test_torn_logs_hold_what_was_committed_before(path: Path, store: SQLiteStore) -> None:
    """A power cut may leave unsynced bytes cut, zeroed or flipped; a prefix must survive."""
    chance = random.Random(5)
    number, history = 1, [0]
    for turn in range(40):
        puts = [
            Row(number + i, chance.randrange(1 << 48), 1, b"x" * chance.choice((10, 10, 5000)))
            for i in range(chance.choice((1, 7, 100)))
        ]
        number += len(puts)
        store.commit(Batch(puts=puts))
        history.append(number - 1)
        if turn == 20:
            assert store._connection is not None
            store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            safe = number - 1
        if turn > 20:
            copy = path.with_name("copy.db")
            shutil.copy(path, copy)
            shutil.copy(f"{path}-wal", f"{copy}-wal")
            tear(Path(f"{copy}-wal"), chance)
            torn = SQLiteStore(copy, wait=0)
            opening = torn.open()
            rows = rows_of(torn)
            assert not torn.complaint
            assert pragma(torn, "integrity_check") == "ok"
            assert sorted(row.row for row in rows) == list(range(1, len(rows) + 1))
            assert opening.tasks == len(rows) >= safe
            assert len(rows) in history  # whole batches
            torn.close(True)
            copy.unlink()


def tear(log: Path, chance: random.Random) -> None:
    size = log.stat().st_size
    with open(log, "r+b") as file:
        at = chance.randrange(max(1, size - 20_000), size)
        match chance.choice(("cut", "zero", "flip")):
            case "cut":
                file.truncate(at)
            case "zero":
                file.seek(at // 512 * 512)
                file.write(bytes(min(4096, size - at // 512 * 512)))
            case "flip":
                file.seek(at)
                byte = file.read(1)[0]
                file.seek(at)
                file.write(bytes([byte ^ 1]))


def test_without_its_log_a_file_is_as_of_the_last_checkpoint(
    path: Path, store: SQLiteStore
) -> None:
    rows = some_rows(1, 10)
    store.commit(Batch(puts=rows))
    store.close(True)
    store.open()
    store.commit(Batch(puts=some_rows(11, 10)))
    shutil.copy(path, path.with_name("copy.db"))
    assert opened_rows(path.with_name("copy.db")) == rows


# ---- the file is not ours any more


@pytest.mark.parametrize("end", ["", "-wal", ".lock"])
@pytest.mark.parametrize("replaced", [False, True])
def test_files_that_were_moved_are_noticed_before_anything_is_written(
    path: Path, store: SQLiteStore, end: str, replaced: bool
) -> None:
    store.commit(Batch(puts=some_rows(1, 1)))
    file = Path(f"{path}{end}")
    away = path.with_name("away")
    file.rename(away)
    if replaced:
        shutil.copy(away, file)
    for use in (
        lambda: store.commit(Batch(puts=some_rows(2, 1))),
        lambda: store.tick(0),
        lambda: store.size(),
        lambda: store.backup(str(path.with_name("copy"))),
    ):
        with pytest.raises(StoreGone, match=r"tasks\.db"):
            use()
    away.rename(file)
    store.commit(Batch(puts=some_rows(3, 1)))
    assert [row.row for row in rows_of(store)] == [3, 1] or len(rows_of(store)) == 2


def test_another_hosts_name_in_the_lock_is_noticed(path: Path, store: SQLiteStore) -> None:
    lock = Path(f"{path}.lock")
    before = lock.read_bytes()
    lock.write_bytes(b"1 another-boot 0123\n")
    with pytest.raises(StoreGone, match="lock of .* is lost"):
        store.commit(Batch())
    lock.write_bytes(before)
    store.commit(Batch())


def test_nothing_of_the_old_file_is_written_to_its_replacement(path: Path) -> None:
    old = SQLiteStore(path, wait=0)
    old.open()
    store = SQLiteStore(path.with_name("new.db"), wait=0)
    store.open()
    store.commit(Batch(puts=some_rows(50, 5)))
    store.close(True)
    old.commit(Batch(puts=some_rows(1, 10)))
    path.rename(path.with_name("moved.db"))
    path.with_name("new.db").rename(path)
    with pytest.raises(StoreGone):
        old.close(True)
    assert opened_rows(path) == some_rows(50, 5)
    assert opened_rows(path.with_name("moved.db")) == some_rows(1, 10)


def test_a_log_that_was_deleted_is_not_missed(path: Path) -> None:
    store = SQLiteStore(path, wait=0)
    store.open()
    store.commit(Batch(puts=some_rows(1, 10)))
    Path(f"{path}-wal").unlink()
    with pytest.raises(StoreGone, match="-wal was deleted"):
        store.commit(Batch(puts=some_rows(11, 10)))
    with pytest.raises(StoreGone):
        store.close(True)
    assert opened_rows(path) == some_rows(1, 10)


@pytest.mark.parametrize("size", [0, 100, 4095])
def test_nothing_is_written_to_an_emptied_file(
    path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SQLiteStore(path, wait=0)
    forgotten: list[Any] = []
    monkeypatch.setattr(store, "_forget", lambda: forgotten.append(store._connection))
    store.open()
    store.commit(Batch(puts=some_rows(1, 10)))
    whole = path.read_bytes()[:size]
    os.truncate(path, size)
    uses: list[Callable[[], object]] = [
        lambda: store.commit(Batch()),
        lambda: store.tick(0),
        lambda: store.close(True),
    ]
    for use in uses:
        with pytest.raises(StoreGone, match=r"tasks\.db was deleted, moved, emptied or replaced"):
            use()
    assert path.read_bytes() == whole  # so a backup that is copied into it stays as it is
    forgotten.pop().close()


# ---- ticks


def test_a_tick_is_the_heartbeat(path: Path, store: SQLiteStore) -> None:
    store.tick(123 * 10**16)
    store.close(False)
    assert store.open().heartbeat == 123 * 10**16


def test_without_its_lock_file_the_last_write_is_the_heartbeat(
    path: Path, store: SQLiteStore
) -> None:
    store.commit(Batch(puts=some_rows(1, 1)))
    copy = path.with_name("copy.db")
    for end, seconds in (("", 10**9), ("-wal", 10**9 + 5)):
        shutil.copy(f"{path}{end}", f"{copy}{end}")
        os.utime(f"{copy}{end}", (seconds, seconds))
    copied = SQLiteStore(copy, wait=0)
    opening = copied.open()
    assert (opening.clean, opening.heartbeat) == (False, (10**9 + 5) * 10**9)
    copied.close(True)


def test_ticks_free_unused_pages(store: SQLiteStore) -> None:
    rows = some_rows(1, 3000, payload=b"x" * 3000)
    store.commit(Batch(puts=rows))
    full = pragma(store, "page_count")
    store.commit(Batch(strikes=[(row.bucket, row.row) for row in rows[10:]]))
    for _ in range(30):
        store.tick(0)
    assert pragma(store, "page_count") < full // 2
    assert rows_of(store) == rows[:10]
    assert pragma(store, "integrity_check") == "ok"


def test_a_statement_fits_what_sqlite_takes(
    path: Path, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old builds accept only 999 values at a time."""
    store.close(True)
    connect = sqlite3.connect

    def connect_to_an_old_one(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **kwargs)
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_to_an_old_one)
    store.open()
    store.commit(Batch(puts=some_rows(1, 300)))
    assert len(rows_of(store)) == 300


def test_the_file_is_readable_by_people(path: Path, store: SQLiteStore) -> None:
    row = Row(1, 10**18, 3, b"p", "key", "id", begun=Begun.YES)
    store.commit(Batch([Function(3, "remind", "users:remind", False)], puts=[row]))
    store.close(True)
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(
            "SELECT name, place, task.id, key, state FROM task JOIN func ON func = number"
        ).fetchall()
    assert found == [("remind", "users:remind", "id", "key", 1)]
