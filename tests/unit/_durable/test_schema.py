"""Making, copying and checking a file; `test_sqlite` has files that are not ours or damaged."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from aioscheduler._durable import schema
from aioscheduler._durable.records import Batch
from aioscheduler._durable.repeatrecords import RepeatRow
from aioscheduler._durable.sqlite import SQLiteStore
from aioscheduler.errors import StoreError


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "tasks.db")


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        schema.fill(connection)
        yield connection


def names(path: str) -> list[str]:
    return sorted(file.name for file in Path(path).parent.iterdir())


def test_a_file_is_made_whole(path: str) -> None:
    assert not schema.look_at(path, had_host=True)
    schema.make(path)
    assert names(path) == ["tasks.db"]
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    assert schema.look_at(path, had_host=False)
    assert names(path) == ["tasks.db"]  # a look leaves nothing
    with closing(sqlite3.connect(path)) as connection:
        assert schema.check(connection, path) == schema.SCHEMA
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)


def test_a_file_that_cannot_be_made_whole_is_not_there(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "TABLES", (*schema.TABLES, "CREATE nonsense"))
    with pytest.raises(sqlite3.Error):
        schema.make(path)
    assert names(path) == []


def test_the_tables_are_those_that_were_agreed_on(connection: sqlite3.Connection) -> None:
    """Every release must read them: to change them, change SCHEMA and MIGRATIONS, too."""
    assert schema.SCHEMA == 2
    found = {
        table: [column[1] for column in connection.execute(f"PRAGMA table_info({table})")]
        for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type='table'")
    }
    assert found == {
        "meta": ["name", "value"],
        "func": ["number", "name", "place", "once"],
        "task": [
            *("bucket", "row", "due", "func", "payload", "key", "id", "state"),
            *("attempt", "failed", "losses", "given", "options"),
        ],
        "dead_letter": [
            *("row", "due", "func", "payload", "key", "id", "attempt"),
            *("options", "reason", "text", "at"),
        ],
        "repeat": [
            *("id", "text", "terms", "func", "payload", "key", "options"),
            *("next", "last", "ran", "skipped", "paused", "reason"),
        ],
    }


def test_no_table_is_scanned_for_one_task(connection: sqlite3.Connection) -> None:
    for query in (
        "DELETE FROM task WHERE bucket=? AND row=?",
        "SELECT min(bucket) FROM task WHERE bucket > ?",
        "SELECT * FROM task WHERE bucket = ? AND row = ?",
        "SELECT * FROM task WHERE id = ?",
    ):
        marks = (1,) * query.count("?")
        plan = connection.execute(f"EXPLAIN QUERY PLAN {query}", marks).fetchall()
        assert all("SCAN" not in step[3] for step in plan), (query, plan)


def test_every_older_schema_can_be_migrated() -> None:
    assert sorted(schema.MIGRATIONS) == list(range(1, schema.SCHEMA))


def test_a_migration_needs_each_step(
    connection: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last = schema.SCHEMA, schema.SCHEMA + 2
    steps = {
        first: ["CREATE TABLE a(x)", "INSERT INTO a VALUES(1)"],
        first + 1: ["UPDATE a SET x=x+1"],
    }
    monkeypatch.setattr(schema, "SCHEMA", last)
    monkeypatch.setattr(schema, "MIGRATIONS", steps)
    path = str(tmp_path / "tasks.db")
    schema.migrate(connection, path)
    assert connection.execute("SELECT x FROM a").fetchall() == [(2,)]
    assert schema.check(connection, path) == last
    assert names(path) == [f"tasks.db.before-{last}"]
    with closing(sqlite3.connect(f"{path}.before-{last}")) as before:
        assert schema.check(before, path) == first


def test_tasks_and_letters_of_the_first_schema_are_counted(path: str) -> None:
    schema.make(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM meta WHERE name IN ('tasks', 'letters')")
        connection.execute("UPDATE meta SET value=1 WHERE name='schema'")
        connection.execute("INSERT INTO func VALUES(1, 'f', 'm:f', 0)")
        values = [(row,) for row in range(3)]
        connection.executemany(
            "INSERT INTO task(bucket, row, due, func, payload) VALUES(0, ?, 0, 1, x'')", values
        )
        connection.execute("INSERT INTO dead_letter VALUES(9,0,1,x'',NULL,NULL,1,NULL,'lost','',0)")
        connection.commit()
    store = SQLiteStore(path)
    opening = store.open()
    assert (opening.tasks, opening.letters) == (3, 1)
    store.close(clean=True)
    assert store.open().tasks == 3  # by now it is written
    store.close(clean=True)


def test_a_file_of_the_first_schema_gets_a_table_of_repeats(path: str) -> None:
    schema.make(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE repeat")
        connection.execute(
            "CREATE TABLE repeat(id TEXT PRIMARY KEY, rule BLOB NOT NULL, func INTEGER NOT NULL, "
            "payload BLOB NOT NULL, key, options BLOB, last INTEGER, next INTEGER, "
            "paused INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID"
        )
        connection.execute("UPDATE meta SET value=1 WHERE name='schema'")
        connection.execute("DELETE FROM meta WHERE name IN ('tasks', 'letters')")
        connection.commit()
    store = SQLiteStore(path)
    assert store.open().repeats == []
    row = RepeatRow("a", "every", b"terms", 1, b"")
    store.commit(Batch(repeats=[row]))
    store.close(clean=True)
    assert store.open().repeats == [row]
    store.close(clean=True)


def test_an_older_program_sees_without_the_log_that_a_file_is_newer(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema.make(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        schema.configure(connection, path, "full")
        with monkeypatch.context() as newer:
            newer.setattr(schema, "MIGRATIONS", {schema.SCHEMA: ["CREATE TABLE more(x)"]})
            newer.setattr(schema, "SCHEMA", schema.SCHEMA + 1)
            schema.migrate(connection, path)
        with pytest.raises(StoreError, match="newer aioscheduler"):
            schema.look_at(path, had_host=True)


def test_a_copy_replaces_one_when_it_is_whole(connection: sqlite3.Connection, path: str) -> None:
    Path(path).write_bytes(b"older")
    schema.copy(connection, path)
    assert names(path) == ["tasks.db"]
    assert schema.look_at(path, had_host=False)
    connection.close()
    whole = Path(path).read_bytes()
    with pytest.raises(sqlite3.Error):
        schema.copy(connection, path)
    assert names(path) == ["tasks.db"]
    assert Path(path).read_bytes() == whole


NEIGHBOURS = [
    f"tasks.db{end}{more}" for end in (".part", ".new") for more in ("", "-journal", "-wal", "-shm")
]


@pytest.mark.parametrize("fails", [False, True])
def test_no_other_file_is_touched(
    connection: sqlite3.Connection, path: str, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """Whatever its name: another store, perhaps, or the one that is being copied."""
    for name in NEIGHBOURS:
        Path(path).with_name(name).write_text(name)
    if fails:
        monkeypatch.setattr(schema, "TABLES", (*schema.TABLES, "CREATE nonsense"))
        with pytest.raises(sqlite3.Error):
            schema.make(path)
        connection.close()
        with pytest.raises(sqlite3.Error):
            schema.copy(connection, path)
    else:
        schema.make(path)
        schema.copy(connection, path)
    assert names(path) == sorted([*NEIGHBOURS, *([] if fails else ["tasks.db"])])
    assert [Path(path).with_name(name).read_text() for name in NEIGHBOURS] == NEIGHBOURS


def test_a_copy_that_fails_leaves_nothing(connection: sqlite3.Connection, path: str) -> None:
    class Breaking(sqlite3.Connection):
        def backup(self, target: sqlite3.Connection, **_: Any) -> None:
            target.execute("PRAGMA journal_mode=WAL")
            target.execute("CREATE TABLE half(x)")
            self.before = names(path)
            raise sqlite3.OperationalError("disk I/O error")

    with closing(sqlite3.connect(":memory:", factory=Breaking)) as breaking:
        with pytest.raises(sqlite3.OperationalError):
            schema.copy(breaking, path)
        assert len(breaking.before) == 3  # it, its log and what indexes that
    assert names(path) == []


@pytest.mark.parametrize("end", ["", "-wal", "-journal"])
def test_a_copy_is_put_where_nothing_spoils_it(path: str, end: str) -> None:
    schema.check_target(path)
    Path(f"{path}{end}").touch()
    with pytest.raises(StoreError, match=rf"tasks\.db{end} is there already.* name of its own"):
        schema.check_target(path)


@pytest.mark.parametrize(
    ("target", "error"), [("", StoreError), ("a\0b", StoreError), (b"x", TypeError)]
)
def test_an_invalid_path_of_a_copy_is_refused(target: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="path must be"):
        schema.check_target(target)


def test_a_disk_without_a_log_is_refused(path: str) -> None:
    class Odd(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> Any:
            return super().execute("SELECT 'delete'" if "journal_mode" in sql else sql, *args)

    schema.make(path)
    with (
        closing(sqlite3.connect(path, factory=Odd)) as connection,
        pytest.raises(StoreError, match="journal_mode is delete.: put it on a local disk"),
    ):
        schema.configure(connection, path, "full")


def test_rolling_back_an_ended_transaction_does_nothing(connection: sqlite3.Connection) -> None:
    schema.roll_back(connection)
    connection.execute("BEGIN")
    connection.execute("DELETE FROM meta")
    schema.roll_back(connection)
    assert not connection.in_transaction
    assert schema.check(connection, "x") == schema.SCHEMA


def test_a_folder_that_cannot_be_synced_is_no_trouble(tmp_path: Path) -> None:
    schema.sync_folder(str(tmp_path / "no" / "file"))
    schema.sync_folder(str(tmp_path / "file"))
