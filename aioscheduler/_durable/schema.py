"""What is in the file of a store: its tables, how it is made, and what becomes of older ones.

- A file is made whole beside its place, under a name that nobody has, and then put there: at its
  path there is none, or all of it. No other file is deleted, whatever it is called.
- What is not ours is looked at read-only, and left as it is: other programs' databases, files that
  are none, and those of a newer version of this package.
- An older one is copied (`PATH.before-2`) and then changed, in one transaction.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from ..errors import StoreError

APPLICATION = 0x61696F73
"""In the header of each file of ours ("aios"), by which `file` and we know it."""

_HEAD = 100  # bytes of SQLite's header, as its file format says

SCHEMA = 2
"""The number of what follows; any change of it is another number, and a row of `MIGRATIONS`."""

# A paused repeat's task is to be in the last bucket. A task's `state` is a `records.Begun`.
TABLES = (
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE func(number INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, place TEXT NOT NULL, "
    "once INTEGER NOT NULL)",
    "CREATE TABLE task(bucket INTEGER NOT NULL, row INTEGER NOT NULL, due INTEGER NOT NULL, "
    "func INTEGER NOT NULL, payload BLOB NOT NULL, key, id TEXT, state INTEGER NOT NULL DEFAULT 0, "
    "attempt INTEGER NOT NULL DEFAULT 1, failed INTEGER NOT NULL DEFAULT 0, "
    "losses INTEGER NOT NULL DEFAULT 0, given INTEGER, options BLOB, PRIMARY KEY(bucket, row)) "
    "WITHOUT ROWID",
    "CREATE UNIQUE INDEX task_id ON task(id) WHERE id IS NOT NULL",
    "CREATE TABLE dead_letter(row INTEGER PRIMARY KEY, due INTEGER NOT NULL, "
    "func INTEGER NOT NULL, payload BLOB NOT NULL, key, id TEXT, attempt INTEGER NOT NULL, "
    "options BLOB, reason TEXT NOT NULL, text TEXT NOT NULL, at INTEGER NOT NULL)",
    "CREATE TABLE repeat(id TEXT PRIMARY KEY, rule BLOB NOT NULL, func INTEGER NOT NULL, "
    "payload BLOB NOT NULL, key, options BLOB, last INTEGER, next INTEGER, "
    "paused INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID",
)

MIGRATIONS: Mapping[int, Sequence[str]] = {
    1: (  # counts, which would take a minute to make of a hundred million
        "INSERT INTO meta SELECT 'tasks', count(*) FROM task",
        "INSERT INTO meta SELECT 'letters', count(*) FROM dead_letter",
    ),
}
"""What makes the schema of a number that of the next one."""


def look_at(path: str, had_host: bool, writable: bool = True) -> bool:
    """Make sure that there is a store at a path, or may be one; change nothing.

    Args:
        path: Where.
        had_host: Whether a host was at work on it before, as its lock file tells.
        writable: Whether it is to be written, too.

    Returns:
        Whether there is one.

    Raises:
        StoreError: There is something else, or it cannot be read, or written.
    """
    log = os.path.exists(f"{path}-wal") and os.path.getsize(f"{path}-wal") > 0
    if not os.path.lexists(path):
        if log:
            raise StoreError(
                f"{path} is gone, but {path}-wal is there, with tasks that were stored: put the "
                "file back, or move that one away to begin with an empty store"
            )
        return False
    if not os.path.isfile(path):
        raise StoreError(f"{path} is no file: give the path of one")
    if not os.access(path, os.R_OK | os.W_OK if writable else os.R_OK):
        wanted = "read and written" if writable else "read"
        raise StoreError(
            f"{path} cannot be {wanted} by this user (uid {os.geteuid()}): change its owner or "
            f"mode{', or mount its filesystem writable' if writable else ''}"
        )
    if os.path.getsize(path) == 0:
        if log or had_host:
            raise StoreError(
                f"{path} is empty, but a host has stored tasks in it: put a backup in its place, "
                "or delete it to begin with an empty store"
            )
        return False
    # SQLite may take a good file for a bad one without its log: one whose host died, or whose disk
    # was full, while what the log has was being copied into it.
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    if len(head) < _HEAD or not head.startswith(b"SQLite format 3\0"):
        raise StoreError(
            f"{path} is no file of durable tasks: give another path, or put a backup in its place"
        )
    if head[68:72] != APPLICATION.to_bytes(4, "big"):
        raise StoreError(
            f"{path} is the database of another program, and is left alone: give another path"
        )
    # Immutable: no lock is taken, no log read or made. What the log has is checked when it is open.
    address = f"{Path(path).as_uri()}?mode=ro&immutable=1"
    with suppress(sqlite3.Error), closing(sqlite3.connect(address, uri=True)) as connection:
        check(connection, path)
    return True


def last_written(path: str) -> int:
    """Return when a file, or its log, was last written, in nanoseconds since the epoch."""
    both = (name for name in (path, f"{path}-wal") if os.path.exists(name))
    return max(os.stat(name).st_mtime_ns for name in both)


def check(connection: sqlite3.Connection, path: str) -> int:
    """Return the schema of a file, which is ours or older.

    Raises:
        StoreError: It is newer.
        sqlite3.Error: It cannot be read.
    """
    found = connection.execute("SELECT value FROM meta WHERE name='schema'").fetchone()
    if found is None or not isinstance(found[0], int):
        raise sqlite3.DatabaseError("it has no schema in its table meta")
    if found[0] > SCHEMA:
        raise StoreError(
            f"{path} was written by a newer aioscheduler (schema {found[0]}, and this one knows "
            f"{SCHEMA}): update aioscheduler, or give another path"
        )
    return int(found[0])


def make(path: str) -> None:
    """Put an empty store where there is none, or an empty file.

    Raises:
        OSError: It cannot be written.
        sqlite3.Error: It cannot be written.
    """
    with _put_in_place(path) as part, closing(_connect(part)) as connection:
        fill(connection)
        connection.execute("PRAGMA journal_mode=WAL")


def fill(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty database."""
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA fullfsync=ON")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f"PRAGMA application_id={APPLICATION}")
    for statement in TABLES:
        connection.execute(statement)
    meta = {"schema": SCHEMA, "next_row": 1, "clean": 1, "tasks": 0, "letters": 0}
    connection.executemany("INSERT INTO meta VALUES(?, ?)", meta.items())
    connection.execute("INSERT INTO meta VALUES('identity', ?)", (secrets.token_bytes(16),))
    connection.execute("COMMIT")


def configure(connection: sqlite3.Connection, path: str, synchronous: str) -> None:
    """Set up a connection that has done nothing yet, and have it take the file.

    Args:
        connection: To a file that is there.
        path: Of that.
        synchronous: "full" or "normal".

    Raises:
        StoreError: SQLite can keep no log there.
        sqlite3.Error: Another connection has the file, or it cannot be read.
    """
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # before anything: then there is no -shm
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise StoreError(
            f"{path} is on a filesystem where SQLite can keep no log (its journal_mode is {mode}): "
            "put it on a local disk"
        )
    for pragma in (
        f"synchronous={synchronous}",
        "fullfsync=ON",  # on macOS fsync alone does not reach the disk; elsewhere it says nothing
        "checkpoint_fullfsync=ON",
        "cache_size=-65536",
        "wal_autocheckpoint=4000",
        f"journal_size_limit={64 << 20}",
        "secure_delete=OFF",  # some systems build SQLite with it
        "trusted_schema=OFF",
    ):
        connection.execute(f"PRAGMA {pragma}")


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring an open file to this schema, with a copy made before if it was older.

    Raises:
        StoreError: It is newer.
        OSError: The copy cannot be written; nothing has changed.
        sqlite3.Error: It cannot be read, copied or changed; nothing has changed.
    """
    found = check(connection, path)
    if found == SCHEMA:
        return
    copy(connection, f"{path}.before-{SCHEMA}")
    connection.execute("BEGIN IMMEDIATE")
    try:
        for number in range(found, SCHEMA):
            for statement in MIGRATIONS[number]:
                connection.execute(statement)
        connection.execute("UPDATE meta SET value=? WHERE name='schema'", (SCHEMA,))
        connection.execute("COMMIT")
    except BaseException:
        roll_back(connection)
        raise
    # An older program is to see in the file itself, and not in the log alone, that it is newer.
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def copy(connection: sqlite3.Connection, path: str) -> None:
    """Copy a database to a file, whole; one that is there is replaced when the copy is done.

    Raises:
        OSError: It cannot be written; what was there still is.
        sqlite3.Error: It cannot be read or written; what was there still is.
    """
    with _put_in_place(path) as part, closing(_connect(part)) as target:
        target.execute("PRAGMA fullfsync=ON")
        connection.backup(target)


def back_up(connection: sqlite3.Connection, path: str, target: str) -> str:
    """Copy a database to a new file; return the absolute path of that.

    Args:
        connection: To the database.
        path: Of that.
        target: Of the copy.

    Raises:
        StoreError: Something is there, or it cannot be written; nothing is left there.
        TypeError: `target` is no str.
    """
    check_target(target)
    place = os.path.abspath(target)
    try:
        copy(connection, place)
    except (sqlite3.Error, OSError, UnicodeError) as error:
        raise StoreError(
            f"{path} could not be copied to {place}: {error}. Nothing is left there; is there "
            "room, and may this user write there?"
        ) from error
    return place


def check_target(path: str) -> None:
    """Make sure that a copy can be put at a path and be read there as it is.

    Raises:
        StoreError: Something is there, or is left of another database that was.
        TypeError: It is no str.
    """
    if not isinstance(path, str):
        raise TypeError(f"path must be a str or a path of one, not {type(path).__name__}")
    if not path or "\0" in path:
        raise StoreError(f"path must be the path of a new file, not {path!r}")
    if os.path.lexists(path):
        raise StoreError(f"{path} is there already: give the backup a name of its own")
    for left in (f"{path}-wal", f"{path}-journal"):
        if os.path.lexists(left):
            raise StoreError(
                f"{left} is there already, which SQLite would take for the log of the backup, and "
                "spoil it: give the backup a name of its own, or move that file away"
            )


@contextmanager
def _put_in_place(path: str) -> Iterator[str]:
    """Give a new empty file to be filled, and put it at a path if that was done.

    Its name is none that anybody can have chosen: what else is there is not ours to delete.
    """
    part = f"{path}.{secrets.token_hex(8)}"
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        for end in ("", "-journal", "-wal", "-shm"):
            with suppress(OSError):
                os.unlink(f"{part}{end}")
        raise
    sync_folder(path)


def _connect(path: str) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


def sync_folder(path: str) -> None:
    """Have a new name of a file on disk, where the system knows of that."""
    with suppress(OSError):
        fd = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def roll_back(connection: sqlite3.Connection) -> None:
    """End a transaction, if there still is one: SQLite has ended it after some errors."""
    if connection.in_transaction:
        with suppress(sqlite3.Error):  # the error that led here is to be told
            connection.execute("ROLLBACK")
