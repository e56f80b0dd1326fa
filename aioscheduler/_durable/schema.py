"""The schema of a store's file: its tables, how it is made, checked, upgraded and copied.

- A file is made completely beside its path, under a random name, and then moved there: the path has
  no file or a whole one. No other file is deleted, whatever its name.
- Files that are not ours are opened read-only and left alone: other programs' databases, files that
  are no databases, and those of a newer version of this package.
- An older one is copied (`PATH.before-2`) and then upgraded in one transaction.
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
"""The application id in the header of our files ("aios"), by which `file` and we know them."""

_HEAD = 100  # bytes of SQLite's header, by its file format

SCHEMA = 2
"""The number of the schema below; any change of it needs the next one, and a migration."""

# A task's `state` is a `records.Begun`.
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
    "CREATE TABLE repeat(id TEXT PRIMARY KEY, text TEXT NOT NULL, terms BLOB NOT NULL, "
    "func INTEGER NOT NULL, payload BLOB NOT NULL, key, options BLOB, next INTEGER, last INTEGER, "
    "ran INTEGER NOT NULL, skipped INTEGER NOT NULL, paused INTEGER NOT NULL, reason TEXT) "
    "WITHOUT ROWID",
)

MIGRATIONS: Mapping[int, Sequence[str]] = {
    1: (  # store the counts: to count a hundred million tasks takes a minute
        "INSERT INTO meta SELECT 'tasks', count(*) FROM task",
        "INSERT INTO meta SELECT 'letters', count(*) FROM dead_letter",
        "DROP TABLE repeat",  # nothing was ever in it
        TABLES[-1],
    ),
}
"""The statements that upgrade each schema to the next one."""


def look_at(path: str, had_host: bool, writable: bool = True) -> bool:
    """Check that there is a store at a path, or that one can be made; change nothing.

    Args:
        path: The path.
        had_host: Whether a host has used it before, by its lock file.
        writable: Whether it must be writable.

    Returns:
        Whether there is one.

    Raises:
        StoreError: Something else is there, or it cannot be read, or written.
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
        raise StoreError(f"{path} is not a file: give the path of one")
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
    # Without its log SQLite may take a good file for a bad one, if the host died or the disk was
    # full in a checkpoint. So look at the header alone.
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    if len(head) < _HEAD or not head.startswith(b"SQLite format 3\0"):
        raise StoreError(
            f"{path} is not a file of durable tasks: give another path, or restore a backup"
        )
    if head[68:72] != APPLICATION.to_bytes(4, "big"):
        raise StoreError(
            f"{path} is the database of another program, and is left alone: give another path"
        )
    # Immutable: no lock is taken, no log read or made. The log is checked when the file is opened.
    address = f"{Path(path).as_uri()}?mode=ro&immutable=1"
    with suppress(sqlite3.Error), closing(sqlite3.connect(address, uri=True)) as connection:
        check(connection, path)
    return True


def last_written(path: str) -> int:
    """Return when a file, or its log, was last written, in nanoseconds since the epoch."""
    both = (name for name in (path, f"{path}-wal") if os.path.exists(name))
    return max(os.stat(name).st_mtime_ns for name in both)


def check(connection: sqlite3.Connection, path: str) -> int:
    """Return the schema of a file, which is this version's or older.

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
    """Make an empty store where there is no file, or an empty one.

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
    """Set up a new connection, and have it take the file.

    Args:
        connection: A connection to a file that exists.
        path: Its path.
        synchronous: "full" or "normal".

    Raises:
        StoreError: SQLite cannot keep a log there.
        sqlite3.Error: Another connection has the file, or it cannot be read.
    """
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # first, so that no -shm file is made
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise StoreError(
            f"{path} is on a filesystem where SQLite can keep no log (its journal_mode is {mode}): "
            "put it on a local disk"
        )
    for pragma in (
        f"synchronous={synchronous}",
        "fullfsync=ON",  # on macOS fsync alone does not reach the disk; elsewhere it has no effect
        "checkpoint_fullfsync=ON",
        "cache_size=-65536",
        "wal_autocheckpoint=4000",
        f"journal_size_limit={64 << 20}",
        "secure_delete=OFF",  # some systems build SQLite with it
        "trusted_schema=OFF",
    ):
        connection.execute(f"PRAGMA {pragma}")


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Upgrade an open file to this schema; copy it first if it is older.

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
    # An older version must see in the file itself, and not in the log alone, that it is newer.
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def copy(connection: sqlite3.Connection, path: str) -> None:
    """Copy a database to a file; one that exists is replaced when the copy is complete.

    Raises:
        OSError: It cannot be written; the former file is still there.
        sqlite3.Error: It cannot be read or written; the former file is still there.
    """
    with _put_in_place(path) as part, closing(_connect(part)) as target:
        target.execute("PRAGMA fullfsync=ON")
        connection.backup(target)


def back_up(connection: sqlite3.Connection, path: str, target: str) -> str:
    """Copy a database to a new file; return its absolute path.

    Args:
        connection: A connection to the database.
        path: Its path.
        target: The path of the copy.

    Raises:
        StoreError: `target` exists, or cannot be written; nothing is left there.
        TypeError: `target` is not a str.
    """
    check_target(target)
    absolute = os.path.abspath(target)
    try:
        copy(connection, absolute)
    except (sqlite3.Error, OSError, UnicodeError) as error:
        raise StoreError(
            f"{path} could not be copied to {absolute}: {error}. Nothing is left there; is there "
            "room, and may this user write there?"
        ) from error
    return absolute


def check_target(path: str) -> None:
    """Check that a copy can be put at a path, and that SQLite would read it unchanged.

    Raises:
        StoreError: It exists, or the log of a former database does.
        TypeError: It is not a str.
    """
    if not isinstance(path, str):
        raise TypeError(f"path must be a str or a path object, not {type(path).__name__}")
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
    """Yield the name of a new empty file; move it to a path if the block succeeds.

    The name is random: any other file there is not ours to delete.
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
    """Sync the folder of a file, so that its new name is on disk, where the system can."""
    with suppress(OSError):
        fd = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def roll_back(connection: sqlite3.Connection) -> None:
    """Roll back, if there still is a transaction: after some errors SQLite has ended it."""
    if connection.in_transaction:
        with suppress(sqlite3.Error):  # the error that led here matters
            connection.execute("ROLLBACK")
